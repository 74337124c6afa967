//! Unix sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;

use omniring_driver::addr::RawAddr;
use omniring_driver::ops::{self, ControlToSend};
use omniring_driver::{Explained, Lease, OpFuture, SharedHandle};

use super::options::buffer_options;
use super::passing::{Backoff, Credentials, passing, send_waiting};
use super::send_file::{forward, send_file};
use super::stream::{
    Incoming, RecvLease, SendAll, recv_datagram, socket_conversions, stream_socket,
};
use crate::buf::{IoBuf, IoBufMut};
use crate::executor::current;
use crate::fs::File;
use crate::io::{AsyncRead, AsyncWrite, close};

const BACKLOG: i32 = 4096;

async fn unix_socket(kind: i32) -> io::Result<SharedHandle> {
    ops::socket(&current().driver, libc::AF_UNIX, kind, 0).await
}

pub(super) fn path_addr(path: &Path) -> io::Result<RawAddr> {
    SocketAddr::from_pathname(path).map(|addr| RawAddr::from(&addr)).map_err(|error| {
        io::Error::new(error.kind(), format!("{} as a socket's name: {error}", path.display()))
    })
}

/// Connects to a listener, and waits if its backlog is full, as a blocking `connect(2)` does. The
/// ring waits by itself; without it the kernel says EAGAIN, and readiness never says when to go on.
pub(super) async fn connect_raw(addr: RawAddr, kind: i32) -> io::Result<SharedHandle> {
    let handle = unix_socket(kind).await?;
    let mut backoff = Backoff::new();
    loop {
        match ops::connect(&handle, addr.clone()).await {
            Ok(()) => return Ok(handle),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => backoff.wait().await,
            Err(error) => return Err(error),
        }
    }
}

/// Says what an error is about; its errno stays to be found.
#[cold]
pub(super) fn naming(what: &str, path: &Path, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => Explained::new(errno, format!("cannot {what} {}", path.display())).into(),
        None => error,
    }
}

pub(super) async fn listen_raw(addr: RawAddr, kind: i32) -> io::Result<SharedHandle> {
    let handle = unix_socket(kind).await?;
    ops::bind(&handle, addr).await?;
    ops::listen(&handle, BACKLOG).await?;
    Ok(handle)
}

/// A connection over a Unix stream socket. Clones share it.
#[derive(Clone, Debug)]
pub struct UnixStream {
    handle: SharedHandle,
}

impl UnixStream {
    /// Connects to the listener at `path`; waits while its backlog is full. The error names the path.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        let path = path.as_ref();
        match connect_raw(path_addr(path)?, libc::SOCK_STREAM).await {
            Ok(handle) => Ok(UnixStream { handle }),
            Err(error) => Err(naming("connect to", path, error)),
        }
    }

    /// Connects to the listener at an address, which may be abstract; waits while its backlog is
    /// full.
    pub async fn connect_addr(addr: &SocketAddr) -> io::Result<UnixStream> {
        let handle = connect_raw(addr.into(), libc::SOCK_STREAM).await?;
        Ok(UnixStream { handle })
    }

    /// Two sockets that are connected to each other.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = std::os::unix::net::UnixStream::pair()?;
        Ok((UnixStream::from_std(one), UnixStream::from_std(other)))
    }

    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::local(self.handle.fd()?)?.to_unix()
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::peer(self.handle.fd()?)?.to_unix()
    }

    /// Who is at the other end: the process that connected, listened or made the pair, as it was
    /// then (`SO_PEERCRED`).
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        omniring_driver::socket_option::peer_credentials(self.handle.fd()?).map(Credentials::from)
    }
}

stream_socket!(UnixStream);
socket_conversions!(UnixStream, std::os::unix::net::UnixStream);
buffer_options!(UnixStream);
passing!(UnixStream, true);

/// The methods of a type whose field `handle` is a Unix socket of this kind that listens.
macro_rules! unix_listener {
    ($Listener:ident, $Stream:ident, $kind:expr) => {
        impl $Listener {
            /// Listens at `path`, which must not exist. The file stays when the listener is dropped.
            pub async fn bind(path: impl AsRef<Path>) -> io::Result<$Listener> {
                let path = path.as_ref();
                match listen_raw(path_addr(path)?, $kind).await {
                    Ok(handle) => Ok($Listener { handle }),
                    Err(error) => Err(naming("listen on", path, error)),
                }
            }

            /// Listens at an address, which may be abstract.
            pub async fn bind_addr(addr: &SocketAddr) -> io::Result<$Listener> {
                let handle = listen_raw(addr.into(), $kind).await?;
                Ok($Listener { handle })
            }

            /// Takes the next connection, and the address it comes from.
            ///
            /// Dropping the future cancels the accept; a connection that it took is closed.
            pub async fn accept(&self) -> io::Result<($Stream, SocketAddr)> {
                let (handle, addr) = ops::accept(&self.handle).await?;
                Ok(($Stream { handle }, addr.to_unix()?))
            }

            /// Takes connections one after the other, without the addresses they come from. A few may be
            /// accepted in advance (on a ring, which then has one op for all of them: multishot); dropping
            /// this closes those that were not taken.
            pub fn incoming(&self) -> Incoming<$Stream> {
                Incoming {
                    accepted: ops::incoming(&self.handle),
                    stream: |handle| $Stream { handle },
                }
            }

            /// The address it listens at.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                RawAddr::local(self.handle.fd()?)?.to_unix()
            }
        }
    };
}

pub(super) use unix_listener;

/// Takes connections over a Unix stream socket. Clones share it.
#[derive(Clone, Debug)]
pub struct UnixListener {
    handle: SharedHandle,
}

unix_listener!(UnixListener, UnixStream, libc::SOCK_STREAM);
socket_conversions!(UnixListener, std::os::unix::net::UnixListener);

/// A Unix datagram socket. Clones share it.
#[derive(Clone, Debug)]
pub struct UnixDatagram {
    handle: SharedHandle,
}

impl UnixDatagram {
    /// A socket at `path`, which must not exist. The file stays when the socket is dropped.
    pub async fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        let path = path.as_ref();
        let addr = path_addr(path)?;
        let handle = unix_socket(libc::SOCK_DGRAM).await?;
        ops::bind(&handle, addr).await.map_err(|error| naming("bind to", path, error))?;
        Ok(UnixDatagram { handle })
    }

    /// A socket without a name, which can send.
    pub async fn unbound() -> io::Result<UnixDatagram> {
        Ok(UnixDatagram { handle: unix_socket(libc::SOCK_DGRAM).await? })
    }

    /// Two sockets that are connected to each other.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (one, other) = std::os::unix::net::UnixDatagram::pair()?;
        Ok((UnixDatagram::from_std(one), UnixDatagram::from_std(other)))
    }

    /// From now on sends to, and receives from, this path only. The error names it.
    pub async fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let connected = ops::connect(&self.handle, path_addr(path)?).await;
        connected.map_err(|error| naming("connect to", path, error))
    }

    /// The next datagram, in memory that the runtime gives when it is there. What the lease has no
    /// room for is lost (see `Builder::leases`).
    ///
    /// Dropping the future loses nothing: a datagram that arrives is there for the next receive.
    pub async fn recv(&self) -> io::Result<Lease> {
        recv_datagram(&self.handle).await.map(|(lease, _)| lease)
    }

    /// As [`recv`](Self::recv), with the address that it comes from.
    pub async fn recv_from(&self) -> io::Result<(Lease, SocketAddr)> {
        let (lease, from) = recv_datagram(&self.handle).await?;
        Ok((lease, from.to_unix()?))
    }

    /// Receives a datagram from the connected address: its length. What `buf` has no room for is
    /// lost.
    pub fn recv_into<B: IoBufMut>(&self, buf: B) -> OpFuture<ops::Recv<B>> {
        ops::recv(&self.handle, buf, 0)
    }

    /// Receives a datagram: its length and where it came from. What `buf` has no room for is
    /// lost.
    pub async fn recv_from_into<B: IoBufMut>(
        &self,
        buf: B,
    ) -> (io::Result<(usize, SocketAddr)>, B) {
        let (result, mut bufs) = ops::recv_msg(&self.handle, vec![buf], 0).await;
        let result = result.and_then(|message| Ok((message.count, message.from.to_unix()?)));
        (result, bufs.pop().expect("the buffer comes back"))
    }

    /// Sends a datagram to the connected address; waits while the receiver's queue is full.
    pub async fn send<B: IoBuf>(&self, buf: B) -> (io::Result<usize>, B) {
        self.send_msg(buf, None).await
    }

    /// Sends a datagram to the socket at `path`; waits while the receiver's queue is full.
    pub async fn send_to<B: IoBuf>(
        &self,
        buf: B,
        path: impl AsRef<Path>,
    ) -> (io::Result<usize>, B) {
        match path_addr(path.as_ref()) {
            Ok(addr) => self.send_msg(buf, Some(addr)).await,
            Err(error) => (Err(error), buf),
        }
    }

    async fn send_msg<B: IoBuf>(&self, buf: B, to: Option<RawAddr>) -> (io::Result<usize>, B) {
        send_waiting(&self.handle, buf, to, ControlToSend::default()).await
    }

    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::local(self.handle.fd()?)?.to_unix()
    }
}

socket_conversions!(UnixDatagram, std::os::unix::net::UnixDatagram);
buffer_options!(UnixDatagram);
passing!(UnixDatagram, false);
