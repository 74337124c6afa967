//! Socket options that no crate has in safe form, as calls that return at once.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::socklen_t;

/// Sets an option whose value is an integer (`setsockopt(2)`).
pub fn set(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = size_of::<c_int>() as socklen_t;
    // SAFETY: the value is a local of that length, which the kernel only reads.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The value of an option that is an integer (`getsockopt(2)`).
pub fn get(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    // SAFETY: any bytes are an integer.
    unsafe { get_plain(fd, level, name) }
}

/// Who a Unix stream is connected to, as it was at `connect(2)`, `listen(2)` or `socketpair(2)`
/// (`SO_PEERCRED`).
pub fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    // SAFETY: a structure of integers.
    unsafe { get_plain(fd, libc::SOL_SOCKET, libc::SO_PEERCRED) }
}

/// # Safety
/// Any bytes are a valid `T`.
unsafe fn get_plain<T: Copy>(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: value and length are locals; the kernel writes at most so many bytes.
    let result = unsafe {
        let value = value.as_mut_ptr().cast();
        libc::getsockopt(fd.as_raw_fd(), level, name, value, &raw mut len)
    };
    match result {
        // SAFETY: the caller's contract; what the kernel did not write is zero.
        0 => Ok(unsafe { value.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}
