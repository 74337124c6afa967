//! Options of UDP sockets: broadcast and multicast, joining datagrams on the way in.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use omniring_driver::socket_option;
use socket2::SockRef;

use super::UdpSocket;
use super::options::{buffer_options, inet_options, out_of_range};

buffer_options!(UdpSocket);
inet_options!(UdpSocket);

impl UdpSocket {
    /// Whether it may send to broadcast addresses (`SO_BROADCAST`).
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        SockRef::from(&self.handle.fd()?).set_broadcast(broadcast)
    }

    /// Whether it may send to broadcast addresses.
    pub fn broadcast(&self) -> io::Result<bool> {
        SockRef::from(&self.handle.fd()?).broadcast()
    }

    /// Receives what is sent to this group on the interface that has this address; on one of the
    /// system's choice for `0.0.0.0` (`IP_ADD_MEMBERSHIP`).
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        SockRef::from(&self.handle.fd()?).join_multicast_v4(&group, &interface)
    }

    /// Takes [`join_multicast_v4`](Self::join_multicast_v4) back.
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        SockRef::from(&self.handle.fd()?).leave_multicast_v4(&group, &interface)
    }

    /// Receives what is sent to this group on the interface with this index; on one of the system's
    /// choice for 0 (`IPV6_ADD_MEMBERSHIP`).
    pub fn join_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        SockRef::from(&self.handle.fd()?).join_multicast_v6(&group, interface)
    }

    /// Takes [`join_multicast_v6`](Self::join_multicast_v6) back.
    pub fn leave_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        SockRef::from(&self.handle.fd()?).leave_multicast_v6(&group, interface)
    }

    /// The interface that multicast datagrams leave by, by its address (`IP_MULTICAST_IF`).
    pub fn set_multicast_interface_v4(&self, interface: Ipv4Addr) -> io::Result<()> {
        SockRef::from(&self.handle.fd()?).set_multicast_if_v4(&interface)
    }

    /// The interface that multicast datagrams leave by, by its index (`IPV6_MULTICAST_IF`).
    pub fn set_multicast_interface_v6(&self, interface: u32) -> io::Result<()> {
        SockRef::from(&self.handle.fd()?).set_multicast_if_v6(interface)
    }

    /// How many hops multicast datagrams may go: 0, this host only, to 255 (default 1;
    /// `IP_MULTICAST_TTL`, `IPV6_MULTICAST_HOPS`).
    pub fn set_multicast_ttl(&self, hops: u32) -> io::Result<()> {
        if hops > 255 {
            return Err(out_of_range("multicast ttl", &hops, "0 to 255"));
        }
        let fd = self.handle.fd()?;
        let socket = SockRef::from(&fd);
        if self.is_v6()? {
            socket.set_multicast_hops_v6(hops)
        } else {
            socket.set_multicast_ttl_v4(hops)
        }
    }

    /// How many hops multicast datagrams may go.
    pub fn multicast_ttl(&self) -> io::Result<u32> {
        let fd = self.handle.fd()?;
        let socket = SockRef::from(&fd);
        if self.is_v6()? { socket.multicast_hops_v6() } else { socket.multicast_ttl_v4() }
    }

    /// Whether this host receives the multicast datagrams it sends (default on;
    /// `IP_MULTICAST_LOOP`, `IPV6_MULTICAST_LOOP`).
    pub fn set_multicast_loop(&self, loops: bool) -> io::Result<()> {
        let fd = self.handle.fd()?;
        let socket = SockRef::from(&fd);
        if self.is_v6()? {
            socket.set_multicast_loop_v6(loops)
        } else {
            socket.set_multicast_loop_v4(loops)
        }
    }

    /// Whether this host receives the multicast datagrams it sends.
    pub fn multicast_loop(&self) -> io::Result<bool> {
        let fd = self.handle.fd()?;
        let socket = SockRef::from(&fd);
        if self.is_v6()? { socket.multicast_loop_v6() } else { socket.multicast_loop_v4() }
    }

    /// Whether datagrams of one sender and one length may come joined (`UDP_GRO`, 5.0). From then on
    /// [`recv_segments`](Self::recv_segments) says where each begins; the other receives do not.
    pub fn set_gro(&self, joined: bool) -> io::Result<()> {
        let fd = self.handle.fd()?;
        socket_option::set(fd, libc::IPPROTO_UDP, libc::UDP_GRO, joined.into())
    }

    /// Whether datagrams may come joined.
    pub fn gro(&self) -> io::Result<bool> {
        let fd = self.handle.fd()?;
        Ok(socket_option::get(fd, libc::IPPROTO_UDP, libc::UDP_GRO)? != 0)
    }

    /// Whether [`recv_segments`](Self::recv_segments) says the traffic class, with the ECN bits,
    /// that datagrams came with (`IP_RECVTOS`, `IPV6_RECVTCLASS`).
    pub fn set_recv_traffic_class(&self, receive: bool) -> io::Result<()> {
        let fd = self.handle.fd()?;
        let socket = SockRef::from(&fd);
        if self.is_v6()? {
            socket.set_recv_tclass_v6(receive)
        } else {
            socket.set_recv_tos_v4(receive)
        }
    }
}
