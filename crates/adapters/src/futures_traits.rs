//! The traits of futures-io, both ways.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use omniring::buf::{IoBuf, IoBufMut, IoBufMutExt};

use crate::stream::{Socket, StreamIo};

impl<S: Socket> futures_io::AsyncRead for StreamIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, buf.len(), |bytes| buf[..bytes.len()].copy_from_slice(bytes))
    }
}

impl<S: Socket> futures_io::AsyncBufRead for StreamIo<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().poll_arrived(cx)
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.consume_arrived(count);
    }
}

impl<S: Socket> futures_io::AsyncWrite for StreamIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end_writing(cx)
    }
}

/// Something with the traits of futures-io as an omniring [`AsyncRead`](omniring::AsyncRead) and
/// [`AsyncWrite`](omniring::AsyncWrite).
///
/// Reads go through memory of the adapter's, 16 KiB from the first read on, and are copied once; a read
/// that is dropped has read nothing. Writes are not copied, and flushed only when asked for.
///
/// ```
/// use omniring::AsyncRead;
/// use omniring_adapters::FromFutures;
/// # omniring::Runtime::new()?.block_on(async {
/// let mut reader = FromFutures::new(futures_util::io::Cursor::new("hello"));
/// let (result, buf) = reader.read(Vec::with_capacity(100)).await;
/// assert_eq!((result?, &buf[..]), (5, &b"hello"[..]));
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FromFutures<T> {
    inner: T,
    memory: Vec<u8>,
}

/// Bytes that one read takes at most.
const READ_LEN_MAX: usize = 16 * 1024;

impl<T> FromFutures<T> {
    /// The adapter of a reader or writer.
    pub fn new(inner: T) -> FromFutures<T> {
        FromFutures { inner, memory: Vec::new() }
    }

    /// The reader or writer back.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: futures_io::AsyncRead + Unpin> omniring::AsyncRead for FromFutures<T> {
    async fn read<B: IoBufMut>(&mut self, mut buf: B) -> (io::Result<usize>, B) {
        let len = buf.capacity().min(READ_LEN_MAX);
        if len == 0 {
            return (Ok(0), buf);
        }
        self.memory.resize(READ_LEN_MAX, 0);
        let FromFutures { inner, memory } = self;
        let read = poll_fn(|cx| Pin::new(&mut *inner).poll_read(cx, &mut memory[..len])).await;
        (read.map(|count| buf.fill_from(&memory[..count])), buf)
    }
}

impl<T: futures_io::AsyncWrite + Unpin> omniring::AsyncWrite for FromFutures<T> {
    async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
        let inner = &mut self.inner;
        let write = poll_fn(|cx| Pin::new(&mut *inner).poll_write(cx, buf.as_bytes())).await;
        (write, buf)
    }
}

impl<T: futures_io::AsyncWrite + Unpin> FromFutures<T> {
    /// Waits until what was written has arrived where the writer writes to.
    pub async fn flush(&mut self) -> io::Result<()> {
        let inner = &mut self.inner;
        poll_fn(|cx| Pin::new(&mut *inner).poll_flush(cx)).await
    }

    /// Ends the writing.
    pub async fn close(&mut self) -> io::Result<()> {
        let inner = &mut self.inner;
        poll_fn(|cx| Pin::new(&mut *inner).poll_close(cx)).await
    }
}
