//! Removes keys where memory is short: `maxmemory`.
//!
//! Each core removes keys of its own shard, picked as Redis does: some keys are looked at, the best candidates seen
//! so far are remembered, and the best of those goes. A core without candidates asks the others.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Core, exec};
use crate::clock;
use crate::config::{Config, EvictBy};
use crate::store::{DBS, Db, Keys, Shard, lfu_count, seconds};

/// Candidates that are remembered.
const POOL: usize = 16;

/// How long keys are removed before a command is let through, in microseconds.
const SLICE_MICROS: u64 = 500;

/// Picks at random in search of a key that expires, before keys are looked at one after the other.
const PICKS: usize = 20;

/// Memory in use, as far as it is counted: each core notes that of its shard.
#[derive(Debug)]
pub struct Memory {
    cores: Vec<OfCore>,
    peak: AtomicU64,
}

#[derive(Debug, Default)]
struct OfCore {
    bytes: AtomicU64,
    /// Whether its shard may have keys to be removed.
    has_candidates: AtomicBool,
    is_asked: AtomicBool,
}

impl Memory {
    /// None yet, on that many cores.
    pub fn new(cores: usize) -> Memory {
        let cores = (0..cores).map(|_| OfCore::default()).collect();
        Memory { cores, peak: AtomicU64::new(0) }
    }

    /// Notes the memory of a shard, in bytes.
    pub fn note(&self, shard: &Shard) {
        let bytes = shard.dbs.iter().map(Db::memory).sum::<usize>() as u64;
        self.cores[shard.index].bytes.store(bytes, Ordering::Relaxed);
    }

    /// The memory of all shards, in bytes, as noted last.
    pub fn of_shards(&self) -> u64 {
        self.cores.iter().map(|core| core.bytes.load(Ordering::Relaxed)).sum()
    }

    /// The most there was, this included.
    pub fn peak(&self, used: u64) -> u64 {
        self.peak.fetch_max(used, Ordering::Relaxed).max(used)
    }

    /// Forgets the most there was.
    pub fn reset_peak(&self) {
        self.peak.store(0, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Candidate {
    /// The higher, the sooner it goes.
    score: u64,
    db: usize,
    key: Vec<u8>,
}

/// A core's candidates, and where the search for keys that expire goes on.
#[derive(Debug, Default)]
pub struct Pool {
    candidates: RefCell<Vec<Candidate>>,
    cursors: [Cell<u64>; DBS],
    next_db: Cell<usize>,
}

impl Core {
    /// Removes keys while memory is short, for a short time; whether a command that needs more may go on.
    pub(super) fn make_room(&self, config: &Config) -> bool {
        let memory = &self.server.memory;
        let max = config.maxmemory;
        let clients = self.server.clients_memory();
        let used = || memory.of_shards() + clients;
        let mut deliveries = Vec::new();
        let mut has_room = true;
        if let Ok(mut keys) = self.keys.try_borrow_mut()
            && keys.has(self.index)
        {
            memory.note(keys.shard(self.index));
            if used() <= max {
                return true;
            }
            if config.policy.by.is_none() {
                return false;
            }
            let begin = clock::now_us();
            keys.begin(0, begin / 1000);
            let mut has_candidates = true;
            while has_candidates && used() > max && clock::now_us() - begin < SLICE_MICROS {
                let chosen = self.choose(&mut keys, config);
                has_candidates = chosen.is_some();
                if let Some((db, key)) = chosen {
                    keys.in_db(db, |keys| keys.evict(&key));
                    memory.note(keys.shard(self.index));
                }
            }
            memory.cores[self.index].has_candidates.store(has_candidates, Ordering::Relaxed);
            exec::follow_gone(&mut keys, &self.server);
            keys.effects.gate = 0;
            self.events(&mut keys, &mut deliveries);
            self.took(config, "eviction-cycle", clock::now_us() - begin);
            if !has_candidates && used() > max {
                has_room = self.ask_others();
            }
        } else if used() > max {
            has_room = config.policy.by.is_some();
        }
        self.deliver(deliveries);
        has_room
    }

    /// Has other cores remove keys; whether any of them may have some.
    fn ask_others(&self) -> bool {
        let mut is_hopeful = false;
        for (index, other) in self.server.memory.cores.iter().enumerate() {
            if index == self.index {
                continue;
            }
            is_hopeful |= other.has_candidates.load(Ordering::Relaxed);
            if !other.is_asked.swap(true, Ordering::Relaxed) {
                self.server.send_to(index, |core| {
                    let memory = &core.server.memory;
                    memory.cores[core.index].is_asked.store(false, Ordering::Relaxed);
                    core.make_room(&core.config());
                });
            }
        }
        is_hopeful
    }

    /// The key that is to go, with its database.
    fn choose(&self, keys: &mut Keys, config: &Config) -> Option<(usize, Vec<u8>)> {
        let now_ms = keys.now_ms();
        let shard = keys.shard(self.index);
        let only_expiring = config.policy.only_expiring;
        let by = config.policy.by?;
        if by == EvictBy::Random {
            for _ in 0..DBS {
                let db = self.pool.next_db.get();
                self.pool.next_db.set((db + 1) % DBS);
                if let Some(key) = self.pick(shard, db, only_expiring) {
                    return Some((db, key));
                }
            }
            return None;
        }
        let mut candidates = self.pool.candidates.borrow_mut();
        // A candidate may have gone by itself, or expire no longer.
        for _ in 0..3 {
            for db in 0..DBS {
                for _ in 0..config.maxmemory_samples {
                    let Some(key) = self.pick(shard, db, only_expiring) else {
                        break;
                    };
                    let score = score(&shard.dbs[db], &key, by, now_ms);
                    let is_known = |other: &Candidate| other.db == db && other.key == key;
                    if candidates.iter().any(is_known) {
                        continue;
                    }
                    let at = candidates.partition_point(|other| other.score < score);
                    if at == 0 && candidates.len() >= POOL {
                        continue;
                    }
                    candidates.insert(at, Candidate { score, db, key });
                    if candidates.len() > POOL {
                        candidates.remove(0);
                    }
                }
            }
            while let Some(Candidate { db, key, .. }) = candidates.pop() {
                let table = &shard.dbs[db];
                let slot = table.find(&key);
                if slot.is_some_and(|at| !only_expiring || table.expires_ms(at).is_some()) {
                    return Some((db, key));
                }
            }
        }
        None
    }

    /// A key of a database picked at random, one that expires if only those may go.
    fn pick(&self, shard: &mut Shard, db: usize, only_expiring: bool) -> Option<Vec<u8>> {
        let Shard { dbs, random, .. } = shard;
        let table = &dbs[db];
        if !only_expiring {
            return table.random(random).map(|slot| table.key(slot).to_vec());
        }
        if table.expiring() == 0 {
            return None;
        }
        for _ in 0..PICKS {
            let slot = table.random(random)?;
            if table.expires_ms(slot).is_some() {
                return Some(table.key(slot).to_vec());
            }
        }
        // Few expire. The search goes on where it has ended, over the end at most once.
        let cursor = &self.pool.cursors[db];
        let (mut found, mut wraps) = (None, 0);
        while found.is_none() && wraps < 2 {
            let next = table.scan(cursor.get(), 16, |table, slot| {
                if found.is_none() && table.expires_ms(slot).is_some() {
                    found = Some(table.key(slot).to_vec());
                }
            });
            wraps += u32::from(next == 0);
            cursor.set(next);
        }
        found
    }
}

/// How much a key is to go rather than others.
fn score(table: &Db, key: &[u8], by: EvictBy, now_ms: u64) -> u64 {
    let Some(slot) = table.find(key) else {
        return 0;
    };
    match by {
        EvictBy::Lru => u64::from(seconds(now_ms).wrapping_sub(table.access(slot)) & 0xff_ffff),
        EvictBy::Lfu => 255 - u64::from(lfu_count(table.access(slot), now_ms)),
        EvictBy::Ttl => u64::MAX - table.expires_ms(slot).unwrap_or(u64::MAX),
        EvictBy::Random => 0,
    }
}
