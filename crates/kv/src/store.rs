//! The data: shards, their databases, and the types of values. Knows no protocol and no I/O.

mod access;
pub mod db;
mod hash;
mod intset;
mod keys;
mod layout;
mod limits;
mod list;
mod ordered;
mod packed;
mod set;
mod shard;
mod slab;
mod table;
mod tracked;
mod tree;
mod value;
mod zset;

pub use access::{Lfu, seconds};
pub use db::{Access, Db, Expiry, Remains, Slot};
pub use hash::Hash;
pub use keys::{Effects, Event, EventClass, Invalid, Keys, LogAs, Written};
pub use limits::Limits;
pub use list::{Elements, List, Side};
pub use set::{Member, Set};
pub use shard::{DBS, Lsn, Saver, Shard, Slice, Stats, Waiter, hash_of, shard_of, shard_of_hash};
pub use tracked::Tracked;
pub use value::{Kind, StrRef, Value, ValueRef};
pub use zset::{LexBound, ScoreBound, Zset};
