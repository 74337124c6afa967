//! A segment of a table: some hundred entries whose hashes begin with the same bits.
//!
//! Entries lie one after the other in blocks of a fixed size, which the allocator can give to any other segment
//! afterwards; long ones have memory of their own. Buckets of one cache line find them: a byte of the hash and
//! where the entry lies, twenty times. An entry whose bucket is full goes to the next one that is not, and each
//! bucket counts those that passed by it, so that a search knows where to end.
//!
//! Invariants:
//! - *Order*: the bucket that an entry belongs to grows with its hash, so that a position in the order of hashes
//!   is one in the segment.
//! - *Bytes tell*: what lies at an offset of the index is an entry; bytes of no entry are counted as garbage, or
//!   lie at the end of a block.

use super::super::hash_of;
use super::super::layout::Layout;

/// Bytes of a block: with what the allocator adds, 2 KiB.
const BLOCK: usize = 2040;
/// Blocks of a segment, at most.
const BLOCKS: usize = 11;
/// Bytes of an entry in a block, at most.
const LONGEST: usize = 480;
/// Entries of a bucket.
const WAYS: usize = 20;
/// Buckets of a segment, at most.
const MAX_BUCKETS: usize = 32;
/// Offsets from here on count entries with memory of their own.
const LARGE: u16 = 0x8000;

/// Bits of the hash, behind those that all entries of the segment share, that decide on the bucket.
const BUCKET_BITS: u32 = 24;

type Block = Box<[u8; BLOCK]>;

/// A line of the index.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Bucket {
    /// A byte of each entry's hash, 0 where there is none.
    tags: [u8; WAYS],
    /// How many entries belong here or before, and lie behind. Stays at 255 once it is that.
    passed: u8,
    offsets: [u16; WAYS],
}

/// Entries with memory of their own.
#[derive(Clone, Debug, Default)]
struct Large {
    /// By number; empty where the number is free.
    entries: Vec<Box<[u8]>>,
    bytes: usize,
}

/// Where an entry lies in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub bucket: u8,
    pub way: u8,
    pub offset: u16,
}

/// A segment: two lines of the processor's caches.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Segment {
    index: Box<[Bucket]>,
    blocks: [Option<Block>; BLOCKS],
    large: Option<Box<Large>>,
    count: u16,
    expiring: u16,
    /// Bytes of blocks that no entry has.
    garbage: u16,
    /// Bytes used of the last block.
    fill: u16,
    block_count: u8,
    /// How many leading bits of the hash all entries share.
    depth: u8,
}

const _: () = assert!(size_of::<Bucket>() == 64 && size_of::<Segment>() <= 128);

impl Bucket {
    const EMPTY: Bucket = Bucket { tags: [0; WAYS], passed: 0, offsets: [0; WAYS] };

    /// Which ways have the tag, a bit each.
    #[inline]
    fn matches(&self, tag: u8) -> u32 {
        let (low, high) = self.tags.split_at(8);
        let (middle, high) = high.split_at(8);
        let high = u64::from(u32::from_le_bytes(high.try_into().expect("four of twenty")));
        let wide = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        // The upper half of the last word is no tag.
        equal_bytes(wide(low), tag)
            | equal_bytes(wide(middle), tag) << 8
            | (equal_bytes(high, tag) & 0xf) << 16
    }
}

/// Which bytes of a word equal `byte`, a bit each.
#[inline]
fn equal_bytes(word: u64, byte: u8) -> u32 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let differs = word ^ (u64::from(byte) * 0x0101_0101_0101_0101);
    let zero = !(((differs & LOW) + LOW) | differs | LOW);
    (zero.wrapping_mul(0x0002_0408_1020_4081) >> 56) as u32
}

#[inline]
fn tag_of(hash: u64) -> u8 {
    // Not of the lowest bits, which are the same for all keys of a shard, nor of those that decide on the bucket.
    ((hash >> 16) as u8).max(1)
}

impl Segment {
    /// A segment for about `count` entries.
    pub fn new(depth: u8, count: usize) -> Segment {
        let buckets = (count * 4).div_ceil(WAYS * 3).clamp(1, MAX_BUCKETS);
        Segment {
            index: vec![Bucket::EMPTY; buckets].into(),
            blocks: Default::default(),
            large: None,
            count: 0,
            expiring: 0,
            garbage: 0,
            fill: 0,
            block_count: 0,
            depth,
        }
    }

    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub fn depth(&self) -> u32 {
        u32::from(self.depth)
    }

    /// How many entries expire.
    pub fn expiring(&self) -> usize {
        usize::from(self.expiring)
    }

    /// How many entries the index has places for.
    pub fn capacity(&self) -> usize {
        self.index.len() * WAYS
    }

    /// The bytes of index and entries.
    pub fn memory(&self) -> usize {
        let large = self.large.as_ref().map_or(0, |large| large.bytes);
        size_of_val(&*self.index) + usize::from(self.block_count) * (BLOCK + 8) + large
    }

    /// How full the segment is, of 1.0, garbage not counted.
    pub fn load(&self) -> f32 {
        let bytes = self.used().saturating_sub(usize::from(self.garbage));
        let by_bytes = bytes as f32 / (BLOCK * BLOCKS) as f32;
        by_bytes.max(f32::from(self.count) / room(MAX_BUCKETS) as f32)
    }

    #[inline]
    pub fn find<L: Layout>(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let tag = tag_of(hash);
        let mut at = self.home(hash);
        for _ in 0..self.index.len() {
            let bucket = &self.index[at];
            let mut hits = bucket.matches(tag);
            while hits != 0 {
                let way = hits.trailing_zeros();
                hits &= hits - 1;
                let offset = bucket.offsets[way as usize];
                if L::key(self.bytes(offset)) == key {
                    return Some(Place { bucket: at as u8, way: way as u8, offset });
                }
            }
            if bucket.passed == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// Loads what a search begins with. The result means nothing.
    #[inline]
    pub fn touch(&self) -> u8 {
        self.depth ^ self.index.len() as u8 ^ u8::from(self.blocks[BLOCKS / 2].is_some())
    }

    /// Loads the bucket of a hash. The result means nothing.
    #[inline]
    pub fn touch_bucket(&self, hash: u64) -> u8 {
        self.index[self.home(hash)].passed
    }

    /// The entry that a search for the hash is likely to come to first, and what may follow it; nothing where it has
    /// memory of its own. Its bytes are not looked at.
    #[inline]
    pub fn likely_entry(&self, hash: u64) -> &[u8] {
        let bucket = &self.index[self.home(hash)];
        let hits = bucket.matches(tag_of(hash));
        if hits == 0 {
            return &[];
        }
        let (block, at) = split(bucket.offsets[hits.trailing_zeros() as usize]);
        match self.blocks.get(block) {
            Some(Some(block)) => &block[at..],
            _ => &[],
        }
    }

    /// The entry at an offset, and what may follow it.
    #[inline]
    pub fn bytes(&self, offset: u16) -> &[u8] {
        let (block, at) = split(offset);
        match self.blocks.get(block) {
            Some(Some(block)) => &block[at..],
            _ => self.large_bytes(offset),
        }
    }

    #[cold]
    fn large_bytes(&self, offset: u16) -> &[u8] {
        let large = self.large.as_ref().expect("there are such entries");
        &large.entries[usize::from(offset - LARGE)]
    }

    #[inline]
    pub fn bytes_mut(&mut self, offset: u16) -> &mut [u8] {
        let (block, at) = split(offset);
        match self.blocks.get_mut(block) {
            Some(Some(block)) => &mut block[at..],
            _ => {
                let large = self.large.as_mut().expect("there are such entries");
                &mut large.entries[usize::from(offset - LARGE)]
            }
        }
    }

    /// Adds an entry made of `parts`, whose key is not there; `None` where it does not fit.
    pub fn insert<L: Layout>(&mut self, hash: u64, parts: &[&[u8]]) -> Option<Place> {
        self.make_way::<L>()?;
        let offset = self.append(parts)?;
        self.expiring += u16::from(L::expires(self.bytes(offset)));
        Some(self.link(hash, offset))
    }

    /// Replaces an entry by one of the same key; `None`, and nothing is done, where it does not fit.
    pub fn replace<L: Layout>(&mut self, place: Place, parts: &[&[u8]]) -> Option<Place> {
        let old = self.bytes(place.offset);
        let (old_len, expired) = (L::len(old), L::expires(old));
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let fits = place.offset < LARGE && len <= old_len;
        let offset = if fits || (place.offset >= LARGE && len == old_len) {
            write(self.bytes_mut(place.offset), parts);
            self.garbage += (old_len - len) as u16;
            place.offset
        } else {
            let offset = self.append(parts)?;
            self.discard(place.offset, old_len);
            self.index[usize::from(place.bucket)].offsets[usize::from(place.way)] = offset;
            offset
        };
        self.expiring += u16::from(L::expires(self.bytes(offset)));
        self.expiring -= u16::from(expired);
        Some(self.tidied::<L>(Place { offset, ..place }))
    }

    /// Removes an entry.
    pub fn remove<L: Layout>(&mut self, hash: u64, place: Place) {
        let entry = self.bytes(place.offset);
        let len = L::len(entry);
        self.expiring -= u16::from(L::expires(entry));
        self.discard(place.offset, len);
        let end = usize::from(place.bucket);
        self.index[end].tags[usize::from(place.way)] = 0;
        let mut at = self.home(hash);
        while at != end {
            let passed = &mut self.index[at].passed;
            *passed -= u8::from(*passed != u8::MAX);
            at = self.next(at);
        }
        self.count -= 1;
        if self.count == 0 {
            *self = Segment::new(self.depth, 0);
        } else {
            self.tidied::<L>(place);
        }
    }

    /// Whether compacting would make much room.
    pub fn is_wasteful(&self) -> bool {
        usize::from(self.garbage) * 4 >= self.used() && usize::from(self.garbage) >= BLOCK
    }

    /// Moves all entries, in the order of hashes, so that nothing is wasted.
    pub fn compact<L: Layout>(&mut self) {
        let old = std::mem::take(&mut self.blocks);
        (self.block_count, self.fill, self.garbage) = (0, 0, 0);
        for at in 0..self.index.len() {
            for way in 0..WAYS {
                let offset = self.index[at].offsets[way];
                if self.index[at].tags[way] == 0 || offset >= LARGE {
                    continue;
                }
                let (block, from) = split(offset);
                let bytes = &old[block].as_ref().expect("the block was used")[from..];
                self.index[at].offsets[way] = self.append_surely(&bytes[..L::len(bytes)]);
            }
        }
    }

    /// Moves all entries into other segments, of which `pick` says by the hash which one.
    pub fn move_into<L: Layout>(
        mut self,
        targets: &mut [&mut Segment],
        pick: impl Fn(u64) -> usize,
    ) {
        for at in 0..self.index.len() {
            for way in 0..WAYS {
                if self.index[at].tags[way] == 0 {
                    continue;
                }
                let offset = self.index[at].offsets[way];
                let bytes = self.bytes(offset);
                let (hash, expires) = (hash_of(L::key(bytes)), L::expires(bytes));
                let target = &mut *targets[pick(hash)];
                target.make_way::<L>().expect("a segment takes the entries of one");
                let offset = if offset >= LARGE {
                    let large = self.large.as_mut().expect("there are such entries");
                    target.adopt(std::mem::take(&mut large.entries[usize::from(offset - LARGE)]))
                } else {
                    target.append_surely(&bytes[..L::len(bytes)])
                };
                target.expiring += u16::from(expires);
                target.link(hash, offset);
            }
        }
    }

    /// Visits the entries whose hash is `from` or more and that belong to the same bucket as `from`, and gives the
    /// first hash that belongs to a later one: 0 where the last segment ends.
    pub fn visit_from<L: Layout>(&self, from: u64, mut visit: impl FnMut(Place)) -> u64 {
        let (home, buckets) = (self.home(from), self.index.len());
        let mut at = home;
        for _ in 0..buckets {
            let bucket = &self.index[at];
            for way in (0..WAYS).filter(|&way| bucket.tags[way] != 0) {
                let offset = bucket.offsets[way];
                let hash = hash_of(L::key(self.bytes(offset)));
                if hash >= from && self.home(hash) == home {
                    visit(Place { bucket: at as u8, way: way as u8, offset });
                }
            }
            if bucket.passed == 0 {
                break;
            }
            at = self.next(at);
        }
        if home + 1 == buckets {
            return self.end(from);
        }
        let first =
            (((home as u64 + 1) << BUCKET_BITS).div_ceil(buckets as u64)) << (64 - BUCKET_BITS);
        self.start(from) | first >> self.depth
    }

    /// The first hash behind those of this segment, of which `hash` is one: 0 where there is none.
    pub fn end(&self, hash: u64) -> u64 {
        let last = self.start(hash) | u64::MAX.checked_shr(self.depth()).unwrap_or(0);
        last.wrapping_add(1)
    }

    fn start(&self, hash: u64) -> u64 {
        hash & !u64::MAX.checked_shr(self.depth()).unwrap_or(0)
    }

    /// All entries, by bucket.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.index.iter().enumerate().flat_map(|(at, bucket)| {
            (0..WAYS).filter(|&way| bucket.tags[way] != 0).map(move |way| Place {
                bucket: at as u8,
                way: way as u8,
                offset: bucket.offsets[way],
            })
        })
    }

    /// An entry picked at random, each as likely as any other. The segment has some.
    pub fn random(&self, random: &mut fastrand::Rng) -> Place {
        loop {
            let (at, way) = (random.usize(..self.index.len()), random.usize(..WAYS));
            let bucket = &self.index[at];
            if bucket.tags[way] != 0 {
                return Place { bucket: at as u8, way: way as u8, offset: bucket.offsets[way] };
            }
        }
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        let scaled = (hash << self.depth) >> (64 - BUCKET_BITS);
        ((scaled * self.index.len() as u64) >> BUCKET_BITS) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.index.len() { 0 } else { at + 1 }
    }

    /// Bytes of blocks that have been used.
    fn used(&self) -> usize {
        usize::from(self.block_count.saturating_sub(1)) * BLOCK + usize::from(self.fill)
    }

    /// Sees to it that the index takes another entry; `None` where it cannot.
    fn make_way<L: Layout>(&mut self) -> Option<()> {
        let buckets = self.index.len();
        if self.len() < room(buckets) {
            return Some(());
        }
        if buckets == MAX_BUCKETS {
            return None;
        }
        let more = (buckets + (buckets / 2).max(1)).min(MAX_BUCKETS);
        let old = std::mem::replace(&mut self.index, vec![Bucket::EMPTY; more].into());
        self.count = 0;
        for bucket in &old {
            for way in (0..WAYS).filter(|&way| bucket.tags[way] != 0) {
                let offset = bucket.offsets[way];
                self.link(hash_of(L::key(self.bytes(offset))), offset);
            }
        }
        Some(())
    }

    /// Enters an entry in the index, which has room.
    fn link(&mut self, hash: u64, offset: u16) -> Place {
        let mut at = self.home(hash);
        loop {
            let free = self.index[at].matches(0);
            if free != 0 {
                let way = free.trailing_zeros() as usize;
                self.index[at].tags[way] = tag_of(hash);
                self.index[at].offsets[way] = offset;
                self.count += 1;
                return Place { bucket: at as u8, way: way as u8, offset };
            }
            self.index[at].passed = self.index[at].passed.saturating_add(1);
            at = self.next(at);
        }
    }

    /// Writes an entry where there is room.
    fn append(&mut self, parts: &[&[u8]]) -> Option<u16> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > LONGEST {
            let mut entry = vec![0; len].into_boxed_slice();
            write(&mut entry, parts);
            return Some(self.adopt(entry));
        }
        if self.block_count == 0 || usize::from(self.fill) + len > BLOCK {
            if usize::from(self.block_count) == BLOCKS {
                return None;
            }
            let block = vec![0; BLOCK].into_boxed_slice().try_into();
            self.blocks[usize::from(self.block_count)] = Some(block.expect("it has that size"));
            self.block_count += 1;
            self.fill = 0;
        }
        let offset = join(usize::from(self.block_count) - 1, usize::from(self.fill));
        self.fill += len as u16;
        write(self.bytes_mut(offset), parts);
        Some(offset)
    }

    /// The same where the order of entries may have it that blocks which held them do not: then in memory of its own.
    fn append_surely(&mut self, entry: &[u8]) -> u16 {
        self.append(&[entry]).unwrap_or_else(|| self.adopt(entry.into()))
    }

    fn adopt(&mut self, entry: Box<[u8]>) -> u16 {
        let large = self.large.get_or_insert_default();
        large.bytes += entry.len() + LARGE_EXTRA;
        let free = large.entries.iter().position(|entry| entry.is_empty());
        let number = free.unwrap_or(large.entries.len());
        if number == large.entries.len() {
            large.entries.push(entry);
        } else {
            large.entries[number] = entry;
        }
        LARGE + number as u16
    }

    /// Frees the memory of an entry.
    fn discard(&mut self, offset: u16, len: usize) {
        if offset < LARGE {
            self.garbage += len as u16;
            return;
        }
        let large = self.large.as_mut().expect("there are such entries");
        large.bytes -= len + LARGE_EXTRA;
        large.entries[usize::from(offset - LARGE)] = Box::default();
    }

    fn tidied<L: Layout>(&mut self, place: Place) -> Place {
        if self.is_wasteful() {
            self.compact::<L>();
        }
        let offset = self.index[usize::from(place.bucket)].offsets[usize::from(place.way)];
        Place { offset, ..place }
    }
}

/// What an entry with memory of its own takes besides.
const LARGE_EXTRA: usize = size_of::<Box<[u8]>>() + 16;

/// How many entries an index takes.
fn room(buckets: usize) -> usize {
    buckets * WAYS * 7 / 8
}

fn split(offset: u16) -> (usize, usize) {
    (usize::from(offset >> 11), usize::from(offset & 0x7ff))
}

fn join(block: usize, at: usize) -> u16 {
    (block << 11 | at) as u16
}

#[inline]
fn write(to: &mut [u8], parts: &[&[u8]]) {
    let mut at = 0;
    for part in parts {
        to[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
}
