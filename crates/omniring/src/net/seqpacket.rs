//! Unix sockets of sequenced packets: connections like those of streams, that keep the boundaries of
//! messages (`SOCK_SEQPACKET`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;

use omniring_driver::addr::RawAddr;
use omniring_driver::ops::{self, ControlToSend};
use omniring_driver::{OpFuture, SharedHandle};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::options::buffer_options;
use super::passing::{Credentials, passing, send_waiting};
use super::stream::{Incoming, RecvLease};
use super::unix::{connect_raw, listen_raw, naming, path_addr, unix_listener};
use crate::buf::{IoBuf, IoBufMut};
use crate::executor::current;

/// A connection over a Unix socket that keeps the boundaries of messages, which arrive in order and
/// are not lost. Clones share it.
///
/// ```
/// use omniring::net::UnixSeqpacket;
/// # omniring::Runtime::new()?.block_on(async {
/// let (one, other) = UnixSeqpacket::pair()?;
/// one.send("first").await.0?;
/// one.send("second").await.0?;
/// let (result, buf) = other.recv_into(Vec::with_capacity(64)).await;
/// assert_eq!((result?, &buf[..]), (5, &b"first"[..]));
/// assert_eq!(&other.recv().await?[..], b"second");
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct UnixSeqpacket {
    handle: SharedHandle,
}

impl UnixSeqpacket {
    /// Connects to the listener at `path`; waits while its backlog is full. The error names the path.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<UnixSeqpacket> {
        let path = path.as_ref();
        match connect_raw(path_addr(path)?, libc::SOCK_SEQPACKET).await {
            Ok(handle) => Ok(UnixSeqpacket { handle }),
            Err(error) => Err(naming("connect to", path, error)),
        }
    }

    /// Connects to the listener at an address, which may be abstract; waits while its backlog is
    /// full.
    pub async fn connect_addr(addr: &SocketAddr) -> io::Result<UnixSeqpacket> {
        let handle = connect_raw(addr.into(), libc::SOCK_SEQPACKET).await?;
        Ok(UnixSeqpacket { handle })
    }

    /// Two sockets that are connected to each other.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn pair() -> io::Result<(UnixSeqpacket, UnixSeqpacket)> {
        let (unix, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
        let (one, other) = socketpair(unix, SocketType::SEQPACKET, flags, None)?;
        let driver = &current().driver;
        let adopt = |fd| UnixSeqpacket { handle: SharedHandle::adopt(driver, fd) };
        Ok((adopt(one), adopt(other)))
    }

    /// The next message, in memory that the runtime gives when it is there. Empty at the end, and for
    /// a message without bytes. What the lease has no room for is lost (see `Builder::leases`).
    ///
    /// Dropping the future loses nothing.
    pub fn recv(&self) -> RecvLease<'_> {
        RecvLease { handle: &self.handle }
    }

    /// Receives a message into `buf`: its length, 0 at the end and for a message without bytes. What
    /// `buf` has no room for is lost.
    ///
    /// Dropping the future cancels the receive; a message that had arrived by then is lost.
    pub fn recv_into<B: IoBufMut>(&self, buf: B) -> OpFuture<ops::Recv<B>> {
        ops::recv(&self.handle, buf, 0)
    }

    /// Sends the initialised bytes of `buf` as a message; waits while the receiver's queue is full.
    ///
    /// Dropping the future cancels the send; it may have happened.
    pub async fn send<B: IoBuf>(&self, buf: B) -> (io::Result<usize>, B) {
        send_waiting(&self.handle, buf, None, ControlToSend::default()).await
    }

    /// Ends one or both directions of the connection.
    pub async fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
        ops::shutdown(&self.handle, how).await.map(drop)
    }

    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::local(self.handle.fd()?)?.to_unix()
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::peer(self.handle.fd()?)?.to_unix()
    }

    /// Who is at the other end: see [`UnixStream::peer_credentials`](super::UnixStream::peer_credentials).
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        omniring_driver::socket_option::peer_credentials(self.handle.fd()?).map(Credentials::from)
    }
}

buffer_options!(UnixSeqpacket);
passing!(UnixSeqpacket, false);

/// Takes connections of [`UnixSeqpacket`]. Clones share it.
///
/// ```
/// use omniring::net::{UnixSeqpacket, UnixSeqpacketListener};
/// # let path = std::env::temp_dir().join(format!("omniring-seqpacket-{}", std::process::id()));
/// # omniring::Runtime::new()?.block_on(async {
/// let listener = UnixSeqpacketListener::bind(&path).await?;
/// let client = UnixSeqpacket::connect(&path).await?;
/// let (server, _) = listener.accept().await?;
/// client.send("hello").await.0?;
/// assert_eq!(&server.recv().await?[..], b"hello");
/// # omniring::fs::remove_file(&path).await
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct UnixSeqpacketListener {
    handle: SharedHandle,
}

unix_listener!(UnixSeqpacketListener, UnixSeqpacket, libc::SOCK_SEQPACKET);

impl AsFd for UnixSeqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl AsRawFd for UnixSeqpacket {
    fn as_raw_fd(&self) -> RawFd {
        self.handle.as_raw_fd()
    }
}

impl AsFd for UnixSeqpacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl AsRawFd for UnixSeqpacketListener {
    fn as_raw_fd(&self) -> RawFd {
        self.handle.as_raw_fd()
    }
}
