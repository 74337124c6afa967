//! A stream socket with borrowed buffers: what the traits of the other crates are made of.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use omniring::OpFuture;
use omniring::buf::Slice;
use omniring::net::{Lease, TcpStream, UnixStream};
use omniring::time::timeout;
use omniring_driver::ops;

use crate::sending::Sending;

/// How long what was accepted may take to be sent after the stream was dropped.
const LINGER_MAX: Duration = Duration::from_secs(30);

mod sealed {
    pub trait Sealed {}
}

/// The stream sockets: [`TcpStream`] and [`UnixStream`].
pub trait Socket: sealed::Sealed + Clone + Unpin + fmt::Debug + 'static {
    #[doc(hidden)]
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Lease>>;

    #[doc(hidden)]
    fn send(&self, buf: Slice<Vec<u8>>) -> OpFuture<ops::Send<Slice<Vec<u8>>>>;

    #[doc(hidden)]
    fn try_send(&self, parts: &[IoSlice<'_>]) -> Option<io::Result<usize>>;

    #[doc(hidden)]
    fn end_writing(&self) -> ShuttingDown;
}

/// The end of one direction, on its way.
pub type ShuttingDown = Pin<Box<dyn Future<Output = io::Result<()>>>>;

macro_rules! socket {
    ($Stream:ident) => {
        impl sealed::Sealed for $Stream {}

        impl Socket for $Stream {
            #[inline]
            fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Lease>> {
                Pin::new(&mut self.recv()).poll(cx)
            }

            #[inline]
            fn send(&self, buf: Slice<Vec<u8>>) -> OpFuture<ops::Send<Slice<Vec<u8>>>> {
                $Stream::send(self, buf)
            }

            #[inline]
            fn try_send(&self, parts: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
                $Stream::try_send(self, parts)
            }

            fn end_writing(&self) -> ShuttingDown {
                let stream = self.clone();
                Box::pin(async move { stream.shutdown(Shutdown::Write).await })
            }
        }
    };
}

socket!(TcpStream);
socket!(UnixStream);

/// A [`TcpStream`] or [`UnixStream`] in the traits of other crates: of futures-io, tokio and hyper, as the
/// features say.
///
/// - **Reading** copies out of leases, which the runtime gives when data has arrived: a connection that
///   waits holds no buffer. A read that was given up loses nothing.
/// - **Writing** sends at once what the socket takes, where the engine makes calls on this thread; else it
///   copies once and starts the send. A write that returned is on its way, and the flush waits
///   until the socket has taken all of it; its error, if it has one, comes from the next write, flush or
///   shutdown. As with every `AsyncWrite`, whoever waits for an answer flushes first. hyper's flush, which
///   comes after each response, waits for sends of more than 4 KiB only: shorter ones are with the engine,
///   and whoever flushed is woken if the socket does not take all of one.
/// - **Shutting down** flushes, and then ends the writing direction only: what the peer still sends can be
///   read.
/// - **Dropping** it closes the connection, with what was accepted sent before: in a task of the runtime's,
///   for 30 seconds at most. Outside of the runtime it is cancelled.
///
/// ```
/// # #[cfg(feature = "tokio-io")] {
/// use omniring::net::UnixStream;
/// use omniring_adapters::StreamIo;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # omniring::Runtime::new()?.block_on(async {
/// let (one, other) = UnixStream::pair()?;
/// let (mut one, mut other) = (StreamIo::new(one), StreamIo::new(other));
/// one.write_all(b"ping").await?;
/// one.shutdown().await?;
/// let mut text = String::new();
/// other.read_to_string(&mut text).await?;
/// assert_eq!(text, "ping");
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StreamIo<S: Socket> {
    socket: S,
    /// What has arrived and was not read yet.
    lease: Option<Lease>,
    sending: Sending,
    shutting_down: Option<ShuttingDown>,
}

impl<S: Socket> StreamIo<S> {
    /// The adapter of a stream.
    pub fn new(socket: S) -> StreamIo<S> {
        StreamIo { socket, lease: None, sending: Sending::default(), shutting_down: None }
    }

    /// The stream, for its addresses and options. What was received in advance is not seen there.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// The stream, if there are neither bytes that were received in advance nor a send in flight, nor an
    /// error of one that the next flush has to tell.
    #[expect(clippy::result_large_err, reason = "it is what was given, and goes back")]
    pub fn into_socket(mut self) -> Result<S, StreamIo<S>> {
        match self.lease.is_none() && self.has_sent() {
            true => Ok(self.socket.clone()),
            false => Err(self),
        }
    }

    /// Whether nothing is left to be sent or told. Whoever waits for that is not woken any more.
    fn has_sent(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match self.sending.poll_idle(&self.socket, &mut cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(error)) => {
                self.sending = Sending::Failed(error);
                false
            }
            Poll::Pending => false,
        }
    }

    /// What has arrived: at least a byte, or nothing at the end of the stream.
    #[inline]
    pub(crate) fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.lease.is_none() {
            let lease = ready!(self.socket.poll_recv(cx))?;
            if lease.is_empty() {
                return Poll::Ready(Ok(&[]));
            }
            self.lease = Some(lease);
        }
        Poll::Ready(Ok(self.lease.as_deref().unwrap_or_default()))
    }

    /// So many bytes of it were read.
    #[inline]
    pub(crate) fn consume_arrived(&mut self, count: usize) {
        match &mut self.lease {
            Some(lease) if count < lease.len() => lease.advance(count),
            // Its memory goes back.
            lease => *lease = None,
        }
    }

    /// Reads up to `room` bytes, which `take` copies.
    #[inline]
    pub(crate) fn poll_read_with(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        if room == 0 {
            return Poll::Ready(Ok(0));
        }
        let arrived = ready!(self.poll_arrived(cx))?;
        let count = arrived.len().min(room);
        take(&arrived[..count]);
        self.consume_arrived(count);
        Poll::Ready(Ok(count))
    }

    #[inline]
    pub(crate) fn poll_write_parts(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sending.poll_write(&self.socket, cx, parts)
    }

    #[inline]
    pub(crate) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sending.poll_idle(&self.socket, cx)
    }

    /// As `poll_sent`, without waiting for what the engine sends by itself.
    #[cfg(feature = "hyper")]
    #[inline]
    pub(crate) fn poll_handed_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sending.poll_handed_over(&self.socket, cx)
    }

    /// Sends what is left and ends the writing direction.
    pub(crate) fn poll_end_writing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        let shutting_down = match &mut self.shutting_down {
            Some(shutting_down) => shutting_down,
            none => none.insert(self.socket.end_writing()),
        };
        let result = ready!(shutting_down.as_mut().poll(cx));
        self.shutting_down = None;
        Poll::Ready(match result {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

impl<S: Socket> From<S> for StreamIo<S> {
    fn from(socket: S) -> StreamIo<S> {
        StreamIo::new(socket)
    }
}

/// What was accepted is sent all the same.
impl<S: Socket> Drop for StreamIo<S> {
    fn drop(&mut self) {
        if self.sending.is_idle() || !omniring::in_runtime() || self.has_sent() {
            return;
        }
        let socket = self.socket.clone();
        let mut sending = std::mem::take(&mut self.sending);
        drop(omniring::spawn(async move {
            // Nobody is left to tell of a failure.
            let _ = timeout(LINGER_MAX, poll_fn(|cx| sending.poll_idle(&socket, cx))).await;
        }));
    }
}

impl<S: Socket> fmt::Debug for StreamIo<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamIo")
            .field("socket", &self.socket)
            .field("unread_len", &self.lease.as_ref().map_or(0, |lease| lease.len()))
            .field("is_sending", &!self.sending.is_idle())
            .finish()
    }
}
