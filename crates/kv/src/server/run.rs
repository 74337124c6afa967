//! Starts a server, and ends it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as SocketAddrUnix, UnixDatagram};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use omniring::net::{TcpStream, UnixListener, UnixStream};
use omniring::signal::{Signal, SignalKind};
use omniring::{Engine, Runtime};

use super::client::ClientInfo;
use super::connection::{self, Socket};
use super::persist::{self, LoadError};
use super::{Core, Server, open_files, tls};
use crate::clock;
use crate::config::Config;
use crate::error::Error;
use crate::report;
use crate::store::{Keys, Shard};

/// Why the server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The runtime: no such engine here.
    Runtime(omniring::StartError),
    /// An address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// A Unix socket cannot be listened on.
    ListenUnix(PathBuf, io::Error),
    /// What outlives the process cannot be loaded.
    Load(LoadError),
    /// TLS cannot be spoken as the settings want it.
    Tls(String),
    /// The limit of open files is too low.
    OpenFiles(String),
    /// What happens cannot be said in the file that is to have it.
    LogFile(PathBuf, io::Error),
    /// SIGTERM cannot be waited for.
    Signal(io::Error),
    /// At the end, what was not on the disk yet could not be written.
    Stop(Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Runtime(error) => error.fmt(f),
            StartError::Listen(addr, error) => write!(f, "cannot listen on {addr}: {error}"),
            StartError::ListenUnix(path, error) => {
                write!(f, "cannot listen on {}: {error}", path.display())
            }
            StartError::Load(error) => error.fmt(f),
            StartError::Tls(why) | StartError::OpenFiles(why) => f.write_str(why),
            StartError::LogFile(path, error) => write!(f, "logfile {}: {error}", path.display()),
            StartError::Signal(error) => write!(f, "cannot wait for signals: {error}"),
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
    let opened = report::begin(config.log_level, &config.log_file);
    opened.map_err(|error| StartError::LogFile(config.log_file.clone(), error))?;
    let tls = (config.tls_port != 0).then(|| tls::acceptor(&config));
    let tls = tls.transpose().map_err(StartError::Tls)?;
    let runtime =
        Runtime::builder().engine(engine).cores(cores).build().map_err(StartError::Runtime)?;
    let server = Arc::new(Server::new(config, None, cores));
    let fields: [(&str, &dyn fmt::Display); 5] = [
        ("version", &env!("CARGO_PKG_VERSION")),
        ("engine", &runtime.engine()),
        ("why", &runtime.engine_choice()),
        ("cores", &cores),
        ("pid", &std::process::id()),
    ];
    report::notice("starting", &fields);
    open_files::fit(&server).map_err(StartError::OpenFiles)?;
    if let Some(file) = file {
        server.set_config_file(file);
    }
    server.handle.set(runtime.handle()).unwrap_or_else(|_| unreachable!("it is set once"));
    runtime.block_on(async {
        let mut keys = Keys::new(cores);
        (0..cores).for_each(|index| keys.put(Box::new(Shard::new(index))));
        if server.config().ordered_keys {
            keys.keep_order();
        }
        let notices = persist::start(&server, &mut keys).await.map_err(StartError::Load)?;
        notices.iter().for_each(|text| report::notice(text, &[]));
        let count: usize =
            keys.shards().map(|shard| shard.dbs.iter().map(|db| db.len()).sum::<usize>()).sum();
        report::notice("keys are loaded", &[("keys", &count)]);
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
        let listening = server.begin_to_listen(tls).await;
        listening.map_err(|why| StartError::Listen(why.addr, why.error))?;
        let path = server.config().unix_socket.clone();
        if !path.as_os_str().is_empty() {
            let listening = listen_unix(server.clone(), &path).await;
            listening.map_err(|error| StartError::ListenUnix(path.clone(), error))?;
            report::notice("listening", &[("path", &path.display())]);
        }
        if needs_snapshot {
            server.begin_snapshot();
        }
        for kind in [SignalKind::TERMINATE, SignalKind::INTERRUPT] {
            let mut signal = Signal::new(kind).map_err(StartError::Signal)?;
            let server = server.clone();
            drop(omniring::spawn(async move {
                if signal.recv().await.is_ok() {
                    server.stop();
                }
            }));
        }
        report::notice("Ready to accept connections", &[]);
        tell_systemd("READY=1");
        server.until_stopped().await;
        tell_systemd("STOPPING=1");
        report::notice("stopping", &[("clients", &server.clients.count())]);
        for index in 0..cores {
            drop(omniring::spawn_on(index, || async { end().await }).await);
        }
        if !path.as_os_str().is_empty() {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(&path);
        }
        if let Some(log) = server.persistence.log() {
            log.stop().await.map_err(StartError::Stop)?;
            report::notice("the log is complete", &[("durable_lsn", &log.figures().durable)]);
        }
        report::notice("stopped", &[]);
        Ok(())
    })
}

/// Tells the service manager how the server is, where there is one that asked: sd_notify(3).
fn tell_systemd(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let addr = match path.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::from_abstract_name(name),
        _ => SocketAddrUnix::from_pathname(&path),
    };
    // Nothing depends on whether it hears this.
    let _ = addr.and_then(|addr| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr));
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

/// Accepts connections on a Unix socket, all of them on this core. A socket that nobody listens on is replaced.
async fn listen_unix(server: Arc<Server>, path: &Path) -> io::Result<()> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it"));
    }
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path).await?;
    let mode = server.config().unix_socket_mode;
    if mode != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    let shown = format!("{}:0", path.display());
    drop(omniring::spawn(async move {
        let mut incoming = listener.incoming();
        loop {
            let Ok(stream) = incoming.next().await else {
                rest().await;
                continue;
            };
            if let Some(refusal) = refusal(&server, None) {
                refuse(&server, Some(Socket::Unix(stream)), refusal);
                continue;
            }
            let info = ClientInfo {
                fd: stream.as_raw_fd(),
                addr: shown.clone(),
                local_addr: shown.clone(),
                is_unix: true,
                ..ClientInfo::default()
            };
            welcome(&server, Socket::Unix(stream), info);
        }
    }));
    Ok(())
}

/// Too many open files, or the peer has gone already: the next one may do better.
pub(super) async fn rest() {
    omniring::time::sleep(Duration::from_millis(10)).await;
}

/// Serves a connection that was accepted on this core.
pub(super) fn welcome(server: &Server, socket: Socket, info: ClientInfo) {
    let Some(core) = Core::current() else {
        return;
    };
    server.stats.core(core.index).connections.add(1);
    let info = ClientInfo {
        id: server.clients.next_id(),
        core: core.index,
        created_ms: clock::now_ms(),
        ..info
    };
    drop(omniring::spawn(connection::serve(core, socket, Arc::new(info))));
}

/// Tells a client that it is not served, and closes the connection.
pub(super) fn refuse(server: &Server, socket: Option<Socket>, refusal: &'static str) {
    let Some(core) = Core::current() else {
        return;
    };
    let stats = server.stats.core(core.index);
    stats.connections.add(1);
    stats.refused.add(1);
    server.say_refused(refusal);
    if let Some(socket) = socket {
        drop(omniring::spawn(async move { socket.refuse(refusal).await }));
    }
}

/// Why a client is not served, if it is not.
pub(super) fn refusal(server: &Server, stream: Option<&TcpStream>) -> Option<&'static str> {
    let config = server.config();
    let handshakes = server.handshakes.load(Ordering::Relaxed);
    if server.clients.count() + handshakes >= config.maxclients {
        return Some("-ERR max number of clients reached\r\n");
    }
    let is_loopback = |addr: SocketAddr| addr.ip().to_canonical().is_loopback();
    let is_local = stream.is_none_or(|stream| stream.peer_addr().is_ok_and(is_loopback));
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
        self.server.tracking.end(client);
        if !client.watched.is_empty() {
            let mut keys = self.keys.borrow_mut();
            self.server.unwatch(&mut keys, client);
        }
    }
}
