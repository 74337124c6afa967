//! The conformance suite: every case runs on every engine, by name.
//!
//! `cargo test --test conformance epoll::` runs one engine's cases. A case whose engine does not
//! start on this machine is skipped with the reason; `OMNIRING_REQUIRE=all` makes that a failure.

#[path = "../denial/mod.rs"]
mod denial;
mod harness;
mod loopback;

mod async_fd;
mod basics;
mod block;
mod cancel;
#[cfg(feature = "select")]
mod combinators;
mod connecting;
mod cores;
mod datagrams;
mod direct;
mod durable;
mod fairness;
mod files;
mod fixed;
mod forward;
mod groups;
mod leases;
mod lifecycle;
mod locks;
#[cfg(feature = "metrics")]
mod metrics;
mod mmap;
mod multishot;
mod options;
mod os;
mod passing;
mod past_cache;
mod paths;
mod pipe_ends;
mod pipes;
mod process;
mod read_many;
mod readiness;
mod restricted;
mod send_file;
mod seqpacket;
mod signals;
mod tasks;
mod tcp;
mod tcp_options;
mod terminals;
mod time;
mod timed;
#[cfg(feature = "tracing")]
mod tracing;
mod udp;
mod udp_many;
mod unix;
