//! The op: one I/O operation as plain data.
//!
//! [`Op`] is a closed enum, so that a `match` in an engine names every op the engine forgot. It
//! owns nothing: what its pointers point at is kept alive by the in-flight table (INV-BUF).
//! Deliberately not here: how an op is carried out (`attempt`, `engine`) and who owns its buffers
//! (`ops`).

use std::num::NonZero;
use std::os::fd::RawFd;

use libc::{c_char, c_int, c_uint, c_void, iovec, mode_t, msghdr, off_t, sockaddr, socklen_t};

/// What an op acts on: a file descriptor of the process, or a direct descriptor, which lives in the
/// ring's own table and is known to that ring alone. Virtual handles of an engine will be a further
/// kind behind the same type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(RawFd);

/// Set in a direct descriptor; the rest is its index. No process has so many descriptors.
pub(crate) const DIRECT: RawFd = 1 << 30;

impl Handle {
    /// The current directory, where a path op wants a directory (`AT_FDCWD`).
    pub const CURRENT_DIR: Handle = Handle(libc::AT_FDCWD);

    /// The handle of a file descriptor of this process.
    pub const fn from_fd(fd: RawFd) -> Handle {
        Handle(fd)
    }

    /// The direct descriptor at this index of the ring's table.
    pub(crate) const fn from_direct(index: u32) -> Handle {
        Handle(DIRECT | index as RawFd)
    }

    /// The file descriptor behind this handle. For a direct descriptor it is no number that the
    /// process knows.
    pub const fn fd(self) -> RawFd {
        self.0
    }

    /// The index in the ring's table, of a direct descriptor.
    pub const fn direct_index(self) -> Option<u32> {
        if self.0 >= DIRECT { Some((self.0 - DIRECT) as u32) } else { None }
    }
}

/// Where in a file a read or write happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// At this offset in bytes. Objects without offsets (pipes, sockets, terminals) ignore it,
    /// on every engine, as io_uring does.
    At(u64),
    /// At the file's own cursor, which moves; the only position of a pipe or socket.
    Cursor,
}

impl Position {
    /// As the kernel's signed offset, where -1 means the cursor.
    pub(crate) fn offset(self) -> off_t {
        match self {
            // Offsets past i64::MAX become negative and are refused by the kernel with EINVAL.
            // -1 alone must not turn into "cursor".
            Position::At(u64::MAX) => i64::MIN,
            Position::At(offset) => offset as off_t,
            Position::Cursor => -1,
        }
    }
}

/// An entry of the engine's table of registered buffers: see [`buf::fixed`](crate::buf::fixed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FixedIndex(pub(crate) NonZero<u16>);

impl FixedIndex {
    /// The number of the entry.
    #[inline]
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

macro_rules! ops {
    ($( $(#[$doc:meta])* $name:ident { $( $field:ident : $kind:ty ),* $(,)? } )*) => {
        /// One operation as plain data. The result of each is what its system call returns, or
        /// a negative errno; the man page named at each has the details.
        #[derive(Clone, Copy, Debug)]
        #[expect(missing_docs, reason = "the fields are the arguments of the named call")]
        pub enum Op {
            $( $(#[$doc])* $name { $( $field: $kind ),* }, )*
        }

        /// The kind of an [`Op`], without its arguments.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Opcode {
            $( $(#[$doc])* $name, )*
        }

        impl Opcode {
            /// Every opcode, in the order of [`Op`].
            pub const ALL: &'static [Opcode] = &[ $( Opcode::$name ),* ];

            /// The opcode's name, as the op table of the documentation prints it.
            pub fn name(self) -> &'static str {
                match self { $( Opcode::$name => stringify!($name) ),* }
            }
        }

        impl Op {
            /// The kind of this op.
            pub fn opcode(&self) -> Opcode {
                match self { $( Op::$name { .. } => Opcode::$name ),* }
            }
        }
    };
}

ops! {
    /// Does nothing and completes with 0.
    Nop {}
    /// `pread(2)` or `read(2)`: bytes read, 0 at the end of the file. Where the memory lies in a
    /// registered buffer of the engine's, `fixed` says in which.
    Read { handle: Handle, buf: *mut u8, len: u32, position: Position, fixed: Option<FixedIndex> }
    /// `pwrite(2)` or `write(2)`: bytes written. `fixed` as for `Read`.
    Write { handle: Handle, buf: *const u8, len: u32, position: Position, fixed: Option<FixedIndex> }
    /// `preadv(2)`: as `Read`, into several buffers.
    ReadVectored { handle: Handle, iov: *const iovec, count: u32, position: Position }
    /// `pwritev(2)`: as `Write`, from several buffers.
    WriteVectored { handle: Handle, iov: *const iovec, count: u32, position: Position }
    /// `fsync(2)`, or `fdatasync(2)` where `data_only`.
    Fsync { handle: Handle, data_only: bool }
    /// `openat(2)`: the new file descriptor. `O_CLOEXEC` is always set. A FIFO opens at once for
    /// reading, and its reads wait for the first writer; for writing it fails with `ENXIO` while
    /// nobody reads. Only with `O_CREAT` or `O_TRUNC` does that wait for the other side. With
    /// `direct` the result is the index of a direct descriptor.
    Open { dir: Handle, path: *const c_char, flags: c_int, mode: mode_t, direct: bool }
    /// `close(2)`.
    Close { handle: Handle }
    /// `statx(2)` into `out`.
    Stat { dir: Handle, path: *const c_char, flags: c_int, mask: c_uint, out: *mut libc::statx }
    /// `fallocate(2)`.
    Allocate { handle: Handle, mode: c_int, offset: u64, len: u64 }
    /// `BLKDISCARD` of a block device (`ioctl(2)`): the device may forget these bytes.
    Discard { handle: Handle, offset: u64, len: u64 }
    /// `ftruncate(2)`.
    Truncate { handle: Handle, len: u64 }
    /// `renameat2(2)`.
    Rename { from_dir: Handle, from: *const c_char, to_dir: Handle, to: *const c_char, flags: c_uint }
    /// `unlinkat(2)`; with `AT_REMOVEDIR` in `flags`, `rmdir(2)`.
    Unlink { dir: Handle, path: *const c_char, flags: c_int }
    /// `mkdirat(2)`.
    MakeDir { dir: Handle, path: *const c_char, mode: mode_t }
    /// `linkat(2)`.
    Link { from_dir: Handle, from: *const c_char, to_dir: Handle, to: *const c_char, flags: c_int }
    /// `symlinkat(2)`: `path` becomes a symbolic link to `target`.
    Symlink { target: *const c_char, dir: Handle, path: *const c_char }
    /// `getdents64(2)`: bytes of directory entries written to `buf`, 0 at the end.
    ReadDir { handle: Handle, buf: *mut u8, len: u32 }
    /// `socket(2)`: the new file descriptor, or with `direct` the index of a direct one.
    Socket { domain: c_int, kind: c_int, protocol: c_int, direct: bool }
    /// `bind(2)`.
    Bind { handle: Handle, addr: *const sockaddr, addr_len: socklen_t }
    /// `listen(2)`.
    Listen { handle: Handle, backlog: c_int }
    /// `setsockopt(2)`.
    SetOption { handle: Handle, level: c_int, name: c_int, value: *const c_void, len: socklen_t }
    /// `getsockopt(2)`.
    GetOption { handle: Handle, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t }
    /// `accept4(2)`: the new file descriptor, or with `direct` the index of a direct one.
    Accept { handle: Handle, addr: *mut sockaddr, addr_len: *mut socklen_t, direct: bool }
    /// As `Accept`, without the address, and again for each connection: more completions may come
    /// as long as [`Completion::has_more`] says so.
    AcceptMulti { handle: Handle, direct: bool }
    /// `connect(2)`, until the connection stands or failed.
    Connect { handle: Handle, addr: *const sockaddr, addr_len: socklen_t }
    /// `recv(2)`: bytes received, 0 at the end of the stream.
    Recv { handle: Handle, buf: *mut u8, len: u32, flags: c_int }
    /// `send(2)`: bytes sent. `MSG_NOSIGNAL` is always set.
    Send { handle: Handle, buf: *const u8, len: u32, flags: c_int }
    /// As `Recv`, into a buffer of the driver's lease pool that is taken when the data is there,
    /// and again for each arrival: more completions may come as long as
    /// [`Completion::has_more`] says so. `-ENOBUFS` if the pool has none left.
    RecvMulti { handle: Handle }
    /// As `RecvMulti`, by `recvmsg(2)`: the buffer has a header (`struct io_uring_recvmsg_out`),
    /// then as much room for the address as `msg` says, then the message.
    RecvMsgMulti { handle: Handle, msg: *mut msghdr }
    /// As `Send`, without copying where the kernel can. The memory is in use until the second
    /// completion, if [`Completion::has_more`] announces one with the first.
    SendZeroCopy { handle: Handle, buf: *const u8, len: u32, flags: c_int }
    /// `recvmsg(2)`.
    RecvMsg { handle: Handle, msg: *mut msghdr, flags: c_int }
    /// `sendmsg(2)`. `MSG_NOSIGNAL` is always set.
    SendMsg { handle: Handle, msg: *const msghdr, flags: c_int }
    /// `shutdown(2)`.
    Shutdown { handle: Handle, how: c_int }
    /// `poll(2)` of one handle: the events that are ready, of those asked for and `POLLERR`,
    /// `POLLHUP`, `POLLRDHUP`.
    Poll { handle: Handle, events: i16 }
    /// `splice(2)`: bytes moved, 0 at the end of the input. An offset of -1 is the cursor.
    Splice { from: Handle, from_offset: i64, to: Handle, to_offset: i64, len: u32, flags: c_uint }
    /// Completes with `-ETIME` this long after it was started.
    Timeout { after: *const libc::timespec }
}

// SAFETY: an op is plain data; its pointers are used by whichever thread carries the op out, and
// INV-BUF keeps what they point at in place and untouched by anyone else until the completion.
unsafe impl Send for Op {}

impl Op {
    /// Whether the op ends within the time of a storage device, rather than when a peer acts.
    /// Only such ops are worth waiting for in batches.
    pub(crate) fn is_bounded(&self) -> bool {
        match self {
            Op::Read { position, .. }
            | Op::Write { position, .. }
            | Op::ReadVectored { position, .. }
            | Op::WriteVectored { position, .. } => matches!(position, Position::At(_)),
            _ => false,
        }
    }
}

/// How an op ended, or with [`has_more`](Completion::has_more) what it has yielded so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the system call returned, or a negative errno.
    pub result: i32,
    flags: u32,
}

/// The ring's flags of a completion, which every engine uses.
const FLAG_BUFFER: u32 = linux_raw_sys::io_uring::IORING_CQE_F_BUFFER;
const FLAG_MORE: u32 = linux_raw_sys::io_uring::IORING_CQE_F_MORE;
const BUFFER_SHIFT: u32 = 16;

impl Completion {
    pub(crate) const fn new(result: i32) -> Completion {
        Completion { result, flags: 0 }
    }

    /// As the ring reports it.
    pub(crate) const fn with_flags(result: i32, flags: u32) -> Completion {
        Completion { result, flags }
    }

    /// The last completion of an op that has taken a buffer of the lease pool.
    pub(crate) const fn with_buffer(result: i32, buffer: u16) -> Completion {
        Completion { result, flags: FLAG_BUFFER | (buffer as u32) << BUFFER_SHIFT }
    }

    /// A completion that says how the system call failed.
    pub(crate) const fn error(errno: c_int) -> Completion {
        Completion::new(-errno)
    }

    /// Whether the op goes on and completes again.
    pub const fn has_more(self) -> bool {
        self.flags & FLAG_MORE != 0
    }

    /// Which buffer of the lease pool the op has taken.
    pub(crate) const fn buffer(self) -> Option<u16> {
        if self.flags & FLAG_BUFFER != 0 { Some((self.flags >> BUFFER_SHIFT) as u16) } else { None }
    }

    /// The result as `std::io` has it.
    pub fn into_result(self) -> std::io::Result<u32> {
        if self.result < 0 {
            Err(std::io::Error::from_raw_os_error(-self.result))
        } else {
            Ok(self.result as u32)
        }
    }
}
