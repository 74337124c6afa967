//! Sockets: TCP, UDP and Unix; names of hosts.

mod addrs;
mod connector;
mod options;
mod passing;
mod send_file;
mod seqpacket;
mod stream;
mod tcp;
mod tcp_socket;
mod udp;
mod udp_many;
mod udp_options;
mod unix;

pub use addrs::{Resolver, ToSocketAddrs, lookup_host};
pub use connector::Connector;
pub use omniring_driver::Lease;
pub use options::Keepalive;
pub use passing::{Credentials, Passed};
pub(crate) use send_file::Pipes;
pub use seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
pub use stream::{Incoming, RecvLease, SendAll};
pub use tcp::{TcpListener, TcpStream};
pub use tcp_socket::TcpSocket;
pub use udp::UdpSocket;
pub use udp_many::{Datagram, Segments};
pub use unix::{UnixDatagram, UnixListener, UnixStream};
