//! One database of a shard: keys, their values, times of expiry and of use.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Hash, List, Set, Value, ValueRef, Zset};

/// When, or how often, a key was used: 24 bits, whose meaning `maxmemory-policy` decides.
pub type Access = u32;

/// Where a key lies. Good until the database is changed by anything but [`Db::set_access`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    value: Value,
    expires_ms: Option<u64>,
    access: Access,
    epoch: bool,
}

/// A database.
#[derive(Debug, Default)]
pub struct Db {
    index: HashMap<Vec<u8>, usize>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    expiring: usize,
    epoch: bool,
}

impl Db {
    /// An empty database.
    pub fn new() -> Db {
        Db::default()
    }

    /// The number of keys, expired ones that were not removed yet among them.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The number of keys that expire.
    pub fn expiring(&self) -> usize {
        self.expiring
    }

    /// Where a key lies, if it is there.
    pub fn find(&self, key: &[u8]) -> Option<Slot> {
        self.index.get(key).map(|&at| Slot(at))
    }

    /// The key that lies there.
    pub fn key(&self, slot: Slot) -> &[u8] {
        &self.entry(slot).key
    }

    /// The value that lies there.
    pub fn value(&self, slot: Slot) -> ValueRef<'_> {
        self.entry(slot).value.as_ref()
    }

    /// When the key expires, in milliseconds since 1970.
    pub fn expires_ms(&self, slot: Slot) -> Option<u64> {
        self.entry(slot).expires_ms
    }

    /// When or how often the key was used.
    pub fn access(&self, slot: Slot) -> Access {
        self.entry(slot).access
    }

    /// Notes when or how often the key was used.
    pub fn set_access(&mut self, slot: Slot, access: Access) {
        self.entry_mut(slot).access = access;
    }

    /// The epoch that the key carries.
    pub fn epoch(&self, slot: Slot) -> bool {
        self.entry(slot).epoch
    }

    /// Sets the epoch that the key carries. The slot stays good.
    pub fn set_epoch(&mut self, slot: Slot, epoch: bool) {
        self.entry_mut(slot).epoch = epoch;
    }

    /// The epoch that new keys get. A key that is replaced keeps its own.
    pub fn new_epoch(&self) -> bool {
        self.epoch
    }

    /// Sets the epoch that new keys get.
    pub fn set_new_epoch(&mut self, epoch: bool) {
        self.epoch = epoch;
    }

    /// Sets or takes away the time of expiry.
    pub fn set_expires_ms(&mut self, slot: Slot, expires_ms: Option<u64>) {
        let old = std::mem::replace(&mut self.entry_mut(slot).expires_ms, expires_ms);
        self.expiring =
            self.expiring + usize::from(expires_ms.is_some()) - usize::from(old.is_some());
    }

    /// The string that lies there, to be changed: with memory of its own from now on, which no reply or record
    /// of the log shares. `None` for other types.
    pub fn string_mut(&mut self, slot: Slot) -> Option<&mut Vec<u8>> {
        let value = &mut self.entry_mut(slot).value;
        match value {
            Value::Int(number) => *value = Value::Str(Arc::new(number.to_string().into_bytes())),
            Value::Small(bytes) => *value = Value::Str(Arc::new(bytes.to_vec())),
            _ => {}
        }
        match value {
            Value::Str(bytes) => Some(Arc::make_mut(bytes)),
            _ => None,
        }
    }

    /// The list that lies there, to be changed.
    pub fn list_mut(&mut self, slot: Slot) -> Option<&mut List> {
        match &mut self.entry_mut(slot).value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The set that lies there, to be changed.
    pub fn set_mut(&mut self, slot: Slot) -> Option<&mut Set> {
        match &mut self.entry_mut(slot).value {
            Value::Set(set) => Some(set),
            _ => None,
        }
    }

    /// The hash that lies there, to be changed.
    pub fn hash_mut(&mut self, slot: Slot) -> Option<&mut Hash> {
        match &mut self.entry_mut(slot).value {
            Value::Hash(hash) => Some(hash),
            _ => None,
        }
    }

    /// The sorted set that lies there, to be changed.
    pub fn zset_mut(&mut self, slot: Slot) -> Option<&mut Zset> {
        match &mut self.entry_mut(slot).value {
            Value::Zset(zset) => Some(zset),
            _ => None,
        }
    }

    /// Sets the value of a key. A key that was there keeps its time of expiry; a new one has none.
    pub fn insert(&mut self, key: &[u8], value: Value, access: Access) -> Slot {
        if let Some(slot) = self.find(key) {
            let entry = self.entry_mut(slot);
            entry.value = value;
            entry.access = access;
            return slot;
        }
        let entry =
            Some(Entry { key: key.to_vec(), value, expires_ms: None, access, epoch: self.epoch });
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.index.insert(key.to_vec(), at);
        Slot(at)
    }

    /// The same for a string, which is kept in the most compact way.
    pub fn insert_string(&mut self, key: &[u8], bytes: &[u8], access: Access) -> Slot {
        self.insert(key, Value::string(bytes), access)
    }

    /// Takes a key out, with its value and time of expiry.
    pub fn remove(&mut self, slot: Slot) -> (Value, Option<u64>) {
        let entry = self.entries[slot.0].take().expect("the slot is of a key that is there");
        self.index.remove(&entry.key);
        self.free.push(slot.0);
        self.expiring -= usize::from(entry.expires_ms.is_some());
        (entry.value, entry.expires_ms)
    }

    /// Visits about `count` keys from `cursor` on and gives the cursor to go on with, 0 at the end. A key that is
    /// there from the first to the last call is visited at least once.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&Db, Slot)) -> u64 {
        let _ = count;
        let from = cursor as usize;
        for at in from..self.entries.len() {
            if self.entries[at].is_some() {
                visit(self, Slot(at));
            }
        }
        0
    }

    /// A key picked at random, each about as likely as any other.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<Slot> {
        if self.is_empty() {
            return None;
        }
        loop {
            let at = random.usize(..self.entries.len());
            if self.entries[at].is_some() {
                return Some(Slot(at));
            }
        }
    }

    /// The memory of keys, values and the table, in bytes, about.
    pub fn memory(&self) -> usize {
        self.entries.len() * 100
    }

    /// Tables are small enough: slots times their size, for `DEBUG HTSTATS`.
    pub fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    fn entry(&self, slot: Slot) -> &Entry {
        self.entries[slot.0].as_ref().expect("the slot is of a key that is there")
    }

    fn entry_mut(&mut self, slot: Slot) -> &mut Entry {
        self.entries[slot.0].as_mut().expect("the slot is of a key that is there")
    }
}
