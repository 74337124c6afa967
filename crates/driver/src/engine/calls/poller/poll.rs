//! Readiness by `poll(2)`: the descriptors of interest are handed over with each wait.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{ALWAYS, Events, Ready, timespec};
use crate::attempt::errno;

/// No place among the descriptors of interest.
const NOWHERE: u32 = u32::MAX;

#[derive(Default)]
pub(crate) struct Poll {
    /// What is of interest, in no order.
    armed: Vec<libc::pollfd>,
    /// By descriptor number: where that is in `armed`.
    places: Vec<u32>,
    /// What the last wait reported.
    ready: Vec<Ready>,
}

impl Poll {
    pub(super) fn arm(&mut self, fd: RawFd, events: Option<Events>) {
        let number = fd as usize;
        if number >= self.places.len() {
            self.places.resize(number + 1, NOWHERE);
        }
        match (self.places[number], events) {
            (NOWHERE, None) => {}
            (NOWHERE, Some(events)) => {
                self.places[number] = self.armed.len() as u32;
                self.armed.push(libc::pollfd { fd, events, revents: 0 });
            }
            (place, Some(events)) => self.armed[place as usize].events = events,
            (place, None) => {
                self.places[number] = NOWHERE;
                self.armed.swap_remove(place as usize);
                if let Some(moved) = self.armed.get(place as usize) {
                    self.places[moved.fd as usize] = place;
                }
            }
        }
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.ready.clear();
        let timespec = timeout.map(timespec);
        let timespec = timespec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let count = self.armed.len() as libc::nfds_t;
        // SAFETY: so many entries are there; the timespec is null or a local. No signal mask.
        let result =
            unsafe { libc::ppoll(self.armed.as_mut_ptr(), count, timespec, std::ptr::null()) };
        match result {
            0 => return Ok(0),
            1.. => {}
            _ => {
                return match errno() {
                    libc::EINTR => Ok(0),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                };
            }
        }
        for entry in &self.armed {
            // What was closed behind the driver's back: the ops that wait find out.
            let events = match entry.revents & libc::POLLNVAL {
                0 => entry.revents,
                _ => ALWAYS,
            };
            if events != 0 {
                self.ready.push(Ready { fd: entry.fd, events });
                if self.ready.len() == result as usize {
                    break;
                }
            }
        }
        Ok(self.ready.len())
    }

    pub(super) fn ready(&self, at: usize) -> Ready {
        self.ready[at]
    }
}
