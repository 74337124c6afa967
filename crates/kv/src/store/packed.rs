//! A few entries, one after the other: what small hashes, sets and sorted sets are made of.

use std::marker::PhantomData;

use super::layout::Layout;

/// Entries in the order they were put in.
#[derive(Clone, Debug)]
pub struct Packed<L> {
    bytes: Vec<u8>,
    count: u32,
    layout: PhantomData<L>,
}

impl<L> Default for Packed<L> {
    fn default() -> Packed<L> {
        Packed { bytes: Vec::new(), count: 0, layout: PhantomData }
    }
}

impl<L: Layout> Packed<L> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// The bytes of all entries.
    pub fn used(&self) -> usize {
        self.bytes.len()
    }

    /// The memory that is used, in bytes.
    pub fn memory(&self) -> usize {
        if self.bytes.capacity() == 0 { 0 } else { self.bytes.capacity() + 8 }
    }

    /// All entries.
    pub fn iter(&self) -> Entries<'_, L> {
        self.iter_at(0)
    }

    /// The entries from an offset on.
    pub fn iter_at(&self, offset: usize) -> Entries<'_, L> {
        Entries { rest: &self.bytes[offset..], layout: PhantomData }
    }

    /// Where the entry with a key begins.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        self.offset_where(|entry| L::key(entry) == key)
    }

    /// Where the first entry for which `wanted` holds begins.
    pub fn offset_where(&self, mut wanted: impl FnMut(&[u8]) -> bool) -> Option<usize> {
        let mut offset = 0;
        while offset < self.bytes.len() {
            let entry = &self.bytes[offset..];
            if wanted(entry) {
                return Some(offset);
            }
            offset += L::len(entry);
        }
        None
    }

    /// Where the entry at `index` begins, or the last one ends.
    pub fn offset(&self, index: usize) -> usize {
        (0..index).fold(0, |offset, _| offset + L::len(&self.bytes[offset..]))
    }

    /// The entry at an offset; more may follow it.
    pub fn entry(&self, offset: usize) -> &[u8] {
        &self.bytes[offset..]
    }

    /// Adds an entry, made of `parts`, at the end.
    pub fn push(&mut self, parts: &[&[u8]]) {
        self.insert(self.bytes.len(), parts);
    }

    /// Inserts an entry, made of `parts`, before the one at an offset.
    pub fn insert(&mut self, offset: usize, parts: &[&[u8]]) {
        self.splice(offset, 0, parts);
        self.count += 1;
    }

    /// Replaces the entry at an offset by one made of `parts`.
    pub fn replace(&mut self, offset: usize, parts: &[&[u8]]) {
        self.splice(offset, L::len(&self.bytes[offset..]), parts);
    }

    /// Removes the entry at an offset.
    pub fn remove(&mut self, offset: usize) {
        self.splice(offset, L::len(&self.bytes[offset..]), &[]);
        self.count -= 1;
        if self.bytes.capacity() > 64 && self.bytes.capacity() / 2 > self.bytes.len() {
            self.bytes.shrink_to(self.bytes.len() * 5 / 4);
        }
    }

    /// Takes the entries from an index on out.
    pub fn split_off(&mut self, index: usize) -> Packed<L> {
        let offset = self.offset(index);
        let bytes = self.bytes[offset..].to_vec();
        let right = Packed { bytes, count: self.count - index as u32, layout: PhantomData };
        self.bytes.truncate(offset);
        self.bytes.shrink_to_fit();
        self.count = index as u32;
        right
    }

    /// Adds the entries of another one at the end.
    pub fn append(&mut self, other: &Packed<L>) {
        self.reserve(other.used());
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
    }

    /// Puts `parts` in the place of `old` bytes.
    fn splice(&mut self, offset: usize, old: usize, parts: &[&[u8]]) {
        let new: usize = parts.iter().map(|part| part.len()).sum();
        if new > old {
            let (more, end) = (new - old, self.bytes.len());
            self.reserve(more);
            self.bytes.resize(end + more, 0);
            self.bytes.copy_within(offset..end, offset + more);
        } else if new < old {
            self.bytes.drain(offset + new..offset + old);
        }
        let mut at = offset;
        for part in parts {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }

    /// Room for `more` bytes and some, but not twice as much.
    fn reserve(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() < more {
            self.bytes.reserve_exact(more.max(self.bytes.len() / 8));
        }
    }
}

/// Entries one after the other.
#[derive(Debug)]
pub struct Entries<'a, L> {
    rest: &'a [u8],
    layout: PhantomData<L>,
}

impl<'a, L: Layout> Iterator for Entries<'a, L> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (entry, rest) = self.rest.split_at(L::len(self.rest));
        self.rest = rest;
        Some(entry)
    }
}

/// A packed sequence that searches would take long in is better kept in a table, whatever it is called outside.
pub fn is_small(entries: usize, bytes: usize) -> bool {
    entries <= 128 && bytes <= 4096
}
