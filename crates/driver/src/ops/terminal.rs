//! Which terminal has nobody on its other side: the errno of that, `EIO`, does not say. Asked only after
//! the fact, so that others pay nothing.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::explained::Explained;

/// An error of a terminal, which says which one it is and what became of it, if that is what its errno
/// (`EIO`) means.
#[cold]
pub fn explain_terminal(error: io::Error, fd: BorrowedFd<'_>) -> io::Error {
    if error.raw_os_error() != Some(libc::EIO) {
        return error;
    }
    match left_alone(fd.as_raw_fd()) {
        Some(what) => Explained::new(libc::EIO, what).into(),
        None => error,
    }
}

fn left_alone(fd: RawFd) -> Option<String> {
    let mut number: c_int = 0;
    // SAFETY: the result is a local; what is no controller, or no descriptor, fails.
    if unsafe { libc::ioctl(fd, libc::TIOCGPTN, &raw mut number) } == 0 {
        return Some(format!("/dev/pts/{number} is closed: no program has it open any more"));
    }
    // Of a terminal that is hung up every other question fails with the same errno.
    // SAFETY: no pointers.
    let is_terminal = unsafe { libc::isatty(fd) } == 1
        || io::Error::last_os_error().raw_os_error() == Some(libc::EIO);
    let mut poll = libc::pollfd { fd, events: 0, revents: 0 };
    // SAFETY: one structure, a local; it does not wait.
    let is_hung_up =
        unsafe { libc::poll(&raw mut poll, 1, 0) } == 1 && poll.revents & libc::POLLHUP != 0;
    if !is_terminal || !is_hung_up {
        return None;
    }
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
    let name = name.as_deref().and_then(|name| name.to_str()).unwrap_or("the terminal");
    // A pseudo-terminal's name goes with its controller.
    let name = name.trim_end_matches(" (deleted)");
    Some(format!("{name} is hung up: its other side is closed, or the device is gone"))
}
