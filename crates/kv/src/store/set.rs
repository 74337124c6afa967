//! Sets.

use std::borrow::Cow;
use std::collections::HashSet;

use super::Limits;
use crate::protocol::parse_i64;

/// A member of a set: borrowed, or the text of an integer.
pub type Member<'a> = Cow<'a, [u8]>;

/// A set of strings.
#[derive(Clone, Debug, Default)]
pub struct Set {
    members: HashSet<Vec<u8>>,
    large: bool,
}

impl Set {
    /// An empty set.
    pub fn new() -> Set {
        Set::default()
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether it has that member.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.members.contains(member)
    }

    /// Adds a member; whether it is new.
    pub fn insert(&mut self, member: &[u8], limits: &Limits) -> bool {
        let new = self.members.insert(member.to_vec());
        self.large |= parse_i64(member).is_none() || self.len() > limits.set_max_intset_entries;
        new
    }

    /// Removes a member; whether it was one.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        self.members.remove(member)
    }

    /// All members: integers in order, others in no promised one.
    pub fn iter(&self) -> impl Iterator<Item = Member<'_>> {
        self.members.iter().map(|member| Cow::Borrowed(&member[..]))
    }

    /// A member picked at random, each as likely as any other.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<Member<'_>> {
        self.iter().nth(random.usize(..self.len().max(1)))
    }

    /// Visits about `count` members from `cursor` on and gives the cursor to go on with, 0 at the end. A
    /// member that is there from the first to the last call is visited at least once.
    pub fn scan(&self, _cursor: u64, _count: usize, mut visit: impl FnMut(&[u8])) -> u64 {
        self.iter().for_each(|member| visit(&member));
        0
    }

    /// `intset` or `hashtable`.
    pub fn encoding(&self) -> &'static str {
        if self.large { "hashtable" } else { "intset" }
    }

    /// The memory of the set, in bytes, about.
    pub fn memory(&self) -> usize {
        self.members.iter().map(|member| member.len() + 24).sum()
    }
}
