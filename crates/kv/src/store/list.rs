//! Lists: elements packed into pieces of some kilobytes.
//!
//! A piece that is full is followed by a new one; an element longer than a piece has one of its own. Both ends cost
//! the same however long the list is; an element in the middle is found by skipping pieces.
//!
//! Invariant: *no empty piece*, so that the first and last piece have the ends of the list.

mod piece;

use std::collections::VecDeque;

use self::piece::Piece;
use super::Limits;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The head: index 0.
    Left,
    /// The tail: index -1.
    Right,
}

/// A list of strings.
#[derive(Clone, Debug, Default)]
pub struct List {
    pieces: VecDeque<Piece>,
    len: usize,
    /// Bytes of all pieces.
    bytes: usize,
}

/// Bytes up to which pieces that have become neighbours, or small, are joined.
const JOINED: usize = 1024;

impl List {
    /// An empty list.
    pub fn new() -> List {
        List::default()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an element at an end.
    pub fn push(&mut self, side: Side, element: &[u8], limits: &Limits) {
        let last = self.pieces.len().saturating_sub(1);
        let at = if side == Side::Left { 0 } else { last };
        if !self.pieces.get(at).is_some_and(|piece| fits(piece, element, limits)) {
            if !self.pieces.is_empty() {
                // It will not grow any more, but for an insertion in its middle.
                self.change(at, Piece::fit);
            }
            match side {
                Side::Left => self.pieces.push_front(Piece::default()),
                Side::Right => self.pieces.push_back(Piece::default()),
            }
        }
        let at = if side == Side::Left { 0 } else { self.pieces.len() - 1 };
        self.change(at, |piece| match side {
            Side::Left => piece.push_front(element),
            Side::Right => piece.push_back(element),
        });
        self.len += 1;
    }

    /// Takes the element at an end.
    pub fn pop(&mut self, side: Side) -> Option<Vec<u8>> {
        let at = if side == Side::Left { 0 } else { self.pieces.len().checked_sub(1)? };
        let piece = self.pieces.get_mut(at)?;
        let element = match side {
            Side::Left => piece.pop_front(),
            Side::Right => piece.pop_back(),
        };
        self.len -= 1;
        self.drop_if_empty(at);
        Some(element)
    }

    /// The element at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (at, within) = self.locate(index)?;
        Some(self.pieces[at].get(within))
    }

    /// Replaces the element at `index`; whether there is one.
    pub fn set(&mut self, index: usize, element: &[u8], limits: &Limits) -> bool {
        let Some((at, within)) = self.locate(index) else {
            return false;
        };
        let old = self.pieces[at].get(within).len();
        let piece = &self.pieces[at];
        if element.len() <= old || piece.len() == 1 || fits(piece, element, limits) {
            self.change(at, |piece| piece.replace(within, element));
        } else {
            self.remove_range(index, 1);
            self.insert(index, element, limits);
        }
        true
    }

    /// Inserts an element, which gets `index`, at most `len`.
    pub fn insert(&mut self, index: usize, element: &[u8], limits: &Limits) {
        if index == 0 {
            return self.push(Side::Left, element, limits);
        }
        let Some((at, within)) = self.locate(index) else {
            return self.push(Side::Right, element, limits);
        };
        self.len += 1;
        if fits(&self.pieces[at], element, limits) {
            return self.change(at, |piece| piece.insert(within, element));
        }
        if within > 0 {
            let mut right = Piece::default();
            self.change(at, |piece| right = piece.split_off(within));
            self.bytes += right.memory();
            self.pieces.insert(at + 1, right);
        }
        // The element's place is now between two pieces: behind this one, and before the next.
        let before = if within > 0 { Some(at) } else { at.checked_sub(1) };
        let next = before.map_or(0, |before| before + 1);
        if let Some(before) = before.filter(|&at| fits(&self.pieces[at], element, limits)) {
            self.change(before, |piece| piece.push_back(element));
        } else if fits(&self.pieces[next], element, limits) {
            self.change(next, |piece| piece.push_front(element));
        } else {
            self.pieces.insert(next, Piece::default());
            self.change(next, |piece| piece.push_back(element));
        }
    }

    /// Removes `count` elements from `index` on, as many as there are.
    pub fn remove_range(&mut self, index: usize, count: usize) {
        let mut left = count.min(self.len.saturating_sub(index));
        let Some((mut at, mut within)) = self.locate(index).filter(|_| left > 0) else {
            return;
        };
        self.len -= left;
        let first = at;
        while left > 0 {
            let here = left.min(self.pieces[at].len() - within);
            left -= here;
            if here == self.pieces[at].len() {
                // All whole pieces at once, as each removal may move the others.
                let mut whole = 1;
                while let Some(piece) = self.pieces.get(at + whole)
                    && piece.len() <= left
                {
                    left -= piece.len();
                    whole += 1;
                }
                self.bytes -=
                    self.pieces.drain(at..at + whole).map(|piece| piece.memory()).sum::<usize>();
            } else {
                self.change(at, |piece| piece.remove(within, here));
                at += 1;
            }
            within = 0;
        }
        self.join(first);
        if let Some(before) = first.checked_sub(1) {
            self.join(before);
        }
    }

    /// The elements from `index` on, to the tail.
    pub fn iter_from(&self, index: usize) -> Elements<'_> {
        match self.locate(index) {
            Some((piece, within)) => {
                Elements { list: self, piece, at: self.pieces[piece].offset(within), back: false }
            }
            None => Elements { list: self, piece: self.pieces.len(), at: 0, back: false },
        }
    }

    /// The elements from `index` on, to the head; none where there is no such index.
    pub fn iter_back_from(&self, index: usize) -> Elements<'_> {
        match self.locate(index) {
            Some((piece, within)) => Elements {
                list: self,
                piece,
                at: self.pieces[piece].offset(within + 1),
                back: true,
            },
            None => Elements { list: self, piece: self.pieces.len(), at: 0, back: true },
        }
    }

    /// The memory of the list, in bytes, about.
    pub fn memory(&self) -> usize {
        self.bytes + self.pieces.capacity() * size_of::<Piece>()
    }

    /// The piece that has the element at `index`, and the element's index in it.
    fn locate(&self, index: usize) -> Option<(usize, usize)> {
        if index >= self.len {
            return None;
        }
        if index < self.len / 2 {
            let mut within = index;
            for (at, piece) in self.pieces.iter().enumerate() {
                if within < piece.len() {
                    return Some((at, within));
                }
                within -= piece.len();
            }
        } else {
            let mut behind = self.len - index;
            for (at, piece) in self.pieces.iter().enumerate().rev() {
                if behind <= piece.len() {
                    return Some((at, piece.len() - behind));
                }
                behind -= piece.len();
            }
        }
        unreachable!("the pieces have all elements")
    }

    /// Changes a piece, and counts its bytes.
    fn change(&mut self, at: usize, f: impl FnOnce(&mut Piece)) {
        let piece = &mut self.pieces[at];
        let before = piece.memory();
        f(piece);
        self.bytes = self.bytes + piece.memory() - before;
    }

    fn drop_if_empty(&mut self, at: usize) {
        if self.pieces[at].len() == 0 {
            let piece = self.pieces.remove(at).expect("it is there");
            self.bytes -= piece.memory();
        }
    }

    /// Joins a piece with the next one where both are small.
    fn join(&mut self, at: usize) {
        let (Some(one), Some(two)) = (self.pieces.get(at), self.pieces.get(at + 1)) else {
            return;
        };
        if one.used() + two.used() > JOINED {
            return;
        }
        let two = self.pieces.remove(at + 1).expect("it is there");
        self.bytes -= two.memory();
        self.change(at, |piece| piece.append(&two));
    }
}

/// Whether a piece takes another element.
fn fits(piece: &Piece, element: &[u8], limits: &Limits) -> bool {
    const LARGEST: usize = 8192;
    let (elements, bytes) = match limits.list_max_listpack_size {
        count if count >= 0 => (count.max(1) as usize, LARGEST),
        size => (usize::MAX, 4096 << (size.max(-5) + 1).unsigned_abs()),
    };
    piece.len() < elements && piece.used() + Piece::cost(element) <= bytes
}

/// Elements of a list, in one direction.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    list: &'a List,
    piece: usize,
    /// Where in the piece the next element begins or, backwards, ends.
    at: usize,
    back: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let pieces = &self.list.pieces;
        let mut piece = pieces.get(self.piece)?;
        if self.back {
            if self.at == piece.start() {
                self.piece = self.piece.checked_sub(1).unwrap_or(usize::MAX);
                piece = pieces.get(self.piece)?;
                self.at = piece.end();
            }
            let (element, at) = piece.before(self.at);
            self.at = at;
            return Some(element);
        }
        if self.at == piece.end() {
            self.piece += 1;
            piece = pieces.get(self.piece)?;
            self.at = piece.start();
        }
        let (element, at) = piece.behind(self.at);
        self.at = at;
        Some(element)
    }
}

#[cfg(test)]
mod tests;
