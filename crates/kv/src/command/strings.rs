//! Strings: read, set whole, changed in place, counted up and down.
//!
//! Bits of strings are in `bits`, HyperLogLogs, which are strings too, in `hyperloglog`.

use super::support::{bulk_str, expire_time, insert_word, integer, string_fits, string_or_zero};
use super::{Answer, Call, DONE, Spec};
use crate::error::Error;
use crate::protocol::{Args, LongDouble};
use crate::store::{EventClass, StrRef, Value, ValueRef};

mod lcs;
#[cfg(test)]
mod tests;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("append", 3, append).writes().fast().key(1).doc(
        "string",
        "2.0.0",
        "O(1), if the value added is small: the string keeps room to grow",
        "Add bytes at the end of a string, creating it where there is none",
    ),
    Spec::data("decr", 2, |call, args| add(call, args, -1)).writes().fast().key(1).doc(
        "string",
        "1.0.0",
        "O(1)",
        "Count a number down by one",
    ),
    Spec::data("decrby", 3, decrby).writes().fast().key(1).doc(
        "string",
        "1.0.0",
        "O(1)",
        "Count a number down",
    ),
    Spec::data("get", 2, get).reads().fast().key(1).doc(
        "string",
        "1.0.0",
        "O(1)",
        "Get the value of a key",
    ),
    Spec::data("getdel", 2, getdel).frees().fast().key(1).doc(
        "string",
        "6.2.0",
        "O(1)",
        "Get the value of a key and delete it",
    ),
    Spec::data("getex", -2, getex).frees().fast().key(1).doc(
        "string",
        "6.2.0",
        "O(1)",
        "Get the value of a key and set or take away its time of expiry",
    ),
    Spec::data("getrange", 4, getrange).reads().key(1).doc(
        "string",
        "2.4.0",
        "O(N) where N is the length of what is returned",
        "Get a part of a string",
    ),
    Spec::data("getset", 3, getset).writes().fast().key(1).doc(
        "string",
        "1.0.0",
        "O(1)",
        "Set the value of a key and get the one it had",
    ),
    Spec::data("incr", 2, |call, args| add(call, args, 1)).writes().fast().key(1).doc(
        "string",
        "1.0.0",
        "O(1)",
        "Count a number up by one",
    ),
    Spec::data("incrby", 3, incrby).writes().fast().key(1).doc(
        "string",
        "1.0.0",
        "O(1)",
        "Count a number up",
    ),
    Spec::data("incrbyfloat", 3, incrbyfloat).writes().fast().key(1).doc(
        "string",
        "2.6.0",
        "O(1)",
        "Add a number with decimals to a number",
    ),
    Spec::data("lcs", -3, lcs::lcs).reads().keys(1, 2, 1).doc(
        "string",
        "7.0.0",
        "O(N*M) where N and M are the lengths of the strings",
        "Find the longest common subsequence of two strings",
    ),
    Spec::data("mget", -2, mget).reads().fast().keys(1, -1, 1).doc(
        "string",
        "1.0.0",
        "O(N) where N is the number of keys",
        "Get the values of several keys",
    ),
    Spec::data("mset", -3, |call, args| set_many(call, args, false)).writes().keys(1, -1, 2).doc(
        "string",
        "1.0.1",
        "O(N) where N is the number of keys",
        "Set several keys",
    ),
    Spec::data("msetnx", -3, |call, args| set_many(call, args, true)).writes().keys(1, -1, 2).doc(
        "string",
        "1.0.1",
        "O(N) where N is the number of keys",
        "Set several keys, if none of them is there",
    ),
    Spec::data("psetex", 4, |call, args| set_expiring(call, args, 1)).writes().key(1).doc(
        "string",
        "2.6.0",
        "O(1)",
        "Set a key that expires after some milliseconds",
    ),
    Spec::data("set", -3, set).writes().key(1).doc(
        "string",
        "1.0.0",
        "O(1)",
        "Set the string value of a key",
    ),
    Spec::data("setex", 4, |call, args| set_expiring(call, args, 1000)).writes().key(1).doc(
        "string",
        "2.0.0",
        "O(1)",
        "Set a key that expires after some seconds",
    ),
    Spec::data("setnx", 3, setnx).writes().fast().key(1).doc(
        "string",
        "1.0.0",
        "O(1)",
        "Set a key, if it is not there",
    ),
    Spec::data("setrange", 4, setrange).writes().key(1).doc(
        "string",
        "2.2.0",
        "O(1), if the value written is small",
        "Write over a part of a string, making it longer where needed",
    ),
    Spec::data("strlen", 2, strlen).reads().fast().key(1).doc(
        "string",
        "2.2.0",
        "O(1)",
        "Get the length of a string",
    ),
    Spec::data("substr", 4, getrange).reads().key(1).doc(
        "string",
        "1.0.0",
        "O(N) where N is the length of what is returned",
        "Get a part of a string (the old name of GETRANGE)",
    ),
];

// Reading.

/// Replies the string at a key, or null; whether it was there.
fn reply_string(call: &mut Call<'_>, key: &[u8]) -> Result<bool, Error> {
    let string = call.keys.string(key)?;
    match string {
        Some(string) => bulk_str(call.reply, string),
        None => call.reply.null(),
    }
    Ok(string.is_some())
}

fn get(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    reply_string(call, &args[1])?;
    DONE
}

fn mget(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    call.reply.array(args.len() - 1);
    for key in args.iter_from(1) {
        match call.keys.read(key) {
            Some(ValueRef::Str(string)) => bulk_str(call.reply, string),
            _ => call.reply.null(),
        }
    }
    DONE
}

fn strlen(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let len = call.keys.string(&args[1])?.map_or(0, |string| string.len());
    call.reply.count(len);
    DONE
}

fn getrange(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    match call.keys.string(&args[1])? {
        Some(string) => string.with(|bytes| {
            call.reply.bulk(&bytes[range(start, end, bytes.len())]);
        }),
        None => call.reply.bulk(b""),
    }
    DONE
}

/// The indices from `start` to `end`, which count from the end of `len` bytes where negative.
fn range(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let from_end = |index: i64| if index < 0 { index.saturating_add(len as i64) } else { index };
    let start = from_end(start).max(0) as usize;
    let end = (from_end(end).max(0) as usize).saturating_add(1).min(len);
    start.min(end)..end
}

// Setting.

/// What SET and GETEX are to do besides.
#[derive(Default)]
struct Options {
    /// Only if the key is not there.
    nx: bool,
    /// Only if it is.
    xx: bool,
    /// Reply the old value.
    get: bool,
    /// Keep the time of expiry.
    keep_ttl: bool,
    /// Take it away.
    persist: bool,
    /// Set it.
    expiry: Option<Expiry>,
}

/// A time of expiry as an option gives it.
struct Expiry {
    /// Index of the word that tells it.
    at: usize,
    /// Milliseconds of its unit.
    unit_ms: i64,
    /// Whether it counts from now.
    relative: bool,
}

impl Options {
    /// The options from the word at `from` on, of SET or of GETEX.
    fn parse(args: Args<'_>, from: usize, is_set: bool) -> Result<Options, Error> {
        let mut options = Options::default();
        let mut index = from;
        while index < args.len() {
            let timeless = options.expiry.is_none() && !options.keep_ttl && !options.persist;
            if is_set && args.is(index, "nx") && !options.xx {
                options.nx = true;
            } else if is_set && args.is(index, "xx") && !options.nx {
                options.xx = true;
            } else if is_set && args.is(index, "get") {
                options.get = true;
            } else if is_set && args.is(index, "keepttl") && (timeless || options.keep_ttl) {
                options.keep_ttl = true;
            } else if !is_set && args.is(index, "persist") && (timeless || options.persist) {
                options.persist = true;
            } else {
                let (unit_ms, relative) = match () {
                    () if args.is(index, "ex") => (1000, true),
                    () if args.is(index, "px") => (1, true),
                    () if args.is(index, "exat") => (1000, false),
                    () if args.is(index, "pxat") => (1, false),
                    () => return Err(Error::SYNTAX),
                };
                let again = options
                    .expiry
                    .as_ref()
                    .is_some_and(|given| (given.unit_ms, given.relative) == (unit_ms, relative));
                if !(timeless || again) || index + 1 == args.len() {
                    return Err(Error::SYNTAX);
                }
                index += 1;
                options.expiry = Some(Expiry { at: index, unit_ms, relative });
            }
            index += 1;
        }
        Ok(options)
    }

    /// When the key is to expire, in milliseconds since 1970.
    fn expires_ms(&self, call: &Call<'_>, args: Args<'_>) -> Result<Option<u64>, Error> {
        let Some(expiry) = &self.expiry else {
            return Ok(None);
        };
        let base = if expiry.relative { call.keys.now_ms() } else { 0 };
        let time = integer(&args[expiry.at])?;
        let bad = || expire_time(args);
        if time <= 0 {
            return Err(bad());
        }
        let at = time.checked_mul(expiry.unit_ms).ok_or_else(bad)?;
        at.checked_add(base as i64).map(|at| Some(at as u64)).ok_or_else(bad)
    }
}

fn set(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if args.len() == 3 {
        insert_word(call.keys, &args[1], args, 2, None);
        call.keys.changed(&args[1], EventClass::STRING, "set");
        call.reply.ok();
        return DONE;
    }
    let options = Options::parse(args, 3, true)?;
    let expires_ms = options.expires_ms(call, args)?;
    let key = &args[1];
    if options.get {
        reply_string(call, key)?;
    }
    let found = call.keys.contains(key);
    if options.nx && found || options.xx && !found {
        if !options.get {
            call.reply.null();
        }
        return DONE;
    }
    let expires = if options.keep_ttl { call.keys.expires_ms(key).flatten() } else { expires_ms };
    store(call, key, args, 2, expires);
    if expires_ms.is_some() {
        call.keys.event(EventClass::GENERIC, "expire", key);
    }
    if !options.get {
        call.reply.ok();
    }
    DONE
}

/// Sets a key to the word at `value`, with a time of expiry or none, and logs it as that.
fn store(call: &mut Call<'_>, key: &[u8], args: Args<'_>, value: usize, expires_ms: Option<u64>) {
    insert_word(call.keys, key, args, value, expires_ms);
    if let Some(at) = expires_ms {
        let at = itoa::Buffer::new().format(at).to_owned();
        call.keys.log_as([b"SET", key, &args[value], b"PXAT", at.as_bytes()]);
    } else if args.len() > 3 {
        call.keys.log_as([b"SET", key, &args[value]]);
    }
    call.keys.changed(key, EventClass::STRING, "set");
}

fn set_expiring(call: &mut Call<'_>, args: Args<'_>, unit_ms: i64) -> Answer {
    let options =
        Options { expiry: Some(Expiry { at: 2, unit_ms, relative: true }), ..Options::default() };
    let expires_ms = options.expires_ms(call, args)?;
    store(call, &args[1], args, 3, expires_ms);
    call.keys.event(EventClass::GENERIC, "expire", &args[1]);
    call.reply.ok();
    DONE
}

fn setnx(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let found = call.keys.contains(&args[1]);
    if !found {
        store(call, &args[1], args, 2, None);
    }
    call.reply.flag(!found);
    DONE
}

fn set_many(call: &mut Call<'_>, args: Args<'_>, if_none: bool) -> Answer {
    if args.len().is_multiple_of(2) {
        return Err(Error::arity(if if_none { "msetnx" } else { "mset" }));
    }
    let keys = || (1..args.len()).step_by(2);
    if if_none && keys().any(|index| call.keys.contains(&args[index])) {
        call.reply.flag(false);
        return DONE;
    }
    for index in keys() {
        insert_word(call.keys, &args[index], args, index + 1, None);
        call.keys.changed(&args[index], EventClass::STRING, "set");
    }
    if if_none {
        call.reply.flag(true);
    } else {
        call.reply.ok();
    }
    DONE
}

fn getset(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    reply_string(call, &args[1])?;
    store(call, &args[1], args, 2, None);
    DONE
}

fn getdel(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    if reply_string(call, key)? {
        call.keys.delete(key);
        call.keys.log_as([b"DEL", key]);
        call.keys.changed(key, EventClass::GENERIC, "del");
    }
    DONE
}

fn getex(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let options = Options::parse(args, 2, false)?;
    let key = &args[1];
    // A key that is not there hides a bad time.
    if !reply_string(call, key)? {
        return DONE;
    }
    match options.expires_ms(call, args)? {
        Some(at) if at <= call.keys.now_ms() && !call.keys.replaying => {
            call.keys.delete(key);
            call.keys.log_as([b"DEL", key]);
            call.keys.changed(key, EventClass::GENERIC, "del");
        }
        Some(at) => {
            call.keys.set_expires_ms(key, Some(at));
            let at = at.to_string();
            call.keys.log_as([b"PEXPIREAT", key, at.as_bytes()]);
            call.keys.changed(key, EventClass::GENERIC, "expire");
        }
        None if options.persist && call.keys.expires_ms(key).flatten().is_some() => {
            call.keys.set_expires_ms(key, None);
            call.keys.log_as([b"PERSIST", key]);
            call.keys.changed(key, EventClass::GENERIC, "persist");
        }
        None => {}
    }
    DONE
}

// Changing in place.

fn append(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let added = &args[2];
    let len = match call.keys.peek(key) {
        None => {
            insert_word(call.keys, key, args, 2, None);
            added.len()
        }
        Some(ValueRef::Str(string)) => {
            string_fits(call.config, string.len() as u64, added.len())?;
            let string = string_or_zero(call.keys, key, 0)?;
            string.extend_from_slice(added);
            string.len()
        }
        Some(_) => return Err(Error::WRONG_TYPE),
    };
    call.keys.changed(key, EventClass::STRING, "append");
    call.reply.count(len);
    DONE
}

fn setrange(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let offset = integer(&args[2])?;
    let written = &args[3];
    let Ok(offset) = u64::try_from(offset) else {
        return Err(Error::new("ERR offset is out of range"));
    };
    if written.is_empty() {
        let len = match call.keys.peek(key) {
            None => 0,
            Some(ValueRef::Str(string)) => string.len(),
            Some(_) => return Err(Error::WRONG_TYPE),
        };
        call.reply.count(len);
        return DONE;
    }
    if !matches!(call.keys.peek(key), None | Some(ValueRef::Str(_))) {
        return Err(Error::WRONG_TYPE);
    }
    string_fits(call.config, offset, written.len())?;
    let offset = offset as usize;
    let string = string_or_zero(call.keys, key, offset + written.len())?;
    string[offset..offset + written.len()].copy_from_slice(written);
    let len = string.len();
    call.keys.changed(key, EventClass::STRING, "setrange");
    call.reply.count(len);
    DONE
}

// Counting.

fn incrby(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    add(call, args, integer(&args[2])?)
}

fn decrby(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let Some(more) = integer(&args[2])?.checked_neg() else {
        return Err(Error::new("ERR decrement would overflow"));
    };
    add(call, args, more)
}

fn add(call: &mut Call<'_>, args: Args<'_>, more: i64) -> Answer {
    let key = &args[1];
    let value = match call.keys.peek(key) {
        None => 0,
        Some(ValueRef::Str(string)) => string.as_int().ok_or(Error::NOT_AN_INTEGER)?,
        Some(_) => return Err(Error::WRONG_TYPE),
    };
    let Some(value) = value.checked_add(more) else {
        return Err(Error::new("ERR increment or decrement would overflow"));
    };
    call.keys.insert_keeping_expiry(key, Value::Int(value));
    call.keys.changed(key, EventClass::STRING, "incrby");
    call.reply.int(value);
    DONE
}

fn incrbyfloat(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let value = match call.keys.peek(key) {
        None => LongDouble::ZERO,
        Some(ValueRef::Str(StrRef::Int(value))) => LongDouble::of(value),
        Some(ValueRef::Str(string)) => string.with(LongDouble::parse).ok_or(Error::NOT_A_FLOAT)?,
        Some(_) => return Err(Error::WRONG_TYPE),
    };
    let more = LongDouble::parse(&args[2]).ok_or(Error::NOT_A_FLOAT)?;
    let Some(sum) = value.checked_add(more) else {
        return Err(Error::new("ERR increment would produce NaN or Infinity"));
    };
    let mut text = Vec::with_capacity(32);
    sum.write(&mut text);
    call.keys.insert_keeping_expiry(key, Value::text(&text));
    // How floats are added may change one day: what was stored is what is logged.
    call.keys.log_as([b"SET", key, &text, b"KEEPTTL"]);
    call.keys.changed(key, EventClass::STRING, "incrbyfloat");
    call.reply.bulk(&text);
    DONE
}
