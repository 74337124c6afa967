//! Removes keys where memory is short: `maxmemory`.
//!
//! Each core removes keys of its own shard, picked as Redis does: some keys are looked at, the best candidates seen
//! so far are remembered, and the best of those goes. A core without candidates asks the others.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Core, exec};
use crate::clock;
use crate::config::{Config, EvictBy};
use crate::store::{DBS, Db, Keys, Lfu, Shard, seconds};

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
    clients: AtomicU64,
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
        Memory { cores, clients: AtomicU64::new(0), peak: AtomicU64::new(0) }
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

    /// Notes the memory of connections, in bytes.
    pub fn note_clients(&self, bytes: u64) {
        self.clients.store(bytes, Ordering::Relaxed);
    }

    /// The memory of shards and connections, in bytes, as noted last.
    pub fn used(&self) -> u64 {
        self.of_shards() + self.clients.load(Ordering::Relaxed)
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
        let used = || memory.used();
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
            keys.is_tracked = self.server.tracking.is_on();
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
            self.invalidate(&mut keys, 0, &mut deliveries);
            self.broadcast(&mut keys, 0, &mut deliveries);
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
                    let score = score(&shard.dbs[db], &key, by, config.lfu, now_ms);
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
fn score(table: &Db, key: &[u8], by: EvictBy, lfu: Lfu, now_ms: u64) -> u64 {
    let Some(slot) = table.find(key) else {
        return 0;
    };
    match by {
        EvictBy::Lru => u64::from(seconds(now_ms).wrapping_sub(table.access(slot)) & 0xff_ffff),
        EvictBy::Lfu => 255 - u64::from(lfu.count(table.access(slot), now_ms)),
        EvictBy::Ttl => u64::MAX - table.expires_ms(slot).unwrap_or(u64::MAX),
        EvictBy::Random => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Core;
    use crate::config::{Config, find};
    use crate::server::Server;
    use crate::store::{Keys, Lfu, Shard, Value};

    /// A core with keys `0`, `1` and so on, which were used one after the other, at these times of expiry.
    fn core(policy: &str, expires_ms: &[Option<u64>]) -> (std::rc::Rc<Core>, Config) {
        let mut config = Config::default();
        let settings =
            [("maxmemory", "1"), ("maxmemory-policy", policy), ("maxmemory-samples", "64")];
        for (name, value) in settings {
            let setting = find(name).expect("there is such a setting");
            config.set(setting, value).expect("the value is one that it may have");
        }
        let server = Arc::new(Server::new(config.clone(), None, 1));
        let core = Core::start(0, server, Box::new(Shard::new(0)));
        let mut keys = core.keys.borrow_mut();
        for (index, &expires_ms) in expires_ms.iter().enumerate() {
            keys.begin(0, 1_000_000 + index as u64 * 60_000);
            keys.insert(index.to_string().as_bytes(), Value::Int(1), expires_ms);
        }
        drop(keys);
        (core, config)
    }

    fn chosen(core: &Core, config: &Config) -> Option<String> {
        let keys: &mut Keys = &mut core.keys.borrow_mut();
        core.choose(keys, config).map(|(_, key)| String::from_utf8_lossy(&key).into_owned())
    }

    #[test]
    fn the_key_that_goes_is_the_one_the_policy_says() {
        let soon = 2_000_000_000;
        let times = [None, Some(soon + 2), Some(soon), Some(soon + 1)];
        for (policy, key) in [
            ("allkeys-lru", "0"),
            ("volatile-lru", "1"),
            ("volatile-ttl", "2"),
            ("allkeys-lfu", "0"),
        ] {
            let (core, config) = core(policy, &times);
            if policy == "allkeys-lfu" {
                let mut keys = core.keys.borrow_mut();
                let now_ms = keys.now_ms();
                for index in 1..4 {
                    let key = index.to_string();
                    let table = keys.table(key.as_bytes());
                    let slot = table.find(key.as_bytes()).expect("the key is there");
                    table.set_access(slot, Lfu::access(100, now_ms));
                }
            }
            // Chance misses one of four keys in 64 picks once in a hundred million times.
            assert_eq!(chosen(&core, &config).as_deref(), Some(key), "{policy}");
            Core::stop();
        }
    }

    #[test]
    fn volatile_policies_remove_no_key_that_stays() {
        let mut times = vec![None; 500];
        times[123] = Some(2_000_000_000);
        for policy in ["volatile-random", "volatile-lru", "volatile-lfu", "volatile-ttl"] {
            let (core, config) = core(policy, &times);
            assert_eq!(chosen(&core, &config).as_deref(), Some("123"), "{policy}");
            // A call removes keys for a short time only.
            let is_refused = (0..1000).any(|_| !core.make_room(&config));
            assert!(is_refused, "{policy}: a byte is too little for what stays");
            assert_eq!(core.keys.borrow_mut().count(), 499, "{policy}");
            Core::stop();
        }
    }

    #[test]
    fn nothing_is_removed_unless_wanted() {
        let (core, mut config) = core("noeviction", &[None, Some(2_000_000_000)]);
        assert!(!core.make_room(&config));
        config.maxmemory = 1 << 30;
        assert!(core.make_room(&config));
        assert_eq!(core.keys.borrow_mut().count(), 2);
        Core::stop();
    }
}
