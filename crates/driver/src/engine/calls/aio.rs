//! Linux native AIO: `io_submit(2)` for reads and writes past the page cache, and for syncs.
//!
//! Requests are staged as ops come, and a turn of the loop hands them over in one system call.
//! Completions are taken out of the ring that the kernel shares with us, without a system call,
//! where it has the layout we know, and by `io_getevents(2)` where it has not. Each signals an
//! eventfd, which the poller of the engine watches.
//!
//! More requests than the context takes wait here, in order: none is lost to `EAGAIN`. Requests
//! in flight are never cancelled: `io_cancel(2)` works on those that registered a function for it,
//! and no file system's do (Linux 6.18, `kiocb_set_cancel_fn`).
//!
//! Reads and writes carry `RWF_NOWAIT`, for without it `io_submit` itself waits where a block has
//! to be allocated or another writer holds the file: those end with `EAGAIN`, and belong on a
//! thread. Deliberately not here: which ops are fit for it (`calls`).

use std::ffi::{c_long, c_ulong, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::attempt::errno;
use crate::diagnosis::{Failure, Step};
use crate::op::{Op, Position};
use crate::table::Key;

/// What a request asks for (`IOCB_CMD_`).
const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const FDSYNC: u16 = 3;
const POLL: u16 = 5;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;

/// Signal an eventfd on completion (`IOCB_FLAG_RESFD`).
const FLAG_EVENTFD: u32 = 1;

/// A request, as the kernel has it (`struct iocb`).
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Request {
    /// Comes back with the completion.
    data: u64,
    #[cfg(target_endian = "little")]
    key: u32,
    flags_rw: u32,
    #[cfg(target_endian = "big")]
    key: u32,
    command: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

const _: () = assert!(size_of::<Request>() == 64);

/// A completion, as the kernel has it (`struct io_event`).
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Event {
    data: u64,
    request: u64,
    result: i64,
    result_2: i64,
}

/// What the address of a context points at (`struct aio_ring`); events follow.
#[repr(C)]
struct Ring {
    id: u32,
    len: u32,
    head: AtomicU32,
    tail: AtomicU32,
    magic: u32,
    compatible_features: u32,
    incompatible_features: u32,
    header_len: u32,
}

const RING_MAGIC: u32 = 0xa10a_10a1;

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) key: Key,
    /// As of the system call that it stands for, or a negative errno.
    pub(super) result: i32,
}

pub(crate) struct Aio {
    /// Which is the address of the ring.
    context: c_ulong,
    /// Whether the ring has the layout that we know.
    is_mapped: bool,
    eventfd: OwnedFd,
    /// Not handed over yet.
    staged: Vec<Request>,
    /// Room for the addresses of staged requests.
    addresses: Vec<*mut Request>,
    /// Room for events that a wait copies.
    events: Vec<Event>,
    in_flight_count: usize,
    in_flight_max: usize,
    /// The kernel had no room although nothing of ours is in flight, which nothing will tell the
    /// end of.
    stalled: bool,
}

impl Aio {
    /// Makes a context for so many requests in flight, and proves it with one that goes through
    /// the kernel and back.
    pub(super) fn new(in_flight_max: u32) -> Result<Aio, Failure> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(Failure { step: Step::SetUp, error: io::Error::last_os_error() });
        }
        // SAFETY: just made, owned by nobody else.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut context: c_ulong = 0;
        // SAFETY: the context is a local, and zero, as the call wants it.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, in_flight_max, &raw mut context) };
        if result < 0 {
            return Err(Failure { step: Step::SetUp, error: io::Error::last_os_error() });
        }
        let count = in_flight_max as usize;
        let mut aio = Aio {
            context,
            is_mapped: false,
            eventfd,
            staged: Vec::new(),
            addresses: Vec::new(),
            events: vec![Event::default(); count.min(256)],
            in_flight_count: 0,
            in_flight_max: count,
            stalled: false,
        };
        aio.prove().map_err(Failure::at(Step::Prove))?;
        Ok(aio)
    }

    /// One request through the kernel and back: a poll of the eventfd, which has room to write
    /// (Linux 4.18). Then looks whether the ring is laid out as we know it.
    fn prove(&mut self) -> io::Result<()> {
        let fd = self.eventfd();
        let poll = Request {
            command: POLL,
            fd: fd as u32,
            buf: libc::POLLOUT as u64,
            ..Request::default()
        };
        self.staged.push(poll);
        let mut refused = Ok(());
        self.submit(|_, errno| refused = Err(io::Error::from_raw_os_error(errno)));
        refused?;
        if self.in_flight_count != 1 {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        if self.copy_events(1, Some(Duration::from_secs(5)))? != 1 {
            return Err(io::Error::from_raw_os_error(libc::ETIME));
        }
        let ring = self.ring();
        // SAFETY: the address of the context is that of the ring, which the kernel has mapped for
        // this process until `io_destroy`. (That libaio reads it, too, keeps it so.)
        let Ring { magic, compatible_features, incompatible_features, header_len, .. } =
            unsafe { &*ring };
        self.is_mapped = *magic == RING_MAGIC
            && *compatible_features & 1 == 1
            && *incompatible_features == 0
            && *header_len as usize == size_of::<Ring>();
        Ok(())
    }

    /// The descriptor that becomes readable with completions.
    pub(super) fn eventfd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Requests with the kernel.
    pub(super) fn in_flight_count(&self) -> usize {
        self.in_flight_count
    }

    /// Whether the kernel has to be asked again without anything telling when.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Stages `op` for the next [`Aio::submit`]. False if it is none that native AIO has.
    ///
    /// # Safety
    /// INV-BUF: what the op points at stays in place and untouched until it is among those that
    /// ended.
    pub(super) unsafe fn stage(&mut self, key: Key, op: &Op) -> bool {
        let (handle, command, buf, len, position) = match *op {
            Op::Read { handle, buf, len, position, .. } => {
                (handle, PREAD, buf.cast::<c_void>().cast_const(), u64::from(len), position)
            }
            Op::Write { handle, buf, len, position, .. } => {
                (handle, PWRITE, buf.cast(), u64::from(len), position)
            }
            Op::ReadVectored { handle, iov, count, position } => {
                (handle, PREADV, iov.cast(), u64::from(count), position)
            }
            Op::WriteVectored { handle, iov, count, position } => {
                (handle, PWRITEV, iov.cast(), u64::from(count), position)
            }
            Op::Fsync { handle, data_only } => {
                let command = if data_only { FDSYNC } else { FSYNC };
                (handle, command, ptr::null(), 0, Position::At(0))
            }
            _ => return false,
        };
        let offset = position.offset();
        if position == Position::Cursor || offset < 0 {
            return false;
        }
        let is_sync = matches!(command, FSYNC | FDSYNC);
        self.staged.push(Request {
            data: key.to_user_data(),
            flags_rw: if is_sync { 0 } else { libc::RWF_NOWAIT as u32 },
            command,
            fd: handle.fd() as u32,
            buf: buf as u64,
            len,
            offset,
            flags: FLAG_EVENTFD,
            eventfd: self.eventfd() as u32,
            ..Request::default()
        });
        true
    }

    /// Takes `key` back if it was not handed over yet.
    pub(super) fn unstage(&mut self, key: Key) -> bool {
        let data = key.to_user_data();
        let found = self.staged.iter().position(|request| request.data == data);
        found.map(|at| self.staged.remove(at)).is_some()
    }

    /// Hands over what is staged, as far as there is room. `refuse` is told of those that the
    /// kernel does not take, with the errno.
    pub(super) fn submit(&mut self, mut refuse: impl FnMut(u64, i32)) {
        self.stalled = false;
        loop {
            let room = self.in_flight_max - self.in_flight_count;
            let count = self.staged.len().min(room);
            if count == 0 {
                return;
            }
            self.addresses.clear();
            self.addresses.extend(self.staged[..count].iter_mut().map(ptr::from_mut));
            // SAFETY: `count` addresses of requests, which the kernel copies during the call; what
            // they point at is in place until they end (INV-BUF, promised to `stage`).
            let result = unsafe {
                libc::syscall(
                    libc::SYS_io_submit,
                    self.context,
                    count as c_long,
                    self.addresses.as_mut_ptr(),
                )
            };
            if result > 0 {
                // After a part of them comes the error of the next one, if it has any.
                let taken = result as usize;
                self.in_flight_count += taken;
                self.staged.drain(..taken);
                continue;
            }
            match if result == 0 { libc::EAGAIN } else { errno() } {
                libc::EINTR => {}
                // Other processors may keep room aside for themselves: what ends makes some.
                libc::EAGAIN => {
                    self.stalled = self.in_flight_count == 0;
                    return;
                }
                errno => refuse(self.staged.remove(0).data, errno),
            }
        }
    }

    /// Waits until `count` completions are there, or the time is over. They go to `ended`.
    pub(super) fn wait(
        &mut self,
        count: usize,
        timeout: Duration,
        ended: &mut Vec<Ended>,
    ) -> io::Result<()> {
        let there_count = self.reap(ended)?;
        let count = count.saturating_sub(there_count).min(self.in_flight_count);
        if count > 0 {
            let copied = self.copy_events(count.min(self.events.len()), Some(timeout))?;
            ended.extend(self.events[..copied].iter().filter_map(Event::ended));
            self.reap(ended)?;
        }
        Ok(())
    }

    /// Takes what has completed. Returns how many.
    pub(super) fn reap(&mut self, ended: &mut Vec<Ended>) -> io::Result<usize> {
        if self.in_flight_count == 0 {
            return Ok(0);
        }
        if !self.is_mapped {
            let copied = self.copy_events(0, None)?;
            ended.extend(self.events[..copied].iter().filter_map(Event::ended));
            return Ok(copied);
        }
        let ring = self.ring();
        // SAFETY: as in `prove`. Only this thread takes events: `head` is ours to write.
        let Ring { len, head: head_shared, tail, .. } = unsafe { &*ring };
        // SAFETY: the events follow the header.
        let events = unsafe { ring.add(1) }.cast::<Event>();
        let mut head = head_shared.load(Ordering::Relaxed);
        // The kernel wrote the events up to there before.
        let tail = tail.load(Ordering::Acquire);
        let mut count = 0;
        while head != tail && head < *len {
            // SAFETY: within the ring, and written: it is before the tail.
            let event = unsafe { events.add(head as usize).read() };
            ended.extend(event.ended());
            head = if head + 1 == *len { 0 } else { head + 1 };
            count += 1;
        }
        if count > 0 {
            // The kernel may write over them from here on.
            head_shared.store(head, Ordering::Release);
            self.in_flight_count -= count;
        }
        Ok(count)
    }

    fn ring(&self) -> *const Ring {
        ptr::with_exposed_provenance(self.context as usize)
    }

    /// `io_getevents`. Returns how many there are in `events`.
    fn copy_events(&mut self, count_min: usize, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.unwrap_or(Duration::ZERO);
        let timespec = libc::timespec {
            tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the events have room for so many; the time is a local.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                count_min as c_long,
                self.events.len() as c_long,
                self.events.as_mut_ptr(),
                &raw const timespec,
            )
        };
        if result < 0 {
            return match errno() {
                libc::EINTR => Ok(0),
                errno => Err(io::Error::from_raw_os_error(errno)),
            };
        }
        self.in_flight_count -= result as usize;
        Ok(result as usize)
    }
}

impl Event {
    fn ended(&self) -> Option<Ended> {
        let key = Key::from_user_data(self.data)?;
        // Lengths fit by the kernel's own limits.
        let result = i32::try_from(self.result).unwrap_or(i32::MAX);
        Some(Ended { key, result })
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // It waits for what is in flight (INV-EXIT), of which there is nothing: a driver that
        // gave up waiting leaks the engine instead.
        // SAFETY: the context is ours, and nobody uses its ring from here on.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}
