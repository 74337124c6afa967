//! The keys as a command sees them: those of the shards at hand, with expiry, watchers, events and the log.
//!
//! A command reads with [`Keys::read`] and its typed forms, changes with `*_mut`, `insert`, `delete` and the
//! like, and says so with [`Keys::changed`]. What follows from that (the record of the log, events, clients that
//! waited) is collected here and carried out by whoever called the command.
//!
//! Invariants:
//! - *Expired is gone*: nothing here shows a key whose time has come, except while the log is replayed, when
//!   time stands still and deletions are in the log.
//! - *No empty aggregates*: a command that takes the last element calls [`Keys::drop_if_empty`].

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::access::{Lfu, seconds};
use super::db::Slot;
use super::shard::{Lsn, Shard, hash_of, shard_of_hash};
use super::{
    Access, Db, Expiry, Hash, Kind, LexBound, Limits, List, Set, StrRef, Value, ValueRef, Waiter,
    Zset,
};
use crate::error::Error;
use crate::protocol::OwnedArgs;

/// What kind of event: which clients asked to hear of it, by `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventClass(pub u32);

impl EventClass {
    /// `g`: commands of no type, such as DEL and EXPIRE.
    pub const GENERIC: EventClass = EventClass(1 << 0);
    /// `$`: strings.
    pub const STRING: EventClass = EventClass(1 << 1);
    /// `l`: lists.
    pub const LIST: EventClass = EventClass(1 << 2);
    /// `s`: sets.
    pub const SET: EventClass = EventClass(1 << 3);
    /// `h`: hashes.
    pub const HASH: EventClass = EventClass(1 << 4);
    /// `z`: sorted sets.
    pub const ZSET: EventClass = EventClass(1 << 5);
    /// `x`: keys whose time has come.
    pub const EXPIRED: EventClass = EventClass(1 << 6);
    /// `e`: keys removed for want of memory.
    pub const EVICTED: EventClass = EventClass(1 << 7);
    /// `m`: reads that found no key; not in `A`.
    pub const MISS: EventClass = EventClass(1 << 8);
    /// `n`: new keys; not in `A`.
    pub const NEW: EventClass = EventClass(1 << 9);
    /// `K`: tell them on `__keyspace@<db>__:<key>`.
    pub const KEYSPACE: EventClass = EventClass(1 << 10);
    /// `E`: tell them on `__keyevent@<db>__:<event>`.
    pub const KEYEVENT: EventClass = EventClass(1 << 11);
}

/// Keys of an emptied database that are dropped before the reply, at most; more of them take their time.
const DROPPED_AT_ONCE: usize = 1024;

/// The letters of `notify-keyspace-events`.
const LETTERS: [(char, EventClass); 14] = [
    ('g', EventClass::GENERIC),
    ('$', EventClass::STRING),
    ('l', EventClass::LIST),
    ('s', EventClass::SET),
    ('h', EventClass::HASH),
    ('z', EventClass::ZSET),
    ('x', EventClass::EXPIRED),
    ('e', EventClass::EVICTED),
    ('t', EventClass::STREAM),
    ('d', EventClass::MODULE),
    ('K', EventClass::KEYSPACE),
    ('E', EventClass::KEYEVENT),
    ('m', EventClass::MISS),
    ('n', EventClass::NEW),
];

impl EventClass {
    /// `t`: streams, of which there are none.
    pub const STREAM: EventClass = EventClass(1 << 12);
    /// `d`: types of modules, of which there are none.
    pub const MODULE: EventClass = EventClass(1 << 13);
    /// `A`: all of the kinds above but `m` and `n`.
    const ALL: u32 = 0xff | 1 << 12 | 1 << 13;

    /// The bits of a text of letters, or `None` if one of them is none.
    pub fn read(text: &str) -> Option<u32> {
        text.chars().try_fold(0, |bits, letter| {
            if letter == 'A' {
                return Some(bits | EventClass::ALL);
            }
            let (_, class) = LETTERS.iter().find(|(of, _)| *of == letter)?;
            Some(bits | class.0)
        })
    }

    /// The letters of bits.
    pub fn write(bits: u32) -> String {
        let mut text = String::new();
        let is_all = bits & EventClass::ALL == EventClass::ALL;
        if is_all {
            text.push('A');
        }
        for (letter, class) in LETTERS {
            let is_in_all = is_all && EventClass::ALL & class.0 != 0;
            if bits & class.0 != 0 && !is_in_all {
                text.push(letter);
            }
        }
        text
    }
}

/// Something that happened to a key, for those who subscribed to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The name, such as `lpush`.
    pub name: &'static str,
    /// The database.
    pub db: usize,
    /// The key.
    pub key: Vec<u8>,
}

/// How a command that changed something is written to the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum LogAs {
    /// With the words it was sent.
    #[default]
    Verbatim,
    /// As these commands instead: what it did, where doing it again would do something else.
    Commands(Vec<OwnedArgs>),
}

/// A key that was changed, for reads that must not show it before its record is on the disk.
#[derive(Clone, Copy, Debug)]
pub enum Written {
    /// The key with this hash, in the shard with this index.
    Key(usize, u64),
    /// All keys.
    All,
}

/// What those who follow keys have to forget.
#[derive(Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A key.
    Key {
        /// Its name.
        key: Vec<u8>,
        /// Whether the command changed it; otherwise its time had come, or memory was short.
        by_command: bool,
    },
    /// All keys.
    All,
}

/// What follows from a command, collected while it runs.
#[derive(Debug, Default)]
pub struct Effects {
    /// How many changes were made.
    pub dirty: u64,
    /// How the command is logged, if it changed something.
    pub log: LogAs,
    /// Deletions of keys whose time had come or that were evicted, which go into the log before the command.
    pub gone: Vec<(usize, Vec<u8>)>,
    /// Which keys were changed.
    pub written: Vec<Written>,
    /// What those who subscribed to events are told, in order.
    pub events: Vec<Event>,
    /// Keys, with their databases, that have something for those who wait for them.
    pub ready: Vec<(usize, Vec<u8>)>,
    /// What those who follow keys have to forget, where there is anybody.
    pub invalid: Vec<Invalid>,
    /// Of these, the keys that those who follow prefixes have not been told of; whether a command changed each.
    pub broadcast: BTreeMap<Vec<u8>, bool>,
    /// Up to which record the disk has to be before the reply is sent.
    pub gate: Lsn,
}

/// The shards at hand, and what a command does with them.
#[derive(Debug)]
pub struct Keys {
    shards: Vec<Option<Box<Shard>>>,
    db: usize,
    now_ms: u64,
    /// Limits of compact encodings.
    pub limits: Limits,
    /// Which events anybody wants to hear of: `EventClass` bits.
    pub events_wanted: u32,
    /// Whether anybody follows keys, so as to hear when one changes.
    pub is_tracked: bool,
    /// How the frequency of use is noted, as LFU policies need; `None`: the time of use is.
    pub lfu: Option<Lfu>,
    /// Whether the client asked that its reads leave no trace of use.
    pub no_touch: bool,
    /// Whether the command has waited for a key and is called again: a key of another type is none to it then.
    pub has_waited: bool,
    /// Whether the log is being replayed: nothing expires by itself then.
    pub replaying: bool,
    /// Whether keys whose time has come stay in memory, unseen, until they are written to: while clients are paused.
    pub keeps_expired: bool,
    /// What has followed so far.
    pub effects: Effects,
    /// The key that was looked for last and its hash: a command mostly goes on with the same one.
    last: (Vec<u8>, u64),
    /// Keys that are likely to be looked for next, in order of their addresses.
    expected: Vec<Expected>,
    /// Which of them is the next.
    next_expected: usize,
    /// Hashes of those that are brought nearer: kept for its memory.
    near: Vec<u64>,
}

/// A key in a request that has not been carried out yet: where its bytes lie, and its hash.
#[derive(Clone, Copy, Debug)]
struct Expected {
    start: usize,
    len: usize,
    hash: u64,
}

/// Where a key belongs, and its hash.
#[derive(Clone, Copy)]
struct Home {
    shard: usize,
    hash: u64,
}

impl Keys {
    /// No shards at hand, of a server with `count`.
    pub fn new(count: usize) -> Keys {
        Keys {
            shards: (0..count).map(|_| None).collect(),
            db: 0,
            now_ms: 0,
            limits: Limits::default(),
            events_wanted: 0,
            is_tracked: false,
            lfu: None,
            no_touch: false,
            has_waited: false,
            replaying: false,
            keeps_expired: false,
            effects: Effects::default(),
            last: (Vec::new(), hash_of(&[])),
            expected: Vec::new(),
            next_expected: 0,
            near: Vec::new(),
        }
    }

    /// Takes a shard in hand.
    pub fn put(&mut self, shard: Box<Shard>) {
        let index = shard.index;
        debug_assert!(self.shards[index].is_none(), "a shard is in one place");
        self.shards[index] = Some(shard);
    }

    /// Gives a shard away, if it is at hand.
    pub fn take(&mut self, index: usize) -> Option<Box<Shard>> {
        self.shards[index].take()
    }

    /// Whether a shard is at hand.
    pub fn has(&self, index: usize) -> bool {
        self.shards[index].is_some()
    }

    /// How many shards the server has.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The shards at hand.
    pub fn shards(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.shards.iter_mut().flatten().map(|shard| &mut **shard)
    }

    /// The shard in which a key belongs.
    pub fn shard_of(&mut self, key: &[u8]) -> usize {
        self.home(key).shard
    }

    /// A shard that is at hand.
    ///
    /// # Panics
    /// When it is not: the table of commands said which keys this one uses.
    #[inline]
    pub fn shard(&mut self, index: usize) -> &mut Shard {
        self.shards[index].as_mut().expect("the command's shards are at hand")
    }

    /// Begins a command: its database, and the time it runs at, in milliseconds since 1970.
    pub fn begin(&mut self, db: usize, now_ms: u64) {
        self.db = db;
        self.now_ms = now_ms;
    }

    /// The time of the command, in milliseconds since 1970. It stands still while the command runs.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The database of the command.
    pub fn db(&self) -> usize {
        self.db
    }

    /// Does something in another database.
    pub fn in_db<R>(&mut self, db: usize, f: impl FnOnce(&mut Keys) -> R) -> R {
        let before = std::mem::replace(&mut self.db, db);
        let result = f(self);
        self.db = before;
        result
    }

    // Reading.

    /// The value of a key, for a command that reads it: counts as a hit or a miss and as a use.
    pub fn read(&mut self, key: &[u8]) -> Option<ValueRef<'_>> {
        let home = self.home(key);
        self.gate(home);
        let (now, lfu, no_touch, db) = (self.now_ms, self.lfu, self.no_touch, self.db);
        let Some(slot) = self.alive(home, key) else {
            self.shard(home.shard).stats.misses += 1;
            self.event(EventClass::MISS, "keymiss", key);
            return None;
        };
        let Shard { dbs, random, stats, .. } = self.shard(home.shard);
        stats.hits += 1;
        Some(dbs[db].use_value(slot, |access| match lfu {
            _ if no_touch => access,
            Some(lfu) => lfu.used(access, now, random),
            None => seconds(now),
        }))
    }

    /// The value of a key, without a trace of the look in its statistics and use.
    pub fn peek(&mut self, key: &[u8]) -> Option<ValueRef<'_>> {
        let home = self.home(key);
        self.gate(home);
        let slot = self.alive(home, key)?;
        Some(self.table_at(home).value(slot))
    }

    /// The value of a key that this command has read or peeked at. Several can be looked at together.
    pub fn value(&self, key: &[u8]) -> Option<ValueRef<'_>> {
        let hash = if self.last.0 == key { self.last.1 } else { hash_of(key) };
        let shard = self.shards[shard_of_hash(hash, self.shards.len())].as_ref()?;
        let db = &shard.dbs[self.db];
        Some(db.value(db.find_hashed(hash, key)?))
    }

    /// A source of chance of its own, for what is picked at random in a key's value.
    pub fn chance(&mut self, key: &[u8]) -> fastrand::Rng {
        let home = self.home(key);
        self.shard(home.shard).random.fork()
    }

    /// The type of a key's value, as [`Keys::peek`].
    pub fn kind(&mut self, key: &[u8]) -> Option<Kind> {
        self.peek(key).map(|value| value.kind())
    }

    /// Whether there is such a key, as [`Keys::peek`].
    pub fn contains(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    /// The string at a key, as [`Keys::read`].
    #[inline]
    pub fn string(&mut self, key: &[u8]) -> Result<Option<StrRef<'_>>, Error> {
        match self.read(key) {
            None => Ok(None),
            Some(ValueRef::Str(string)) => Ok(Some(string)),
            Some(_) => Err(Error::WRONG_TYPE),
        }
    }

    /// Whether there is such a key, for a command that says so: counts as a hit or a miss, not as a use.
    pub fn exists(&mut self, key: &[u8]) -> bool {
        let no_touch = std::mem::replace(&mut self.no_touch, true);
        let found = self.read(key).is_some();
        self.no_touch = no_touch;
        found
    }

    /// When or how often a key was used, as [`Keys::peek`].
    pub fn access(&mut self, key: &[u8]) -> Option<Access> {
        let home = self.home(key);
        self.gate(home);
        let slot = self.alive(home, key)?;
        Some(self.table_at(home).access(slot))
    }

    /// The number of keys in the database, expired ones that were not removed yet among them.
    pub fn count(&mut self) -> usize {
        let db = self.db;
        self.shards().map(|shard| shard.dbs[db].len()).sum()
    }

    /// A key of the database picked at random, each about as likely as any other.
    pub fn random_key(&mut self) -> Option<Vec<u8>> {
        let db = self.db;
        loop {
            let count = self.count();
            let mut nth = match self.shards().next() {
                Some(shard) if count > 0 => shard.random.usize(..count),
                _ => return None,
            };
            let mut shards = self.shards();
            let shard = shards.find(|shard| {
                let len = shard.dbs[db].len();
                let found = nth < len;
                nth = nth.wrapping_sub(len);
                found
            })?;
            let slot = shard.dbs[db].random(&mut shard.random)?;
            let key = shard.dbs[db].key(slot).to_vec();
            drop(shards);
            let home = self.home(&key);
            if self.alive(home, &key).is_some() {
                return Some(key);
            }
        }
    }

    /// Visits about `count` keys of the database from `cursor` on, in all shards, and gives the cursor to go on
    /// with, 0 at the end. A key that is there from the first to the last call is visited at least once; one
    /// whose time has come is visited also.
    pub fn scan(&mut self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8])) -> u64 {
        let db = self.db;
        let shards = self.shards.len() as u64;
        // The shard is in the lowest bits of the cursor, where the shard's own is above them.
        let bits = shards.next_power_of_two().trailing_zeros();
        let (mut index, mut within) = (cursor & ((1 << bits) - 1), cursor >> bits);
        let mut visited = 0;
        while index < shards {
            // A sparse table may take some steps to its next key.
            let mut steps = 10;
            while visited < count && steps > 0 {
                let table = &self.shard(index as usize).dbs[db];
                within = table.scan(within, count - visited, |table, slot| {
                    visited += 1;
                    visit(table.key(slot));
                });
                debug_assert!(within <= u64::MAX >> bits, "cursors of a shard leave room");
                if within == 0 {
                    break;
                }
                steps -= 1;
            }
            if within != 0 {
                return within << bits | index;
            }
            index += 1;
            if visited >= count && index < shards {
                return index;
            }
        }
        0
    }

    /// Keeps the keys of all databases in order from now on, in the shards at hand. There are none yet.
    pub fn keep_order(&mut self) {
        self.shards().flat_map(|shard| &mut shard.dbs).for_each(Db::keep_order);
    }

    /// Whether the keys are kept in order.
    pub fn is_ordered(&self) -> bool {
        self.shards.iter().flatten().all(|shard| shard.dbs[self.db].ordered().is_some())
    }

    /// Visits the keys of the database between two bounds in the order of their bytes, in all shards together, the
    /// lowest or the highest first, until `visit` gives false. Keys whose time has come are not visited.
    ///
    /// # Panics
    /// Where keys are not kept in order: ask [`Keys::is_ordered`].
    pub fn range(
        &self,
        min: LexBound<'_>,
        max: LexBound<'_>,
        backwards: bool,
        mut visit: impl FnMut(&[u8]) -> bool,
    ) {
        type Walk<'a> = Box<dyn Iterator<Item = &'a [u8]> + 'a>;
        let tables = self.shards.iter().flatten().map(|shard| &shard.dbs[self.db]);
        let mut walks: Vec<(&Db, Peekable<Walk<'_>>)> = Vec::new();
        for table in tables {
            let ordered = table.ordered().expect("keys are kept in order");
            let range = ordered.range(min, max);
            let walk: Walk<'_> = if backwards { Box::new(range.rev()) } else { Box::new(range) };
            walks.push((table, walk.peekable()));
        }
        loop {
            let heads = walks.iter_mut().enumerate();
            let heads = heads.filter_map(|(at, (_, walk))| walk.peek().map(|key| (*key, at)));
            let Some((key, at)) = (if backwards { heads.max() } else { heads.min() }) else {
                return;
            };
            let (table, walk) = &mut walks[at];
            walk.next();
            let is_alive =
                |slot| self.replaying || table.expires_ms(slot).is_none_or(|ms| ms > self.now_ms);
            if table.find(key).is_some_and(is_alive) && !visit(key) {
                return;
            }
        }
    }

    /// When a key expires, in milliseconds since 1970: `None` where there is no key, `Some(None)` where it stays.
    pub fn expires_ms(&mut self, key: &[u8]) -> Option<Option<u64>> {
        let home = self.home(key);
        self.gate(home);
        let slot = self.alive(home, key)?;
        Some(self.table_at(home).expires_ms(slot))
    }

    // Changing. Say what was changed with `changed`.

    /// The string at a key, to be changed in place. `None` where there is no key.
    pub fn string_mut(&mut self, key: &[u8]) -> Result<Option<&mut Vec<u8>>, Error> {
        let home = self.home(key);
        match self.slot_mut(home, key) {
            None => Ok(None),
            Some(slot) => self.table_at(home).string_mut(slot).map(Some).ok_or(Error::WRONG_TYPE),
        }
    }

    /// Sets a key to a value of any type, whatever was there, and keeps its time of expiry.
    pub fn insert_keeping_expiry(&mut self, key: &[u8], value: Value) {
        self.put_value(key, value, Expiry::Keep);
    }

    /// Sets a key to a value of any type, whatever was there, with a time of expiry or none.
    pub fn insert(&mut self, key: &[u8], value: Value, expires_ms: Option<u64>) {
        self.put_value(key, value, Expiry::Set(expires_ms));
    }

    fn put_value(&mut self, key: &[u8], value: Value, expiry: Expiry) {
        let kind = value.as_ref().kind();
        let home = self.home(key);
        let (found, access) = self.overwritten(home, key);
        self.table_at(home).put(home.hash, key, found, value, expiry, access);
        if found.is_none() {
            self.inserted(key, kind);
        } else if matches!(kind, Kind::List | Kind::Zset) {
            self.ready(key);
        }
    }

    /// Sets a key to a string, whatever was there, and takes away its time of expiry.
    pub fn insert_string(&mut self, key: &[u8], bytes: &[u8]) {
        self.put_string(key, bytes, Expiry::Set(None));
    }

    /// Sets a key to a string, whatever was there, and says what becomes of its time of expiry.
    pub fn put_string(&mut self, key: &[u8], bytes: &[u8], expiry: Expiry) {
        let home = self.home(key);
        let (found, access) = self.overwritten(home, key);
        self.table_at(home).put_string(home.hash, key, found, bytes, expiry, access);
        if found.is_none() {
            self.inserted(key, Kind::String);
        }
    }

    /// Removes a key; whether it was there. Says nothing: call [`Keys::changed`].
    pub fn delete(&mut self, key: &[u8]) -> bool {
        self.take_value(key).is_some()
    }

    /// Takes a key out, with its value and time of expiry. Says nothing: call [`Keys::changed`].
    pub fn take_value(&mut self, key: &[u8]) -> Option<(Value, Option<u64>)> {
        let home = self.home(key);
        let slot = self.slot_mut(home, key)?;
        Some(self.table_at(home).remove_hashed(home.hash, slot))
    }

    /// Removes a key whose value has no elements left, with the event `del`; whether it did.
    pub fn drop_if_empty(&mut self, key: &[u8]) -> bool {
        let empty = match self.peek(key) {
            Some(ValueRef::List(list)) => list.is_empty(),
            Some(ValueRef::Set(set)) => set.is_empty(),
            Some(ValueRef::Hash(hash)) => hash.is_empty(),
            Some(ValueRef::Zset(zset)) => zset.is_empty(),
            Some(ValueRef::Str(_)) | None => false,
        };
        if empty {
            self.delete(key);
            self.event(EventClass::GENERIC, "del", key);
        }
        empty
    }

    /// Sets or takes away a key's time of expiry; whether there is such a key.
    pub fn set_expires_ms(&mut self, key: &[u8], expires_ms: Option<u64>) -> bool {
        let home = self.home(key);
        match self.slot_mut(home, key) {
            Some(slot) => {
                self.table_at(home).set_expires_ms(slot, expires_ms);
                true
            }
            None => false,
        }
    }

    /// Removes all keys of a database, in the shards at hand, and gives the bytes they had, about. Say so with
    /// [`Keys::changed_all`].
    pub fn clear(&mut self, db: usize) -> usize {
        let mut bytes = 0;
        for shard in self.shards() {
            let old = std::mem::take(&mut shard.dbs[db]);
            bytes += old.memory();
            let emptied = old.emptied();
            shard.touch_where(db, |key| old.find(key).is_some());
            shard.dbs[db] = old;
            shard.save_all_first(db);
            let mut old = std::mem::replace(&mut shard.dbs[db], emptied);
            if old.len() > DROPPED_AT_ONCE {
                shard.remains.push(old.take());
            }
        }
        bytes
    }

    /// Exchanges the keys of two databases, in the shards at hand. Who watches or waits stays in their database.
    /// Say so with [`Keys::changed_all`].
    pub fn swap_dbs(&mut self, a: usize, b: usize) {
        let mut ready = Vec::new();
        let now = self.now_ms;
        // A key whose time has come is no change for those who watch it.
        let is_in = |table: &Db, key: &[u8]| {
            table.find(key).is_some_and(|at| table.expires_ms(at).is_none_or(|ms| ms > now))
        };
        for shard in self.shards() {
            shard.dbs.swap(a, b);
            let (in_a, in_b) =
                (std::mem::take(&mut shard.dbs[a]), std::mem::take(&mut shard.dbs[b]));
            for db in [a, b] {
                shard.touch_where(db, |key| is_in(&in_a, key) || is_in(&in_b, key));
            }
            (shard.dbs[a], shard.dbs[b]) = (in_a, in_b);
            shard.swapped(a, b);
            for db in [a, b] {
                let awaited = shard.awaited_keys(db).into_iter();
                let there = awaited.filter(|key| shard.dbs[db].find(key).is_some());
                ready.extend(there.map(|key| (db, key)));
            }
        }
        self.effects.ready.extend(ready);
    }

    /// Says that a key was changed: those who watch it are told, the command is logged, and those who subscribed
    /// hear of the event.
    pub fn changed(&mut self, key: &[u8], class: EventClass, event: &'static str) {
        self.changed_quietly(key);
        self.event(class, event, key);
    }

    /// The same without an event.
    pub fn changed_quietly(&mut self, key: &[u8]) {
        self.effects.dirty += 1;
        let (db, home) = (self.db, self.home(key));
        self.effects.written.push(Written::Key(home.shard, home.hash));
        self.shard(home.shard).touch(db, key);
        if self.is_tracked {
            self.effects.invalid.push(Invalid::Key { key: key.to_vec(), by_command: true });
        }
    }

    /// Says that any key may have changed.
    pub fn changed_all(&mut self) {
        self.effects.dirty += 1;
        self.effects.written.push(Written::All);
        if self.is_tracked {
            self.effects.invalid.push(Invalid::All);
        }
    }

    /// An event without a change, or beside one.
    pub fn event(&mut self, class: EventClass, name: &'static str, key: &[u8]) {
        if self.events_wanted & class.0 != 0 {
            self.effects.events.push(Event { name, db: self.db, key: key.to_vec() });
        }
    }

    /// The command is logged as this one instead, or as several in order when called several times.
    pub fn log_as<W: AsRef<[u8]>>(&mut self, words: impl IntoIterator<Item = W>) {
        let args = OwnedArgs::of(words);
        match &mut self.effects.log {
            LogAs::Verbatim => self.effects.log = LogAs::Commands(vec![args]),
            LogAs::Commands(commands) => commands.push(args),
        }
    }

    /// The reply says something about all keys of the shards at hand: it waits for all their records.
    pub fn reads_all(&mut self) {
        let gate = self.shards().map(|shard| shard.unsynced_any()).max().unwrap_or(0);
        self.effects.gate = self.effects.gate.max(gate);
    }

    // Who waits.

    /// Sets `flag` when the key changes. A key whose time has come counts as removed already.
    pub fn watch(&mut self, key: &[u8], flag: &Arc<AtomicBool>) {
        let (db, home) = (self.db, self.home(key));
        self.alive(home, key);
        self.shard(home.shard).watch(db, key, flag);
    }

    /// Puts a client into the queue of a key.
    pub fn wait(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        let (db, home) = (self.db, self.home(key));
        self.shard(home.shard).wait(db, key, waiter);
    }

    /// Says that a key has something for those who wait for it. Done by itself when a key is new.
    pub fn ready(&mut self, key: &[u8]) {
        let (db, home) = (self.db, self.home(key));
        if self.shard(home.shard).is_awaited(db, key) {
            self.effects.ready.push((db, key.to_vec()));
        }
    }

    /// Removes a key if its time has come.
    pub fn expire_if_due(&mut self, key: &[u8]) {
        let home = self.home(key);
        self.alive(home, key);
    }

    /// Removes a key whose time has come: logged as a deletion, with the event `expired`.
    pub fn expire(&mut self, key: &[u8]) {
        let (db, home) = (self.db, self.home(key));
        let shard = self.shard(home.shard);
        let Some(slot) = shard.dbs[db].find_hashed(home.hash, key) else {
            return;
        };
        shard.save_first(db, slot);
        shard.dbs[db].remove_hashed(home.hash, slot);
        shard.stats.expired += 1;
        self.gone(home, key);
        self.event(EventClass::EXPIRED, "expired", key);
    }

    /// Removes a key for want of memory: logged as a deletion, with the event `evicted`.
    pub fn evict(&mut self, key: &[u8]) {
        let (db, home) = (self.db, self.home(key));
        let shard = self.shard(home.shard);
        let Some(slot) = shard.dbs[db].find_hashed(home.hash, key) else {
            return;
        };
        shard.save_first(db, slot);
        shard.dbs[db].remove_hashed(home.hash, slot);
        shard.stats.evicted += 1;
        self.gone(home, key);
        self.event(EventClass::EVICTED, "evicted", key);
    }

    fn gone(&mut self, home: Home, key: &[u8]) {
        let db = self.db;
        self.effects.gone.push((db, key.to_vec()));
        self.effects.written.push(Written::Key(home.shard, home.hash));
        self.shard(home.shard).touch(db, key);
        if self.is_tracked {
            self.effects.invalid.push(Invalid::Key { key: key.to_vec(), by_command: false });
        }
    }

    /// The slot of a key that is there and whose time has not come.
    #[inline]
    fn alive(&mut self, home: Home, key: &[u8]) -> Option<Slot> {
        let (now, replaying) = (self.now_ms, self.replaying);
        let db = self.table_at(home);
        let slot = db.find_hashed(home.hash, key)?;
        if !db.expires(slot) || replaying || db.expires_ms(slot).is_none_or(|at| at > now) {
            return Some(slot);
        }
        if !self.keeps_expired {
            self.expire(key);
        }
        None
    }

    /// The slot of a key that is about to be changed, which is a use of it.
    fn slot_mut(&mut self, home: Home, key: &[u8]) -> Option<Slot> {
        let slot = self.slot_saved(home, key)?;
        let access = self.used(home, slot);
        self.table_at(home).set_access(slot, access);
        Some(slot)
    }

    /// The slot of a key that is about to be changed, which the snapshot has then.
    #[inline]
    fn slot_saved(&mut self, home: Home, key: &[u8]) -> Option<Slot> {
        self.gate(home);
        let keeps_expired = std::mem::replace(&mut self.keeps_expired, false);
        let slot = self.alive(home, key);
        self.keeps_expired = keeps_expired;
        let slot = slot?;
        let db = self.db;
        self.shard(home.shard).save_first(db, slot);
        Some(slot)
    }

    /// Where a key lies that is about to be set, and the access it then has: another value is used no less
    /// often.
    fn overwritten(&mut self, home: Home, key: &[u8]) -> (Option<Slot>, Access) {
        match self.slot_saved(home, key) {
            Some(slot) => (Some(slot), self.used(home, slot)),
            None => (None, self.fresh_access()),
        }
    }

    /// The access of a key that is used now: as it was, if the client asked for no trace.
    #[inline]
    fn used(&mut self, home: Home, slot: Slot) -> Access {
        let (db, now, lfu, no_touch) = (self.db, self.now_ms, self.lfu, self.no_touch);
        let Shard { dbs, random, .. } = self.shard(home.shard);
        match lfu {
            _ if no_touch => dbs[db].access(slot),
            Some(lfu) => lfu.used(dbs[db].access(slot), now, random),
            None => seconds(now),
        }
    }

    fn slot_or_insert(&mut self, home: Home, key: &[u8], make: impl FnOnce() -> Value) -> Slot {
        if let Some(slot) = self.slot_mut(home, key) {
            return slot;
        }
        let value = make();
        let kind = value.as_ref().kind();
        let access = self.fresh_access();
        let slot = self.table_at(home).put(home.hash, key, None, value, Expiry::Keep, access);
        self.inserted(key, kind);
        slot
    }

    fn inserted(&mut self, key: &[u8], kind: Kind) {
        self.event(EventClass::NEW, "new", key);
        if matches!(kind, Kind::List | Kind::Zset) {
            self.ready(key);
        }
    }

    /// The reply is to wait for the key's record.
    #[inline]
    fn gate(&mut self, home: Home) {
        let shard = self.shard(home.shard);
        if shard.unsynced_any() != 0 {
            let lsn = shard.unsynced(home.hash);
            self.effects.gate = self.effects.gate.max(lsn);
        }
    }

    fn fresh_access(&self) -> Access {
        if self.lfu.is_some() { Lfu::fresh(self.now_ms) } else { seconds(self.now_ms) }
    }

    /// Where a key belongs. Of the same key as the last time it is known.
    #[inline]
    fn home(&mut self, key: &[u8]) -> Home {
        if !self.expected.is_empty()
            && let Some(hash) = self.expected_hash(key)
        {
            return Home { shard: shard_of_hash(hash, self.shards.len()), hash };
        }
        let (last, hash) = &mut self.last;
        if last != key {
            last.clear();
            last.extend_from_slice(key);
            *hash = hash_of(key);
        }
        Home { shard: shard_of_hash(*hash, self.shards.len()), hash: *hash }
    }

    /// Notes that a key is likely to be looked for soon, as these very bytes: they have to stay where they are until
    /// [`Keys::forget_expected`]. Later ones lie behind earlier ones.
    pub fn expect(&mut self, key: &[u8]) {
        let (start, len) = (key.as_ptr().addr(), key.len());
        self.expected.push(Expected { start, len, hash: hash_of(key) });
    }

    /// The bytes that were expected may go.
    pub fn forget_expected(&mut self) {
        self.expected.clear();
        self.next_expected = 0;
    }

    /// The hash of a key that was expected.
    #[inline]
    fn expected_hash(&mut self, key: &[u8]) -> Option<u64> {
        let start = key.as_ptr().addr();
        let next = loop {
            let next = self.expected.get(self.next_expected)?;
            if next.start >= start {
                break next;
            }
            self.next_expected += 1;
        };
        if next.start != start || next.len != key.len() {
            return None;
        }
        debug_assert_eq!(next.hash, hash_of(key), "expected keys stay where they are");
        Some(next.hash)
    }

    /// Brings the expected keys of a database that lie in this shard nearer to the processor, if it is at hand.
    pub fn prepare(&mut self, db: usize, index: usize) {
        if self.expected.len() < 2 {
            return;
        }
        let count = self.shards.len();
        let hashes = self.expected.iter().map(|expected| expected.hash);
        self.near.clear();
        self.near.extend(hashes.filter(|&hash| count == 1 || shard_of_hash(hash, count) == index));
        if self.near.len() > 1
            && let Some(shard) = &self.shards[index]
        {
            shard.dbs[db].touch(&self.near);
        }
    }

    #[inline]
    fn table_at(&mut self, home: Home) -> &mut Db {
        let db = self.db;
        &mut self.shard(home.shard).dbs[db]
    }

    /// The table in which a key of the command's database lies.
    pub fn table(&mut self, key: &[u8]) -> &mut Db {
        let home = self.home(key);
        self.table_at(home)
    }
}

/// Reading and changing the values of a type that has elements.
macro_rules! elements {
    ($name:literal, $Type:ident: $read:ident, $change:ident, $change_or_insert:ident) => {
        #[doc = concat!("The ", $name, " at a key, as [`Keys::read`].")]
        pub fn $read(&mut self, key: &[u8]) -> Result<Option<&$Type>, Error> {
            match self.read(key) {
                None => Ok(None),
                Some(ValueRef::$Type(value)) => Ok(Some(value)),
                Some(_) => Err(Error::WRONG_TYPE),
            }
        }

        #[doc = concat!("The ", $name, " at a key, to be changed. `None` where there is no key.")]
        pub fn $change(&mut self, key: &[u8]) -> Result<Option<&mut $Type>, Error> {
            let home = self.home(key);
            match self.slot_mut(home, key) {
                None => Ok(None),
                Some(slot) => self.table_at(home).$change(slot).map(Some).ok_or(Error::WRONG_TYPE),
            }
        }

        #[doc = concat!("The ", $name, " at a key, to be added to: an empty one where there was no key.")]
        pub fn $change_or_insert(&mut self, key: &[u8]) -> Result<&mut $Type, Error> {
            let home = self.home(key);
            let slot = self.slot_or_insert(home, key, || Value::$Type(Box::default()));
            self.table_at(home).$change(slot).ok_or(Error::WRONG_TYPE)
        }
    };
}

impl Keys {
    elements!("list", List: list, list_mut, list_or_insert);
    elements!("set", Set: set, set_mut, set_or_insert);
    elements!("hash", Hash: hash, hash_mut, hash_or_insert);
    elements!("sorted set", Zset: zset, zset_mut, zset_or_insert);
}
