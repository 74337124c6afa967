//! `omniring kv`: a durable store that speaks Redis' protocol, and whose reads never wait for the disk.
//!
//! # Layout
//! - [`protocol`]: bytes to requests and replies to bytes. Knows no sockets.
//! - [`store`]: the data: shards, databases, and the types of values. Knows no protocol and no I/O.
//! - [`command`]: what each command does to the data, and the table of them.
//! - `server`: sockets, connections, and whose turn it is: the only part that waits.
//! - [`log`]: the append-only log, snapshots and recovery.
//! - [`rdb`]: Redis' own files, to move from and to it.
//! - [`report`]: what the server says of itself, a line for each event.
#![forbid(unsafe_code)]

pub mod clock;
pub mod command;
pub mod config;
pub mod error;
pub mod glob;
pub mod log;
pub mod protocol;
pub mod rdb;
pub mod report;
pub mod server;
pub mod store;

pub use error::Error;

/// The version of Redis whose commands these are, which clients ask for.
pub const REDIS_VERSION: &str = "7.0.15";
