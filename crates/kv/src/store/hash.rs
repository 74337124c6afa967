//! Hashes: fields and their values.

use std::collections::HashMap;

use super::Limits;

/// A hash.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    fields: HashMap<Vec<u8>, Vec<u8>>,
    large: bool,
}

impl Hash {
    /// A hash without fields.
    pub fn new() -> Hash {
        Hash::default()
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields.get(field).map(|value| &value[..])
    }

    /// Sets a field; whether it is new.
    pub fn insert(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        let longest = field.len().max(value.len());
        let new = self.fields.insert(field.to_vec(), value.to_vec()).is_none();
        self.large |= longest > limits.hash_max_listpack_value
            || self.fields.len() > limits.hash_max_listpack_entries;
        new
    }

    /// Removes a field; whether there was one.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        self.fields.remove(field).is_some()
    }

    /// All fields and their values, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(field, value)| (&field[..], &value[..]))
    }

    /// A field picked at random, each as likely as any other.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<(&[u8], &[u8])> {
        self.iter().nth(random.usize(..self.len().max(1)))
    }

    /// Visits about `count` fields from `cursor` on and gives the cursor to go on with, 0 at the end. A field
    /// that is there from the first to the last call is visited at least once.
    pub fn scan(&self, _cursor: u64, _count: usize, mut visit: impl FnMut(&[u8], &[u8])) -> u64 {
        self.iter().for_each(|(field, value)| visit(field, value));
        0
    }

    /// `listpack` or `hashtable`.
    pub fn encoding(&self) -> &'static str {
        if self.large { "hashtable" } else { "listpack" }
    }

    /// The memory of the hash, in bytes, about.
    pub fn memory(&self) -> usize {
        self.iter().map(|(field, value)| field.len() + value.len() + 48).sum()
    }
}
