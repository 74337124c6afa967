//! Checksums of data: the same for the same data, in whatever order and encoding it lies.
//!
//! They are those of one build, not those of Redis.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use crate::store::{DBS, Keys, ValueRef};

/// A checksum of 160 bits; that of nothing is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest([u64; 3]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}{:08x}", self.0[0], self.0[1], self.0[2] as u32)
    }
}

impl Digest {
    /// That of words in order.
    fn of(words: &[&[u8]]) -> Digest {
        let mut digest = Digest::default();
        for (seed, part) in digest.0.iter_mut().enumerate() {
            let seed = seed as u64;
            let state = ahash::RandomState::with_seeds(seed, 1, 2, 3);
            let mut hasher = state.build_hasher();
            for word in words {
                hasher.write_u64(word.len() as u64);
                hasher.write(word);
            }
            *part = hasher.finish();
        }
        digest
    }

    /// Adds one to a collection without order.
    fn add(&mut self, other: Digest) {
        for (part, other) in self.0.iter_mut().zip(other.0) {
            *part = part.wrapping_add(other);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|part| part.to_le_bytes()).collect()
    }
}

/// That of a value.
pub(super) fn of_value(value: ValueRef<'_>) -> Digest {
    let mut digest = Digest::default();
    match value {
        ValueRef::Str(string) => digest = string.with(|bytes| Digest::of(&[b"string", bytes])),
        ValueRef::List(list) => {
            for element in list.iter_from(0) {
                digest = Digest::of(&[b"list", &digest.bytes(), element]);
            }
        }
        ValueRef::Set(set) => {
            for member in set.iter() {
                digest.add(Digest::of(&[b"set", &member[..]]));
            }
        }
        ValueRef::Hash(hash) => {
            hash.iter().for_each(|(field, value)| digest.add(Digest::of(&[b"hash", field, value])));
        }
        ValueRef::Zset(zset) => {
            for (member, score) in zset.iter_from(0) {
                digest.add(Digest::of(&[b"zset", member, &score.to_le_bytes()]));
            }
        }
    }
    digest
}

/// That of all databases of the shards at hand.
pub(super) fn of_all(keys: &mut Keys) -> Digest {
    let mut digest = Digest::default();
    let now_ms = keys.now_ms();
    for shard in keys.shards() {
        for db in 0..DBS {
            let table = &shard.dbs[db];
            let mut cursor = 0;
            loop {
                cursor = table.scan(cursor, 1000, |table, slot| {
                    let expires = table.expires_ms(slot);
                    if expires.is_some_and(|at| at <= now_ms) {
                        return;
                    }
                    let value = of_value(table.value(slot)).bytes();
                    let expiry: &[u8] = if expires.is_some() { b"expires" } else { b"" };
                    digest.add(Digest::of(&[&[db as u8], table.key(slot), &value, expiry]));
                });
                if cursor == 0 {
                    break;
                }
            }
        }
    }
    digest
}
