//! UDP.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use omniring_driver::addr::RawAddr;
use omniring_driver::{Lease, OpFuture, SharedHandle, ops};

use super::addrs::first_of;
use super::stream::{recv_datagram, socket_conversions};
use super::tcp_socket::explain;
use super::{ToSocketAddrs, lookup_host};
use crate::buf::{IoBuf, IoBufMut};
use crate::executor::current;

/// A UDP socket. Clones share it.
///
/// ```
/// use omniring::net::UdpSocket;
/// # omniring::Runtime::new()?.block_on(async {
/// let (a, b) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
/// a.send_to("ping", b.local_addr()?).await.0?;
/// let (result, buf) = b.recv_from_into(Vec::with_capacity(16)).await;
/// assert_eq!((result?, &buf[..]), ((4, a.local_addr()?), &b"ping"[..]));
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct UdpSocket {
    pub(super) handle: SharedHandle,
}

impl UdpSocket {
    /// A socket on the first of the addresses that can be had; port 0 is any free one. The error
    /// names the address.
    pub async fn bind(addrs: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        UdpSocket::bind_prepared(addrs, |_| Ok(())).await
    }

    /// As [`bind`](Self::bind), after `prepare` has set options that have to be set before, such as
    /// `set_reuse_port`. An error of it ends the attempt at that address.
    pub async fn bind_prepared(
        addrs: impl ToSocketAddrs,
        prepare: impl Fn(&UdpSocket) -> io::Result<()>,
    ) -> io::Result<UdpSocket> {
        first_of(addrs, async |addr: SocketAddr| {
            let domain = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
            let driver = &current().driver;
            let handle = ops::socket(driver, domain, libc::SOCK_DGRAM, libc::IPPROTO_UDP).await?;
            let socket = UdpSocket { handle };
            prepare(&socket)?;
            match ops::bind(&socket.handle, addr.into()).await {
                Ok(()) => Ok(socket),
                Err(error) => Err(explain(error, "bind to", addr)),
            }
        })
        .await
    }

    /// From now on sends to, and receives from, this address only. The error names the address.
    pub async fn connect(&self, addrs: impl ToSocketAddrs) -> io::Result<()> {
        first_of(addrs, async |addr: SocketAddr| {
            let connected = ops::connect(&self.handle, RawAddr::from(addr)).await;
            connected.map_err(|error| explain(error, "connect to", addr))
        })
        .await
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
        Ok((lease, from.to_inet()?))
    }

    /// Receives a datagram from the connected address: its length. What `buf` has no room for is
    /// lost.
    pub fn recv_into<B: IoBufMut>(&self, buf: B) -> OpFuture<ops::Recv<B>> {
        ops::recv(&self.handle, buf, 0)
    }

    /// Receives a datagram: its length and where it came from. What `buf` has no room for is
    /// lost. If the future is dropped, a datagram that had arrived by then is lost.
    pub async fn recv_from_into<B: IoBufMut>(
        &self,
        buf: B,
    ) -> (io::Result<(usize, SocketAddr)>, B) {
        let (result, mut bufs) = ops::recv_msg(&self.handle, vec![buf], 0).await;
        let result = result.and_then(|message| Ok((message.count, message.from.to_inet()?)));
        (result, bufs.pop().expect("the buffer comes back"))
    }

    /// Sends a datagram to the connected address.
    pub fn send<B: IoBuf>(&self, buf: B) -> OpFuture<ops::Send<B>> {
        ops::send(&self.handle, buf, 0)
    }

    /// Sends a datagram to the first of the addresses.
    pub async fn send_to<B: IoBuf>(
        &self,
        buf: B,
        addrs: impl ToSocketAddrs,
    ) -> (io::Result<usize>, B) {
        let to = match lookup_host(addrs).await {
            Ok(addrs) => addrs[0],
            Err(error) => return (Err(error), buf),
        };
        let (result, mut bufs) = ops::send_msg(&self.handle, vec![buf], Some(to.into()), 0).await;
        (result, bufs.pop().expect("the buffer comes back"))
    }

    /// Waits for some of these events of `poll(2)`: which are ready.
    pub fn poll(&self, events: i16) -> OpFuture<ops::PollEvents> {
        ops::poll(&self.handle, events)
    }

    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::local(self.handle.fd()?)?.to_inet()
    }

    /// The connected address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        RawAddr::peer(self.handle.fd()?)?.to_inet()
    }
}

socket_conversions!(UdpSocket, std::net::UdpSocket);
