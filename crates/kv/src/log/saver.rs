//! Saving the keys of a shard as they were at one instant, while commands go on changing them.
//!
//! A key that carries another epoch than its table gives to new ones has not been saved. A walk through the
//! tables saves such keys; a command that is about to change one has it saved first. Either sets the key's epoch.
//!
//! Invariants:
//! - *Saved once, before it changes*: between the instant and the end, a key's epoch tells whether it is saved.
//! - *All alike in the end*: when a saver is done all keys carry their table's epoch, also where the disk failed
//!   and nothing was saved, so that the next snapshot can begin.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use omniring::sync::Notify;

use super::lock;
use super::piece::{self, Owner, PIECE_LEN, Progress};
use crate::store::{DBS, Db, Remains, Saver, Slice, Slot};

/// Bytes of pieces that go to the disk together, about.
const BLOCK_LEN: usize = 128 * 1024;
/// Bytes that wait for the disk, from which on the walk stands still.
const FULL_LEN: usize = 8 << 20;
/// Keys that a walk visits between looks at the clock.
const STEP: usize = 32;

/// What goes from the savers to who writes the snapshot.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    blocks: Mutex<VecDeque<Vec<u8>>>,
    len: AtomicUsize,
    /// Savers that are not done.
    pub left: AtomicUsize,
    /// Keys that were saved.
    pub keys: AtomicU64,
    /// Nothing more is wanted.
    pub failed: AtomicBool,
    /// There is a block, or a saver is done.
    pub wake: Notify,
    /// There is room again.
    pub room: Notify,
}

impl Exchange {
    pub fn is_full(&self) -> bool {
        self.len.load(Ordering::Relaxed) >= FULL_LEN
    }

    fn push(&self, block: Vec<u8>) {
        if !self.failed.load(Ordering::Acquire) {
            self.len.fetch_add(block.len(), Ordering::Relaxed);
            lock(&self.blocks).push_back(block);
        }
        self.wake.notify_one();
    }

    pub fn pop(&self) -> Option<Vec<u8>> {
        let block = lock(&self.blocks).pop_front()?;
        let before = self.len.fetch_sub(block.len(), Ordering::Relaxed);
        if before >= FULL_LEN && before - block.len() < FULL_LEN {
            self.room.notify_waiters();
        }
        Some(block)
    }

    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        while self.pop().is_some() {}
        self.room.notify_waiters();
    }
}

/// A large value that is being saved.
struct Large {
    /// The number that its database had at the instant.
    db: usize,
    key: Vec<u8>,
    progress: Progress,
}

/// Saves the keys of one shard.
pub(super) struct ShardSaver {
    exchange: Arc<Exchange>,
    out: Vec<u8>,
    /// By its number now, the number that a table had at the instant.
    numbers: [usize; DBS],
    /// By that number, how far the walk has come; `None` at the end.
    cursors: [Option<u64>; DBS],
    /// Tables whose keys were removed since, by that number. They are walked too.
    flushed: Vec<(usize, Db)>,
    /// What is left of those that have been walked.
    remains: Vec<Remains>,
    large: VecDeque<Large>,
    keys: u64,
    slots: Vec<Slot>,
}

impl fmt::Debug for ShardSaver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardSaver")
            .field("keys", &self.keys)
            .field("cursors", &self.cursors)
            .finish_non_exhaustive()
    }
}

impl ShardSaver {
    /// Begins, at the instant that counts.
    pub fn begin(exchange: Arc<Exchange>, dbs: &mut [Db]) -> ShardSaver {
        for db in dbs.iter_mut() {
            db.set_new_epoch(!db.new_epoch());
        }
        ShardSaver {
            exchange,
            out: Vec::with_capacity(BLOCK_LEN),
            numbers: std::array::from_fn(|number| number),
            cursors: std::array::from_fn(|db| (!dbs[db].is_empty()).then_some(0)),
            flushed: Vec::new(),
            remains: Vec::new(),
            large: VecDeque::new(),
            keys: 0,
            slots: Vec::new(),
        }
    }

    /// Writes the next piece of a key, `len` bytes about; whether it was the last.
    fn save(
        &mut self,
        db: usize,
        table: &Db,
        slot: Slot,
        progress: &mut Progress,
        len: usize,
    ) -> bool {
        if self.exchange.failed.load(Ordering::Acquire) {
            return true;
        }
        let owner = Owner {
            db,
            key: table.key(slot),
            expires_ms: table.expires_ms(slot),
            access: table.access(slot),
        };
        let last = piece::push(&mut self.out, owner, table.value(slot), progress, len);
        self.keys += u64::from(last);
        if self.out.len() >= BLOCK_LEN {
            let next = Vec::with_capacity(self.out.len());
            self.exchange.push(std::mem::replace(&mut self.out, next));
        }
        last
    }

    /// Saves the next piece of the first large value.
    fn save_large(&mut self, dbs: &mut [Db]) {
        let Some(mut large) = self.large.pop_front() else {
            return;
        };
        let mut flushed = std::mem::take(&mut self.flushed);
        let table = match self.numbers.iter().position(|&number| number == large.db) {
            Some(now) => &mut dbs[now],
            None => match flushed.iter_mut().find(|(number, _)| *number == large.db) {
                Some((_, table)) => table,
                None => unreachable!("a table is in its place, or was flushed"),
            },
        };
        let slot = table.find(&large.key);
        if let Some(slot) = slot.filter(|&slot| table.epoch(slot) != table.new_epoch()) {
            if self.save(large.db, table, slot, &mut large.progress, PIECE_LEN) {
                table.set_epoch(slot, table.new_epoch());
            } else {
                self.large.push_front(large);
            }
        }
        self.flushed = flushed;
    }

    /// Saves some keys of a table.
    fn walk(&mut self, db: usize, table: &mut Db, cursor: u64) {
        let mut slots = std::mem::take(&mut self.slots);
        let next = table.scan(cursor, STEP, |table, slot| {
            if table.epoch(slot) == table.new_epoch() {
            } else if piece::is_large(table.value(slot)) {
                let is_known = |large: &Large| large.db == db && large.key == table.key(slot);
                if !self.large.iter().any(is_known) {
                    let key = table.key(slot).to_vec();
                    self.large.push_back(Large { db, key, progress: Progress::default() });
                }
            } else {
                self.save(db, table, slot, &mut Progress::default(), usize::MAX);
                slots.push(slot);
            }
        });
        let epoch = table.new_epoch();
        slots.drain(..).for_each(|slot| table.set_epoch(slot, epoch));
        self.slots = slots;
        self.cursors[db] = (next != 0).then_some(next);
    }
}

impl Saver for ShardSaver {
    fn before_change(&mut self, db: usize, table: &mut Db, slot: Slot) {
        if table.epoch(slot) == table.new_epoch() {
            return;
        }
        let number = self.numbers[db];
        let is_it = |large: &Large| large.db == number && large.key == table.key(slot);
        let begun = self.large.iter().position(is_it).and_then(|at| self.large.remove(at));
        let mut progress = begun.map_or(Progress::default(), |large| large.progress);
        self.save(number, table, slot, &mut progress, usize::MAX);
        table.set_epoch(slot, table.new_epoch());
    }

    fn before_flush(&mut self, db: usize, table: &mut Db) {
        let number = self.numbers[db];
        // A table that came later has nothing to save.
        if number < DBS && !table.is_empty() {
            self.flushed.push((number, std::mem::take(table)));
        } else if number < DBS {
            self.cursors[number] = None;
        }
        self.numbers[db] = DBS;
    }

    fn swapped(&mut self, a: usize, b: usize) {
        self.numbers.swap(a, b);
    }

    fn wants(&mut self, db: usize, table: &Db, key: &[u8]) -> bool {
        let Some(slot) = table.find(key).filter(|&slot| table.epoch(slot) != table.new_epoch())
        else {
            return false;
        };
        if !piece::is_slow(table.value(slot)) {
            return false;
        }
        let number = self.numbers[db];
        let is_it = |large: &Large| large.db == number && large.key == key;
        let known = self.large.iter().position(is_it).and_then(|at| self.large.remove(at));
        let first = || Large { db: number, key: key.to_vec(), progress: Progress::default() };
        let large = known.unwrap_or_else(first);
        self.large.push_front(large);
        true
    }

    fn slice(&mut self, dbs: &mut [Db], time: Duration) -> Slice {
        let until = omniring::time::now() + time;
        loop {
            if self.exchange.is_full() {
                return Slice::Full;
            }
            if !self.large.is_empty() {
                self.save_large(dbs);
            } else if let Some(remains) = self.remains.last_mut() {
                if !remains.drop_some(STEP) {
                    self.remains.pop();
                }
            } else if let Some((number, mut table)) = self.flushed.pop() {
                match self.cursors[number] {
                    Some(cursor) => {
                        self.walk(number, &mut table, cursor);
                        self.flushed.push((number, table));
                    }
                    None => self.remains.push(table.take()),
                }
            } else {
                let next =
                    self.numbers.iter().enumerate().find_map(|(now, &number)| {
                        Some((now, number, (*self.cursors.get(number)?)?))
                    });
                let Some((now, number, cursor)) = next else {
                    self.exchange.push(std::mem::take(&mut self.out));
                    self.exchange.keys.fetch_add(self.keys, Ordering::Relaxed);
                    self.exchange.left.fetch_sub(1, Ordering::AcqRel);
                    self.exchange.wake.notify_one();
                    return Slice::Done;
                };
                self.walk(number, &mut dbs[now], cursor);
            }
            if omniring::time::now() >= until {
                return Slice::More;
            }
        }
    }
}

impl Drop for ShardSaver {
    fn drop(&mut self) {
        // Of a shard that ended before it was saved.
        let unsaved = !self.flushed.is_empty() || self.cursors.iter().any(Option::is_some);
        if unsaved || !self.large.is_empty() {
            self.exchange.fail();
            self.exchange.wake.notify_one();
        }
    }
}
