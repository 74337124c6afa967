//! Streams of bytes with owned buffers, and copying between them.

use std::io;

use omniring_driver::{SharedHandle, ops};

use crate::buf::{IoBuf, IoBufExt, IoBufMut, Slice};

/// What bytes can be read from, one after the other.
#[expect(async_fn_in_trait, reason = "the futures belong to one thread, like the runtime")]
pub trait AsyncRead {
    /// Reads into `buf`, up to its capacity: the bytes read, 0 at the end or if `buf` has no
    /// capacity. If the future is dropped, bytes that had arrived by then are lost.
    async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B);

    /// Reads until `buf` is full to its capacity. At an early end the error is `UnexpectedEof`.
    async fn read_exact<B: IoBufMut>(&mut self, buf: B) -> (io::Result<()>, B) {
        fill(buf, async |slice, _| self.read(slice).await).await
    }
}

/// What bytes can be written to, one after the other.
#[expect(async_fn_in_trait, reason = "the futures belong to one thread, like the runtime")]
pub trait AsyncWrite {
    /// Writes the initialised bytes of `buf`: the bytes written, which may be fewer.
    async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B);

    /// Writes all initialised bytes of `buf`. If the future is dropped, part of them may have
    /// been written.
    async fn write_all<B: IoBuf>(&mut self, buf: B) -> (io::Result<()>, B) {
        write_rest(buf, 0, async |slice, _| self.write(slice).await).await
    }
}

/// Reads until `buf` is full to its capacity. `read` is given the part to be filled and how much
/// was filled before it.
pub(crate) async fn fill<B: IoBufMut>(
    mut buf: B,
    mut read: impl AsyncFnMut(Slice<B>, usize) -> (io::Result<usize>, Slice<B>),
) -> (io::Result<()>, B) {
    let len = buf.capacity();
    let mut filled = 0;
    while filled < len {
        let (result, slice) = read(buf.slice(filled..), filled).await;
        buf = slice.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buf),
            Ok(count) => filled += count,
            Err(error) => return (Err(error), buf),
        }
    }
    (Ok(()), buf)
}

/// Writes the initialised bytes of `buf` after the first `written`. `write` is given the part to
/// be written and how much was written before it.
pub(crate) async fn write_rest<B: IoBuf>(
    mut buf: B,
    mut written: usize,
    mut write: impl AsyncFnMut(Slice<B>, usize) -> (io::Result<usize>, Slice<B>),
) -> (io::Result<()>, B) {
    let len = buf.len();
    while written < len {
        let (result, slice) = write(buf.slice(written..), written).await;
        buf = slice.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
            Ok(count) => written += count,
            Err(error) => return (Err(error), buf),
        }
    }
    (Ok(()), buf)
}

/// Closes a handle and says whether that went well. With a clone or an op in flight, it is closed
/// when those are gone.
pub(crate) async fn close(handle: SharedHandle) -> io::Result<()> {
    match ops::close(handle) {
        Ok(close) => close.await,
        Err(_) => Ok(()),
    }
}

/// Copies until the end of `reader`: the bytes copied.
pub async fn copy(reader: &mut impl AsyncRead, writer: &mut impl AsyncWrite) -> io::Result<u64> {
    const LEN: usize = 128 * 1024;
    let mut buf = Vec::with_capacity(LEN);
    let mut copied = 0;
    loop {
        let (result, filled) = reader.read(buf).await;
        let count = result?;
        if count == 0 {
            return Ok(copied);
        }
        let (result, written) = writer.write_all(filled).await;
        result?;
        copied += count as u64;
        buf = written;
    }
}
