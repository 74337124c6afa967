//! Sorted sets: members with scores, in order of score, then of bytes.
//!
//! A tree has the members in their order. Where they are more than a few, a table has the score of each by its name
//! also. Members so lie in memory twice: a range is then read from leaves alone, and a score from the table alone.

use super::layout::{Layout, Len, Plain, Scored};
use super::packed::is_small;
use super::table::Table;
use super::tree::{Item, Tree};
use super::{Limits, hash_of};

/// An end of a range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreBound {
    /// The score; may be infinite.
    pub score: f64,
    /// Whether the score itself is outside of the range.
    pub exclusive: bool,
}

/// An end of a range of members that have the same score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// `-`: before every member.
    Lowest,
    /// `[member`: with the member.
    Inclusive(&'a [u8]),
    /// `(member`: without it.
    Exclusive(&'a [u8]),
    /// `+`: after every member.
    Highest,
}

/// A sorted set.
#[derive(Clone, Debug, Default)]
pub struct Zset {
    order: Tree,
    /// The score of each member, where there are more than a few.
    scores: Option<Box<Table<Scored>>>,
    /// The bytes of all members, while there are few.
    bytes: usize,
    large: bool,
}

impl Zset {
    /// An empty sorted set.
    pub fn new() -> Zset {
        Zset::default()
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.scores {
            Some(scores) => {
                Some(Scored::score(scores.entry(scores.find(hash_of(member), member)?)))
            }
            None => {
                self.order.iter_from(0).find(|(other, _)| *other == member).map(|(_, score)| score)
            }
        }
    }

    /// Sets the score of a member, which is no NaN; whether the member is new. A score that equals the one it has
    /// changes nothing: 0 stays 0 where it is set to -0.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) -> bool {
        let old = match &mut self.scores {
            Some(scores) => {
                let hash = hash_of(member);
                match scores.find(hash, member) {
                    Some(slot) => {
                        let entry = scores.entry_mut(slot);
                        let old = Scored::score(entry);
                        if old != score {
                            let at = Plain::len(entry);
                            entry[at..at + 8].copy_from_slice(&score.to_bits().to_le_bytes());
                        }
                        Some(old)
                    }
                    None => {
                        insert(scores, hash, member, score);
                        None
                    }
                }
            }
            None => self.score(member),
        };
        match old {
            Some(old) if old == score => return false,
            Some(old) => {
                self.order.remove(self.order.rank(old, member));
                self.order.insert(score, member);
                return false;
            }
            None => self.order.insert(score, member),
        }
        self.bytes += member.len();
        if self.scores.is_none() && !is_small(self.len(), self.bytes) {
            let mut scores = Box::<Table<Scored>>::default();
            for (member, score) in self.order.iter_from(0) {
                insert(&mut scores, hash_of(member), member, score);
            }
            self.scores = Some(scores);
        }
        self.large |= member.len() > limits.zset_max_listpack_value
            || self.len() > limits.zset_max_listpack_entries;
        true
    }

    /// Removes a member and gives its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = match &mut self.scores {
            Some(scores) => {
                let hash = hash_of(member);
                let slot = scores.find(hash, member)?;
                let score = Scored::score(scores.entry(slot));
                scores.remove(hash, slot);
                score
            }
            None => self.score(member)?,
        };
        self.order.remove(self.order.rank(score, member));
        self.bytes -= member.len();
        Some(score)
    }

    /// The number of members before this one.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        Some(self.order.rank(self.score(member)?, member))
    }

    /// The ranks of the members whose scores lie between two bounds: from the first to before the last.
    pub fn ranks_by_score(&self, min: ScoreBound, max: ScoreBound) -> std::ops::Range<usize> {
        let from = self
            .order
            .partition_point(|score, _| score < min.score || (min.exclusive && score == min.score));
        let to = self.order.partition_point(|score, _| {
            score < max.score || (!max.exclusive && score == max.score)
        });
        from..to.max(from)
    }

    /// The ranks of the members between two bounds, where all have the same score.
    pub fn ranks_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> std::ops::Range<usize> {
        let from = self.order.partition_point(|_, member| match min {
            LexBound::Lowest => false,
            LexBound::Inclusive(bound) => member < bound,
            LexBound::Exclusive(bound) => member <= bound,
            LexBound::Highest => true,
        });
        let to = self.order.partition_point(|_, member| match max {
            LexBound::Lowest => false,
            LexBound::Inclusive(bound) => member <= bound,
            LexBound::Exclusive(bound) => member < bound,
            LexBound::Highest => true,
        });
        from..to.max(from)
    }

    /// The members and scores from a rank on, upwards.
    pub fn iter_from(&self, rank: usize) -> impl Iterator<Item = Item<'_>> {
        self.order.iter_from(rank)
    }

    /// The members and scores from a rank on, downwards; none where there is no such rank.
    pub fn iter_back_from(&self, rank: usize) -> impl Iterator<Item = Item<'_>> {
        self.order.iter_back_from(rank)
    }

    /// Removes the members of these ranks.
    pub fn remove_ranks(&mut self, ranks: std::ops::Range<usize>) {
        for _ in ranks.start..ranks.end.min(self.len()) {
            if let Some((member, _)) = self.order.iter_from(ranks.start).next() {
                self.bytes -= member.len();
                if let Some(scores) = &mut self.scores {
                    let hash = hash_of(member);
                    let slot = scores.find(hash, member).expect("each member has its score");
                    scores.remove(hash, slot);
                }
            }
            self.order.remove(ranks.start);
        }
    }

    /// A member picked at random, each as likely as any other.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<Item<'_>> {
        self.iter_from(random.usize(..self.len().max(1))).next()
    }

    /// Visits about `count` members from `cursor` on and gives the cursor to go on with, 0 at the end. A
    /// member that is there from the first to the last call is visited at least once.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        match &self.scores {
            Some(scores) => scores.scan(cursor, count, |slot| {
                let entry = scores.entry(slot);
                visit(Scored::key(entry), Scored::score(entry));
            }),
            None => {
                self.iter_from(0).for_each(|(member, score)| visit(member, score));
                0
            }
        }
    }

    /// `listpack` or `skiplist`.
    pub fn encoding(&self) -> &'static str {
        if self.large { "skiplist" } else { "listpack" }
    }

    /// The memory of the sorted set, in bytes, about.
    pub fn memory(&self) -> usize {
        let scores = self.scores.as_ref();
        self.order.memory()
            + scores.map_or(0, |scores| size_of::<Table<Scored>>() + scores.memory())
    }
}

fn insert(scores: &mut Table<Scored>, hash: u64, member: &[u8], score: f64) {
    scores.insert(hash, &[&Len::of(member.len()), member, &score.to_bits().to_le_bytes()]);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;

    /// Scores in an order that the standard library has.
    fn ordered(score: f64) -> i64 {
        (score * 10.0) as i64
    }

    #[test]
    fn a_sorted_set_holds_what_a_map_and_a_tree_would() {
        let limits = Limits::default();
        for (seed, members) in [30, 400, 3000].into_iter().enumerate() {
            let mut random = fastrand::Rng::with_seed(seed as u64);
            let (mut zset, mut scores) = (Zset::new(), HashMap::<Vec<u8>, f64>::new());
            let mut order = BTreeSet::<(i64, Vec<u8>)>::new();
            for step in 0..members * 6 {
                let number = random.u32(..members);
                let long = if number.is_multiple_of(50) { 700 } else { 0 };
                let member = format!("m{number:long$}").into_bytes();
                let removing = step / members % 3 == 2;
                if random.u8(..10) < if removing { 7 } else { 2 } {
                    let old = scores.remove(&member);
                    assert_eq!(zset.remove(&member), old);
                    if let Some(old) = old {
                        order.remove(&(ordered(old), member));
                    }
                } else {
                    // Mostly in order, then at random with many equal ones.
                    let score = if step < members {
                        f64::from(step)
                    } else {
                        f64::from(random.i8(..)) / 2.0
                    };
                    let old = scores.insert(member.clone(), score);
                    assert_eq!(zset.insert(&member, score, &limits), old.is_none());
                    if let Some(old) = old {
                        order.remove(&(ordered(old), member.clone()));
                    }
                    order.insert((ordered(score), member));
                }
                assert_eq!(zset.len(), order.len());
                if step % members.div_ceil(20) != 0 {
                    continue;
                }
                zset.order.check();
                let all: Vec<Item<'_>> = zset.iter_from(0).collect();
                assert!(
                    all.iter().map(|(member, _)| *member).eq(order.iter().map(|(_, m)| &m[..]))
                );
                assert!(all.iter().all(|(member, score)| scores[*member] == *score));
                let back: Vec<Item<'_>> = zset.iter_back_from(zset.len().wrapping_sub(1)).collect();
                assert!(back.iter().rev().eq(all.iter()));
                let rank = random.usize(..=zset.len());
                assert!(zset.iter_from(rank).eq(all[rank..].iter().copied()));
                let len = if rank < all.len() { rank + 1 } else { 0 };
                assert!(zset.iter_back_from(rank).eq(all[..len].iter().rev().copied()));
                if let Some((member, score)) = all.get(rank) {
                    assert_eq!((zset.rank(member), zset.score(member)), (Some(rank), Some(*score)));
                }
                let bound = |score, exclusive| ScoreBound { score, exclusive };
                let (low, high) = (-20.0, f64::from(random.u8(..60)));
                let count = |f: &dyn Fn(f64) -> bool| all.iter().filter(|(_, s)| f(*s)).count();
                let ranks = zset.ranks_by_score(bound(low, true), bound(high, false));
                assert_eq!(ranks, count(&|s| s <= low)..count(&|s| s <= high));
                let ranks = zset.ranks_by_score(bound(low, false), bound(high, true));
                assert_eq!(ranks, count(&|s| s < low)..count(&|s| s < high));
                if random.u8(..4) == 0 {
                    let ranks = rank..(rank + 20).min(all.len());
                    let gone: Vec<Vec<u8>> =
                        all[ranks.clone()].iter().map(|(member, _)| member.to_vec()).collect();
                    zset.remove_ranks(ranks);
                    for member in gone {
                        let score = scores.remove(&member).expect("it was there");
                        order.remove(&(ordered(score), member));
                    }
                }
            }
            let (mut scanned, mut cursor) = (HashMap::new(), 0);
            loop {
                cursor = zset.scan(cursor, 10, |member, score| {
                    scanned.insert(member.to_vec(), score);
                });
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(scanned, scores);
            zset.remove_ranks(0..usize::MAX);
            assert_eq!((zset.len(), zset.bytes, zset.order.memory()), (0, 0, 0));
        }
    }

    #[test]
    fn zero_and_infinity_have_their_places() {
        let limits = Limits::default();
        let mut zset = Zset::new();
        for (member, score) in
            [("d", f64::INFINITY), ("c", 0.0), ("b", -0.0), ("a", f64::NEG_INFINITY)]
        {
            zset.insert(member.as_bytes(), score, &limits);
        }
        let members: Vec<&[u8]> = zset.iter_from(0).map(|(member, _)| member).collect();
        assert_eq!(members, [b"a", b"b", b"c", b"d"]);
        assert!(zset.score(b"b").expect("it is there").is_sign_negative());
        zset.insert(b"c", -0.0, &limits);
        assert!(zset.score(b"c").expect("it is there").is_sign_positive());
    }

    #[test]
    fn members_with_one_score_are_found_by_their_bytes() {
        let limits = Limits::default();
        let mut zset = Zset::new();
        (0..2000).for_each(|i| _ = zset.insert(format!("{i:04}").as_bytes(), 1.0, &limits));
        let ranks = zset.ranks_by_lex(LexBound::Inclusive(b"0100"), LexBound::Exclusive(b"0200"));
        assert_eq!(ranks, 100..200);
        let ranks = zset.ranks_by_lex(LexBound::Exclusive(b"1"), LexBound::Highest);
        assert_eq!(ranks, 1000..2000);
        assert_eq!(zset.ranks_by_lex(LexBound::Highest, LexBound::Lowest), 2000..2000);
        assert_eq!(zset.encoding(), "skiplist");
    }
}
