//! How each op becomes a submission queue entry.

use libc::c_int;
use linux_raw_sys::io_uring as sys;
use sys::io_uring_op as code;

use super::LEASE_GROUP;
use super::ring::Sqe;
use crate::op::{DIRECT, Op, Opcode, Position};

/// The kernel's opcode for ops of this kind, if the ring has one that does exactly the same.
pub(super) fn ring_opcode(opcode: Opcode) -> Option<code> {
    Some(match opcode {
        Opcode::Nop => code::IORING_OP_NOP,
        Opcode::Read => code::IORING_OP_READ,
        Opcode::Write => code::IORING_OP_WRITE,
        Opcode::ReadVectored => code::IORING_OP_READV,
        Opcode::WriteVectored => code::IORING_OP_WRITEV,
        Opcode::Fsync => code::IORING_OP_FSYNC,
        Opcode::Open => code::IORING_OP_OPENAT,
        Opcode::Close => code::IORING_OP_CLOSE,
        Opcode::Stat => code::IORING_OP_STATX,
        Opcode::Allocate => code::IORING_OP_FALLOCATE,
        Opcode::Truncate => code::IORING_OP_FTRUNCATE,
        Opcode::Rename => code::IORING_OP_RENAMEAT,
        Opcode::Unlink => code::IORING_OP_UNLINKAT,
        Opcode::MakeDir => code::IORING_OP_MKDIRAT,
        Opcode::Link => code::IORING_OP_LINKAT,
        Opcode::Symlink => code::IORING_OP_SYMLINKAT,
        Opcode::Socket => code::IORING_OP_SOCKET,
        Opcode::Bind => code::IORING_OP_BIND,
        Opcode::Listen => code::IORING_OP_LISTEN,
        Opcode::Accept | Opcode::AcceptMulti => code::IORING_OP_ACCEPT,
        Opcode::Connect => code::IORING_OP_CONNECT,
        Opcode::Recv | Opcode::RecvMulti => code::IORING_OP_RECV,
        Opcode::Send => code::IORING_OP_SEND,
        Opcode::SendZeroCopy => code::IORING_OP_SEND_ZC,
        Opcode::RecvMsg | Opcode::RecvMsgMulti => code::IORING_OP_RECVMSG,
        Opcode::SendMsg => code::IORING_OP_SENDMSG,
        Opcode::Shutdown => code::IORING_OP_SHUTDOWN,
        Opcode::Poll => code::IORING_OP_POLL_ADD,
        Opcode::Splice => code::IORING_OP_SPLICE,
        Opcode::Timeout => code::IORING_OP_TIMEOUT,
        // The ring has no form of getdents64, and BLKDISCARD as a command of the device from 6.12 on,
        // which the probe of opcodes does not tell; its socket options differ in their results.
        Opcode::ReadDir | Opcode::Discard | Opcode::SetOption | Opcode::GetOption => return None,
    })
}

fn offset(position: Position) -> u64 {
    position.offset() as u64
}

/// Fills in the entry for `op`.
///
/// # Panics
/// For ops whose opcode has no [`ring_opcode`].
#[inline]
pub(super) fn encode(op: &Op, user_data: u64, sqe: &mut Sqe) {
    // Each arm writes in place: one value for all arms would be built aside and copied.
    let entry = |code: code, fd: c_int| Sqe { opcode: code as u8, fd, user_data, ..Sqe::default() };
    match *op {
        Op::Nop {} => *sqe = entry(code::IORING_OP_NOP, -1),
        Op::Read { handle, buf, len, position, fixed: None } => {
            *sqe = Sqe {
                addr: buf as u64,
                len,
                off: offset(position),
                ..entry(code::IORING_OP_READ, handle.fd())
            }
        }
        Op::Read { handle, buf, len, position, fixed: Some(index) } => {
            *sqe = Sqe {
                addr: buf as u64,
                len,
                off: offset(position),
                buf_index: index.get(),
                ..entry(code::IORING_OP_READ_FIXED, handle.fd())
            }
        }
        Op::Write { handle, buf, len, position, fixed: None } => {
            *sqe = Sqe {
                addr: buf as u64,
                len,
                off: offset(position),
                ..entry(code::IORING_OP_WRITE, handle.fd())
            }
        }
        Op::Write { handle, buf, len, position, fixed: Some(index) } => {
            *sqe = Sqe {
                addr: buf as u64,
                len,
                off: offset(position),
                buf_index: index.get(),
                ..entry(code::IORING_OP_WRITE_FIXED, handle.fd())
            }
        }
        Op::ReadVectored { handle, iov, count, position } => {
            *sqe = Sqe {
                addr: iov as u64,
                len: count,
                off: offset(position),
                ..entry(code::IORING_OP_READV, handle.fd())
            }
        }
        Op::WriteVectored { handle, iov, count, position } => {
            *sqe = Sqe {
                addr: iov as u64,
                len: count,
                off: offset(position),
                ..entry(code::IORING_OP_WRITEV, handle.fd())
            }
        }
        Op::Fsync { handle, data_only } => {
            *sqe = Sqe {
                op_flags: if data_only { sys::IORING_FSYNC_DATASYNC } else { 0 },
                ..entry(code::IORING_OP_FSYNC, handle.fd())
            }
        }
        Op::Open { dir, path, flags, mode, direct } => {
            *sqe = Sqe {
                addr: path as u64,
                len: mode,
                op_flags: (flags | close_on_exec(direct, libc::O_CLOEXEC)) as u32,
                file_index: new_file(direct),
                ..entry(code::IORING_OP_OPENAT, dir.fd())
            }
        }
        Op::Close { handle } => {
            *sqe = match handle.direct_index() {
                Some(index) => Sqe { user_data, ..encode_close_direct(index) },
                None => entry(code::IORING_OP_CLOSE, handle.fd()),
            }
        }
        Op::Stat { dir, path, flags, mask, out } => {
            *sqe = Sqe {
                addr: path as u64,
                len: mask,
                off: out as u64,
                op_flags: flags as u32,
                ..entry(code::IORING_OP_STATX, dir.fd())
            }
        }
        Op::Allocate { handle, mode, offset, len } => {
            *sqe = Sqe {
                off: offset,
                addr: len,
                len: mode as u32,
                ..entry(code::IORING_OP_FALLOCATE, handle.fd())
            }
        }
        Op::Truncate { handle, len } => {
            *sqe = Sqe { off: len, ..entry(code::IORING_OP_FTRUNCATE, handle.fd()) }
        }
        Op::Rename { from_dir, from, to_dir, to, flags } => {
            *sqe = Sqe {
                addr: from as u64,
                len: to_dir.fd() as u32,
                off: to as u64,
                op_flags: flags,
                ..entry(code::IORING_OP_RENAMEAT, from_dir.fd())
            }
        }
        Op::Unlink { dir, path, flags } => {
            *sqe = Sqe {
                addr: path as u64,
                op_flags: flags as u32,
                ..entry(code::IORING_OP_UNLINKAT, dir.fd())
            }
        }
        Op::MakeDir { dir, path, mode } => {
            *sqe = Sqe { addr: path as u64, len: mode, ..entry(code::IORING_OP_MKDIRAT, dir.fd()) }
        }
        Op::Link { from_dir, from, to_dir, to, flags } => {
            *sqe = Sqe {
                addr: from as u64,
                len: to_dir.fd() as u32,
                off: to as u64,
                op_flags: flags as u32,
                ..entry(code::IORING_OP_LINKAT, from_dir.fd())
            }
        }
        Op::Symlink { target, dir, path } => {
            *sqe = Sqe {
                addr: target as u64,
                off: path as u64,
                ..entry(code::IORING_OP_SYMLINKAT, dir.fd())
            }
        }
        Op::Socket { domain, kind, protocol, direct } => {
            *sqe = Sqe {
                off: (kind | close_on_exec(direct, libc::SOCK_CLOEXEC)) as u64,
                len: protocol as u32,
                file_index: new_file(direct),
                ..entry(code::IORING_OP_SOCKET, domain)
            }
        }
        Op::Bind { handle, addr, addr_len } => {
            *sqe = Sqe {
                addr: addr as u64,
                off: addr_len.into(),
                ..entry(code::IORING_OP_BIND, handle.fd())
            }
        }
        Op::Listen { handle, backlog } => {
            *sqe = Sqe { len: backlog as u32, ..entry(code::IORING_OP_LISTEN, handle.fd()) }
        }
        Op::Accept { handle, addr, addr_len, direct } => {
            *sqe = Sqe {
                addr: addr as u64,
                off: addr_len as u64,
                op_flags: close_on_exec(direct, libc::SOCK_CLOEXEC) as u32,
                file_index: new_file(direct),
                ..entry(code::IORING_OP_ACCEPT, handle.fd())
            }
        }
        Op::AcceptMulti { handle, direct } => {
            *sqe = Sqe {
                ioprio: sys::IORING_ACCEPT_MULTISHOT as u16,
                op_flags: close_on_exec(direct, libc::SOCK_CLOEXEC) as u32,
                file_index: new_file(direct),
                ..entry(code::IORING_OP_ACCEPT, handle.fd())
            }
        }
        Op::Connect { handle, addr, addr_len } => {
            *sqe = Sqe {
                addr: addr as u64,
                off: addr_len.into(),
                ..entry(code::IORING_OP_CONNECT, handle.fd())
            }
        }
        Op::Recv { handle, buf, len, flags } => {
            *sqe = Sqe {
                addr: buf as u64,
                len,
                op_flags: flags as u32,
                ..entry(code::IORING_OP_RECV, handle.fd())
            };
        }
        Op::RecvMulti { handle } => {
            *sqe = Sqe {
                flags: 1 << (sys::io_uring_sqe_flags_bit::IOSQE_BUFFER_SELECT_BIT as u8),
                ioprio: sys::IORING_RECV_MULTISHOT as u16,
                buf_index: LEASE_GROUP,
                ..entry(code::IORING_OP_RECV, handle.fd())
            };
        }
        Op::RecvMsgMulti { handle, msg } => {
            *sqe = Sqe {
                flags: 1 << (sys::io_uring_sqe_flags_bit::IOSQE_BUFFER_SELECT_BIT as u8),
                ioprio: sys::IORING_RECV_MULTISHOT as u16,
                addr: msg as u64,
                len: 1,
                buf_index: LEASE_GROUP,
                ..entry(code::IORING_OP_RECVMSG, handle.fd())
            };
        }
        Op::SendZeroCopy { handle, buf, len, flags } => {
            *sqe = Sqe {
                addr: buf as u64,
                len,
                op_flags: (flags | libc::MSG_NOSIGNAL) as u32,
                ..entry(code::IORING_OP_SEND_ZC, handle.fd())
            }
        }
        Op::Send { handle, buf, len, flags } => {
            *sqe = Sqe {
                addr: buf as u64,
                len,
                op_flags: (flags | libc::MSG_NOSIGNAL) as u32,
                ..entry(code::IORING_OP_SEND, handle.fd())
            }
        }
        Op::RecvMsg { handle, msg, flags } => {
            *sqe = Sqe {
                addr: msg as u64,
                len: 1,
                op_flags: flags as u32,
                ..entry(code::IORING_OP_RECVMSG, handle.fd())
            }
        }
        Op::SendMsg { handle, msg, flags } => {
            *sqe = Sqe {
                addr: msg as u64,
                len: 1,
                op_flags: (flags | libc::MSG_NOSIGNAL) as u32,
                ..entry(code::IORING_OP_SENDMSG, handle.fd())
            }
        }
        Op::Shutdown { handle, how } => {
            *sqe = Sqe { len: how as u32, ..entry(code::IORING_OP_SHUTDOWN, handle.fd()) }
        }
        Op::Poll { handle, events } => *sqe = Sqe { user_data, ..poll(handle.fd(), events) },
        Op::Splice { from, from_offset, to, to_offset, len, flags } => {
            *sqe = Sqe {
                addr: from_offset as u64,
                off: to_offset as u64,
                len,
                op_flags: match from.direct_index() {
                    Some(_) => flags | sys::SPLICE_F_FD_IN_FIXED,
                    None => flags,
                },
                file_index: from.direct_index().map_or(from.fd(), |index| index as i32),
                ..entry(code::IORING_OP_SPLICE, to.fd())
            }
        }
        Op::Timeout { after } => {
            *sqe = Sqe { addr: after as u64, len: 1, ..entry(code::IORING_OP_TIMEOUT, -1) }
        }
        Op::ReadDir { .. } | Op::Discard { .. } | Op::SetOption { .. } | Op::GetOption { .. } => {
            unreachable!("the ring has no such op: {:?}", op.opcode())
        }
    }
    if sqe.fd >= DIRECT {
        sqe.fd -= DIRECT;
        sqe.flags |= 1 << (sys::io_uring_sqe_flags_bit::IOSQE_FIXED_FILE_BIT as u8);
    }
}

/// Where a new handle goes: a free place in the ring's table, or the process's descriptors.
fn new_file(direct: bool) -> i32 {
    if direct { sys::IORING_FILE_INDEX_ALLOC } else { 0 }
}

/// A direct descriptor is not passed on, and the flag is refused.
fn close_on_exec(direct: bool, flag: c_int) -> c_int {
    if direct { 0 } else { flag }
}

/// Closes a direct descriptor.
pub(super) fn encode_close_direct(index: u32) -> Sqe {
    Sqe { opcode: code::IORING_OP_CLOSE as u8, file_index: index as i32 + 1, ..Sqe::default() }
}

/// Makes a descriptor of the process for a direct one.
pub(super) fn encode_install(index: u32) -> Sqe {
    Sqe {
        opcode: code::IORING_OP_FIXED_FD_INSTALL as u8,
        flags: 1 << (sys::io_uring_sqe_flags_bit::IOSQE_FIXED_FILE_BIT as u8),
        fd: index as i32,
        ..Sqe::default()
    }
}

fn poll(fd: c_int, events: i16) -> Sqe {
    let events = u32::from(events as u16);
    // The kernel takes the 32 bits in the order of a big-endian machine's halves.
    let op_flags = if cfg!(target_endian = "big") { events.rotate_left(16) } else { events };
    Sqe { opcode: code::IORING_OP_POLL_ADD as u8, fd, op_flags, ..Sqe::default() }
}

/// Reports again and again that `fd` is readable.
pub(super) fn encode_poll_always(fd: c_int) -> Sqe {
    Sqe { len: sys::IORING_POLL_ADD_MULTI, ..poll(fd, libc::POLLIN) }
}

/// Cancels the submission with this user data.
pub(super) fn encode_cancel(user_data: u64) -> Sqe {
    Sqe { opcode: code::IORING_OP_ASYNC_CANCEL as u8, fd: -1, addr: user_data, ..Sqe::default() }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;
    use crate::op::{FixedIndex, Handle};

    #[test]
    fn registered_memory_takes_the_registered_form() {
        let (handle, position) = (Handle::from_fd(3), Position::At(8));
        let mut memory = [0; 16];
        let buf = memory.as_mut_ptr();
        for (fixed, read, write, index) in [
            (None, code::IORING_OP_READ, code::IORING_OP_WRITE, 0),
            (
                NonZero::new(7).map(FixedIndex),
                code::IORING_OP_READ_FIXED,
                code::IORING_OP_WRITE_FIXED,
                7,
            ),
        ] {
            for (op, code) in [
                (Op::Read { handle, buf, len: 16, position, fixed }, read),
                (Op::Write { handle, buf, len: 16, position, fixed }, write),
            ] {
                let mut sqe = Sqe::default();
                encode(&op, 1, &mut sqe);
                assert_eq!((sqe.opcode, sqe.buf_index), (code as u8, index));
                assert_eq!((sqe.fd, sqe.off, sqe.addr, sqe.len), (3, 8, buf as u64, 16));
            }
        }
    }
}
