//! Socket options, under one name on every type of socket that has them.
//!
//! Each is one system call that returns at once, on a descriptor of the process: a direct
//! descriptor of a ring is given one with the first of them.

use std::io;
use std::time::Duration;

/// When a TCP connection is asked whether its other end is still there, and how often, until it
/// counts as dead and its ops fail with `ETIMEDOUT` (`tcp(7)`).
///
/// ```
/// use std::time::Duration;
/// use omniring::net::{Keepalive, TcpListener, TcpStream};
/// # omniring::Runtime::new()?.block_on(async {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let stream = TcpStream::connect(listener.local_addr()?).await?;
/// // Dead after a minute of silence and 5 questions, 10 seconds apart.
/// let keepalive = Keepalive::new(Duration::from_secs(60), Duration::from_secs(10), 5);
/// stream.set_keepalive(Some(keepalive))?;
/// assert_eq!(stream.keepalive()?, Some(keepalive));
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keepalive {
    /// Silence before the first question: whole seconds, 1 to 32,767 (`TCP_KEEPIDLE`).
    pub idle: Duration,
    /// Time between questions: whole seconds, 1 to 32,767 (`TCP_KEEPINTVL`).
    pub interval: Duration,
    /// Questions without an answer until the connection is dead: 1 to 127 (`TCP_KEEPCNT`).
    pub count: u32,
}

impl Keepalive {
    /// With these times; what is out of range is refused when it is set.
    pub const fn new(idle: Duration, interval: Duration, count: u32) -> Keepalive {
        Keepalive { idle, interval, count }
    }

    pub(super) fn check(self) -> io::Result<()> {
        whole_seconds("keepalive: idle", self.idle, 1, 32_767)?;
        whole_seconds("keepalive: interval", self.interval, 1, 32_767)?;
        if !(1..=127).contains(&self.count) {
            return Err(out_of_range("keepalive: count", &self.count, "1 to 127"));
        }
        Ok(())
    }
}

/// The defaults of the kernel: 2 hours, 75 seconds, 9 questions.
impl Default for Keepalive {
    fn default() -> Keepalive {
        Keepalive::new(Duration::from_secs(7200), Duration::from_secs(75), 9)
    }
}

/// The error for a value that the kernel would refuse, or cut without saying so.
#[cold]
pub(super) fn out_of_range(
    what: &str,
    value: &(impl std::fmt::Debug + ?Sized),
    range: &str,
) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} is {value:?}, and can be {range}"))
}

pub(super) fn whole_seconds(what: &str, time: Duration, min: u64, max: u64) -> io::Result<()> {
    if time.subsec_nanos() != 0 || !(min..=max).contains(&time.as_secs()) {
        return Err(out_of_range(what, &time, &format!("{min} to {max} whole seconds")));
    }
    Ok(())
}

/// The options that all sockets have, of a type whose field `handle` is a socket.
macro_rules! buffer_options {
    ($Socket:ident) => {
        impl $Socket {
            /// Bytes that the socket keeps for sending (`SO_SNDBUF`): the kernel doubles what is set,
            /// for its own needs, and cuts it at `net.core.wmem_max`.
            pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
                socket2::SockRef::from(&self.handle.fd()?).set_send_buffer_size(bytes)
            }

            /// Bytes that the socket keeps for sending, as the kernel counts them.
            pub fn send_buffer_size(&self) -> io::Result<usize> {
                socket2::SockRef::from(&self.handle.fd()?).send_buffer_size()
            }

            /// Bytes that the socket keeps for receiving (`SO_RCVBUF`): the kernel doubles what is
            /// set, for its own needs, and cuts it at `net.core.rmem_max`. For TCP to use more than
            /// 64 KiB of it, it is set before connecting or listening.
            pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
                socket2::SockRef::from(&self.handle.fd()?).set_recv_buffer_size(bytes)
            }

            /// Bytes that the socket keeps for receiving, as the kernel counts them.
            pub fn recv_buffer_size(&self) -> io::Result<usize> {
                socket2::SockRef::from(&self.handle.fd()?).recv_buffer_size()
            }

            /// Takes the error that waits at the socket, if there is one (`SO_ERROR`).
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                socket2::SockRef::from(&self.handle.fd()?).take_error()
            }
        }
    };
}

/// The options of Internet sockets, of a type whose field `handle` is one.
macro_rules! inet_options {
    ($Socket:ident) => {
        impl $Socket {
            /// Whether it is a socket of IPv6.
            fn is_v6(&self) -> io::Result<bool> {
                let domain = socket2::SockRef::from(&self.handle.fd()?).domain()?;
                Ok(domain == socket2::Domain::IPV6)
            }

            /// How many hops packets may go: 1 to 255 (`IP_TTL`, `IPV6_UNICAST_HOPS`).
            pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
                if !(1..=255).contains(&hops) {
                    return Err($crate::net::options::out_of_range("ttl", &hops, "1 to 255"));
                }
                let fd = self.handle.fd()?;
                let socket = socket2::SockRef::from(&fd);
                if self.is_v6()? {
                    socket.set_unicast_hops_v6(hops)
                } else {
                    socket.set_ttl_v4(hops)
                }
            }

            /// How many hops packets may go.
            pub fn ttl(&self) -> io::Result<u32> {
                let fd = self.handle.fd()?;
                let socket = socket2::SockRef::from(&fd);
                if self.is_v6()? { socket.unicast_hops_v6() } else { socket.ttl_v4() }
            }

            /// The traffic class of what is sent: the byte that has DSCP in its upper 6 bits and ECN
            /// in its lower 2 (`IP_TOS`, `IPV6_TCLASS`). TCP keeps the ECN bits to itself.
            pub fn set_traffic_class(&self, class: u8) -> io::Result<()> {
                let fd = self.handle.fd()?;
                let socket = socket2::SockRef::from(&fd);
                let class = class.into();
                if self.is_v6()? { socket.set_tclass_v6(class) } else { socket.set_tos_v4(class) }
            }

            /// The traffic class of what is sent.
            pub fn traffic_class(&self) -> io::Result<u8> {
                let fd = self.handle.fd()?;
                let socket = socket2::SockRef::from(&fd);
                let class = if self.is_v6()? { socket.tclass_v6() } else { socket.tos_v4() };
                class.map(|class| class as u8)
            }

            /// Whether the address can be had while connections of an earlier socket linger on it,
            /// or, for UDP, while other sockets that say so too have it (`SO_REUSEADDR`). Before
            /// binding.
            pub fn set_reuse_address(&self, reuse: bool) -> io::Result<()> {
                socket2::SockRef::from(&self.handle.fd()?).set_reuse_address(reuse)
            }

            /// Whether the address can be had as [`set_reuse_address`](Self::set_reuse_address) says.
            pub fn reuse_address(&self) -> io::Result<bool> {
                socket2::SockRef::from(&self.handle.fd()?).reuse_address()
            }

            /// Whether several sockets of the same user may have this address, and the kernel shares
            /// connections or datagrams out among them: one for each core (`SO_REUSEPORT`, 3.9).
            /// Before binding, on each of them.
            pub fn set_reuse_port(&self, reuse: bool) -> io::Result<()> {
                socket2::SockRef::from(&self.handle.fd()?).set_reuse_port(reuse)
            }

            /// Whether several sockets may have this address.
            pub fn reuse_port(&self) -> io::Result<bool> {
                socket2::SockRef::from(&self.handle.fd()?).reuse_port()
            }

            /// Whether a socket of IPv6 leaves IPv4 alone (`IPV6_V6ONLY`). Before binding; fails on a
            /// socket of IPv4.
            pub fn set_only_v6(&self, only: bool) -> io::Result<()> {
                socket2::SockRef::from(&self.handle.fd()?).set_only_v6(only)
            }

            /// Whether a socket of IPv6 leaves IPv4 alone.
            pub fn only_v6(&self) -> io::Result<bool> {
                socket2::SockRef::from(&self.handle.fd()?).only_v6()
            }
        }
    };
}

/// The options of TCP, of a type whose field `handle` is a socket of it.
macro_rules! tcp_options {
    ($Socket:ident) => {
        impl $Socket {
            /// Sends small messages at once instead of collecting them (`TCP_NODELAY`).
            pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
                socket2::SockRef::from(&self.handle.fd()?).set_tcp_nodelay(nodelay)
            }

            /// Whether small messages are sent at once.
            pub fn nodelay(&self) -> io::Result<bool> {
                socket2::SockRef::from(&self.handle.fd()?).tcp_nodelay()
            }

            /// Asks the other end of a silent connection whether it is still there (`SO_KEEPALIVE`
            /// and the `TCP_KEEP...` that go with it), or with `None` does not. What is out of range
            /// is refused with `InvalidInput` and changes nothing.
            pub fn set_keepalive(
                &self,
                keepalive: Option<$crate::net::Keepalive>,
            ) -> io::Result<()> {
                let fd = self.handle.fd()?;
                let socket = socket2::SockRef::from(&fd);
                let Some(keepalive) = keepalive else { return socket.set_keepalive(false) };
                keepalive.check()?;
                let params = socket2::TcpKeepalive::new()
                    .with_time(keepalive.idle)
                    .with_interval(keepalive.interval)
                    .with_retries(keepalive.count);
                socket.set_tcp_keepalive(&params)
            }

            /// Whether, and when, the other end of a silent connection is asked.
            pub fn keepalive(&self) -> io::Result<Option<$crate::net::Keepalive>> {
                let fd = self.handle.fd()?;
                let socket = socket2::SockRef::from(&fd);
                if !socket.keepalive()? {
                    return Ok(None);
                }
                Ok(Some($crate::net::Keepalive {
                    idle: socket.tcp_keepalive_time()?,
                    interval: socket.tcp_keepalive_interval()?,
                    count: socket.tcp_keepalive_retries()?,
                }))
            }

            /// What closing does about bytes that the other end has not acknowledged (`SO_LINGER`).
            /// `None`: the kernel goes on sending them. Zero: they are dropped, and the other end
            /// sees a reset. More, in whole seconds up to 65,535: closing waits for them so long,
            /// and it is the core's thread that waits, which holds up its other tasks; `shutdown`
            /// and receiving until the end of the stream is the way to wait without that.
            pub fn set_linger(&self, linger: Option<std::time::Duration>) -> io::Result<()> {
                if let Some(time) = linger {
                    $crate::net::options::whole_seconds("linger", time, 0, 65_535)?;
                }
                socket2::SockRef::from(&self.handle.fd()?).set_linger(linger)
            }

            /// What closing does about bytes that the other end has not acknowledged.
            pub fn linger(&self) -> io::Result<Option<std::time::Duration>> {
                socket2::SockRef::from(&self.handle.fd()?).linger()
            }

            /// How long sent bytes may stay unacknowledged, in whole milliseconds, until the
            /// connection counts as dead and its ops fail with `ETIMEDOUT` (`TCP_USER_TIMEOUT`).
            /// `None`: as long as the system's retransmissions take.
            pub fn set_user_timeout(&self, timeout: Option<std::time::Duration>) -> io::Result<()> {
                if let Some(time) = timeout
                    && (time.subsec_nanos() % 1_000_000 != 0
                        || !(1..=i32::MAX as u128).contains(&time.as_millis()))
                {
                    let range = "1 to 2,147,483,647 whole milliseconds";
                    return Err($crate::net::options::out_of_range("user timeout", &time, range));
                }
                socket2::SockRef::from(&self.handle.fd()?).set_tcp_user_timeout(timeout)
            }

            /// How long sent bytes may stay unacknowledged.
            pub fn user_timeout(&self) -> io::Result<Option<std::time::Duration>> {
                let timeout = socket2::SockRef::from(&self.handle.fd()?).tcp_user_timeout()?;
                Ok(timeout.filter(|time| !time.is_zero()))
            }
        }
    };
}

/// The options of listeners for TCP, of a type whose field `handle` is a socket of it.
macro_rules! listener_options {
    ($Socket:ident) => {
        impl $Socket {
            /// Hands connections over only when data has come with them, or after about so long, in
            /// whole seconds up to 127 (`TCP_DEFER_ACCEPT`; the kernel rounds it up to its
            /// retransmissions: 1, 3, 7 seconds and so on). `None`: as soon as they stand.
            pub fn set_defer_accept(&self, time: Option<std::time::Duration>) -> io::Result<()> {
                if let Some(time) = time {
                    $crate::net::options::whole_seconds("defer accept", time, 1, 127)?;
                }
                let seconds = time.map_or(0, |time| time.as_secs() as i32);
                let fd = self.handle.fd()?;
                omniring_driver::socket_option::set(
                    fd,
                    libc::IPPROTO_TCP,
                    libc::TCP_DEFER_ACCEPT,
                    seconds,
                )
            }

            /// How long connections are held back for data, as the kernel rounded it.
            pub fn defer_accept(&self) -> io::Result<Option<std::time::Duration>> {
                let fd = self.handle.fd()?;
                let seconds = omniring_driver::socket_option::get(
                    fd,
                    libc::IPPROTO_TCP,
                    libc::TCP_DEFER_ACCEPT,
                )?;
                let seconds = u64::try_from(seconds).unwrap_or(0);
                Ok((seconds != 0).then(|| std::time::Duration::from_secs(seconds)))
            }

            /// Takes data that comes with the first packet of a connection, from clients that were
            /// here before, for at most `queue_len` connections that do not stand yet
            /// (`TCP_FASTOPEN`); 0 takes none. Has an effect only where bit 2 of the sysctl
            /// `net.ipv4.tcp_fastopen` is set.
            pub fn set_fast_open(&self, queue_len: u16) -> io::Result<()> {
                let fd = self.handle.fd()?;
                omniring_driver::socket_option::set(
                    fd,
                    libc::IPPROTO_TCP,
                    libc::TCP_FASTOPEN,
                    queue_len.into(),
                )
            }

            /// For how many connections data is taken with the first packet.
            pub fn fast_open(&self) -> io::Result<u16> {
                let fd = self.handle.fd()?;
                let queue_len =
                    omniring_driver::socket_option::get(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN)?;
                Ok(queue_len.try_into().unwrap_or(u16::MAX))
            }
        }
    };
}

pub(super) use {buffer_options, inet_options, listener_options, tcp_options};
