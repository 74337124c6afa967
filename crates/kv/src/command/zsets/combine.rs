//! Unions, intersections and differences of sorted sets, and of sets, whose members count as having score 1.

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::elements::limit;
use super::super::support::integer;
use super::{Writer, store};
use crate::command::{Answer, Call, DONE};
use crate::error::Error;
use crate::protocol::{Args, parse_f64};
use crate::store::{Keys, Member, Set, ValueRef, Zset};

/// Members and their scores, by member.
type Scores<'k> = HashMap<Member<'k>, f64, ahash::RandomState>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// How the scores of a member become one.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Aggregate::Sum => or_zero(a + b),
            Aggregate::Min => a.min(b),
            Aggregate::Max => a.max(b),
        }
    }
}

/// The number, or 0 in place of NaN: of a sum of both infinities, and of 0 times one.
fn or_zero(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value }
}

pub(super) fn zunion(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get(call, args, Operation::Union, "zunion")
}

pub(super) fn zinter(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get(call, args, Operation::Intersection, "zinter")
}

pub(super) fn zdiff(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get(call, args, Operation::Difference, "zdiff")
}

fn get(call: &mut Call<'_>, args: Args<'_>, operation: Operation, name: &str) -> Answer {
    let keys = number_of_keys(args, 1, name)?;
    let sources = read(call.keys, args, 2, keys)?;
    let options = Options::parse(args, 2 + keys, keys, operation, true)?;
    let members = combine(operation, sources, &options);
    let writer = Writer::begin(call.reply, members.len(), options.with_scores);
    for (member, score) in &members {
        writer.write(call.reply, member, *score);
    }
    DONE
}

pub(super) fn zunionstore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get_and_store(call, args, Operation::Union, "zunionstore")
}

pub(super) fn zinterstore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get_and_store(call, args, Operation::Intersection, "zinterstore")
}

pub(super) fn zdiffstore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get_and_store(call, args, Operation::Difference, "zdiffstore")
}

fn get_and_store(
    call: &mut Call<'_>,
    args: Args<'_>,
    operation: Operation,
    name: &'static str,
) -> Answer {
    let limits = call.keys.limits;
    let keys = number_of_keys(args, 2, name)?;
    let sources = read(call.keys, args, 3, keys)?;
    let options = Options::parse(args, 3 + keys, keys, operation, false)?;
    let mut zset = Zset::new();
    for (member, score) in combine(operation, sources, &options) {
        zset.insert(&member, score, &limits);
    }
    store(call, &args[1], zset, name)
}

pub(super) fn zintercard(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let keys = number_of_keys(args, 1, "zintercard")?;
    let sources = read(call.keys, args, 2, keys)?;
    let limit = limit(args, 2 + keys)?;
    let mut count = 0;
    if let Some(smallest) = sources.iter().min_by_key(|source| source.len()) {
        count = smallest
            .iter()
            .filter(|(member, _)| sources.iter().all(|source| source.score(member).is_some()))
            .take(limit)
            .count();
    }
    call.reply.count(count);
    DONE
}

/// How many keys the word at `at` says, all of which have to be there.
fn number_of_keys(args: Args<'_>, at: usize, name: &str) -> Result<usize, Error> {
    let keys = integer(&args[at])?;
    let Ok(keys @ 1..) = usize::try_from(keys) else {
        return Err(Error::of(format!("ERR at least 1 input key is needed for '{name}' command")));
    };
    if keys > args.len() - (at + 1) { Err(Error::SYNTAX) } else { Ok(keys) }
}

/// The options of a union, intersection or difference.
struct Options {
    /// What the scores of each source are multiplied with.
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

impl Options {
    fn parse(
        args: Args<'_>,
        from: usize,
        keys: usize,
        operation: Operation,
        may_have_scores: bool,
    ) -> Result<Options, Error> {
        const NO_WEIGHT: Error = Error::new("ERR weight value is not a float");
        let weighs = operation != Operation::Difference;
        let mut options =
            Options { weights: vec![1.0; keys], aggregate: Aggregate::Sum, with_scores: false };
        let mut at = from;
        while at < args.len() {
            let left = args.len() - at - 1;
            match () {
                () if weighs && left >= keys && args.is(at, "weights") => {
                    for (weight, word) in options.weights.iter_mut().zip(args.iter_from(at + 1)) {
                        *weight = parse_f64(word).ok_or(NO_WEIGHT)?;
                    }
                    at += 1 + keys;
                }
                () if weighs && left >= 1 && args.is(at, "aggregate") => {
                    options.aggregate = match () {
                        () if args.is(at + 1, "sum") => Aggregate::Sum,
                        () if args.is(at + 1, "min") => Aggregate::Min,
                        () if args.is(at + 1, "max") => Aggregate::Max,
                        () => return Err(Error::SYNTAX),
                    };
                    at += 2;
                }
                () if may_have_scores && args.is(at, "withscores") => {
                    options.with_scores = true;
                    at += 1;
                }
                () => return Err(Error::SYNTAX),
            }
        }
        Ok(options)
    }
}

/// What is combined.
#[derive(Clone, Copy)]
enum Source<'k> {
    Nothing,
    Set(&'k Set),
    Zset(&'k Zset),
}

impl<'k> Source<'k> {
    fn len(&self) -> usize {
        match self {
            Source::Nothing => 0,
            Source::Set(set) => set.len(),
            Source::Zset(zset) => zset.len(),
        }
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Source::Nothing => None,
            Source::Set(set) => set.contains(member).then_some(1.0),
            Source::Zset(zset) => zset.score(member),
        }
    }

    fn iter(self) -> Box<dyn Iterator<Item = (Member<'k>, f64)> + 'k> {
        match self {
            Source::Nothing => Box::new(std::iter::empty()),
            Source::Set(set) => Box::new(set.iter().map(|member| (member, 1.0))),
            Source::Zset(zset) => {
                let members = zset.iter_from(0);
                Box::new(members.map(|(member, score)| (Cow::Borrowed(member), score)))
            }
        }
    }
}

/// What lies at the `count` keys from the word at `from` on, in order.
fn read<'k>(
    keys: &'k mut Keys,
    args: Args<'_>,
    from: usize,
    count: usize,
) -> Result<Vec<Source<'k>>, Error> {
    let names = || args.iter_from(from).take(count);
    for name in names() {
        match keys.read(name) {
            None | Some(ValueRef::Set(_) | ValueRef::Zset(_)) => {}
            Some(_) => return Err(Error::WRONG_TYPE),
        }
    }
    let keys: &'k Keys = keys;
    let sources = names().map(|name| match keys.value(name) {
        Some(ValueRef::Set(set)) => Source::Set(set),
        Some(ValueRef::Zset(zset)) => Source::Zset(zset),
        _ => Source::Nothing,
    });
    Ok(sources.collect())
}

/// The members of the result with their scores, in order.
fn combine<'k>(
    operation: Operation,
    sources: Vec<Source<'k>>,
    options: &Options,
) -> Vec<(Member<'k>, f64)> {
    let mut weighted: Vec<(Source<'k>, f64)> =
        sources.into_iter().zip(options.weights.iter().copied()).collect();
    let mut members: Vec<(Member<'k>, f64)> = match operation {
        Operation::Union => {
            // In which order scores are added has a say in the last digit: the smallest set first.
            weighted.sort_by_key(|(source, _)| source.len());
            union(&weighted, options.aggregate).into_iter().collect()
        }
        Operation::Intersection => {
            weighted.sort_by_key(|(source, _)| source.len());
            intersection(&weighted, options.aggregate)
        }
        Operation::Difference => difference(&weighted),
    };
    members.sort_unstable_by(|(a, a_score), (b, b_score)| {
        // Scores are no NaN, and -0 is 0.
        a_score.partial_cmp(b_score).unwrap_or(std::cmp::Ordering::Equal).then_with(|| a.cmp(b))
    });
    members
}

fn union<'k>(sources: &[(Source<'k>, f64)], aggregate: Aggregate) -> Scores<'k> {
    let mut scores = Scores::default();
    for (source, weight) in sources {
        for (member, score) in source.iter() {
            let score = or_zero(score * weight);
            match scores.get_mut(&member) {
                Some(sum) => *sum = aggregate.of(*sum, score),
                None => {
                    scores.insert(member, score);
                }
            }
        }
    }
    scores
}

fn intersection<'k>(sources: &[(Source<'k>, f64)], aggregate: Aggregate) -> Vec<(Member<'k>, f64)> {
    let Some(((smallest, weight), others)) = sources.split_first() else {
        return Vec::new();
    };
    let in_all = |(member, score): (Member<'k>, f64)| {
        let mut sum = or_zero(score * weight);
        for (source, weight) in others {
            sum = aggregate.of(sum, source.score(&member)? * weight);
        }
        Some((member, sum))
    };
    smallest.iter().filter_map(in_all).collect()
}

fn difference<'k>(sources: &[(Source<'k>, f64)]) -> Vec<(Member<'k>, f64)> {
    let Some(((first, _), others)) = sources.split_first() else {
        return Vec::new();
    };
    let removals: usize = others.iter().map(|(source, _)| source.len()).sum();
    if first.len().saturating_mul(others.len()) / 2 <= removals {
        let in_none =
            |member: &Member<'k>| others.iter().all(|(source, _)| source.score(member).is_none());
        return first.iter().filter(|(member, _)| in_none(member)).collect();
    }
    let mut scores: Scores<'k> = first.iter().collect();
    for (source, _) in others {
        for (member, _) in source.iter() {
            scores.remove(&member);
        }
    }
    scores.into_iter().collect()
}
