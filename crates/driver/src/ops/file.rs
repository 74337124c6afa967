//! Operations on open files, pipes and directories.

use std::ffi::c_int;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::IntoRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use libc::iovec;

use super::direct::{Transfer, explain};
use super::{count, op_len, unit};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::Driver;
use crate::future::{OpFuture, Operation};
use crate::handle::{Held, SharedHandle, owned_fd};
use crate::op::{Completion, FixedIndex, Handle, Op, Position};

/// `iovec`s in one call at most (`UIO_MAXIOV`); more buffers are used in part.
pub(super) const IOV_MAX: usize = 1024;

/// See [`nop`].
pub struct Nop {
    driver: Rc<Driver>,
}

// SAFETY: no pointers.
unsafe impl Operation for Nop {
    type Output = io::Result<()>;

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        Op::Nop {}
    }

    fn complete(self, completion: Completion) -> io::Result<()> {
        unit(completion)
    }
}

/// Goes through the driver and back.
pub fn nop(driver: &Rc<Driver>) -> OpFuture<Nop> {
    OpFuture::new(Nop { driver: driver.clone() })
}

/// Where `buf` is registered, if that is with the driver that is to use it.
#[inline]
pub(super) fn fixed_index<B: IoBuf>(buf: &B, handle: &SharedHandle) -> Option<FixedIndex> {
    buf.registration()?.index_on(handle.driver())
}

/// See [`read`].
pub struct Read<B> {
    handle: SharedHandle,
    buf: B,
    position: Position,
}

// SAFETY: the buffer's memory is where IoBufMut promises, and the operation owns it.
unsafe impl<B: IoBufMut> Operation for Read<B> {
    type Output = (io::Result<usize>, B);

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    #[inline]
    fn prepare(&mut self) -> Op {
        Op::Read {
            handle: self.handle.handle(),
            buf: self.buf.as_mut_ptr(),
            len: op_len(self.buf.capacity()),
            position: self.position,
            fixed: fixed_index(&self.buf, &self.handle),
        }
    }

    #[inline]
    fn complete(mut self, completion: Completion) -> Self::Output {
        let result = count(completion).map_err(|error| {
            let iov = [iovec_mut(&mut self.buf)];
            explain(error, Transfer::Read, &self.handle, self.position, &iov)
        });
        filled(result, self.buf)
    }
}

/// A buffer after an op wrote to it.
#[inline]
pub(super) fn filled<B: IoBufMut>(result: io::Result<usize>, mut buf: B) -> (io::Result<usize>, B) {
    if let Ok(count) = result {
        // SAFETY: the kernel wrote so many bytes, which is at most what it was offered.
        unsafe { buf.set_filled(count.min(buf.capacity())) };
    }
    (result, buf)
}

/// Reads into `buf`, up to its capacity: the bytes read, 0 at the end of the file.
pub fn read<B: IoBufMut>(handle: &SharedHandle, buf: B, position: Position) -> OpFuture<Read<B>> {
    OpFuture::new(Read { handle: handle.clone(), buf, position })
}

/// See [`write()`].
pub struct Write<B> {
    handle: SharedHandle,
    buf: B,
    position: Position,
}

// SAFETY: the buffer's memory is where IoBuf promises, and the operation owns it.
unsafe impl<B: IoBuf> Operation for Write<B> {
    type Output = (io::Result<usize>, B);

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    #[inline]
    fn prepare(&mut self) -> Op {
        Op::Write {
            handle: self.handle.handle(),
            buf: self.buf.as_ptr(),
            len: op_len(self.buf.len()),
            position: self.position,
            fixed: fixed_index(&self.buf, &self.handle),
        }
    }

    #[inline]
    fn complete(self, completion: Completion) -> Self::Output {
        let result = count(completion).map_err(|error| {
            let iov = [iovec_ref(&self.buf)];
            explain(error, Transfer::Write, &self.handle, self.position, &iov)
        });
        (result, self.buf)
    }
}

/// Writes the initialised bytes of `buf`: the bytes written, which may be fewer.
pub fn write<B: IoBuf>(handle: &SharedHandle, buf: B, position: Position) -> OpFuture<Write<B>> {
    OpFuture::new(Write { handle: handle.clone(), buf, position })
}

/// See [`read_vectored`].
pub struct ReadVectored<B> {
    handle: SharedHandle,
    bufs: Vec<B>,
    iov: Vec<iovec>,
    position: Position,
}

// SAFETY: the buffers' memory is where IoBufMut promises, the iovecs are on the heap, and the
// operation owns both.
unsafe impl<B: IoBufMut> Operation for ReadVectored<B> {
    type Output = (io::Result<usize>, Vec<B>);

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        self.iov = self.bufs.iter_mut().take(IOV_MAX).map(iovec_mut).collect();
        Op::ReadVectored {
            handle: self.handle.handle(),
            iov: self.iov.as_ptr(),
            count: self.iov.len() as u32,
            position: self.position,
        }
    }

    fn complete(mut self, completion: Completion) -> Self::Output {
        let result = count(completion).map_err(|error| {
            explain(error, Transfer::Read, &self.handle, self.position, &self.iov)
        });
        if let Ok(count) = result {
            fill_in_order(&mut self.bufs, count);
        }
        (result, self.bufs)
    }
}

pub(super) fn iovec_mut<B: IoBufMut>(buf: &mut B) -> iovec {
    iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.capacity() }
}

pub(super) fn iovec_ref<B: IoBuf>(buf: &B) -> iovec {
    iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() }
}

/// Tells the buffers of a vectored read what arrived in each.
pub(super) fn fill_in_order<B: IoBufMut>(bufs: &mut [B], mut count: usize) {
    for buf in bufs {
        let part = count.min(buf.capacity());
        // SAFETY: the kernel fills the buffers in order, each to its capacity.
        unsafe { buf.set_filled(part) };
        count -= part;
    }
}

/// Reads into several buffers in order: the bytes read in all.
pub fn read_vectored<B: IoBufMut>(
    handle: &SharedHandle,
    bufs: Vec<B>,
    position: Position,
) -> OpFuture<ReadVectored<B>> {
    let operation = ReadVectored { handle: handle.clone(), bufs, iov: Vec::new(), position };
    OpFuture::new(operation)
}

/// See [`write_vectored`].
pub struct WriteVectored<B> {
    handle: SharedHandle,
    bufs: Vec<B>,
    iov: Vec<iovec>,
    position: Position,
}

// SAFETY: as for ReadVectored.
unsafe impl<B: IoBuf> Operation for WriteVectored<B> {
    type Output = (io::Result<usize>, Vec<B>);

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        self.iov = self.bufs.iter().take(IOV_MAX).map(iovec_ref).collect();
        Op::WriteVectored {
            handle: self.handle.handle(),
            iov: self.iov.as_ptr(),
            count: self.iov.len() as u32,
            position: self.position,
        }
    }

    fn complete(self, completion: Completion) -> Self::Output {
        let result = count(completion).map_err(|error| {
            explain(error, Transfer::Write, &self.handle, self.position, &self.iov)
        });
        (result, self.bufs)
    }
}

/// Writes several buffers in order: the bytes written in all, which may be fewer.
pub fn write_vectored<B: IoBuf>(
    handle: &SharedHandle,
    bufs: Vec<B>,
    position: Position,
) -> OpFuture<WriteVectored<B>> {
    let operation = WriteVectored { handle: handle.clone(), bufs, iov: Vec::new(), position };
    OpFuture::new(operation)
}

/// An operation on one handle without memory of its own: see the functions that return it.
pub struct OnHandle {
    handle: SharedHandle,
    op: fn(Handle, [u64; 3]) -> Op,
    arguments: [u64; 3],
}

// SAFETY: the ops that the functions below build have no pointers.
unsafe impl Operation for OnHandle {
    type Output = io::Result<u32>;

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        let op = (self.op)(self.handle.handle(), self.arguments);
        if self.handle.is_reachable(op.opcode()) {
            return op;
        }
        (self.op)(self.handle.fd_handle(), self.arguments)
    }

    fn complete(self, completion: Completion) -> io::Result<u32> {
        completion.into_result()
    }
}

pub(super) fn on_handle(
    handle: &SharedHandle,
    op: fn(Handle, [u64; 3]) -> Op,
    arguments: [u64; 3],
) -> OpFuture<OnHandle> {
    OpFuture::new(OnHandle { handle: handle.clone(), op, arguments })
}

/// Makes what was written durable: data and metadata, or with `data_only` just what is needed to
/// read the data back. Yields 0.
pub fn fsync(handle: &SharedHandle, data_only: bool) -> OpFuture<OnHandle> {
    on_handle(
        handle,
        |handle, [data_only, ..]| Op::Fsync { handle, data_only: data_only != 0 },
        [data_only.into(), 0, 0],
    )
}

/// Allocates, or with a `mode` of `fallocate(2)` frees, `len` bytes from `offset` on. Yields 0.
pub fn allocate(handle: &SharedHandle, mode: c_int, offset: u64, len: u64) -> OpFuture<OnHandle> {
    on_handle(
        handle,
        |handle, [mode, offset, len]| Op::Allocate { handle, mode: mode as c_int, offset, len },
        [mode as u64, offset, len],
    )
}

/// Lets a block device forget `len` bytes from `offset` on (`BLKDISCARD`): what is read there
/// afterwards is the device's to say. Yields 0.
pub fn discard(handle: &SharedHandle, offset: u64, len: u64) -> OpFuture<OnHandle> {
    on_handle(
        handle,
        |handle, [offset, len, ..]| Op::Discard { handle, offset, len },
        [offset, len, 0],
    )
}

/// Makes the file `len` bytes long. Yields 0.
pub fn truncate(handle: &SharedHandle, len: u64) -> OpFuture<OnHandle> {
    on_handle(handle, |handle, [len, ..]| Op::Truncate { handle, len }, [len, 0, 0])
}

/// See [`poll`].
pub struct PollEvents {
    handle: SharedHandle,
    events: i16,
}

// SAFETY: no pointers.
unsafe impl Operation for PollEvents {
    type Output = io::Result<u32>;

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Completion>> {
        if self.events & libc::POLLIN == 0 {
            return Poll::Ready(None);
        }
        // What was received already can be read without waiting; so can a failure.
        let ready = || Completion::new(libc::POLLIN.into());
        self.handle.poll_received(cx, |_| ()).map(|received| match received {
            Ok(None) => None,
            Ok(Some(())) | Err(_) => Some(ready()),
        })
    }

    fn prepare(&mut self) -> Op {
        Op::Poll { handle: self.handle.handle(), events: self.events }
    }

    fn complete(self, completion: Completion) -> io::Result<u32> {
        completion.into_result()
    }
}

/// Waits for some of `events` (`POLLIN` and so on), for an error or a hang-up: yields what is
/// ready.
pub fn poll(handle: &SharedHandle, events: i16) -> OpFuture<PollEvents> {
    OpFuture::new(PollEvents { handle: handle.clone(), events })
}

/// See [`write_synced`].
#[must_use = "an op is submitted when its future is polled"]
pub struct WriteSynced<B: IoBuf> {
    write: OpFuture<Write<B>>,
    sync: OpFuture<OnHandle>,
    is_started: bool,
    /// Whether the sync was submitted with the write.
    is_linked: bool,
    /// Of the write, once it has finished; with whether it was whole.
    written: Option<(io::Result<usize>, B, bool)>,
}

/// Writes the initialised bytes of `buf` and makes them durable (`fdatasync(2)`), both in one
/// submission where the engine can link them: the bytes written, the result of the sync, and the
/// buffer. The sync is `None` where it was not carried out, because the write failed or took fewer
/// bytes than there are: what was written is then not known to be durable.
///
/// Dropping the future cancels both, either of which may have happened.
pub fn write_synced<B: IoBuf>(handle: &SharedHandle, buf: B, position: Position) -> WriteSynced<B> {
    let (write, sync) = (write(handle, buf, position), fsync(handle, true));
    WriteSynced { write, sync, is_started: false, is_linked: false, written: None }
}

impl<B: IoBuf> WriteSynced<B> {
    /// Polls the write, which was started. Where it has to go again, so has the sync: the kernel ended
    /// that with the write, and it is started anew when the write is done.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<usize>, B)> {
        loop {
            let completion = std::task::ready!(self.write.poll_completion(cx));
            if !self.write.goes_again(completion) {
                return Poll::Ready(self.write.finish(completion));
            }
            if std::mem::take(&mut self.is_linked)
                && let Some(write) = self.write.operation()
            {
                self.sync = fsync(&write.handle, true);
            }
        }
    }
}

impl<B: IoBuf> Future for WriteSynced<B> {
    type Output = (io::Result<usize>, Option<io::Result<()>>, B);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.written.is_none() {
            let polled = if this.is_started {
                this.poll_write(cx)
            } else {
                this.is_started = true;
                let (polled, is_linked) = this.write.start_with(&mut this.sync, cx);
                this.is_linked = is_linked;
                polled
            };
            let (result, buf) = std::task::ready!(polled);
            let is_whole = matches!(&result, Ok(count) if *count == op_len(buf.len()) as usize);
            this.written = Some((result, buf, is_whole));
        }
        let is_whole = matches!(this.written, Some((_, _, true)));
        let synced = if is_whole || this.is_linked {
            Some(std::task::ready!(Pin::new(&mut this.sync).poll(cx)).map(drop))
        } else {
            None
        };
        let (result, buf, _) = this.written.take().expect("set above");
        // A sync that the write took with it was not carried out; nor was one cancelled later.
        let is_cancelled = |error: &io::Error| error.raw_os_error() == Some(libc::ECANCELED);
        let synced = synced.filter(|synced| is_whole && !synced.as_ref().is_err_and(is_cancelled));
        Poll::Ready((result, synced, buf))
    }
}

impl<B: IoBuf> fmt::Debug for WriteSynced<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteSynced")
            .field("write", &self.write)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}

/// See [`splice`].
pub struct Splice {
    from: SharedHandle,
    from_offset: Option<u64>,
    to: SharedHandle,
    to_offset: Option<u64>,
    len: u32,
    /// Stays open until the op has ended.
    _other_end: Option<SharedHandle>,
}

// SAFETY: no pointers.
unsafe impl Operation for Splice {
    type Output = io::Result<usize>;

    fn driver(&self) -> &Rc<Driver> {
        self.from.driver()
    }

    fn prepare(&mut self) -> Op {
        let offset = |offset: Option<u64>| offset.map_or(Position::Cursor, Position::At).offset();
        Op::Splice {
            from: self.from.handle(),
            from_offset: offset(self.from_offset),
            to: self.to.handle(),
            to_offset: offset(self.to_offset),
            len: self.len,
            flags: 0,
        }
    }

    fn complete(self, completion: Completion) -> io::Result<usize> {
        count(completion)
    }
}

/// Moves up to `len` bytes, one side of which is a pipe, without copying them to user memory: the
/// bytes moved, 0 at the end of the input. An offset of `None` is the file's cursor, and the only
/// choice for pipes and sockets.
pub fn splice(
    from: &SharedHandle,
    from_offset: Option<u64>,
    to: &SharedHandle,
    to_offset: Option<u64>,
    len: usize,
) -> OpFuture<Splice> {
    OpFuture::new(Splice {
        from: from.clone(),
        from_offset,
        to: to.clone(),
        to_offset,
        len: op_len(len),
        _other_end: None,
    })
}

/// As [`splice`], out of a pipe into a socket. The pipe's writing end stays open until the op has
/// ended: while the kernel waits for room in the socket it holds the pipe's lock, and whoever closed
/// the other end would wait for that, with everything that runs on the thread.
pub fn splice_to_socket(
    [reader, writer]: [&SharedHandle; 2],
    socket: &SharedHandle,
    len: usize,
) -> OpFuture<Splice> {
    OpFuture::new(Splice {
        from: reader.clone(),
        from_offset: None,
        to: socket.clone(),
        to_offset: None,
        len: op_len(len),
        _other_end: Some(writer.clone()),
    })
}

/// See [`close`].
pub struct Close {
    driver: Rc<Driver>,
    /// Until the op is prepared.
    held: Option<Held>,
    /// From then on: the kernel's to close.
    submitted: Option<Handle>,
}

impl Close {
    /// An op that was cancelled before it was carried out leaves the descriptor to us.
    fn close_if_cancelled(&self, completion: Completion) -> bool {
        let cancelled = completion.result == -libc::ECANCELED;
        if let (true, Some(handle)) = (cancelled, self.submitted) {
            match handle.direct_index() {
                Some(index) => self.driver.close_direct(index),
                None => drop(owned_fd(handle.fd() as u32)),
            }
        }
        cancelled
    }
}

// SAFETY: no pointers.
unsafe impl Operation for Close {
    type Output = io::Result<()>;

    /// The descriptor is gone: whoever closed it again would close another.
    const REPEATS: bool = false;

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        let handle = match self.held.take().expect("prepared once") {
            Held::Fd(fd) => Handle::from_fd(fd.into_raw_fd()),
            Held::Direct(index, _) => Handle::from_direct(index),
            Held::Nothing => Handle::from_fd(-1),
        };
        self.submitted = Some(handle);
        Op::Close { handle }
    }

    fn complete(self, completion: Completion) -> io::Result<()> {
        if self.close_if_cancelled(completion) {
            return Ok(());
        }
        if self.submitted.is_some_and(|handle| handle.direct_index().is_some()) {
            self.driver.release_direct();
        }
        match completion.result {
            // It is closed all the same.
            result if result == -libc::EINTR => Ok(()),
            _ => unit(completion),
        }
    }

    fn complete_late(self) -> io::Result<()> {
        self.complete(Completion::error(libc::ECANCELED))
    }

    fn discard(self, completion: Completion) {
        let _ = self.complete(completion);
    }
}

impl Drop for Close {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.close(&self.driver);
        }
    }
}

/// Closes a handle, with the error that dropping it would hide. It is closed in any case, even if
/// the future is dropped. Fails with the handle if a clone or an op in flight still holds it.
pub fn close(handle: SharedHandle) -> Result<OpFuture<Close>, SharedHandle> {
    let driver = handle.driver().clone();
    let held = Some(handle.into_held()?);
    Ok(OpFuture::new(Close { driver, held, submitted: None }))
}

/// See [`read_dir`].
pub struct ReadDir {
    handle: SharedHandle,
    buf: Vec<u8>,
}

// SAFETY: the buffer is on the heap and the operation owns it.
unsafe impl Operation for ReadDir {
    type Output = (io::Result<usize>, Vec<u8>);

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        Op::ReadDir {
            handle: self.handle.fd_handle(),
            buf: self.buf.as_mut_ptr(),
            len: op_len(self.buf.capacity()),
        }
    }

    fn complete(self, completion: Completion) -> Self::Output {
        filled(count(completion), self.buf)
    }
}

/// Reads directory entries, as `getdents64(2)` lays them out, into the capacity of `buf`: the
/// bytes written, 0 after the last entry.
pub fn read_dir(handle: &SharedHandle, buf: Vec<u8>) -> OpFuture<ReadDir> {
    OpFuture::new(ReadDir { handle: handle.clone(), buf })
}

/// See [`timeout`].
pub struct Timeout {
    driver: Rc<Driver>,
    after: Box<libc::timespec>,
}

// SAFETY: the time is on the heap and the operation owns it.
unsafe impl Operation for Timeout {
    type Output = io::Result<()>;

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        Op::Timeout { after: &raw const *self.after }
    }

    fn complete(self, completion: Completion) -> io::Result<()> {
        match completion.result {
            result if result == -libc::ETIME => Ok(()),
            _ => unit(completion),
        }
    }
}

/// Completes after this time, as an op of the engine's. A runtime's own timers are cheaper.
pub fn timeout(driver: &Rc<Driver>, after: std::time::Duration) -> OpFuture<Timeout> {
    let timespec = libc::timespec {
        tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: after.subsec_nanos().into(),
    };
    OpFuture::new(Timeout { driver: driver.clone(), after: Box::new(timespec) })
}
