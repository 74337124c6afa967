//! Waking a driver that waits, from any thread.
//!
//! The protocol: the driver's thread announces that it is about to wait, looks once more at what
//! others may have queued for it, and waits. Others queue first and notify after. One of the two
//! sees the other: no wake is lost, and a driver that runs costs a notifier no system call.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::sync::Ordering::{Relaxed, SeqCst};
use crate::sync::{AtomicBool, AtomicU32, fence};

/// Whether a thread sleeps, or is about to.
pub(crate) struct SleepFlag(AtomicBool);

impl SleepFlag {
    pub(crate) fn new() -> SleepFlag {
        SleepFlag(AtomicBool::new(false))
    }

    /// The thread is about to wait. What others queued before they asked is visible to whoever looks
    /// after this call.
    #[inline]
    pub(crate) fn announce_sleep(&self) {
        self.0.store(true, Relaxed);
        fence(SeqCst);
    }

    /// The thread runs again. Who saw the announcement may still signal: a spurious wake, no harm.
    #[inline]
    pub(crate) fn announce_awake(&self) {
        self.0.store(false, Relaxed);
    }

    /// Whether the caller, who queued something before, has to signal the thread. Of several callers
    /// one does.
    #[inline]
    pub(crate) fn must_wake(&self) -> bool {
        // The fence puts what was queued before the load in the order that the announcement's fence
        // is part of; the load spares a running thread the cache line.
        fence(SeqCst);
        self.0.load(Relaxed) && self.0.swap(false, Relaxed)
    }

    fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Wakes the thread of one driver.
pub(crate) struct Notifier {
    sleeping: SleepFlag,
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
        let (sleeping, unpark_count) = (SleepFlag::new(), AtomicU32::new(0));
        Ok(Notifier { sleeping, unpark_count, eventfd })
    }

    /// The driver's thread is about to wait. What others queued before they notified is visible
    /// to whoever looks after this call.
    pub(crate) fn announce_sleep(&self) {
        self.sleeping.announce_sleep();
    }

    /// The driver's thread runs again. A notifier that saw the announcement may still signal: a
    /// spurious wake, no harm.
    pub(crate) fn announce_awake(&self) {
        self.sleeping.announce_awake();
    }

    /// Wakes the driver's thread if it waits or is about to.
    pub(crate) fn notify(&self) {
        if self.sleeping.must_wake() {
            let one = 1u64;
            // SAFETY: eight bytes of a local. It can fail only when the counter is full, and then
            // the descriptor is readable already.
            unsafe { libc::write(self.fd(), (&raw const one).cast(), 8) };
        }
    }

    /// As [`Notifier::notify`], for others than the driver's own pool, whose messages the driver
    /// does not know to expect.
    pub(crate) fn unpark(&self) {
        if self.sleeping.is_set() {
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

#[cfg(all(test, loom))]
mod models {
    use super::SleepFlag;
    use crate::mailbox::mailbox;
    use crate::sync::{Arc, AtomicUsize, Ordering::SeqCst};

    /// A receiver that goes to sleep, and two messages: it never sleeps on for ever with one of them
    /// in its queue.
    #[test]
    fn no_message_is_slept_through() {
        loom::model(|| {
            let (mut sender, mut receiver) = mailbox::<usize>(2);
            let flag = Arc::new(SleepFlag::new());
            let signals = Arc::new(AtomicUsize::new(0));
            let sending = {
                let (flag, signals) = (flag.clone(), signals.clone());
                loom::thread::spawn(move || {
                    for message in 0..2 {
                        sender.stage(message);
                        if sender.flush() > 0 && flag.must_wake() {
                            signals.fetch_add(1, SeqCst);
                        }
                    }
                })
            };
            flag.announce_sleep();
            let slept = !receiver.has_mail();
            if !slept {
                flag.announce_awake();
            }
            sending.join().unwrap();
            // Who sleeps, and has mail by now, was signalled.
            assert!(!slept || !receiver.has_mail() || signals.load(SeqCst) > 0);
            let mut taken = Vec::new();
            receiver.take(10, &mut taken);
            assert_eq!(taken, [0, 1]);
        });
    }

    /// What is sent while the receiver goes is dropped, by one side or the other, once.
    #[test]
    fn nothing_is_left_behind_in_a_queue_whose_receiver_goes() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        loom::model(|| {
            let (mut sender, mut receiver) = mailbox::<Counted>(2);
            let dropped = Arc::new(AtomicUsize::new(0));
            let sending = {
                let dropped = dropped.clone();
                loom::thread::spawn(move || {
                    for _ in 0..2 {
                        sender.stage(Counted(dropped.clone()));
                        sender.flush();
                    }
                    sender
                })
            };
            receiver.take(1, &mut Vec::new());
            drop(receiver);
            let sender = sending.join().unwrap();
            assert_eq!(dropped.load(SeqCst), 2, "before the sender goes");
            drop(sender);
        });
    }
}
