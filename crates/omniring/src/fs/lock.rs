//! Locks of files and of ranges of them, which the kernel keeps with the open file.
//!
//! Whoever waits asks again and again, at most every 20 ms, instead of waiting in the kernel: a thread
//! that waits there is reached by no cancel, and could get the lock when nobody wants it any more.

use std::io;
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use omniring_driver::Explained;
use omniring_driver::file_lock::{RangeLock, try_set};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::File;
use crate::time::sleep;

/// The time between two attempts at first, and at most.
const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Tries until it is done.
async fn wait_for(mut attempt: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let mut pause = PAUSE_MIN;
    while !attempt()? {
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    Ok(())
}

/// Locks are a convention: they keep out those who lock too. There are two kinds, which do not know
/// of each other: `lock` and its like are for the whole file (`flock(2)`), `lock_range` and its like
/// for ranges (`fcntl(2)`, open file description locks, 3.15). Both belong to the open file, which
/// clones share: they end when the last clone is closed, and a file that is opened again, even by
/// the same process, is kept out.
///
/// Dropping a future that waits gives up, and leaves no lock. Nobody is first in the queue: who
/// asks at the right moment gets the lock.
///
/// ```
/// use omniring::fs::File;
/// # let path = std::env::temp_dir().join(format!("omniring-lock-doc-{}", std::process::id()));
/// # omniring::Runtime::new()?.block_on(async {
/// let file = File::create(&path).await?;
/// let other = File::open(&path).await?;
/// file.lock().await?;
/// assert!(!other.try_lock_shared()?);
/// file.unlock()?;
/// assert!(other.try_lock_shared()?);
/// # omniring::fs::remove_file(&path).await
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl File {
    /// Locks the file for this open file alone; waits while others have it locked. A lock that it
    /// has becomes exclusive, and is lost while this waits.
    pub async fn lock(&self) -> io::Result<()> {
        wait_for(|| self.try_lock()).await
    }

    /// Locks the file together with others that want no more; waits while another has it for itself.
    /// A lock that it has becomes shared.
    pub async fn lock_shared(&self) -> io::Result<()> {
        wait_for(|| self.try_lock_shared()).await
    }

    /// As [`lock`](Self::lock), but does not wait: false if others have the file locked. A shared
    /// lock that it had is lost then.
    pub fn try_lock(&self) -> io::Result<bool> {
        self.flock(FlockOperation::NonBlockingLockExclusive)
    }

    /// As [`lock_shared`](Self::lock_shared), but does not wait: false if another has the file for
    /// itself.
    pub fn try_lock_shared(&self) -> io::Result<bool> {
        self.flock(FlockOperation::NonBlockingLockShared)
    }

    /// Gives the file's lock up; nothing happens if there is none.
    pub fn unlock(&self) -> io::Result<()> {
        self.flock(FlockOperation::Unlock).map(drop)
    }

    fn flock(&self, operation: FlockOperation) -> io::Result<bool> {
        loop {
            match flock(self.handle.fd()?, operation) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Locks the bytes in `range` for this open file alone, which has to be open for writing; waits
    /// while others have some of them locked. A range without an end goes on to wherever the file
    /// ends. Locks of parts of the range become exclusive, once nobody is in the way.
    pub async fn lock_range(&self, range: impl RangeBounds<u64>) -> io::Result<()> {
        let (start, len) = start_and_len(&range)?;
        wait_for(|| self.set_range(RangeLock::Exclusive, start, len)).await
    }

    /// Locks the bytes in `range` together with others that want no more; the file has to be open for
    /// reading. Waits while another has some of them for itself.
    pub async fn lock_range_shared(&self, range: impl RangeBounds<u64>) -> io::Result<()> {
        let (start, len) = start_and_len(&range)?;
        wait_for(|| self.set_range(RangeLock::Shared, start, len)).await
    }

    /// As [`lock_range`](Self::lock_range), but does not wait: false if others have some of the bytes
    /// locked.
    pub fn try_lock_range(&self, range: impl RangeBounds<u64>) -> io::Result<bool> {
        let (start, len) = start_and_len(&range)?;
        self.set_range(RangeLock::Exclusive, start, len)
    }

    /// As [`lock_range_shared`](Self::lock_range_shared), but does not wait: false if another has
    /// some of the bytes for itself.
    pub fn try_lock_range_shared(&self, range: impl RangeBounds<u64>) -> io::Result<bool> {
        let (start, len) = start_and_len(&range)?;
        self.set_range(RangeLock::Shared, start, len)
    }

    /// Gives up what is locked of `range`.
    pub fn unlock_range(&self, range: impl RangeBounds<u64>) -> io::Result<()> {
        let (start, len) = start_and_len(&range)?;
        self.set_range(RangeLock::Unlocked, start, len).map(drop)
    }

    fn set_range(&self, lock: RangeLock, start: u64, len: u64) -> io::Result<bool> {
        try_set(self.handle.fd()?, lock, start, len).map_err(|error| {
            match (error.raw_os_error(), lock) {
                (Some(libc::EBADF), RangeLock::Exclusive) => {
                    let what = "an exclusive lock of a range needs a file open for writing";
                    Explained::new(libc::EBADF, what).into()
                }
                (Some(libc::EBADF), RangeLock::Shared) => {
                    let what = "a shared lock of a range needs a file open for reading";
                    Explained::new(libc::EBADF, what).into()
                }
                _ => error,
            }
        })
    }
}

/// As the kernel has it, where a length of 0 means up to the end.
fn start_and_len(range: &impl RangeBounds<u64>) -> io::Result<(u64, u64)> {
    let refused = |what: String| Explained::new(libc::EINVAL, what).into();
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => return Ok((start, 0)),
    };
    if end <= start {
        return Err(refused(format!("the range {start}..{end} has no bytes to lock")));
    }
    if end > i64::MAX as u64 {
        return Err(refused(format!("the range {start}..{end} ends past the longest file")));
    }
    Ok((start, end - start))
}

#[cfg(test)]
mod tests {
    use super::start_and_len;

    #[test]
    fn ranges_are_as_the_kernel_has_them() {
        assert_eq!(start_and_len(&(5..9)).unwrap(), (5, 4));
        assert_eq!(start_and_len(&(5..=9)).unwrap(), (5, 5));
        assert_eq!(start_and_len(&(5..)).unwrap(), (5, 0));
        assert_eq!(start_and_len(&(..)).unwrap(), (0, 0));
        assert!(start_and_len(&(5..5)).is_err());
        assert!(start_and_len(&(0..u64::MAX)).is_err());
    }
}
