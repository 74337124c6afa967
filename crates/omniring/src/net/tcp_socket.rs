//! A TCP socket before it connects or listens.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use omniring_driver::addr::RawAddr;
use omniring_driver::{Explained, SharedHandle, ops};

use super::options::{buffer_options, inet_options, listener_options, tcp_options};
use super::{TcpListener, TcpStream};
use crate::executor::current;

/// A TCP socket that neither connects nor listens yet: for options that have to be set before, and
/// for a source address.
///
/// ```
/// use omniring::net::{TcpSocket, TcpStream};
/// # omniring::Runtime::new()?.block_on(async {
/// // One of several listeners at an address: one for each core.
/// let socket = TcpSocket::new_v4().await?;
/// socket.set_reuse_port(true)?;
/// socket.bind("127.0.0.1:0".parse().unwrap()).await?;
/// let listener = socket.listen(1024).await?;
///
/// // From a source address.
/// let socket = TcpSocket::new_v4().await?;
/// socket.bind("127.0.0.2:0".parse().unwrap()).await?;
/// let client = socket.connect(listener.local_addr()?).await?;
/// assert_eq!(client.local_addr()?.ip().to_string(), "127.0.0.2");
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TcpSocket {
    pub(super) handle: SharedHandle,
}

impl TcpSocket {
    /// A socket of IPv4.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn new_v4() -> io::Result<TcpSocket> {
        TcpSocket::of(libc::AF_INET).await
    }

    /// A socket of IPv6.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn new_v6() -> io::Result<TcpSocket> {
        TcpSocket::of(libc::AF_INET6).await
    }

    /// A socket of this address's family.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn new_for(addr: SocketAddr) -> io::Result<TcpSocket> {
        TcpSocket::of(if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }).await
    }

    async fn of(domain: i32) -> io::Result<TcpSocket> {
        let driver = &current().driver;
        let handle = ops::socket(driver, domain, libc::SOCK_STREAM, libc::IPPROTO_TCP).await?;
        Ok(TcpSocket { handle })
    }

    /// Takes this address; port 0 is any free one. The error names the address.
    pub async fn bind(&self, addr: SocketAddr) -> io::Result<()> {
        ops::bind(&self.handle, addr.into()).await.map_err(|error| explain(error, "bind to", addr))
    }

    /// Has the first packet of the connection carry the first bytes that are sent, where this host
    /// was connected to that one before (`TCP_FASTOPEN_CONNECT`, 4.11). `connect` may then succeed
    /// at once, and a connection that fails is reported by the first send or receive. The side that
    /// connects has to send first.
    pub fn set_fast_open_connect(&self, fast_open: bool) -> io::Result<()> {
        let fd = self.handle.fd()?;
        let name = libc::TCP_FASTOPEN_CONNECT;
        omniring_driver::socket_option::set(fd, libc::IPPROTO_TCP, name, fast_open.into())
    }

    /// Whether the first packet of the connection is to carry data.
    pub fn fast_open_connect(&self) -> io::Result<bool> {
        let fd = self.handle.fd()?;
        let name = libc::TCP_FASTOPEN_CONNECT;
        Ok(omniring_driver::socket_option::get(fd, libc::IPPROTO_TCP, name)? != 0)
    }

    /// Connects to this address. The error names it. Two sockets that are bound and connect to each
    /// other at the same time become one connection, without a listener; whoever is too early is
    /// refused.
    ///
    /// Dropping the future gives up and closes the socket.
    pub async fn connect(self, addr: SocketAddr) -> io::Result<TcpStream> {
        match ops::connect(&self.handle, addr.into()).await {
            Ok(()) => Ok(TcpStream { handle: self.handle }),
            Err(error) => Err(explain(error, "connect to", addr)),
        }
    }

    /// Listens: at most `backlog` connections wait to be accepted, which the kernel cuts at
    /// `net.core.somaxconn`. A socket that was not bound gets any free port on all addresses. The
    /// error names the address.
    pub async fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        let backlog = backlog.try_into().unwrap_or(i32::MAX);
        match ops::listen(&self.handle, backlog).await {
            Ok(_) => Ok(TcpListener { handle: self.handle }),
            Err(error) => match self.local_addr() {
                Ok(addr) => Err(explain(error, "listen on", addr)),
                Err(_) => Err(error),
            },
        }
    }

    /// The address that it is bound to; port 0 if it is not.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::local(self.handle.fd()?)?.to_inet()
    }
}

/// Says what an error is about; its errno stays to be found.
#[cold]
pub(super) fn explain(error: io::Error, what: &str, addr: SocketAddr) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => Explained::new(errno, format!("cannot {what} {addr}")).into(),
        None => error,
    }
}

buffer_options!(TcpSocket);
inet_options!(TcpSocket);
tcp_options!(TcpSocket);
listener_options!(TcpSocket);

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl AsRawFd for TcpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.handle.as_raw_fd()
    }
}
