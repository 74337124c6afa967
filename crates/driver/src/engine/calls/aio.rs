//! Linux native AIO: `io_submit(2)` for reads and writes past the page cache, and for syncs.
//!
//! Requests are staged as ops come, and a turn of the loop hands them over in one system call.
//! Completions are taken out of the ring that the kernel shares with us, without a system call,
//! where it has the layout we know, and by `io_getevents(2)` where it has not. While requests are in
//! flight the turn waits in that call for everything: one more request, the watch, polls the epoll of
//! the engine, and completes when that has something to report. (To have each request signal an
//! eventfd that epoll watches costs more for each: `IOCB_FLAG_RESFD`.)
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
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::poller::Epoll;
use crate::attempt::errno;
use crate::diagnosis::{Failure, Step};
use crate::meter::Counter;
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

/// Comes back with the watch.
const WATCH: u64 = Key::internal(0);

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
    /// The epoll of the engine.
    epoll: RawFd,
    /// The watch is staged, as the first, or in flight.
    has_watch: bool,
    /// Not handed over yet.
    staged: Vec<Request>,
    /// Room for the addresses of staged requests.
    addresses: Vec<*mut Request>,
    /// Room for events that a wait copies.
    events: Vec<Event>,
    /// Without the watch.
    in_flight_count: usize,
    in_flight_max: usize,
    /// The kernel had no room although nothing of ours is in flight, which nothing will tell the
    /// end of.
    stalled: bool,
    /// System calls that submit or wait.
    pub(super) entries: Counter,
}

impl Aio {
    /// Makes a context for so many requests in flight, and proves it with one that goes through
    /// the kernel and back.
    pub(super) fn new(in_flight_max: u32, epoll: RawFd) -> Result<Aio, Failure> {
        let mut context: c_ulong = 0;
        // One more for the watch.
        let count_max = in_flight_max + 1;
        // SAFETY: the context is a local, and zero, as the call wants it.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, count_max, &raw mut context) };
        if result < 0 {
            return Err(Failure { step: Step::SetUp, error: io::Error::last_os_error() });
        }
        let count = in_flight_max as usize;
        let mut aio = Aio {
            context,
            is_mapped: false,
            epoll,
            has_watch: false,
            staged: Vec::new(),
            addresses: Vec::new(),
            events: vec![Event::default(); count.clamp(1, 256)],
            in_flight_count: 0,
            in_flight_max: count,
            stalled: false,
            entries: Counter::default(),
        };
        aio.prove().map_err(Failure::at(Step::Prove))?;
        Ok(aio)
    }

    /// One request through the kernel and back: a watch of an epoll that has something to report
    /// (polls came with Linux 4.18). Then looks whether the ring is laid out as we know it.
    fn prove(&mut self) -> io::Result<()> {
        let (mut epoll, (_reader, writer)) = (Epoll::new()?, io::pipe()?);
        epoll.watch(writer.as_raw_fd(), libc::POLLOUT)?;
        let of_engine = std::mem::replace(&mut self.epoll, epoll.fd());
        self.stage_watch();
        let mut refused = Ok(());
        self.submit(|_, errno| refused = Err(io::Error::from_raw_os_error(errno)));
        refused?;
        if !self.is_watching() {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        self.copy_events(1, Some(Duration::from_secs(5)), &mut Vec::new())?;
        if self.has_watch {
            return Err(io::Error::from_raw_os_error(libc::ETIME));
        }
        self.epoll = of_engine;
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

    fn stage_watch(&mut self) {
        self.has_watch = true;
        let (fd, buf) = (self.epoll as u32, libc::POLLIN as u64);
        let watch = Request { data: WATCH, command: POLL, fd, buf, ..Request::default() };
        self.staged.insert(0, watch);
    }

    /// Whether the kernel will say when the epoll of the engine has something to report: it had
    /// nothing when completions were last taken.
    pub(super) fn is_watching(&self) -> bool {
        self.has_watch && self.staged.first().is_none_or(|first| first.data != WATCH)
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
        if !self.has_watch && self.in_flight_count + self.staged.len() > 0 {
            self.stage_watch();
        }
        loop {
            // The watch has a place of its own.
            let room = self.in_flight_max - self.in_flight_count + usize::from(!self.is_watching());
            let count = self.staged.len().min(room);
            if count == 0 {
                return;
            }
            self.addresses.clear();
            self.addresses.extend(self.staged[..count].iter_mut().map(ptr::from_mut));
            self.entries.count();
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
                let taken = self.staged.drain(..result as usize);
                self.in_flight_count += taken.filter(|request| request.data != WATCH).count();
                continue;
            }
            match if result == 0 { libc::EAGAIN } else { errno() } {
                libc::EINTR => {}
                // Other processors may keep room aside for themselves: what ends makes some.
                libc::EAGAIN => {
                    self.stalled = self.in_flight_count == 0;
                    return;
                }
                errno => match self.staged.remove(0).data {
                    // The wait looks after epoll without it.
                    WATCH => {
                        self.has_watch = false;
                        return;
                    }
                    data => refuse(data, errno),
                },
            }
        }
    }

    /// Waits for so many completions no longer than `batch_time`, and then for the first, or until
    /// the watch has something to report, or the time is over. What has completed goes to `ended`.
    pub(super) fn wait(
        &mut self,
        batch_count: usize,
        batch_time: Duration,
        mut timeout: Option<Duration>,
        ended: &mut Vec<Ended>,
    ) -> io::Result<()> {
        self.reap(ended)?;
        if batch_count > 1 && ended.len() + self.in_flight_count >= batch_count {
            let missing_count = batch_count.saturating_sub(ended.len());
            if missing_count > 0 {
                let time = timeout.map_or(batch_time, |timeout| timeout.min(batch_time));
                self.copy_events(missing_count, Some(time), ended)?;
                timeout = timeout.map(|timeout| timeout - time);
            }
        }
        if !self.is_watching() {
            // It has something to report, or nobody would tell.
            timeout = Some(Duration::ZERO);
        }
        if ended.is_empty() && timeout != Some(Duration::ZERO) {
            self.copy_events(1, timeout, ended)?;
        }
        self.reap(ended)
    }

    /// Takes what has completed.
    pub(super) fn reap(&mut self, ended: &mut Vec<Ended>) -> io::Result<()> {
        if self.in_flight_count == 0 && !self.has_watch {
            return Ok(());
        }
        if !self.is_mapped {
            return self.copy_events(0, Some(Duration::ZERO), ended);
        }
        let ring = self.ring();
        // SAFETY: as in `prove`. Only this thread takes events: `head` is ours to write.
        let Ring { len, head: head_shared, tail, .. } = unsafe { &*ring };
        // SAFETY: the events follow the header.
        let events = unsafe { ring.add(1) }.cast::<Event>();
        let first = head_shared.load(Ordering::Relaxed);
        let mut head = first;
        // The kernel wrote the events up to there before.
        let tail = tail.load(Ordering::Acquire);
        while head != tail && head < *len {
            // SAFETY: within the ring, and written: it is before the tail.
            let event = unsafe { events.add(head as usize).read() };
            self.take(event, ended);
            head = if head + 1 == *len { 0 } else { head + 1 };
        }
        if head != first {
            // The kernel may write over them from here on.
            head_shared.store(head, Ordering::Release);
        }
        Ok(())
    }

    #[inline]
    fn take(&mut self, event: Event, ended: &mut Vec<Ended>) {
        let Some(key) = Key::from_user_data(event.data) else {
            self.has_watch = false;
            return;
        };
        self.in_flight_count -= 1;
        // Lengths fit by the kernel's own limits.
        let result = i32::try_from(event.result).unwrap_or(i32::MAX);
        ended.push(Ended { key, result });
    }

    fn ring(&self) -> *const Ring {
        ptr::with_exposed_provenance(self.context as usize)
    }

    /// `io_getevents`: waits for so many, without a timeout for ever, and takes what is there.
    fn copy_events(
        &mut self,
        count_min: usize,
        timeout: Option<Duration>,
        ended: &mut Vec<Ended>,
    ) -> io::Result<()> {
        let timespec = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.entries.count();
        // SAFETY: the events have room for so many; the time is a local, or null.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                count_min.min(self.events.len()) as c_long,
                self.events.len() as c_long,
                self.events.as_mut_ptr(),
                timespec.as_ref().map_or(ptr::null(), ptr::from_ref),
            )
        };
        if result < 0 {
            return match errno() {
                libc::EINTR => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            };
        }
        for at in 0..result as usize {
            self.take(self.events[at], ended);
        }
        Ok(())
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // It waits for what is in flight (INV-EXIT), of which there is nothing but the watch, which it
        // cancels: a driver that gave up waiting leaks the engine instead.
        // SAFETY: the context is ours, and nobody uses its ring from here on.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}
