//! Hashes: fields and their values.
//!
//! A small one is a packed sequence, a larger one a table. What `OBJECT ENCODING` says goes by the limits that are
//! configured, and only ever changes to the larger; how the hash is kept goes by what is fast.

use super::layout::{Layout, Len, Pair};
use super::packed::{Packed, is_small};
use super::table::Table;
use super::{Limits, hash_of};

/// A hash.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    fields: Fields,
    large: bool,
}

#[derive(Clone, Debug)]
enum Fields {
    Packed(Packed<Pair>),
    Table(Box<Table<Pair>>),
}

impl Default for Fields {
    fn default() -> Fields {
        Fields::Packed(Packed::default())
    }
}

impl Hash {
    /// A hash without fields.
    pub fn new() -> Hash {
        Hash::default()
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        match &self.fields {
            Fields::Packed(packed) => packed.len(),
            Fields::Table(table) => table.len(),
        }
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        let entry = match &self.fields {
            Fields::Packed(packed) => packed.entry(packed.find(field)?),
            Fields::Table(table) => table.entry(table.find(hash_of(field), field)?),
        };
        Some(Pair::value(entry))
    }

    /// Sets a field; whether it is new.
    pub fn insert(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        let (field_len, value_len) = (Len::of(field.len()), Len::of(value.len()));
        let parts = [&field_len[..], field, &value_len, value];
        if let Fields::Packed(packed) = &self.fields
            && !is_small(packed.len() + 1, packed.used() + field.len() + value.len())
        {
            self.become_table();
        }
        let new = match &mut self.fields {
            Fields::Packed(packed) => match packed.find(field) {
                Some(offset) => {
                    packed.replace(offset, &parts);
                    false
                }
                None => {
                    packed.push(&parts);
                    true
                }
            },
            Fields::Table(table) => {
                let hash = hash_of(field);
                match table.find(hash, field) {
                    Some(slot) => {
                        table.replace(hash, slot, &parts);
                        false
                    }
                    None => {
                        table.insert(hash, &parts);
                        true
                    }
                }
            }
        };
        self.large |= field.len().max(value.len()) > limits.hash_max_listpack_value
            || self.len() > limits.hash_max_listpack_entries;
        new
    }

    /// Removes a field; whether there was one.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.fields {
            Fields::Packed(packed) => match packed.find(field) {
                Some(offset) => packed.remove(offset),
                None => return false,
            },
            Fields::Table(table) => {
                let hash = hash_of(field);
                match table.find(hash, field) {
                    Some(slot) => table.remove(hash, slot),
                    None => return false,
                }
            }
        }
        true
    }

    /// All fields and their values: of a small hash in the order they were first set, else in no promised one.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (packed, table) = match &self.fields {
            Fields::Packed(packed) => (Some(packed.iter()), None),
            Fields::Table(table) => (None, Some(table.iter())),
        };
        packed.into_iter().flatten().chain(table.into_iter().flatten()).map(pair)
    }

    /// A field picked at random, each as likely as any other.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<(&[u8], &[u8])> {
        match &self.fields {
            Fields::Packed(packed) => packed.iter().nth(random.usize(..packed.len().max(1))),
            Fields::Table(table) => table.random(random).map(|slot| table.entry(slot)),
        }
        .map(pair)
    }

    /// Visits about `count` fields from `cursor` on and gives the cursor to go on with, 0 at the end. A field
    /// that is there from the first to the last call is visited at least once.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], &[u8])) -> u64 {
        match &self.fields {
            Fields::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            Fields::Table(table) => table.scan(cursor, count, |slot| {
                let (field, value) = pair(table.entry(slot));
                visit(field, value);
            }),
        }
    }

    /// `listpack` or `hashtable`.
    pub fn encoding(&self) -> &'static str {
        if self.large { "hashtable" } else { "listpack" }
    }

    /// The memory of the hash, in bytes, about.
    pub fn memory(&self) -> usize {
        match &self.fields {
            Fields::Packed(packed) => packed.memory(),
            Fields::Table(table) => size_of::<Table<Pair>>() + table.memory(),
        }
    }

    fn become_table(&mut self) {
        if let Fields::Packed(packed) = &self.fields {
            let mut table = Box::<Table<Pair>>::default();
            packed.iter().for_each(|entry| _ = table.insert(hash_of(Pair::key(entry)), &[entry]));
            self.fields = Fields::Table(table);
        }
    }
}

fn pair(entry: &[u8]) -> (&[u8], &[u8]) {
    (Pair::key(entry), Pair::value(entry))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_hash_holds_what_a_map_would() {
        let mut random = fastrand::Rng::with_seed(5);
        let limits = Limits::default();
        for fields in [20, 200, 3000] {
            let (mut hash, mut model) = (Hash::new(), HashMap::<Vec<u8>, Vec<u8>>::new());
            for _ in 0..fields * 5 {
                let field = format!("field{}", random.u32(..fields)).into_bytes();
                if random.u8(..3) == 0 {
                    assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                } else {
                    let longest = if random.u8(..9) == 0 { 900 } else { 30 };
                    let value = vec![b'v'; random.usize(..longest)];
                    let new = hash.insert(&field, &value, &limits);
                    assert_eq!(new, model.insert(field.clone(), value).is_none());
                }
                assert_eq!(hash.get(&field), model.get(&field).map(|value| &value[..]));
                assert_eq!(hash.len(), model.len());
            }
            let all: HashMap<Vec<u8>, Vec<u8>> =
                hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
            assert_eq!(all, model);
            let (mut scanned, mut cursor) = (HashMap::new(), 0);
            loop {
                cursor = hash.scan(cursor, 10, |field, value| {
                    scanned.insert(field.to_vec(), value.to_vec());
                });
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(scanned, model);
            let (field, value) = hash.random(&mut random).expect("it has fields");
            assert_eq!(model.get(field).map(|value| &value[..]), Some(value));
            assert!(hash.memory() > model.values().map(Vec::len).sum());
        }
    }

    #[test]
    fn an_encoding_changes_once_and_for_good() {
        let limits = Limits { hash_max_listpack_entries: 3, ..Limits::default() };
        let mut hash = Hash::new();
        for field in [b"a", b"b", b"c"] {
            hash.insert(field, b"1", &limits);
        }
        assert_eq!(hash.encoding(), "listpack");
        hash.insert(b"d", b"1", &limits);
        assert_eq!(hash.encoding(), "hashtable");
        [b"a", b"b", b"c"].iter().for_each(|field| assert!(hash.remove(&field[..])));
        assert_eq!(hash.encoding(), "hashtable");
        let mut hash = Hash::new();
        hash.insert(b"a", &[b'x'; 64], &limits);
        assert_eq!(hash.encoding(), "listpack");
        hash.insert(b"a", &[b'x'; 65], &limits);
        assert_eq!(hash.encoding(), "hashtable");
    }
}
