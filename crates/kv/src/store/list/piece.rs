//! A piece of a list: elements one after the other, that can be walked both ways.
//!
//! An element is its length, its bytes, and the length of both, written backwards so that it can be read from its
//! end. There may be room before the first element and behind the last.

use super::super::layout::{Len, read_len};

/// A piece.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    bytes: Vec<u8>,
    /// Where the first element begins.
    start: u32,
    count: u32,
}

impl Piece {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// The bytes of all elements.
    pub fn used(&self) -> usize {
        self.bytes.len() - self.start()
    }

    /// The bytes that an element takes.
    pub fn cost(element: &[u8]) -> usize {
        let body = Len::of(element.len()).len() + element.len();
        body + Len::of(body).len()
    }

    /// The memory of the piece, in bytes.
    pub fn memory(&self) -> usize {
        if self.bytes.capacity() == 0 { 0 } else { self.bytes.capacity() + 8 }
    }

    /// Where the first element begins.
    pub fn start(&self) -> usize {
        self.start as usize
    }

    /// Where the last element ends.
    pub fn end(&self) -> usize {
        self.bytes.len()
    }

    /// The element that begins at an offset, and where it ends.
    pub fn behind(&self, at: usize) -> (&[u8], usize) {
        let (len, head) = read_len(&self.bytes[at..]);
        let body = head + len;
        (&self.bytes[at + head..at + body], at + body + Len::of(body).len())
    }

    /// The element that ends at an offset, and where it begins.
    pub fn before(&self, end: usize) -> (&[u8], usize) {
        let (mut body, mut width) = (0, 0);
        loop {
            let byte = self.bytes[end - 1 - width];
            body |= usize::from(byte & 0x7f) << (7 * width);
            width += 1;
            if byte < 0x80 {
                break;
            }
        }
        let at = end - width - body;
        (self.behind(at).0, at)
    }

    /// Where the element at `index` begins; of the index behind the last one, where that ends.
    pub fn offset(&self, index: usize) -> usize {
        if index <= self.len() / 2 {
            (0..index).fold(self.start(), |at, _| self.behind(at).1)
        } else {
            (index..self.len()).fold(self.end(), |at, _| self.before(at).1)
        }
    }

    /// The element at `index`, which is there.
    pub fn get(&self, index: usize) -> &[u8] {
        self.behind(self.offset(index)).0
    }

    pub fn push_back(&mut self, element: &[u8]) {
        self.reserve(Piece::cost(element));
        let body = Len::of(element.len());
        self.bytes.extend_from_slice(&body);
        self.bytes.extend_from_slice(element);
        self.bytes.extend(Len::of(body.len() + element.len()).iter().rev());
        self.count += 1;
    }

    pub fn push_front(&mut self, element: &[u8]) {
        let cost = Piece::cost(element);
        if self.start() < cost {
            let room = cost.max(self.used() / 4) - self.start();
            self.make_room(self.start(), room);
            self.start += room as u32;
        }
        self.start -= cost as u32;
        let at = self.start();
        self.write(at, element);
        self.count += 1;
    }

    pub fn pop_back(&mut self) -> Vec<u8> {
        let (element, at) = self.before(self.end());
        let element = element.to_vec();
        self.bytes.truncate(at);
        self.count -= 1;
        element
    }

    pub fn pop_front(&mut self) -> Vec<u8> {
        let (element, end) = self.behind(self.start());
        let element = element.to_vec();
        self.start = end as u32;
        self.count -= 1;
        element
    }

    /// Inserts an element, which gets `index`.
    pub fn insert(&mut self, index: usize, element: &[u8]) {
        let at = self.offset(index);
        self.make_room(at, Piece::cost(element));
        self.write(at, element);
        self.count += 1;
    }

    /// Replaces the element at `index`.
    pub fn replace(&mut self, index: usize, element: &[u8]) {
        let at = self.offset(index);
        let (old, new) = (self.behind(at).1 - at, Piece::cost(element));
        if new > old {
            self.make_room(at, new - old);
        } else {
            self.bytes.drain(at..at + old - new);
        }
        self.write(at, element);
    }

    /// Removes `count` elements from `index` on.
    pub fn remove(&mut self, index: usize, count: usize) {
        let at = self.offset(index);
        let end = (0..count).fold(at, |at, _| self.behind(at).1);
        self.bytes.drain(at..end);
        self.count -= count as u32;
    }

    /// Takes the elements from `index` on out.
    pub fn split_off(&mut self, index: usize) -> Piece {
        let at = self.offset(index);
        let right =
            Piece { bytes: self.bytes[at..].to_vec(), start: 0, count: self.count - index as u32 };
        self.bytes.truncate(at);
        self.count = index as u32;
        self.fit();
        right
    }

    /// Adds the elements of another piece.
    pub fn append(&mut self, other: &Piece) {
        self.reserve(other.used());
        self.bytes.extend_from_slice(&other.bytes[other.start()..]);
        self.count += other.count;
    }

    /// Gives back room that no element has.
    pub fn fit(&mut self) {
        self.bytes.drain(..self.start());
        self.start = 0;
        self.bytes.shrink_to_fit();
    }

    /// Room for `more` bytes at the end, and some, but not twice as much.
    fn reserve(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() < more {
            self.bytes.reserve_exact(more.max(self.used() / 4));
        }
    }

    /// Moves what begins at an offset by `room` bytes.
    fn make_room(&mut self, at: usize, room: usize) {
        self.reserve(room);
        let end = self.end();
        self.bytes.resize(end + room, 0);
        self.bytes.copy_within(at..end, at + room);
    }

    fn write(&mut self, mut at: usize, element: &[u8]) {
        let head = Len::of(element.len());
        let mut back = Len::of(head.len() + element.len());
        back.reverse();
        for part in [&head[..], element, &back] {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }
}
