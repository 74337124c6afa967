//! Sorted sets: members with scores, in order of score, then of bytes.

use std::collections::HashMap;

use super::Limits;

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
    scores: HashMap<Vec<u8>, f64>,
    order: Vec<(f64, Vec<u8>)>,
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
        self.order.is_empty()
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// Sets the score of a member, which is no NaN; whether the member is new.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) -> bool {
        let new = self.remove(member).is_none();
        let at = self.position(score, member);
        self.order.insert(at, (score, member.to_vec()));
        self.scores.insert(member.to_vec(), score);
        self.large |= member.len() > limits.zset_max_listpack_value
            || self.len() > limits.zset_max_listpack_entries;
        new
    }

    /// Removes a member and gives its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.scores.remove(member)?;
        let at = self.position(score, member);
        self.order.remove(at);
        Some(score)
    }

    /// The number of members before this one.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        Some(self.position(self.score(member)?, member))
    }

    /// The ranks of the members whose scores lie between two bounds: from the first to before the last.
    pub fn ranks_by_score(&self, min: ScoreBound, max: ScoreBound) -> std::ops::Range<usize> {
        let from = self.order.partition_point(|&(score, _)| {
            score < min.score || (min.exclusive && score == min.score)
        });
        let to = self.order.partition_point(|&(score, _)| {
            score < max.score || (!max.exclusive && score == max.score)
        });
        from..to.max(from)
    }

    /// The ranks of the members between two bounds, where all have the same score.
    pub fn ranks_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> std::ops::Range<usize> {
        let from = self.order.partition_point(|(_, member)| match min {
            LexBound::Lowest => false,
            LexBound::Inclusive(bound) => &member[..] < bound,
            LexBound::Exclusive(bound) => &member[..] <= bound,
            LexBound::Highest => true,
        });
        let to = self.order.partition_point(|(_, member)| match max {
            LexBound::Lowest => false,
            LexBound::Inclusive(bound) => &member[..] <= bound,
            LexBound::Exclusive(bound) => &member[..] < bound,
            LexBound::Highest => true,
        });
        from..to.max(from)
    }

    /// The members and scores from a rank on, upwards.
    pub fn iter_from(&self, rank: usize) -> impl Iterator<Item = (&[u8], f64)> {
        self.order[rank.min(self.len())..].iter().map(|(score, member)| (&member[..], *score))
    }

    /// The members and scores from a rank on, downwards; none where there is no such rank.
    pub fn iter_back_from(&self, rank: usize) -> impl Iterator<Item = (&[u8], f64)> {
        let len = if rank < self.len() { rank + 1 } else { 0 };
        self.order[..len].iter().rev().map(|(score, member)| (&member[..], *score))
    }

    /// Removes the members of these ranks.
    pub fn remove_ranks(&mut self, ranks: std::ops::Range<usize>) {
        for (_, member) in self.order.drain(ranks) {
            self.scores.remove(&member);
        }
    }

    /// A member picked at random, each as likely as any other.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<(&[u8], f64)> {
        self.iter_from(random.usize(..self.len().max(1))).next()
    }

    /// Visits about `count` members from `cursor` on and gives the cursor to go on with, 0 at the end. A
    /// member that is there from the first to the last call is visited at least once.
    pub fn scan(&self, _cursor: u64, _count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        self.iter_from(0).for_each(|(member, score)| visit(member, score));
        0
    }

    /// `listpack` or `skiplist`.
    pub fn encoding(&self) -> &'static str {
        if self.large { "skiplist" } else { "listpack" }
    }

    /// The memory of the sorted set, in bytes, about.
    pub fn memory(&self) -> usize {
        self.order.iter().map(|(_, member)| 2 * member.len() + 64).sum()
    }

    /// The rank that a member of that score has or would get.
    fn position(&self, score: f64, member: &[u8]) -> usize {
        self.order.partition_point(|(other, name)| {
            *other < score || (*other == score && &name[..] < member)
        })
    }
}
