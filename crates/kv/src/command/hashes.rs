//! Hashes: HSET, HGET and the like.

use super::elements::{Scan, cursor, pick, repeat, scanned_nothing, signed_count};
use super::support::integer;
use super::{Answer, Call, DONE, Spec};
use crate::error::Error;
use crate::protocol::{Args, LongDouble, Proto, Reply, parse_i64};
use crate::store::{EventClass, Hash};

#[cfg(test)]
mod tests;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("hdel", -3, hdel).frees().fast().key(1).doc(
        "hash",
        "2.0.0",
        "O(N), N the number of fields to remove",
        "Remove fields",
    ),
    Spec::data("hexists", 3, hexists).reads().fast().key(1).doc(
        "hash",
        "2.0.0",
        "O(1)",
        "Say whether there is a field",
    ),
    Spec::data("hget", 3, hget).reads().fast().key(1).doc(
        "hash",
        "2.0.0",
        "O(1)",
        "Get the value of a field",
    ),
    Spec::data("hgetall", 2, hgetall).reads().key(1).doc(
        "hash",
        "2.0.0",
        "O(N), N the number of fields",
        "Get all fields and their values",
    ),
    Spec::data("hincrby", 4, hincrby).writes().fast().key(1).doc(
        "hash",
        "2.0.0",
        "O(1)",
        "Add an integer to the value of a field",
    ),
    Spec::data("hincrbyfloat", 4, hincrbyfloat).writes().fast().key(1).doc(
        "hash",
        "2.6.0",
        "O(1)",
        "Add a number to the value of a field",
    ),
    Spec::data("hkeys", 2, hkeys).reads().key(1).doc(
        "hash",
        "2.0.0",
        "O(N), N the number of fields",
        "Get all fields",
    ),
    Spec::data("hlen", 2, hlen).reads().fast().key(1).doc(
        "hash",
        "2.0.0",
        "O(1)",
        "Get the number of fields",
    ),
    Spec::data("hmget", -3, hmget).reads().fast().key(1).doc(
        "hash",
        "2.0.0",
        "O(N), N the number of fields asked for",
        "Get the values of fields",
    ),
    Spec::data("hmset", -4, hmset).writes().fast().key(1).doc(
        "hash",
        "2.0.0",
        "O(N), N the number of fields set",
        "Set the values of fields",
    ),
    Spec::data("hrandfield", -2, hrandfield).reads().key(1).doc(
        "hash",
        "6.2.0",
        "O(N), N the number of fields asked for",
        "Get fields picked at random",
    ),
    Spec::data("hscan", -3, hscan).reads().key(1).doc(
        "hash",
        "2.8.0",
        "O(1) a call, O(N) for all N fields",
        "Go through the fields and their values, some at a time",
    ),
    Spec::data("hset", -4, hset).writes().fast().key(1).doc(
        "hash",
        "2.0.0",
        "O(N), N the number of fields set",
        "Set the values of fields",
    ),
    Spec::data("hsetnx", 4, hsetnx).writes().fast().key(1).doc(
        "hash",
        "2.0.0",
        "O(1)",
        "Set the value of a field that does not exist",
    ),
    Spec::data("hstrlen", 3, hstrlen).reads().fast().key(1).doc(
        "hash",
        "3.2.0",
        "O(1)",
        "Get the length of the value of a field",
    ),
    Spec::data("hvals", 2, hvals).reads().key(1).doc(
        "hash",
        "2.0.0",
        "O(N), N the number of fields",
        "Get the values of all fields",
    ),
];

// Changing.

fn hset(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let added = set(call, args, "hset")?;
    call.reply.count(added);
    DONE
}

fn hmset(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    set(call, args, "hmset")?;
    call.reply.ok();
    DONE
}

/// Sets the fields of the command of that name, and says how many are new.
fn set(call: &mut Call<'_>, args: Args<'_>, name: &str) -> Result<usize, Error> {
    if args.len() % 2 == 1 {
        return Err(Error::arity(name));
    }
    let (key, limits) = (&args[1], call.keys.limits);
    let hash = call.keys.hash_or_insert(key)?;
    let fields = args.iter_from(2).step_by(2).zip(args.iter_from(3).step_by(2));
    let added = fields.filter(|(field, value)| hash.insert(field, value, &limits)).count();
    call.keys.changed(key, EventClass::HASH, "hset");
    Ok(added)
}

fn hsetnx(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (key, limits) = (&args[1], call.keys.limits);
    let hash = call.keys.hash_or_insert(key)?;
    let new = hash.get(&args[2]).is_none();
    call.reply.flag(new);
    if new {
        hash.insert(&args[2], &args[3], &limits);
        call.keys.changed(key, EventClass::HASH, "hset");
    }
    DONE
}

fn hdel(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let removed = match call.keys.hash_mut(key)? {
        Some(hash) => args.iter_from(2).filter(|field| hash.remove(field)).count(),
        None => 0,
    };
    call.reply.count(removed);
    if removed > 0 {
        call.keys.changed(key, EventClass::HASH, "hdel");
        call.keys.drop_if_empty(key);
    }
    DONE
}

fn hincrby(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (key, field, limits) = (&args[1], &args[2], call.keys.limits);
    let more = integer(&args[3])?;
    let old = match call.keys.hash_mut(key)?.and_then(|hash| hash.get(field)) {
        Some(old) => parse_i64(old).ok_or(Error::new("ERR hash value is not an integer"))?,
        None => 0,
    };
    const OVERFLOW: Error = Error::new("ERR increment or decrement would overflow");
    let sum = old.checked_add(more).ok_or(OVERFLOW)?;
    let hash = call.keys.hash_or_insert(key)?;
    hash.insert(field, itoa::Buffer::new().format(sum).as_bytes(), &limits);
    call.reply.int(sum);
    call.keys.changed(key, EventClass::HASH, "hincrby");
    DONE
}

fn hincrbyfloat(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (key, field, limits) = (&args[1], &args[2], call.keys.limits);
    let more = LongDouble::parse(&args[3]).ok_or(Error::NOT_A_FLOAT)?;
    const INFINITE: Error = Error::new("ERR value is NaN or Infinity");
    let more = more.checked_add(LongDouble::ZERO).ok_or(INFINITE)?;
    let old = match call.keys.hash_mut(key)?.and_then(|hash| hash.get(field)) {
        Some(old) => LongDouble::parse(old).ok_or(Error::new("ERR hash value is not a float"))?,
        None => LongDouble::ZERO,
    };
    const NOT_FINITE: Error = Error::new("ERR increment would produce NaN or Infinity");
    let sum = old.checked_add(more).ok_or(NOT_FINITE)?;
    let mut text = Vec::new();
    sum.write(&mut text);
    call.keys.hash_or_insert(key)?.insert(field, &text, &limits);
    call.reply.bulk(&text);
    call.keys.log_as([b"HSET", key, field, &text]);
    call.keys.changed(key, EventClass::HASH, "hincrbyfloat");
    DONE
}

// Looking.

fn hget(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let hash = call.keys.hash(&args[1])?;
    value(call.reply, hash, &args[2]);
    DONE
}

fn hmget(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let hash = call.keys.hash(&args[1])?;
    let fields = args.iter_from(2);
    call.reply.array(fields.len());
    fields.for_each(|field| value(call.reply, hash, field));
    DONE
}

fn value(reply: &mut Reply, hash: Option<&Hash>, field: &[u8]) {
    match hash.and_then(|hash| hash.get(field)) {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
}

fn hexists(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let exists = call.keys.hash(&args[1])?.is_some_and(|hash| hash.get(&args[2]).is_some());
    call.reply.flag(exists);
    DONE
}

fn hstrlen(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let value = call.keys.hash(&args[1])?.and_then(|hash| hash.get(&args[2]));
    call.reply.count(value.map_or(0, <[u8]>::len));
    DONE
}

fn hlen(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let len = call.keys.hash(&args[1])?.map_or(0, Hash::len);
    call.reply.count(len);
    DONE
}

fn hgetall(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let Some(hash) = call.keys.hash(&args[1])? else {
        call.reply.map(0);
        return DONE;
    };
    call.reply.map(hash.len());
    for (field, value) in hash.iter() {
        call.reply.bulk(field);
        call.reply.bulk(value);
    }
    DONE
}

fn hkeys(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let Some(hash) = call.keys.hash(&args[1])? else {
        call.reply.array(0);
        return DONE;
    };
    call.reply.array(hash.len());
    hash.iter().for_each(|(field, _)| call.reply.bulk(field));
    DONE
}

fn hvals(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let Some(hash) = call.keys.hash(&args[1])? else {
        call.reply.array(0);
        return DONE;
    };
    call.reply.array(hash.len());
    hash.iter().for_each(|(_, value)| call.reply.bulk(value));
    DONE
}

fn hscan(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let from = cursor(&args[2])?;
    let Some(hash) = call.keys.hash(&args[1])? else {
        scanned_nothing(call.reply);
        return DONE;
    };
    let scan = Scan::options(args, 3)?;
    let (mut found, mut len) = (Reply::new(call.reply.proto()), 0);
    let next = hash.scan(from, scan.count, |field, value| {
        if scan.wants(field) {
            found.bulk(field);
            found.bulk(value);
            len += 2;
        }
    });
    Scan::reply(call.reply, next, len, &mut found);
    DONE
}

fn hrandfield(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let count = args.get(2).map(signed_count).transpose()?;
    let with_values = args.is(3, "withvalues");
    if args.len() > 4 || (args.len() == 4 && !with_values) {
        return Err(Error::SYNTAX);
    }
    if with_values && count.is_some_and(|count| count.unsigned_abs() > i64::MAX as u64 / 2) {
        return Err(Error::new("ERR value is out of range"));
    }
    let mut random = call.keys.chance(key);
    let Some(hash) = call.keys.hash(key)? else {
        match count {
            Some(_) => call.reply.array(0),
            None => call.reply.null(),
        }
        return DONE;
    };
    let nested = with_values && call.reply.proto() == Proto::Resp3;
    let words = if with_values && !nested { 2 } else { 1 };
    let write = |reply: &mut Reply, (field, value): (&[u8], &[u8])| {
        if nested {
            reply.array(2);
        }
        reply.bulk(field);
        if with_values {
            reply.bulk(value);
        }
    };
    match count {
        None => write(call.reply, hash.random(&mut random).unwrap_or_default()),
        Some(count @ ..=1) => {
            let count = count.unsigned_abs();
            call.reply.array(count as usize * words);
            repeat(call.reply, count, |reply| {
                write(reply, hash.random(&mut random).unwrap_or_default());
            })?;
        }
        Some(count) => {
            let one = |random: &mut _| hash.random(random);
            let picked = pick(count as usize, hash.len(), &mut random, hash.iter(), one);
            call.reply.array(picked.len() * words);
            picked.into_iter().for_each(|pair| write(call.reply, pair));
        }
    }
    DONE
}
