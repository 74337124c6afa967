//! One database of a shard: keys, their values, times of expiry and of use.
//!
//! An entry of the table is, in bytes: flags, access (3), the key behind its length, the time of expiry (8) where
//! there is one, and the content: an integer (8), a short string behind its length, or the number (4) of a value
//! that lies elsewhere.

use std::sync::Arc;

use super::layout::{Layout, Len, read_len, read_u64, sized};
use super::ordered::Ordered;
use super::slab::Slab;
use super::table::{self, Table};
use super::{Hash, Kind, List, Set, StrRef, Value, ValueRef, Zset, hash_of};
use crate::protocol::parse_i64;

pub use super::table::{CURSOR_BITS, Slot};

/// When, or how often, a key was used: 24 bits, whose meaning `maxmemory-policy` decides.
pub type Access = u32;

/// Bytes of a string that lies beside its key, at most.
const LONGEST_INLINE: usize = 192;

/// Bytes of an entry before its key.
const HEAD: usize = 4;

/// The flag of a key that expires.
const EXPIRES: u8 = 1 << 3;
/// The epoch of a key.
const EPOCH: u8 = 1 << 4;

/// What an entry's content is: the lowest three bits of its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Int,
    Inline,
    /// In the slab; the type is told, so that it need not be looked at for that.
    Apart(Kind),
}

impl Content {
    #[inline]
    fn of(flags: u8) -> Content {
        match flags & 7 {
            0 => Content::Int,
            1 => Content::Inline,
            2 => Content::Apart(Kind::String),
            3 => Content::Apart(Kind::List),
            4 => Content::Apart(Kind::Set),
            5 => Content::Apart(Kind::Hash),
            6 => Content::Apart(Kind::Zset),
            _ => unreachable!("there are no such contents"),
        }
    }

    fn flags(self) -> u8 {
        match self {
            Content::Int => 0,
            Content::Inline => 1,
            Content::Apart(Kind::String) => 2,
            Content::Apart(Kind::List) => 3,
            Content::Apart(Kind::Set) => 4,
            Content::Apart(Kind::Hash) => 5,
            Content::Apart(Kind::Zset) => 6,
        }
    }
}

/// The layout of entries.
#[derive(Clone, Copy, Debug)]
enum Keyed {}

impl Keyed {
    #[inline]
    fn content_at(entry: &[u8]) -> usize {
        let (len, head) = read_len(&entry[HEAD..]);
        HEAD + head + len + if Keyed::expires(entry) { 8 } else { 0 }
    }
}

impl Layout for Keyed {
    #[inline]
    fn key(entry: &[u8]) -> &[u8] {
        sized(&entry[HEAD..])
    }

    #[inline]
    fn len(entry: &[u8]) -> usize {
        let at = Keyed::content_at(entry);
        at + match Content::of(entry[0]) {
            Content::Int => 8,
            Content::Inline => {
                let (len, head) = read_len(&entry[at..]);
                head + len
            }
            Content::Apart(_) => 4,
        }
    }

    #[inline]
    fn expires(entry: &[u8]) -> bool {
        entry[0] & EXPIRES != 0
    }
}

/// A content to be written.
enum New<'a> {
    Int(i64),
    Inline(&'a [u8]),
    Apart(Kind, u32),
}

/// What becomes of a key's time of expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It stays as it is.
    Keep,
    /// It is set, or taken away.
    Set(Option<u64>),
}

/// A database.
#[derive(Debug, Default)]
pub struct Db {
    table: Table<Keyed>,
    values: Slab<Value, 1024>,
    /// Bytes of values' own memory, as far as is known.
    value_bytes: usize,
    /// A value that may have been changed since, and the bytes it had.
    changed: Option<(u32, usize)>,
    /// The epoch of new keys.
    epoch: bool,
    /// The keys in order, where they are kept so.
    ordered: Option<Box<Ordered>>,
}

/// What gives the value that lies somewhere, to be changed, where it is of this type.
macro_rules! value_mut {
    ($name:ident, $Type:ident) => {
        #[doc = concat!("The ", stringify!($Type), " that lies there, to be changed.")]
        pub fn $name(&mut self, slot: Slot) -> Option<&mut $Type> {
            match self.value_mut(slot)? {
                Value::$Type(value) => Some(value),
                _ => None,
            }
        }
    };
}

impl Db {
    value_mut!(list_mut, List);
    value_mut!(set_mut, Set);
    value_mut!(hash_mut, Hash);
    value_mut!(zset_mut, Zset);
}

impl Db {
    /// An empty database.
    pub fn new() -> Db {
        Db::default()
    }

    /// An empty database that keeps its keys in order if this one does, and has its epoch.
    pub fn emptied(&self) -> Db {
        let ordered = self.ordered.is_some().then(Box::default);
        Db { epoch: self.epoch, ordered, ..Db::default() }
    }

    /// Keeps the keys in order from now on. There are none yet.
    pub fn keep_order(&mut self) {
        debug_assert!(self.is_empty(), "the order is of all keys");
        self.ordered = Some(Box::default());
    }

    /// The keys in order, where they are kept so.
    pub fn ordered(&self) -> Option<&Ordered> {
        self.ordered.as_deref()
    }

    /// The number of keys, expired ones that were not removed yet among them.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The number of keys that expire.
    pub fn expiring(&self) -> usize {
        self.table.expiring()
    }

    /// Where a key lies, if it is there.
    pub fn find(&self, key: &[u8]) -> Option<Slot> {
        self.table.find(hash_of(key), key)
    }

    /// The same where the key's hash is known.
    #[inline]
    pub fn find_hashed(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        self.table.find(hash, key)
    }

    /// Brings into the processor's caches what searches for keys with these hashes will read.
    pub fn touch(&self, hashes: &[u64]) {
        self.table.touch(hashes);
    }

    /// The key that lies there.
    pub fn key(&self, slot: Slot) -> &[u8] {
        Keyed::key(self.table.entry(slot))
    }

    /// The value that lies there.
    #[inline]
    pub fn value(&self, slot: Slot) -> ValueRef<'_> {
        let entry = self.table.entry(slot);
        let content = &entry[Keyed::content_at(entry)..];
        match Content::of(entry[0]) {
            Content::Int => ValueRef::Str(StrRef::Int(read_u64(content) as i64)),
            Content::Inline => ValueRef::Str(StrRef::Bytes(sized(content))),
            Content::Apart(_) => self.values[read_number(content)].as_ref(),
        }
    }

    /// The type of the value that lies there.
    pub fn kind(&self, slot: Slot) -> Kind {
        match Content::of(self.table.entry(slot)[0]) {
            Content::Int | Content::Inline => Kind::String,
            Content::Apart(kind) => kind,
        }
    }

    /// The value that lies there, after noting that it is used: `used` makes the new access of the old one.
    #[inline]
    pub fn use_value(&mut self, slot: Slot, used: impl FnOnce(Access) -> Access) -> ValueRef<'_> {
        let entry = self.table.entry_mut(slot);
        let access = used(u32::from_le_bytes([entry[1], entry[2], entry[3], 0]));
        entry[1..HEAD].copy_from_slice(&access.to_le_bytes()[..3]);
        let content = &entry[Keyed::content_at(entry)..];
        match Content::of(entry[0]) {
            Content::Int => ValueRef::Str(StrRef::Int(read_u64(content) as i64)),
            Content::Inline => ValueRef::Str(StrRef::Bytes(sized(content))),
            Content::Apart(_) => self.values[read_number(content)].as_ref(),
        }
    }

    /// Whether the key has a time of expiry.
    #[inline]
    pub fn expires(&self, slot: Slot) -> bool {
        Keyed::expires(self.table.entry(slot))
    }

    /// When the key expires, in milliseconds since 1970.
    #[inline]
    pub fn expires_ms(&self, slot: Slot) -> Option<u64> {
        let entry = self.table.entry(slot);
        Keyed::expires(entry).then(|| read_u64(&entry[Keyed::content_at(entry) - 8..]))
    }

    /// When or how often the key was used.
    pub fn access(&self, slot: Slot) -> Access {
        let entry = self.table.entry(slot);
        u32::from_le_bytes([entry[1], entry[2], entry[3], 0])
    }

    /// Notes when or how often the key was used.
    #[inline]
    pub fn set_access(&mut self, slot: Slot, access: Access) {
        self.table.entry_mut(slot)[1..HEAD].copy_from_slice(&access.to_le_bytes()[..3]);
    }

    /// The epoch that the key carries.
    pub fn epoch(&self, slot: Slot) -> bool {
        self.table.entry(slot)[0] & EPOCH != 0
    }

    /// Sets the epoch that the key carries. The slot stays good.
    pub fn set_epoch(&mut self, slot: Slot, epoch: bool) {
        let flags = &mut self.table.entry_mut(slot)[0];
        *flags = *flags & !EPOCH | if epoch { EPOCH } else { 0 };
    }

    /// The epoch that new keys get. A key that is replaced keeps its own.
    pub fn new_epoch(&self) -> bool {
        self.epoch
    }

    /// Sets the epoch that new keys get.
    pub fn set_new_epoch(&mut self, epoch: bool) {
        self.epoch = epoch;
    }

    /// Sets or takes away the time of expiry, and says where the key lies now.
    pub fn set_expires_ms(&mut self, slot: Slot, expires_ms: Option<u64>) -> Slot {
        let entry = self.table.entry_mut(slot);
        let at = Keyed::content_at(entry);
        match (Keyed::expires(entry), expires_ms) {
            (true, Some(ms)) => {
                entry[at - 8..at].copy_from_slice(&ms.to_le_bytes());
                return slot;
            }
            (false, None) => return slot,
            (true, None) | (false, Some(_)) => {}
        }
        let entry = entry[..Keyed::len(entry)].to_vec();
        let hash = hash_of(Keyed::key(&entry));
        let mut head = [0; HEAD];
        head.copy_from_slice(&entry[..HEAD]);
        head[0] ^= EXPIRES;
        match expires_ms {
            Some(ms) => {
                let parts = [&head[..], &entry[HEAD..at], &ms.to_le_bytes(), &entry[at..]];
                self.table.replace(hash, slot, &parts)
            }
            None => self.table.replace(hash, slot, &[&head, &entry[HEAD..at - 8], &entry[at..]]),
        }
    }

    /// The string that lies there, to be changed: with memory of its own from now on, which no reply or record
    /// of the log shares. `None` for other types.
    pub fn string_mut(&mut self, slot: Slot) -> Option<&mut Vec<u8>> {
        let number = match self.apart(slot) {
            Some((Kind::String, number)) => number,
            Some(_) => return None,
            None => {
                let ValueRef::Str(string) = self.value(slot) else {
                    unreachable!("integers and short strings are strings");
                };
                let value = Value::Str(Arc::new(string.to_vec()));
                let number = self.add(value);
                let (key, access) = (self.key(slot).to_vec(), self.access(slot));
                let new = New::Apart(Kind::String, number);
                self.write(hash_of(&key), &key, Some(slot), new, Expiry::Keep, access);
                number
            }
        };
        match self.changing(number) {
            Value::Str(bytes) => Some(Arc::make_mut(bytes)),
            _ => unreachable!("the entry says that it is a string"),
        }
    }

    /// Sets the value of a key. A key that was there keeps its time of expiry; a new one has none.
    pub fn insert(&mut self, key: &[u8], value: Value, access: Access) -> Slot {
        let hash = hash_of(key);
        let found = self.find_hashed(hash, key);
        self.put(hash, key, found, value, Expiry::Keep, access)
    }

    /// The same for a string, which is kept in the most compact way.
    pub fn insert_string(&mut self, key: &[u8], bytes: &[u8], access: Access) -> Slot {
        let hash = hash_of(key);
        let found = self.find_hashed(hash, key);
        self.put_string(hash, key, found, bytes, Expiry::Keep, access)
    }

    /// The same where the key's hash is known, and `found` is where it lies, if it is there.
    pub fn put(
        &mut self,
        hash: u64,
        key: &[u8],
        found: Option<Slot>,
        value: Value,
        expiry: Expiry,
        access: Access,
    ) -> Slot {
        let value = match value {
            Value::Int(number) => {
                return self.put_here(hash, key, found, New::Int(number), expiry, access);
            }
            Value::Small(bytes) => {
                return self.put_here(hash, key, found, New::Inline(&bytes), expiry, access);
            }
            // A shorter one of this kind was changed in place, and is likely to be again.
            Value::Str(bytes) if (Value::SMALL + 1..=LONGEST_INLINE).contains(&bytes.len()) => {
                return self.put_here(hash, key, found, New::Inline(&bytes), expiry, access);
            }
            value => value,
        };
        let kind = value.as_ref().kind();
        let old = found.and_then(|slot| self.apart(slot));
        let number = match old {
            Some((_, number)) => {
                *self.changing(number) = value;
                number
            }
            None => self.add(value),
        };
        self.write(hash, key, found, New::Apart(kind, number), expiry, access)
    }

    /// The same for a string, which is kept in the most compact way.
    pub fn put_string(
        &mut self,
        hash: u64,
        key: &[u8],
        found: Option<Slot>,
        bytes: &[u8],
        expiry: Expiry,
        access: Access,
    ) -> Slot {
        match parse_i64(bytes) {
            Some(number) => self.put_here(hash, key, found, New::Int(number), expiry, access),
            None if bytes.len() <= LONGEST_INLINE => {
                self.put_here(hash, key, found, New::Inline(bytes), expiry, access)
            }
            None => {
                let value = Value::Str(Arc::new(bytes.to_vec()));
                self.put(hash, key, found, value, expiry, access)
            }
        }
    }

    /// Takes a key out, with its value and time of expiry.
    pub fn remove(&mut self, slot: Slot) -> (Value, Option<u64>) {
        let hash = hash_of(self.key(slot));
        self.remove_hashed(hash, slot)
    }

    /// The same where the key's hash is known.
    pub fn remove_hashed(&mut self, hash: u64, slot: Slot) -> (Value, Option<u64>) {
        let expires_ms = self.expires_ms(slot);
        if let Some(ordered) = &mut self.ordered {
            ordered.remove(Keyed::key(self.table.entry(slot)));
        }
        let value = match self.apart(slot) {
            Some((_, number)) => self.cut(number),
            None => self.value(slot).to_value(),
        };
        self.table.remove(hash, slot);
        (value, expires_ms)
    }

    /// Visits about `count` keys from `cursor` on and gives the cursor to go on with, 0 at the end. A key that is
    /// there from the first to the last call is visited at least once. Cursors have [`CURSOR_BITS`].
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&Db, Slot)) -> u64 {
        self.table.scan(cursor, count, |slot| visit(self, slot))
    }

    /// The same for keys that expire alone. Where few do, a call visits fewer than `count`, as what it looks at
    /// besides is bounded by some times that number.
    pub fn scan_expiring(
        &self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(&Db, Slot),
    ) -> u64 {
        self.table.scan_expiring(cursor, count, |slot| visit(self, slot))
    }

    /// A key picked at random, each about as likely as any other.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<Slot> {
        self.table.random(random)
    }

    /// A key that expires, picked at random.
    pub fn random_expiring(&self, random: &mut fastrand::Rng) -> Option<Slot> {
        self.table.random_expiring(random)
    }

    /// The memory of keys, values and the table, in bytes, about.
    pub fn memory(&self) -> usize {
        let value_bytes = match self.changed {
            Some((number, before)) => self.value_bytes + self.values[number].memory() - before,
            None => self.value_bytes,
        };
        let order_bytes = self.ordered.as_ref().map_or(0, |ordered| ordered.memory());
        self.table.memory() + self.values.memory() + value_bytes + order_bytes
    }

    /// The memory of one key and its value, in bytes, about.
    pub fn usage(&self, slot: Slot) -> usize {
        /// What the index takes for an entry.
        const INDEX: usize = 5;
        let value = match self.apart(slot) {
            Some((_, number)) => size_of::<Value>() + self.values[number].memory(),
            None => 0,
        };
        Keyed::len(self.table.entry(slot)) + INDEX + value
    }

    /// How many keys the index has room for, for `DEBUG HTSTATS`.
    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Takes everything out, to be dropped piece by piece. The epoch of new keys stays.
    pub fn take(&mut self) -> Remains {
        let emptied = self.emptied();
        let Db { mut table, values, ordered, .. } = std::mem::replace(self, emptied);
        Remains { table: table.take(), values, ordered }
    }

    /// The type and number of a value that lies in the slab.
    fn apart(&self, slot: Slot) -> Option<(Kind, u32)> {
        let entry = self.table.entry(slot);
        match Content::of(entry[0]) {
            Content::Apart(kind) => Some((kind, read_number(&entry[Keyed::content_at(entry)..]))),
            Content::Int | Content::Inline => None,
        }
    }

    fn value_mut(&mut self, slot: Slot) -> Option<&mut Value> {
        let (_, number) = self.apart(slot)?;
        Some(self.changing(number))
    }

    /// A value of the slab, to be changed, whose bytes are counted anew later.
    fn changing(&mut self, number: u32) -> &mut Value {
        if self.changed.is_none_or(|(changed, _)| changed != number) {
            self.settle();
            self.changed = Some((number, self.values[number].memory()));
        }
        &mut self.values[number]
    }

    fn settle(&mut self) {
        if let Some((number, before)) = self.changed.take() {
            self.value_bytes = self.value_bytes + self.values[number].memory() - before;
        }
    }

    fn add(&mut self, value: Value) -> u32 {
        self.value_bytes += value.memory();
        self.values.insert(value)
    }

    fn cut(&mut self, number: u32) -> Value {
        self.settle();
        let value = self.values.remove(number);
        self.value_bytes -= value.memory();
        value
    }

    /// Sets the value of a key to one that lies in its entry.
    fn put_here(
        &mut self,
        hash: u64,
        key: &[u8],
        found: Option<Slot>,
        new: New<'_>,
        expiry: Expiry,
        access: Access,
    ) -> Slot {
        if let Some(slot) = found {
            if self.overwrite(slot, &new, expiry, access) {
                return slot;
            }
            if let Some((_, number)) = self.apart(slot) {
                self.cut(number);
            }
        }
        self.write(hash, key, found, new, expiry, access)
    }

    /// Writes a value over one of the same kind and size, as most that replace another are; whether it was one.
    fn overwrite(&mut self, slot: Slot, new: &New<'_>, expiry: Expiry, access: Access) -> bool {
        let entry = self.table.entry_mut(slot);
        let expires = Keyed::expires(entry);
        if matches!(expiry, Expiry::Set(expires_ms) if expires_ms.is_some() != expires) {
            return false;
        }
        let at = Keyed::content_at(entry);
        match (Content::of(entry[0]), new) {
            (Content::Int, New::Int(value)) => {
                entry[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            (Content::Inline, New::Inline(bytes)) => {
                let (len, head) = read_len(&entry[at..]);
                if len != bytes.len() {
                    return false;
                }
                entry[at + head..at + head + len].copy_from_slice(bytes);
            }
            _ => return false,
        }
        if let Expiry::Set(Some(ms)) = expiry {
            entry[at - 8..at].copy_from_slice(&ms.to_le_bytes());
        }
        entry[1..HEAD].copy_from_slice(&access.to_le_bytes()[..3]);
        true
    }

    fn write(
        &mut self,
        hash: u64,
        key: &[u8],
        found: Option<Slot>,
        new: New<'_>,
        expiry: Expiry,
        access: Access,
    ) -> Slot {
        let expires_ms = match (expiry, found) {
            (Expiry::Set(expires_ms), _) => expires_ms,
            (Expiry::Keep, Some(slot)) => self.expires_ms(slot),
            (Expiry::Keep, None) => None,
        };
        let epoch = found.map_or(self.epoch, |slot| self.epoch(slot));
        let (int, number, len);
        let (content, parts): (Content, [&[u8]; 2]) = match new {
            New::Int(value) => {
                int = value.to_le_bytes();
                (Content::Int, [&int, &[]])
            }
            New::Inline(bytes) => {
                len = Len::of(bytes.len());
                (Content::Inline, [&len, bytes])
            }
            New::Apart(kind, at) => {
                number = at.to_le_bytes();
                (Content::Apart(kind), [&number, &[]])
            }
        };
        let mut head = [0; HEAD];
        head[0] = content.flags() | if epoch { EPOCH } else { 0 };
        head[1..].copy_from_slice(&access.to_le_bytes()[..3]);
        let key_len = Len::of(key.len());
        let time;
        let expires: &[u8] = match expires_ms {
            Some(ms) => {
                head[0] |= EXPIRES;
                time = ms.to_le_bytes();
                &time
            }
            None => &[],
        };
        let parts = [&head[..], &key_len, key, expires, parts[0], parts[1]];
        match found {
            Some(slot) => self.table.replace(hash, slot, &parts),
            None => {
                if let Some(ordered) = &mut self.ordered {
                    ordered.insert(key);
                }
                self.table.insert(hash, &parts)
            }
        }
    }
}

fn read_number(content: &[u8]) -> u32 {
    u32::from_le_bytes(content[..4].try_into().expect("four bytes are four bytes"))
}

/// What was in a database, to be dropped piece by piece.
#[derive(Debug)]
pub struct Remains {
    table: table::Remains,
    values: Slab<Value, 1024>,
    ordered: Option<Box<Ordered>>,
}

impl Remains {
    /// Drops about `count` keys; whether any may be left.
    pub fn drop_some(&mut self, count: usize) -> bool {
        const SEGMENT: usize = 256;
        let is_order_left = self.ordered.as_mut().is_some_and(|ordered| ordered.drop_some(count));
        is_order_left
            || self.values.drop_some(count)
            || self.table.drop_some(count.div_ceil(SEGMENT))
    }
}

#[cfg(test)]
mod tests;
