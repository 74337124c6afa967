//! Values that travel: DUMP and RESTORE, in Redis' own format.

use super::{Answer, Call, DONE, Spec};
use crate::error::Error;
use crate::protocol::{Args, parse_i64};
use crate::rdb;
use crate::store::{EventClass, Lfu, seconds};

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("dump", 2, dump).reads().key(1).doc(
        "generic",
        "2.6.0",
        "O(N*M) where N is the number of elements of the value and M their average size",
        "Get the value of a key in a form that RESTORE takes, here or in Redis",
    ),
    Spec::data("restore", -4, restore).writes().key(1).doc(
        "generic",
        "2.6.0",
        "O(N*M) where N is the number of elements of the value and M their average size; of sorted sets \
         O(N*M*log(N))",
        "Make a key of what DUMP has given",
    ),
];

fn dump(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    match call.keys.read(&args[1]) {
        Some(value) => call.reply.bulk(&rdb::dump(value)),
        None => call.reply.null(),
    }
    DONE
}

/// What RESTORE is told besides the value.
#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    idle_seconds: Option<u64>,
    frequency: Option<u32>,
}

fn options(args: Args<'_>) -> Result<Options, Error> {
    let mut options = Options::default();
    let mut at = 4;
    while at < args.len() {
        let next = args.get(at + 1);
        if args.is(at, "replace") {
            options.replace = true;
        } else if args.is(at, "absttl") {
            options.absolute = true;
        } else if let Some(next) = next
            && args.is(at, "idletime")
            && options.frequency.is_none()
        {
            let seconds = parse_i64(next).ok_or(Error::NOT_AN_INTEGER)?;
            let seconds = u64::try_from(seconds)
                .map_err(|_| Error::new("ERR Invalid IDLETIME value, must be >= 0"))?;
            options.idle_seconds = Some(seconds);
            at += 1;
        } else if let Some(next) = next
            && args.is(at, "freq")
            && options.idle_seconds.is_none()
        {
            let count = parse_i64(next).ok_or(Error::NOT_AN_INTEGER)?;
            let count = u8::try_from(count)
                .map_err(|_| Error::new("ERR Invalid FREQ value, must be >= 0 and <= 255"))?;
            options.frequency = Some(count.into());
            at += 1;
        } else {
            return Err(Error::SYNTAX);
        }
        at += 1;
    }
    Ok(options)
}

fn restore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let options = options(args)?;
    let (keys, key) = (&mut *call.keys, &args[1]);
    if !options.replace && keys.contains(key) {
        return Err(Error::new("BUSYKEY Target key name already exists."));
    }
    let ttl = parse_i64(&args[2]).ok_or(Error::NOT_AN_INTEGER)?;
    let ttl = u64::try_from(ttl).map_err(|_| Error::new("ERR Invalid TTL value, must be >= 0"))?;
    let value = rdb::restore(&args[3], &keys.limits)
        .ok_or(Error::new("ERR DUMP payload version or checksum are wrong"))?
        .map_err(|_| Error::new("ERR Bad data format"))?;
    let now_ms = keys.now_ms();
    let expires_ms = match (ttl, options.absolute) {
        (0, _) => None,
        (at, true) => Some(at),
        (ttl, false) => Some(ttl.saturating_add(now_ms)),
    };
    let was_there = options.replace && keys.delete(key);
    // While the log is replayed time stands still.
    if expires_ms.is_some_and(|at| at <= now_ms) && !keys.replaying {
        if was_there {
            keys.log_as([&b"DEL"[..], key]);
            keys.changed(key, EventClass::GENERIC, "del");
        }
        call.reply.ok();
        return DONE;
    }
    keys.insert(key, value, expires_ms);
    let access = match (keys.lfu.is_some(), options.frequency, options.idle_seconds) {
        (true, Some(count), _) => Some(Lfu::access(count, now_ms)),
        (false, _, Some(idle)) => Some(seconds(now_ms.saturating_sub(idle.saturating_mul(1000)))),
        _ => None,
    };
    if let Some(access) = access {
        let table = keys.table(key);
        if let Some(slot) = table.find(key) {
            table.set_access(slot, access);
        }
    }
    if let Some(at) = expires_ms
        && !options.absolute
    {
        let at = at.to_string();
        let words =
            (0..args.len()).map(|index| if index == 2 { at.as_bytes() } else { &args[index] });
        let words: Vec<&[u8]> = words.chain([&b"ABSTTL"[..]]).collect();
        keys.log_as(words);
    }
    keys.changed(key, EventClass::GENERIC, "restore");
    call.reply.ok();
    DONE
}

#[cfg(test)]
mod tests;
