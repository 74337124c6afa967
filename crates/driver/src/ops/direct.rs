//! What is wrong with a read or write past the page cache (`O_DIRECT`) that the kernel refused:
//! its errno, `EINVAL`, does not say. Asked only after the fact, so that others pay nothing.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

use libc::iovec;

use super::terminal::explain_terminal;
use crate::explained::Explained;
use crate::handle::SharedHandle;
use crate::op::Position;

/// Which way a transfer goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    Read,
    Write,
}

/// The error of a transfer, which says the alignment that it needs if that is what it lacked, and which
/// terminal is closed if one is.
#[cold]
pub(super) fn explain(
    error: io::Error,
    transfer: Transfer,
    handle: &SharedHandle,
    position: Position,
    iov: &[iovec],
) -> io::Error {
    let errno = error.raw_os_error();
    if !matches!(errno, Some(libc::EINVAL | libc::EIO)) {
        return error;
    }
    let Ok(fd) = handle.fd() else { return error };
    if errno == Some(libc::EIO) {
        return explain_terminal(error, fd);
    }
    match misaligned(fd.as_raw_fd(), transfer, position, iov) {
        Some(what) => Explained::new(libc::EINVAL, what).into(),
        None => error,
    }
}

/// What of a transfer is not aligned as `O_DIRECT` needs it.
fn misaligned(fd: RawFd, transfer: Transfer, position: Position, iov: &[iovec]) -> Option<String> {
    // SAFETY: no pointers; a bad descriptor fails.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 || flags & libc::O_DIRECT == 0 {
        return None;
    }
    let stat = stat(fd)?;
    let offset = match position {
        _ if transfer == Transfer::Write && flags & libc::O_APPEND != 0 => stat.stx_size,
        // Past what the kernel takes as an offset: that is what is wrong.
        Position::At(offset) if offset > i64::MAX as u64 => return None,
        Position::At(offset) => offset,
        // SAFETY: no pointers.
        Position::Cursor => unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) }.try_into().unwrap_or(0),
    };
    let is_said = stat.stx_mask & libc::STATX_DIOALIGN != 0 && stat.stx_dio_offset_align != 0;
    let (memory_align, offset_align) = if is_said {
        (stat.stx_dio_mem_align.into(), stat.stx_dio_offset_align.into())
    } else {
        (BLOCK_LEN_MAX, BLOCK_LEN_MAX)
    };
    let is_aligned = |value: u64, align: u64| align == 0 || value.is_multiple_of(align);
    let mut wrong = Vec::new();
    if !is_aligned(offset, offset_align) {
        wrong.push(format!("offset {offset} is not"));
    }
    let lens = iov.iter().map(|part| part.iov_len as u64);
    wrong.extend(
        lens.filter(|&len| !is_aligned(len, offset_align))
            .take(1)
            .map(|len| format!("length {len} is not")),
    );
    let starts = iov.iter().map(|part| part.iov_base.addr() as u64);
    wrong.extend(
        starts
            .filter(|&start| !is_aligned(start, memory_align))
            .take(1)
            .map(|start| format!("memory at {start:#x} is not")),
    );
    if wrong.is_empty() {
        return None;
    }
    let wrong = wrong.join(", ");
    Some(if is_said {
        format!(
            "O_DIRECT on this file needs offset and length to be multiples of {offset_align}, and \
             the memory's address of {memory_align} bytes: {wrong}"
        )
    } else {
        format!(
            "O_DIRECT needs offset, length and the memory's address to be multiples of the \
             device's blocks, 512 or {BLOCK_LEN_MAX} bytes as a rule: {wrong}"
        )
    })
}

/// The longest blocks of devices in use, in bytes: where the kernel (before 6.1) or the file
/// system does not say what `O_DIRECT` needs.
const BLOCK_LEN_MAX: u64 = 4096;

fn stat(fd: RawFd) -> Option<libc::statx> {
    let mask = libc::STATX_DIOALIGN | libc::STATX_SIZE;
    let mut stat = MaybeUninit::<libc::statx>::uninit();
    // SAFETY: an empty path means the descriptor; the result is a local.
    let result =
        unsafe { libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, mask, stat.as_mut_ptr()) };
    // SAFETY: the kernel fills the structure when the call succeeds.
    (result == 0).then(|| unsafe { stat.assume_init() })
}
