//! Values as RDB files have them.

use std::borrow::Cow;

use super::source::{Source, Wrong};
use super::{lzf, packed};
use crate::protocol::parse_f64;
use crate::store::{Hash, Limits, List, Set, Side, StrRef, Value, ValueRef, Zset};

/// The version that is written, and the last one that is read.
pub const VERSION: u16 = 10;

/// Redis' checksum.
pub static CRC64: crc::Crc<u64, crc::Table<16>> =
    crc::Crc::<u64, crc::Table<16>>::new(&crc::CRC_64_REDIS);

/// Types of values, by their numbers in files.
mod kind {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    pub const ZSET_2: u8 = 5;
    pub const MODULE: u8 = 6;
    pub const MODULE_2: u8 = 7;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const ZSET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const LIST_QUICKLIST: u8 = 14;
    pub const STREAM: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const STREAM_2: u8 = 19;
    pub const STREAM_3: u8 = 21;
}

/// A value as `DUMP` gives it: type, value, version and checksum.
pub fn dump(value: ValueRef<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value);
    out.extend_from_slice(&VERSION.to_le_bytes());
    let crc = CRC64.checksum(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The value that `DUMP` has given, here or in Redis: first whether its version and checksum are right, then what
/// it is.
pub fn restore(bytes: &[u8], limits: &Limits) -> Option<Result<Value, Wrong>> {
    let (rest, crc) = bytes.split_last_chunk::<8>()?;
    let (payload, version) = rest.split_last_chunk::<2>()?;
    let is_known = u16::from_le_bytes(*version) <= VERSION;
    if !is_known || CRC64.checksum(rest) != u64::from_le_bytes(*crc) {
        return None;
    }
    let mut source = Source::new(payload);
    let value = source.u8().and_then(|kind| read(kind, &mut source, limits));
    Some(value.and_then(|value| match value {
        Some(value) if source.rest().is_empty() => Ok(value),
        _ => Err(Wrong::Bad("it is empty, or something follows")),
    }))
}

/// Adds type and value.
pub fn write(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Str(string) => {
            out.push(kind::STRING);
            match string {
                StrRef::Int(number) => write_int(out, number),
                other => other.with(|bytes| write_string(out, bytes)),
            }
        }
        ValueRef::List(list) => {
            out.push(kind::LIST);
            write_len(out, list.len() as u64);
            list.iter_from(0).for_each(|element| write_string(out, element));
        }
        ValueRef::Set(set) => {
            out.push(kind::SET);
            write_len(out, set.len() as u64);
            set.iter().for_each(|member| write_string(out, &member));
        }
        ValueRef::Hash(hash) => {
            out.push(kind::HASH);
            write_len(out, hash.len() as u64);
            for (field, value) in hash.iter() {
                write_string(out, field);
                write_string(out, value);
            }
        }
        ValueRef::Zset(zset) => {
            out.push(kind::ZSET_2);
            write_len(out, zset.len() as u64);
            for (member, score) in zset.iter_from(0) {
                write_string(out, member);
                out.extend_from_slice(&score.to_le_bytes());
            }
        }
    }
}

/// Adds a length.
pub fn write_len(out: &mut Vec<u8>, len: u64) {
    if len < 1 << 6 {
        out.push(len as u8);
    } else if len < 1 << 14 {
        out.extend_from_slice(&(0x4000 | len as u16).to_be_bytes());
    } else if let Ok(len) = u32::try_from(len) {
        out.push(0x80);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(0x81);
        out.extend_from_slice(&len.to_be_bytes());
    }
}

/// Adds a string.
pub fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    write_len(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Adds a string that is the text of an integer.
fn write_int(out: &mut Vec<u8>, number: i64) {
    if let Ok(number) = i8::try_from(number) {
        out.extend_from_slice(&[0xc0, number as u8]);
    } else if let Ok(number) = i16::try_from(number) {
        out.push(0xc1);
        out.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        out.push(0xc2);
        out.extend_from_slice(&number.to_le_bytes());
    } else {
        write_string(out, itoa::Buffer::new().format(number).as_bytes());
    }
}

/// A length, or how a string is encoded.
enum Len {
    Len(u64),
    Encoding(u8),
}

fn read_len_or_encoding(source: &mut Source<'_>) -> Result<Len, Wrong> {
    let first = source.u8()?;
    let low = u64::from(first & 0x3f);
    Ok(match (first >> 6, first) {
        (0, _) => Len::Len(low),
        (1, _) => Len::Len(low << 8 | u64::from(source.u8()?)),
        (2, 0x80) => Len::Len(u32::from_be_bytes(source.array()?).into()),
        (2, 0x81) => Len::Len(u64::from_be_bytes(source.array()?)),
        (3, _) => Len::Encoding(first & 0x3f),
        _ => return Err(Wrong::Bad("a length is encoded in no known way")),
    })
}

/// Takes a length.
pub fn read_len(source: &mut Source<'_>) -> Result<u64, Wrong> {
    match read_len_or_encoding(source)? {
        Len::Len(len) => Ok(len),
        Len::Encoding(_) => Err(Wrong::Bad("there is a string where a length should be")),
    }
}

/// Takes a string.
pub fn read_string<'a>(source: &mut Source<'a>) -> Result<Cow<'a, [u8]>, Wrong> {
    let number = match read_len_or_encoding(source)? {
        Len::Len(len) => return Ok(Cow::Borrowed(source.take(len)?)),
        Len::Encoding(0) => i64::from(source.u8()? as i8),
        Len::Encoding(1) => source.i16()?,
        Len::Encoding(2) => source.i32()?,
        Len::Encoding(3) => {
            let (compressed, len) = (read_len(source)?, read_len(source)?);
            return lzf::decompress(source.take(compressed)?, len).map(Cow::Owned);
        }
        Len::Encoding(_) => return Err(Wrong::Bad("a string is encoded in no known way")),
    };
    Ok(Cow::Owned(itoa::Buffer::new().format(number).as_bytes().to_vec()))
}

const TWICE: Wrong = Wrong::Bad("an element is there twice");
const ODD: Wrong = Wrong::Bad("an element has no second half");

/// Takes a value of this type. `None` where it has no elements: there is no such key then.
pub fn read(kind: u8, source: &mut Source<'_>, limits: &Limits) -> Result<Option<Value>, Wrong> {
    match kind {
        kind::STRING => read_string(source).map(|string| Some(Value::string(&string))),
        kind::LIST | kind::LIST_ZIPLIST | kind::LIST_QUICKLIST | kind::LIST_QUICKLIST_2 => {
            let mut list = List::new();
            read_list(kind, source, |element| list.push(Side::Right, element, limits))?;
            Ok((!list.is_empty()).then(|| Value::List(Box::new(list))))
        }
        kind::SET | kind::SET_INTSET => {
            let mut set = Set::new();
            let mut twice = false;
            read_set(kind, source, |member| twice |= !set.insert(member, limits))?;
            if twice {
                return Err(TWICE);
            }
            Ok((!set.is_empty()).then(|| Value::Set(Box::new(set))))
        }
        kind::HASH | kind::HASH_ZIPLIST | kind::HASH_LISTPACK => {
            let mut hash = Hash::new();
            let mut twice = false;
            let each = |field: &[u8], value: &[u8]| twice |= !hash.insert(field, value, limits);
            match kind {
                kind::HASH => {
                    let mut each = each;
                    for _ in 0..read_len(source)? {
                        let field = read_string(source)?;
                        each(&field, &read_string(source)?);
                    }
                }
                _ => read_pairs(kind == kind::HASH_LISTPACK, source, each)?,
            }
            if twice {
                return Err(TWICE);
            }
            Ok((!hash.is_empty()).then(|| Value::Hash(Box::new(hash))))
        }
        kind::ZSET | kind::ZSET_2 | kind::ZSET_ZIPLIST | kind::ZSET_LISTPACK => {
            read_zset(kind, source, limits)
        }
        kind::MODULE | kind::MODULE_2 => Err(Wrong::Unsupported("values of modules")),
        kind::STREAM | kind::STREAM_2 | kind::STREAM_3 | 20 => Err(Wrong::Unsupported("streams")),
        kind::HASH_ZIPMAP => Err(Wrong::Unsupported("zipmaps")),
        _ => Err(Wrong::Bad("a value is of no known type")),
    }
}

fn read_list(kind: u8, source: &mut Source<'_>, mut each: impl FnMut(&[u8])) -> Result<(), Wrong> {
    match kind {
        kind::LIST => {
            for _ in 0..read_len(source)? {
                each(&read_string(source)?);
            }
        }
        kind::LIST_ZIPLIST => packed::ziplist(&read_string(source)?, each)?,
        kind::LIST_QUICKLIST => {
            for _ in 0..read_len(source)? {
                packed::ziplist(&read_string(source)?, &mut each)?;
            }
        }
        _ => {
            for _ in 0..read_len(source)? {
                let container = read_len(source)?;
                let node = read_string(source)?;
                match container {
                    1 => each(&node),
                    2 => packed::listpack(&node, &mut each)?,
                    _ => return Err(Wrong::Bad("a part of a list is of no known type")),
                }
            }
        }
    }
    Ok(())
}

fn read_set(kind: u8, source: &mut Source<'_>, mut each: impl FnMut(&[u8])) -> Result<(), Wrong> {
    if kind == kind::SET_INTSET {
        return packed::intset(&read_string(source)?, |number| {
            each(itoa::Buffer::new().format(number).as_bytes());
        });
    }
    for _ in 0..read_len(source)? {
        each(&read_string(source)?);
    }
    Ok(())
}

/// Takes a listpack or ziplist of pairs.
fn read_pairs(
    is_listpack: bool,
    source: &mut Source<'_>,
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<(), Wrong> {
    let bytes = read_string(source)?;
    let mut first: Option<Vec<u8>> = None;
    let both = |element: &[u8]| match first.take() {
        None => first = Some(element.to_vec()),
        Some(first) => each(&first, element),
    };
    match is_listpack {
        true => packed::listpack(&bytes, both)?,
        false => packed::ziplist(&bytes, both)?,
    }
    if first.is_some() { Err(ODD) } else { Ok(()) }
}

fn read_zset(kind: u8, source: &mut Source<'_>, limits: &Limits) -> Result<Option<Value>, Wrong> {
    let mut zset = Zset::new();
    let mut wrong = None;
    let mut add = |member: &[u8], score: Option<f64>| match score {
        Some(score) if !score.is_nan() => {
            if !zset.insert(member, score, limits) {
                wrong = Some(TWICE);
            }
        }
        _ => wrong = Some(Wrong::Bad("a score is no number")),
    };
    match kind {
        kind::ZSET | kind::ZSET_2 => {
            for _ in 0..read_len(source)? {
                let member = read_string(source)?;
                let score = match kind {
                    kind::ZSET_2 => Some(f64::from_le_bytes(source.array()?)),
                    _ => read_score(source)?,
                };
                add(&member, score);
            }
        }
        _ => {
            let is_listpack = kind == kind::ZSET_LISTPACK;
            read_pairs(is_listpack, source, |member, score| add(member, parse_f64(score)))?;
        }
    }
    match wrong {
        Some(wrong) => Err(wrong),
        None => Ok((!zset.is_empty()).then(|| Value::Zset(Box::new(zset)))),
    }
}

/// Takes a score that is text.
fn read_score(source: &mut Source<'_>) -> Result<Option<f64>, Wrong> {
    Ok(match source.u8()? {
        253 => None,
        254 => Some(f64::INFINITY),
        255 => Some(f64::NEG_INFINITY),
        len => parse_f64(source.take(len.into())?),
    })
}
