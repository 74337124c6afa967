//! Sets.
//!
//! Integers alone are kept in order, as wide as they need to be; other members in a packed sequence while they are
//! few, and in a table when not.

use std::borrow::Cow;

use super::intset::IntSet;
use super::layout::{Layout, Len, Plain};
use super::packed::{Packed, is_small};
use super::table::Table;
use super::{Limits, hash_of};
use crate::protocol::parse_i64;

/// A member of a set: borrowed, or the text of an integer.
pub type Member<'a> = Cow<'a, [u8]>;

/// A set of strings.
#[derive(Clone, Debug, Default)]
pub struct Set {
    members: Members,
}

#[derive(Clone, Debug)]
enum Members {
    Ints(IntSet),
    Packed(Packed<Plain>),
    Table(Box<Table<Plain>>),
}

impl Default for Members {
    fn default() -> Members {
        Members::Ints(IntSet::default())
    }
}

impl Set {
    /// An empty set.
    pub fn new() -> Set {
        Set::default()
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        match &self.members {
            Members::Ints(ints) => ints.len(),
            Members::Packed(packed) => packed.len(),
            Members::Table(table) => table.len(),
        }
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has that member.
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.members {
            Members::Ints(ints) => parse_i64(member).is_some_and(|value| ints.contains(value)),
            Members::Packed(packed) => packed.find(member).is_some(),
            Members::Table(table) => table.find(hash_of(member), member).is_some(),
        }
    }

    /// Adds a member; whether it is new.
    pub fn insert(&mut self, member: &[u8], limits: &Limits) -> bool {
        match &mut self.members {
            Members::Ints(ints) => {
                if let Some(value) = parse_i64(member) {
                    let new = ints.insert(value);
                    if ints.len() > limits.set_max_intset_entries {
                        self.become_strings();
                    }
                    return new;
                }
                self.become_strings();
                return self.insert(member, limits);
            }
            Members::Packed(packed) => {
                if packed.find(member).is_some() {
                    return false;
                }
                if is_small(packed.len() + 1, packed.used() + member.len()) {
                    packed.push(&[&Len::of(member.len()), member]);
                    return true;
                }
                let mut table = Box::<Table<Plain>>::default();
                for entry in packed.iter() {
                    table.insert(hash_of(Plain::key(entry)), &[entry]);
                }
                self.members = Members::Table(table);
            }
            Members::Table(_) => {}
        }
        let Members::Table(table) = &mut self.members else {
            unreachable!("the other kinds have returned");
        };
        let hash = hash_of(member);
        let new = table.find(hash, member).is_none();
        if new {
            table.insert(hash, &[&Len::of(member.len()), member]);
        }
        new
    }

    /// Removes a member; whether it was one.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.members {
            Members::Ints(ints) => parse_i64(member).is_some_and(|value| ints.remove(value)),
            Members::Packed(packed) => {
                let found = packed.find(member);
                found.map(|offset| packed.remove(offset)).is_some()
            }
            Members::Table(table) => {
                let hash = hash_of(member);
                let found = table.find(hash, member);
                found.map(|slot| table.remove(hash, slot)).is_some()
            }
        }
    }

    /// All members: integers in order, others in no promised one.
    pub fn iter(&self) -> impl Iterator<Item = Member<'_>> {
        let (ints, packed, table) = match &self.members {
            Members::Ints(ints) => (Some(ints.iter()), None, None),
            Members::Packed(packed) => (None, Some(packed.iter()), None),
            Members::Table(table) => (None, None, Some(table.iter())),
        };
        let entries = packed.into_iter().flatten().chain(table.into_iter().flatten());
        let strings = entries.map(|entry| Cow::Borrowed(Plain::key(entry)));
        ints.into_iter().flatten().map(|value| -> Member<'_> { text(value) }).chain(strings)
    }

    /// A member picked at random, each as likely as any other.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<Member<'_>> {
        if self.is_empty() {
            return None;
        }
        match &self.members {
            Members::Ints(ints) => return Some(text(ints.get(random.usize(..ints.len())))),
            Members::Packed(packed) => packed.iter().nth(random.usize(..packed.len())),
            Members::Table(table) => table.random(random).map(|slot| table.entry(slot)),
        }
        .map(|entry| Cow::Borrowed(Plain::key(entry)))
    }

    /// Visits about `count` members from `cursor` on and gives the cursor to go on with, 0 at the end. A
    /// member that is there from the first to the last call is visited at least once.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8])) -> u64 {
        match &self.members {
            Members::Ints(_) | Members::Packed(_) => {
                self.iter().for_each(|member| visit(&member));
                0
            }
            Members::Table(table) => {
                table.scan(cursor, count, |slot| visit(Plain::key(table.entry(slot))))
            }
        }
    }

    /// `intset` or `hashtable`.
    pub fn encoding(&self) -> &'static str {
        match self.members {
            Members::Ints(_) => "intset",
            Members::Packed(_) | Members::Table(_) => "hashtable",
        }
    }

    /// The memory of the set, in bytes, about.
    pub fn memory(&self) -> usize {
        match &self.members {
            Members::Ints(ints) => ints.memory(),
            Members::Packed(packed) => packed.memory(),
            Members::Table(table) => size_of::<Table<Plain>>() + table.memory(),
        }
    }

    /// Makes strings of integers.
    fn become_strings(&mut self) {
        let Members::Ints(ints) = std::mem::take(&mut self.members) else {
            unreachable!("it is called for integers");
        };
        self.members = Members::Packed(Packed::default());
        let limits = Limits::default();
        ints.iter().for_each(|value| _ = self.insert(&text(value), &limits));
    }
}

fn text<'a>(value: i64) -> Member<'a> {
    Cow::Owned(itoa::Buffer::new().format(value).as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn check(set: &Set, model: &HashSet<Vec<u8>>) {
        assert_eq!(set.len(), model.len());
        let all: HashSet<Vec<u8>> = set.iter().map(Cow::into_owned).collect();
        assert_eq!(all, *model);
        let (mut scanned, mut cursor) = (HashSet::new(), 0);
        loop {
            cursor = set.scan(cursor, 10, |member| _ = scanned.insert(member.to_vec()));
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(scanned, *model);
    }

    #[test]
    fn a_set_holds_what_another_would() {
        let mut random = fastrand::Rng::with_seed(9);
        let limits = Limits::default();
        for (members, words) in [(300, false), (2000, false), (40, true), (3000, true)] {
            let (mut set, mut model) = (Set::new(), HashSet::<Vec<u8>>::new());
            for step in 0..members * 5 {
                let widths = [1, -1, 1000, 1_000_000, i64::MAX / members];
                let number = random.i64(0..members) * widths[(step * 5 / (members * 5)) as usize];
                let word = if words { "word" } else { "" };
                let member = format!("{word}{number}").into_bytes();
                if random.u8(..3) == 0 {
                    assert_eq!(set.remove(&member), model.remove(&member));
                } else {
                    assert_eq!(set.insert(&member, &limits), model.insert(member.clone()));
                }
                assert_eq!(set.contains(&member), model.contains(&member));
            }
            check(&set, &model);
            let member = set.random(&mut random).expect("it has members");
            assert!(model.contains(&*member));
        }
    }

    #[test]
    fn integers_come_in_order_until_there_are_too_many() {
        let limits = Limits { set_max_intset_entries: 4, ..Limits::default() };
        let mut set = Set::new();
        for member in ["70000", "-5", "5000000000", "3"] {
            assert!(set.insert(member.as_bytes(), &limits));
        }
        let all: Vec<Vec<u8>> = set.iter().map(Cow::into_owned).collect();
        assert_eq!(all, [&b"-5"[..], b"3", b"70000", b"5000000000"]);
        assert_eq!(set.encoding(), "intset");
        assert!(!set.contains(b"03") && !set.contains(b"x"));
        set.insert(b"4", &limits);
        assert_eq!((set.encoding(), set.len()), ("hashtable", 5));
        let mut set = Set::new();
        set.insert(b"1", &limits);
        set.insert(b"x", &limits);
        assert_eq!((set.encoding(), set.len()), ("hashtable", 2));
    }
}
