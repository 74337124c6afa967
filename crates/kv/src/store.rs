//! The data: shards, their databases, and the types of values. Knows no protocol and no I/O.

pub mod db;
mod hash;
mod keys;
mod limits;
mod list;
mod set;
mod shard;
mod value;
mod zset;

pub use db::{Access, Db, Slot};
pub use hash::Hash;
pub use keys::{
    Effects, Event, EventClass, Keys, LogAs, Written, lfu_access, lfu_count, minutes, seconds,
};
pub use limits::Limits;
pub use list::{Elements, List, Side};
pub use set::{Member, Set};
pub use shard::{DBS, Lsn, Saver, Shard, Slice, Stats, Waiter, hash_of, shard_of};
pub use value::{Kind, StrRef, Value, ValueRef};
pub use zset::{LexBound, ScoreBound, Zset};
