//! The addresses that are listened on: opened at the start, and others while the server runs.
//!
//! Each core has a listener of its own at an address, between which the kernel shares the connections. Metrics are
//! core 0's.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use omniring::net::{Keepalive, TcpListener, TcpSocket};
use omniring::sync::{CancellationToken, Mutex, MutexGuard, oneshot};

use super::client::ClientInfo;
use super::connection::Socket;
use super::run::{refusal, refuse, rest, welcome};
use super::{Core, Server, metrics, tls};
use crate::command::settings;
use crate::config::Config;
use crate::error::Error;
use crate::report;

/// Connections that ask for metrics and wait to be accepted, at most.
const METRICS_BACKLOG: u32 = 16;

/// What is spoken at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Speaks {
    Commands,
    CommandsOverTls,
    Metrics,
}

/// An address, and what is spoken there.
type Place = (SocketAddr, Speaks);

/// The addresses that are listened on.
#[derive(Default)]
pub struct Listeners {
    tls: OnceLock<tls::Acceptor>,
    /// Locked for as long as it is being changed, with the settings that say so.
    open: Mutex<BTreeMap<Place, Open>>,
}

/// The listeners at an address.
struct Open {
    stop: CancellationToken,
    /// Each yields when a listener is gone.
    ends: Vec<oneshot::Receiver<()>>,
}

impl Open {
    async fn close(self) {
        self.stop.cancel();
        for end in self.ends {
            // It is dropped, not sent.
            let _ = end.await;
        }
    }
}

/// Why an address is not listened on.
#[derive(Debug)]
pub struct ListenError {
    pub addr: SocketAddr,
    pub error: io::Error,
}

impl Server {
    /// Listens where the settings say, with TLS where there is an acceptor for it.
    pub async fn begin_to_listen(
        self: &Arc<Server>,
        tls: Option<tls::Acceptor>,
    ) -> Result<(), ListenError> {
        if let Some(tls) = tls {
            self.listeners.tls.get_or_init(|| tls);
        }
        let mut open = self.listeners.open.lock().await;
        self.listen_as(&mut open, &self.config()).await
    }

    /// Changes settings, among them where is listened: all of them, or where an address is not to be had, none.
    pub async fn set_and_listen(self: &Arc<Server>, words: &[String]) -> Result<(), Error> {
        let mut open = self.listeners.open.lock().await;
        let before = self.config();
        let changed = settings::changed(self, &before, words)?;
        if let Err(ListenError { addr, error }) = self.listen_as(&mut open, &changed).await {
            report::warning("cannot listen", &[("addr", &addr), ("error", &error)]);
            let (name, why) = match changed.port == before.port {
                false => ("port", "Unable to listen on this port. Check server logs."),
                true => ("bind", "Failed to bind to specified addresses."),
            };
            return Err(settings::failed(name, why));
        }
        // Others may have been changed meanwhile.
        self.set_config(settings::changed(self, &self.config(), words)?);
        Ok(())
    }

    /// Opens and closes listeners so that they are those of the settings. Where that fails, they are as they were.
    async fn listen_as(
        self: &Arc<Server>,
        open: &mut MutexGuard<'_, BTreeMap<Place, Open>>,
        config: &Config,
    ) -> Result<(), ListenError> {
        let wanted = places(config);
        let new: Vec<Place> = wanted.iter().filter(|at| !open.contains_key(at)).copied().collect();
        let old: Vec<Place> = open.keys().filter(|at| !wanted.contains(at)).copied().collect();
        // Others stay open until the new ones are.
        let in_the_way = |old: &&Place| new.iter().any(|new| overlap(new.0, old.0));
        let first: Vec<Place> = old.iter().filter(in_the_way).copied().collect();
        for at in &first {
            close(open, *at).await;
        }
        let mut opened = Vec::new();
        for at in new {
            match self.open(at, !first.is_empty()).await {
                Ok(listening) => opened.push((at, listening)),
                Err(error) => {
                    for (_, listening) in opened {
                        listening.close().await;
                    }
                    for at in first {
                        match self.open(at, true).await {
                            Ok(listening) => drop(open.insert(at, listening)),
                            Err(error) => {
                                let fields: [(&str, &dyn fmt::Display); 2] =
                                    [("addr", &at.0), ("error", &error)];
                                report::warning("cannot listen as before", &fields);
                            }
                        }
                    }
                    return Err(ListenError { addr: at.0, error });
                }
            }
        }
        for ((addr, speaks), listening) in opened {
            match speaks {
                Speaks::Metrics => report::notice("listening for metrics", &[("addr", &addr)]),
                _ => {
                    let tls = speaks == Speaks::CommandsOverTls;
                    report::notice("listening", &[("addr", &addr), ("tls", &tls)]);
                }
            }
            open.insert((addr, speaks), listening);
        }
        for at in old {
            close(open, at).await;
        }
        Ok(())
    }

    /// Listens at an address. Where one was just closed that was in the way, the kernel may take a moment.
    async fn open(self: &Arc<Server>, at: Place, waits: bool) -> io::Result<Open> {
        const TRIES: u32 = 200;
        let mut left = if waits { TRIES } else { 0 };
        loop {
            match self.try_open(at).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && left > 0 => {
                    left -= 1;
                    omniring::time::sleep(Duration::from_millis(5)).await;
                }
                tried => return tried,
            }
        }
    }

    async fn try_open(self: &Arc<Server>, at: Place) -> io::Result<Open> {
        let cores = if at.1 == Speaks::Metrics { 1 } else { self.shard_count() };
        let mut open = Open { stop: CancellationToken::new(), ends: Vec::new() };
        for index in 0..cores {
            let (server, stop) = (self.clone(), open.stop.clone());
            let listening = omniring::spawn_on(index, move || listen(server, at, stop, index == 0));
            match listening.await {
                Ok(Ok(end)) => open.ends.push(end),
                Ok(Err(error)) => {
                    open.close().await;
                    return Err(error);
                }
                Err(panicked) => panicked.resume(),
            }
        }
        Ok(open)
    }
}

/// Where is to be listened.
fn places(config: &Config) -> Vec<Place> {
    let ports = [
        (config.port, Speaks::Commands),
        (config.tls_port, Speaks::CommandsOverTls),
        (config.metrics_port, Speaks::Metrics),
    ];
    let of_port = |(port, speaks)| config.addrs(port).into_iter().map(move |addr| (addr, speaks));
    ports.into_iter().flat_map(of_port).collect()
}

/// Whether two addresses are not to be had together: one stands for all of the machine.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a == b || a.ip().is_unspecified() || b.ip().is_unspecified())
}

async fn close(open: &mut BTreeMap<Place, Open>, at: Place) {
    if let Some(listening) = open.remove(&at) {
        listening.close().await;
        report::notice("no longer listening", &[("addr", &at.0)]);
    }
}

/// Listens on this core until told to stop; what is given back yields then.
///
/// The first core binds alone, so that an address which another process listens on is in use, also where that one would
/// share it; then it shares it with the other cores.
async fn listen(
    server: Arc<Server>,
    (addr, speaks): Place,
    stop: CancellationToken,
    is_first: bool,
) -> io::Result<oneshot::Receiver<()>> {
    let socket = TcpSocket::new_for(addr).await?;
    socket.set_reuse_address(true)?;
    if is_first {
        socket.bind(addr).await?;
    }
    if server.shard_count() > 1 && speaks != Speaks::Metrics {
        socket.set_reuse_port(true)?;
    }
    if !is_first {
        socket.bind(addr).await?;
    }
    let backlog = match speaks {
        Speaks::Metrics => METRICS_BACKLOG,
        _ => server.config().tcp_backlog,
    };
    let listener = socket.listen(backlog).await?;
    let (at_end, end) = oneshot::channel();
    drop(omniring::spawn(async move {
        match (speaks, Core::current()) {
            (Speaks::Metrics, Some(core)) => {
                stop.run_until_cancelled(metrics::serve(core, listener)).await;
            }
            _ => {
                let tls = server.listeners.tls.get().filter(|_| speaks == Speaks::CommandsOverTls);
                let tls = tls.cloned();
                stop.run_until_cancelled(accept(server, listener, tls)).await;
            }
        }
        drop(at_end);
    }));
    Ok(end)
}

/// Accepts connections on this core: with TLS where there is an acceptor.
async fn accept(server: Arc<Server>, listener: TcpListener, tls: Option<tls::Acceptor>) {
    let mut incoming = listener.incoming();
    loop {
        let Ok(stream) = incoming.next().await else {
            rest().await;
            continue;
        };
        if let Some(refusal) = refusal(&server, Some(&stream)) {
            // To a client that speaks TLS nothing can be said before a handshake, which it does not get.
            let socket = tls.is_none().then(|| Socket::Tcp(stream));
            refuse(&server, socket, refusal);
            continue;
        }
        // Without it replies wait for the peer's acknowledgement; a peer that has gone shows in the next receive.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_keepalive(keepalive(server.config().tcp_keepalive_s));
        let shown =
            |addr: io::Result<SocketAddr>| addr.map_or(String::new(), |addr| addr.to_string());
        let info = ClientInfo {
            fd: stream.as_raw_fd(),
            addr: shown(stream.peer_addr()),
            local_addr: shown(stream.local_addr()),
            ..ClientInfo::default()
        };
        let Some(tls) = tls.clone() else {
            welcome(&server, Socket::Tcp(stream), info);
            continue;
        };
        let server = server.clone();
        server.handshakes.fetch_add(1, Ordering::Relaxed);
        drop(omniring::spawn(async move {
            let accepted = tls.accept(stream).await;
            server.handshakes.fetch_sub(1, Ordering::Relaxed);
            match accepted {
                Ok(stream) => welcome(&server, Socket::Tls(stream), info),
                Err(error) => {
                    let fields: [(&str, &dyn fmt::Display); 2] =
                        [("addr", &info.addr), ("error", &error)];
                    report::verbose("no TLS with a client", &fields);
                }
            }
        }));
    }
}

/// Questions to a client that is silent for so many seconds, after three of which it counts as gone; 0 for none.
fn keepalive(seconds: u64) -> Option<Keepalive> {
    /// What the kernel takes.
    const SECONDS_MAX: u64 = 32_767;
    let idle = seconds.min(SECONDS_MAX);
    let each = Duration::from_secs((idle / 3).max(1));
    (seconds > 0).then(|| Keepalive::new(Duration::from_secs(idle), each, 3))
}
