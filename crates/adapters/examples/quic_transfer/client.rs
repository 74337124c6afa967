//! The client: a connection, and as many streams on it as are wanted at once.

use std::cell::RefCell;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use omniring::TaskGroup;
use omniring::fs::File;
use omniring::net::lookup_host;
use omniring::time::timeout;
use omniring_adapters::quic;
use quinn::{Connection, ConnectionError, Endpoint, TransportConfig, VarInt};

use crate::body::{self, Partial};
use crate::progress::Progress;
use crate::protocol::{self, FAILED, GET, LIST, PUT};
use crate::tree::{self, Entry, Tree};
use crate::{Client, trust};

/// A connection to a server, which knows what it is called.
pub struct Session {
    endpoint: Endpoint,
    connection: Connection,
    server: String,
}

/// A file, and where it comes from or goes to.
struct Job {
    name: String,
    path: PathBuf,
    len: u64,
}

/// What became of all of them.
pub struct Outcome {
    pub failed: usize,
    pub summary: String,
}

impl Session {
    /// Connects to the first of the server's addresses that answers.
    pub async fn connect(arguments: &Client) -> Result<Session, Box<dyn Error>> {
        let server = &arguments.server;
        let (mut config, shown) = match (&arguments.fingerprint, &arguments.ca) {
            (Some(wanted), _) => {
                let (config, shown) = trust::client_of_fingerprint(*wanted)?;
                (config, Some((*wanted, shown)))
            }
            (None, Some(ca)) => (trust::client_of_roots(ca)?, None),
            (None, None) => unreachable!("clap asks for one of them"),
        };
        let time_max = Duration::from_secs(arguments.timeout.into());
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(time_max.try_into()?));
        transport.keep_alive_interval(Some(time_max.min(protocol::IDLE_TIME_MAX) / 3));
        config.transport_config(Arc::new(transport));
        let host = server.rsplit_once(':').map_or(server.as_str(), |(host, _)| host);
        let host = arguments.name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
        let mut last = format!("{server}: it has no address");
        for addr in lookup_host(server.as_str()).await.map_err(|error| named(server, &error))? {
            let endpoint = quic::client(local(addr))?;
            let connecting = endpoint.connect_with(config.clone(), addr, host);
            let connecting = connecting.map_err(|error| format!("{server}: {error}"))?;
            let error = match timeout(time_max, connecting).await {
                Ok(Ok(connection)) => {
                    return Ok(Session { endpoint, connection, server: server.clone() });
                }
                Ok(Err(ConnectionError::TimedOut)) | Err(_) => {
                    format!("no answer to QUIC within {time_max:?}; is a server there?")
                }
                Ok(Err(error)) => match &shown {
                    Some((wanted, shown)) if shown.get().is_some_and(|shown| shown != wanted) => {
                        let shown = shown.get().expect("it was looked at");
                        format!(
                            "its certificate is {shown}, and not {wanted} as --fingerprint says"
                        )
                    }
                    _ => error.to_string(),
                },
            };
            last = match server == &addr.to_string() {
                true => format!("{server}: {error}"),
                false => format!("{server} ({addr}): {error}"),
            };
            endpoint.close(VarInt::from_u32(0), b"");
        }
        Err(last.into())
    }

    /// Says goodbye.
    pub async fn end(self) {
        self.connection.close(VarInt::from_u32(0), b"done");
        let _ = timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }

    /// Sends files, and directories with what is in them.
    pub async fn send(
        self: &Rc<Self>,
        paths: &[PathBuf],
        arguments: &Client,
    ) -> Result<Outcome, Box<dyn Error>> {
        let mut jobs = Vec::new();
        for path in paths {
            let whole = path.canonicalize().map_err(|error| tree::at(path, error))?;
            let name = whole.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| format!("{}: it has no name", path.display()))?;
            let files = tree::files(&whole, name).await?;
            jobs.extend(files.into_iter().map(|Entry { name, path, len }| Job { name, path, len }));
        }
        let session = self.clone();
        let put = async move |job: &Job, progress: &Progress| session.put(job, progress).await;
        Ok(self.run(jobs, "sent", put, arguments).await)
    }

    /// Fetches files, and directories with what is in them.
    pub async fn get(
        self: &Rc<Self>,
        names: &[String],
        into: &Path,
        arguments: &Client,
    ) -> Result<Outcome, Box<dyn Error>> {
        let tree = Rc::new(Tree::of(into)?);
        let mut jobs = Vec::new();
        for name in names {
            let name = if name == "." { "" } else { name.trim_end_matches('/') };
            let shown = if name.is_empty() { "." } else { name };
            let files = self.list(name).await.map_err(|error| self.explain(shown, &error))?;
            jobs.extend(files);
        }
        let session = self.clone();
        let get = async move |job: &Job, progress: &Progress| {
            let path = tree.place(&job.name).await?;
            session.fetch(&job.name, &path, progress).await
        };
        Ok(self.run(jobs, "got", get, arguments).await)
    }

    /// Works off all jobs, some at once, and says what did not go well.
    async fn run(
        self: &Rc<Self>,
        jobs: Vec<Job>,
        done: &str,
        work: impl AsyncFn(&Job, &Progress) -> io::Result<u64> + 'static,
        arguments: &Client,
    ) -> Outcome {
        let (count, len) = (jobs.len(), jobs.iter().map(|job| job.len).sum());
        let progress = Rc::new(Progress::default());
        let show = (!arguments.quiet && io::stderr().is_terminal()).then(|| {
            let progress = progress.clone();
            omniring::spawn(async move { progress.show(count, len).await })
        });
        let jobs = Rc::new(RefCell::new(jobs.into_iter()));
        let work = Rc::new(work);
        let mut workers = TaskGroup::new();
        for _ in 0..arguments.parallel.min(count.try_into().unwrap_or(u16::MAX)) {
            let (session, jobs, work) = (self.clone(), jobs.clone(), work.clone());
            let progress = progress.clone();
            workers.spawn(async move {
                let (mut failed, mut resumed) = (0, 0);
                loop {
                    let next = jobs.borrow_mut().next();
                    let Some(job) = next else { return (failed, resumed) };
                    match work(&job, &progress).await {
                        Ok(start) => {
                            progress.finish_file();
                            resumed += start;
                        }
                        Err(error) => {
                            failed += 1;
                            eprintln!("quic_transfer: {}", session.explain(&job.name, &error));
                        }
                    }
                }
            });
        }
        let (mut failed, mut resumed) = (0, 0);
        while let Some(worker) = workers.join_next().await {
            let worker = worker.expect("it does not panic");
            failed += worker.0;
            resumed += worker.1;
        }
        if let Some(show) = show {
            show.abort();
            eprintln!();
        }
        let (files, bytes) = (progress.files(), progress.bytes());
        let summary = format!("{done} {files} files: {bytes} bytes, {resumed} were there already");
        Outcome { failed, summary }
    }

    async fn put(&self, job: &Job, progress: &Progress) -> io::Result<u64> {
        let file = File::open(&job.path).await?;
        let (mut send, mut recv) = self.connection.open_bi().await?;
        send.write_all(&[PUT]).await?;
        protocol::write_text(&mut send, &job.name).await?;
        protocol::read_answer(&mut recv).await?;
        let offer = protocol::Offer::read(&mut recv).await?;
        let start = match body::send(&file, &offer, &mut send, progress).await {
            Ok(start) => start,
            Err(error) => {
                // A server that stops the stream says why.
                if error.kind() == io::ErrorKind::ConnectionReset {
                    protocol::read_answer(&mut recv).await?;
                }
                let _ = send.reset(FAILED.into());
                return Err(error);
            }
        };
        send.finish()?;
        protocol::read_answer(&mut recv).await?;
        Ok(start)
    }

    async fn fetch(&self, name: &str, path: &Path, progress: &Progress) -> io::Result<u64> {
        let partial = Partial::open(path).await?;
        let asking = async {
            let (mut send, mut recv) = self.connection.open_bi().await?;
            send.write_all(&[GET]).await?;
            protocol::write_text(&mut send, name).await?;
            partial.offer().write(&mut send).await?;
            send.finish()?;
            protocol::read_answer(&mut recv).await?;
            Ok(recv)
        };
        match asking.await {
            Ok(mut recv) => partial.receive(&mut recv, progress).await,
            Err(error) => {
                partial.give_up().await;
                Err(error)
            }
        }
    }

    async fn list(&self, name: &str) -> io::Result<Vec<Job>> {
        let (mut send, mut recv) = self.connection.open_bi().await?;
        send.write_all(&[LIST]).await?;
        protocol::write_text(&mut send, name).await?;
        send.finish()?;
        protocol::read_answer(&mut recv).await?;
        let count = u32::from_be_bytes(protocol::read_array(&mut recv).await?);
        let mut jobs = Vec::new();
        for _ in 0..count {
            let name = protocol::read_text(&mut recv).await?;
            let len = protocol::read_u64(&mut recv).await?;
            jobs.push(Job { path: PathBuf::new(), name, len });
        }
        Ok(jobs)
    }

    /// An error with the file, and with what became of the connection.
    fn explain(&self, name: &str, error: &io::Error) -> String {
        match self.connection.close_reason() {
            Some(reason) => format!("{name}: the connection to {} ended: {reason}", self.server),
            None => format!("{name}: {error}"),
        }
    }
}

/// A resolver's error, which may have the name in it.
fn named(server: &str, error: &io::Error) -> String {
    let text = error.to_string();
    match text.contains(server) {
        true => text,
        false => format!("{server}: {text}"),
    }
}

/// Where to send from.
fn local(remote: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match (remote, remote.ip().is_loopback()) {
        (SocketAddr::V4(_), true) => Ipv4Addr::LOCALHOST.into(),
        (SocketAddr::V4(_), false) => Ipv4Addr::UNSPECIFIED.into(),
        (SocketAddr::V6(_), true) => Ipv6Addr::LOCALHOST.into(),
        (SocketAddr::V6(_), false) => Ipv6Addr::UNSPECIFIED.into(),
    };
    (ip, 0).into()
}
