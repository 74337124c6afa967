//! BITFIELD: integers of 1 to 64 bits at any bit of a string.

use super::{bit_offset, grows, with_string};
use crate::command::support::{integer, string_or_zero};
use crate::command::{Answer, Call, DONE};
use crate::error::Error;
use crate::protocol::{Args, parse_i64};
use crate::store::EventClass;

/// What becomes of a number that does not fit.
#[derive(Clone, Copy)]
enum Overflow {
    /// Its lowest bits.
    Wrap,
    /// The nearest one that fits.
    Saturate,
    /// Nothing: the operation is left out.
    Fail,
}

/// The type of an integer.
#[derive(Clone, Copy)]
struct Type {
    signed: bool,
    /// From 1 to 64, to 63 where unsigned.
    bits: u32,
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

#[derive(Clone, Copy)]
struct Op {
    action: Action,
    of: Type,
    offset: u64,
    overflow: Overflow,
}

pub(super) fn bitfield(call: &mut Call<'_>, args: Args<'_>, may_write: bool) -> Answer {
    let ops = parse(call, args)?;
    let key = &args[1];
    let written = ops.iter().filter(|op| !matches!(op.action, Action::Get));
    let Some(bits) = written.map(|op| op.offset + u64::from(op.of.bits)).max() else {
        return with_string(call.keys, key, |bytes| {
            call.reply.array(ops.len());
            for op in &ops {
                call.reply.int(op.of.get(bytes.unwrap_or_default(), op.offset) as i64);
            }
            DONE
        })?;
    };
    if !may_write {
        return Err(Error::new("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    let len = bits.div_ceil(8) as usize;
    let mut changed = false;
    let grown = grows(call.keys, key, len)?;
    let string = string_or_zero(call.keys, key, len)?;
    call.reply.array(ops.len());
    for op in &ops {
        let old = op.of.get(string, op.offset);
        let (wanted, gives_old) = match op.action {
            Action::Get => {
                call.reply.int(old as i64);
                continue;
            }
            // An unsigned integer takes the bits of a negative one, which are too many.
            Action::Set(value) if !op.of.signed => (i128::from(value as u64), true),
            Action::Set(value) => (i128::from(value), true),
            Action::Add(value) => (old + i128::from(value), false),
        };
        match op.of.fit(wanted, op.overflow) {
            None => call.reply.null(),
            Some(new) => {
                call.reply.int(if gives_old { old } else { new } as i64);
                op.of.set(string, op.offset, new);
                changed |= grown || new != old;
            }
        }
    }
    if changed {
        call.keys.changed(key, EventClass::STRING, "setbit");
    }
    DONE
}

fn parse(call: &Call<'_>, args: Args<'_>) -> Result<Vec<Op>, Error> {
    let (mut ops, mut overflow, mut index) = (Vec::new(), Overflow::Wrap, 2);
    while index < args.len() {
        let left = args.len() - index - 1;
        if args.is(index, "overflow") && left >= 1 {
            overflow = match () {
                () if args.is(index + 1, "wrap") => Overflow::Wrap,
                () if args.is(index + 1, "sat") => Overflow::Saturate,
                () if args.is(index + 1, "fail") => Overflow::Fail,
                () => return Err(Error::new("ERR Invalid OVERFLOW type specified")),
            };
            index += 2;
            continue;
        }
        let get = args.is(index, "get") && left >= 2;
        let set = args.is(index, "set") && left >= 3;
        let add = args.is(index, "incrby") && left >= 3;
        if !get && !set && !add {
            return Err(Error::SYNTAX);
        }
        let of = Type::parse(&args[index + 1])?;
        let offset = bit_offset(&args[index + 2], call.config, Some(of.bits))?;
        let action = match get {
            true => Action::Get,
            false if set => Action::Set(integer(&args[index + 3])?),
            false => Action::Add(integer(&args[index + 3])?),
        };
        ops.push(Op { action, of, offset, overflow });
        index += if get { 3 } else { 4 };
    }
    Ok(ops)
}

impl Type {
    /// Such as `i16` or `u8`.
    fn parse(word: &[u8]) -> Result<Type, Error> {
        let (signed, digits) = match word {
            [b'i', digits @ ..] => (true, digits),
            [b'u', digits @ ..] => (false, digits),
            _ => (false, &b""[..]),
        };
        match parse_i64(digits) {
            Some(bits) if bits >= 1 && bits <= if signed { 64 } else { 63 } => {
                Ok(Type { signed, bits: bits as u32 })
            }
            _ => Err(Error::new(
                "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not \
                 supported but i64 is.",
            )),
        }
    }

    /// The integer at a bit; bits past the end are clear.
    fn get(self, bytes: &[u8], offset: u64) -> i128 {
        let at = (offset / 8) as usize;
        let mut window = [0; 16];
        if let Some(bytes) = bytes.get(at..) {
            let len = bytes.len().min(9);
            window[..len].copy_from_slice(&bytes[..len]);
        }
        let bits = u128::from_be_bytes(window) << (offset % 8);
        // Shifting from the top copies the sign.
        match self.signed {
            true => bits as i128 >> (128 - self.bits),
            false => (bits >> (128 - self.bits)) as i128,
        }
    }

    /// Writes the integer at a bit. All bytes it touches are there.
    fn set(self, bytes: &mut [u8], offset: u64, value: i128) {
        let at = (offset / 8) as usize;
        let len = ((offset % 8 + u64::from(self.bits)).div_ceil(8)) as usize;
        let mut window = [0; 16];
        window[..len].copy_from_slice(&bytes[at..at + len]);
        let shift = 128 - self.bits - (offset % 8) as u32;
        let mask = ((1u128 << self.bits) - 1) << shift;
        let bits = u128::from_be_bytes(window) & !mask | (value as u128) << shift & mask;
        bytes[at..at + len].copy_from_slice(&bits.to_be_bytes()[..len]);
    }

    /// The number as this type has it; `None` where it does not fit and is to fail.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i128> {
        let (min, max) = match self.signed {
            true => (-(1i128 << (self.bits - 1)), (1i128 << (self.bits - 1)) - 1),
            false => (0, (1i128 << self.bits) - 1),
        };
        if (min..=max).contains(&value) {
            return Some(value);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(value.clamp(min, max)),
            Overflow::Wrap => {
                let shift = 128 - self.bits;
                Some(match self.signed {
                    true => value << shift >> shift,
                    false => value & max,
                })
            }
        }
    }
}
