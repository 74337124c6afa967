//! Every adapter on every engine, with clients and servers that know nothing of omniring: curl, openssl,
//! the standard library, and crates on tokio.

#[path = "../../../omniring/tests/conformance/harness.rs"]
#[allow(dead_code, reason = "the suite of omniring needs more of it")]
mod harness;
mod programs;
mod site;

/// As `conformance!`, on four engines that stand for the others: these cases are many and take long, and
/// what differs between engines lies below the adapters, whose own cases run on all.
macro_rules! on_some_engines {
    ($($case:ident),* $(,)? $(; isolated: $($isolated:ident),* $(,)?)?) => {
        crate::harness::conformance!(@tests Uring, uring, [$($case)*], [$($($isolated)*)?]);
        crate::harness::conformance!(
            @tests Uring.direct_descriptors(10_000),
            uring_direct, [$($case)*], [$($($isolated)*)?]
        );
        crate::harness::conformance!(@tests Epoll, epoll, [$($case)*], [$($($isolated)*)?]);
        crate::harness::conformance!(@tests Threads, threads, [$($case)*], [$($($isolated)*)?]);
    };
}

/// As `on_some_engines!`, on the ring and without it: example programs, each of which is a process.
macro_rules! on_two_engines {
    ($($case:ident),* $(,)?) => {
        crate::harness::conformance!(@tests Uring, uring, [$($case)*], []);
        crate::harness::conformance!(@tests Epoll, epoll, [$($case)*], []);
    };
}

mod axum;
mod chat;
mod examples;
mod futures_io;
mod http;
mod http_client;
mod http_server;
mod quic;
mod quic_transfer;
mod tls;
mod tokio_io;
