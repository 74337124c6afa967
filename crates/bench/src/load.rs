//! The load generator of the echo workloads: a closed loop of short messages on
//! many connections from one thread, as cheap for each message as safe code gets.
//!
//! Each connection has one message outstanding and a task that receives the
//! answer in leased memory. The thread has a runtime of its own, on the best
//! engine that there is: on a ring it makes a system call for many messages, not
//! several for each, so that the load is cheaper than the server, and stays so
//! while system calls are counted, which makes each of them slower. One clock
//! read for each message: the time at which an answer is complete is the time at
//! which the next message starts.
//!
//! Deliberately absent: pacing (an open loop), think time, other message sizes.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use omniring::net::TcpStream;
use omniring::{Engine, Runtime, time};

use crate::affinity;
use crate::clock::{self, Instant};
use crate::measure::Latency;
use crate::workload::ECHO_BYTES;

/// Longest time that [`Load::connect`] waits for one connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to one echo server, and the thread that keeps them busy.
///
/// ```no_run
/// use std::time::Duration;
/// use omniring_bench::load::Load;
///
/// let mut load = Load::connect("127.0.0.1:7000".parse().unwrap(), 64, None)?;
/// let served = load.run(Duration::from_secs(1))?;
/// println!("{} round trips, p99 {} us", served.ops, served.latency.percentile_us(99.0));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Load {
    /// Lengths of runs; without it the thread ends.
    lengths: Option<Sender<Duration>>,
    served: Receiver<io::Result<Served>>,
    thread: Option<JoinHandle<()>>,
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
    /// Opens `count` connections, whose thread runs on `core` alone if one is
    /// given. The server need not accept them yet, only listen.
    pub fn connect(address: SocketAddr, count: usize, core: Option<usize>) -> io::Result<Load> {
        let (lengths, to_run) = channel();
        let (results, served) = channel();
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let mut clients = match Clients::connect(address, count, core) {
                Ok(clients) => clients,
                Err(error) => return drop(results.send(Err(error))),
            };
            let mut result = Ok(Served::default());
            while results.send(result).is_ok()
                && let Ok(length) = to_run.recv()
            {
                result = clients.run(length);
            }
        })?;
        let load = Load { lengths: Some(lengths), served, thread: Some(thread) };
        load.served().map(|_| load)
    }

    /// Keeps one message outstanding on every connection for `length`. What is
    /// outstanding at the end stays so, and its answer counts in the next run.
    pub fn run(&mut self, length: Duration) -> io::Result<Served> {
        if let Some(lengths) = &self.lengths {
            // A thread that is gone is told of by the next line.
            let _ = lengths.send(length);
        }
        self.served()
    }

    fn served(&self) -> io::Result<Served> {
        self.served.recv().unwrap_or_else(|_| Err(io::Error::other("the load's thread has ended")))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.lengths = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The connections, on their thread.
struct Clients {
    runtime: Runtime,
    seen: Rc<Seen>,
}

/// What the tasks of all connections have seen.
#[derive(Default)]
struct Seen {
    ops: Cell<u64>,
    /// When this run began.
    start: Cell<Option<Instant>>,
    latency: RefCell<Latency>,
    failure: Cell<Option<io::Error>>,
}

impl Clients {
    fn connect(address: SocketAddr, count: usize, core: Option<usize>) -> io::Result<Clients> {
        if let Some(core) = core {
            affinity::pin_this_thread(core)?;
        }
        let builder = Runtime::builder().engine(Engine::Auto);
        let runtime = builder.build().map_err(io::Error::other)?;
        let seen = Rc::new(Seen::default());
        for _ in 0..count {
            let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            let seen = seen.clone();
            drop(runtime.spawn(async move {
                if let Err(error) = keep_busy(TcpStream::from_std(stream), &seen).await {
                    seen.failure.set(Some(error));
                }
            }));
        }
        Ok(Clients { runtime, seen })
    }

    fn run(&mut self, length: Duration) -> io::Result<Served> {
        let before = self.seen.ops.get();
        self.seen.start.set(Some(clock::now()));
        self.runtime.block_on(time::sleep(length));
        match self.seen.failure.take() {
            Some(error) => Err(error),
            None => {
                Ok(Served { ops: self.seen.ops.get() - before, latency: self.seen.latency.take() })
            }
        }
    }
}

/// Sends a message whenever the last one has come back.
async fn keep_busy(stream: TcpStream, seen: &Seen) -> io::Result<()> {
    let mut message: &'static [u8] = &[b'o'; ECHO_BYTES];
    // The first one may have waited for the server to start.
    let mut sent = None;
    loop {
        let (result, back) = stream.send_all(message).await;
        result?;
        message = back;
        let mut received = 0;
        while received < ECHO_BYTES {
            match stream.recv().await?.len() {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                bytes => received += bytes,
            }
        }
        let now = clock::now();
        if let (Some(sent), Some(start)) = (sent, seen.start.get())
            && sent > start
        {
            seen.latency.borrow_mut().record(now - sent);
        }
        seen.ops.set(seen.ops.get() + 1);
        sent = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
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
        let mut load = Load::connect(address, 3, None).unwrap();
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
        let mut load = Load::connect(listener.local_addr().unwrap(), 1, None).unwrap();
        drop(listener.accept().unwrap());
        assert!(load.run(Duration::from_millis(200)).is_err());
    }
}
