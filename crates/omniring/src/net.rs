//! Sockets: TCP, UDP and Unix.

mod addrs;
mod send_file;
mod stream;
mod tcp;
mod udp;
mod unix;

pub use addrs::{ToSocketAddrs, resolve};
pub use omniring_driver::Lease;
pub(crate) use send_file::Pipes;
pub use stream::{Incoming, RecvLease, SendAll};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixDatagram, UnixListener, UnixStream};
