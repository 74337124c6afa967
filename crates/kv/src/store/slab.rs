//! Places for values that keep their number, in chunks: growing moves none of them.

/// Values by number. Grows by a chunk at a time, so that it never copies what it holds.
#[derive(Clone, Debug)]
pub struct Slab<T, const CHUNK: usize> {
    chunks: Vec<Vec<Cell<T>>>,
    /// The first free place, or [`NONE`].
    free: u32,
    len: usize,
}

#[derive(Clone, Debug)]
enum Cell<T> {
    Used(T),
    /// Free; the next free place.
    Free(u32),
}

const NONE: u32 = u32::MAX;

impl<T, const CHUNK: usize> Default for Slab<T, CHUNK> {
    fn default() -> Slab<T, CHUNK> {
        Slab { chunks: Vec::new(), free: NONE, len: 0 }
    }
}

impl<T, const CHUNK: usize> Slab<T, CHUNK> {
    /// Puts a value somewhere.
    pub fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free != NONE {
            let at = self.free;
            let cell = self.cell(at);
            let Cell::Free(next) = std::mem::replace(cell, Cell::Used(value)) else {
                unreachable!("the list of free places holds free places");
            };
            self.free = next;
            return at;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first chunk grows as it must, so that a small slab is small.
            let capacity = if self.chunks.is_empty() { 1 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let chunk = self.chunks.len() - 1;
        let last = &mut self.chunks[chunk];
        last.push(Cell::Used(value));
        (chunk * CHUNK + last.len() - 1) as u32
    }

    /// Takes a value out.
    pub fn remove(&mut self, at: u32) -> T {
        let free = self.free;
        let Cell::Used(value) = std::mem::replace(self.cell(at), Cell::Free(free)) else {
            panic!("no value has the number {at}");
        };
        self.free = at;
        self.len -= 1;
        value
    }

    /// The bytes of the places, used or free.
    pub fn memory(&self) -> usize {
        match self.chunks.split_last() {
            Some((last, full)) => {
                (full.len() * CHUNK + last.capacity()) * size_of::<Cell<T>>()
                    + self.chunks.capacity() * size_of::<Vec<Cell<T>>>()
            }
            None => 0,
        }
    }

    /// All values.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().flatten().enumerate().filter_map(|(at, cell)| match cell {
            Cell::Used(value) => Some((at as u32, value)),
            Cell::Free(_) => None,
        })
    }

    /// Drops up to `count` values, in no order; whether any may be left. Afterwards only this may be called.
    pub fn drop_some(&mut self, count: usize) -> bool {
        self.free = NONE;
        for _ in 0..count {
            while let Some(chunk) = self.chunks.last_mut() {
                match chunk.pop() {
                    Some(Cell::Used(value)) => {
                        drop(value);
                        break;
                    }
                    Some(Cell::Free(_)) => {}
                    None => drop(self.chunks.pop()),
                }
            }
        }
        !self.chunks.is_empty()
    }

    fn cell(&mut self, at: u32) -> &mut Cell<T> {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }
}

impl<T, const CHUNK: usize> std::ops::Index<u32> for Slab<T, CHUNK> {
    type Output = T;

    #[inline]
    fn index(&self, at: u32) -> &T {
        match &self.chunks[at as usize / CHUNK][at as usize % CHUNK] {
            Cell::Used(value) => value,
            Cell::Free(_) => panic!("no value has the number {at}"),
        }
    }
}

impl<T, const CHUNK: usize> std::ops::IndexMut<u32> for Slab<T, CHUNK> {
    #[inline]
    fn index_mut(&mut self, at: u32) -> &mut T {
        match self.cell(at) {
            Cell::Used(value) => value,
            Cell::Free(_) => panic!("no value has the number {at}"),
        }
    }
}
