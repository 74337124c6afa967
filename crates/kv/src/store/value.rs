//! A value of any type, and how it is looked at.

use std::sync::Arc;

use super::{Hash, List, Set, Zset};
use crate::protocol::parse_i64;

/// The type of a value, as `TYPE` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, or an integer.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A hash of fields.
    Hash,
    /// A sorted set.
    Zset,
}

impl Kind {
    /// Its name in `TYPE` and `SCAN ... TYPE`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::Hash => "hash",
            Kind::Zset => "zset",
        }
    }
}

/// A value that stands for itself.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string that is the decimal text of an integer.
    Int(i64),
    /// A short string that was set whole, of at most [`Value::SMALL`] bytes.
    Small(Box<[u8]>),
    /// A string that is long or is changed in place. Shared with replies that are being sent and with the log.
    Str(Arc<Vec<u8>>),
    /// A list; never empty in a database.
    List(Box<List>),
    /// A set; never empty in a database.
    Set(Box<Set>),
    /// A hash; never empty in a database.
    Hash(Box<Hash>),
    /// A sorted set; never empty in a database.
    Zset(Box<Zset>),
}

impl Value {
    /// Up to that many bytes a string that was set whole is `embstr` in `OBJECT ENCODING`.
    pub const SMALL: usize = 44;

    /// A string of these bytes, as an integer where they are the text of one.
    pub fn string(bytes: &[u8]) -> Value {
        match parse_i64(bytes) {
            Some(value) => Value::Int(value),
            None => Value::text(bytes),
        }
    }

    /// A string of these bytes, which is not looked at as a number.
    pub fn text(bytes: &[u8]) -> Value {
        if bytes.len() <= Value::SMALL {
            Value::Small(bytes.into())
        } else {
            Value::Str(Arc::new(bytes.to_vec()))
        }
    }

    /// The bytes of memory that the value has besides its own place, about.
    pub fn memory(&self) -> usize {
        match self {
            Value::Int(_) => 0,
            Value::Small(bytes) => bytes.len() + 8,
            Value::Str(bytes) => {
                size_of::<[usize; 2]>() + size_of::<Vec<u8>>() + bytes.capacity() + 16
            }
            Value::List(list) => size_of::<List>() + list.memory(),
            Value::Set(set) => size_of::<Set>() + set.memory(),
            Value::Hash(hash) => size_of::<Hash>() + hash.memory(),
            Value::Zset(zset) => size_of::<Zset>() + zset.memory(),
        }
    }

    /// The value, looked at.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Int(value) => ValueRef::Str(StrRef::Int(*value)),
            Value::Small(bytes) => ValueRef::Str(StrRef::Bytes(bytes)),
            Value::Str(bytes) => ValueRef::Str(StrRef::Shared(bytes)),
            Value::List(list) => ValueRef::List(list),
            Value::Set(set) => ValueRef::Set(set),
            Value::Hash(hash) => ValueRef::Hash(hash),
            Value::Zset(zset) => ValueRef::Zset(zset),
        }
    }
}

/// A value that lies in a database.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// A string.
    Str(StrRef<'a>),
    /// A list.
    List(&'a List),
    /// A set.
    Set(&'a Set),
    /// A hash.
    Hash(&'a Hash),
    /// A sorted set.
    Zset(&'a Zset),
}

impl ValueRef<'_> {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            ValueRef::Str(_) => Kind::String,
            ValueRef::List(_) => Kind::List,
            ValueRef::Set(_) => Kind::Set,
            ValueRef::Hash(_) => Kind::Hash,
            ValueRef::Zset(_) => Kind::Zset,
        }
    }

    /// A copy that stands for itself.
    pub fn to_value(&self) -> Value {
        match self {
            ValueRef::Str(StrRef::Int(value)) => Value::Int(*value),
            ValueRef::Str(StrRef::Bytes(bytes)) => Value::text(bytes),
            ValueRef::Str(StrRef::Shared(bytes)) => Value::Str((*bytes).clone()),
            ValueRef::List(list) => Value::List(Box::new((*list).clone())),
            ValueRef::Set(set) => Value::Set(Box::new((*set).clone())),
            ValueRef::Hash(hash) => Value::Hash(Box::new((*hash).clone())),
            ValueRef::Zset(zset) => Value::Zset(Box::new((*zset).clone())),
        }
    }

    /// The name of its encoding, as `OBJECT ENCODING` has it.
    pub fn encoding(&self) -> &'static str {
        match self {
            ValueRef::Str(StrRef::Int(_)) => "int",
            ValueRef::Str(StrRef::Bytes(bytes)) if bytes.len() <= Value::SMALL => "embstr",
            ValueRef::Str(_) => "raw",
            ValueRef::List(_) => "quicklist",
            ValueRef::Set(set) => set.encoding(),
            ValueRef::Hash(hash) => hash.encoding(),
            ValueRef::Zset(zset) => zset.encoding(),
        }
    }
}

/// A string that lies in a database.
#[derive(Clone, Copy, Debug)]
pub enum StrRef<'a> {
    /// The text of an integer.
    Int(i64),
    /// Bytes that were set whole.
    Bytes(&'a [u8]),
    /// Bytes with memory of their own: long ones, and those that are changed in place.
    Shared(&'a Arc<Vec<u8>>),
}

impl<'a> StrRef<'a> {
    /// The length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            StrRef::Int(value) => itoa::Buffer::new().format(*value).len(),
            StrRef::Bytes(bytes) => bytes.len(),
            StrRef::Shared(bytes) => bytes.len(),
        }
    }

    /// Calls `f` with the bytes.
    pub fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            StrRef::Int(value) => f(itoa::Buffer::new().format(*value).as_bytes()),
            StrRef::Bytes(bytes) => f(bytes),
            StrRef::Shared(bytes) => f(bytes),
        }
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.with(<[u8]>::to_vec)
    }

    /// The integer that the string is the text of.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            StrRef::Int(value) => Some(*value),
            StrRef::Bytes(bytes) => parse_i64(bytes),
            StrRef::Shared(bytes) => parse_i64(bytes),
        }
    }
}
