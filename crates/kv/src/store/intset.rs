//! Integers in order, as wide as the widest needs to be.

/// A set of integers.
#[derive(Clone, Debug)]
pub struct IntSet {
    bytes: Vec<u8>,
    /// Bytes of each: 2, 4 or 8.
    width: u8,
}

impl Default for IntSet {
    fn default() -> IntSet {
        IntSet { bytes: Vec::new(), width: 2 }
    }
}

impl IntSet {
    /// The number of integers.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.width()
    }

    /// The memory that is used, in bytes.
    pub fn memory(&self) -> usize {
        if self.bytes.capacity() == 0 { 0 } else { self.bytes.capacity() + 8 }
    }

    /// The integer at an index, in order.
    pub fn get(&self, index: usize) -> i64 {
        let at = &self.bytes[index * self.width()..];
        match self.width {
            2 => i64::from(i16::from_le_bytes([at[0], at[1]])),
            4 => i64::from(i32::from_le_bytes([at[0], at[1], at[2], at[3]])),
            _ => i64::from_le_bytes(at[..8].try_into().expect("eight bytes are eight bytes")),
        }
    }

    /// All integers, in order.
    pub fn iter(&self) -> impl Iterator<Item = i64> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Whether an integer is in the set.
    pub fn contains(&self, value: i64) -> bool {
        self.search(value).is_ok()
    }

    /// Adds an integer; whether it is new.
    pub fn insert(&mut self, value: i64) -> bool {
        let Err(index) = self.search(value) else {
            return false;
        };
        let width = width_of(value);
        if width > self.width {
            let mut wider = Vec::with_capacity((self.len() + 1) * usize::from(width));
            self.iter().for_each(|value| wider.extend(&value.to_le_bytes()[..usize::from(width)]));
            self.bytes = wider;
            self.width = width;
        }
        let (at, width, end) = (index * self.width(), self.width(), self.bytes.len());
        if self.bytes.capacity() - end < width {
            self.bytes.reserve_exact(width.max(end / 8));
        }
        self.bytes.resize(end + width, 0);
        self.bytes.copy_within(at..end, at + width);
        self.bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        true
    }

    /// Removes an integer; whether it was there.
    pub fn remove(&mut self, value: i64) -> bool {
        let Ok(index) = self.search(value) else {
            return false;
        };
        let at = index * self.width();
        self.bytes.drain(at..at + self.width());
        true
    }

    fn width(&self) -> usize {
        usize::from(self.width)
    }

    /// The index of an integer, or the one it would get.
    fn search(&self, value: i64) -> Result<usize, usize> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.get(middle).cmp(&value) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        Err(from)
    }
}

fn width_of(value: i64) -> u8 {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}
