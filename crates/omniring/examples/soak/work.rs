//! What the tasks of a phase do: a bit of everything, much of it cut short.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use fastrand::Rng;
use omniring::buf::{AlignedBuf, FixedPool};
use omniring::fs::{self, File, OpenOptions};
use omniring::net::{Lease, TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixStream};
use omniring::time::{now, sleep, timeout};
use omniring::{spawn, spawn_blocking, yield_now};

/// Longest that an op takes that is not cut short.
const LONG: Duration = Duration::from_secs(20);
/// Bytes of the file that a task works on.
const FILE_LEN: usize = 256 << 10;
const BLOCK: usize = 4096;
const LOCAL: &str = "127.0.0.1:0";

/// What has been done so far.
#[derive(Default)]
pub struct Tally {
    finished: Cell<u64>,
    cut_short: Cell<u64>,
    /// Rounds of each kind of work.
    rounds: [Cell<u64>; Work::ALL.len()],
}

impl Tally {
    /// An error if some kind of work was never done, or nothing was ever cut short.
    pub fn check(&self) -> Result<(), String> {
        let idle = Work::ALL.iter().zip(&self.rounds).find(|(_, rounds)| rounds.get() == 0);
        match idle {
            Some((work, _)) => Err(format!("{work:?} was never done; give more --seconds")),
            None if self.cut_short.get() == 0 => Err("nothing was cut short".to_owned()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ops finished, {} cut short", self.finished.get(), self.cut_short.get())
    }
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// A pool of fixed buffers for a runtime.
pub fn pool(random: &mut Rng) -> Result<FixedPool, String> {
    let builder = FixedPool::builder().class(BLOCK, random.usize(1..6)).class(4 * BLOCK, 2);
    builder.build().map_err(|error| error.to_string())
}

/// How many of its buffers are not in the pool.
pub fn lent(pool: &FixedPool) -> usize {
    pool.stats().iter().map(|class| class.total_count - class.free_count).sum()
}

/// An op that has been started and that nothing will end.
pub async fn endless_op() -> impl Sized {
    let (one, other) = UnixStream::pair().expect("a pair of sockets");
    let mut receive = Box::pin(async move {
        let outcome = one.recv_into(vec![0; 1]).await;
        drop(other);
        outcome
    });
    poll_fn(|cx| {
        let _ = receive.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
    receive
}

/// A byte in a buffer of the runtime's.
pub async fn lease() -> Lease {
    let (one, other) = UnixStream::pair().expect("a pair of sockets");
    one.send(vec![1]).await.0.expect("there is room");
    other.recv().await.expect("it is there")
}

/// A kind of work.
#[derive(Clone, Copy, Debug)]
enum Work {
    Echo,
    SlowReader,
    HalfConnections,
    Files,
    FixedBuffers,
    ManyReads,
    Datagrams,
    UnixStreams,
    Tasks,
    Calls,
}

impl Work {
    const ALL: [Work; 10] = [
        Work::Echo,
        Work::SlowReader,
        Work::HalfConnections,
        Work::Files,
        Work::FixedBuffers,
        Work::ManyReads,
        Work::Datagrams,
        Work::UnixStreams,
        Work::Tasks,
        Work::Calls,
    ];
}

/// Some tasks at once until a moment.
pub struct Phase {
    /// When to end.
    pub until: Instant,
    /// Where files may be made.
    pub scratch: PathBuf,
    /// Fixed buffers of the runtime.
    pub pool: FixedPool,
    /// Where to count.
    pub tally: Rc<Tally>,
    /// Whether to lose a few bytes with each op.
    pub heap_planted: bool,
    /// Of everything that is chosen.
    pub seed: u64,
}

impl Phase {
    /// Runs so many tasks to their end.
    pub async fn run(self, count: usize) {
        let phase = Rc::new(self);
        let mut random = Rng::with_seed(phase.seed);
        let start = |index| {
            // Every kind has its turn before one has its second.
            let kind = (random.usize(..Work::ALL.len()) + index) % Work::ALL.len();
            spawn(Worker { phase: phase.clone(), random: random.fork() }.run(kind))
        };
        let tasks: Vec<_> = (0..count).map(start).collect();
        for task in tasks {
            task.await.expect("a task does not panic");
        }
    }
}

struct Worker {
    phase: Rc<Phase>,
    random: Rng,
}

impl Worker {
    async fn run(mut self, kind: usize) {
        while now() < self.phase.until {
            count(&self.phase.tally.rounds[kind]);
            let outcome = match Work::ALL[kind] {
                Work::Echo => self.echo().await,
                Work::SlowReader => self.slow_reader().await,
                Work::HalfConnections => self.half_connections().await,
                Work::Files => self.files().await,
                Work::FixedBuffers => self.fixed_buffers().await,
                Work::ManyReads => self.many_reads().await,
                Work::Datagrams => self.datagrams().await,
                Work::UnixStreams => self.unix_streams().await,
                Work::Tasks => self.tasks().await,
                Work::Calls => self.calls().await,
            };
            if let Err(error) = outcome {
                panic!("{:?}: {error}", Work::ALL[kind]);
            }
            yield_now().await;
        }
    }

    /// Lets `future` come to its end, or cuts it short, in one of several ways.
    async fn perhaps<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let ended = match self.random.u32(..8) {
            // Before it has begun.
            0 => None,
            // Right after it has begun.
            1 => {
                let mut future = pin!(future);
                poll_fn(|cx| match future.as_mut().poll(cx) {
                    Poll::Ready(output) => Poll::Ready(Some(output)),
                    Poll::Pending => Poll::Ready(None),
                })
                .await
            }
            // Some time later.
            2 | 3 => {
                let time = Duration::from_micros(self.random.u64(..400));
                timeout(time, future).await.ok()
            }
            _ => return Some(self.surely(future).await),
        };
        self.note(ended.is_some());
        ended
    }

    /// Lets `future` come to its end, which has to come.
    async fn surely<F: Future>(&mut self, future: F) -> F::Output {
        let output = timeout(LONG, future).await.expect("an op ends");
        self.note(true);
        output
    }

    fn note(&mut self, finished: bool) {
        let tally = &self.phase.tally;
        count(if finished { &tally.finished } else { &tally.cut_short });
        if self.phase.heap_planted {
            std::mem::forget(vec![0u8; 16]);
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.random.fill(&mut bytes);
        bytes
    }

    /// Several clients of an echo server; some hang up in the middle of a message.
    async fn echo(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(LOCAL).await?;
        let address = listener.local_addr()?;
        let server = spawn(serve(listener, self.random.fork()));
        for _ in 0..self.random.u32(1..5) {
            let Some(stream) = self.perhaps(TcpStream::connect(address)).await else { continue };
            let stream = stream?;
            for _ in 0..self.random.u32(1..6) {
                let len = self.random.usize(1..20_000);
                let message = self.bytes(len);
                if self.random.u32(..4) == 0 {
                    let send = stream.send_zero_copy(message.clone());
                    let Some((sent, in_use)) = self.perhaps(send).await else { break };
                    if self.random.bool() {
                        self.perhaps(in_use).await;
                    }
                    if sent? < len {
                        break;
                    }
                } else {
                    let send = stream.send_all(message.clone());
                    let Some((sent, _)) = self.perhaps(send).await else { break };
                    sent?;
                }
                let answer = if self.random.bool() {
                    let receive = receive_exact(&stream, len);
                    let Some(answer) = self.perhaps(receive).await else { break };
                    answer?
                } else {
                    self.receive_leases(&stream, len).await?
                };
                assert!(answer == message, "an echo is what was sent");
            }
        }
        // The server is ended in the middle of an accept, its connections as they end.
        server.abort();
        let _ = server.await;
        Ok(())
    }

    /// Exactly so many bytes, in leases that are waited for again and again.
    async fn receive_leases(&mut self, stream: &TcpStream, len: usize) -> io::Result<Vec<u8>> {
        let mut received = Vec::with_capacity(len);
        while received.len() < len {
            let Some(lease) = self.perhaps(stream.recv()).await else { continue };
            let lease = lease?;
            if lease.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            received.extend_from_slice(&lease);
        }
        Ok(received)
    }

    /// A client that sends and sends, and is read from slowly or not at all.
    async fn slow_reader(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(LOCAL).await?;
        let address = listener.local_addr()?;
        let client = self.surely(TcpStream::connect(address)).await?;
        let (server, _) = self.surely(listener.accept()).await?;
        let mut random = self.random.fork();
        let sender = spawn(async move {
            let mut chunk = vec![7; 256 << 10];
            for _ in 0..64 {
                let (sent, back) = client.send_all(chunk).await;
                if sent.is_err() {
                    return; // the reader has had enough
                }
                chunk = back;
            }
        });
        for _ in 0..random.u32(..6) {
            sleep(Duration::from_micros(random.u64(..2_000))).await;
            if random.bool() {
                if let Some(lease) = self.perhaps(server.recv()).await {
                    assert!(lease?.iter().all(|&byte| byte == 7));
                }
                continue;
            }
            let buffer = Vec::with_capacity(random.usize(1..50_000));
            if let Some((received, buffer)) = self.perhaps(server.recv_into(buffer)).await {
                assert!(buffer[..received?].iter().all(|&byte| byte == 7));
            }
        }
        if random.bool() {
            sender.abort();
            let _ = sender.await;
        }
        Ok(()) // the connection is closed with data in it
    }

    /// Connects and accepts that nobody waits for.
    async fn half_connections(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(LOCAL).await?;
        let address = listener.local_addr()?;
        let mut held = Vec::new();
        for _ in 0..self.random.u32(1..8) {
            if self.random.bool() {
                held.extend(self.perhaps(TcpStream::connect(address)).await.transpose()?);
            } else {
                // There may be nobody to accept.
                let time = Duration::from_micros(self.random.u64(..300));
                let accepted = timeout(time, listener.accept()).await;
                self.note(accepted.is_ok());
                held.extend(accepted.ok().transpose()?.map(|(stream, _)| stream));
            }
        }
        Ok(())
    }

    /// Writes and reads of a file of one's own, in the page cache or past it.
    async fn files(&mut self) -> io::Result<()> {
        let path = self.scratch_path();
        let file = self.open(&path).await?;
        // What is in each block. A write that was cut short may happen even after a later
        // one, so that nothing is known from then on.
        let mut known = [Some(0u8); FILE_LEN / BLOCK];
        for _ in 0..self.random.u32(4..24) {
            let block = self.random.usize(..known.len());
            let offset = (block * BLOCK) as u64;
            let mut buffer = AlignedBuf::new(BLOCK, BLOCK);
            match self.random.u32(..8) {
                0..=2 => {
                    let byte = self.random.u8(..);
                    buffer.fill(byte);
                    let was_known = known[block].take().is_some();
                    let written = if self.random.bool() {
                        self.perhaps(file.write_all_at(buffer, offset)).await
                    } else {
                        self.perhaps(file.write_durable_at(buffer, offset)).await
                    };
                    if let Some((result, _)) = written {
                        result?;
                        known[block] = was_known.then_some(byte);
                    }
                }
                3 => {
                    if let Some(result) = self.perhaps(file.sync_data()).await {
                        result?;
                    }
                }
                4 => {
                    // Another descriptor of the same file, or nearly one.
                    let opened = self.perhaps(File::open(&path)).await;
                    drop(opened.transpose()?);
                }
                _ => {
                    let read = self.perhaps(file.read_exact_at(buffer, offset)).await;
                    if let Some((result, buffer)) = read {
                        result?;
                        let all = |byte| buffer.iter().all(|&other| other == byte);
                        assert!(known[block].is_none_or(all), "a read is what was written");
                    }
                }
            }
        }
        drop(file);
        fs::remove_file(&path).await
    }

    fn scratch_path(&mut self) -> PathBuf {
        self.phase.scratch.join(format!("{:016x}", self.random.u64(..)))
    }

    /// A new file full of zeros, opened past the page cache or not.
    async fn open(&mut self, path: &Path) -> io::Result<File> {
        fs::write(path, vec![0; FILE_LEN]).await?;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.random.bool() {
            match options.clone().direct(true).open(path).await {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {} // it cannot
                opened => return opened,
            }
        }
        options.open(path).await
    }

    /// Buffers of the pool, of which there are fewer than tasks that want some.
    async fn fixed_buffers(&mut self) -> io::Result<()> {
        let path = self.scratch_path();
        let file = self.open(&path).await?;
        let pool = self.phase.pool.clone();
        for _ in 0..self.random.u32(1..16) {
            let len = BLOCK << self.random.u32(..3);
            let Some(taken) = self.perhaps(pool.take(len)).await else { continue };
            let buffer = taken.map_err(io::Error::other)?;
            let offset = (self.random.usize(..FILE_LEN / BLOCK - 4) * BLOCK) as u64;
            if self.random.bool() {
                self.perhaps(file.write_at(buffer, offset)).await;
            } else if let Some((result, buffer)) = self.perhaps(file.read_at(buffer, offset)).await
            {
                assert_eq!(result?, buffer.len());
            }
        }
        drop(file);
        fs::remove_file(&path).await
    }

    /// A batch of reads, of which not all are waited for.
    async fn many_reads(&mut self) -> io::Result<()> {
        let path = self.scratch_path();
        let file = self.open(&path).await?;
        for _ in 0..self.random.u32(1..6) {
            let mut request = |_| {
                let offset = self.random.usize(..FILE_LEN / BLOCK) * BLOCK;
                (offset as u64, AlignedBuf::new(BLOCK, BLOCK))
            };
            let requests: Vec<_> = (0..12).map(&mut request).collect();
            let mut reads = file.read_many_at(requests);
            for _ in 0..self.random.u32(..14) {
                match self.perhaps(reads.next()).await {
                    Some(Some((_, result, _))) => assert_eq!(result?, BLOCK),
                    Some(None) => break,
                    None => {}
                }
            }
        }
        drop(file);
        fs::remove_file(&path).await
    }

    /// Datagrams, over IP and not, that nobody may be waiting for.
    async fn datagrams(&mut self) -> io::Result<()> {
        let (one, other) = (UdpSocket::bind(LOCAL).await?, UdpSocket::bind(LOCAL).await?);
        let (to, from) = (other.local_addr()?, one.local_addr()?);
        let (left, right) = UnixDatagram::pair()?;
        for _ in 0..self.random.u32(1..10) {
            let message = self.bytes(100);
            if self.random.bool() {
                if let Some((sent, _)) = self.perhaps(one.send_to(message, to)).await {
                    assert_eq!(sent?, 100);
                }
                let time = Duration::from_micros(self.random.u64(..300));
                let received = timeout(time, other.recv_from_into(vec![0; 200])).await;
                self.note(received.is_ok());
                if let Ok((received, _)) = received {
                    assert_eq!(received?, (100, from));
                }
            } else {
                // A receiver that is full has to be waited for.
                self.perhaps(left.send(message)).await;
                let time = Duration::from_micros(self.random.u64(..300));
                let received = timeout(time, right.recv_into(vec![0; 200])).await;
                self.note(received.is_ok());
                if let Ok((received, _)) = received {
                    assert_eq!(received?, 100);
                }
            }
        }
        Ok(())
    }

    /// A pair of streams, of which one end goes at some point.
    async fn unix_streams(&mut self) -> io::Result<()> {
        let (one, other) = UnixStream::pair()?;
        let len = self.random.usize(1..500_000);
        let message = self.bytes(len);
        let expected = message.clone();
        let sender = spawn(async move { one.send_all(message).await.0 });
        let mut received = Vec::new();
        while received.len() < len {
            if self.random.u32(..20) == 0 {
                sender.abort();
                break;
            }
            if self.random.bool() {
                // What a lease is dropped for is there for the next receive, of either kind.
                if let Some(lease) = self.perhaps(other.recv()).await {
                    received.extend_from_slice(&lease?);
                }
                continue;
            }
            let room = Vec::with_capacity(self.random.usize(1..60_000));
            let (count, part) = self.surely(other.recv_into(room)).await;
            let count = count?;
            if count == 0 {
                panic!("{} of {len} bytes, then {:?}", received.len(), sender.await);
            }
            received.extend_from_slice(&part);
        }
        assert!(expected.starts_with(&received), "what arrives is what was sent");
        drop(other);
        let _ = sender.await;
        Ok(())
    }

    /// Tasks that wait for time, for each other, and for their end.
    async fn tasks(&mut self) -> io::Result<()> {
        let mut tasks = Vec::new();
        for _ in 0..self.random.u32(1..12) {
            let time = Duration::from_micros(self.random.u64(..3_000));
            let child = spawn(async move {
                let inner = spawn(sleep(time));
                sleep(time / 2).await;
                inner.await.expect("a sleep ends");
            });
            tasks.push(child);
        }
        for task in tasks {
            match self.random.u32(..3) {
                0 => task.abort(),
                1 => drop(task),
                _ => {
                    let _ = self.perhaps(task).await;
                }
            }
        }
        // None of them shall outlive the phase by much.
        sleep(Duration::from_millis(7)).await;
        Ok(())
    }

    /// Calls that block a thread, and their results thrown away.
    async fn calls(&mut self) -> io::Result<()> {
        for _ in 0..self.random.u32(1..6) {
            let time = Duration::from_micros(self.random.u64(..1_000));
            let call = spawn_blocking(move || {
                std::thread::sleep(time);
                vec![3u8; 1000]
            });
            if let Some(result) = self.perhaps(call).await {
                assert_eq!(result.expect("it does not panic").len(), 1000);
            }
        }
        Ok(())
    }
}

/// Sends everything back on each connection. Ends when it is aborted; its connections end when
/// their peers close.
async fn serve(listener: TcpListener, mut random: Rng) {
    if random.bool() {
        while let Ok((stream, _)) = listener.accept().await {
            drop(spawn(echo_all(stream, random.fork())));
        }
    } else {
        let mut incoming = listener.incoming();
        while let Ok(stream) = incoming.next().await {
            drop(spawn(echo_all(stream, random.fork())));
        }
    }
}

/// Until the peer closes, or resets what it did not want to read.
async fn echo_all(stream: TcpStream, mut random: Rng) {
    if random.u32(..3) == 0 {
        echo_owned(stream, random).await;
    } else {
        let hoard_max = if random.bool() { random.usize(1..60) } else { 0 };
        echo_leased(stream, hoard_max).await;
    }
}

async fn echo_owned(stream: TcpStream, mut random: Rng) {
    let mut buffer = Vec::with_capacity(random.usize(1..20_000));
    loop {
        let (received, filled) = stream.recv_into(buffer).await;
        if !matches!(received, Ok(1..)) {
            return;
        }
        let (sent, back) = stream.send_all(filled).await;
        if sent.is_err() {
            return;
        }
        buffer = back;
        buffer.clear();
    }
}

/// Keeps so many leases to itself before it gives them back.
async fn echo_leased(stream: TcpStream, hoard_max: usize) {
    let mut hoard = Vec::new();
    while let Ok(lease) = stream.recv().await {
        if lease.is_empty() {
            return;
        }
        let (sent, lease) = stream.send_all(lease).await;
        if sent.is_err() {
            return;
        }
        hoard.push(lease);
        if hoard.len() > hoard_max {
            hoard.clear();
        }
    }
}

/// Exactly so many bytes.
async fn receive_exact(stream: &TcpStream, len: usize) -> io::Result<Vec<u8>> {
    let mut received = Vec::with_capacity(len);
    while received.len() < len {
        let (count, part) = stream.recv_into(Vec::with_capacity(len - received.len())).await;
        if count? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&part);
    }
    Ok(received)
}
