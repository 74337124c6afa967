//! Locks of ranges of a file that belong to the open file and not to the process ("open file
//! description locks", `fcntl(2)`, 3.15), as calls that return at once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_short, flock};

/// What a range of a file is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeLock {
    /// Locked by this open file, and by others that want no more.
    Shared,
    /// Locked by this open file alone.
    Exclusive,
    /// Not locked by this open file.
    Unlocked,
}

/// Changes the lock of `len` bytes from `start` on, or with 0 of all up to the end, wherever that
/// will be. False if another open file is in the way.
pub fn try_set(fd: BorrowedFd<'_>, lock: RangeLock, start: u64, len: u64) -> io::Result<bool> {
    let kind: c_int = match lock {
        RangeLock::Shared => libc::F_RDLCK,
        RangeLock::Exclusive => libc::F_WRLCK,
        RangeLock::Unlocked => libc::F_UNLCK,
    };
    let too_far = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let lock = flock {
        l_type: kind as c_short,
        l_whence: libc::SEEK_SET as c_short,
        l_start: start.try_into().map_err(too_far)?,
        l_len: len.try_into().map_err(too_far)?,
        l_pid: 0,
    };
    // SAFETY: the structure is a local that the kernel only reads.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}
