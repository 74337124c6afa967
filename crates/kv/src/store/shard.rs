//! A shard: the keys of one core, and who waits for them.
//!
//! A shard is one piece of memory that can go to another core: a command whose keys lie in several shards
//! runs where all of them have been handed to (see `server::handover`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::db::{Remains, Slot};
use super::{Db, Tracked};
use crate::protocol::{OwnedArgs, Proto};

/// A position in the log: records are on the disk up to one. 0 is before the first record.
pub type Lsn = u64;

/// Databases of a server.
pub const DBS: usize = 16;

/// What happened to the keys of a shard since the start or `CONFIG RESETSTAT`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Keys removed because their time had come.
    pub expired: u64,
    /// Keys removed because there was too little memory.
    pub evicted: u64,
}

/// A client whose command waits for a key.
#[derive(Debug)]
pub struct Waiter {
    /// The client's number.
    pub client: u64,
    /// The core of its connection.
    pub core: usize,
    /// Its database.
    pub db: usize,
    /// The version of the protocol it speaks.
    pub proto: Proto,
    /// The command that waits, which is tried again when one of its keys has something.
    pub args: OwnedArgs,
    /// Whether somebody has answered it, or it has gone.
    pub is_answered: Mutex<bool>,
}

impl Waiter {
    /// Whether it is answered or gone. Whoever holds this is the only one to answer it, and sets it if they do.
    pub fn answered(&self) -> MutexGuard<'_, bool> {
        self.is_answered.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes the right to answer; whether the caller is the first.
    pub fn claim(&self) -> bool {
        !std::mem::replace(&mut *self.answered(), true)
    }
}

/// Saves keys as they were at one instant. A key that carries another epoch than its database gives to new ones has
/// not been saved.
pub trait Saver: Send + std::fmt::Debug {
    /// The key that lies there is about to be changed or removed.
    fn before_change(&mut self, db: usize, table: &mut Db, slot: Slot);

    /// All keys of the database are about to be removed. May take the table and leave an empty one.
    fn before_flush(&mut self, db: usize, table: &mut Db);

    /// The tables of two databases have been swapped.
    fn swapped(&mut self, a: usize, b: usize);

    /// Whether the key's value is large and not saved, so that whoever changes it should wait. It is saved next.
    fn wants(&mut self, db: usize, table: &Db, key: &[u8]) -> bool;

    /// Saves some keys, about as many as can be done in that time.
    fn slice(&mut self, dbs: &mut [Db], time: Duration) -> Slice;
}

/// What has come of saving some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// There are more.
    More,
    /// There are more, and the disk has to take what there is first.
    Full,
    /// There are no more.
    Done,
}

/// Keys written whose records are not on the disk yet.
#[derive(Debug, Default)]
struct Unsynced {
    /// By the hash of the key, the record that has to be there before its value is shown.
    keys: HashMap<u64, Lsn, ahash::RandomState>,
    /// The same in order of records.
    order: VecDeque<(Lsn, u64)>,
    /// A record that changed all keys.
    all: Lsn,
}

/// The keys of one core.
#[derive(Debug)]
pub struct Shard {
    /// Its number.
    pub index: usize,
    /// Its part of each database.
    pub dbs: Vec<Db>,
    /// What happened to its keys.
    pub stats: Stats,
    /// Chance, for what is picked at random.
    pub random: fastrand::Rng,
    /// Where the search for keys whose time has come goes on: a database, and a cursor of its [`Db::scan`].
    pub expiry_at: (usize, u64),
    /// Who saves the keys as they were at one instant, while a snapshot is being written.
    pub saver: Option<Box<dyn Saver>>,
    /// What is left of databases that were emptied, to be dropped by and by.
    pub remains: Vec<Remains>,
    /// Whether memory is given back to the system when they are dropped.
    pub gives_back: bool,
    /// Who has read which of its keys, and is to hear when one changes.
    pub tracked: Tracked,
    watched: HashMap<(usize, Vec<u8>), Vec<Arc<AtomicBool>>>,
    waiting: HashMap<(usize, Vec<u8>), VecDeque<Arc<Waiter>>>,
    unsynced: Unsynced,
}

impl Shard {
    /// A shard without keys.
    pub fn new(index: usize) -> Shard {
        Shard {
            index,
            dbs: (0..DBS).map(|_| Db::new()).collect(),
            stats: Stats::default(),
            random: fastrand::Rng::new(),
            expiry_at: (0, 0),
            saver: None,
            remains: Vec::new(),
            gives_back: false,
            tracked: Tracked::default(),
            watched: HashMap::new(),
            waiting: HashMap::new(),
            unsynced: Unsynced::default(),
        }
    }

    /// A key is about to be changed or removed: it is saved first if a snapshot still wants it. The slot stays good.
    #[inline]
    pub fn save_first(&mut self, db: usize, slot: Slot) {
        if let Some(saver) = &mut self.saver {
            saver.before_change(db, &mut self.dbs[db], slot);
        }
    }

    /// All keys of a database are about to be removed. The table may be empty afterwards.
    pub fn save_all_first(&mut self, db: usize) {
        if let Some(saver) = &mut self.saver {
            saver.before_flush(db, &mut self.dbs[db]);
        }
    }

    /// The tables of two databases have been swapped.
    pub fn swapped(&mut self, a: usize, b: usize) {
        if let Some(saver) = &mut self.saver {
            saver.swapped(a, b);
        }
    }

    /// Whether a command that changes the key should wait until some slices of a snapshot are done: to save the
    /// value at once would take too long. It may be changed all the same.
    pub fn must_save_first(&mut self, db: usize, key: &[u8]) -> bool {
        match &mut self.saver {
            Some(saver) => saver.wants(db, &self.dbs[db], key),
            None => false,
        }
    }

    /// Sets `flag` when the key changes.
    pub fn watch(&mut self, db: usize, key: &[u8], flag: &Arc<AtomicBool>) {
        self.watched.entry((db, key.to_vec())).or_default().push(flag.clone());
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, db: usize, key: &[u8], flag: &Arc<AtomicBool>) {
        let name = (db, key.to_vec());
        if let Some(flags) = self.watched.get_mut(&name) {
            flags.retain(|other| !Arc::ptr_eq(other, flag));
            if flags.is_empty() {
                self.watched.remove(&name);
            }
        }
    }

    /// Tells those who watch the key that it has changed.
    pub fn touch(&mut self, db: usize, key: &[u8]) {
        if !self.watched.is_empty()
            && let Some(flags) = self.watched.get(&(db, key.to_vec()))
        {
            flags.iter().for_each(|flag| flag.store(true, Ordering::Release));
        }
    }

    /// Tells those who watch keys of a database for which `changed` holds.
    pub fn touch_where(&mut self, db: usize, mut changed: impl FnMut(&[u8]) -> bool) {
        for ((of, key), flags) in &self.watched {
            if *of == db && changed(key) {
                flags.iter().for_each(|flag| flag.store(true, Ordering::Release));
            }
        }
    }

    /// Puts a waiter at the end of a key's queue.
    pub fn wait(&mut self, db: usize, key: &[u8], waiter: &Arc<Waiter>) {
        let queue = self.waiting.entry((db, key.to_vec())).or_default();
        queue.retain(|other| !Arc::ptr_eq(other, waiter));
        queue.push_back(waiter.clone());
    }

    /// Takes a waiter out of a key's queue.
    pub fn unwait(&mut self, db: usize, key: &[u8], waiter: &Arc<Waiter>) {
        let name = (db, key.to_vec());
        if let Some(queue) = self.waiting.get_mut(&name) {
            queue.retain(|other| !Arc::ptr_eq(other, waiter));
            if queue.is_empty() {
                self.waiting.remove(&name);
            }
        }
    }

    /// Whether anybody waits for the key.
    pub fn is_awaited(&self, db: usize, key: &[u8]) -> bool {
        !self.waiting.is_empty() && self.waiting.contains_key(&(db, key.to_vec()))
    }

    /// Those who wait for the key, the longest wait first. Some may be answered already.
    pub fn waiters(&self, db: usize, key: &[u8]) -> Vec<Arc<Waiter>> {
        let queue = self.waiting.get(&(db, key.to_vec()));
        queue.into_iter().flatten().cloned().collect()
    }

    /// Keys of a database for which somebody waits.
    pub fn awaited_keys(&self, db: usize) -> Vec<Vec<u8>> {
        self.waiting.keys().filter(|(of, _)| *of == db).map(|(_, key)| key.clone()).collect()
    }

    /// Notes that a key's value is that of a record which is not on the disk yet.
    pub fn wrote(&mut self, hash: u64, lsn: Lsn) {
        self.unsynced.keys.insert(hash, lsn);
        self.unsynced.order.push_back((lsn, hash));
    }

    /// Notes that all values are those of a record which is not on the disk yet.
    pub fn wrote_all(&mut self, lsn: Lsn) {
        self.unsynced.all = lsn;
    }

    /// The record which has to be on the disk before the key's value is shown, or 0.
    pub fn unsynced(&self, hash: u64) -> Lsn {
        if self.unsynced.keys.is_empty() {
            return self.unsynced.all;
        }
        self.unsynced.keys.get(&hash).copied().unwrap_or(0).max(self.unsynced.all)
    }

    /// The same for all keys together.
    #[inline]
    pub fn unsynced_any(&self) -> Lsn {
        self.unsynced.order.back().map_or(0, |&(lsn, _)| lsn).max(self.unsynced.all)
    }

    /// Records are on the disk up to this one.
    pub fn synced(&mut self, lsn: Lsn) {
        while let Some(&(at, hash)) = self.unsynced.order.front()
            && at <= lsn
        {
            self.unsynced.order.pop_front();
            if self.unsynced.keys.get(&hash) == Some(&at) {
                self.unsynced.keys.remove(&hash);
            }
        }
        if self.unsynced.all <= lsn {
            self.unsynced.all = 0;
        }
    }
}

/// The hash of a key. Of one process: it is seeded by chance, so that nobody can choose keys that collide.
pub fn hash_of(key: &[u8]) -> u64 {
    static SEEDS: OnceLock<ahash::RandomState> = OnceLock::new();
    SEEDS.get_or_init(ahash::RandomState::new).hash_one(key)
}

/// The shard, of `count`, in which a key lies.
pub fn shard_of(key: &[u8], count: usize) -> usize {
    if count == 1 { 0 } else { shard_of_hash(hash_of(key), count) }
}

/// The same by the hash of the key.
#[inline]
pub fn shard_of_hash(hash: u64, count: usize) -> usize {
    // The table of keys goes by the upper bits.
    ((hash & 0xffff) as usize * count) >> 16
}
