//! Replies as bytes, in the version of the protocol that the client asked for.

use std::sync::Arc;

use super::args::LONG;
use super::number::write_f64;
use crate::error::Error;

/// The version of the protocol a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proto {
    /// RESP2, which every client speaks until it says HELLO 3.
    #[default]
    Resp2,
    /// RESP3: maps, sets, doubles, booleans, pushes and a null of their own.
    Resp3,
}

/// Where the length of an aggregate goes that is known only after its elements: see [`Reply::begin`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Length(usize);

/// Values that lie between the bytes of replies: after how many of them, and which.
pub type Shared = Vec<(usize, Arc<Vec<u8>>)>;

/// The bytes of one or more replies. Long values are shared, not copied.
#[derive(Debug, Default)]
pub struct Reply {
    proto: Proto,
    bytes: Vec<u8>,
    shared: Shared,
}

impl Reply {
    /// No bytes yet, in that version of the protocol.
    pub fn new(proto: Proto) -> Reply {
        Reply { proto, ..Reply::default() }
    }

    /// The version of the protocol.
    pub fn proto(&self) -> Proto {
        self.proto
    }

    /// From here on, replies are in that version.
    pub fn set_proto(&mut self, proto: Proto) {
        self.proto = proto;
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.shared.is_empty()
    }

    /// Whether it has memory to write to.
    pub fn has_memory(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Gives it memory to write to, in place of what it has; nothing was written yet.
    pub fn set_memory(&mut self, bytes: Vec<u8>) {
        debug_assert!(
            self.is_empty() && bytes.is_empty(),
            "no reply is lost, and none comes from before"
        );
        self.bytes = bytes;
    }

    /// The bytes written, shared values included.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared.iter().map(|(_, value)| value.len()).sum::<usize>()
    }

    /// Bytes that are a reply already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A status, such as `OK`, without line ends.
    pub fn simple(&mut self, status: &str) {
        self.bytes.push(b'+');
        self.line(status.as_bytes());
    }

    /// `OK`.
    pub fn ok(&mut self) {
        self.bytes.extend_from_slice(b"+OK\r\n");
    }

    /// An error. Line ends in it become spaces.
    pub fn error(&mut self, error: &Error) {
        self.bytes.push(b'-');
        let text = error.text().bytes();
        self.bytes.extend(text.map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// An integer.
    pub fn int(&mut self, value: i64) {
        self.head(b':', value);
    }

    /// A count or a length as an integer.
    pub fn count(&mut self, value: usize) {
        self.int(value as i64);
    }

    /// 1 or 0.
    pub fn flag(&mut self, value: bool) {
        self.bytes.extend_from_slice(if value { b":1\r\n" } else { b":0\r\n" });
    }

    /// A string of bytes.
    pub fn bulk(&mut self, value: &[u8]) {
        self.bytes.reserve(value.len() + 32);
        self.head(b'$', value.len() as i64);
        self.line(value);
    }

    /// A string of bytes which, when long, is shared instead of copied.
    pub fn bulk_shared(&mut self, value: &Arc<Vec<u8>>) {
        if value.len() < LONG {
            return self.bulk(value);
        }
        self.head(b'$', value.len() as i64);
        self.shared.push((self.bytes.len(), value.clone()));
        self.line(b"");
    }

    /// The decimal text of an integer as a string.
    pub fn bulk_int(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A double: of its own type in RESP3, a string in RESP2.
    pub fn double(&mut self, value: f64) {
        let mut text = Vec::with_capacity(24);
        write_f64(&mut text, value);
        match self.proto {
            Proto::Resp2 => self.bulk(&text),
            Proto::Resp3 => {
                self.bytes.push(b',');
                self.line(&text);
            }
        }
    }

    /// A double for people: the same type, without exponent, with 17 decimals at most and no zeros at their end.
    pub fn decimal(&mut self, value: f64) {
        let text = format!("{value:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        let text = if text == "-0" { "0" } else { text };
        match self.proto {
            Proto::Resp2 => self.bulk(text.as_bytes()),
            Proto::Resp3 => {
                self.bytes.push(b',');
                self.line(text.as_bytes());
            }
        }
    }

    /// A truth value: of its own type in RESP3, 1 or 0 in RESP2.
    pub fn bool(&mut self, value: bool) {
        match self.proto {
            Proto::Resp2 => self.flag(value),
            Proto::Resp3 => self.bytes.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" }),
        }
    }

    /// A text for people, with its format (`txt`, `mkd`): a string in RESP2.
    pub fn verbatim(&mut self, format: &[u8; 3], text: &[u8]) {
        match self.proto {
            Proto::Resp2 => self.bulk(text),
            Proto::Resp3 => {
                self.head(b'=', text.len() as i64 + 4);
                self.bytes.extend_from_slice(format);
                self.bytes.push(b':');
                self.line(text);
            }
        }
    }

    /// No value, where there would be a string.
    pub fn null(&mut self) {
        self.bytes.extend_from_slice(match self.proto {
            Proto::Resp2 => b"$-1\r\n",
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// No value, where there would be an array.
    pub fn null_array(&mut self) {
        self.bytes.extend_from_slice(match self.proto {
            Proto::Resp2 => b"*-1\r\n",
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// An array whose elements are written next.
    pub fn array(&mut self, len: usize) {
        self.head(b'*', len as i64);
    }

    /// A map whose `pairs` of keys and values are written next: an array of twice as many in RESP2.
    pub fn map(&mut self, pairs: usize) {
        match self.proto {
            Proto::Resp2 => self.head(b'*', pairs as i64 * 2),
            Proto::Resp3 => self.head(b'%', pairs as i64),
        }
    }

    /// A set whose elements are written next: an array in RESP2.
    pub fn set(&mut self, len: usize) {
        self.head(if self.proto == Proto::Resp3 { b'~' } else { b'*' }, len as i64);
    }

    /// A message that answers no request: an array in RESP2.
    pub fn push(&mut self, len: usize) {
        self.head(if self.proto == Proto::Resp3 { b'>' } else { b'*' }, len as i64);
    }

    /// Begins an array whose length is not known yet; [`Reply::end_array`] writes it.
    pub fn begin(&mut self) -> Length {
        Length(self.bytes.len())
    }

    /// Ends an array of `len` elements, all of which were written since `begin`.
    pub fn end_array(&mut self, begin: Length, len: usize) {
        self.insert_head(begin, b'*', len);
    }

    /// Ends a map of `pairs`, all of which were written since `begin`.
    pub fn end_map(&mut self, begin: Length, pairs: usize) {
        match self.proto {
            Proto::Resp2 => self.insert_head(begin, b'*', pairs * 2),
            Proto::Resp3 => self.insert_head(begin, b'%', pairs),
        }
    }

    /// Ends a set of `len`, all of which were written since `begin`.
    pub fn end_set(&mut self, begin: Length, len: usize) {
        self.insert_head(begin, if self.proto == Proto::Resp3 { b'~' } else { b'*' }, len);
    }

    /// Forgets what was written since `begin`, for an error found half-way.
    pub fn undo(&mut self, begin: Length) {
        self.bytes.truncate(begin.0);
        self.shared.retain(|&(at, _)| at <= begin.0);
    }

    /// Takes away what was written since `begin`, as replies of their own.
    pub fn split_off(&mut self, begin: Length) -> Reply {
        let mut rest = Reply::new(self.proto);
        rest.bytes = self.bytes.split_off(begin.0);
        let first = self.shared.partition_point(|&(at, _)| at < begin.0);
        rest.shared = self.shared.split_off(first);
        rest.shared.iter_mut().for_each(|(at, _)| *at -= begin.0);
        rest
    }

    /// Moves everything written to the end of `other`.
    pub fn append_to(&mut self, other: &mut Reply) {
        let base = other.bytes.len();
        other.bytes.append(&mut self.bytes);
        other.shared.extend(self.shared.drain(..).map(|(at, value)| (base + at, value)));
    }

    /// The bytes, and the shared values with the number of bytes before each; empty afterwards.
    pub fn take(&mut self) -> (Vec<u8>, Shared) {
        (std::mem::take(&mut self.bytes), std::mem::take(&mut self.shared))
    }

    /// Whether no value is shared, so that all of it is in the bytes.
    pub fn is_in_one_piece(&self) -> bool {
        self.shared.is_empty()
    }

    /// Puts bytes that were taken back; nothing was written since.
    pub fn put_back(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.is_empty(), "replies stay in their order");
        self.bytes = bytes;
    }

    /// All bytes in one piece, for tests and small replies.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        let mut from = 0;
        for (at, value) in &self.shared {
            all.extend_from_slice(&self.bytes[from..*at]);
            all.extend_from_slice(value);
            from = *at;
        }
        all.extend_from_slice(&self.bytes[from..]);
        all
    }

    fn insert_head(&mut self, begin: Length, kind: u8, len: usize) {
        let mut text = itoa::Buffer::new();
        let text = text.format(len).as_bytes();
        let head = std::iter::once(kind).chain(text.iter().copied()).chain(*b"\r\n");
        self.bytes.splice(begin.0..begin.0, head);
        let added = text.len() + 3;
        for (at, _) in &mut self.shared {
            if *at >= begin.0 {
                *at += added;
            }
        }
    }

    #[inline]
    fn head(&mut self, kind: u8, value: i64) {
        // Most lengths are short ones.
        match value {
            0..=9 => self.bytes.extend_from_slice(&[kind, b'0' + value as u8, b'\r', b'\n']),
            10..=99 => {
                let (ten, one) = (b'0' + (value / 10) as u8, b'0' + (value % 10) as u8);
                self.bytes.extend_from_slice(&[kind, ten, one, b'\r', b'\n']);
            }
            _ => {
                self.bytes.push(kind);
                self.line(itoa::Buffer::new().format(value).as_bytes());
            }
        }
    }

    fn line(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.bytes.extend_from_slice(b"\r\n");
    }
}
