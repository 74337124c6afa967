//! HyperLogLog: how many different elements there were, about, in 12 KiB at most.
//!
//! A HyperLogLog is a string in Redis' format, which `sketch` knows, so that it goes from one server to the
//! other like any string.

use super::support::string_or_zero;
use super::{Answer, Call, DONE, Spec, flag};
use crate::error::Error;
use crate::protocol::Args;
use crate::store::{EventClass, Keys, Value, ValueRef};
use std::sync::Arc;

mod sketch;
#[cfg(test)]
mod tests;

use sketch::{Registers, Sketch};

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("pfadd", -2, pfadd).writes().fast().key(1).doc(
        "hyperloglog",
        "2.8.9",
        "O(1) for each element",
        "Note that elements were there",
    ),
    Spec::data("pfcount", -2, pfcount).reads().flags(flag::MAY_REPLICATE).keys(1, -1, 1).doc(
        "hyperloglog",
        "2.8.9",
        "O(1) for one key, O(N) for N keys, with a large constant",
        "Estimate how many different elements were noted, at all keys together",
    ),
    Spec::data("pfdebug", 3, pfdebug).writes().flags(flag::ADMIN).key(2).doc(
        "hyperloglog",
        "2.8.9",
        "N/A",
        "Look into a HyperLogLog",
    ),
    Spec::data("pfmerge", -2, pfmerge).writes().keys(1, -1, 1).doc(
        "hyperloglog",
        "2.8.9",
        "O(N) where N is the number of keys, with a large constant",
        "Note at a key all that was noted at others",
    ),
    Spec::data("pfselftest", 1, pfselftest).flags(flag::ADMIN).doc(
        "hyperloglog",
        "2.8.9",
        "N/A",
        "Check that estimates are as good as they should be",
    ),
];

const CORRUPT: Error = Error::new("INVALIDOBJ Corrupted HLL object detected");
const NOT_ONE: Error = Error::new("WRONGTYPE Key is not a valid HyperLogLog string value.");

/// Whether there is a HyperLogLog at the key. It is an error if there is something else.
fn check(value: Option<ValueRef<'_>>) -> Result<bool, Error> {
    match value {
        None => Ok(false),
        Some(ValueRef::Str(string)) if string.with(sketch::is_one) => Ok(true),
        Some(ValueRef::Str(_)) => Err(NOT_ONE),
        Some(_) => Err(Error::WRONG_TYPE),
    }
}

/// The HyperLogLog at a key, to be changed: an empty one where there was none; and whether there was none.
fn sketch_or_insert<'a>(keys: &'a mut Keys, key: &[u8]) -> Result<(Sketch<'a>, bool), Error> {
    let new = !check(keys.peek(key))?;
    if new {
        keys.insert_keeping_expiry(key, Value::Str(Arc::new(sketch::empty())));
    }
    let limit = keys.limits.hll_sparse_max_bytes;
    Ok((Sketch::new(string_or_zero(keys, key, 0)?, limit), new))
}

fn pfadd(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let (mut sketch, new) = sketch_or_insert(call.keys, key)?;
    let mut changed = new;
    let mut corrupt = false;
    for element in args.iter_from(2) {
        match sketch.add(element) {
            Ok(raised) => changed |= raised,
            Err(sketch::Corrupt) => {
                corrupt = true;
                break;
            }
        }
    }
    if changed {
        sketch.forget_count();
        call.keys.changed(key, EventClass::STRING, "pfadd");
    }
    if corrupt {
        return Err(CORRUPT);
    }
    call.reply.flag(changed);
    DONE
}

fn pfcount(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    if args.len() == 2 {
        let known = match call.keys.read(key) {
            Some(ValueRef::Str(string)) if string.with(sketch::is_one) => {
                string.with(|bytes| match sketch::known_count(bytes) {
                    Some(count) => Ok((count, true)),
                    None => sketch::count(bytes).map(|count| (count, false)),
                })
            }
            value => {
                check(value)?;
                Ok((0, true))
            }
        };
        let (count, known) = known.map_err(|_| CORRUPT)?;
        if !known && let Some(string) = call.keys.string_mut(key)? {
            // Not a change that is logged: whoever loads the log counts again.
            sketch::remember_count(string, count);
        }
        call.reply.int(count as i64);
        return DONE;
    }
    let mut union = Registers::default();
    for key in args.iter_from(1) {
        merge(call.keys, key, &mut union)?;
    }
    call.reply.int(union.count() as i64);
    DONE
}

/// Raises registers to those at a key; whether they are kept densely there.
fn merge(keys: &mut Keys, key: &[u8], into: &mut Registers) -> Result<bool, Error> {
    match keys.read(key) {
        Some(ValueRef::Str(string)) if string.with(sketch::is_one) => string.with(|bytes| {
            into.merge(bytes).map_err(|_| CORRUPT)?;
            Ok(sketch::is_dense(bytes))
        }),
        value => check(value),
    }
}

fn pfmerge(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let mut union = Registers::default();
    let mut dense = false;
    for key in args.iter_from(1) {
        dense |= merge(call.keys, key, &mut union)?;
    }
    let (mut sketch, _) = sketch_or_insert(call.keys, key)?;
    if dense {
        sketch.make_dense().map_err(|_| CORRUPT)?;
    }
    let raised = union.iter().filter(|&(_, count)| count > 0);
    for (index, count) in raised {
        sketch.raise(index, count).map_err(|_| CORRUPT)?;
    }
    sketch.forget_count();
    call.keys.changed(key, EventClass::STRING, "pfadd");
    call.reply.ok();
    DONE
}

fn pfdebug(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[2];
    if !check(call.keys.peek(key))? {
        return Err(Error::new("ERR The specified key does not exist"));
    }
    let (mut sketch, _) = sketch_or_insert(call.keys, key)?;
    match () {
        () if args.is(1, "getreg") => {
            let made = sketch.make_dense().map_err(|_| CORRUPT)?;
            let mut registers = Registers::default();
            registers.merge(sketch.bytes()).map_err(|_| CORRUPT)?;
            if made {
                call.keys.changed_quietly(key);
            }
            call.reply.array(sketch::REGISTERS);
            registers.iter().for_each(|(_, count)| call.reply.int(i64::from(count)));
        }
        () if args.is(1, "decode") => {
            let Some(text) = sketch::describe(sketch.bytes()) else {
                return Err(Error::new("ERR HLL encoding is not sparse"));
            };
            call.reply.bulk(text.as_bytes());
        }
        () if args.is(1, "encoding") => {
            let dense = sketch::is_dense(sketch.bytes());
            call.reply.simple(if dense { "dense" } else { "sparse" });
        }
        () if args.is(1, "todense") => {
            let made = sketch.make_dense().map_err(|_| CORRUPT)?;
            if made {
                call.keys.changed_quietly(key);
            }
            call.reply.flag(made);
        }
        () => {
            let name = String::from_utf8_lossy(&args[1]);
            return Err(Error::of(format!("ERR Unknown PFDEBUG subcommand '{name}'")));
        }
    }
    DONE
}

fn pfselftest(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    /// Elements that are counted. It blocks its core for as long.
    const ELEMENTS: u64 = 1_000_000;
    let failed = |text: String| Err(Error::of(format!("TESTFAILED {text}")));
    let seed = fastrand::u64(..);
    let limit = call.keys.limits.hll_sparse_max_bytes;
    let (mut grown, mut dense) = (sketch::empty(), sketch::empty());
    let mut grown = Sketch::new(&mut grown, limit);
    let mut dense = Sketch::new(&mut dense, limit);
    dense.make_dense().map_err(|_| CORRUPT)?;
    let mut checkpoint = 1;
    for number in 1..=ELEMENTS {
        let element = (number ^ seed).to_le_bytes();
        grown.add(&element).map_err(|_| CORRUPT)?;
        dense.add(&element).map_err(|_| CORRUPT)?;
        if number != checkpoint {
            continue;
        }
        checkpoint *= 10;
        if number < limit as u64 / 2 && sketch::is_dense(grown.bytes()) {
            return failed("sparse encoding not used".to_owned());
        }
        let count = sketch::count(dense.bytes()).map_err(|_| CORRUPT)?;
        if sketch::count(grown.bytes()) != Ok(count) {
            return failed("dense/sparse disagree".to_owned());
        }
        // Six times the standard error, which chance nearly never gets at.
        let standard = 1.04 / (sketch::REGISTERS as f64).sqrt();
        let most = (standard * 6.0 * number as f64).ceil() as u64;
        let error = count.abs_diff(number);
        if error > most {
            return failed(format!("Too big error. card:{number} abserr:{error}"));
        }
    }
    call.reply.ok();
    DONE
}
