//! Denying io_uring to a thread, and with it to every program that the thread starts, as a
//! container's seccomp profile does.
#![allow(dead_code, reason = "each of those who include this file uses a part of it")]

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// What is denied, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// All of io_uring, with `EPERM`: Docker's default profile.
    Eperm,
    /// All of io_uring, with `ENOSYS`: as on a kernel that has none.
    Enosys,
    /// Only `io_uring_enter`, with `EPERM`: a ring can be made and not used.
    EnterOnly,
    /// All of io_uring and `epoll_create1`, with `EPERM`.
    Epoll,
    /// All of io_uring and of native AIO, with `EPERM`.
    AioToo,
    /// `pidfd_open`, with `ENOSYS`: as on a kernel before 5.3.
    Pidfd,
    /// All of io_uring and `splice`, with `EPERM`.
    Splice,
    /// All of io_uring, by killing the process: a filter that does not answer.
    Kill,
}

impl Denial {
    /// Those that answer, and leave native AIO alone.
    pub const ALL: [Denial; 3] = [Denial::Eperm, Denial::Enosys, Denial::EnterOnly];

    /// What the reason has to say under it.
    pub fn reason(self) -> &'static str {
        match self {
            Denial::Eperm | Denial::Epoll | Denial::AioToo | Denial::Splice => {
                "io_uring_setup is denied (EPERM) by a seccomp filter"
            }
            Denial::Enosys => "io_uring_setup is hidden (ENOSYS) by a seccomp filter",
            Denial::Pidfd => "pidfd_open is hidden",
            Denial::EnterOnly => "io_uring_enter is denied (EPERM) by a seccomp filter",
            Denial::Kill => "the process that tried it was killed (SIGSYS), by a seccomp filter",
        }
    }

    /// Denies it to the calling thread, for good.
    pub fn apply(self) {
        let errno = |errno| SeccompAction::Errno(errno as u32);
        let (calls, action) = match self {
            Denial::Eperm => (&RING_CALLS[..], errno(libc::EPERM)),
            Denial::Enosys => (&RING_CALLS[..], errno(libc::ENOSYS)),
            Denial::EnterOnly => (&RING_CALLS[1..2], errno(libc::EPERM)),
            Denial::Epoll => (&RING_AND_EPOLL_CALLS[..], errno(libc::EPERM)),
            Denial::AioToo => (&RING_AND_AIO_CALLS[..], errno(libc::EPERM)),
            Denial::Splice => (&RING_AND_SPLICE_CALLS[..], errno(libc::EPERM)),
            Denial::Pidfd => (&[libc::SYS_pidfd_open][..], errno(libc::ENOSYS)),
            Denial::Kill => (&RING_CALLS[..], SeccompAction::KillProcess),
        };
        let rules: BTreeMap<i64, _> = calls.iter().map(|&call| (call, Vec::new())).collect();
        let architecture = std::env::consts::ARCH.try_into().expect("seccompiler knows it");
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture)
            .expect("the filter is well-formed");
        let program: BpfProgram = filter.try_into().expect("the filter is short");
        apply_filter(&program).expect("a thread may restrict itself");
    }
}

const RING_AND_EPOLL_CALLS: [i64; 4] =
    [RING_CALLS[0], RING_CALLS[1], RING_CALLS[2], libc::SYS_epoll_create1];
const RING_AND_SPLICE_CALLS: [i64; 4] =
    [RING_CALLS[0], RING_CALLS[1], RING_CALLS[2], libc::SYS_splice];
const RING_CALLS: [i64; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

const RING_AND_AIO_CALLS: [i64; 4] =
    [RING_CALLS[0], RING_CALLS[1], RING_CALLS[2], libc::SYS_io_setup];

/// Runs this in a thread to which io_uring is denied.
pub fn denied<T: Send + 'static>(denial: Denial, run: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        denial.apply();
        run()
    });
    match thread.join() {
        Ok(value) => value,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}
