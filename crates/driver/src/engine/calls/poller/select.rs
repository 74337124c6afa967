//! Readiness by `select(2)`: three sets of descriptors, none of which may be 1,024 or more.
//!
//! It tells a hang-up only as "a read would not wait", so that whoever waits for one is told of
//! data too.

use std::ffi::c_ulong;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{ALWAYS, Events, Ready, timespec};
use crate::attempt::errno;

/// The greatest descriptor number that fits a set (`FD_SETSIZE` - 1).
pub(super) const FD_MAX: RawFd = libc::FD_SETSIZE as RawFd - 1;

pub(super) fn is_in_range(fd: RawFd) -> bool {
    (0..=FD_MAX).contains(&fd)
}

const WORD_BITS: usize = c_ulong::BITS as usize;

/// A bit for each descriptor, laid out as an `fd_set`. Unlike `FD_SET`, a number out of range is a
/// panic.
#[derive(Clone, Copy)]
#[repr(C)]
struct Set([c_ulong; libc::FD_SETSIZE / WORD_BITS]);

const _: () = assert!(size_of::<Set>() == size_of::<libc::fd_set>());

impl Set {
    const EMPTY: Set = Set([0; libc::FD_SETSIZE / WORD_BITS]);

    fn put(&mut self, fd: RawFd, in_it: bool) {
        let bit = 1 << (fd as usize % WORD_BITS);
        let word = &mut self.0[fd as usize / WORD_BITS];
        *word = if in_it { *word | bit } else { *word & !bit };
    }

    fn pointer(&mut self) -> *mut libc::fd_set {
        (&raw mut *self).cast()
    }
}

/// What each set waits for, and reports.
const SET_EVENTS: [Events; 3] = [libc::POLLIN | libc::POLLRDHUP, libc::POLLOUT, libc::POLLPRI];

pub(crate) struct Select {
    /// To read, to write, and for exceptional conditions.
    armed: [Set; 3],
    /// Numbers in the sets are smaller.
    fd_end: RawFd,
    /// What the last wait reported.
    ready: Vec<Ready>,
}

impl Default for Select {
    fn default() -> Select {
        Select { armed: [Set::EMPTY; 3], fd_end: 0, ready: Vec::new() }
    }
}

impl Select {
    pub(super) fn arm(&mut self, fd: RawFd, events: Option<Events>) {
        if !is_in_range(fd) {
            debug_assert!(events.is_none(), "it is refused before: {fd}");
            return;
        }
        let events = events.unwrap_or(0);
        for (set, of_set) in self.armed.iter_mut().zip(SET_EVENTS) {
            set.put(fd, events & of_set != 0);
        }
        if events != 0 {
            self.fd_end = self.fd_end.max(fd + 1);
        } else if fd + 1 == self.fd_end {
            self.fd_end = self.last().map_or(0, |last| last + 1);
        }
    }

    /// The greatest number in the sets.
    fn last(&self) -> Option<RawFd> {
        let [read, write, except] = &self.armed;
        (0..read.0.len()).rev().find_map(|at| {
            let word = read.0[at] | write.0[at] | except.0[at];
            (word != 0).then(|| ((at + 1) * WORD_BITS) as RawFd - 1 - word.leading_zeros() as RawFd)
        })
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.ready.clear();
        let timespec = timeout.map(timespec);
        let timespec = timespec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let mut sets = self.armed;
        let [read, write, except] = &mut sets;
        // SAFETY: the sets are locals with room for every number below `fd_end`, which is
        // `FD_SETSIZE` at most; the timespec is null or a local. No signal mask.
        let result = unsafe {
            libc::pselect(
                self.fd_end,
                read.pointer(),
                write.pointer(),
                except.pointer(),
                timespec,
                std::ptr::null(),
            )
        };
        match result {
            0 => return Ok(0),
            1.. => self.collect(&sets),
            _ => match errno() {
                libc::EINTR => {}
                libc::EBADF => self.collect_closed(),
                errno => return Err(io::Error::from_raw_os_error(errno)),
            },
        }
        Ok(self.ready.len())
    }

    fn collect(&mut self, sets: &[Set; 3]) {
        for fd in Self::members(sets) {
            let is_in = |set: &Set| set.0[fd as usize / WORD_BITS] >> (fd as usize % WORD_BITS) & 1;
            let events = sets
                .iter()
                .zip(SET_EVENTS)
                .filter(|(set, _)| is_in(set) != 0)
                .fold(0, |events, (_, of_set)| events | of_set);
            self.ready.push(Ready { fd, events });
        }
    }

    /// Some were closed behind the driver's back: the ops that wait find out.
    #[cold]
    fn collect_closed(&mut self) {
        let armed = self.armed;
        for fd in Self::members(&armed) {
            // SAFETY: no pointers.
            if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                self.ready.push(Ready { fd, events: ALWAYS });
            }
        }
    }

    fn members(sets: &[Set; 3]) -> impl Iterator<Item = RawFd> {
        let [read, write, except] = sets;
        (0..read.0.len()).flat_map(move |at| {
            let mut word = read.0[at] | write.0[at] | except.0[at];
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                (word != 0).then(|| {
                    word &= word - 1;
                    (at * WORD_BITS + bit) as RawFd
                })
            })
        })
    }

    pub(super) fn ready(&self, at: usize) -> Ready {
        self.ready[at]
    }
}
