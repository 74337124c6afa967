//! Bits of strings: single ones, counted, combined, and as integers of any width.
//!
//! Bit 0 is the highest one of the first byte.

use super::support::{integer, string_or_zero};
use super::{Answer, Call, DONE, Spec};
use crate::config::Config;
use crate::error::Error;
use crate::protocol::{Args, parse_i64};
use crate::store::{EventClass, Keys, Value, ValueRef};
use std::sync::Arc;

mod field;
#[cfg(test)]
mod tests;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("bitcount", -2, bitcount).reads().key(1).doc(
        "bitmap",
        "2.6.0",
        "O(N) where N is the length of the string",
        "Count the bits of a string that are set",
    ),
    Spec::data("bitfield", -2, |call, args| field::bitfield(call, args, true)).writes().key(1).doc(
        "bitmap",
        "3.2.0",
        "O(1) for each operation",
        "Read and change integers of any width within a string",
    ),
    Spec::data("bitfield_ro", -2, |call, args| field::bitfield(call, args, false))
        .reads()
        .fast()
        .key(1)
        .doc(
            "bitmap",
            "6.0.0",
            "O(1) for each operation",
            "Read integers of any width within a string",
        ),
    Spec::data("bitop", -4, bitop).writes().keys(2, -1, 1).doc(
        "bitmap",
        "2.6.0",
        "O(N) where N is the length of the longest string",
        "Combine strings bit by bit",
    ),
    Spec::data("bitpos", -3, bitpos).reads().key(1).doc(
        "bitmap",
        "2.8.7",
        "O(N) where N is the length of the string",
        "Find the first bit that is set, or clear",
    ),
    Spec::data("getbit", 3, getbit).reads().fast().key(1).doc(
        "bitmap",
        "2.2.0",
        "O(1)",
        "Get a bit of a string",
    ),
    Spec::data("setbit", 4, setbit).writes().key(1).doc(
        "bitmap",
        "2.2.0",
        "O(1), if the string need not grow",
        "Set or clear a bit of a string",
    ),
];

/// The bit that a word names, below the longest string. With `width`, `#2` is the third integer of that width.
fn bit_offset(word: &[u8], config: &Config, width: Option<u32>) -> Result<u64, Error> {
    let (digits, factor) = match (word, width) {
        ([b'#', digits @ ..], Some(width)) => (digits, i64::from(width)),
        _ => (word, 1),
    };
    let offset = parse_i64(digits).and_then(|offset| offset.checked_mul(factor));
    offset
        .and_then(|offset| u64::try_from(offset).ok())
        .filter(|offset| offset >> 3 < config.proto_max_bulk_len)
        .ok_or(Error::new("ERR bit offset is not an integer or out of range"))
}

/// The string at a key is looked at: nothing where there is no key.
fn with_string<R>(
    keys: &mut Keys,
    key: &[u8],
    f: impl FnOnce(Option<&[u8]>) -> R,
) -> Result<R, Error> {
    Ok(match keys.string(key)? {
        None => f(None),
        Some(string) => string.with(|bytes| f(Some(bytes))),
    })
}

fn getbit(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let offset = bit_offset(&args[2], call.config, None)?;
    let set = with_string(call.keys, &args[1], |bytes| {
        bytes
            .unwrap_or_default()
            .get(offset as usize / 8)
            .is_some_and(|byte| byte & mask(offset) != 0)
    })?;
    call.reply.flag(set);
    DONE
}

/// The bit within its byte.
fn mask(offset: u64) -> u8 {
    0x80 >> (offset % 8)
}

fn setbit(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    const BAD_BIT: Error = Error::new("ERR bit is not an integer or out of range");
    let key = &args[1];
    let offset = bit_offset(&args[2], call.config, None)?;
    let on = match parse_i64(&args[3]).ok_or(BAD_BIT)? {
        0 => false,
        1 => true,
        _ => return Err(BAD_BIT),
    };
    let at = offset as usize / 8;
    let grows = grows(call.keys, key, at + 1)?;
    let string = string_or_zero(call.keys, key, at + 1)?;
    let was = string[at] & mask(offset) != 0;
    if on != was {
        string[at] ^= mask(offset);
    }
    if grows || on != was {
        call.keys.changed(key, EventClass::STRING, "setbit");
    }
    call.reply.flag(was);
    DONE
}

/// Whether the string at a key is shorter than `len`, or not there.
fn grows(keys: &mut Keys, key: &[u8], len: usize) -> Result<bool, Error> {
    match keys.peek(key) {
        None => Ok(true),
        Some(ValueRef::Str(string)) => Ok(string.len() < len),
        Some(_) => Err(Error::WRONG_TYPE),
    }
}

fn bitop(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let combine: fn(&mut u8, u8) = match () {
        () if args.is(1, "and") => |byte, other| *byte &= other,
        () if args.is(1, "or") => |byte, other| *byte |= other,
        () if args.is(1, "xor") => |byte, other| *byte ^= other,
        () if args.is(1, "not") && args.len() != 4 => {
            return Err(Error::new("ERR BITOP NOT must be called with a single source key."));
        }
        () if args.is(1, "not") => |byte, other| *byte = !other,
        () => return Err(Error::SYNTAX),
    };
    // AND with what is not there is 0; with the others it changes nothing.
    let is_and = args.is(1, "and");
    let is_not = args.is(1, "not");
    let mut result: Option<Vec<u8>> = None;
    for key in args.iter_from(3) {
        with_string(call.keys, key, |bytes| {
            let bytes = bytes.unwrap_or_default();
            let Some(result) = &mut result else {
                result = Some(match is_not {
                    true => bytes.iter().map(|byte| !byte).collect(),
                    false => bytes.to_vec(),
                });
                return;
            };
            if result.len() < bytes.len() {
                result.resize(bytes.len(), 0);
            }
            let (common, rest) = result.split_at_mut(bytes.len());
            common.iter_mut().zip(bytes).for_each(|(byte, &other)| combine(byte, other));
            if is_and {
                rest.fill(0);
            }
        })?;
    }
    let (target, result) = (&args[2], result.unwrap_or_default());
    let len = result.len();
    if len > 0 {
        call.keys.insert(target, Value::Str(Arc::new(result)), None);
        call.keys.changed(target, EventClass::STRING, "set");
    } else if call.keys.delete(target) {
        call.keys.changed(target, EventClass::GENERIC, "del");
    }
    call.reply.count(len);
    DONE
}

/// A range of bits as BITCOUNT and BITPOS give it.
#[derive(Clone, Copy)]
struct Range {
    start: i64,
    /// `None` for the last one.
    end: Option<i64>,
    /// Whether both count bits, not bytes.
    bits: bool,
}

impl Range {
    /// The range at the words from `from` on. `None` where there are none.
    fn parse(args: Args<'_>, from: usize, end_needed: bool) -> Result<Option<Range>, Error> {
        if args.len() == from {
            return Ok(None);
        }
        if args.len() > from + 3 || end_needed && args.len() == from + 1 {
            return Err(Error::SYNTAX);
        }
        let start = integer(&args[from])?;
        let bits = match args.len() - from {
            3 if args.is(from + 2, "bit") => true,
            3 if !args.is(from + 2, "byte") => return Err(Error::SYNTAX),
            _ => false,
        };
        let end = args.get(from + 1).map(integer).transpose()?;
        Ok(Some(Range { start, end, bits }))
    }

    /// The bits of `len` bytes that it has: the first one, and the one after the last.
    fn of(self, len: usize) -> (u64, u64) {
        let unit = if self.bits { 1 } else { 8 };
        let total = len as i64 * 8 / unit;
        let end = self.end.unwrap_or(total - 1);
        let from_end =
            |index: i64| (if index < 0 { index.saturating_add(total) } else { index }).max(0);
        let (start, end) = (from_end(self.start), from_end(end).min(total - 1));
        if start > end {
            return (0, 0);
        }
        ((start * unit) as u64, ((end + 1) * unit) as u64)
    }
}

fn bitcount(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    // A key that is not there hides a bad range.
    let count = with_string(call.keys, &args[1], |bytes| {
        let Some(bytes) = bytes else {
            return Ok(0);
        };
        if args.len() == 4 || args.len() == 5 {
            let (start, end) = (integer(&args[2])?, integer(&args[3])?);
            if start < 0 && end < 0 && start > end {
                return Ok(0);
            }
        }
        let (start, end) = match Range::parse(args, 2, true)? {
            Some(range) => range.of(bytes.len()),
            None => (0, bytes.len() as u64 * 8),
        };
        Ok(count_bits(bytes, start, end))
    })??;
    call.reply.int(count as i64);
    DONE
}

/// The bits that are set from bit `start` to before bit `end`.
fn count_bits(bytes: &[u8], start: u64, end: u64) -> u64 {
    if start >= end {
        return 0;
    }
    let (first, last) = (start as usize / 8, (end - 1) as usize / 8);
    let whole: u64 = {
        let (words, rest) = bytes[first..=last].as_chunks::<8>();
        let count = |word: &[u8; 8]| u64::from(u64::from_ne_bytes(*word).count_ones());
        words.iter().map(count).sum::<u64>()
            + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
    };
    // Bits of the first and of the last byte that are outside.
    let before = bytes[first] & !(0xff >> (start % 8));
    let after = match end % 8 {
        0 => 0,
        bits => bytes[last] & (0xff >> bits),
    };
    whole - u64::from(before.count_ones()) - u64::from(after.count_ones())
}

fn bitpos(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let set = match integer(&args[2])? {
        0 => false,
        1 => true,
        _ => return Err(Error::new("ERR The bit argument must be 1 or 0.")),
    };
    let position = with_string(call.keys, &args[1], |bytes| {
        let Some(bytes) = bytes else {
            return Ok(if set { -1 } else { 0 });
        };
        let range = Range::parse(args, 3, false)?;
        let whole = Range { start: 0, end: None, bits: false };
        let (start, end) = range.unwrap_or(whole).of(bytes.len());
        if start == end {
            return Ok(-1);
        }
        Ok(match find_bit(bytes, set, start, end) {
            Some(position) => position as i64,
            // Beyond the end all bits are clear, unless the end was asked for.
            None if !set && range.is_none_or(|range| range.end.is_none()) => end as i64,
            None => -1,
        })
    })??;
    call.reply.int(position);
    DONE
}

/// The first bit, from `start` to before `end`, that is set, or that is clear.
fn find_bit(bytes: &[u8], set: bool, start: u64, end: u64) -> Option<u64> {
    let flip = if set { 0 } else { 0xff };
    let (first, last) = (start as usize / 8, (end - 1) as usize / 8);
    let found = |index: usize, byte: u8| {
        let position = index as u64 * 8 + u64::from(byte.leading_zeros());
        (byte != 0 && position < end).then_some(position)
    };
    let head = (bytes[first] ^ flip) & (0xff >> (start % 8));
    if head != 0 {
        return found(first, head);
    }
    let rest = &bytes[first + 1..=last];
    let (words, _) = rest.as_chunks::<8>();
    let skipped = words.iter().take_while(|word| word.iter().all(|&byte| byte == flip)).count() * 8;
    let index = skipped + rest[skipped..].iter().position(|&byte| byte != flip)?;
    found(first + 1 + index, rest[index] ^ flip)
}
