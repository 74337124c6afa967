//! Starts a server, and ends it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use omniring::net::{TcpListener, TcpSocket};
use omniring::{Engine, Runtime};

use super::client::ClientInfo;
use super::connection::{self, Socket};
use super::persist::{self, LoadError};
use super::{Core, Server};
use crate::clock;
use crate::config::Config;
use crate::error::Error;
use crate::store::{Keys, Shard};

/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 511;

/// Why the server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The runtime: no such engine here.
    Runtime(omniring::StartError),
    /// An address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// What outlives the process cannot be loaded.
    Load(LoadError),
    /// At the end, what was not on the disk yet could not be written.
    Stop(Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Runtime(error) => error.fmt(f),
            StartError::Listen(addr, error) => write!(f, "cannot listen on {addr}: {error}"),
            StartError::Load(error) => error.fmt(f),
            StartError::Stop(error) => write!(f, "the log could not be completed: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Runs a server until it is told to end.
pub fn run(
    config: Config,
    file: Option<PathBuf>,
    engine: Engine,
    cores: usize,
) -> Result<(), StartError> {
    let runtime =
        Runtime::builder().engine(engine).cores(cores).build().map_err(StartError::Runtime)?;
    let server = Arc::new(Server::new(config, None, cores));
    if let Some(file) = file {
        server.set_config_file(file);
    }
    server.handle.set(runtime.handle()).unwrap_or_else(|_| unreachable!("it is set once"));
    runtime.block_on(async {
        let mut keys = Keys::new(cores);
        (0..cores).for_each(|index| keys.put(Box::new(Shard::new(index))));
        let notices = persist::start(&server, &mut keys).await.map_err(StartError::Load)?;
        notices.iter().for_each(|notice| eprintln!("{notice}"));
        let needs_snapshot = persist::needs_snapshot(&server, &mut keys);
        for index in 0..cores {
            let shard = keys.take(index).expect("all shards are at hand");
            let server = server.clone();
            let started = omniring::spawn_on(index, move || async move {
                let core = Core::start(index, server, shard);
                drop(omniring::spawn(super::cron::run(core)));
            });
            drop(started.await);
        }
        for addr in server.config().addrs() {
            for index in 0..cores {
                let server = server.clone();
                let listening = omniring::spawn_on(index, move || listen(server, addr));
                match listening.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(StartError::Listen(addr, error)),
                    Err(panicked) => panicked.resume(),
                }
            }
        }
        if needs_snapshot {
            server.begin_snapshot();
        }
        eprintln!("Ready to accept connections");
        let stopped = server.until_stopped();
        stopped.await;
        for index in 0..cores {
            drop(omniring::spawn_on(index, || async { end().await }).await);
        }
        if let Some(log) = server.persistence.log() {
            log.stop().await.map_err(StartError::Stop)?;
        }
        Ok(())
    })
}

/// Closes the connections of the calling thread's core.
async fn end() {
    if let Some(core) = Core::current() {
        for conn in core.connections() {
            conn.flush();
            conn.close();
        }
        let until = Duration::from_millis(10);
        for _ in 0..20 {
            if core.connections().is_empty() {
                break;
            }
            omniring::time::sleep(until).await;
        }
    }
    Core::stop();
}

/// Accepts connections on this core: each core has a listener of its own, between which the kernel shares them.
async fn listen(server: Arc<Server>, addr: SocketAddr) -> io::Result<()> {
    let socket = TcpSocket::new_for(addr).await?;
    socket.set_reuse_address(true)?;
    if server.shard_count() > 1 {
        socket.set_reuse_port(true)?;
    }
    socket.bind(addr).await?;
    let listener = socket.listen(BACKLOG).await?;
    drop(omniring::spawn(accept(server, listener)));
    Ok(())
}

async fn accept(server: Arc<Server>, listener: TcpListener) {
    let mut incoming = listener.incoming();
    loop {
        let Ok(stream) = incoming.next().await else {
            // Too many open files, or the peer has gone already: the next one may do better.
            omniring::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Some(core) = Core::current() else {
            return;
        };
        server.stats.connections.fetch_add(1, Ordering::Relaxed);
        // Without it replies wait for the peer's acknowledgement; a peer that has gone shows in the next receive.
        let _ = stream.set_nodelay(true);
        let shown =
            |addr: io::Result<SocketAddr>| addr.map_or(String::new(), |addr| addr.to_string());
        let info = ClientInfo {
            id: server.clients.next_id(),
            core: core.index,
            fd: stream.as_raw_fd(),
            addr: shown(stream.peer_addr()),
            local_addr: shown(stream.local_addr()),
            created_ms: clock::now_ms(),
            ..ClientInfo::default()
        };
        drop(omniring::spawn(connection::serve(core, Socket::Tcp(stream), info)));
    }
}

impl Core {
    /// Ends what a client has begun: its subscriptions, watches and transaction.
    pub(super) async fn leave(self: &Rc<Core>, client: &mut super::Client) {
        crate::command::pubsub::leave(&self.server, client);
        if !client.watched.is_empty() {
            let mut keys = self.keys.borrow_mut();
            self.unwatch(&mut keys, client);
        }
    }
}
