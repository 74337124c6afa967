//! Lists.

use std::collections::VecDeque;

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
    elements: VecDeque<Vec<u8>>,
}

impl List {
    /// An empty list.
    pub fn new() -> List {
        List::default()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Adds an element at an end.
    pub fn push(&mut self, side: Side, element: &[u8], _limits: &Limits) {
        match side {
            Side::Left => self.elements.push_front(element.to_vec()),
            Side::Right => self.elements.push_back(element.to_vec()),
        }
    }

    /// Takes the element at an end.
    pub fn pop(&mut self, side: Side) -> Option<Vec<u8>> {
        match side {
            Side::Left => self.elements.pop_front(),
            Side::Right => self.elements.pop_back(),
        }
    }

    /// The element at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.elements.get(index).map(|element| &element[..])
    }

    /// Replaces the element at `index`; whether there is one.
    pub fn set(&mut self, index: usize, element: &[u8], _limits: &Limits) -> bool {
        match self.elements.get_mut(index) {
            Some(old) => {
                *old = element.to_vec();
                true
            }
            None => false,
        }
    }

    /// Inserts an element, which gets `index`, at most `len`.
    pub fn insert(&mut self, index: usize, element: &[u8], _limits: &Limits) {
        self.elements.insert(index, element.to_vec());
    }

    /// Removes `count` elements from `index` on, as many as there are.
    pub fn remove_range(&mut self, index: usize, count: usize) {
        let from = index.min(self.len());
        let to = index.saturating_add(count).min(self.len());
        self.elements.drain(from..to);
    }

    /// The elements from `index` on, to the tail.
    pub fn iter_from(&self, index: usize) -> Elements<'_> {
        Elements { list: self, next: index as i64, step: 1 }
    }

    /// The elements from `index` on, to the head; none where there is no such index.
    pub fn iter_back_from(&self, index: usize) -> Elements<'_> {
        Elements { list: self, next: index as i64, step: -1 }
    }

    /// The memory of the list, in bytes, about.
    pub fn memory(&self) -> usize {
        self.elements.iter().map(|element| element.len() + 24).sum()
    }
}

/// Elements of a list, in one direction.
#[derive(Debug)]
pub struct Elements<'a> {
    list: &'a List,
    next: i64,
    step: i64,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let element = self.list.get(usize::try_from(self.next).ok()?)?;
        self.next += self.step;
        Some(element)
    }
}
