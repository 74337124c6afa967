//! A compact map of bytes to bytes: extendible hashing over segments.
//!
//! The upper bits of a key's hash choose an entry of the directory, which names a segment; several entries may name
//! the same one. A segment that is full is split in two by the next bit of the hash, and the directory doubled where
//! it has to be. Segments that are nearly empty are merged again. So nothing takes a time that grows with the number
//! of entries, but for the directory itself, of four bytes for some hundred of them.
//!
//! Invariants:
//! - *Order of hashes*: what lies before a position in the order of hashes stays before it, whatever is split,
//!   merged or moved. Cursors are such positions.
//! - *One hash*: the table hashes by [`hash_of`](super::hash_of), as the caller does who passes a hash.
//!
//! What entries mean is the business of their [`Layout`].

mod segment;

use std::marker::PhantomData;

use self::segment::{Place, Segment};
use super::layout::Layout;
use super::slab::Slab;

/// Bits of a cursor. Those of the hash that it leaves out decide on nothing here.
pub const CURSOR_BITS: u32 = 48;

/// Bits of the directory at most, so that a cursor tells buckets apart.
const MAX_BITS: u32 = 24;

/// Segments that are less full than this are merged with their neighbour, where both are about.
const SPARSE: f32 = 0.125;

/// Where an entry lies. Good until the table is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    segment: u32,
    place: Place,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table<L> {
    /// By the upper `bits` of the hash, the segment. Empty where there is no entry.
    directory: Vec<u32>,
    segments: Slab<Segment, 128>,
    bits: u32,
    len: usize,
    expiring: usize,
    /// Segments whose entries share as many bits as the directory goes by.
    deepest: usize,
    /// Bytes of the segments' own memory.
    bytes: usize,
    layout: PhantomData<L>,
}

impl<L> Default for Table<L> {
    fn default() -> Table<L> {
        Table {
            directory: Vec::new(),
            segments: Slab::default(),
            bits: 0,
            len: 0,
            expiring: 0,
            deepest: 0,
            bytes: 0,
            layout: PhantomData,
        }
    }
}

impl<L: Layout> Table<L> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of entries that expire.
    pub fn expiring(&self) -> usize {
        self.expiring
    }

    /// The memory of the table, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes + self.segments.memory() + self.directory.capacity() * size_of::<u32>()
    }

    /// How many entries the indices of all segments have room for.
    pub fn capacity(&self) -> usize {
        self.segments.iter().map(|(_, segment)| segment.capacity()).sum()
    }

    /// The entry of a key, if it is there. `hash` is that of the key.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        let segment = *self.directory.get(self.position(hash))?;
        let place = self.segments[segment].find::<L>(hash, key)?;
        Some(Slot { segment, place })
    }

    /// Brings into the processor's caches what searches for these hashes will read. Each pass loads for all of them
    /// what the pass before has found, and does little besides, so that the processor waits for many loads at once.
    pub fn touch(&self, hashes: &[u64]) {
        /// Hashes that are searched for together.
        const TOGETHER: usize = 32;
        if self.directory.is_empty() {
            return;
        }
        let mut sum = 0;
        for hashes in hashes.chunks(TOGETHER) {
            let mut segments = [&self.segments[self.directory[0]]; TOGETHER];
            for (segment, &hash) in segments.iter_mut().zip(hashes) {
                *segment = &self.segments[self.directory[self.position(hash)]];
            }
            let segments = &segments[..hashes.len()];
            segments.iter().for_each(|segment| sum ^= segment.touch());
            let with_hashes = || segments.iter().zip(hashes);
            with_hashes().for_each(|(segment, &hash)| sum ^= segment.touch_bucket(hash));
            let mut entries: [&[u8]; TOGETHER] = [&[]; TOGETHER];
            for (entry, (segment, &hash)) in entries.iter_mut().zip(with_hashes()) {
                *entry = segment.likely_entry(hash);
            }
            entries.iter().for_each(|entry| sum ^= touch_bytes(entry));
        }
        // Loads of which nothing comes are left out otherwise.
        std::hint::black_box(sum);
    }

    /// The bytes of an entry; more may follow it.
    #[inline]
    pub fn entry(&self, slot: Slot) -> &[u8] {
        self.segments[slot.segment].bytes(slot.place.offset)
    }

    /// The same, to be changed in place. Neither its length nor its key may change, nor whether it expires.
    #[inline]
    pub fn entry_mut(&mut self, slot: Slot) -> &mut [u8] {
        self.segments[slot.segment].bytes_mut(slot.place.offset)
    }

    /// Adds an entry, made of `parts` one after the other, whose key is not there.
    pub fn insert(&mut self, hash: u64, parts: &[&[u8]]) -> Slot {
        if self.directory.is_empty() {
            let segment = Segment::new(0, 0);
            self.bytes = segment.memory();
            self.directory.push(self.segments.insert(segment));
            self.deepest = 1;
        }
        loop {
            let id = self.directory[self.position(hash)];
            let segment = &mut self.segments[id];
            let (bytes, expiring) = (segment.memory(), segment.expiring());
            let place = segment.insert::<L>(hash, parts);
            self.bytes = self.bytes + segment.memory() - bytes;
            if let Some(place) = place {
                self.expiring = self.expiring + segment.expiring() - expiring;
                self.len += 1;
                return Slot { segment: id, place };
            }
            if segment.is_wasteful() {
                segment.compact::<L>();
                self.bytes = self.bytes + segment.memory() - bytes;
            } else {
                self.split(hash);
            }
        }
    }

    /// Replaces an entry by one of the same key, made of `parts`.
    pub fn replace(&mut self, hash: u64, slot: Slot, parts: &[&[u8]]) -> Slot {
        let segment = &mut self.segments[slot.segment];
        let (bytes, expiring) = (segment.memory(), segment.expiring());
        if let Some(place) = segment.replace::<L>(slot.place, parts) {
            self.expiring = self.expiring + segment.expiring() - expiring;
            self.bytes = self.bytes + segment.memory() - bytes;
            return Slot { place, ..slot };
        }
        self.unlink(hash, slot);
        self.insert(hash, parts)
    }

    /// Removes an entry.
    pub fn remove(&mut self, hash: u64, slot: Slot) {
        self.unlink(hash, slot);
        if self.len == 0 {
            *self = Table::default();
        } else if self.segments[slot.segment].load() < SPARSE {
            self.merge(hash);
        }
    }

    /// Visits about `count` entries from `cursor` on, and gives the cursor to go on with, 0 at the end. An entry that
    /// is there from the first to the last call is visited at least once. Cursors have [`CURSOR_BITS`].
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Slot)) -> u64 {
        let wanted = |segment: &Segment| segment.len() > 0;
        self.walk(cursor, count, 10, wanted, |slot| {
            visit(slot);
            true
        })
    }

    /// The same for entries that expire alone. Where few do, a call visits fewer than `count`, as what it looks at
    /// besides is bounded by some times that number.
    pub fn scan_expiring(&self, cursor: u64, count: usize, mut visit: impl FnMut(Slot)) -> u64 {
        let wanted = |segment: &Segment| segment.expiring() > 0;
        self.walk(cursor, count, 4, wanted, |slot| {
            let expires = L::expires(self.entry(slot));
            if expires {
                visit(slot);
            }
            expires
        })
    }

    fn walk(
        &self,
        cursor: u64,
        count: usize,
        patience: usize,
        wanted: impl Fn(&Segment) -> bool,
        mut visit: impl FnMut(Slot) -> bool,
    ) -> u64 {
        const UNUSED: u32 = 64 - CURSOR_BITS;
        /// What it costs to look at a bucket, where to pass over a segment costs 1.
        const BUCKET: usize = 16;
        if self.is_empty() || cursor >> CURSOR_BITS != 0 {
            return 0;
        }
        let mut from = cursor << UNUSED;
        let (mut seen, mut spent) = (0, 0);
        let budget = count.saturating_mul(patience).max(10 * BUCKET);
        loop {
            let id = self.directory[self.position(from)];
            let segment = &self.segments[id];
            from = if wanted(segment) {
                spent += BUCKET;
                segment.visit_from::<L>(from, |place| {
                    seen += usize::from(visit(Slot { segment: id, place }));
                })
            } else {
                spent += 1;
                segment.end(from)
            };
            if from == 0 || seen >= count || spent >= budget {
                return from >> UNUSED;
            }
        }
    }

    /// All entries, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.segments
            .iter()
            .flat_map(|(_, segment)| segment.places().map(|place| segment.bytes(place.offset)))
    }

    /// An entry picked at random, each about as likely as any other.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<Slot> {
        if self.is_empty() {
            return None;
        }
        // A segment is picked as often as it has a share of the hashes. One that has more entries than its share has
        // to be taken more often, so the others are passed over now and then.
        const MARGIN: f64 = 1.25;
        let mut tries = 0;
        loop {
            let id = self.directory[random.usize(..self.directory.len())];
            let segment = &self.segments[id];
            tries += 1;
            let share = self.len as f64 / f64::from(1u32 << segment.depth());
            let take = segment.len() as f64 / (share * MARGIN);
            if segment.len() > 0 && (tries > 1000 || random.f64() < take) {
                return Some(Slot { segment: id, place: segment.random(random) });
            }
        }
    }

    /// An entry that expires, picked at random, about as likely as any other of them.
    pub fn random_expiring(&self, random: &mut fastrand::Rng) -> Option<Slot> {
        if self.expiring == 0 {
            return None;
        }
        let start = random.usize(..self.directory.len());
        let (before, behind) = self.directory.split_at(start);
        let id = *behind.iter().chain(before).find(|&&id| self.segments[id].expiring() > 0)?;
        let segment = &self.segments[id];
        // Mostly many of them expire, and trying is cheaper than looking at all.
        for _ in 0..16 {
            let place = segment.random(random);
            if L::expires(segment.bytes(place.offset)) {
                return Some(Slot { segment: id, place });
            }
        }
        let nth = random.usize(..segment.expiring());
        let expiring = |place: &Place| L::expires(segment.bytes(place.offset));
        let place = segment.places().filter(expiring).nth(nth)?;
        Some(Slot { segment: id, place })
    }

    /// Takes everything out, to be dropped piece by piece.
    pub fn take(&mut self) -> Remains {
        Remains { segments: std::mem::take(self).segments }
    }

    #[inline]
    fn position(&self, hash: u64) -> usize {
        // Two shifts, as there may be no bit to go by.
        (hash >> 1 >> (63 - self.bits)) as usize
    }

    fn unlink(&mut self, hash: u64, slot: Slot) {
        let segment = &mut self.segments[slot.segment];
        let (bytes, expiring) = (segment.memory(), segment.expiring());
        segment.remove::<L>(hash, slot.place);
        self.bytes = self.bytes + segment.memory() - bytes;
        self.expiring = self.expiring + segment.expiring() - expiring;
        self.len -= 1;
    }

    /// The part of the directory that names the segment of a hash, whose entries share `depth` bits.
    fn part(&self, hash: u64, depth: u32) -> std::ops::Range<usize> {
        let count = 1 << (self.bits - depth);
        let start = self.position(hash) & !(count - 1);
        start..start + count
    }

    fn split(&mut self, hash: u64) {
        let id = self.directory[self.position(hash)];
        let depth = self.segments[id].depth();
        if depth == self.bits {
            self.grow();
        }
        let (count, bytes) = (self.segments[id].len(), self.segments[id].memory());
        let empty = || Segment::new(depth as u8 + 1, count / 2);
        let old = std::mem::replace(&mut self.segments[id], empty());
        let mut upper = empty();
        let lower = &mut self.segments[id];
        old.move_into::<L>(&mut [lower, &mut upper], |hash| (hash << depth >> 63) as usize);
        self.bytes = self.bytes + lower.memory() + upper.memory() - bytes;
        if depth + 1 == self.bits {
            self.deepest += 2;
        }
        let upper = self.segments.insert(upper);
        let part = self.part(hash, depth);
        let middle = part.start + part.len() / 2;
        self.directory[middle..part.end].fill(upper);
    }

    fn merge(&mut self, hash: u64) {
        let id = self.directory[self.position(hash)];
        let depth = self.segments[id].depth();
        if depth == 0 {
            return;
        }
        let other = self.directory[self.position(hash ^ 1 << (64 - depth))];
        let (one, two) = (&self.segments[id], &self.segments[other]);
        if two.depth() != depth || one.load() + two.load() > 0.5 {
            return;
        }
        let merged = Segment::new(depth as u8 - 1, one.len() + two.len());
        let two = self.segments.remove(other);
        let one = std::mem::replace(&mut self.segments[id], merged);
        self.bytes -= one.memory() + two.memory();
        let merged = &mut self.segments[id];
        for old in [one, two] {
            old.move_into::<L>(&mut [merged], |_| 0);
        }
        self.bytes += merged.memory();
        let part = self.part(hash, depth - 1);
        self.directory[part].fill(id);
        if depth == self.bits {
            self.deepest -= 2;
        }
        while self.deepest == 0 && self.bits > 0 {
            self.shrink();
        }
    }

    /// Doubles the directory.
    fn grow(&mut self) {
        assert!(self.bits < MAX_BITS, "a table has less than 2^32 entries");
        self.directory = self.directory.iter().flat_map(|&id| [id, id]).collect();
        self.bits += 1;
        self.deepest = 0;
    }

    /// Halves the directory, whose entries are equal by pairs.
    fn shrink(&mut self) {
        self.directory = self.directory.iter().copied().step_by(2).collect();
        self.bits -= 1;
        let bits = self.bits;
        self.deepest =
            self.directory.iter().filter(|&&id| self.segments[id].depth() == bits).count();
    }
}

/// Loads the first bytes, as many as most entries have. The result means nothing.
#[inline]
fn touch_bytes(bytes: &[u8]) -> u8 {
    /// Bytes of a line of the processor's caches.
    const LINE: usize = 64;
    let byte = |at| bytes.get(at).copied().unwrap_or_default();
    // Of an entry that begins late in a line, the last of them are in the third.
    byte(0) ^ byte(LINE) ^ byte(LINE + LINE / 2)
}

/// What was in a table, to be dropped piece by piece.
#[derive(Debug)]
pub struct Remains {
    segments: Slab<Segment, 128>,
}

impl Remains {
    /// Drops up to `count` segments, of some hundred entries each; whether any may be left.
    pub fn drop_some(&mut self, count: usize) -> bool {
        self.segments.drop_some(count)
    }
}
