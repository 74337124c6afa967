//! What commands of lists, sets, hashes and sorted sets have in common: numbers among their words, ranges of
//! indexes, picks at random, and scans.

use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Range;

use super::support::integer;
use crate::error::Error;
use crate::glob::matches;
use crate::protocol::{Args, Reply, parse_cursor, parse_f64, parse_i64};

/// A number of elements is negative or no number.
pub(super) const NOT_POSITIVE: Error = Error::new("ERR value is out of range, must be positive");
/// A number of keys is not at least 1.
pub(super) const NO_KEYS: Error = Error::new("ERR numkeys should be greater than 0");
/// A number of elements is not at least 1.
pub(super) const NO_COUNT: Error = Error::new("ERR count should be greater than 0");
/// A limit is negative or no number.
const NEGATIVE_LIMIT: Error = Error::new("ERR LIMIT can't be negative");

/// The integer that a word is, at least `least`, else `error`.
pub(super) fn at_least(word: &[u8], least: usize, error: Error) -> Result<usize, Error> {
    let value = parse_i64(word).and_then(|value| usize::try_from(value).ok());
    value.filter(|&value| value >= least).ok_or(error)
}

/// The option LIMIT, the only one from word `at` on: without it, or with 0, there is none.
pub(super) fn limit(args: Args<'_>, mut at: usize) -> Result<usize, Error> {
    let mut limit = 0;
    while at < args.len() {
        let value = args.get(at + 1).filter(|_| args.is(at, "limit")).ok_or(Error::SYNTAX)?;
        limit = at_least(value, 0, NEGATIVE_LIMIT)?;
        at += 2;
    }
    Ok(if limit == 0 { usize::MAX } else { limit })
}

/// How many elements to pick at random: negative where one may be picked twice.
pub(super) fn signed_count(word: &[u8]) -> Result<i64, Error> {
    match integer(word)? {
        i64::MIN => Err(Error::of(format!(
            "ERR value is out of range, value must between {} and {}",
            -i64::MAX,
            i64::MAX
        ))),
        count => Ok(count),
    }
}

/// How long a command waits, in milliseconds: `None` for ever. The word gives seconds, with fractions.
pub(super) fn timeout_ms(word: &[u8]) -> Result<Option<u64>, Error> {
    const NO_TIMEOUT: Error = Error::new("ERR timeout is not a float or out of range");
    let ms = (parse_f64(word).ok_or(NO_TIMEOUT)? * 1000.0).ceil();
    if ms < 0.0 {
        return Err(Error::new("ERR timeout is negative"));
    }
    // From here on, the deadline is a number of 63 bits.
    if ms >= (1_u64 << 62) as f64 {
        return Err(NO_TIMEOUT);
    }
    Ok((ms > 0.0).then_some(ms as u64))
}

/// The keys of a command that says how many there are in the word at `count`, and the index of the word
/// after them.
pub(super) fn counted_keys<'a>(
    args: Args<'a>,
    count: usize,
) -> Result<(Vec<&'a [u8]>, usize), Error> {
    let keys = at_least(&args[count], 1, NO_KEYS)?;
    let end = count.saturating_add(1).saturating_add(keys);
    if end >= args.len() {
        return Err(Error::SYNTAX);
    }
    Ok((args.iter_from(count + 1).take(keys).collect(), end))
}

/// The option `COUNT` of a command that has no other, in the words from `from` on: 1 where it is not given.
pub(super) fn count_option(args: Args<'_>, from: usize) -> Result<usize, Error> {
    if from == args.len() {
        return Ok(1);
    }
    if args.len() < from + 2 || !args.is(from, "count") {
        return Err(Error::SYNTAX);
    }
    let count = at_least(&args[from + 1], 1, NO_COUNT)?;
    if args.len() == from + 2 { Ok(count) } else { Err(Error::SYNTAX) }
}

/// The indexes from `start` to `stop`, both of which count from the end where negative, of `len` elements.
pub(super) fn indexes(start: i64, stop: i64, len: usize) -> Range<usize> {
    let len = len as i64;
    let from_start = |index: i64| if index < 0 { index.saturating_add(len) } else { index };
    let (start, stop) = (from_start(start).max(0), from_start(stop).min(len - 1));
    if start > stop { 0..0 } else { start as usize..stop as usize + 1 }
}

/// The index that counts from the end where negative, of `len` elements.
pub(super) fn index(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.saturating_add(len as i64) } else { index };
    usize::try_from(index).ok().filter(|&index| index < len)
}

/// Picks `count` of `len` elements, at most all, none twice and each as likely as any other: from `one`, which
/// picks an element, or from `all` of them, whichever is less work.
pub(super) fn pick<T: Hash + Eq + Clone>(
    count: usize,
    len: usize,
    random: &mut fastrand::Rng,
    all: impl Iterator<Item = T>,
    mut one: impl FnMut(&mut fastrand::Rng) -> Option<T>,
) -> Vec<T> {
    if count >= len {
        return all.collect();
    }
    if count <= len / 3 {
        let mut seen: HashSet<T, ahash::RandomState> = HashSet::default();
        let mut picked = Vec::with_capacity(count);
        // Two of three tries find a new element. What is left after many more is a flaw of `one`.
        for _ in 0..count.saturating_mul(16).saturating_add(64) {
            if picked.len() == count {
                return picked;
            }
            let Some(element) = one(random) else {
                break;
            };
            if seen.insert(element.clone()) {
                picked.push(element);
            }
        }
    }
    let chosen = pick_indexes(count, len, random);
    let chosen = all.enumerate().filter(|(index, _)| chosen.contains(index));
    chosen.map(|(_, element)| element).collect()
}

/// Picks `count` of the indexes below `len`, at most all: each set of them is as likely as any other.
pub(super) fn pick_indexes(
    count: usize,
    len: usize,
    random: &mut fastrand::Rng,
) -> HashSet<usize, ahash::RandomState> {
    let mut chosen = HashSet::default();
    for last in len.saturating_sub(count)..len {
        if !chosen.insert(random.usize(..=last)) {
            chosen.insert(last);
        }
    }
    chosen
}

/// Calls `write` that many times, for a reply that may be as long as its reader wants, up to 1 GiB.
pub(super) fn repeat(
    reply: &mut Reply,
    count: u64,
    write: impl FnMut(&mut Reply),
) -> Result<(), Error> {
    repeat_up_to(1 << 30, reply, count, write)
}

fn repeat_up_to(
    longest: usize,
    reply: &mut Reply,
    count: u64,
    mut write: impl FnMut(&mut Reply),
) -> Result<(), Error> {
    for _ in 0..count {
        write(reply);
        if reply.len() > longest {
            return Err(Error::new("ERR the reply would be longer than 1 GiB"));
        }
    }
    Ok(())
}

/// Where a scan goes on, from the word that says so.
pub(super) fn cursor(word: &[u8]) -> Result<u64, Error> {
    parse_cursor(word).ok_or(Error::new("ERR invalid cursor"))
}

/// What a scan of the elements of one key was asked for.
pub(super) struct Scan<'a> {
    /// About how many elements to visit.
    pub(super) count: usize,
    pattern: Option<&'a [u8]>,
}

impl<'a> Scan<'a> {
    /// The options in the words from `from` on.
    pub(super) fn options(args: Args<'a>, from: usize) -> Result<Scan<'a>, Error> {
        let mut scan = Scan { count: 10, pattern: None };
        let mut at = from;
        while let Some(word) = args.get(at + 1) {
            if args.is(at, "count") {
                let count = integer(word)?;
                scan.count = usize::try_from(count).unwrap_or(0);
                if scan.count == 0 {
                    return Err(Error::SYNTAX);
                }
            } else if args.is(at, "match") {
                scan.pattern = Some(word);
            } else {
                return Err(Error::SYNTAX);
            }
            at += 2;
        }
        if at < args.len() { Err(Error::SYNTAX) } else { Ok(scan) }
    }

    /// Whether an element is among those that were asked for.
    pub(super) fn wants(&self, element: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| matches(pattern, element))
    }

    /// Writes the reply: the cursor to go on with, and `len` strings that `found` holds.
    pub(super) fn reply(reply: &mut Reply, cursor: u64, len: usize, found: &mut Reply) {
        reply.array(2);
        reply.bulk(itoa::Buffer::new().format(cursor).as_bytes());
        reply.array(len);
        found.append_to(reply);
    }
}

/// The reply to a scan of a key that is not there.
pub(super) fn scanned_nothing(reply: &mut Reply) {
    reply.array(2);
    reply.bulk(b"0");
    reply.array(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_no_memory_holds_is_an_error() {
        let mut reply = Reply::default();
        let write = |reply: &mut Reply| reply.bulk(b"text");
        assert!(repeat_up_to(1000, &mut reply, 100, write).is_ok());
        assert!(repeat_up_to(2000, &mut reply, u64::MAX, write).is_err());
        assert!(reply.len() < 2020);
    }

    #[test]
    fn indexes_count_from_either_end() {
        assert_eq!(indexes(0, -1, 3), 0..3);
        assert_eq!(indexes(-100, 100, 3), 0..3);
        assert_eq!(indexes(i64::MIN, i64::MAX, 3), 0..3);
        assert_eq!(indexes(-2, -2, 3), 1..2);
        assert!(indexes(2, 1, 3).is_empty());
        assert!(indexes(0, -4, 3).is_empty());
        assert!(indexes(0, 0, 0).is_empty());
        assert_eq!((index(-3, 3), index(2, 3)), (Some(0), Some(2)));
        assert_eq!((index(-4, 3), index(3, 3), index(i64::MIN, 3)), (None, None, None));
    }

    #[test]
    fn picks_are_distinct_and_even() {
        let mut random = fastrand::Rng::with_seed(1);
        for (count, len) in [(1, 30), (9, 30), (20, 30)] {
            let mut times = vec![0; len];
            for _ in 0..1000 {
                let one = |random: &mut fastrand::Rng| Some(random.usize(..len));
                let picked = pick(count, len, &mut random, 0..len, one);
                let distinct: HashSet<usize> = picked.iter().copied().collect();
                assert_eq!((picked.len(), distinct.len()), (count, count));
                distinct.into_iter().for_each(|index| times[index] += 1);
            }
            // Five standard deviations, at most 16 each, from the mean.
            let mean = 1000 * count / len;
            assert!(times.iter().all(|&times: &usize| times.abs_diff(mean) < 80), "{times:?}");
        }
    }

    #[test]
    fn a_source_that_repeats_itself_does_not_stop_picks() {
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!(pick(3, 30, &mut random, 0..30, |_| Some(7)).len(), 3);
    }

    #[test]
    fn seconds_are_rounded_up_to_milliseconds() {
        for (word, ms) in
            [("0", None), ("0.0001", Some(1)), ("1.5", Some(1500)), ("1e3", Some(1_000_000))]
        {
            assert_eq!(timeout_ms(word.as_bytes()), Ok(ms), "{word}");
        }
        for word in ["-1", "x", "", "inf", "1e300"] {
            assert!(timeout_ms(word.as_bytes()).is_err(), "{word}");
        }
    }
}
