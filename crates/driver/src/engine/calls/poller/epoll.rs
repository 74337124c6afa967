//! Readiness by `epoll(7)`: registrations that the kernel keeps.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::c_int;

use super::{Events, Ready, timespec};
use crate::attempt::errno;

/// Events taken out of one wait: bounded, so that the completions of a turn are handled before
/// more are taken.
const EVENTS_MAX: usize = 256;

pub(crate) struct Epoll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// Whether the kernel has `epoll_pwait2` (5.11).
    has_pwait2: bool,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        Ok(Epoll { epoll, events: Vec::with_capacity(EVENTS_MAX), has_pwait2: true })
    }

    /// What is itself readable when something is to be reported.
    pub(crate) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Reports `fd` whenever one of `events` comes (edge-triggered).
    pub(crate) fn watch(&mut self, fd: RawFd, events: Events) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events as u32 | libc::EPOLLET as u32)
    }

    pub(super) fn remove(&mut self, fd: RawFd) {
        // It fails if the descriptor was closed already, which did the same.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0);
    }

    /// Reports `fd` for as long as one of `events` is there (level-triggered).
    pub(super) fn arm(
        &mut self,
        fd: RawFd,
        was: Option<Events>,
        events: Option<Events>,
    ) -> io::Result<()> {
        let Some(events) = events else {
            // Even without events to wait for it would be reported on errors and hang-ups.
            self.remove(fd);
            return Ok(());
        };
        let operation = match was {
            None => libc::EPOLL_CTL_ADD,
            Some(_) => libc::EPOLL_CTL_MOD,
        };
        self.control(operation, fd, events as u32)
    }

    fn control(&self, operation: c_int, fd: RawFd, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: fd as u64 };
        // SAFETY: the event is a local.
        match unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.events.clear();
        let epoll = self.epoll.as_raw_fd();
        let events = self.events.as_mut_ptr();
        let count = EVENTS_MAX as c_int;
        let result = if self.has_pwait2
            && let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero())
        {
            let timespec = timespec(timeout);
            // SAFETY: the events' capacity is `count`; the timespec is a local.
            unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    epoll,
                    events,
                    count,
                    &raw const timespec,
                    std::ptr::null::<libc::sigset_t>(),
                    0usize,
                ) as c_int
            }
        } else {
            let milliseconds = timeout.map_or(-1, |timeout| {
                let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
                c_int::try_from(rounded_up).unwrap_or(c_int::MAX)
            });
            // SAFETY: the events' capacity is `count`.
            unsafe { libc::epoll_wait(epoll, events, count, milliseconds) }
        };
        if result >= 0 {
            // SAFETY: the kernel wrote so many.
            unsafe { self.events.set_len(result as usize) };
            return Ok(result as usize);
        }
        match errno() {
            libc::EINTR => Ok(0),
            libc::ENOSYS if self.has_pwait2 => {
                self.has_pwait2 = false;
                self.wait(timeout)
            }
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    #[inline]
    pub(super) fn ready(&self, at: usize) -> Ready {
        let event = self.events[at];
        Ready { fd: event.u64 as RawFd, events: event.events as Events }
    }
}
