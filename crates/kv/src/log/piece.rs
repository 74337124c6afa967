//! Pieces of snapshots: a key with its value, or a part of a large value.
//!
//! | part | what |
//! |---|---|
//! | 1 byte | type in the lower 4 bits: 0 string, 1 list, 2 set, 3 hash, 4 sorted set; 16: the key's first piece; 32: its last |
//! | number | database |
//! | bytes | key |
//! | number, number | of a first piece: time of expiry in ms since 1970 plus one, or 0; access |
//! | bytes | of a string: a part of it |
//! | number | of other types: how many elements follow |
//! | elements | bytes; of hashes two each; of sorted sets 8 bytes of a double before them |
//!
//! Numbers are as in `record`, bytes are behind their number. Elements of a set, fields of a hash and members of a
//! sorted set may come twice.

use super::record::{read_bytes, read_varint, write_varint};
use crate::store::{Access, DBS, Kind, ValueRef};

const FIRST: u8 = 16;
const LAST: u8 = 32;

/// Bytes of a piece of a large value, about.
pub const PIECE_LEN: usize = if cfg!(test) { 300 } else { 16 * 1024 };
/// From so many elements on, or from more bytes than a piece has, a value is large. The tests have many small ones.
const LARGE_COUNT: usize = if cfg!(test) { 100 } else { 128 };
/// How many times as large a value is that takes long to save at once: about a tenth of a millisecond and more.
const SLOW: usize = if cfg!(test) { 1 } else { 16 };

/// Whether a value is saved in pieces.
pub fn is_large(value: ValueRef<'_>) -> bool {
    is_larger(value, 1)
}

/// Whether a value takes so long to save at once that a command had better wait until slices have done it.
pub fn is_slow(value: ValueRef<'_>) -> bool {
    is_larger(value, SLOW)
}

fn is_larger(value: ValueRef<'_>, times: usize) -> bool {
    match value {
        ValueRef::Str(string) => string.len() > times * PIECE_LEN,
        ValueRef::List(list) => list.len() > times * LARGE_COUNT,
        ValueRef::Set(set) => set.len() > times * LARGE_COUNT,
        ValueRef::Hash(hash) => hash.len() > times * LARGE_COUNT,
        ValueRef::Zset(zset) => zset.len() > times * LARGE_COUNT,
    }
}

/// What a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The database.
    pub db: usize,
    /// The key.
    pub key: &'a [u8],
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// When or how often it was used.
    pub access: Access,
}

/// How much of a value has been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    begun: bool,
    /// An index, offset, or cursor.
    at: u64,
}

/// Adds a piece with the next elements of a value, `len` bytes about; whether it is the last.
pub fn push(
    out: &mut Vec<u8>,
    owner: Owner<'_>,
    value: ValueRef<'_>,
    progress: &mut Progress,
    len: usize,
) -> bool {
    let start = out.len();
    let kind = match value.kind() {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Set => 2,
        Kind::Hash => 3,
        Kind::Zset => 4,
    };
    out.push(kind);
    write_varint(out, owner.db as u64);
    push_bytes(out, owner.key);
    if !progress.begun {
        out[start] |= FIRST;
        write_varint(out, owner.expires_ms.map_or(0, |at| at.saturating_add(1)));
        write_varint(out, u64::from(owner.access));
    }
    progress.begun = true;
    let last = match value {
        ValueRef::Str(string) => string.with(|bytes| {
            let rest = &bytes[progress.at as usize..];
            let part = &rest[..rest.len().min(len)];
            push_bytes(out, part);
            progress.at += part.len() as u64;
            part.len() == rest.len()
        }),
        other => push_elements(out, other, progress, len),
    };
    if last {
        out[start] |= LAST;
    }
    last
}

fn push_elements(
    out: &mut Vec<u8>,
    value: ValueRef<'_>,
    progress: &mut Progress,
    len: usize,
) -> bool {
    let mut elements = Vec::new();
    let mut count = 0;
    // Of types without an order: elements that are visited at once.
    const STEP: usize = 64;
    let at = &mut progress.at;
    let last = loop {
        let more = match value {
            ValueRef::Str(_) => false,
            ValueRef::List(list) => {
                let before = count;
                for element in list.iter_from(*at as usize).take(STEP) {
                    push_bytes(&mut elements, element);
                    count += 1;
                }
                *at += count - before;
                *at < list.len() as u64
            }
            ValueRef::Zset(zset) => {
                let before = count;
                for (member, score) in zset.iter_from(*at as usize).take(STEP) {
                    elements.extend_from_slice(&score.to_le_bytes());
                    push_bytes(&mut elements, member);
                    count += 1;
                }
                *at += count - before;
                *at < zset.len() as u64
            }
            ValueRef::Set(set) => {
                *at = set.scan(*at, STEP, |member| {
                    push_bytes(&mut elements, member);
                    count += 1;
                });
                *at != 0
            }
            ValueRef::Hash(hash) => {
                *at = hash.scan(*at, STEP, |field, value| {
                    push_bytes(&mut elements, field);
                    push_bytes(&mut elements, value);
                    count += 1;
                });
                *at != 0
            }
        };
        if !more || elements.len() >= len {
            break !more;
        }
    };
    write_varint(out, count);
    out.extend_from_slice(&elements);
    last
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A piece that was read.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The type of the value.
    pub kind: Kind,
    /// Whether it is the key's first piece. If not, the owner's expiry and access mean nothing.
    pub is_first: bool,
    /// Whether it is the key's last.
    pub is_last: bool,
    /// What it belongs to.
    pub owner: Owner<'a>,
    /// Of a string: the part of it.
    pub string: &'a [u8],
    count: u64,
    elements: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Takes a piece off the front. `None` where there is none.
    pub fn take(rest: &mut &'a [u8]) -> Option<Piece<'a>> {
        let (&tag, after) = rest.split_first()?;
        *rest = after;
        let kind = match tag & 15 {
            0 => Kind::String,
            1 => Kind::List,
            2 => Kind::Set,
            3 => Kind::Hash,
            4 => Kind::Zset,
            _ => return None,
        };
        if tag & !(15 | FIRST | LAST) != 0 {
            return None;
        }
        let db = usize::try_from(read_varint(rest)?).ok().filter(|&db| db < DBS)?;
        let key = read_bytes(rest)?;
        let (mut expires_ms, mut access) = (None, 0);
        if tag & FIRST != 0 {
            expires_ms = read_varint(rest)?.checked_sub(1);
            access = Access::try_from(read_varint(rest)?).ok()?;
        }
        let mut piece = Piece {
            kind,
            is_first: tag & FIRST != 0,
            is_last: tag & LAST != 0,
            owner: Owner { db, key, expires_ms, access },
            string: &[],
            count: 0,
            elements: &[],
        };
        if kind == Kind::String {
            piece.string = read_bytes(rest)?;
            return Some(piece);
        }
        piece.count = read_varint(rest)?;
        let start = *rest;
        for _ in 0..piece.count {
            take_element(kind, rest)?;
        }
        piece.elements = &start[..start.len() - rest.len()];
        Some(piece)
    }

    /// The elements: of sets and lists the first part alone means something, of sorted sets also the score.
    pub fn elements(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8], f64)> + use<'a> {
        let (kind, mut rest) = (self.kind, self.elements);
        (0..self.count).map_while(move |_| take_element(kind, &mut rest))
    }
}

fn take_element<'a>(kind: Kind, rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8], f64)> {
    let mut score = 0.0;
    if kind == Kind::Zset {
        let (bytes, after) = rest.split_first_chunk()?;
        *rest = after;
        score = f64::from_le_bytes(*bytes);
        if score.is_nan() {
            return None;
        }
    }
    let first = read_bytes(rest)?;
    let second = if kind == Kind::Hash { read_bytes(rest)? } else { &[] };
    Some((first, second, score))
}
