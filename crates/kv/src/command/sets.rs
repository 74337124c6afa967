//! Sets: SADD, SPOP, SINTER and the like.

use std::collections::HashSet;

use super::elements::{
    NO_KEYS, NOT_POSITIVE, Scan, at_least, cursor, limit, pick, repeat, scanned_nothing,
    signed_count,
};
use super::{Answer, Call, DONE, Spec};
use crate::error::Error;
use crate::protocol::{Args, Reply};
use crate::store::{EventClass, Keys, Kind, Limits, Member, Set, Value, ValueRef};

#[cfg(test)]
mod tests;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("sadd", -3, sadd).writes().fast().key(1).doc(
        "set",
        "1.0.0",
        "O(N), N the number of members added",
        "Add members",
    ),
    Spec::data("scard", 2, scard).reads().fast().key(1).doc(
        "set",
        "1.0.0",
        "O(1)",
        "Get the number of members",
    ),
    Spec::data("sdiff", -2, sdiff).reads().keys(1, -1, 1).doc(
        "set",
        "1.0.0",
        "O(N), N the number of members of all sets",
        "Get the members of the first set that no other one has",
    ),
    Spec::data("sdiffstore", -3, sdiffstore).writes().keys(1, -1, 1).doc(
        "set",
        "1.0.0",
        "O(N), N the number of members of all sets",
        "Store the members of the first set that no other one has",
    ),
    Spec::data("sinter", -2, sinter).reads().keys(1, -1, 1).doc(
        "set",
        "1.0.0",
        "O(N*M), N the number of members of the smallest set and M of sets",
        "Get the members that all sets have",
    ),
    Spec::data("sintercard", -3, sintercard).reads().counted_keys(1, None).doc(
        "set",
        "7.0.0",
        "O(N*M), N the number of members of the smallest set and M of sets",
        "Count the members that all sets have",
    ),
    Spec::data("sinterstore", -3, sinterstore).writes().keys(1, -1, 1).doc(
        "set",
        "1.0.0",
        "O(N*M), N the number of members of the smallest set and M of sets",
        "Store the members that all sets have",
    ),
    Spec::data("sismember", 3, sismember).reads().fast().key(1).doc(
        "set",
        "1.0.0",
        "O(1)",
        "Say whether something is a member",
    ),
    Spec::data("smembers", 2, smembers).reads().key(1).doc(
        "set",
        "1.0.0",
        "O(N), N the number of members",
        "Get all members",
    ),
    Spec::data("smismember", -3, smismember).reads().fast().key(1).doc(
        "set",
        "6.2.0",
        "O(N), N the number of members asked for",
        "Say of several whether they are members",
    ),
    Spec::data("smove", 4, smove).frees().fast().keys(1, 2, 1).doc(
        "set",
        "1.0.0",
        "O(1)",
        "Move a member from a set to another",
    ),
    Spec::data("spop", -2, spop).frees().fast().key(1).doc(
        "set",
        "1.0.0",
        "O(N), N the number of members asked for",
        "Remove members picked at random and get them",
    ),
    Spec::data("srandmember", -2, srandmember).reads().key(1).doc(
        "set",
        "1.0.0",
        "O(N), N the number of members asked for",
        "Get members picked at random",
    ),
    Spec::data("srem", -3, srem).frees().fast().key(1).doc(
        "set",
        "1.0.0",
        "O(N), N the number of members to remove",
        "Remove members",
    ),
    Spec::data("sscan", -3, sscan).reads().key(1).doc(
        "set",
        "2.8.0",
        "O(1) a call, O(N) for all N members",
        "Go through the members, some at a time",
    ),
    Spec::data("sunion", -2, sunion).reads().keys(1, -1, 1).doc(
        "set",
        "1.0.0",
        "O(N), N the number of members of all sets",
        "Get the members that any set has",
    ),
    Spec::data("sunionstore", -3, sunionstore).writes().keys(1, -1, 1).doc(
        "set",
        "1.0.0",
        "O(N), N the number of members of all sets",
        "Store the members that any set has",
    ),
];

// One set.

fn sadd(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (key, limits) = (&args[1], call.keys.limits);
    let set = call.keys.set_or_insert(key)?;
    let added = args.iter_from(2).filter(|member| set.insert(member, &limits)).count();
    call.reply.count(added);
    if added > 0 {
        call.keys.changed(key, EventClass::SET, "sadd");
    }
    DONE
}

fn srem(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let removed = match call.keys.set_mut(key)? {
        Some(set) => args.iter_from(2).filter(|member| set.remove(member)).count(),
        None => 0,
    };
    call.reply.count(removed);
    if removed > 0 {
        call.keys.changed(key, EventClass::SET, "srem");
        call.keys.drop_if_empty(key);
    }
    DONE
}

fn scard(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let len = call.keys.set(&args[1])?.map_or(0, Set::len);
    call.reply.count(len);
    DONE
}

fn sismember(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let is_member = call.keys.set(&args[1])?.is_some_and(|set| set.contains(&args[2]));
    call.reply.flag(is_member);
    DONE
}

fn smismember(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let set = call.keys.set(&args[1])?;
    let members = args.iter_from(2);
    call.reply.array(members.len());
    for member in members {
        call.reply.flag(set.is_some_and(|set| set.contains(member)));
    }
    DONE
}

fn smembers(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    match call.keys.set(&args[1])? {
        Some(set) => {
            call.reply.set(set.len());
            set.iter().for_each(|member| call.reply.bulk(&member));
        }
        None => call.reply.set(0),
    }
    DONE
}

fn sscan(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let from = cursor(&args[2])?;
    let Some(set) = call.keys.set(&args[1])? else {
        scanned_nothing(call.reply);
        return DONE;
    };
    let scan = Scan::options(args, 3)?;
    let (mut found, mut len) = (Reply::new(call.reply.proto()), 0);
    let next = set.scan(from, scan.count, |member| {
        if scan.wants(member) {
            found.bulk(member);
            len += 1;
        }
    });
    Scan::reply(call.reply, next, len, &mut found);
    DONE
}

fn smove(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (from, to, member, limits) = (&args[1], &args[2], &args[3], call.keys.limits);
    let (from_kind, to_kind) = (call.keys.kind(from), call.keys.kind(to));
    if from_kind.is_none() {
        call.reply.int(0);
        return DONE;
    }
    if [from_kind, to_kind].into_iter().flatten().any(|kind| kind != Kind::Set) {
        return Err(Error::WRONG_TYPE);
    }
    if from == to {
        let is_member = call.keys.set(from)?.is_some_and(|set| set.contains(member));
        call.reply.flag(is_member);
        return DONE;
    }
    let removed = call.keys.set_mut(from)?.is_some_and(|set| set.remove(member));
    call.reply.flag(removed);
    if !removed {
        return DONE;
    }
    call.keys.changed(from, EventClass::SET, "srem");
    call.keys.drop_if_empty(from);
    if call.keys.set_or_insert(to)?.insert(member, &limits) {
        call.keys.changed(to, EventClass::SET, "sadd");
    }
    DONE
}

// At random.

fn spop(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if args.len() > 3 {
        return Err(Error::SYNTAX);
    }
    let key = &args[1];
    let count = args.get(2).map(|word| at_least(word, 0, NOT_POSITIVE)).transpose()?;
    let mut random = call.keys.chance(key);
    let Some(set) = call.keys.set_mut(key)? else {
        match count {
            Some(_) => call.reply.set(0),
            None => call.reply.null(),
        }
        return DONE;
    };
    let Some(count) = count else {
        let member = set.random(&mut random).map(Member::into_owned).unwrap_or_default();
        set.remove(&member);
        call.reply.bulk(&member);
        call.keys.log_as([b"SREM", key, &member]);
        call.keys.changed(key, EventClass::SET, "spop");
        call.keys.drop_if_empty(key);
        return DONE;
    };
    if count == 0 {
        call.reply.set(0);
        return DONE;
    }
    if count >= set.len() {
        call.reply.set(set.len());
        set.iter().for_each(|member| call.reply.bulk(&member));
        call.keys.delete(key);
        call.keys.log_as([b"DEL", key]);
        call.keys.changed(key, EventClass::SET, "spop");
        call.keys.event(EventClass::GENERIC, "del", key);
        return DONE;
    }
    let popped = pick_members(set, count, &mut random);
    let popped: Vec<Vec<u8>> = popped.into_iter().map(Member::into_owned).collect();
    call.reply.set(popped.len());
    for member in &popped {
        set.remove(member);
        call.reply.bulk(member);
    }
    let words = [&b"SREM"[..], key].into_iter().chain(popped.iter().map(|member| &member[..]));
    call.keys.log_as(words);
    call.keys.changed(key, EventClass::SET, "spop");
    DONE
}

fn srandmember(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if args.len() > 3 {
        return Err(Error::SYNTAX);
    }
    let key = &args[1];
    let count = args.get(2).map(signed_count).transpose()?;
    let mut random = call.keys.chance(key);
    let Some(set) = call.keys.set(key)? else {
        match count {
            Some(_) => call.reply.array(0),
            None => call.reply.null(),
        }
        return DONE;
    };
    let mut one = |reply: &mut Reply| {
        reply.bulk(&set.random(&mut random).unwrap_or_default());
    };
    match count {
        None => one(call.reply),
        Some(count @ ..=1) => {
            call.reply.array(count.unsigned_abs() as usize);
            repeat(call.reply, count.unsigned_abs(), one)?;
        }
        Some(count) => {
            let picked = pick_members(set, count as usize, &mut random);
            call.reply.array(picked.len());
            picked.iter().for_each(|member| call.reply.bulk(member));
        }
    }
    DONE
}

/// Picks members at random, none twice.
fn pick_members<'k>(set: &'k Set, count: usize, random: &mut fastrand::Rng) -> Vec<Member<'k>> {
    pick(count, set.len(), random, set.iter(), |random| set.random(random))
}

// Several sets.

fn sinter(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let sets = read(call.keys, args, 1, args.len() - 1)?;
    let begin = call.reply.begin();
    let len = intersection(&sets).map(|member| call.reply.bulk(&member)).count();
    call.reply.end_set(begin, len);
    DONE
}

fn sintercard(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let keys = at_least(&args[1], 1, NO_KEYS)?;
    if keys > args.len() - 2 {
        return Err(Error::new("ERR Number of keys can't be greater than number of args"));
    }
    let limit = limit(args, 2 + keys)?;
    let sets = read(call.keys, args, 2, keys)?;
    call.reply.count(intersection(&sets).take(limit).count());
    DONE
}

fn sinterstore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let limits = call.keys.limits;
    let sets = read(call.keys, args, 2, args.len() - 2)?;
    let set = collect(intersection(&sets), &limits);
    store(call, &args[1], set, "sinterstore")
}

fn sunion(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let sets = read(call.keys, args, 1, args.len() - 1)?;
    let mut seen: HashSet<Member<'_>, ahash::RandomState> = HashSet::default();
    let begin = call.reply.begin();
    for member in sets.iter().copied().flatten().flat_map(Set::iter) {
        if !seen.contains(&member) {
            call.reply.bulk(&member);
            seen.insert(member);
        }
    }
    call.reply.end_set(begin, seen.len());
    DONE
}

fn sunionstore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let limits = call.keys.limits;
    let sets = read(call.keys, args, 2, args.len() - 2)?;
    let set = collect(sets.iter().copied().flatten().flat_map(Set::iter), &limits);
    store(call, &args[1], set, "sunionstore")
}

fn sdiff(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let sets = read(call.keys, args, 1, args.len() - 1)?;
    let begin = call.reply.begin();
    let len = difference(&sets).map(|member| call.reply.bulk(&member)).count();
    call.reply.end_set(begin, len);
    DONE
}

fn sdiffstore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let limits = call.keys.limits;
    let sets = read(call.keys, args, 2, args.len() - 2)?;
    let set = collect(difference(&sets), &limits);
    store(call, &args[1], set, "sdiffstore")
}

/// The sets at the `count` keys from the word at `from` on, in order, `None` where there is no key.
fn read<'k>(
    keys: &'k mut Keys,
    args: Args<'_>,
    from: usize,
    count: usize,
) -> Result<Vec<Option<&'k Set>>, Error> {
    let names = || args.iter_from(from).take(count);
    for name in names() {
        keys.set(name)?;
    }
    let keys: &'k Keys = keys;
    let sets = names().map(|name| match keys.value(name) {
        Some(ValueRef::Set(set)) => Some(set),
        _ => None,
    });
    Ok(sets.collect())
}

/// The members that all sets have.
fn intersection<'k>(sets: &[Option<&'k Set>]) -> impl Iterator<Item = Member<'k>> + use<'k> {
    let sets: Option<Vec<&Set>> = sets.iter().copied().collect();
    let mut sets = sets.unwrap_or_default();
    sets.sort_by_key(|set| set.len());
    let smallest = sets.first().copied();
    smallest
        .into_iter()
        .flat_map(Set::iter)
        .filter(move |member| sets[1..].iter().all(|set| set.contains(member)))
}

/// The members of the first set that no other one has.
fn difference<'k>(sets: &[Option<&'k Set>]) -> impl Iterator<Item = Member<'k>> + use<'k> {
    let first = sets.first().copied().flatten();
    let mut others: Vec<&Set> = sets.iter().skip(1).copied().flatten().collect();
    others.sort_by_key(|set| std::cmp::Reverse(set.len()));
    // Either each member is looked for in each other set, which ends early where they have much in common, or
    // all members of those are taken from a table of the first one's.
    let len = first.map_or(0, Set::len);
    let looks = len.saturating_mul(others.len() + 1) / 2;
    let removals = len + others.iter().map(|set| set.len()).sum::<usize>();
    let mut left: Option<HashSet<Member<'k>, ahash::RandomState>> = None;
    if looks > removals {
        let mut members: HashSet<_, _> = first.into_iter().flat_map(Set::iter).collect();
        for member in others.iter().flat_map(|set| set.iter()) {
            members.remove(&member);
        }
        left = Some(members);
        others.clear();
    }
    let members = if left.is_some() { None } else { first };
    let members = members.into_iter().flat_map(Set::iter);
    members
        .filter(move |member| !others.iter().any(|set| set.contains(member)))
        .chain(left.into_iter().flatten())
}

fn collect<'k>(members: impl Iterator<Item = Member<'k>>, limits: &Limits) -> Set {
    let mut set = Set::new();
    members.for_each(|member| {
        set.insert(&member, limits);
    });
    set
}

/// Stores a set, or removes what is there where the set is empty, and writes its size.
fn store(call: &mut Call<'_>, key: &[u8], set: Set, event: &'static str) -> Answer {
    call.reply.count(set.len());
    if !set.is_empty() {
        call.keys.insert(key, Value::Set(Box::new(set)), None);
        call.keys.changed(key, EventClass::SET, event);
    } else if call.keys.delete(key) {
        call.keys.changed(key, EventClass::GENERIC, "del");
    }
    DONE
}
