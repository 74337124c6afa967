//! The traits of tokio's I/O, both ways.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use omniring::buf::{IoBuf, IoBufMut, IoBufMutExt};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::{Socket, StreamIo};

impl<S: Socket> AsyncRead for StreamIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        self.poll_read_with(cx, room, |bytes| buf.put_slice(bytes)).map_ok(drop)
    }
}

impl<S: Socket> AsyncBufRead for StreamIo<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().poll_arrived(cx)
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.consume_arrived(count);
    }
}

impl<S: Socket> AsyncWrite for StreamIo<S> {
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

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end_writing(cx)
    }
}

/// Something with the traits of tokio's I/O as an omniring [`AsyncRead`](omniring::AsyncRead) and
/// [`AsyncWrite`](omniring::AsyncWrite). It must not need tokio's runtime: a duplex pipe does not, nor
/// does a protocol on top of a [`StreamIo`]; tokio's sockets do.
///
/// Reads go through memory of the adapter's, 16 KiB from the first read on, and are copied once; a read
/// that is dropped has read nothing. Writes are not copied, and flushed only when asked for.
///
/// ```
/// use omniring::{AsyncRead, AsyncWrite};
/// use omniring_adapters::FromTokio;
/// # omniring::Runtime::new()?.block_on(async {
/// let (one, other) = tokio::io::duplex(64);
/// let (mut one, mut other) = (FromTokio::new(one), FromTokio::new(other));
/// one.write_all("ping").await.0?;
/// let (result, buf) = other.read(Vec::with_capacity(100)).await;
/// assert_eq!((result?, &buf[..]), (4, &b"ping"[..]));
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FromTokio<T> {
    inner: T,
    memory: Vec<u8>,
}

/// Bytes that one read takes at most.
const READ_LEN_MAX: usize = 16 * 1024;

impl<T> FromTokio<T> {
    /// The adapter of a reader or writer.
    pub fn new(inner: T) -> FromTokio<T> {
        FromTokio { inner, memory: Vec::new() }
    }

    /// The reader or writer back.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsyncRead + Unpin> omniring::AsyncRead for FromTokio<T> {
    async fn read<B: IoBufMut>(&mut self, mut buf: B) -> (io::Result<usize>, B) {
        let len = buf.capacity().min(READ_LEN_MAX);
        if len == 0 {
            return (Ok(0), buf);
        }
        self.memory.resize(READ_LEN_MAX, 0);
        let FromTokio { inner, memory } = self;
        let read = poll_fn(|cx| {
            let mut room = ReadBuf::new(&mut memory[..len]);
            ready!(Pin::new(&mut *inner).poll_read(cx, &mut room))?;
            Poll::Ready(Ok(room.filled().len()))
        });
        let read: io::Result<usize> = read.await;
        (read.map(|count| buf.fill_from(&memory[..count])), buf)
    }
}

impl<T: AsyncWrite + Unpin> omniring::AsyncWrite for FromTokio<T> {
    async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
        let inner = &mut self.inner;
        let write = poll_fn(|cx| Pin::new(&mut *inner).poll_write(cx, buf.as_bytes())).await;
        (write, buf)
    }
}

impl<T: AsyncWrite + Unpin> FromTokio<T> {
    /// Waits until what was written has arrived where the writer writes to.
    pub async fn flush(&mut self) -> io::Result<()> {
        let inner = &mut self.inner;
        poll_fn(|cx| Pin::new(&mut *inner).poll_flush(cx)).await
    }

    /// Ends the writing.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        let inner = &mut self.inner;
        poll_fn(|cx| Pin::new(&mut *inner).poll_shutdown(cx)).await
    }
}
