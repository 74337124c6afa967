//! Popping members of sorted sets from either end, and waiting for them.

use super::super::elements::{NOT_POSITIVE, at_least, count_option, counted_keys, timeout_ms};
use crate::command::{Answer, Call, DONE, Null, Outcome};
use crate::error::Error;
use crate::protocol::{Args, Proto};
use crate::store::{EventClass, Kind};

/// An end of a sorted set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

impl End {
    fn event(self) -> &'static str {
        match self {
            End::Min => "zpopmin",
            End::Max => "zpopmax",
        }
    }

    /// The command that pops there without waiting.
    fn command(self) -> &'static [u8] {
        match self {
            End::Min => b"ZPOPMIN",
            End::Max => b"ZPOPMAX",
        }
    }
}

// One sorted set.

pub(super) fn zpopmin(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    pop(call, args, End::Min)
}

pub(super) fn zpopmax(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    pop(call, args, End::Max)
}

fn pop(call: &mut Call<'_>, args: Args<'_>, end: End) -> Answer {
    if args.len() > 3 {
        return Err(Error::SYNTAX);
    }
    let key = &args[1];
    let count = args.get(2).map(|word| at_least(word, 0, NOT_POSITIVE)).transpose()?;
    if first(call, &[key])?.is_none() || count == Some(0) {
        call.reply.array(0);
        return DONE;
    }
    let popped = take(call, key, end, count.unwrap_or(1))?;
    let pairs = count.is_some() && call.reply.proto() == Proto::Resp3;
    call.reply.array(if pairs { popped.len() } else { popped.len() * 2 });
    write(call, &popped, pairs);
    DONE
}

// Of several sorted sets the first that has members.

pub(super) fn zmpop(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (keys, end, count) = mpop_words(args, 1)?;
    if !mpop(call, &keys, end, count)? {
        call.reply.null_array();
    }
    DONE
}

pub(super) fn bzmpop(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (keys, end, count) = mpop_words(args, 2)?;
    let timeout_ms = timeout_ms(&args[1])?;
    if mpop(call, &keys, end, count)? { DONE } else { block(&keys, timeout_ms) }
}

fn mpop_words(args: Args<'_>, keys: usize) -> Result<(Vec<&[u8]>, End, usize), Error> {
    let (keys, at) = counted_keys(args, keys)?;
    let end = match () {
        () if args.is(at, "min") => End::Min,
        () if args.is(at, "max") => End::Max,
        () => return Err(Error::SYNTAX),
    };
    Ok((keys, end, count_option(args, at + 1)?))
}

fn mpop(call: &mut Call<'_>, keys: &[&[u8]], end: End, count: usize) -> Result<bool, Error> {
    let Some(key) = first(call, keys)? else {
        return Ok(false);
    };
    let popped = take(call, key, end, count)?;
    call.reply.array(2);
    call.reply.bulk(key);
    call.reply.array(popped.len());
    write(call, &popped, true);
    let count = popped.len();
    call.keys.log_as([end.command(), key, itoa::Buffer::new().format(count).as_bytes()]);
    Ok(true)
}

pub(super) fn bzpopmin(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    bpop(call, args, End::Min)
}

pub(super) fn bzpopmax(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    bpop(call, args, End::Max)
}

fn bpop(call: &mut Call<'_>, args: Args<'_>, end: End) -> Answer {
    let last = args.len() - 1;
    let timeout_ms = timeout_ms(&args[last])?;
    let keys: Vec<&[u8]> = args.iter_from(1).take(last - 1).collect();
    let Some(key) = first(call, &keys)? else {
        return block(&keys, timeout_ms);
    };
    let popped = take(call, key, end, 1)?;
    call.reply.array(1 + popped.len() * 2);
    call.reply.bulk(key);
    write(call, &popped, false);
    call.keys.log_as([end.command(), key]);
    DONE
}

fn block(keys: &[&[u8]], timeout_ms: Option<u64>) -> Answer {
    let keys = keys.iter().map(|key| key.to_vec()).collect();
    Ok(Outcome::block(keys, timeout_ms, Null::Array))
}

/// The first key that is there, which has to be a sorted set.
fn first<'k>(call: &mut Call<'_>, keys: &[&'k [u8]]) -> Result<Option<&'k [u8]>, Error> {
    for &key in keys {
        match call.keys.kind(key) {
            None => {}
            Some(Kind::Zset) => return Ok(Some(key)),
            Some(_) if call.keys.has_waited => {}
            Some(_) => return Err(Error::WRONG_TYPE),
        }
    }
    Ok(None)
}

/// Takes up to `count` members from an end of a sorted set that is there.
fn take(
    call: &mut Call<'_>,
    key: &[u8],
    end: End,
    count: usize,
) -> Result<Vec<(Vec<u8>, f64)>, Error> {
    let Some(zset) = call.keys.zset_mut(key)? else {
        return Ok(Vec::new());
    };
    let len = zset.len();
    let count = count.min(len);
    let own = |(member, score): (&[u8], f64)| (member.to_vec(), score);
    let popped = match end {
        End::Min => zset.iter_from(0).take(count).map(own).collect(),
        End::Max => zset.iter_back_from(len - 1).take(count).map(own).collect(),
    };
    match end {
        End::Min => zset.remove_ranks(0..count),
        End::Max => zset.remove_ranks(len - count..len),
    }
    call.keys.changed(key, EventClass::ZSET, end.event());
    call.keys.drop_if_empty(key);
    Ok(popped)
}

fn write(call: &mut Call<'_>, members: &[(Vec<u8>, f64)], pairs: bool) {
    for (member, score) in members {
        if pairs {
            call.reply.array(2);
        }
        call.reply.bulk(member);
        call.reply.double(*score);
    }
}
