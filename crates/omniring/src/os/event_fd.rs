//! Counters that wake.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::readiness::{Direction, Readiness};
use crate::time::sleep;

/// A counter in the kernel that other threads, other processes and the kernel itself can add to
/// (`eventfd(2)`): they write the 8 bytes of a number to its descriptor.
///
/// Between tasks of one runtime, and between threads of one program, [`sync`](crate::sync) does it
/// with less.
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// let counter = omniring::os::EventFd::new(0)?;
/// counter.add(3).await?;
/// counter.add(4).await?;
/// assert_eq!(counter.take().await?, 7);
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EventFd {
    readiness: Readiness,
}

impl EventFd {
    /// A counter that begins at `count`. Fails if there are no descriptors left.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(count: u32) -> io::Result<EventFd> {
        EventFd::with_flags(count, EventfdFlags::empty())
    }

    /// A counter of which [`take`](EventFd::take) takes 1 at a time. Else as [`new`](EventFd::new).
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn semaphore(count: u32) -> io::Result<EventFd> {
        EventFd::with_flags(count, EventfdFlags::SEMAPHORE)
    }

    fn with_flags(count: u32, flags: EventfdFlags) -> io::Result<EventFd> {
        let fd = eventfd(count, flags | EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(EventFd { readiness: Readiness::new(fd) })
    }

    /// Adds to the counter. It waits while the sum would be more than 2^64 - 2, and fails with
    /// `InvalidInput` for 2^64 - 1.
    ///
    /// Dropping the future adds nothing, unless it had ended.
    pub async fn add(&self, count: u64) -> io::Result<()> {
        loop {
            // As a rule there is room.
            match rustix::io::write(&self.readiness, &count.to_ne_bytes()) {
                Err(rustix::io::Errno::AGAIN) => {}
                result => return Ok(result.map(drop)?),
            }
            self.readiness.clear(Direction::Write);
            self.readiness.wait(Direction::Write).await?;
            // There is room for 1, which need not be enough: nothing tells when there is more.
            if count > 1 {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Waits until the counter is not 0, and sets it to 0: what it was. Of a
    /// [`semaphore`](EventFd::semaphore) it takes 1.
    ///
    /// Dropping the future takes nothing, unless it had ended.
    pub async fn take(&self) -> io::Result<u64> {
        let mut count = [0; 8];
        let read = |fd: BorrowedFd<'_>| Ok(rustix::io::read(fd, &mut count)?);
        self.readiness.io(Direction::Read, read).await?;
        Ok(u64::from_ne_bytes(count))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }
}

impl std::fmt::Debug for EventFd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventFd")
    }
}
