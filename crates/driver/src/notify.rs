//! Waking a driver that waits, from any thread.
//!
//! The protocol: the driver's thread announces that it is about to wait, looks once more at what
//! others may have queued for it, and waits. Others queue first and notify after. One of the two
//! sees the other: no wake is lost, and a driver that runs costs a notifier no system call.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, fence};

/// Wakes the thread of one driver.
pub(crate) struct Notifier {
    sleeping: AtomicBool,
    /// How often an unparker had to wake the driver.
    unpark_count: AtomicU32,
    eventfd: OwnedFd,
}

impl Notifier {
    pub(crate) fn new() -> io::Result<Notifier> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        let (sleeping, unpark_count) = (AtomicBool::new(false), AtomicU32::new(0));
        Ok(Notifier { sleeping, unpark_count, eventfd })
    }

    /// The driver's thread is about to wait. What others queued before they notified is visible
    /// to whoever looks after this call.
    pub(crate) fn announce_sleep(&self) {
        self.sleeping.store(true, SeqCst);
    }

    /// The driver's thread runs again. A notifier that saw the announcement may still signal: a
    /// spurious wake, no harm.
    pub(crate) fn announce_awake(&self) {
        self.sleeping.store(false, SeqCst);
    }

    /// Wakes the driver's thread if it waits or is about to.
    pub(crate) fn notify(&self) {
        // The caller queued its message before. The fence puts that before the load in the order
        // that the announcement is part of; the load spares a running driver the cache line.
        fence(SeqCst);
        if self.sleeping.load(SeqCst) && self.sleeping.swap(false, SeqCst) {
            let one = 1u64;
            // SAFETY: eight bytes of a local. It can fail only when the counter is full, and then
            // the descriptor is readable already.
            unsafe { libc::write(self.fd(), (&raw const one).cast(), 8) };
        }
    }

    /// As [`Notifier::notify`], for others than the driver's own pool, whose messages the driver
    /// does not know to expect.
    pub(crate) fn unpark(&self) {
        if self.sleeping.load(Relaxed) {
            self.unpark_count.fetch_add(1, Relaxed);
        }
        self.notify();
    }

    /// How often an unparker came while the driver was asleep.
    pub(crate) fn unpark_count(&self) -> u32 {
        self.unpark_count.load(Relaxed)
    }

    /// The descriptor that becomes readable with a notification.
    pub(crate) fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Takes the notifications that made the descriptor readable.
    pub(crate) fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: eight bytes of a local; non-blocking, so it fails if there is nothing to take.
        unsafe { libc::read(self.fd(), (&raw mut count).cast(), 8) };
    }
}
