//! Bytes to requests: RESP arrays of strings, and inline commands.
//!
//! Bytes come in pieces, as the socket has them. A request that lies in one piece is read where it lies; of one
//! that does not, the beginning is kept, and its long words go straight into memory of their own. Memory grows
//! with what has arrived, not with what a length says is to come.

use std::fmt;
use std::sync::Arc;

use super::args::{LONG, Span};
use super::{Ahead, Args, parse_i64};

/// Bytes of a line, at most: of an inline command, or of a length.
const LINE_MAX: usize = 64 * 1024;

/// Words of a request, at most.
const WORDS_MAX: i64 = i32::MAX as i64;

/// What a client may send before it has said its password: words, and bytes of a word.
const STRANGER_WORDS_MAX: i64 = 10;
const STRANGER_WORD_MAX: i64 = 16 * 1024;

/// Something that is no request. The connection cannot go on.
#[derive(Clone, PartialEq, Eq)]
pub struct ProtocolError(String);

impl fmt::Debug for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProtocolError {}

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a word, at most: `proto-max-bulk-len`.
    pub word_max: i64,
    /// Whether the client has yet to say its password.
    pub stranger: bool,
}

impl Bounds {
    /// Whether words may have any length that is not long.
    fn allow_short_words(self) -> bool {
        !self.stranger && self.word_max >= LONG as i64
    }
}

/// The bytes of a connection, read as requests.
#[derive(Debug, Default)]
pub struct Parser {
    /// Bytes of requests that are not complete, or not asked for yet.
    buf: Vec<u8>,
    /// Where in `buf` the next request begins.
    start: usize,
    progress: Progress,
}

/// How far the request that begins at some place has been read.
#[derive(Debug, Default)]
struct Progress {
    /// Whether the request is complete, and was given out.
    is_done: bool,
    /// Bytes read of it.
    at: usize,
    /// Bytes after `at` in which there is no line end: who sends a line byte by byte has it looked through once.
    searched: usize,
    /// Words that are to come, or `None` before their number was read.
    to_come: Option<usize>,
    /// The length of the next word, where that was read.
    word_len: Option<usize>,
    /// A long word of which some is there, and its whole length.
    filling: Option<(Vec<u8>, usize)>,
    spans: Vec<Span>,
    long: Vec<Arc<Vec<u8>>>,
    /// The words of an inline command.
    inline: Vec<u8>,
    is_inline: bool,
}

impl Parser {
    /// The next request in what is kept and then in `input`, from which what was read is taken. `None` when
    /// more has to arrive; all of `input` is then kept.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        bounds: Bounds,
    ) -> Result<Option<Args<'a>>, ProtocolError> {
        if std::mem::take(&mut self.progress.is_done) {
            self.progress.restart();
        }
        if self.start == self.buf.len() {
            self.buf.clear();
            self.start = 0;
            if self.buf.capacity() > LINE_MAX {
                self.buf = Vec::new();
            }
        }
        self.progress.fill(input);
        let is_kept = !self.buf.is_empty() || self.progress.at > 0;
        if is_kept {
            self.buf.extend_from_slice(input);
            *input = &[];
        }
        let source: &[u8] = if is_kept { &self.buf[self.start..] } else { input };
        let complete = self.progress.advance(source, bounds)?;
        if complete {
            self.progress.is_done = true;
            let len = self.progress.at;
            let request = take(&self.buf, &mut self.start, input, is_kept, len);
            return Ok(Some(self.progress.args(request)));
        }
        // What comes next belongs to a long word, or to what is kept.
        let at = self.progress.at;
        if let Some((word, _)) = &mut self.progress.filling {
            word.extend_from_slice(&source[at..]);
            if is_kept {
                self.buf.truncate(self.start + at);
            } else {
                self.buf.extend_from_slice(&input[..at]);
            }
        } else if !is_kept {
            self.buf.extend_from_slice(input);
        }
        *input = &[];
        Ok(None)
    }

    /// Keeps `input` for later: the connection has to wait for something else first.
    pub fn keep(&mut self, input: &[u8]) {
        // The request that was given out last lies before `start`; a long word is not being filled then.
        self.buf.extend_from_slice(input);
    }

    /// Reads the next requests of what is kept, or else of `input`, into `ahead`, in place of those before: for
    /// [`Parser::next_ahead`]. `visit` is called with the second word of each, which mostly is the key.
    pub fn read_ahead(
        &self,
        input: &[u8],
        bounds: Bounds,
        ahead: &mut Ahead,
        visit: impl FnMut(&[u8]),
    ) {
        if self.is_within_request() || !bounds.allow_short_words() {
            return ahead.clear();
        }
        ahead.read(if self.has_kept() { &self.buf[self.start..] } else { input }, visit);
    }

    /// The next request, as [`Parser::next`] gives it, of those that were read ahead. Nothing else was read since.
    #[inline]
    pub fn next_ahead<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        ahead: &'a mut Ahead,
    ) -> Option<Args<'a>> {
        let (spans, len) = ahead.take()?;
        let is_kept = self.has_kept();
        let request = take(&self.buf, &mut self.start, input, is_kept, len);
        Some(Args::new(request, spans, &[]))
    }

    /// Bytes that are kept.
    pub fn kept(&self) -> usize {
        let filling = self.progress.filling.as_ref().map_or(0, |(word, _)| word.len());
        let long = self.progress.long.iter().map(|word| word.len()).sum::<usize>();
        self.buf.len() - self.start + filling + if self.progress.is_done { 0 } else { long }
    }

    /// Whether nothing is kept, not even the memory of a request that was given out.
    pub fn is_idle(&self) -> bool {
        self.buf.is_empty() && self.progress.long.is_empty() && !self.is_within_request()
    }

    /// Whether there are bytes that may hold a request.
    pub fn has_kept(&self) -> bool {
        self.buf.len() > self.start
    }

    /// Whether some of a request has been read, but not all.
    fn is_within_request(&self) -> bool {
        let progress = &self.progress;
        !progress.is_done
            && (progress.at > 0 || progress.to_come.is_some() || progress.filling.is_some())
    }
}

impl Progress {
    fn restart(&mut self) {
        self.at = 0;
        self.to_come = None;
        self.word_len = None;
        self.spans.clear();
        self.long.clear();
        self.is_inline = false;
    }

    fn args<'a>(&'a self, request: &'a [u8]) -> Args<'a> {
        let source = if self.is_inline { &self.inline } else { request };
        Args::new(source, &self.spans, &self.long)
    }

    /// Takes what belongs to the long word from `input`.
    fn fill(&mut self, input: &mut &[u8]) {
        let Some((word, len)) = &mut self.filling else {
            return;
        };
        let missing = *len - word.len();
        let (now, rest) = input.split_at(missing.min(input.len()));
        word.extend_from_slice(now);
        *input = rest;
        if word.len() == *len {
            let (word, _) = self.filling.take().expect("the word is being filled");
            self.add_long(word);
        }
    }

    fn add_long(&mut self, word: Vec<u8>) {
        self.spans.push(Span::Long(self.long.len() as u32));
        self.long.push(Arc::new(word));
    }

    /// Reads on in the bytes of the request, of which `source` has all so far; whether it is complete. With
    /// `filling` set, the bytes from `at` on belong to the long word.
    fn advance(&mut self, source: &[u8], bounds: Bounds) -> Result<bool, ProtocolError> {
        let is_new = self.at == 0 && self.to_come.is_none();
        if is_new && bounds.allow_short_words() {
            if let Some(len) = whole_request(source, &mut self.spans) {
                self.at = len;
                self.searched = 0;
                return Ok(true);
            }
            self.spans.clear();
        }
        self.advance_by_parts(source, bounds)
    }

    /// The same in general.
    fn advance_by_parts(&mut self, source: &[u8], bounds: Bounds) -> Result<bool, ProtocolError> {
        loop {
            if self.filling.is_some() {
                return Ok(false);
            }
            let Some(to_come) = self.to_come else {
                // Empty lines are nothing.
                let Some(&first) = source.get(self.at) else {
                    return Ok(false);
                };
                if first != b'*' {
                    return self.inline(source);
                }
                let Some(count) = self.length(source, "mbulk count")? else {
                    return Ok(false);
                };
                let count = count.filter(|&count| count <= WORDS_MAX);
                let count = count.ok_or_else(|| error("invalid multibulk length"))?;
                if bounds.stranger && count > STRANGER_WORDS_MAX {
                    return Err(error("unauthenticated multibulk length"));
                }
                self.to_come = Some(count.max(0) as usize);
                continue;
            };
            // The line end after a word is read with what follows it.
            let ends = self.word_ends();
            if source.len() < self.at + ends {
                return Ok(false);
            }
            if to_come == self.spans.len() {
                self.at += ends;
                return Ok(true);
            }
            if self.word_len.is_none() {
                self.at += ends;
                let Some(&first) = source.get(self.at) else {
                    self.at -= ends;
                    return Ok(false);
                };
                if first != b'$' {
                    let first = first.escape_ascii();
                    return Err(error(&format!("expected '$', got '{first}'")));
                }
                let Some(len) = self.length(source, "bulk count")? else {
                    self.at -= ends;
                    return Ok(false);
                };
                let len = len.filter(|&len| (0..=bounds.word_max).contains(&len));
                let len = len.ok_or_else(|| error("invalid bulk length"))?;
                if bounds.stranger && len > STRANGER_WORD_MAX {
                    return Err(error("unauthenticated bulk length"));
                }
                self.word_len = Some(len as usize);
            }
            let Some(len) = self.word_len else { continue };
            let end = self.at + len;
            if len >= LONG {
                self.word_len = None;
                if source.len() < end {
                    self.filling = Some((Vec::new(), len));
                    return Ok(false);
                }
                let word = source[self.at..end].to_vec();
                self.at = end;
                self.add_long(word);
            } else {
                if source.len() < end {
                    return Ok(false);
                }
                self.word_len = None;
                let span = Span::Inline { start: self.at as u32, end: end as u32 };
                self.spans.push(span);
                self.at = end;
            }
        }
    }

    /// Bytes of the line end of the word before, which was not read with it.
    fn word_ends(&self) -> usize {
        if self.spans.is_empty() || self.word_len.is_some() { 0 } else { 2 }
    }

    /// Reads a line of a letter and a number; `None` when it has not arrived, `Some(None)` if it is no number.
    fn length(&mut self, source: &[u8], what: &str) -> Result<Option<Option<i64>>, ProtocolError> {
        let line = &source[self.at..];
        if let Some((value, len)) = short_length(line) {
            self.at += len;
            self.searched = 0;
            return Ok(Some(Some(value)));
        }
        let end = match self.line_end(line, b'\r') {
            Some(end) if end < LINE_MAX => end,
            None if line.len() <= LINE_MAX => return Ok(None),
            _ => return Err(error(&format!("too big {what} string"))),
        };
        if line.len() < end + 2 {
            return Ok(None);
        }
        self.at += end + 2;
        self.searched = 0;
        Ok(Some(parse_i64(&line[1..end])))
    }

    /// Where the line that begins at `at` ends, in what has arrived of it.
    fn line_end(&mut self, line: &[u8], last: u8) -> Option<usize> {
        let end = line[self.searched..].iter().position(|&byte| byte == last);
        let end = end.map(|end| self.searched + end);
        self.searched = end.unwrap_or(line.len());
        end
    }

    /// Reads a line of words between spaces, some of them in quotes.
    fn inline(&mut self, source: &[u8]) -> Result<bool, ProtocolError> {
        let line = &source[self.at..];
        let Some(end) = self.line_end(line, b'\n') else {
            if line.len() > LINE_MAX {
                return Err(error("too big inline request"));
            }
            return Ok(false);
        };
        self.at += end + 1;
        self.searched = 0;
        self.is_inline = true;
        self.inline.clear();
        let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        let words = split_words(line).ok_or_else(|| error("unbalanced quotes in request"))?;
        for word in words {
            let start = self.inline.len() as u32;
            self.inline.extend_from_slice(&word);
            self.spans.push(Span::Inline { start, end: self.inline.len() as u32 });
        }
        Ok(true)
    }
}

/// Passes over a request of `len` bytes, of those that are kept or of `input`. Gives the bytes that begin with it.
#[inline]
fn take<'a, 'i: 'a>(
    kept: &'a [u8],
    start: &mut usize,
    input: &mut &'i [u8],
    is_kept: bool,
    len: usize,
) -> &'a [u8] {
    if is_kept {
        let request = &kept[*start..];
        *start += len;
        request
    } else {
        let request = *input;
        *input = &request[len..];
        request
    }
}

/// Reads a request as most are, complete and of short words: where they lie, and the bytes of the request. `None` of
/// any other; `spans` may hold some words then.
#[inline]
pub(super) fn whole_request(source: &[u8], spans: &mut Vec<Span>) -> Option<usize> {
    if source.first() != Some(&b'*') {
        return None;
    }
    let (count, mut at) = short_length(source)?;
    for _ in 0..count {
        let line = source.get(at..)?;
        if line.first() != Some(&b'$') {
            return None;
        }
        let (len, head) = short_length(line)?;
        let start = at + head;
        let end = start + len as usize;
        if len >= LONG as i64 {
            return None;
        }
        spans.push(Span::Inline { start: start as u32, end: end as u32 });
        at = end + 2;
    }
    (at <= source.len()).then_some(at)
}

/// The number in a line of a letter and one to five digits, and the bytes of the line: `None` of any other line.
#[inline(always)]
fn short_length(line: &[u8]) -> Option<(i64, usize)> {
    // One and two digits are by far the most frequent.
    match *line {
        [_, one @ b'1'..=b'9', b'\r', _, ..] => Some((i64::from(one - b'0'), 4)),
        [_, ten @ b'1'..=b'9', one @ b'0'..=b'9', b'\r', _, ..] => {
            Some((i64::from(ten - b'0') * 10 + i64::from(one - b'0'), 5))
        }
        _ => longer_length(line),
    }
}

fn longer_length(line: &[u8]) -> Option<(i64, usize)> {
    let first = line.get(1)?.wrapping_sub(b'0');
    // What begins with 0 is 0, or for others to judge.
    if !(1..=9).contains(&first) {
        return None;
    }
    let mut value = i64::from(first);
    let mut at = 2;
    while at < line.len().min(7) {
        let digit = line[at].wrapping_sub(b'0');
        if digit > 9 {
            let ends = line[at] == b'\r' && line.len() > at + 1;
            return ends.then_some((value, at + 2));
        }
        value = value * 10 + i64::from(digit);
        at += 1;
    }
    None
}

/// The words of a line: between spaces; `"..."` with `\n`, `\r`, `\t`, `\b`, `\a`, `\\`, `\"` and `\xHH`; `'...'`
/// with `\'`. `None` where a quote is not closed, or is not followed by a space.
pub fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        loop {
            match rest {
                [] => break,
                [byte, ..] if byte.is_ascii_whitespace() || *byte == 0 => break,
                [quote @ (b'"' | b'\''), after @ ..] => {
                    rest = quoted(*quote, after, &mut word)?;
                    if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                        return None;
                    }
                    break;
                }
                [byte, after @ ..] => {
                    word.push(*byte);
                    rest = after;
                }
            }
        }
        if rest.first() == Some(&0) {
            rest = &[];
        }
        words.push(word);
    }
}

/// Reads up to the closing quote, and gives what follows it.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [byte, after @ ..] if *byte == quote => return Some(after),
            [b'\\', b'\'', after @ ..] if quote == b'\'' => {
                word.push(b'\'');
                rest = after;
            }
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
                word.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

fn error(what: &str) -> ProtocolError {
    ProtocolError(format!("Protocol error: {what}"))
}

#[cfg(test)]
mod tests {
    use super::{Ahead, Bounds, Parser};

    const BOUNDS: Bounds = Bounds { word_max: 512 << 20, stranger: false };

    /// The requests in `pieces`, as words; or the error.
    fn read(pieces: &[&[u8]]) -> Result<Vec<Vec<Vec<u8>>>, String> {
        let mut parser = Parser::default();
        let mut requests = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(args) =
                parser.next(&mut input, BOUNDS).map_err(|error| error.to_string())?
            {
                requests.push(args.iter_from(0).map(<[u8]>::to_vec).collect());
            }
            assert!(input.is_empty(), "what is not a request yet is kept");
        }
        Ok(requests)
    }

    fn words(words: &[&[u8]]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.to_vec()).collect()
    }

    /// The same, with requests read ahead where that can be, and how many those were.
    fn read_with_ahead(pieces: &[&[u8]]) -> (Vec<Vec<Vec<u8>>>, usize) {
        let (mut parser, mut ahead) = (Parser::default(), Ahead::default());
        let (mut requests, mut keys, mut count) = (Vec::new(), Vec::new(), 0);
        for piece in pieces {
            let mut input = *piece;
            loop {
                parser.read_ahead(input, BOUNDS, &mut ahead, |key| keys.push(key.to_vec()));
                count += ahead.len();
                while let Some(args) = parser.next_ahead(&mut input, &mut ahead) {
                    if args.len() > 1 {
                        assert_eq!(keys.remove(0), args[1]);
                    }
                    requests.push(args.iter_from(0).map(<[u8]>::to_vec).collect());
                }
                assert!(keys.is_empty() && ahead.is_empty());
                match parser.next(&mut input, BOUNDS).unwrap() {
                    Some(args) => requests.push(args.iter_from(0).map(<[u8]>::to_vec).collect()),
                    None => break,
                }
            }
        }
        (requests, count)
    }

    #[test]
    fn requests_are_the_same_when_they_are_read_ahead() {
        let get = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
        let mut bytes = [&get[..]; 40].concat();
        bytes.extend(b"*1\r\n$4\r\nPING\r\n");
        bytes.extend(get);
        let whole = read(&[&bytes]).unwrap();
        assert_eq!(whole.len(), 42);
        // Of the 42, the 33rd ends the first time of reading ahead, and the last is left alone.
        assert_eq!(read_with_ahead(&[&bytes]), (whole.clone(), 41));
        for odd in ["*0\r\n", "*-1\r\n", "GET a\r\n", "*2\r\n$0\r\n\r\n$1\r\nx\r\n"] {
            let mixed = [odd.as_bytes(), get, odd.as_bytes(), &bytes].concat();
            let expected = read(&[&mixed]).unwrap();
            assert_eq!(read_with_ahead(&[&mixed]).0, expected, "{odd:?}");
            for len in [1, 3, 50, 200] {
                let pieces: Vec<&[u8]> = mixed.chunks(len).collect();
                assert_eq!(read_with_ahead(&pieces).0, expected, "{odd:?} in pieces of {len}");
            }
        }
        let mut long = b"*2\r\n$3\r\nGET\r\n$40000\r\n".to_vec();
        long.extend([b'k'; 40_000]);
        long.extend(b"\r\n");
        let mixed = [get, &long[..], get].concat();
        assert_eq!(read_with_ahead(&[&mixed]).0, read(&[&mixed]).unwrap());
    }

    #[test]
    fn nothing_is_read_ahead_of_who_has_not_said_the_password() {
        let (parser, mut ahead) = (Parser::default(), Ahead::default());
        for (stranger, word_max) in [(true, 512 << 20), (false, 1024)] {
            let bounds = Bounds { word_max, stranger };
            parser.read_ahead(b"*1\r\n$4\r\nPING\r\n", bounds, &mut ahead, |_| ());
            assert!(ahead.is_empty());
        }
    }

    #[test]
    fn requests_are_the_same_however_they_are_cut() {
        let long = vec![b'v'; 40_000];
        let mut bytes = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*3\r\n$3\r\nSET\r\n$40000\r\n".to_vec();
        bytes.extend(&long);
        bytes.extend(b"\r\n$0\r\n\r\nPING\r\n*1\r\n$4\r\nPING\r\n");
        let expected = vec![
            words(&[b"GET", b"a"]),
            words(&[b"SET", &long, b""]),
            words(&[b"PING"]),
            words(&[b"PING"]),
        ];
        assert_eq!(read(&[&bytes]).unwrap(), expected);
        let cuts = (1..80).chain(40_030..bytes.len());
        for cut in cuts {
            let (one, other) = bytes.split_at(cut.min(bytes.len()));
            assert_eq!(read(&[one, other]).unwrap(), expected, "cut at {cut}");
        }
        let pieces: Vec<&[u8]> = bytes.chunks(7).collect();
        assert_eq!(read(&pieces).unwrap(), expected);
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&pieces).unwrap(), expected);
    }

    #[test]
    fn inline_words_may_be_quoted() {
        let line = b"set \"a b\\x41\\n\" 'it\\'s'  x\r\n";
        assert_eq!(read(&[line]).unwrap(), [words(&[b"set", b"a bA\n", b"it's", b"x"])]);
        assert_eq!(
            read(&[b"set \"a\n"]).unwrap_err(),
            "Protocol error: unbalanced quotes in request"
        );
        assert_eq!(read(&[b"\r\n"]).unwrap(), [words(&[])]);
    }

    #[test]
    fn what_is_no_request_is_named() {
        for (bytes, text) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*99999999999\r\n", "invalid multibulk length"),
            (b"*1\r\n+4\r\n", "expected '$', got '+'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$999999999999\r\n", "invalid bulk length"),
        ] {
            assert_eq!(read(&[bytes]).unwrap_err(), format!("Protocol error: {text}"));
        }
        let endless = vec![b'a'; 70_000];
        assert_eq!(read(&[&endless]).unwrap_err(), "Protocol error: too big inline request");
    }

    #[test]
    fn a_line_that_arrives_byte_by_byte_is_looked_through_once() {
        let bounds = Bounds { word_max: 1 << 20, stranger: false };
        for (begin, line) in [("", "SET a "), ("*", "1"), ("*1\r\n$", "1")] {
            let mut parser = Parser::default();
            assert!(parser.next(&mut begin.as_bytes(), bounds).unwrap().is_none());
            let searched = parser.progress.searched;
            for (count, byte) in line.bytes().cycle().take(5000).enumerate() {
                assert!(parser.next(&mut &[byte][..], bounds).unwrap().is_none());
                assert_eq!(parser.progress.searched, searched + count + 1);
            }
        }
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let mut parser = Parser::default();
        let mut input = &b"*2\r\n$3\r\nSET\r\n$500000000\r\nabc"[..];
        assert!(parser.next(&mut input, BOUNDS).unwrap().is_none());
        assert!(parser.kept() < 100);
        let (word, len) = parser.progress.filling.as_ref().unwrap();
        assert_eq!((word.len(), *len), (3, 500_000_000));
        assert!(word.capacity() < 100);
    }
}
