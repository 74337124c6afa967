//! The example programs, with clients that nobody here wrote: curl, cmp and diff, a crate for beanstalkd.

#[path = "../conformance/harness.rs"]
#[allow(dead_code, reason = "the conformance suite needs more of it")]
mod harness;
mod program;
#[path = "../../../adapters/tests/adapters/programs.rs"]
#[allow(dead_code, reason = "the adapters need more of it")]
mod programs;

/// As `conformance!`, on engines that stand for the others: the programs are the same on all, and what they
/// are made of is tested on all elsewhere.
macro_rules! on_some_engines {
    ($($case:ident),* $(,)?) => {
        crate::harness::conformance!(@tests Uring, uring, [$($case)*], []);
        crate::harness::conformance!(@tests Epoll, epoll, [$($case)*], []);
    };
}

mod cp;
mod job_queue;
mod proxy;
