//! TCP.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use omniring_driver::addr::RawAddr;
use omniring_driver::{OpFuture, SharedHandle, ops};
use socket2::SockRef;

use super::addrs::first_of;
use super::options::{buffer_options, inet_options, listener_options, tcp_options};
use super::send_file::{forward, send_file};
use super::stream::{Incoming, RecvLease, SendAll, socket_conversions, stream_socket};
use super::tcp_socket::explain;
use super::{Connector, TcpSocket, ToSocketAddrs};
use crate::buf::{IoBuf, IoBufMut};
use crate::executor::current;
use crate::fs::File;
use crate::io::{AsyncRead, AsyncWrite, close};

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A TCP connection. Clones share it, so that one task can receive while another sends.
///
/// ```
/// use omniring::net::{TcpListener, TcpStream};
/// # omniring::Runtime::new()?.block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// let (server, _) = listener.accept().await?;
/// client.send_all("ping").await.0?;
/// let (result, buf) = server.recv_into(Vec::with_capacity(16)).await;
/// assert_eq!((result?, &buf[..]), (4, &b"ping"[..]));
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TcpStream {
    pub(super) handle: SharedHandle,
}

impl TcpStream {
    /// Connects to the first of the addresses that answers: see [`Connector`], which has options
    /// for this. The error names what does not resolve, or each address that failed and why.
    ///
    /// Dropping the future gives up and closes the sockets.
    pub async fn connect(addrs: impl ToSocketAddrs) -> io::Result<TcpStream> {
        Connector::new().connect(addrs).await
    }

    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::local(self.handle.fd()?)?.to_inet()
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::peer(self.handle.fd()?)?.to_inet()
    }
}

stream_socket!(TcpStream);
socket_conversions!(TcpStream, std::net::TcpStream);
buffer_options!(TcpStream);
inet_options!(TcpStream);
tcp_options!(TcpStream);

/// Takes TCP connections. Clones share it.
#[derive(Clone, Debug)]
pub struct TcpListener {
    pub(super) handle: SharedHandle,
}

impl TcpListener {
    /// Listens on the first of the addresses that can be had; port 0 is any free one. The address
    /// can be had again at once after an earlier listener (`SO_REUSEADDR`).
    ///
    /// The error names the address.
    pub async fn bind(addrs: impl ToSocketAddrs) -> io::Result<TcpListener> {
        first_of(addrs, async |addr| {
            let listen = async {
                let TcpSocket { handle } = TcpSocket::new_for(addr).await?;
                SockRef::from(&handle.fd()?).set_reuse_address(true)?;
                ops::bind(&handle, addr.into()).await?;
                ops::listen(&handle, BACKLOG).await?;
                Ok(TcpListener { handle })
            };
            listen.await.map_err(|error| explain(error, "listen on", addr))
        })
        .await
    }

    /// Takes the next connection, and the address it comes from.
    ///
    /// Dropping the future cancels the accept; a connection that it took is closed.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (handle, addr) = ops::accept(&self.handle).await?;
        Ok((TcpStream { handle }, addr.to_inet()?))
    }

    /// Takes connections one after the other, without the addresses they come from. A few may be
    /// accepted in advance (on a ring, which then has one op for all of them: multishot); dropping
    /// this closes those that were not taken.
    pub fn incoming(&self) -> Incoming<TcpStream> {
        Incoming { accepted: ops::incoming(&self.handle), stream: |handle| TcpStream { handle } }
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::local(self.handle.fd()?)?.to_inet()
    }
}

socket_conversions!(TcpListener, std::net::TcpListener);
buffer_options!(TcpListener);
inet_options!(TcpListener);
tcp_options!(TcpListener);
listener_options!(TcpListener);
