//! Sockets: TCP, UDP and Unix.

mod addrs;
mod stream;
mod tcp;
mod udp;
mod unix;

pub use addrs::{ToSocketAddrs, resolve};
pub use omniring_driver::Lease;
pub use stream::{Incoming, RecvLease};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixDatagram, UnixListener, UnixStream};
