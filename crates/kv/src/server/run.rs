//! Starts a server, and ends it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use omniring::net::{TcpListener, TcpSocket, UnixListener};
use omniring::{Engine, Runtime};

use super::client::ClientInfo;
use super::connection::{self, Socket};
use super::{Core, Server};
use crate::clock;
use crate::config::Config;
use crate::store::Shard;

/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 511;

/// Why the server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The runtime: no such engine here.
    Runtime(omniring::StartError),
    /// A Unix socket cannot be listened on.
    ListenUnix(PathBuf, io::Error),
    /// An address cannot be listened on.
    Listen(SocketAddr, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Runtime(error) => error.fmt(f),
            StartError::ListenUnix(path, error) => {
                write!(f, "cannot listen on {}: {error}", path.display())
            }
            StartError::Listen(addr, error) => write!(f, "cannot listen on {addr}: {error}"),
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
        for index in 0..cores {
            let shard = Box::new(Shard::new(index));
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
        let path = server.config().unix_socket.clone();
        if !path.as_os_str().is_empty() {
            let listening = {
                let (server, path) = (server.clone(), path.clone());
                omniring::spawn_on(0, move || listen_unix(server, path))
            };
            match listening.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(StartError::ListenUnix(path, error)),
                Err(panicked) => panicked.resume(),
            }
        }
        eprintln!("Ready to accept connections");
        let stopped = server.until_stopped();
        stopped.await;
        for index in 0..cores {
            drop(omniring::spawn_on(index, || async { end().await }).await);
        }
        if !path.as_os_str().is_empty() {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(&path);
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

/// Accepts connections on a Unix socket, which replaces one that an earlier run has left.
async fn listen_unix(server: Arc<Server>, path: PathBuf) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    if std::fs::symlink_metadata(&path).is_ok_and(|old| old.file_type().is_socket()) {
        std::fs::remove_file(&path)?;
    }
    let listener = UnixListener::bind(&path).await?;
    let mode = server.config().unix_socket_mode;
    if mode != 0 {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    drop(omniring::spawn(accept_unix(server, listener, path)));
    Ok(())
}

async fn accept_unix(server: Arc<Server>, listener: UnixListener, path: PathBuf) {
    let mut incoming = listener.incoming();
    loop {
        let Ok(stream) = incoming.next().await else {
            omniring::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Some(core) = Core::current() else {
            return;
        };
        let stats = server.stats.core(core.index);
        stats.connections.add(1);
        if let Some(refusal) = refusal(&server, true) {
            stats.refused.add(1);
            drop(omniring::spawn(async move {
                // It may have gone already.
                drop(stream.send_all(refusal.as_bytes()).await);
            }));
            continue;
        }
        let info = ClientInfo {
            id: server.clients.next_id(),
            core: core.index,
            fd: stream.as_raw_fd(),
            addr: format!("{}:0", path.display()),
            local_addr: format!("{}:0", path.display()),
            is_unix: true,
            created_ms: clock::now_ms(),
            ..ClientInfo::default()
        };
        drop(omniring::spawn(connection::serve(core, Socket::Unix(stream), info)));
    }
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
        let stats = server.stats.core(core.index);
        stats.connections.add(1);
        let peer = stream.peer_addr();
        let is_local = peer.is_ok_and(|addr| addr.ip().to_canonical().is_loopback());
        if let Some(refusal) = refusal(&server, is_local) {
            stats.refused.add(1);
            drop(omniring::spawn(async move {
                // It may have gone already.
                drop(stream.send_all(refusal.as_bytes()).await);
            }));
            continue;
        }
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

/// Why a client, of this machine or not, is not served, if it is not.
fn refusal(server: &Server, is_local: bool) -> Option<&'static str> {
    let config = server.config();
    if server.clients.count() >= config.maxclients {
        return Some("-ERR max number of clients reached\r\n");
    }
    if config.protected_mode && !config.needs_password() && !is_local {
        return Some(
            "-DENIED This server is in protected mode and has no password, so it serves clients of this machine \
             only. To serve others, set a password (requirepass), or protected-mode to no if the network is trusted.\r\n",
        );
    }
    None
}

impl Core {
    /// Ends what a client has begun: its subscriptions, watches and transaction.
    pub(super) async fn leave(self: &Rc<Core>, client: &mut super::Client) {
        crate::command::pubsub::leave(&self.server, client);
        self.server.monitors.remove(client.info.id);
        if !client.watched.is_empty() {
            let mut keys = self.keys.borrow_mut();
            self.unwatch(&mut keys, client);
        }
    }
}
