//! Sorted sets: ZADD, ZSCORE and the like. What selects ranges, pops or combines has a file of its own.

mod combine;
mod pop;
mod range;

use super::elements::{Scan, cursor, pick, repeat, scanned_nothing, signed_count};
use super::{Answer, Call, DONE, Spec, flag};
use crate::error::Error;
use crate::protocol::{Args, Proto, Reply, parse_f64, write_f64};
use crate::store::{EventClass, Limits, Value, Zset};
pub(super) use range::lex_bound;

#[cfg(test)]
mod tests;

/// How the cost of a command of a range grows.
const OF_RANGE: &str = "O(log(N)+M), N the number of members and M of those in the range";
/// How the cost of a union grows.
const OF_UNION: &str = "O(N+M*log(M)), N the number of members of all sets and M of the result's";
/// How the cost of an intersection grows.
const OF_INTERSECTION: &str = "O(N*K+M*log(M)), N the number of members of the smallest set, K of sets and M \
                               of the result's members";
/// How the cost of a difference grows.
const OF_DIFFERENCE: &str = "O(L+(N-K)*log(N)), L the number of members of all sets, N of the first one's and \
                             K of the result's";
/// How the cost of popping from one of several grows.
const OF_MPOP: &str = "O(K+M*log(N)), K the number of keys, N of members and M of those popped";

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("bzmpop", -5, pop::bzmpop).frees().flags(flag::BLOCKING).counted_keys(2, None).doc(
        "sorted-set",
        "7.0.0",
        OF_MPOP,
        "Pop members of the first sorted set that has any, waiting until one does",
    ),
    Spec::data("bzpopmax", -3, pop::bzpopmax)
        .frees()
        .fast()
        .flags(flag::NOSCRIPT | flag::BLOCKING)
        .keys(1, -2, 1)
        .doc(
            "sorted-set",
            "5.0.0",
            "O(log(N)), N the number of members",
            "Pop the last member of the first sorted set that has one, waiting until one does",
        ),
    Spec::data("bzpopmin", -3, pop::bzpopmin)
        .frees()
        .fast()
        .flags(flag::NOSCRIPT | flag::BLOCKING)
        .keys(1, -2, 1)
        .doc(
            "sorted-set",
            "5.0.0",
            "O(log(N)), N the number of members",
            "Pop the first member of the first sorted set that has one, waiting until one does",
        ),
    Spec::data("zadd", -4, zadd).writes().fast().key(1).doc(
        "sorted-set",
        "1.2.0",
        "O(log(N)) for each member added, N the number of members",
        "Add members, or change their scores",
    ),
    Spec::data("zcard", 2, zcard).reads().fast().key(1).doc(
        "sorted-set",
        "1.2.0",
        "O(1)",
        "Get the number of members",
    ),
    Spec::data("zcount", 4, range::zcount).reads().fast().key(1).doc(
        "sorted-set",
        "2.0.0",
        "O(log(N)), N the number of members",
        "Count the members whose scores lie in a range",
    ),
    Spec::data("zdiff", -3, combine::zdiff).reads().counted_keys(1, None).doc(
        "sorted-set",
        "6.2.0",
        OF_DIFFERENCE,
        "Get the members of the first sorted set that no other one has",
    ),
    Spec::data("zdiffstore", -4, combine::zdiffstore).writes().counted_keys(2, Some(1)).doc(
        "sorted-set",
        "6.2.0",
        OF_DIFFERENCE,
        "Store the members of the first sorted set that no other one has",
    ),
    Spec::data("zincrby", 4, zincrby).writes().fast().key(1).doc(
        "sorted-set",
        "1.2.0",
        "O(log(N)), N the number of members",
        "Add to the score of a member",
    ),
    Spec::data("zinter", -3, combine::zinter).reads().counted_keys(1, None).doc(
        "sorted-set",
        "6.2.0",
        OF_INTERSECTION,
        "Get the members that all sorted sets have",
    ),
    Spec::data("zintercard", -3, combine::zintercard).reads().counted_keys(1, None).doc(
        "sorted-set",
        "7.0.0",
        "O(N*K), N the number of members of the smallest set and K of sets",
        "Count the members that all sorted sets have",
    ),
    Spec::data("zinterstore", -4, combine::zinterstore).writes().counted_keys(2, Some(1)).doc(
        "sorted-set",
        "2.0.0",
        OF_INTERSECTION,
        "Store the members that all sorted sets have",
    ),
    Spec::data("zlexcount", 4, range::zlexcount).reads().fast().key(1).doc(
        "sorted-set",
        "2.8.9",
        "O(log(N)), N the number of members",
        "Count the members in a range of their bytes",
    ),
    Spec::data("zmpop", -4, pop::zmpop).frees().counted_keys(1, None).doc(
        "sorted-set",
        "7.0.0",
        OF_MPOP,
        "Pop members of the first sorted set that has any",
    ),
    Spec::data("zmscore", -3, zmscore).reads().fast().key(1).doc(
        "sorted-set",
        "6.2.0",
        "O(N), N the number of members asked for",
        "Get the scores of members",
    ),
    Spec::data("zpopmax", -2, pop::zpopmax).frees().fast().key(1).doc(
        "sorted-set",
        "5.0.0",
        "O(log(N)*M), N the number of members and M of those popped",
        "Pop members with the highest scores",
    ),
    Spec::data("zpopmin", -2, pop::zpopmin).frees().fast().key(1).doc(
        "sorted-set",
        "5.0.0",
        "O(log(N)*M), N the number of members and M of those popped",
        "Pop members with the lowest scores",
    ),
    Spec::data("zrandmember", -2, zrandmember).reads().key(1).doc(
        "sorted-set",
        "6.2.0",
        "O(N), N the number of members asked for",
        "Get members picked at random",
    ),
    Spec::data("zrange", -4, range::zrange).reads().key(1).doc(
        "sorted-set",
        "1.2.0",
        OF_RANGE,
        "Get the members in a range of ranks, of scores or of bytes",
    ),
    Spec::data("zrangebylex", -4, range::zrangebylex).reads().key(1).doc(
        "sorted-set",
        "2.8.9",
        OF_RANGE,
        "Get the members in a range of bytes",
    ),
    Spec::data("zrangebyscore", -4, range::zrangebyscore).reads().key(1).doc(
        "sorted-set",
        "1.0.5",
        OF_RANGE,
        "Get the members in a range of scores",
    ),
    Spec::data("zrangestore", -5, range::zrangestore).writes().keys(1, 2, 1).doc(
        "sorted-set",
        "6.2.0",
        OF_RANGE,
        "Store the members in a range of ranks, of scores or of bytes",
    ),
    Spec::data("zrank", 3, zrank).reads().fast().key(1).doc(
        "sorted-set",
        "2.0.0",
        "O(log(N)), N the number of members",
        "Count the members before one",
    ),
    Spec::data("zrem", -3, zrem).frees().fast().key(1).doc(
        "sorted-set",
        "1.2.0",
        "O(M*log(N)), N the number of members and M of those to remove",
        "Remove members",
    ),
    Spec::data("zremrangebylex", 4, range::zremrangebylex).frees().key(1).doc(
        "sorted-set",
        "2.8.9",
        OF_RANGE,
        "Remove the members in a range of bytes",
    ),
    Spec::data("zremrangebyrank", 4, range::zremrangebyrank).frees().key(1).doc(
        "sorted-set",
        "2.0.0",
        OF_RANGE,
        "Remove the members in a range of ranks",
    ),
    Spec::data("zremrangebyscore", 4, range::zremrangebyscore).frees().key(1).doc(
        "sorted-set",
        "1.2.0",
        OF_RANGE,
        "Remove the members in a range of scores",
    ),
    Spec::data("zrevrange", -4, range::zrevrange).reads().key(1).doc(
        "sorted-set",
        "1.2.0",
        OF_RANGE,
        "Get the members in a range of ranks, the last one first",
    ),
    Spec::data("zrevrangebylex", -4, range::zrevrangebylex).reads().key(1).doc(
        "sorted-set",
        "2.8.9",
        OF_RANGE,
        "Get the members in a range of bytes, the last one first",
    ),
    Spec::data("zrevrangebyscore", -4, range::zrevrangebyscore).reads().key(1).doc(
        "sorted-set",
        "2.2.0",
        OF_RANGE,
        "Get the members in a range of scores, the last one first",
    ),
    Spec::data("zrevrank", 3, zrevrank).reads().fast().key(1).doc(
        "sorted-set",
        "2.0.0",
        "O(log(N)), N the number of members",
        "Count the members behind one",
    ),
    Spec::data("zscan", -3, zscan).reads().key(1).doc(
        "sorted-set",
        "2.8.0",
        "O(1) a call, O(N) for all N members",
        "Go through the members and their scores, some at a time",
    ),
    Spec::data("zscore", 3, zscore).reads().fast().key(1).doc(
        "sorted-set",
        "1.2.0",
        "O(1)",
        "Get the score of a member",
    ),
    Spec::data("zunion", -3, combine::zunion).reads().counted_keys(1, None).doc(
        "sorted-set",
        "6.2.0",
        OF_UNION,
        "Get the members that any sorted set has",
    ),
    Spec::data("zunionstore", -4, combine::zunionstore).writes().counted_keys(2, Some(1)).doc(
        "sorted-set",
        "2.0.0",
        OF_UNION,
        "Store the members that any sorted set has",
    ),
];

// Adding.

/// What ZADD was asked to do.
#[derive(Clone, Copy, Default)]
struct Adding {
    /// Only members that are new.
    new_only: bool,
    /// Only members that are there.
    old_only: bool,
    /// Only to a greater score.
    greater: bool,
    /// Only to a lesser score.
    less: bool,
    /// Count those changed, too.
    count_changed: bool,
    /// Add to the score.
    increment: bool,
}

/// What has become of a member.
enum Added {
    /// Nothing: the options were against it.
    Refused,
    /// It had that score.
    Same(f64),
    /// It has another score now.
    Changed(f64),
    /// It is new.
    New(f64),
}

pub(super) fn zadd(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    add(call, args, Adding::default())
}

fn zincrby(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    add(call, args, Adding { increment: true, ..Adding::default() })
}

fn add(call: &mut Call<'_>, args: Args<'_>, mut adding: Adding) -> Answer {
    let mut at = 2;
    while at < args.len() {
        match () {
            () if args.is(at, "nx") => adding.new_only = true,
            () if args.is(at, "xx") => adding.old_only = true,
            () if args.is(at, "gt") => adding.greater = true,
            () if args.is(at, "lt") => adding.less = true,
            () if args.is(at, "ch") => adding.count_changed = true,
            () if args.is(at, "incr") => adding.increment = true,
            () => break,
        }
        at += 1;
    }
    let words = args.len() - at;
    if words == 0 || words % 2 == 1 {
        return Err(Error::SYNTAX);
    }
    let Adding { new_only, old_only, greater, less, increment, .. } = adding;
    if new_only && old_only {
        return Err(Error::new("ERR XX and NX options at the same time are not compatible"));
    }
    if (greater && less) || (new_only && (greater || less)) {
        return Err(Error::new(
            "ERR GT, LT, and/or NX options at the same time are not compatible",
        ));
    }
    if increment && words > 2 {
        return Err(Error::new("ERR INCR option supports a single increment-element pair"));
    }
    // The sum makes 0 of -0.
    let score = |word: &[u8]| parse_f64(word).map(|score| score + 0.0).ok_or(Error::NOT_A_FLOAT);
    let scores: Vec<f64> = args.iter_from(at).step_by(2).map(score).collect::<Result<_, _>>()?;

    let (key, limits) = (&args[1], call.keys.limits);
    let zset = if old_only {
        let Some(zset) = call.keys.zset_mut(key)? else {
            if increment {
                call.reply.null()
            } else {
                call.reply.int(0)
            }
            return DONE;
        };
        zset
    } else {
        call.keys.zset_or_insert(key)?
    };
    let (mut new, mut changed, mut last) = (0, 0, Added::Refused);
    for (score, member) in scores.into_iter().zip(args.iter_from(at + 1).step_by(2)) {
        // An error leaves nothing half done: it comes of an increment only, of which there is one.
        last = adding.one(zset, member, score, &limits)?;
        match last {
            Added::New(_) => new += 1,
            Added::Changed(_) => changed += 1,
            Added::Refused | Added::Same(_) => {}
        }
    }
    match last {
        _ if !increment => {
            call.reply.count(if adding.count_changed { new + changed } else { new });
        }
        Added::Refused => call.reply.null(),
        Added::Same(score) | Added::Changed(score) | Added::New(score) => call.reply.double(score),
    }
    if new + changed > 0 {
        let event = if increment { "zincr" } else { "zadd" };
        call.keys.changed(key, EventClass::ZSET, event);
    }
    DONE
}

impl Adding {
    fn one(
        &self,
        zset: &mut Zset,
        member: &[u8],
        score: f64,
        limits: &Limits,
    ) -> Result<Added, Error> {
        let Some(old) = zset.score(member) else {
            if self.old_only {
                return Ok(Added::Refused);
            }
            zset.insert(member, score, limits);
            return Ok(Added::New(score));
        };
        if self.new_only {
            return Ok(Added::Refused);
        }
        let score = if self.increment { old + score } else { score };
        if score.is_nan() {
            return Err(Error::new("ERR resulting score is not a number (NaN)"));
        }
        if (self.greater && score <= old) || (self.less && score >= old) {
            return Ok(Added::Refused);
        }
        if score == old {
            return Ok(Added::Same(score));
        }
        zset.insert(member, score, limits);
        Ok(Added::Changed(score))
    }
}

fn zrem(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let removed = match call.keys.zset_mut(key)? {
        Some(zset) => args.iter_from(2).filter(|member| zset.remove(member).is_some()).count(),
        None => 0,
    };
    call.reply.count(removed);
    if removed > 0 {
        call.keys.changed(key, EventClass::ZSET, "zrem");
        call.keys.drop_if_empty(key);
    }
    DONE
}

// Looking.

fn zcard(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let len = call.keys.zset(&args[1])?.map_or(0, Zset::len);
    call.reply.count(len);
    DONE
}

fn zscore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let zset = call.keys.zset(&args[1])?;
    score(call.reply, zset, &args[2]);
    DONE
}

fn zmscore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let zset = call.keys.zset(&args[1])?;
    let members = args.iter_from(2);
    call.reply.array(members.len());
    members.for_each(|member| score(call.reply, zset, member));
    DONE
}

fn score(reply: &mut Reply, zset: Option<&Zset>, member: &[u8]) {
    match zset.and_then(|zset| zset.score(member)) {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

fn zrank(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    rank(call, args, |rank, _| rank)
}

fn zrevrank(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    rank(call, args, |rank, len| len - 1 - rank)
}

fn rank(call: &mut Call<'_>, args: Args<'_>, of: impl Fn(usize, usize) -> usize) -> Answer {
    let zset = call.keys.zset(&args[1])?;
    match zset.and_then(|zset| Some(of(zset.rank(&args[2])?, zset.len()))) {
        Some(rank) => call.reply.count(rank),
        None => call.reply.null(),
    }
    DONE
}

fn zscan(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let from = cursor(&args[2])?;
    let Some(zset) = call.keys.zset(&args[1])? else {
        scanned_nothing(call.reply);
        return DONE;
    };
    let scan = Scan::options(args, 3)?;
    let (mut found, mut len, mut text) = (Reply::new(call.reply.proto()), 0, Vec::new());
    let next = zset.scan(from, scan.count, |member, score| {
        if scan.wants(member) {
            found.bulk(member);
            text.clear();
            write_f64(&mut text, score);
            found.bulk(&text);
            len += 2;
        }
    });
    Scan::reply(call.reply, next, len, &mut found);
    DONE
}

fn zrandmember(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let count = args.get(2).map(signed_count).transpose()?;
    let with_scores = args.is(3, "withscores");
    if args.len() > 4 || (args.len() == 4 && !with_scores) {
        return Err(Error::SYNTAX);
    }
    if with_scores && count.is_some_and(|count| count.unsigned_abs() > i64::MAX as u64 / 2) {
        return Err(Error::new("ERR value is out of range"));
    }
    let mut random = call.keys.chance(key);
    let Some(zset) = call.keys.zset(key)? else {
        match count {
            Some(_) => call.reply.array(0),
            None => call.reply.null(),
        }
        return DONE;
    };
    match count {
        None => call.reply.bulk(zset.random(&mut random).unwrap_or_default().0),
        Some(count @ ..=1) => {
            let count = count.unsigned_abs();
            let writer = Writer::begin(call.reply, count as usize, with_scores);
            repeat(call.reply, count, |reply| {
                let (member, score) = zset.random(&mut random).unwrap_or_default();
                writer.write(reply, member, score);
            })?;
        }
        Some(count) => {
            let all = zset.iter_from(0).map(|(member, _)| member);
            let one = |random: &mut _| zset.random(random).map(|(member, _)| member);
            let picked = pick(count as usize, zset.len(), &mut random, all, one);
            let writer = Writer::begin(call.reply, picked.len(), with_scores);
            for member in picked {
                writer.write(call.reply, member, zset.score(member).unwrap_or_default());
            }
        }
    }
    DONE
}

/// Writes members, or members and scores: one after the other in RESP2, pairs in RESP3.
#[derive(Clone, Copy)]
struct Writer {
    with_scores: bool,
    pairs: bool,
}

impl Writer {
    /// Begins the array of `len` members.
    fn begin(reply: &mut Reply, len: usize, with_scores: bool) -> Writer {
        let pairs = with_scores && reply.proto() == Proto::Resp3;
        reply.array(if with_scores && !pairs { len * 2 } else { len });
        Writer { with_scores, pairs }
    }

    fn write(self, reply: &mut Reply, member: &[u8], score: f64) {
        if self.pairs {
            reply.array(2);
        }
        reply.bulk(member);
        if self.with_scores {
            reply.double(score);
        }
    }
}

/// Stores a sorted set, or removes what is there where it is empty, and writes its size.
pub(super) fn store(call: &mut Call<'_>, key: &[u8], zset: Zset, event: &'static str) -> Answer {
    call.reply.count(zset.len());
    if !zset.is_empty() {
        call.keys.insert(key, Value::Zset(Box::new(zset)), None);
        call.keys.changed(key, EventClass::ZSET, event);
    } else if call.keys.delete(key) {
        call.keys.changed(key, EventClass::GENERIC, "del");
    }
    DONE
}
