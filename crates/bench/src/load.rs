//! The load generator of the echo workloads: a closed loop of short messages on
//! many connections from one thread, as cheap for each message as safe code gets.
//!
//! Each connection has one message outstanding. Readiness is edge-triggered and
//! a whole message is 64 bytes, so that in steady state a round trip costs one
//! receive, one send and a share of one wait, and never a call that would block.
//! One clock read for each message: the time at which an answer is complete is
//! the time at which the next message starts.
//!
//! Deliberately absent: pacing (an open loop), think time, other message sizes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::clock::{self, Instant};
use crate::measure::Latency;
use crate::workload::ECHO_BYTES;

/// Longest time that [`Load::connect`] waits for one connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to one echo server.
///
/// ```no_run
/// use std::time::Duration;
/// use omniring_bench::load::Load;
///
/// let mut load = Load::connect("127.0.0.1:7000".parse().unwrap(), 64)?;
/// let served = load.run(Duration::from_secs(1))?;
/// println!("{} round trips, p99 {} us", served.ops, served.latency.percentile_us(99.0));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Load {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// When the outstanding message was sent; `None` before the first.
    sent: Option<Instant>,
    /// Bytes of the answer that have arrived.
    received: usize,
}

/// What one run of the load saw.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// Round trips completed.
    pub ops: u64,
    /// Their latencies, without the first of each connection in this run, which
    /// may have waited for the server to start.
    pub latency: Latency,
}

impl Load {
    /// Opens `count` connections. The server need not accept them yet, only listen.
    pub fn connect(address: SocketAddr, count: usize) -> io::Result<Load> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            connections.push(Connection { stream, sent: None, received: 0 });
        }
        Ok(Load { poll, events: Events::with_capacity(count.max(1)), connections })
    }

    /// Keeps one message outstanding on every connection for `length`. What is
    /// outstanding at the end stays so, and its answer counts in the next run.
    pub fn run(&mut self, length: Duration) -> io::Result<Served> {
        let mut served = Served::default();
        let start = clock::now();
        let deadline = start + length;
        for connection in &mut self.connections {
            if connection.sent.is_none() {
                connection.send(start)?;
            }
        }
        while let Some(left) = deadline.checked_duration_since(clock::now()) {
            match self.poll.poll(&mut self.events, Some(left)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            // A batch is always worked off: its edges are not told again.
            for event in &self.events {
                let connection = &mut self.connections[event.token().0];
                if !connection.receive()? {
                    continue;
                }
                let now = clock::now();
                if let Some(sent) = connection.sent.filter(|&sent| sent > start) {
                    served.latency.record(now - sent);
                }
                served.ops += 1;
                connection.send(now)?;
            }
        }
        Ok(served)
    }
}

impl Connection {
    fn send(&mut self, now: Instant) -> io::Result<()> {
        self.sent = Some(now);
        self.received = 0;
        match self.stream.write(&[b'o'; ECHO_BYTES])? {
            ECHO_BYTES => Ok(()),
            _ => Err(io::Error::other("the socket took only a part of a short message")),
        }
    }

    /// Whether the answer is complete.
    fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; ECHO_BYTES];
        while self.received < ECHO_BYTES {
            match self.stream.read(&mut buffer[self.received..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => self.received += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn every_connection_makes_round_trips() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let echoes: Vec<_> = (0..3)
                .map(|_| {
                    let (mut stream, _) = listener.accept().unwrap();
                    std::thread::spawn(move || {
                        let mut buffer = [0; 256];
                        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                            if stream.write_all(&buffer[..bytes]).is_err() {
                                break;
                            }
                        }
                    })
                })
                .collect();
            echoes.into_iter().for_each(|echo| echo.join().unwrap());
        });
        let mut load = Load::connect(address, 3).unwrap();
        let first = load.run(Duration::from_millis(30)).unwrap();
        let second = load.run(Duration::from_millis(30)).unwrap();
        assert!(first.ops > 3 && second.ops > 3);
        assert_eq!(first.latency.count() + 3, first.ops);
        assert!(first.latency.percentile_us(50.0) > 0.0);
        drop(load);
        server.join().unwrap();
    }

    #[test]
    fn a_server_that_hangs_up_is_an_error() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut load = Load::connect(listener.local_addr().unwrap(), 1).unwrap();
        drop(listener.accept().unwrap());
        assert!(load.run(Duration::from_millis(200)).is_err());
    }
}
