//! Carrying an op out with plain system calls: the one place where every engine but the ring
//! turns an [`Op`] into a call, which is what keeps them alike (INV-PARITY).
//!
//! An attempt may wait for a storage device but never for a peer: where the call would, it says
//! what to wait for instead, and the engine attempts again when that is ready.

use std::os::fd::RawFd;
use std::ptr::null_mut;

use libc::{c_char, c_int, c_long, c_void, iovec, mode_t, ssize_t};

use crate::op::{Completion, Handle, Op, Opcode, Position};

/// `_IO(0x12, 119)` of `linux/fs.h`.
const BLKDISCARD: libc::Ioctl = 0x1277;

/// Readiness of which direction an op waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Data, a connection or the end of the stream to read.
    Read,
    /// Room to write.
    Write,
    /// Whatever happens next: for polls.
    Any,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The op has completed.
    Done(Completion),
    /// The op has to wait until `fd` is ready.
    Wait { fd: RawFd, interest: Interest },
}

/// Where an op may be attempted without holding up what else the thread has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Neither waits for a device nor for a peer: inline on every engine.
    Instant,
    /// Waits for a peer, by readiness.
    Peer,
    /// Waits for a device or a file system.
    Device,
    /// Reads or writes at the cursor of what may be a file, a pipe or a terminal.
    Stream,
    /// Waits for the clock.
    Clock,
}

impl Opcode {
    /// What ops of this kind wait for, at a given position where they have one.
    pub(crate) fn class(self) -> Class {
        match self {
            Opcode::Nop
            | Opcode::Socket
            | Opcode::Bind
            | Opcode::Listen
            | Opcode::SetOption
            | Opcode::GetOption
            | Opcode::Shutdown => Class::Instant,
            Opcode::Accept
            | Opcode::AcceptMulti
            | Opcode::Connect
            | Opcode::Recv
            | Opcode::RecvMulti
            | Opcode::RecvMsgMulti
            | Opcode::Send
            | Opcode::SendZeroCopy
            | Opcode::RecvMsg
            | Opcode::SendMsg
            | Opcode::Poll => Class::Peer,
            Opcode::Read
            | Opcode::Write
            | Opcode::ReadVectored
            | Opcode::WriteVectored
            | Opcode::Fsync
            | Opcode::Open
            | Opcode::Close
            | Opcode::Stat
            | Opcode::Allocate
            | Opcode::Discard
            | Opcode::Truncate
            | Opcode::Rename
            | Opcode::Unlink
            | Opcode::MakeDir
            | Opcode::Link
            | Opcode::Symlink
            | Opcode::ReadDir => Class::Device,
            Opcode::Splice => Class::Stream,
            Opcode::Timeout => Class::Clock,
        }
    }
}

impl Op {
    /// What the op waits for.
    pub(crate) fn class(&self) -> Class {
        match self {
            Op::Read { position: Position::Cursor, .. }
            | Op::Write { position: Position::Cursor, .. }
            | Op::ReadVectored { position: Position::Cursor, .. }
            | Op::WriteVectored { position: Position::Cursor, .. } => Class::Stream,
            _ => self.opcode().class(),
        }
    }
}

/// Which attempt at an op it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The first.
    First,
    /// Another one, after what the op waited for was reported ready.
    Again,
    /// At an object that readiness is not defined for, such as a regular file: a stream op waits
    /// inside the call.
    MayBlock,
}

/// Attempts `op`.
///
/// # Safety
/// The op's pointers are valid as its system call needs them, and nobody else uses what they
/// point at meanwhile (INV-BUF).
pub(crate) unsafe fn attempt(op: &Op, attempt: Attempt) -> Outcome {
    let may_block = attempt == Attempt::MayBlock;
    // SAFETY: for every call below: the caller's contract hands over valid pointers.
    unsafe {
        match *op {
            Op::Nop {} => done(0),
            Op::Read { handle, buf, len, position, .. } => {
                let iov = iovec { iov_base: buf.cast(), iov_len: len as usize };
                transfer(Direction::Read, handle, &raw const iov, 1, position, may_block)
            }
            Op::Write { handle, buf, len, position, .. } => {
                let iov = iovec { iov_base: buf.cast_mut().cast(), iov_len: len as usize };
                transfer(Direction::Write, handle, &raw const iov, 1, position, may_block)
            }
            Op::ReadVectored { handle, iov, count, position } => {
                transfer(Direction::Read, handle, iov, count, position, may_block)
            }
            Op::WriteVectored { handle, iov, count, position } => {
                transfer(Direction::Write, handle, iov, count, position, may_block)
            }
            Op::Fsync { handle, data_only: false } => retry(|| libc::fsync(handle.fd())),
            Op::Fsync { handle, data_only: true } => retry(|| libc::fdatasync(handle.fd())),
            Op::Open { dir, path, flags, mode, .. } => {
                open(dir, path, flags | libc::O_CLOEXEC, mode)
            }
            // After EINTR the descriptor is gone all the same on Linux: not to be tried again.
            Op::Close { handle } => match libc::close(handle.fd()) {
                0 => done(0),
                _ => match errno() {
                    libc::EINTR => done(0),
                    errno => Outcome::Done(Completion::error(errno)),
                },
            },
            Op::Stat { dir, path, flags, mask, out } => {
                retry(|| libc::statx(dir.fd(), path, flags, mask, out))
            }
            Op::Allocate { handle, mode, offset, len } => {
                retry(|| libc::fallocate(handle.fd(), mode, offset as i64, len as i64))
            }
            Op::Discard { handle, offset, len } => {
                let range = [offset, len];
                retry(|| libc::ioctl(handle.fd(), BLKDISCARD, range.as_ptr()))
            }
            Op::Truncate { handle, len } => retry(|| libc::ftruncate(handle.fd(), len as i64)),
            Op::Rename { from_dir, from, to_dir, to, flags } => {
                retry(|| libc::renameat2(from_dir.fd(), from, to_dir.fd(), to, flags))
            }
            Op::Unlink { dir, path, flags } => retry(|| libc::unlinkat(dir.fd(), path, flags)),
            Op::MakeDir { dir, path, mode } => retry(|| libc::mkdirat(dir.fd(), path, mode)),
            Op::Link { from_dir, from, to_dir, to, flags } => {
                retry(|| libc::linkat(from_dir.fd(), from, to_dir.fd(), to, flags))
            }
            Op::Symlink { target, dir, path } => retry(|| libc::symlinkat(target, dir.fd(), path)),
            Op::ReadDir { handle, buf, len } => retry(|| {
                libc::syscall(libc::SYS_getdents64, handle.fd() as c_long, buf, len as c_long)
            }),
            Op::Socket { domain, kind, protocol, .. } => {
                let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
                retry(|| libc::socket(domain, kind, protocol))
            }
            Op::Bind { handle, addr, addr_len } => {
                retry(|| libc::bind(handle.fd(), addr, addr_len))
            }
            Op::Listen { handle, backlog } => retry(|| libc::listen(handle.fd(), backlog)),
            Op::SetOption { handle, level, name, value, len } => {
                retry(|| libc::setsockopt(handle.fd(), level, name, value, len))
            }
            Op::GetOption { handle, level, name, value, len } => {
                retry(|| libc::getsockopt(handle.fd(), level, name, value, len))
            }
            Op::Accept { handle, addr, addr_len, .. } => accept(handle, addr, addr_len),
            // The connections after the first come with the next attempts.
            Op::AcceptMulti { handle, .. } => accept(handle, null_mut(), null_mut()),
            Op::Connect { handle, .. } if attempt == Attempt::Again => connect_again(handle.fd()),
            Op::Connect { handle, addr, addr_len } => connect(handle, addr, addr_len),
            Op::Recv { handle, buf, len, flags } => receive(handle, flags, |flags| {
                libc::recv(handle.fd(), buf.cast(), len as usize, flags)
            }),
            Op::RecvMsg { handle, msg, flags } => {
                receive(handle, flags, |flags| libc::recvmsg(handle.fd(), msg, flags))
            }
            // The engine takes the buffer before it gets here.
            Op::RecvMulti { .. } | Op::RecvMsgMulti { .. } => {
                Outcome::Done(Completion::error(libc::EOPNOTSUPP))
            }
            Op::Send { handle, buf, len, flags } | Op::SendZeroCopy { handle, buf, len, flags } => {
                send(handle, flags, |flags| {
                    libc::send(handle.fd(), buf.cast(), len as usize, flags)
                })
            }
            Op::SendMsg { handle, msg, flags } => {
                send(handle, flags, |flags| libc::sendmsg(handle.fd(), msg, flags))
            }
            Op::Shutdown { handle, how } => retry(|| libc::shutdown(handle.fd(), how)),
            // The ring reports this one unasked.
            Op::Poll { handle, events } => {
                match ready_events(handle.fd(), events | libc::POLLRDHUP) {
                    Ok(0) => Outcome::Wait { fd: handle.fd(), interest: Interest::Any },
                    Ok(revents) => done(revents.into()),
                    Err(errno) => Outcome::Done(Completion::error(errno)),
                }
            }
            Op::Splice { from, from_offset, to, to_offset, len, flags } => {
                splice(from, from_offset, to, to_offset, len, flags, may_block)
            }
            // Engines keep time themselves.
            Op::Timeout { .. } => Outcome::Done(Completion::error(libc::EINVAL)),
        }
    }
}

/// Opens as the ring does: what would wait for a peer, a FIFO above all, opens at once for reading
/// and fails with `ENXIO` for writing. Its reads then wait for the first writer.
///
/// # Safety
/// `path` is valid for `openat(2)`.
unsafe fn open(dir: Handle, path: *const c_char, flags: c_int, mode: mode_t) -> Outcome {
    // What may have to be made or emptied the ring opens with waiting. (O_TMPFILE without the bit
    // that it shares with O_DIRECTORY.)
    let waits = libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY;
    let open = |flags| {
        // SAFETY: the caller's contract.
        call(|| unsafe { libc::openat(dir.fd(), path, flags, mode) })
    };
    if flags & (waits | libc::O_NONBLOCK) != 0 {
        return finish(open(flags));
    }
    match open(flags | libc::O_NONBLOCK) {
        Ok(fd) => {
            // SAFETY: no pointers.
            unsafe { libc::fcntl(fd, libc::F_SETFL, flags) };
            done(fd)
        }
        // Somebody holds a lease and is to give it up first.
        Err(libc::EAGAIN) => finish(open(flags)),
        Err(errno) => Outcome::Done(Completion::error(errno)),
    }
}

fn done(result: i32) -> Outcome {
    Outcome::Done(Completion::new(result))
}

pub(crate) fn errno() -> c_int {
    // SAFETY: the location is the thread's own.
    unsafe { *libc::__errno_location() }
}

/// A call's result: a length or descriptor that fits an `i32` by the kernel's own limits.
trait CallResult: Copy {
    fn value(self) -> i64;
}

impl CallResult for c_int {
    fn value(self) -> i64 {
        self.into()
    }
}

impl CallResult for i64 {
    fn value(self) -> i64 {
        self
    }
}

impl CallResult for isize {
    fn value(self) -> i64 {
        self as i64
    }
}

/// Calls until it is not interrupted by a signal.
fn call<R: CallResult>(mut call: impl FnMut() -> R) -> Result<i32, c_int> {
    loop {
        let result = call().value();
        if result >= 0 {
            return Ok(i32::try_from(result).unwrap_or(i32::MAX));
        }
        match errno() {
            libc::EINTR => continue,
            errno => return Err(errno),
        }
    }
}

fn retry<R: CallResult>(system_call: impl FnMut() -> R) -> Outcome {
    finish(call(system_call))
}

/// A call that says EAGAIN where it would wait for a peer; with MSG_DONTWAIT among the user's
/// flags that is the op's result, as on the ring.
fn peer(
    handle: Handle,
    interest: Interest,
    flags: c_int,
    system_call: impl FnMut() -> ssize_t,
) -> Outcome {
    match call(system_call) {
        Err(libc::EAGAIN) if flags & libc::MSG_DONTWAIT == 0 => {
            Outcome::Wait { fd: handle.fd(), interest }
        }
        result => finish(result),
    }
}

fn receive(handle: Handle, flags: c_int, recv: impl Fn(c_int) -> ssize_t) -> Outcome {
    peer(handle, Interest::Read, flags, || recv(flags | libc::MSG_DONTWAIT))
}

fn send(handle: Handle, flags: c_int, send: impl Fn(c_int) -> ssize_t) -> Outcome {
    peer(handle, Interest::Write, flags, || send(flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL))
}

/// What `poll(2)` says right now.
fn ready_events(fd: RawFd, events: i16) -> Result<i16, c_int> {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one valid entry; a zero timeout never waits.
    call(|| unsafe { libc::poll(&raw mut poll, 1, 0) })?;
    match poll.revents & libc::POLLNVAL {
        0 => Ok(poll.revents),
        _ => Err(libc::EBADF),
    }
}

/// Whether `fd` can go on in the direction of `interest`; errors and hang-ups count.
fn is_ready(fd: RawFd, interest: Interest) -> Result<bool, c_int> {
    let events = match interest {
        Interest::Read => libc::POLLIN,
        Interest::Write => libc::POLLOUT,
        Interest::Any => libc::POLLIN | libc::POLLOUT,
    };
    Ok(ready_events(fd, events)? != 0)
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Read,
    Write,
}

impl Direction {
    fn interest(self) -> Interest {
        match self {
            Direction::Read => Interest::Read,
            Direction::Write => Interest::Write,
        }
    }
}

/// # Safety
/// `iov` points at `count` entries whose memory is valid in this direction.
unsafe fn transfer(
    direction: Direction,
    handle: Handle,
    iov: *const iovec,
    count: u32,
    position: Position,
    may_block: bool,
) -> Outcome {
    let fd = handle.fd();
    let count = count as c_int;
    let at = |offset, flags| {
        call(|| {
            // SAFETY: the caller's contract.
            unsafe {
                match direction {
                    Direction::Read => libc::preadv2(fd, iov, count, offset, flags),
                    Direction::Write => libc::pwritev2(fd, iov, count, offset, flags),
                }
            }
        })
    };
    let offset = position.offset();
    if position != Position::Cursor && offset < 0 {
        return Outcome::Done(Completion::error(refuse_offset(direction, fd)));
    }
    if position != Position::Cursor {
        match at(offset, 0) {
            // Pipes and sockets have no offsets: the ring ignores it, so do we.
            Err(libc::ESPIPE) => {}
            result => return finish(result),
        }
    }
    if may_block {
        return finish(at(-1, 0));
    }
    let wait = Outcome::Wait { fd, interest: direction.interest() };
    match at(-1, libc::RWF_NOWAIT) {
        // SAFETY: the caller's contract.
        Ok(moved) if unsafe { is_partial(fd, iov, count, moved) } => {
            // SAFETY: the caller's contract.
            finish(Ok(unsafe { transfer_rest(direction, fd, iov, count, moved) }))
        }
        Err(libc::EAGAIN) => wait,
        // The object does not know how not to wait (terminals, some file systems): ask first.
        Err(libc::EOPNOTSUPP) => match is_ready(fd, direction.interest()) {
            Ok(true) => match at(-1, 0) {
                Err(libc::EAGAIN) => wait,
                result => finish(result),
            },
            Ok(false) => wait,
            Err(errno) => Outcome::Done(Completion::error(errno)),
        },
        result => finish(result),
    }
}

/// What is wrong with a transfer at an offset past what the kernel takes: as the ring has it, the
/// direction before the offset.
#[cold]
fn refuse_offset(direction: Direction, fd: RawFd) -> c_int {
    let other = match direction {
        Direction::Read => libc::O_WRONLY,
        Direction::Write => libc::O_RDONLY,
    };
    // SAFETY: no pointers.
    match call(|| unsafe { libc::fcntl(fd, libc::F_GETFL) }) {
        Ok(flags) if flags & libc::O_ACCMODE != other => libc::EINVAL,
        _ => libc::EBADF,
    }
}

/// Whether an attempt that was told not to wait for the device moved only what was cached: a
/// transfer of a file is short at the end of the file only, as the ring has it.
///
/// # Safety
/// `iov` points at `count` entries.
unsafe fn is_partial(fd: RawFd, iov: *const iovec, count: c_int, moved: i32) -> bool {
    // SAFETY: the caller's contract.
    let iov = unsafe { std::slice::from_raw_parts(iov, count as usize) };
    let len: usize = iov.iter().map(|part| part.iov_len).sum();
    if moved <= 0 || moved as usize >= len {
        return false;
    }
    // SAFETY: an all-zero stat is valid, and the kernel fills it in.
    let (result, stat) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &raw mut stat), stat)
    };
    result == 0 && matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFBLK)
}

/// Goes on at the cursor after `moved` bytes, with waiting: the bytes moved in all.
///
/// # Safety
/// As for [`transfer`].
#[cold]
unsafe fn transfer_rest(
    direction: Direction,
    fd: RawFd,
    iov: *const iovec,
    count: c_int,
    moved: i32,
) -> i32 {
    let mut skip = moved as usize;
    // SAFETY: the caller's contract.
    let rest: Vec<iovec> = unsafe { std::slice::from_raw_parts(iov, count as usize) }
        .iter()
        .map(|part| {
            let skipped = skip.min(part.iov_len);
            skip -= skipped;
            iovec {
                iov_base: part.iov_base.wrapping_byte_add(skipped),
                iov_len: part.iov_len - skipped,
            }
        })
        .collect();
    // SAFETY: parts of what the caller handed over.
    let result = call(|| unsafe {
        match direction {
            Direction::Read => libc::readv(fd, rest.as_ptr(), count),
            Direction::Write => libc::writev(fd, rest.as_ptr(), count),
        }
    });
    // What was moved before an error counts; the error comes again with the next op.
    moved + result.unwrap_or(0)
}

fn finish(result: Result<i32, c_int>) -> Outcome {
    match result {
        Ok(result) => done(result),
        Err(errno) => Outcome::Done(Completion::error(errno)),
    }
}

/// # Safety
/// `addr` and `addr_len` are null or valid for `accept4(2)`.
unsafe fn accept(
    handle: Handle,
    addr: *mut libc::sockaddr,
    addr_len: *mut libc::socklen_t,
) -> Outcome {
    // The listener may be in blocking mode, or shared with others who are faster; a listener
    // made by the engines is in non-blocking mode, and so is what it accepts.
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the caller's contract.
    peer(handle, Interest::Read, 0, || unsafe {
        libc::accept4(handle.fd(), addr, addr_len, flags) as ssize_t
    })
}

/// Starts to connect.
///
/// # Safety
/// `addr` points at `addr_len` bytes of an address.
unsafe fn connect(
    handle: Handle,
    addr: *const libc::sockaddr,
    addr_len: libc::socklen_t,
) -> Outcome {
    let fd = handle.fd();
    // SAFETY: the caller's contract.
    match unsafe { libc::connect(fd, addr, addr_len) } {
        0 => done(0),
        _ => match errno() {
            libc::EINPROGRESS | libc::EINTR => Outcome::Wait { fd, interest: Interest::Write },
            errno => Outcome::Done(Completion::error(errno)),
        },
    }
}

/// After a connect had to wait: how it went.
fn connect_again(fd: RawFd) -> Outcome {
    match is_ready(fd, Interest::Write) {
        Ok(true) => {}
        Ok(false) => {
            return Outcome::Wait { fd, interest: Interest::Write };
        }
        Err(errno) => return Outcome::Done(Completion::error(errno)),
    }
    let mut error: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    let value: *mut c_void = (&raw mut error).cast();
    // SAFETY: value and length are valid for the option's type.
    match call(|| unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, value, &raw mut len)
    }) {
        Ok(_) => done(-error),
        Err(errno) => Outcome::Done(Completion::error(errno)),
    }
}

/// Carries out a call that has no flag against the signal of a peer that is gone (`SIGPIPE`), which
/// ends a process that does not ignore it. The ring's threads do not take signals.
fn without_sigpipe(call: impl FnOnce() -> Result<i32, c_int>) -> Result<i32, c_int> {
    // SAFETY: the sets and the time are locals; all-zero ones are valid.
    unsafe {
        let (mut pipe, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigemptyset(&raw mut pipe);
        libc::sigaddset(&raw mut pipe, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, &raw mut before);
        let result = call();
        if libc::sigismember(&raw const before, libc::SIGPIPE) == 0 {
            // It may be there even if some bytes were moved before.
            let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(&raw const pipe, std::ptr::null_mut(), &raw const at_once);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        }
        result
    }
}

fn splice(
    from: Handle,
    mut from_offset: i64,
    to: Handle,
    mut to_offset: i64,
    len: u32,
    flags: u32,
    may_block: bool,
) -> Outcome {
    let offset_pointer = |offset: &mut i64| -> *mut i64 {
        if *offset == -1 { std::ptr::null_mut() } else { &raw mut *offset }
    };
    let flags = if may_block { flags } else { flags | libc::SPLICE_F_NONBLOCK };
    let (from_pointer, to_pointer) =
        (offset_pointer(&mut from_offset), offset_pointer(&mut to_offset));
    // SAFETY: the offsets are null or locals.
    let splice = || unsafe {
        libc::splice(from.fd(), from_pointer, to.fd(), to_pointer, len as usize, flags)
    };
    match without_sigpipe(|| call(splice)) {
        Err(libc::EAGAIN) if !may_block => {
            // One of the two sides was not ready. If both are by now, the wait for the second
            // notices: what it is registered for comes as an event, or came since the attempt.
            match is_ready(from.fd(), Interest::Read) {
                Ok(false) => Outcome::Wait { fd: from.fd(), interest: Interest::Read },
                Ok(true) => Outcome::Wait { fd: to.fd(), interest: Interest::Write },
                Err(errno) => Outcome::Done(Completion::error(errno)),
            }
        }
        result => finish(result),
    }
}
