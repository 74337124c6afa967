//! SORT and SORT_RO: the elements of a list, set or sorted set in order, by themselves or by other keys.

use std::cmp::Ordering;

use super::support::integer;
use super::{Answer, Call, DONE, Spec, flag};
use crate::error::Error;
use crate::protocol::{Args, parse_f64};
use crate::store::{EventClass, Keys, List, Side, Value, ValueRef};

#[cfg(test)]
mod tests;

const COMPLEXITY: &str =
    "O(N+M*log(M)) where N is the number of elements and M the number of those sorted";

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("sort", -2, |call, args| sort(call, args, true))
        .writes()
        .all_keys_and_after(1, "store")
        .doc("generic", "1.0.0", COMPLEXITY, "Sort the elements of a list, set or sorted set"),
    Spec::data("sort_ro", -2, |call, args| sort(call, args, false))
        .reads()
        .flags(flag::MOVABLEKEYS)
        .all_keys(Some(1))
        .doc("generic", "7.0.0", COMPLEXITY, "The same as SORT, without STORE"),
];

/// What SORT is to do.
struct Options<'a> {
    descending: bool,
    alpha: bool,
    /// How many elements are left out at the front.
    skip: i64,
    /// How many are given at most, where not negative.
    take: i64,
    /// The pattern of what elements are sorted by.
    by: Option<&'a [u8]>,
    /// The patterns of what is given for each element, instead of itself.
    get: Vec<&'a [u8]>,
    /// The key at which the result is put.
    store: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(args: Args<'a>, may_store: bool) -> Result<Options<'a>, Error> {
        let mut options = Options {
            descending: false,
            alpha: false,
            skip: 0,
            take: -1,
            by: None,
            get: Vec::new(),
            store: None,
        };
        let mut index = 2;
        while index < args.len() {
            let next = args.get(index + 1);
            if args.is(index, "asc") {
                options.descending = false;
            } else if args.is(index, "desc") {
                options.descending = true;
            } else if args.is(index, "alpha") {
                options.alpha = true;
            } else if args.is(index, "limit") && index + 2 < args.len() {
                options.skip = integer(&args[index + 1])?;
                options.take = integer(&args[index + 2])?;
                index += 2;
            } else if may_store && args.is(index, "store") && next.is_some() {
                options.store = next;
                index += 1;
            } else if args.is(index, "by") && next.is_some() {
                options.by = next;
                index += 1;
            } else if args.is(index, "get")
                && let Some(pattern) = next
            {
                options.get.push(pattern);
                index += 1;
            } else {
                return Err(Error::SYNTAX);
            }
            index += 1;
        }
        Ok(options)
    }

    /// Which of `len` elements are given.
    fn range(&self, len: usize) -> std::ops::Range<usize> {
        let start = (self.skip.max(0) as usize).min(len);
        let count = usize::try_from(self.take).unwrap_or(len);
        start..start.saturating_add(count).min(len)
    }
}

fn sort(call: &mut Call<'_>, args: Args<'_>, may_store: bool) -> Answer {
    let mut options = Options::parse(args, may_store)?;
    let mut is_set = false;
    let mut elements: Vec<Vec<u8>> = match call.keys.read(&args[1]) {
        None => Vec::new(),
        Some(ValueRef::List(list)) => list.iter_from(0).map(<[u8]>::to_vec).collect(),
        Some(ValueRef::Set(set)) => {
            is_set = true;
            set.iter().map(|member| member.into_owned()).collect()
        }
        Some(ValueRef::Zset(zset)) => {
            zset.iter_from(0).map(|(member, _)| member.to_vec()).collect()
        }
        Some(_) => return Err(Error::WRONG_TYPE),
    };
    // A pattern without a star is the same for all: they stay in the order they have.
    let mut as_they_are = options.by.is_some_and(|by| !by.contains(&b'*'));
    if as_they_are && is_set && options.store.is_some() {
        // A set has no order of its own, and what is stored must not depend on chance.
        (as_they_are, options.alpha, options.by) = (false, true, None);
    }
    if !as_they_are {
        elements = in_order(call.keys, elements, &options)?;
    } else if options.descending && !is_set {
        elements.reverse();
    }
    let elements = &elements[options.range(elements.len())];
    match options.store {
        None => {
            reply(call, elements, &options.get);
            DONE
        }
        Some(key) => store(call, key, elements, &options.get),
    }
}

fn reply(call: &mut Call<'_>, elements: &[Vec<u8>], get: &[&[u8]]) {
    call.reply.array(elements.len() * get.len().max(1));
    for element in elements {
        if get.is_empty() {
            call.reply.bulk(element);
        }
        for pattern in get {
            match look_up(call.keys, pattern, element) {
                Some(value) => call.reply.bulk(&value),
                None => call.reply.null(),
            }
        }
    }
}

fn store(call: &mut Call<'_>, key: &[u8], elements: &[Vec<u8>], get: &[&[u8]]) -> Answer {
    let limits = call.keys.limits;
    let mut list = List::new();
    for element in elements {
        if get.is_empty() {
            list.push(Side::Right, element, &limits);
        }
        for pattern in get {
            let value = look_up(call.keys, pattern, element).unwrap_or_default();
            list.push(Side::Right, &value, &limits);
        }
    }
    let count = list.len();
    if count > 0 {
        call.keys.insert(key, Value::List(Box::new(list)), None);
        call.keys.changed(key, EventClass::LIST, "sortstore");
    } else if call.keys.delete(key) {
        call.keys.changed(key, EventClass::GENERIC, "del");
    }
    call.reply.count(count);
    DONE
}

/// The elements in the order that the options ask for.
fn in_order(
    keys: &mut Keys,
    elements: Vec<Vec<u8>>,
    options: &Options<'_>,
) -> Result<Vec<Vec<u8>>, Error> {
    let direct = |ordering: Ordering| {
        if options.descending { ordering.reverse() } else { ordering }
    };
    if options.alpha {
        let Some(by) = options.by else {
            let mut elements = elements;
            elements.sort_by(|a, b| direct(a.cmp(b)));
            return Ok(elements);
        };
        // What has no weight comes first.
        let weigh = |element: Vec<u8>| (look_up(keys, by, &element), element);
        let mut weighed: Vec<_> = elements.into_iter().map(weigh).collect();
        weighed.sort_by(|(a, _), (b, _)| direct(a.cmp(b)));
        return Ok(weighed.into_iter().map(|(_, element)| element).collect());
    }
    let weigh = |element: Vec<u8>| {
        let weight = match options.by {
            None => Some(number(&element)),
            Some(by) => look_up(keys, by, &element).map(|weight| number(&weight)),
        };
        // What has no weight counts as 0.
        weight.unwrap_or(Some(0.0)).map(|weight| (weight, element))
    };
    let weighed: Option<Vec<_>> = elements.into_iter().map(weigh).collect();
    let mut weighed =
        weighed.ok_or(Error::new("ERR One or more scores can't be converted into double"))?;
    weighed.sort_by(|(a, one), (b, other)| {
        direct(a.partial_cmp(b).unwrap_or(Ordering::Equal).then_with(|| one.cmp(other)))
    });
    Ok(weighed.into_iter().map(|(_, element)| element).collect())
}

/// The number that an element or weight is; nothing is 0.
fn number(text: &[u8]) -> Option<f64> {
    if text.is_empty() { Some(0.0) } else { parse_f64(text.trim_ascii_start()) }
}

/// What a pattern stands for: `#` for the element itself; else the string whose key is the pattern with the
/// element in the place of its first star, or, where the pattern goes on with `->` and the name of a field, that
/// field of the hash.
fn look_up(keys: &mut Keys, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|&byte| byte == b'*')?;
    let (before, after) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = after.windows(2).position(|pair| pair == b"->");
    let (after, field) = match arrow {
        Some(at) if at + 2 < after.len() => (&after[..at], Some(&after[at + 2..])),
        _ => (after, None),
    };
    let key = [before, element, after].concat();
    match (keys.read(&key)?, field) {
        (ValueRef::Str(string), None) => Some(string.to_vec()),
        (ValueRef::Hash(hash), Some(field)) => hash.get(field).map(<[u8]>::to_vec),
        _ => None,
    }
}
