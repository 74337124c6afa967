//! The load: clients that send batches of commands and wait for all the replies of one before they send the next.
//!
//! It knows how long each reply is, so that it only counts bytes: it costs little, and the server is what is busy.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// What clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads of keys that are there.
    Get,
    /// Writes over them.
    Set,
}

impl Op {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Op::Get => "GET",
            Op::Set => "SET",
        }
    }
}

/// Clients that do the same.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What they send.
    pub op: Op,
    /// How many there are.
    pub clients: usize,
    /// Commands of a batch.
    pub pipeline: usize,
}

/// The keys that are there.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// How many.
    pub count: u64,
    /// Bytes of each value.
    pub value: usize,
}

/// What a group has done.
#[derive(Debug, Default)]
pub struct Done {
    /// Commands answered.
    pub ops: u64,
    /// How long batches took, in microseconds, sorted.
    pub micros: Vec<u32>,
}

impl Done {
    /// Adds what was done at another time.
    pub fn add(&mut self, more: Done) {
        self.ops += more.ops;
        self.micros.extend(more.micros);
        self.micros.sort_unstable();
    }

    /// A percentile of the times of batches, in milliseconds.
    pub fn ms(&self, percent: f64) -> f64 {
        let last = self.micros.len().saturating_sub(1);
        let at = (last as f64 * percent / 100.0).round() as usize;
        self.micros
            .get(at)
            .map_or(f64::NAN, |&micros| f64::from(micros) / 1000.0)
    }
}

struct Client {
    group: usize,
    stream: TcpStream,
    request: Vec<u8>,
    sent: usize,
    missing: usize,
    began: Instant,
}

/// Writes a command for one key; keys have 16 bytes.
pub fn command(request: &mut Vec<u8>, op: Op, key: u64, value: &[u8]) {
    // Writing to memory does not fail.
    let _ = match op {
        Op::Get => write!(request, "*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n"),
        Op::Set => {
            write!(
                request,
                "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${}\r\n",
                value.len()
            )
        }
    };
    if op == Op::Set {
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    }
}

/// Bytes of the reply to a command.
fn reply_len(op: Op, keys: Keys) -> usize {
    match op {
        Op::Get => format!("${}\r\n", keys.value).len() + keys.value + 2,
        Op::Set => "+OK\r\n".len(),
    }
}

impl Client {
    fn begin(&mut self, group: Group, keys: Keys, value: &[u8]) -> Result<()> {
        self.request.clear();
        for _ in 0..group.pipeline {
            command(
                &mut self.request,
                group.op,
                fastrand::u64(..keys.count),
                value,
            );
        }
        self.sent = 0;
        self.missing = group.pipeline * reply_len(group.op, keys);
        self.began = Instant::now();
        self.send()
    }

    fn send(&mut self) -> Result<()> {
        while self.sent < self.request.len() {
            match self.stream.write(&self.request[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("sending"),
            }
        }
        Ok(())
    }

    /// Reads what there is; whether the batch is answered.
    fn recv(&mut self, buf: &mut [u8]) -> Result<bool> {
        loop {
            match self.stream.read(buf) {
                Ok(0) => bail!("the server has closed a connection"),
                Ok(len) => {
                    if buf[0] == b'-' {
                        bail!(
                            "the server: {}",
                            String::from_utf8_lossy(&buf[..len.min(200)])
                        );
                    }
                    self.missing = self
                        .missing
                        .checked_sub(len)
                        .context("more than was asked for")?;
                    if self.missing == 0 {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("receiving"),
            }
        }
    }
}

/// Lets groups of clients work for some time; `warm` has passed before anything counts, and then `counts` is called.
pub fn run(
    addr: SocketAddr,
    keys: Keys,
    groups: &[Group],
    warm: Duration,
    time: Duration,
    mut counts: impl FnMut(),
) -> Result<Vec<Done>> {
    let value = vec![b'v'; keys.value];
    let mut poll = Poll::new()?;
    let mut clients = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        for _ in 0..group.clients {
            let stream = std::net::TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let token = Token(clients.len());
            poll.registry().register(
                &mut stream,
                token,
                Interest::READABLE | Interest::WRITABLE,
            )?;
            clients.push(Client {
                group: index,
                stream,
                request: Vec::new(),
                sent: 0,
                missing: 0,
                began: Instant::now(),
            });
        }
    }
    for client in &mut clients {
        client.begin(groups[client.group], keys, &value)?;
    }
    let mut done: Vec<Done> = groups.iter().map(|_| Done::default()).collect();
    let mut events = Events::with_capacity(256);
    let mut buf = vec![0; 256 * 1024];
    let mut end = Instant::now() + warm;
    let mut is_counting = false;
    loop {
        poll.poll(&mut events, Some(Duration::from_millis(10)))?;
        for event in &events {
            let client = &mut clients[event.token().0];
            if client.sent < client.request.len() {
                client.send()?;
            }
            if client.recv(&mut buf)? {
                let group = groups[client.group];
                let done = &mut done[client.group];
                done.ops += group.pipeline as u64;
                done.micros.push(client.began.elapsed().as_micros() as u32);
                client.begin(group, keys, &value)?;
            }
        }
        if Instant::now() < end {
            continue;
        }
        if is_counting {
            break;
        }
        is_counting = true;
        done.iter_mut().for_each(|done| *done = Done::default());
        counts();
        end = Instant::now() + time;
    }
    done.iter_mut().for_each(|done| done.micros.sort_unstable());
    Ok(done)
}

/// The same, with a thread for each group: those who read do not wait for the load's own writers. All threads share
/// the load's core, where those who write have only what the others leave of it.
pub fn run_apart(
    addr: SocketAddr,
    keys: Keys,
    groups: &[Group],
    warm: Duration,
    time: Duration,
) -> Result<Vec<Done>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = groups
            .iter()
            .map(|&group| {
                scope.spawn(move || {
                    if group.op == Op::Set && groups.len() > 1 {
                        go_last();
                    }
                    run(addr, keys, &[group], warm, time, || ())
                })
            })
            .collect();
        let mut done = Vec::new();
        for thread in threads {
            done.extend(thread.join().expect("the load does not panic")?);
        }
        Ok(done)
    })
}

/// Puts this thread behind all others of its core. It is not the others that are put before everything, because the
/// kernel's threads, the disk's among them, would wait for those. `chrt` does what would need unsafe code here; where
/// there is none, times of the load's own threads are in what is measured.
fn go_last() {
    let thread = nix::unistd::gettid().to_string();
    let done = std::process::Command::new("chrt")
        .args(["--idle", "--pid", "0", &thread])
        .stderr(std::process::Stdio::null())
        .status();
    if !done.is_ok_and(|status| status.success()) {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| {
            println!("chrt cannot be used: readers share a core with writers evenly")
        });
    }
}

/// Lets redis-benchmark do as a group that has no pipeline, so many times, and gives its thousands a second.
pub fn redis_benchmark(
    program: &Path,
    addr: SocketAddr,
    keys: Keys,
    group: Group,
    times: u64,
) -> Result<f64> {
    let numbers = [
        ("-p", u64::from(addr.port())),
        ("-c", group.clients as u64),
        ("-n", times),
        ("-d", keys.value as u64),
        ("-r", keys.count),
    ];
    let done = Command::new(program)
        .args(["-t", group.op.name(), "--csv"])
        .args(numbers.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]))
        .output()
        .with_context(|| program.display().to_string())?;
    let text = String::from_utf8_lossy(&done.stdout);
    let rate = text.lines().rev().find_map(|line| {
        let rate = line.strip_prefix(&*format!("\"{}\",\"", group.op.name()))?;
        let rate = rate.split('"').next()?;
        rate.parse::<f64>().ok()
    });
    Ok(rate.with_context(|| format!("redis-benchmark: {text}"))? / 1000.0)
}

/// Writes all keys once, in order.
pub fn fill(addr: SocketAddr, keys: Keys, ttl: bool) -> Result<()> {
    const BATCH: u64 = 512;
    let value = vec![b'v'; keys.value];
    let mut stream = std::net::TcpStream::connect(addr)?;
    let (mut request, mut reply) = (Vec::new(), Vec::new());
    let mut key = 0;
    while key < keys.count {
        let end = (key + BATCH).min(keys.count);
        request.clear();
        for key in key..end {
            if ttl {
                write!(
                    request,
                    "*5\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${}\r\n{}\r\n$2\r\nEX\r\n$6\r\n100000\r\n",
                    value.len(),
                    "v".repeat(value.len())
                )?;
            } else {
                command(&mut request, Op::Set, key, &value);
            }
        }
        stream.write_all(&request)?;
        reply.resize((end - key) as usize * 5, 0);
        stream.read_exact(&mut reply)?;
        if reply.chunks(5).any(|reply| reply != b"+OK\r\n") {
            bail!(
                "SET: {}",
                String::from_utf8_lossy(&reply[..200.min(reply.len())])
            );
        }
        key = end;
    }
    Ok(())
}
