//! What a descriptor is ready for, remembered until somebody finds otherwise: what stands behind
//! [`AsyncFd`](crate::AsyncFd) and the types of [`os`](crate::os) and [`signal`](crate::signal).
//!
//! The kernel is asked by polls, which tell what is the case when they are asked: forgetting what
//! was remembered costs a poll, and never an event.

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use omniring_driver::{OpFuture, SharedHandle, ops};
use rustix::event::epoll;

use crate::executor::current;
use crate::yielding::yield_now;

/// Waits that end at once, one after the other, before other tasks get a turn.
const REMEMBERED_IN_A_ROW_MAX: u8 = 128;

/// What a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

pub(crate) struct Readiness {
    handle: SharedHandle,
    /// By direction: the events that said it is ready; 0 if it is not known to be.
    ready: [Cell<i16>; 2],
    in_a_row: Cell<u8>,
    /// See [`Readiness::poll_writable`].
    room: OnceCell<SharedHandle>,
}

impl Readiness {
    /// Of a descriptor in non-blocking mode.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(crate) fn new(fd: OwnedFd) -> Readiness {
        Readiness {
            handle: SharedHandle::adopt_as_is(&current().driver, fd),
            ready: [Cell::new(0), Cell::new(0)],
            in_a_row: Cell::new(0),
            room: OnceCell::new(),
        }
    }

    /// Asks the kernel for some of these events of `poll(2)`.
    pub(crate) fn poll(&self, events: i16) -> OpFuture<ops::PollEvents> {
        ops::poll(&self.handle, events)
    }

    /// Waits until an attempt in this direction need not wait: the events that say so.
    pub(crate) async fn wait(&self, direction: Direction) -> io::Result<i16> {
        let ready = &self.ready[direction as usize];
        if ready.get() != 0 {
            self.in_a_row.set(self.in_a_row.get() + 1);
            if self.in_a_row.get() >= REMEMBERED_IN_A_ROW_MAX {
                self.in_a_row.set(0);
                yield_now().await;
            }
        }
        if ready.get() != 0 {
            return Ok(ready.get());
        }
        self.in_a_row.set(0);
        let events = match direction {
            Direction::Read => self.poll(libc::POLLIN).await? as i16,
            Direction::Write => self.poll_writable().await?,
        };
        ready.set(events);
        Ok(events)
    }

    /// A poll also ends when the peer will send no more (`POLLRDHUP`), which says nothing about
    /// room to write: it would end at once, again and again, where a peer that has shut down its
    /// side reads on slowly. From then on an epoll instance is polled, which can do without.
    async fn poll_writable(&self) -> io::Result<i16> {
        const ROOM: i16 = libc::POLLOUT | libc::POLLERR | libc::POLLHUP;
        if self.room.get().is_none() {
            let events = self.poll(libc::POLLOUT).await? as i16;
            if events & ROOM != 0 {
                return Ok(events);
            }
        }
        let room = match self.room.get() {
            Some(room) => room,
            None => {
                let instance = epoll::create(epoll::CreateFlags::CLOEXEC)?;
                let data = epoll::EventData::new_u64(0);
                epoll::add(&instance, &self.handle, data, epoll::EventFlags::OUT)?;
                let room = SharedHandle::adopt_as_is(self.handle.driver(), instance);
                self.room.get_or_init(|| room)
            }
        };
        ops::poll(room, libc::POLLIN).await?;
        Ok(libc::POLLOUT)
    }

    /// An attempt in this direction would have had to wait.
    pub(crate) fn clear(&self, direction: Direction) {
        self.ready[direction as usize].set(0);
    }

    /// Makes a call that says `WouldBlock` instead of waiting, as often as it takes. Nothing is
    /// awaited after a call that succeeded, so that dropping the future loses nothing.
    pub(crate) async fn io<R>(
        &self,
        direction: Direction,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            self.wait(direction).await?;
            match call(self.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.clear(direction),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}
