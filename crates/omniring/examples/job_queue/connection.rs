//! One client: commands in, answers out, in order. What it has reserved goes back when it goes.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use omniring::net::TcpStream;
use omniring::sync::mpsc;
use omniring::time::{now, timeout_at};
use omniring::{JoinError, Sharded};

use crate::protocol::{Command, Parsed, parse};
use crate::racing::{Either, race};
use crate::shard::{Counts, Reserved, Shard};

/// Why a connection ends.
enum End {
    /// The client has gone, or wants to.
    Gone,
    Failed,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Gone
    }
}

/// A core that has ended has taken its tubes along.
impl From<JoinError> for End {
    fn from(_: JoinError) -> End {
        End::Failed
    }
}

struct Connection {
    stream: TcpStream,
    shards: Sharded<Shard>,
    core_count: usize,
    job_len_max: usize,
    /// Tells this client from all others.
    client: u64,
    /// Received and not yet understood.
    input: Vec<u8>,
    /// So many bytes that come next belong to a job that is too big.
    skip: usize,
    used: String,
    watched: BTreeSet<String>,
    reserved: HashSet<u64>,
}

/// Serves a client until it goes.
pub async fn serve(stream: TcpStream, shards: Sharded<Shard>, job_len_max: usize) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut connection = Connection {
        stream,
        shards,
        core_count: omniring::core_count(),
        job_len_max,
        client: NEXT.fetch_add(1, Relaxed),
        input: Vec::new(),
        skip: 0,
        used: "default".to_owned(),
        watched: BTreeSet::from(["default".to_owned()]),
        reserved: HashSet::new(),
    };
    let _ = connection.stream.set_nodelay(true);
    if let Err(End::Failed) = connection.run().await {
        eprintln!("job_queue: a client is sent away: a core has ended");
    }
    let client = connection.client;
    for id in std::mem::take(&mut connection.reserved) {
        let core = connection.core_of_job(id);
        let back = move |shard: &Shard| shard.release(id, client, None, Duration::ZERO);
        let _ = connection.shards.with(core, back).await;
    }
}

impl Connection {
    async fn run(&mut self) -> Result<(), End> {
        loop {
            let skipped = self.skip.min(self.input.len());
            self.input.drain(..skipped);
            self.skip -= skipped;
            match parse(&self.input, self.job_len_max) {
                Parsed::Complete { command, len, skip } => {
                    self.input.drain(..len);
                    self.skip = skip;
                    let mut answer = match command {
                        Ok(command) => self.answer(command).await?,
                        Err(refused) => refused.0.into(),
                    };
                    answer.extend(b"\r\n");
                    self.stream.send_all(answer).await.0?;
                }
                Parsed::Incomplete => self.receive().await?,
            }
        }
    }

    async fn receive(&mut self) -> Result<(), End> {
        let lease = self.stream.recv().await?;
        if lease.is_empty() {
            return Err(End::Gone);
        }
        self.input.extend_from_slice(&lease);
        Ok(())
    }

    /// While the client waits: no more than a command, or it could send without end.
    async fn receive_ahead(&mut self) -> Result<(), End> {
        if self.input.len() > self.job_len_max {
            std::future::pending::<()>().await;
        }
        self.receive().await
    }

    fn core_of_tube(&self, tube: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        tube.hash(&mut hasher);
        (hasher.finish() % self.core_count as u64) as usize
    }

    fn core_of_job(&self, id: u64) -> usize {
        (id % self.core_count as u64) as usize
    }

    async fn answer(&mut self, command: Command) -> Result<Vec<u8>, End> {
        let client = self.client;
        let text = match command {
            Command::Put { priority, delay, ttr, body } => {
                let tube = self.used.clone();
                let put = move |shard: &Shard| shard.put(tube, priority, delay, ttr, body);
                let id = self.shards.with(self.core_of_tube(&self.used), put).await?;
                format!("INSERTED {id}")
            }
            Command::Use(tube) => {
                self.used = tube;
                format!("USING {}", self.used)
            }
            Command::Reserve { timeout } => return self.reserve(timeout).await,
            Command::Delete(id) => {
                let delete = move |shard: &Shard| shard.delete(id, client);
                let is_done = self.shards.with(self.core_of_job(id), delete).await?;
                self.done_with(id, is_done, "DELETED")
            }
            Command::Release { id, priority, delay } => {
                let release = move |shard: &Shard| shard.release(id, client, Some(priority), delay);
                let is_done = self.shards.with(self.core_of_job(id), release).await?;
                self.done_with(id, is_done, "RELEASED")
            }
            Command::Touch(id) => {
                let touch = move |shard: &Shard| shard.touch(id, client);
                let is_done = self.shards.with(self.core_of_job(id), touch).await?;
                if is_done { "TOUCHED" } else { "NOT_FOUND" }.to_owned()
            }
            Command::Watch(tube) => {
                self.watched.insert(tube);
                format!("WATCHING {}", self.watched.len())
            }
            Command::Ignore(tube) => {
                if self.watched.len() == 1 && self.watched.contains(&tube) {
                    "NOT_IGNORED".to_owned()
                } else {
                    self.watched.remove(&tube);
                    format!("WATCHING {}", self.watched.len())
                }
            }
            Command::Stats => {
                let mut all = Counts::default();
                for counts in self.shards.with_all(|_, shard| shard.counts()).await {
                    all.add(counts?);
                }
                let mut text = stats(all);
                let _ = write!(text, "cores: {}\nversion: omniring\n", self.core_count);
                yaml(&text)
            }
            Command::StatsTube(tube) => {
                let (core, name) = (self.core_of_tube(&tube), tube.clone());
                match self.shards.with(core, move |shard| shard.counts_of(&name)).await? {
                    Some(counts) => yaml(&format!("name: \"{tube}\"\n{}", stats(counts))),
                    None => "NOT_FOUND".to_owned(),
                }
            }
            Command::ListTubes => {
                let mut names = BTreeSet::from(["default".to_owned()]);
                for tubes in self.shards.with_all(|_, shard| shard.tube_names()).await {
                    names.extend(tubes?);
                }
                list(&names)
            }
            Command::ListTubeUsed => format!("USING {}", self.used),
            Command::ListTubesWatched => list(&self.watched),
            Command::Quit => return Err(End::Gone),
        };
        Ok(text.into_bytes())
    }

    fn done_with(&mut self, id: u64, is_done: bool, answer: &str) -> String {
        if is_done {
            self.reserved.remove(&id);
        }
        if is_done { answer } else { "NOT_FOUND" }.to_owned()
    }

    /// Waits for a job of the tubes that are watched.
    async fn reserve(&mut self, timeout: Option<Duration>) -> Result<Vec<u8>, End> {
        let deadline = timeout.map(|timeout| now() + timeout);
        let mut by_core: Vec<Vec<String>> = vec![Vec::new(); self.core_count];
        for tube in &self.watched {
            by_core[self.core_of_tube(tube)].push(tube.clone());
        }
        // Dropped at the end, which tells the shards that nobody waits any more.
        let (waiter, mut told) = mpsc::channel(1);
        loop {
            for (core, tubes) in by_core.iter().enumerate().filter(|(_, tubes)| !tubes.is_empty()) {
                let (tubes, waiter, client) = (tubes.clone(), waiter.clone(), self.client);
                let reserve = move |shard: &Shard| shard.reserve(&tubes, client, &waiter);
                if let Some(Reserved { id, body }) = self.shards.with(core, reserve).await? {
                    self.reserved.insert(id);
                    let mut answer = format!("RESERVED {id} {}\r\n", body.len()).into_bytes();
                    answer.extend(body);
                    return Ok(answer);
                }
            }
            loop {
                let waiting = race(told.recv(), self.receive_ahead());
                let waited = match deadline {
                    None => Ok(waiting.await),
                    Some(deadline) => timeout_at(deadline, waiting).await,
                };
                match waited {
                    Err(_) => return Ok(b"TIMED_OUT".into()),
                    Ok(Either::First(_)) => break,
                    // The next command, which has to wait; or the client has gone.
                    Ok(Either::Second(received)) => received?,
                }
            }
        }
    }
}

fn stats(counts: Counts) -> String {
    let Counts { ready, delayed, reserved, total, deleted, timed_out } = counts;
    format!(
        "current-jobs-ready: {ready}\ncurrent-jobs-delayed: {delayed}\n\
         current-jobs-reserved: {reserved}\ntotal-jobs: {total}\ncmd-delete: {deleted}\n\
         job-timeouts: {timed_out}\n"
    )
}

/// With its length, as clients want it.
fn yaml(text: &str) -> String {
    let text = format!("---\n{text}");
    format!("OK {}\r\n{text}", text.len())
}

fn list(names: &BTreeSet<String>) -> String {
    yaml(&names.iter().fold(String::new(), |list, name| list + "- " + name + "\n"))
}
