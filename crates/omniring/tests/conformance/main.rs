//! The conformance suite: every case runs on every engine, by name.
//!
//! `cargo test --test conformance epoll::` runs one engine's cases. A case whose engine does not
//! start on this machine is skipped with the reason; `OMNIRING_REQUIRE=all` makes that a failure.

#[path = "../denial/mod.rs"]
mod denial;
mod harness;
mod loopback;

mod basics;
mod block;
mod cancel;
#[cfg(feature = "select")]
mod combinators;
mod datagrams;
mod direct;
mod durable;
mod fairness;
mod files;
mod fixed;
mod leases;
mod lifecycle;
#[cfg(feature = "metrics")]
mod metrics;
mod mmap;
mod multishot;
mod options;
mod past_cache;
mod paths;
mod pipes;
mod read_many;
mod readiness;
mod restricted;
mod send_file;
mod tasks;
mod tcp;
mod time;
mod timed;
mod udp;
mod unix;
