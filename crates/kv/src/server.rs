//! Sockets, connections, and whose turn it is: the only part that waits.
//!
//! A request's way: `connection` reads it, `dispatch` decides whether the client may, on which shards and when,
//! `exec` calls the command and logs what it changed, `connection` sends the reply when the disk is up to what the
//! reply shows. `core` lends shards to other cores, `blocking` has those who wait for a key.

mod batch;
mod blocking;
mod client;
mod connection;
mod core;
mod cron;
mod dispatch;
mod evict;
mod exec;
mod feed;
mod journal;
mod latency;
mod later;
mod limits;
mod listeners;
pub mod local;
mod metrics;
mod monitor;
mod observe;
mod open_files;
mod output;
mod pause;
pub mod persist;
mod pubsub;
mod release;
mod run;
mod signal;
mod slowlog;
mod stats;
#[cfg_attr(not(feature = "tls"), path = "server/tls/none.rs")]
mod tls;
mod tracking;

pub use self::core::Core;
pub use blocking::Unblock;
pub use client::{Client, ClientInfo, Clients, Multi, Replies, state};
pub use evict::Memory;
pub use exec::{Record, call, follow};
pub use feed::Feed;
pub use journal::{Journal, Logged};
pub use latency::{Latency, Series};
pub use limits::OutputLimit;
pub use monitor::Monitors;
pub use open_files::{TooFew, make_room};
pub use pause::{Pause, PauseMode};
pub use pubsub::{Delivery, Pubsub, Subscriber, Topic, What};
pub use run::{StartError, run};
pub use slowlog::{Slow, Slowlog};
pub use stats::{CommandStats, CoreStats, Counter, Stats, Times};
pub use tracking::{Tracking, Tracks};

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use omniring::sync::Notify;

use crate::clock;
use crate::config::Config;
use crate::error::Error;
use crate::report;
use crate::store::Lsn;

/// How long a connection that is to be closed may take for each of its last sends.
const FAREWELL: Duration = Duration::from_secs(10);

/// What all cores share.
pub struct Server {
    config: RwLock<Arc<Config>>,
    /// Counts changes of the settings.
    pub config_version: AtomicU64,
    journal: OnceLock<Box<dyn Journal>>,
    /// What outlives the process.
    pub persistence: persist::Persistence,
    shards: usize,
    handle: OnceLock<omniring::Handle>,
    /// All clients.
    pub clients: Clients,
    /// All subscriptions.
    pub pubsub: Pubsub,
    /// Those who follow keys.
    pub tracking: Tracking,
    /// Those who follow the log.
    pub feed: Feed,
    /// Commands that are to wait.
    pub pause: Pause,
    /// Counters.
    pub stats: Stats,
    /// Commands that took long.
    pub slowlog: Slowlog,
    /// What took long, by kind.
    pub latency: Latency,
    /// Those who see all commands.
    pub monitors: Monitors,
    /// Memory in use.
    pub memory: Memory,
    /// Commands carried out in the last second.
    pub ops_per_second: AtomicU64,
    /// A number in hexadecimal that no other run of a server has.
    pub run_id: String,
    /// The same for the history of the data, which replicas would follow.
    pub replication_id: Mutex<String>,
    /// Connections whose handshake goes on.
    pub handshakes: AtomicUsize,
    /// When it was said last that a client is refused, in milliseconds since 1970, and how many were since.
    refused_said: Mutex<(u64, u64)>,
    /// Clients that wait for a key.
    pub blocked: AtomicUsize,
    /// Errors by their code.
    pub errors: Mutex<BTreeMap<String, u64>>,
    /// When it was started, in milliseconds since 1970.
    pub started_ms: u64,
    config_file: OnceLock<std::path::PathBuf>,
    listeners: listeners::Listeners,
    /// [`FAREWELL`], but in tests.
    farewell: Duration,
    /// Whether keys whose time has come are removed by themselves.
    pub is_expiry_active: AtomicBool,
    /// Whether nothing is done from time to time: `DEBUG PAUSE-CRON`.
    pub is_cron_paused: AtomicBool,
    stopping: Notify,
}

impl Server {
    /// A server with these settings, this log, and that many shards.
    pub fn new(config: Config, journal: Option<Box<dyn Journal>>, shards: usize) -> Server {
        Server {
            config: RwLock::new(Arc::new(config)),
            config_version: AtomicU64::new(0),
            journal: journal.map_or_else(OnceLock::new, OnceLock::from),
            persistence: persist::Persistence::default(),
            shards,
            handle: OnceLock::new(),
            clients: Clients::default(),
            pubsub: Pubsub::default(),
            tracking: Tracking::default(),
            feed: Feed::default(),
            pause: Pause::default(),
            stats: Stats::new(shards),
            slowlog: Slowlog::default(),
            latency: Latency::default(),
            monitors: Monitors::default(),
            memory: Memory::new(shards),
            ops_per_second: AtomicU64::new(0),
            run_id: random_id(),
            replication_id: Mutex::new(random_id()),
            handshakes: AtomicUsize::new(0),
            refused_said: Mutex::default(),
            blocked: AtomicUsize::new(0),
            errors: Mutex::default(),
            started_ms: clock::now_ms(),
            config_file: OnceLock::new(),
            listeners: listeners::Listeners::default(),
            farewell: FAREWELL,
            is_expiry_active: AtomicBool::new(true),
            is_cron_paused: AtomicBool::new(false),
            stopping: Notify::new(),
        }
    }

    /// The settings as they are now.
    pub fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Changes the settings. All cores take them up before their next command.
    pub fn set_config(&self, config: Config) {
        report::set_level(config.log_level);
        *self.config.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(config);
        self.config_version.fetch_add(1, Ordering::Release);
    }

    /// The log, where there is one.
    pub fn journal(&self) -> Option<&dyn Journal> {
        self.journal.get().map(|journal| &**journal)
    }

    /// Sets the log. Once.
    pub fn set_journal(&self, journal: Box<dyn Journal>) {
        let set = self.journal.set(journal);
        debug_assert!(set.is_ok(), "the log begins once");
    }

    /// Up to which record the disk is, as far as replies are concerned.
    pub fn synced(&self) -> Lsn {
        self.journal().map_or(Lsn::MAX, Journal::synced)
    }

    /// Shards, one for each core.
    pub fn shard_count(&self) -> usize {
        self.shards
    }

    /// Calls something on another core of the server, between two of its tasks.
    pub fn send_to(&self, core: usize, call: impl FnOnce(Rc<Core>) + Send + 'static) {
        let handle = self.handle.get().expect("the server runs");
        handle.send_to(core, move || {
            if let Some(core) = Core::current() {
                call(core);
            }
        });
    }

    /// The file that the settings were read from.
    pub fn config_file(&self) -> Option<&std::path::Path> {
        self.config_file.get().map(|path| &**path)
    }

    /// Notes the file that the settings were read from. Once.
    pub fn set_config_file(&self, path: std::path::PathBuf) {
        let set = self.config_file.set(path);
        debug_assert!(set.is_ok(), "the file is noted once");
    }

    /// Begins to count anew: at once on the calling core, a moment later on others.
    pub fn reset_stats(&self) {
        let here = Core::current().map(|core| core.index);
        for index in 0..self.shards {
            if here.is_none() || here == Some(index) {
                self.stats.core(index).reset();
            } else {
                self.send_to(index, |core| core.reset_stats());
            }
        }
        self.errors.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
        self.memory.reset_peak();
    }

    /// Says that a client was refused, once a second at most.
    fn say_refused(&self, refusal: &'static str) {
        const EACH_MS: u64 = 1000;
        let now_ms = clock::now_ms();
        let mut said = self.refused_said.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        said.1 += 1;
        if now_ms.saturating_sub(said.0) < EACH_MS {
            return;
        }
        let count = std::mem::replace(&mut *said, (now_ms, 0)).1;
        let why = refusal.trim_start_matches('-').trim_end();
        report::warning("clients refused", &[("count", &count), ("last_was_told", &why)]);
    }

    /// Closes a client's connection, on whichever core it is.
    pub fn kill(&self, client: &ClientInfo) {
        let id = client.id;
        client.set_state(state::KILLED, true);
        // It is gone as far as others can see, though its connection takes a moment to end.
        self.clients.remove(id);
        self.send_to(client.core, move |core| {
            if let Some(conn) = core.connection(id) {
                conn.kill();
            }
        });
    }

    /// Ends a client's wait for a key, on whichever core it is.
    pub fn unblock(&self, client: &ClientInfo, how: Unblock) {
        let id = client.id;
        self.send_to(client.core, move |core| {
            if let Some(conn) = core.connection(id) {
                conn.unblock_with(how);
            }
        });
    }

    /// Whether keys whose time has come are removed by themselves.
    pub fn set_active_expiry(&self, on: bool) {
        self.is_expiry_active.store(on, Ordering::Relaxed);
    }

    /// Ends the server.
    pub fn stop(&self) {
        self.stopping.notify_one();
    }

    /// Waits until it is to end.
    pub async fn until_stopped(&self) {
        self.stopping.notified().await;
    }

    /// Counts an error reply of a core, by its code: codes past a limit are counted in the total only.
    pub fn count_error(&self, core: usize, error: &Error) {
        const CODES_MAX: usize = 128;
        self.stats.core(core).errors.add(1);
        let mut errors = self.errors.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(count) = errors.get_mut(error.code()) {
            *count += 1;
        } else if errors.len() < CODES_MAX {
            errors.insert(error.code().to_owned(), 1);
        }
    }

    /// Waits until the pause has ended or changed.
    pub async fn until_unpaused(&self) {
        self.pause.ends().await;
    }
}

/// 160 bits by chance, in hexadecimal.
pub fn random_id() -> String {
    (0..40).map(|_| char::from(b"0123456789abcdef"[fastrand::usize(..16)])).collect()
}
