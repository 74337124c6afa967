//! Lists: LPUSH, RPOP, LRANGE and the like, and the commands that wait for an element.

use super::elements::{
    NOT_POSITIVE, at_least, count_option, counted_keys, index, indexes, timeout_ms,
};
use super::support::integer;
use super::{Answer, Call, DONE, Null, Outcome, Spec, flag};
use crate::error::Error;
use crate::protocol::Args;
use crate::store::{EventClass, Kind, List, Side};

#[cfg(test)]
mod tests;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("blmove", 6, blmove)
        .writes()
        .flags(flag::NOSCRIPT | flag::BLOCKING)
        .keys(1, 2, 1)
        .doc("list", "6.2.0", "O(1)", "Move an element between lists, waiting until there is one"),
    Spec::data("blmpop", -5, blmpop).frees().flags(flag::BLOCKING).counted_keys(2, None).doc(
        "list",
        "7.0.0",
        "O(N+M), N the number of keys and M of elements popped",
        "Pop elements from the first list that has any, waiting until one does",
    ),
    Spec::data("blpop", -3, blpop)
        .frees()
        .flags(flag::NOSCRIPT | flag::BLOCKING)
        .keys(1, -2, 1)
        .doc(
            "list",
            "2.0.0",
            "O(N), N the number of keys",
            "Pop the head of the first list that has one, waiting until one does",
        ),
    Spec::data("brpop", -3, brpop)
        .frees()
        .flags(flag::NOSCRIPT | flag::BLOCKING)
        .keys(1, -2, 1)
        .doc(
            "list",
            "2.0.0",
            "O(N), N the number of keys",
            "Pop the tail of the first list that has one, waiting until one does",
        ),
    Spec::data("brpoplpush", 4, brpoplpush)
        .writes()
        .flags(flag::NOSCRIPT | flag::BLOCKING)
        .keys(1, 2, 1)
        .doc(
            "list",
            "2.2.0",
            "O(1)",
            "Move the tail of a list to the head of another, waiting until there is one",
        ),
    Spec::data("lindex", 3, lindex).reads().key(1).doc(
        "list",
        "1.0.0",
        "O(N), N the distance to the nearer end",
        "Get the element at an index",
    ),
    Spec::data("linsert", 5, linsert).writes().key(1).doc(
        "list",
        "2.2.0",
        "O(N), N the number of elements before the pivot",
        "Insert an element before or after another one",
    ),
    Spec::data("llen", 2, llen).reads().fast().key(1).doc(
        "list",
        "1.0.0",
        "O(1)",
        "Get the number of elements",
    ),
    Spec::data("lmove", 5, lmove).writes().keys(1, 2, 1).doc(
        "list",
        "6.2.0",
        "O(1)",
        "Move an element from an end of a list to an end of another",
    ),
    Spec::data("lmpop", -4, lmpop).frees().counted_keys(1, None).doc(
        "list",
        "7.0.0",
        "O(N+M), N the number of keys and M of elements popped",
        "Pop elements from the first list that has any",
    ),
    Spec::data("lpop", -2, lpop).frees().fast().key(1).doc(
        "list",
        "1.0.0",
        "O(N), N the number of elements popped",
        "Pop elements from the head",
    ),
    Spec::data("lpos", -3, lpos).reads().key(1).doc(
        "list",
        "6.0.6",
        "O(N), N the number of elements looked at",
        "Get the indexes of elements that equal one",
    ),
    Spec::data("lpush", -3, lpush).writes().fast().key(1).doc(
        "list",
        "1.0.0",
        "O(N), N the number of elements added",
        "Add elements before the head",
    ),
    Spec::data("lpushx", -3, lpushx).writes().fast().key(1).doc(
        "list",
        "2.2.0",
        "O(N), N the number of elements added",
        "Add elements before the head of a list that exists",
    ),
    Spec::data("lrange", 4, lrange).reads().key(1).doc(
        "list",
        "1.0.0",
        "O(S+N), S the distance of the first to the nearer end and N the number of elements",
        "Get the elements from one index to another",
    ),
    Spec::data("lrem", 4, lrem).frees().key(1).doc(
        "list",
        "1.0.0",
        "O(N+M), N the number of elements and M of those removed",
        "Remove elements that equal one",
    ),
    Spec::data("lset", 4, lset).writes().key(1).doc(
        "list",
        "1.0.0",
        "O(N), N the distance to the nearer end",
        "Replace the element at an index",
    ),
    Spec::data("ltrim", 4, ltrim).frees().key(1).doc(
        "list",
        "1.0.0",
        "O(N), N the number of elements removed",
        "Remove all elements but those from one index to another",
    ),
    Spec::data("rpop", -2, rpop).frees().fast().key(1).doc(
        "list",
        "1.0.0",
        "O(N), N the number of elements popped",
        "Pop elements from the tail",
    ),
    Spec::data("rpoplpush", 3, rpoplpush).writes().keys(1, 2, 1).doc(
        "list",
        "1.2.0",
        "O(1)",
        "Move the tail of a list to the head of another",
    ),
    Spec::data("rpush", -3, rpush).writes().fast().key(1).doc(
        "list",
        "1.0.0",
        "O(N), N the number of elements added",
        "Add elements behind the tail",
    ),
    Spec::data("rpushx", -3, rpushx).writes().fast().key(1).doc(
        "list",
        "2.2.0",
        "O(N), N the number of elements added",
        "Add elements behind the tail of a list that exists",
    ),
];

// Adding.

fn lpush(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    push(call, args, Side::Left, false)
}

fn rpush(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    push(call, args, Side::Right, false)
}

fn lpushx(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    push(call, args, Side::Left, true)
}

fn rpushx(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    push(call, args, Side::Right, true)
}

fn push(call: &mut Call<'_>, args: Args<'_>, side: Side, only_existing: bool) -> Answer {
    let (key, limits) = (&args[1], call.keys.limits);
    let list = if only_existing {
        let Some(list) = call.keys.list_mut(key)? else {
            call.reply.int(0);
            return DONE;
        };
        list
    } else {
        call.keys.list_or_insert(key)?
    };
    args.iter_from(2).for_each(|element| list.push(side, element, &limits));
    call.reply.count(list.len());
    call.keys.changed(key, EventClass::LIST, pushed(side));
    DONE
}

fn linsert(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let after = match () {
        () if args.is(2, "before") => false,
        () if args.is(2, "after") => true,
        () => return Err(Error::SYNTAX),
    };
    let (key, pivot, limits) = (&args[1], &args[3], call.keys.limits);
    let Some(list) = call.keys.list_mut(key)? else {
        call.reply.int(0);
        return DONE;
    };
    let Some(at) = list.iter_from(0).position(|element| element == pivot) else {
        call.reply.int(-1);
        return DONE;
    };
    list.insert(at + usize::from(after), &args[4], &limits);
    call.reply.count(list.len());
    call.keys.changed(key, EventClass::LIST, "linsert");
    DONE
}

fn lset(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (key, limits) = (&args[1], call.keys.limits);
    let list = call.keys.list_mut(key)?.ok_or(Error::NO_SUCH_KEY)?;
    let at = index(integer(&args[2])?, list.len()).ok_or(Error::INDEX_OUT_OF_RANGE)?;
    list.set(at, &args[3], &limits);
    call.reply.ok();
    call.keys.changed(key, EventClass::LIST, "lset");
    DONE
}

// Looking.

fn llen(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let len = call.keys.list(&args[1])?.map_or(0, List::len);
    call.reply.count(len);
    DONE
}

fn lindex(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let Some(list) = call.keys.list(&args[1])? else {
        call.reply.null();
        return DONE;
    };
    let at = index(integer(&args[2])?, list.len());
    match at.and_then(|at| list.get(at)) {
        Some(element) => call.reply.bulk(element),
        None => call.reply.null(),
    }
    DONE
}

fn lrange(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (start, stop) = (integer(&args[2])?, integer(&args[3])?);
    let Some(list) = call.keys.list(&args[1])? else {
        call.reply.array(0);
        return DONE;
    };
    let range = indexes(start, stop, list.len());
    call.reply.array(range.len());
    list.iter_from(range.start).take(range.len()).for_each(|element| call.reply.bulk(element));
    DONE
}

fn lpos(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (mut rank, mut count, mut longest) = (1, None, 0);
    let mut at = 3;
    while at < args.len() {
        let value = args.get(at + 1).ok_or(Error::SYNTAX)?;
        if args.is(at, "rank") {
            rank = integer(value)?;
            if rank == 0 {
                return Err(Error::new(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... \
                     or use negative to start from the end of the list",
                ));
            }
        } else if args.is(at, "count") {
            count = Some(at_least(value, 0, Error::new("ERR COUNT can't be negative"))?);
        } else if args.is(at, "maxlen") {
            longest = at_least(value, 0, Error::new("ERR MAXLEN can't be negative"))?;
        } else {
            return Err(Error::SYNTAX);
        }
        at += 2;
    }
    let Some(list) = call.keys.list(&args[1])? else {
        match count {
            Some(_) => call.reply.array(0),
            None => call.reply.null(),
        }
        return DONE;
    };
    let (backwards, last) = (rank < 0, list.len() - 1);
    let elements = if backwards { list.iter_back_from(last) } else { list.iter_from(0) };
    let longest = if longest == 0 { usize::MAX } else { longest };
    let skipped = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let mut found = elements
        .take(longest)
        .enumerate()
        .filter(|&(_, element)| *element == args[2])
        .map(|(at, _)| if backwards { last - at } else { at })
        .skip(skipped);
    match count {
        None => match found.next() {
            Some(at) => call.reply.count(at),
            None => call.reply.null(),
        },
        Some(count) => {
            let begin = call.reply.begin();
            let count = if count == 0 { usize::MAX } else { count };
            let len = found.take(count).map(|at| call.reply.count(at)).count();
            call.reply.end_array(begin, len);
        }
    }
    DONE
}

// Removing.

fn lrem(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let count = integer(&args[2])?;
    let (key, limits) = (&args[1], call.keys.limits);
    let Some(list) = call.keys.list_mut(key)? else {
        call.reply.int(0);
        return DONE;
    };
    let at_most = match usize::try_from(count.unsigned_abs()) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(count) => count,
    };
    let removed = remove(list, &args[3], at_most, count < 0, &limits);
    call.reply.count(removed);
    if removed > 0 {
        call.keys.changed(key, EventClass::LIST, "lrem");
        call.keys.drop_if_empty(key);
    }
    DONE
}

/// Removes up to `count` elements that equal `element`, from the tail on where `backwards`, and says how many.
fn remove(
    list: &mut List,
    element: &[u8],
    count: usize,
    backwards: bool,
    limits: &crate::store::Limits,
) -> usize {
    // Above, a list without them is made in one pass: each removal may move all that lies behind it.
    const FEW: usize = 16;
    let len = list.len();
    let found = |(at, other): (usize, &[u8])| (other == element).then_some(at);
    let mut at: Vec<usize> = if backwards {
        let elements = list.iter_back_from(len - 1).enumerate();
        elements.filter_map(found).map(|at| len - 1 - at).take(count).collect()
    } else {
        list.iter_from(0).enumerate().filter_map(found).take(count).collect()
    };
    at.sort_unstable();
    if at.len() <= FEW {
        at.iter().rev().for_each(|&at| list.remove_range(at, 1));
        return at.len();
    }
    let mut kept = List::new();
    let mut removed = at.iter().copied().peekable();
    for (at, element) in list.iter_from(0).enumerate() {
        if removed.next_if_eq(&at).is_none() {
            kept.push(Side::Right, element, limits);
        }
    }
    *list = kept;
    at.len()
}

fn ltrim(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (start, stop) = (integer(&args[2])?, integer(&args[3])?);
    let key = &args[1];
    call.reply.ok();
    let Some(list) = call.keys.list_mut(key)? else {
        return DONE;
    };
    let len = list.len();
    let kept = indexes(start, stop, len);
    if kept.len() == len {
        call.keys.event(EventClass::LIST, "ltrim", key);
        return DONE;
    }
    list.remove_range(kept.end, len - kept.end);
    list.remove_range(0, kept.start);
    call.keys.changed(key, EventClass::LIST, "ltrim");
    call.keys.drop_if_empty(key);
    DONE
}

fn lpop(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    pop(call, args, Side::Left)
}

fn rpop(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    pop(call, args, Side::Right)
}

fn pop(call: &mut Call<'_>, args: Args<'_>, side: Side) -> Answer {
    if args.len() > 3 {
        return Err(Error::arity(if side == Side::Left { "lpop" } else { "rpop" }));
    }
    let key = &args[1];
    let count = args.get(2).map(|word| at_least(word, 0, NOT_POSITIVE)).transpose()?;
    let Some(list) = call.keys.list_mut(key)? else {
        match count {
            Some(_) => call.reply.null_array(),
            None => call.reply.null(),
        }
        return DONE;
    };
    match count {
        Some(0) => call.reply.array(0),
        Some(count) => {
            take(call, key, side, count)?;
        }
        None => {
            let element = list.pop(side).unwrap_or_default();
            call.reply.bulk(&element);
            popped(call, key, side);
        }
    }
    DONE
}

/// Pops up to `count` elements of a list that is there, writes them as an array, and says how many.
fn take(call: &mut Call<'_>, key: &[u8], side: Side, count: usize) -> Result<usize, Error> {
    let Some(list) = call.keys.list_mut(key)? else {
        return Ok(0);
    };
    let len = list.len();
    let count = count.min(len);
    call.reply.array(count);
    match side {
        Side::Left => {
            list.iter_from(0).take(count).for_each(|element| call.reply.bulk(element));
            list.remove_range(0, count);
        }
        Side::Right => {
            let elements = list.iter_back_from(len - 1).take(count);
            elements.for_each(|element| call.reply.bulk(element));
            list.remove_range(len - count, count);
        }
    }
    popped(call, key, side);
    Ok(count)
}

/// What follows when elements were popped.
fn popped(call: &mut Call<'_>, key: &[u8], side: Side) {
    let event = if side == Side::Left { "lpop" } else { "rpop" };
    call.keys.changed(key, EventClass::LIST, event);
    call.keys.drop_if_empty(key);
}

// Of several lists the first that has elements.

fn lmpop(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (keys, side, count) = mpop_words(args, 1)?;
    if !mpop(call, &keys, side, count)? {
        call.reply.null_array();
    }
    DONE
}

fn blmpop(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (keys, side, count) = mpop_words(args, 2)?;
    let timeout_ms = timeout_ms(&args[1])?;
    if mpop(call, &keys, side, count)? { DONE } else { block(&keys, timeout_ms) }
}

fn mpop_words(args: Args<'_>, keys: usize) -> Result<(Vec<&[u8]>, Side, usize), Error> {
    let (keys, at) = counted_keys(args, keys)?;
    Ok((keys, side(&args[at])?, count_option(args, at + 1)?))
}

fn mpop(call: &mut Call<'_>, keys: &[&[u8]], side: Side, count: usize) -> Result<bool, Error> {
    let Some(key) = first(call, keys)? else {
        return Ok(false);
    };
    call.reply.array(2);
    call.reply.bulk(key);
    let count = take(call, key, side, count)?;
    let name: &[u8] = if side == Side::Left { b"LPOP" } else { b"RPOP" };
    call.keys.log_as([name, key, itoa::Buffer::new().format(count).as_bytes()]);
    Ok(true)
}

fn blpop(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    bpop(call, args, Side::Left)
}

fn brpop(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    bpop(call, args, Side::Right)
}

fn bpop(call: &mut Call<'_>, args: Args<'_>, side: Side) -> Answer {
    let last = args.len() - 1;
    let timeout_ms = timeout_ms(&args[last])?;
    let keys: Vec<&[u8]> = args.iter_from(1).take(last - 1).collect();
    let Some(key) = first(call, &keys)? else {
        return block(&keys, timeout_ms);
    };
    let element = call.keys.list_mut(key)?.and_then(|list| list.pop(side)).unwrap_or_default();
    call.reply.array(2);
    call.reply.bulk(key);
    call.reply.bulk(&element);
    popped(call, key, side);
    let name: &[u8] = if side == Side::Left { b"LPOP" } else { b"RPOP" };
    call.keys.log_as([name, key]);
    DONE
}

/// The first key that is there, which has to be a list.
fn first<'k>(call: &mut Call<'_>, keys: &[&'k [u8]]) -> Result<Option<&'k [u8]>, Error> {
    for &key in keys {
        match call.keys.kind(key) {
            None => {}
            Some(Kind::List) => return Ok(Some(key)),
            Some(_) if call.keys.has_waited => {}
            Some(_) => return Err(Error::WRONG_TYPE),
        }
    }
    Ok(None)
}

fn block(keys: &[&[u8]], timeout_ms: Option<u64>) -> Answer {
    let keys = keys.iter().map(|key| key.to_vec()).collect();
    Ok(Outcome::block(keys, timeout_ms, Null::Array))
}

// From one list to another.

fn lmove(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (from, to) = (side(&args[3])?, side(&args[4])?);
    if !shift(call, &args[1], &args[2], from, to)? {
        call.reply.null();
    }
    DONE
}

fn rpoplpush(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if !shift(call, &args[1], &args[2], Side::Right, Side::Left)? {
        call.reply.null();
    }
    DONE
}

fn blmove(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (from, to) = (side(&args[3])?, side(&args[4])?);
    let timeout_ms = timeout_ms(&args[5])?;
    if !shift(call, &args[1], &args[2], from, to)? {
        return block_bulk(&args[1], timeout_ms);
    }
    call.keys.log_as([b"LMOVE", &args[1], &args[2], &args[3], &args[4]]);
    DONE
}

fn brpoplpush(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let timeout_ms = timeout_ms(&args[3])?;
    if !shift(call, &args[1], &args[2], Side::Right, Side::Left)? {
        return block_bulk(&args[1], timeout_ms);
    }
    call.keys.log_as([b"RPOPLPUSH", &args[1], &args[2]]);
    DONE
}

fn block_bulk(key: &[u8], timeout_ms: Option<u64>) -> Answer {
    Ok(Outcome::block(vec![key.to_vec()], timeout_ms, Null::Bulk))
}

/// Moves an element, where there is one, and writes it; whether it did.
fn shift(
    call: &mut Call<'_>,
    from: &[u8],
    to: &[u8],
    from_side: Side,
    to_side: Side,
) -> Result<bool, Error> {
    if first(call, &[from])?.is_none() {
        return Ok(false);
    }
    if call.keys.kind(to).is_some_and(|kind| kind != Kind::List) {
        return Err(Error::WRONG_TYPE);
    }
    let Some(element) = call.keys.list_mut(from)?.and_then(|list| list.pop(from_side)) else {
        return Ok(false);
    };
    let limits = call.keys.limits;
    call.keys.list_or_insert(to)?.push(to_side, &element, &limits);
    call.reply.bulk(&element);
    call.keys.changed(to, EventClass::LIST, pushed(to_side));
    popped(call, from, from_side);
    Ok(true)
}

fn pushed(side: Side) -> &'static str {
    match side {
        Side::Left => "lpush",
        Side::Right => "rpush",
    }
}

fn side(word: &[u8]) -> Result<Side, Error> {
    match word {
        word if word.eq_ignore_ascii_case(b"left") => Ok(Side::Left),
        word if word.eq_ignore_ascii_case(b"right") => Ok(Side::Right),
        _ => Err(Error::SYNTAX),
    }
}
