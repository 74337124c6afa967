//! Where a server's connections come from.

use std::future::Future;
use std::io;

use hyper::rt::{Read, Write};
use omniring::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use socket2::SockRef;

use crate::StreamIo;

/// What a [`Server`](super::Server) takes connections from: a listener of TCP or of Unix sockets, or one
/// of TLS on top of either.
pub trait Listen {
    /// A connection as it was accepted.
    type Accepted: 'static;
    /// A connection that HTTP can be spoken over.
    type Io: Read + Write + Unpin + 'static;

    /// Called once, before the first connection is accepted.
    fn start(&self) -> io::Result<()> {
        Ok(())
    }

    /// The next connection. Dropping the future loses none that was not accepted.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Accepted>>;

    /// Gets a connection ready, such as by a handshake. This is done in the connection's own task, so that
    /// a slow peer holds up nobody else.
    fn establish(
        &self,
        accepted: Self::Accepted,
    ) -> impl Future<Output = io::Result<Self::Io>> + use<Self> + 'static;
}

impl Listen for TcpListener {
    type Accepted = TcpStream;
    type Io = StreamIo<TcpStream>;

    /// Sets `TCP_NODELAY`, which connections inherit from their listener on Linux: what is to be sent
    /// comes whole, and would only be held up.
    fn start(&self) -> io::Result<()> {
        SockRef::from(self).set_tcp_nodelay(true)
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }

    fn establish(
        &self,
        accepted: TcpStream,
    ) -> impl Future<Output = io::Result<Self::Io>> + use<> + 'static {
        std::future::ready(Ok(StreamIo::new(accepted)))
    }
}

impl Listen for UnixListener {
    type Accepted = UnixStream;
    type Io = StreamIo<UnixStream>;

    async fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }

    fn establish(
        &self,
        accepted: UnixStream,
    ) -> impl Future<Output = io::Result<Self::Io>> + use<> + 'static {
        std::future::ready(Ok(StreamIo::new(accepted)))
    }
}
