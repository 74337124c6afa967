//! What the tests of `omniring kv` as a process share.
#![allow(dead_code, unused_imports)] // Each test takes what it needs.

mod client;
pub mod ledger;
mod server;

pub use client::{Answer, Client, PATIENCE, encode};
pub use server::Server;
