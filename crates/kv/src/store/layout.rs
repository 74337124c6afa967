//! How entries lie in memory: as bytes that tell their own length.
//!
//! An entry begins with the length of its key, as a number of one or more bytes, and the key; what follows is its
//! layout's business. Tables, packed sequences and leaves of trees hold such entries one after the other.

/// What a table has to know of its entries. The slices given may go on behind the entry.
pub trait Layout {
    /// The key.
    fn key(entry: &[u8]) -> &[u8];

    /// The length of the whole entry, in bytes.
    fn len(entry: &[u8]) -> usize;

    /// Whether the entry has a time of expiry, so that its segment is looked at for such.
    fn expires(_entry: &[u8]) -> bool {
        false
    }
}

/// A key alone: a member of a set.
#[derive(Clone, Copy, Debug)]
pub enum Plain {}

impl Layout for Plain {
    fn key(entry: &[u8]) -> &[u8] {
        sized(entry)
    }

    fn len(entry: &[u8]) -> usize {
        let (len, head) = read_len(entry);
        head + len
    }
}

/// A key and bytes: a field of a hash.
#[derive(Clone, Copy, Debug)]
pub enum Pair {}

impl Pair {
    /// The bytes behind the key.
    pub fn value(entry: &[u8]) -> &[u8] {
        sized(&entry[Plain::len(entry)..])
    }
}

impl Layout for Pair {
    fn key(entry: &[u8]) -> &[u8] {
        sized(entry)
    }

    fn len(entry: &[u8]) -> usize {
        let key = Plain::len(entry);
        key + Plain::len(&entry[key..])
    }
}

/// A key and a score: a member of a sorted set.
#[derive(Clone, Copy, Debug)]
pub enum Scored {}

impl Scored {
    /// The score behind the key.
    pub fn score(entry: &[u8]) -> f64 {
        f64::from_bits(read_u64(&entry[Plain::len(entry)..]))
    }
}

impl Layout for Scored {
    fn key(entry: &[u8]) -> &[u8] {
        sized(entry)
    }

    fn len(entry: &[u8]) -> usize {
        Plain::len(entry) + 8
    }
}

/// The length that `bytes` begins with, and how many bytes it takes.
#[inline]
pub fn read_len(bytes: &[u8]) -> (usize, usize) {
    let first = bytes[0];
    if first < 0x80 { (usize::from(first), 1) } else { read_long_len(bytes) }
}

#[cold]
fn read_long_len(bytes: &[u8]) -> (usize, usize) {
    let (mut len, mut at) = (0, 0);
    loop {
        len |= usize::from(bytes[at] & 0x7f) << (7 * at);
        at += 1;
        if bytes[at - 1] < 0x80 {
            return (len, at);
        }
    }
}

/// The bytes behind the length that `bytes` begins with.
#[inline]
pub fn sized(bytes: &[u8]) -> &[u8] {
    let (len, head) = read_len(bytes);
    &bytes[head..head + len]
}

/// The eight bytes that `bytes` begins with, as a number.
#[inline]
pub fn read_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes are eight bytes"))
}

/// A length as bytes.
#[derive(Clone, Copy, Debug)]
pub struct Len {
    bytes: [u8; 10],
    used: u8,
}

impl Len {
    /// The bytes of a length.
    #[inline]
    pub fn of(mut len: usize) -> Len {
        let mut bytes = [0; 10];
        let mut used = 0;
        while len >= 0x80 {
            bytes[used] = len as u8 | 0x80;
            len >>= 7;
            used += 1;
        }
        bytes[used] = len as u8;
        Len { bytes, used: used as u8 + 1 }
    }
}

impl std::ops::Deref for Len {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.used)]
    }
}

impl std::ops::DerefMut for Len {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.used)]
    }
}
