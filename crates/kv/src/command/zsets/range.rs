//! Ranges of sorted sets: of ranks, of scores, or of bytes. Each becomes a range of ranks first.

use std::ops::Range;

use super::super::elements::indexes;
use super::super::support::integer;
use super::{Writer, store};
use crate::command::{Answer, Call, DONE};
use crate::error::Error;
use crate::protocol::{Args, parse_f64};
use crate::store::{EventClass, LexBound, ScoreBound, Zset};

/// What a range is a range of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// The members between two bounds.
enum Bounds<'a> {
    Ranks(i64, i64),
    Scores(ScoreBound, ScoreBound),
    Lex(LexBound<'a>, LexBound<'a>),
}

impl<'a> Bounds<'a> {
    /// The bounds that two words give, the lower one first.
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Bounds<'a>, Error> {
        Ok(match by {
            By::Rank => Bounds::Ranks(integer(min)?, integer(max)?),
            By::Score => Bounds::Scores(score_bound(min)?, score_bound(max)?),
            By::Lex => Bounds::Lex(lex_bound(min)?, lex_bound(max)?),
        })
    }

    /// The ranks of the members between them. Ranks of the bounds count from the last member on if `backwards`.
    fn ranks(&self, zset: &Zset, backwards: bool) -> Range<usize> {
        match *self {
            Bounds::Ranks(start, stop) => {
                let len = zset.len();
                let range = indexes(start, stop, len);
                if backwards { len - range.end..len - range.start } else { range }
            }
            Bounds::Scores(min, max) => zset.ranks_by_score(min, max),
            Bounds::Lex(min, max) => zset.ranks_by_lex(min, max),
        }
    }
}

fn score_bound(word: &[u8]) -> Result<ScoreBound, Error> {
    let (exclusive, text) = match word {
        [b'(', text @ ..] => (true, text),
        text => (false, text),
    };
    // Unlike a score, a bound may be too large for a double: it is infinite then.
    let any = || std::str::from_utf8(text).ok()?.parse().ok().filter(|score: &f64| !score.is_nan());
    let score = parse_f64(text).or_else(any);
    let score = score.ok_or(Error::new("ERR min or max is not a float"))?;
    Ok(ScoreBound { score, exclusive })
}

pub(in crate::command) fn lex_bound(word: &[u8]) -> Result<LexBound<'_>, Error> {
    match word {
        b"-" => Ok(LexBound::Lowest),
        b"+" => Ok(LexBound::Highest),
        [b'[', member @ ..] => Ok(LexBound::Inclusive(member)),
        [b'(', member @ ..] => Ok(LexBound::Exclusive(member)),
        _ => Err(Error::new("ERR min or max not valid string range item")),
    }
}

// Getting and storing.

pub(super) fn zrange(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get(call, args, None, None)
}

pub(super) fn zrevrange(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get(call, args, Some(By::Rank), Some(true))
}

pub(super) fn zrangebyscore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get(call, args, Some(By::Score), Some(false))
}

pub(super) fn zrevrangebyscore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get(call, args, Some(By::Score), Some(true))
}

pub(super) fn zrangebylex(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get(call, args, Some(By::Lex), Some(false))
}

pub(super) fn zrevrangebylex(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    get(call, args, Some(By::Lex), Some(true))
}

fn get(call: &mut Call<'_>, args: Args<'_>, by: Option<By>, backwards: Option<bool>) -> Answer {
    let request = Request::parse(args, 2, by, backwards, true)?;
    let Some(zset) = call.keys.zset(&args[1])? else {
        call.reply.array(0);
        return DONE;
    };
    let ranks = request.ranks(zset);
    let writer = Writer::begin(call.reply, ranks.len(), request.with_scores);
    request.visit(zset, ranks, |member, score| writer.write(call.reply, member, score));
    DONE
}

pub(super) fn zrangestore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let request = Request::parse(args, 3, None, None, false)?;
    let limits = call.keys.limits;
    let mut stored = Zset::new();
    if let Some(zset) = call.keys.zset(&args[2])? {
        let ranks = request.ranks(zset);
        for (member, score) in zset.iter_from(ranks.start).take(ranks.len()) {
            stored.insert(member, score, &limits);
        }
    }
    store(call, &args[1], stored, "zrangestore")
}

/// A range with its options.
struct Request<'a> {
    bounds: Bounds<'a>,
    backwards: bool,
    with_scores: bool,
    offset: i64,
    limit: i64,
}

impl<'a> Request<'a> {
    /// The request whose bounds are the words at `at` and after it. What the command's name leaves open, options
    /// say.
    fn parse(
        args: Args<'a>,
        at: usize,
        by: Option<By>,
        backwards: Option<bool>,
        may_have_scores: bool,
    ) -> Result<Request<'a>, Error> {
        let (fixed_by, fixed_direction) = (by.is_some(), backwards.is_some());
        let (mut by, mut backwards) = (by, backwards.unwrap_or(false));
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        let mut option = at + 2;
        while option < args.len() {
            match () {
                () if may_have_scores && args.is(option, "withscores") => with_scores = true,
                () if args.is(option, "limit") && option + 2 < args.len() => {
                    offset = integer(&args[option + 1])?;
                    limit = integer(&args[option + 2])?;
                    option += 2;
                }
                () if !fixed_direction && args.is(option, "rev") => backwards = true,
                () if !fixed_by && by.is_none() && args.is(option, "bylex") => by = Some(By::Lex),
                () if !fixed_by && by.is_none() && args.is(option, "byscore") => {
                    by = Some(By::Score);
                }
                () => return Err(Error::SYNTAX),
            }
            option += 1;
        }
        let by = by.unwrap_or(By::Rank);
        if limit != -1 && by == By::Rank {
            return Err(Error::new(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(Error::new(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (first, second) = (args.get(at).unwrap_or_default(), args.get(at + 1));
        let second = second.unwrap_or_default();
        let bounds = if backwards && by != By::Rank {
            Bounds::parse(by, second, first)?
        } else {
            Bounds::parse(by, first, second)?
        };
        Ok(Request { bounds, backwards, with_scores, offset, limit })
    }

    /// The ranks of the members asked for.
    fn ranks(&self, zset: &Zset) -> Range<usize> {
        let ranks = self.bounds.ranks(zset, self.backwards);
        let Ok(offset) = usize::try_from(self.offset) else {
            return 0..0;
        };
        let left = ranks.len().saturating_sub(offset);
        let len = usize::try_from(self.limit).map_or(left, |limit| limit.min(left));
        if self.backwards {
            let end = ranks.end - offset.min(ranks.len());
            end - len..end
        } else {
            let start = ranks.start + offset.min(ranks.len());
            start..start + len
        }
    }

    /// Visits the members of these ranks in the order asked for.
    fn visit(&self, zset: &Zset, ranks: Range<usize>, mut visit: impl FnMut(&[u8], f64)) {
        if ranks.is_empty() {
            return;
        }
        if self.backwards {
            let members = zset.iter_back_from(ranks.end - 1).take(ranks.len());
            members.for_each(|(member, score)| visit(member, score));
        } else {
            let members = zset.iter_from(ranks.start).take(ranks.len());
            members.for_each(|(member, score)| visit(member, score));
        }
    }
}

// Counting.

pub(super) fn zcount(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    count(call, args, By::Score)
}

pub(super) fn zlexcount(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    count(call, args, By::Lex)
}

fn count(call: &mut Call<'_>, args: Args<'_>, by: By) -> Answer {
    let bounds = Bounds::parse(by, &args[2], &args[3])?;
    let count = call.keys.zset(&args[1])?.map_or(0, |zset| bounds.ranks(zset, false).len());
    call.reply.count(count);
    DONE
}

// Removing.

pub(super) fn zremrangebyrank(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    remove(call, args, By::Rank, "zremrangebyrank")
}

pub(super) fn zremrangebyscore(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    remove(call, args, By::Score, "zremrangebyscore")
}

pub(super) fn zremrangebylex(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    remove(call, args, By::Lex, "zremrangebylex")
}

fn remove(call: &mut Call<'_>, args: Args<'_>, by: By, event: &'static str) -> Answer {
    let key = &args[1];
    let bounds = Bounds::parse(by, &args[2], &args[3])?;
    let Some(zset) = call.keys.zset_mut(key)? else {
        call.reply.int(0);
        return DONE;
    };
    let ranks = bounds.ranks(zset, false);
    call.reply.count(ranks.len());
    if !ranks.is_empty() {
        zset.remove_ranks(ranks);
        call.keys.changed(key, EventClass::ZSET, event);
        call.keys.drop_if_empty(key);
    }
    DONE
}
