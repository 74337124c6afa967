//! The keys of a database in the order of their bytes, for `KEYRANGE`: kept only where `ordered-keys` asks for it.
//!
//! Invariant, *the same keys*: it has the keys that the table has, as `Db` puts each in and takes it out with its
//! entry. Values and times of expiry are not here.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::LexBound;

/// Keys in order.
#[derive(Debug, Default)]
pub struct Ordered {
    keys: BTreeSet<Box<[u8]>>,
    /// Bytes of the keys themselves.
    bytes: usize,
}

impl Ordered {
    /// Puts a key in that is not there.
    pub fn insert(&mut self, key: &[u8]) {
        self.bytes += key.len();
        let is_new = self.keys.insert(key.into());
        debug_assert!(is_new, "a key is put in once");
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &[u8]) {
        self.bytes -= key.len();
        let was_there = self.keys.remove(key);
        debug_assert!(was_there, "what is taken out was put in");
    }

    /// The keys between two bounds, the lowest first.
    pub fn range<'a>(
        &'a self,
        min: LexBound<'_>,
        max: LexBound<'_>,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
        let bounds = match (min, max) {
            (LexBound::Highest, _) | (_, LexBound::Lowest) => None,
            (min, max) => Some((bound(min), bound(max))),
        };
        // The tree takes no range that ends before it begins.
        let bounds = bounds.filter(|bounds| match bounds {
            (Bound::Excluded(min), Bound::Excluded(max)) => min < max,
            (
                Bound::Included(min) | Bound::Excluded(min),
                Bound::Included(max) | Bound::Excluded(max),
            ) => min <= max,
            _ => true,
        });
        let range = bounds.map(|bounds| self.keys.range::<[u8], _>(bounds));
        range.into_iter().flatten().map(|key| &**key)
    }

    /// Its memory, in bytes, about.
    pub fn memory(&self) -> usize {
        /// What a key takes beside its bytes: its place in a node that is not full, and what the allocator adds.
        const EACH: usize = 46;
        self.bytes + self.keys.len() * EACH
    }

    /// Drops up to `count` keys; whether any are left.
    pub fn drop_some(&mut self, count: usize) -> bool {
        (0..count).all(|_| self.keys.pop_first().is_some())
    }
}

fn bound(bound: LexBound<'_>) -> Bound<&[u8]> {
    match bound {
        LexBound::Lowest | LexBound::Highest => Bound::Unbounded,
        LexBound::Inclusive(key) => Bound::Included(key),
        LexBound::Exclusive(key) => Bound::Excluded(key),
    }
}
