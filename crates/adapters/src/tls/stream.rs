//! A connection that speaks TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::ProtocolVersion;

use crate::stream::{Socket, StreamIo};

/// A connection that speaks TLS, made by [`connect`](super::connect) and [`accept`](super::accept).
///
/// Write, flush: bytes are encrypted when written, and sent at the latest when flushed. Shutting down says
/// so in TLS and ends the writing direction. An end of the stream that TLS was not told of is the error
/// `UnexpectedEof`: somebody may have cut it off. See [the module](super) for an example.
#[derive(Debug)]
pub struct TlsStream<S: Socket>(tokio_rustls::TlsStream<StreamIo<S>>);

impl<S: Socket> TlsStream<S> {
    pub(super) fn new(stream: tokio_rustls::TlsStream<StreamIo<S>>) -> TlsStream<S> {
        TlsStream(stream)
    }

    /// The protocol that ALPN chose, such as `h2`.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.0.get_ref().1.alpn_protocol()
    }

    /// The version of TLS.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.0.get_ref().1.protocol_version()
    }

    /// The stream below, for its addresses and options.
    pub fn socket(&self) -> &S {
        self.0.get_ref().0.socket()
    }

    /// rustls's own view of it, for all else: certificates of the peer, cipher suite.
    pub fn inner(&self) -> &tokio_rustls::TlsStream<StreamIo<S>> {
        &self.0
    }
}

impl<S: Socket> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: Socket> AsyncBufRead for TlsStream<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().0).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        Pin::new(&mut self.0).consume(count);
    }
}

impl<S: Socket> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(feature = "hyper")]
mod of_hyper {
    use std::task::ready;

    use hyper::rt::{Read, ReadBufCursor, Write};

    use super::*;

    impl<S: Socket> Read for TlsStream<S> {
        /// Copies out of rustls's own buffer.
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            mut buf: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            let mut stream = Pin::new(&mut self.0);
            let arrived = ready!(stream.as_mut().poll_fill_buf(cx))?;
            let count = arrived.len().min(buf.remaining());
            buf.put_slice(&arrived[..count]);
            stream.consume(count);
            Poll::Ready(Ok(()))
        }
    }

    impl<S: Socket> Write for TlsStream<S> {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            AsyncWrite::poll_write(self, cx, buf)
        }

        fn is_write_vectored(&self) -> bool {
            AsyncWrite::is_write_vectored(self)
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            AsyncWrite::poll_write_vectored(self, cx, bufs)
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            AsyncWrite::poll_flush(self, cx)
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            AsyncWrite::poll_shutdown(self, cx)
        }
    }
}
