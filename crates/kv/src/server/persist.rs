//! What outlives the process: loading at the start, the log, snapshots, and Redis' files.
//!
//! With `appendonly yes` the directory `omniring` below `dir` has the log and its snapshots. Where it is new, what a
//! Redis has left in `dir` is loaded first: its append-only file, or else its dump. With `appendonly no` there is
//! only the dump, `dump.rdb`, which is loaded at the start and written by SAVE.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{Core, Server};
use crate::clock;
use crate::config::{AppendFsync, Config};
use crate::error::Error;
use crate::log::{self, Files, IntoKeys, Log, Policy, Room, Snapshot};
use crate::rdb;
use crate::report;
use crate::store::{Keys, Slice};

/// The directory of the log, below `dir`.
const LOG_DIR: &str = "omniring";

/// The dump, as Redis calls it.
const DUMP: &str = "dump.rdb";

/// By how many microseconds each sync of the log is to take longer, as on a slower disk: for measurements, so it has
/// no place among the settings.
const SYNC_DELAY_US: &str = "OMNIRING_KV_SYNC_DELAY_US";
const SYNC_DELAY_US_MAX: u64 = 60_000_000;
/// Fixes how many syncs there may be at once, for tests and measurements.
const SYNCS_AT_ONCE: &str = "OMNIRING_KV_SYNCS_AT_ONCE";

/// The time that a core spends on a snapshot before others have their turn.
const SLICE: Duration = Duration::from_micros(100);

/// Why what outlives the process cannot be loaded, or the log not begun.
#[derive(Debug)]
pub enum LoadError {
    /// The log's directory cannot be used.
    Directory(PathBuf, std::io::Error),
    /// The log or a snapshot.
    Log(PathBuf, log::Failure),
    /// A file of Redis'.
    Redis(rdb::Failure),
    /// A variable of the environment, its text, and the least and the greatest number that it may be.
    Variable(&'static str, String, u64, u64),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Directory(path, error) => write!(f, "{}: {error}", path.display()),
            LoadError::Log(path, error) => write!(
                f,
                "{}: {error}; `omniring kv check {}` says what is there, and what can be done",
                path.display(),
                path.display()
            ),
            LoadError::Redis(error) => error.fmt(f),
            LoadError::Variable(name, text, least, greatest) => {
                write!(f, "{name}={text}: it has to be a number from {least} to {greatest}")
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// What core 0 has of the log.
#[derive(Default)]
pub struct Persistence {
    log: std::sync::OnceLock<Log>,
    /// Whether a snapshot is being written.
    pub is_saving: AtomicBool,
    /// When the last snapshot or dump was complete, in seconds since 1970.
    pub saved_s: AtomicU64,
    /// Snapshots and dumps that were completed.
    pub snapshots: AtomicU64,
    /// Those that failed.
    pub snapshot_failures: AtomicU64,
    /// Whether the last one failed.
    pub has_failed: AtomicBool,
    /// Changes since then.
    pub changes: AtomicU64,
    /// The longest time that a core has spent on the last snapshot before others had their turn, in microseconds.
    pub longest_slice_us: AtomicU64,
    /// Whether what outlives the process is being loaded.
    pub is_loading: AtomicBool,
}

impl Persistence {
    /// The log, where there is one.
    pub fn log(&self) -> Option<&Log> {
        self.log.get()
    }
}

thread_local! {
    /// The log's directory, on core 0.
    static DISK: RefCell<Option<Rc<Files>>> = const { RefCell::new(None) };
}

fn policy(config: &Config) -> Policy {
    match config.appendfsync {
        AppendFsync::Always => Policy::Always,
        AppendFsync::EverySecond => Policy::EverySecond,
        AppendFsync::No => Policy::No,
    }
}

/// Loads what is there into the keys, whose shards are all at hand, and begins the log: on core 0. Gives what
/// somebody should know of.
pub async fn start(server: &Arc<Server>, keys: &mut Keys) -> Result<Vec<String>, LoadError> {
    let config = server.config();
    let persistence = &server.persistence;
    persistence.saved_s.store(clock::now_ms() / 1000, Ordering::Relaxed);
    keys.begin(0, clock::now_ms());
    if !config.appendonly {
        return load_dump(server, keys, &config.dir).await;
    }
    let delay_us = number_in(SYNC_DELAY_US, 0, SYNC_DELAY_US_MAX)?;
    let syncs_at_once = number_in(SYNCS_AT_ONCE, 1, log::SYNCS_AT_ONCE_MAX as u64)?;
    let syncs_at_once = syncs_at_once.map(|at_once| at_once as usize);
    let options =
        log::Options { policy: policy(&config), syncs_at_once, ..log::Options::default() };
    let path = config.dir.join(LOG_DIR);
    let files = Files::open(&path).await;
    let mut files = files.map_err(|error| LoadError::Directory(path.clone(), error))?;
    if let Some(delay_us) = delay_us.filter(|&delay_us| delay_us > 0) {
        let variable = SYNC_DELAY_US;
        let fields: [(&str, &dyn fmt::Display); 2] = [("us", &delay_us), ("because_of", &variable)];
        report::warning("each sync of the log is made slower, for measurements", &fields);
        files.set_sync_delay(Duration::from_micros(delay_us));
    }
    let disk = Rc::new(files);
    let failed = |failure| LoadError::Log(path.clone(), failure);
    let mut target = IntoKeys::new(keys, server);
    let recovered = log::recover(&*disk, &mut target).await.map_err(failed)?;
    drop(target);
    let saved_keys = recovered.snapshot.as_ref().map_or(0, |saved| saved.keys);
    let dir = path.display();
    let fields: [(&str, &dyn fmt::Display); 4] = [
        ("dir", &dir),
        ("snapshot_keys", &saved_keys),
        ("log_commands", &recovered.commands),
        ("last_lsn", &recovered.last),
    ];
    report::notice("snapshot and log loaded", &fields);
    let is_new = recovered.last == 0 && recovered.snapshot.is_none();
    let mut notices = recovered.notices.clone();
    if is_new {
        notices.extend(load_redis(server, keys, &config.dir).await?);
    }
    let hook: log::Hook = {
        let server = server.clone();
        Box::new(move |lsn| {
            let spacing = Core::current().map(|core| core.synced(lsn));
            for index in 1..server.shard_count() {
                server.send_to(index, move |core| {
                    core.synced(lsn);
                });
            }
            spacing.unwrap_or_default()
        })
    };
    let log = Log::start(disk.clone(), recovered, options, hook).await.map_err(failed)?;
    DISK.with(|place| *place.borrow_mut() = Some(disk));
    server.set_journal(Box::new(log.clone()));
    persistence.log.set(log).unwrap_or_else(|_| unreachable!("the log begins once"));
    Ok(notices)
}

/// The number in a variable of the environment, if it is set.
fn number_in(name: &'static str, least: u64, greatest: u64) -> Result<Option<u64>, LoadError> {
    let Some(text) = std::env::var_os(name) else {
        return Ok(None);
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    match number.filter(|number| (least..=greatest).contains(number)) {
        Some(number) => Ok(Some(number)),
        None => {
            let text = text.to_string_lossy().into_owned();
            Err(LoadError::Variable(name, text, least, greatest))
        }
    }
}

/// Whether the keys that were loaded come from Redis' files, and have to be in a snapshot before anything else.
pub fn needs_snapshot(server: &Server, keys: &mut Keys) -> bool {
    let is_empty = keys.shards().all(|shard| shard.dbs.iter().all(|db| db.is_empty()));
    let log = server.persistence.log();
    !is_empty && log.is_some_and(|log| log.len() == (0, 0))
}

async fn load_redis(
    server: &Server,
    keys: &mut Keys,
    dir: &Path,
) -> Result<Vec<String>, LoadError> {
    let found = rdb::find_append_only(dir, "appendonlydir", "appendonly.aof").await;
    let Some(files) = found.map_err(LoadError::Redis)? else {
        return load_dump(server, keys, dir).await;
    };
    let mut target = IntoKeys::new(keys, server);
    let imported = rdb::import_append_only(&files, &mut target).await;
    let (count, commands, mut notices) = imported.map_err(LoadError::Redis)?;
    notices.push(format!("loaded Redis' append-only file: {count} keys, {commands} commands"));
    Ok(notices)
}

async fn load_dump(server: &Server, keys: &mut Keys, dir: &Path) -> Result<Vec<String>, LoadError> {
    let path = dir.join(DUMP);
    if omniring::fs::metadata(&path).await.is_err() {
        return Ok(Vec::new());
    }
    let mut target = IntoKeys::new(keys, server);
    let (count, mut notices) = rdb::import(&path, &mut target).await.map_err(LoadError::Redis)?;
    notices.push(format!("loaded {}: {count} keys", path.display()));
    Ok(notices)
}

impl Core {
    /// Takes up the settings of the log.
    pub(super) fn apply_log_settings(&self, config: &Config) {
        if let Some(log) = self.server.persistence.log() {
            log.set_policy(policy(config));
        }
    }

    /// Writes all keys to the dump, while nothing else happens: `SAVE`.
    pub(super) async fn save_dump(self: &Rc<Core>) -> Result<(), Error> {
        let mut held = self.hold(&self.all_shards()).await;
        let path = self.config().dir.join(DUMP);
        let result = rdb::export(&mut held.keys, &path).await;
        self.note_saved(result.is_ok());
        match result {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::of(format!("ERR cannot write {}: {error}", path.display()))),
        }
    }

    /// Writes a snapshot while commands go on, after which the log before it goes: on core 0. Where there is no log,
    /// the dump.
    pub(super) async fn snapshot(self: &Rc<Core>) -> Result<(), Error> {
        let Some(log) = self.server.persistence.log() else {
            return self.save_dump().await;
        };
        let disk = DISK.with(|place| place.borrow().clone()).expect("core 0 has the log");
        let begin_ms = clock::now_ms();
        let mut held = self.hold(&self.all_shards()).await;
        self.server.persistence.longest_slice_us.store(0, Ordering::Relaxed);
        let begun = Snapshot::begin(&mut held.keys, log.cut(), clock::now_ms());
        drop(held);
        let Some(snapshot) = begun else {
            return Err(Error::new("ERR Background save already in progress"));
        };
        report::notice("snapshot begun", &[("lsn", &log.figures().last)]);
        for index in 0..self.server.shard_count() {
            let room = snapshot.room();
            self.server.send_to(index, move |core| drop(omniring::spawn(core.save_shard(room))));
        }
        let written = snapshot.write(&*disk).await;
        self.note_saved(written.is_ok());
        match written {
            Ok(saved) => {
                log.saved(&saved);
                let took = clock::now_ms().saturating_sub(begin_ms);
                let fields: [(&str, &dyn fmt::Display); 4] = [
                    ("lsn", &saved.lsn),
                    ("keys", &saved.keys),
                    ("bytes", &saved.len),
                    ("ms", &took),
                ];
                report::notice("snapshot written", &fields);
                Ok(())
            }
            Err(failure) => Err(Error::of(format!("ERR {failure}"))),
        }
    }

    /// Walks this core's shard for a snapshot.
    async fn save_shard(self: Rc<Core>, room: Room) {
        loop {
            let slice = {
                let mut keys = self.keys.borrow_mut();
                keys.has(self.index).then(|| self.save_slice(&mut keys))
            };
            let slice = match slice {
                Some(slice) => slice,
                None => self.save_slice(&mut self.hold(&[self.index]).await.keys),
            };
            match slice {
                Slice::Done => return,
                Slice::More => omniring::yield_now().await,
                Slice::Full => room.wait().await,
            }
        }
    }

    fn save_slice(&self, keys: &mut Keys) -> Slice {
        // What it works counts: where others have the processor meanwhile is no matter of the slice.
        let begun = omniring::os::thread_time();
        let slice = log::save_slice(keys.shard(self.index), SLICE);
        let took = (omniring::os::thread_time() - begun).as_micros() as u64;
        self.server.persistence.longest_slice_us.fetch_max(took, Ordering::Relaxed);
        slice
    }

    /// Writes the dump, removes all keys and loads it again: `DEBUG RELOAD`.
    pub(super) async fn reload(self: &Rc<Core>, save: bool, flush: bool) -> Result<(), Error> {
        let mut held = self.hold(&self.all_shards()).await;
        let path = self.config().dir.join(DUMP);
        let failed =
            |why: String| Error::of(format!("ERR Error trying to load the RDB dump: {why}"));
        if save {
            let written = rdb::export(&mut held.keys, &path).await;
            written.map_err(|error| failed(error.to_string()))?;
        }
        held.keys.begin(0, clock::now_ms());
        if flush {
            self.clear_all(&mut held.keys);
        }
        let mut target = IntoKeys::new(&mut held.keys, &self.server);
        let loaded = rdb::import(&path, &mut target).await;
        drop(target);
        self.config().apply(&mut held.keys);
        loaded.map(drop).map_err(|failure| failed(failure.to_string()))
    }

    /// Removes all keys and loads snapshot and log again: `DEBUG LOADAOF`, on core 0.
    pub(super) async fn reload_log(self: &Rc<Core>) -> Result<(), Error> {
        let Some(log) = self.server.persistence.log() else {
            return Err(Error::new("ERR there is no log: appendonly is no"));
        };
        let mut held = self.hold(&self.all_shards()).await;
        log.flush().await?;
        held.keys.begin(0, clock::now_ms());
        self.clear_all(&mut held.keys);
        let path = self.config().dir.join(LOG_DIR);
        let failed =
            |why: String| Error::of(format!("ERR Error trying to load the AOF files: {why}"));
        let files = Files::open_unlocked(&path).await.map_err(|error| failed(error.to_string()))?;
        let mut target = IntoKeys::new(&mut held.keys, &self.server);
        let read = log::read_again(&files, &mut target).await;
        drop(target);
        self.config().apply(&mut held.keys);
        read.map_err(|failure| failed(failure.to_string()))
    }

    /// Removes all keys, to load others: those who follow keys are told, as after a FLUSHALL.
    fn clear_all(&self, keys: &mut Keys) {
        for db in 0..crate::store::DBS {
            keys.clear(db);
        }
        if self.server.tracking.is_on() {
            let mut deliveries = Vec::new();
            self.invalidate_all(keys, &mut deliveries);
            self.deliver(deliveries);
        }
    }

    fn all_shards(&self) -> Vec<usize> {
        (0..self.server.shard_count()).collect()
    }

    fn note_saved(&self, is_good: bool) {
        let persistence = &self.server.persistence;
        persistence.has_failed.store(!is_good, Ordering::Relaxed);
        let count = if is_good { &persistence.snapshots } else { &persistence.snapshot_failures };
        count.fetch_add(1, Ordering::Relaxed);
        if is_good {
            persistence.saved_s.store(clock::now_ms() / 1000, Ordering::Relaxed);
            persistence.changes.store(0, Ordering::Relaxed);
        }
    }
}

impl Server {
    /// Begins a snapshot on core 0 unless one is being written; whether it did.
    pub fn begin_snapshot(&self) -> bool {
        if self.persistence.is_saving.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.send_to(0, |core| {
            drop(omniring::spawn(async move {
                if let Err(error) = core.snapshot().await {
                    report::warning("snapshot failed", &[("error", &error)]);
                }
                core.server.persistence.is_saving.store(false, Ordering::Release);
            }));
        });
        true
    }

    /// Whether a snapshot is due: the log has grown by enough, or enough was changed for one of the points of `save`.
    pub(super) fn is_snapshot_due(&self, config: &Config) -> bool {
        let persistence = &self.persistence;
        if let Some(log) = persistence.log()
            && log.wants_snapshot(config.rewrite_percentage, config.rewrite_min_size)
        {
            return true;
        }
        let changes = persistence.changes.load(Ordering::Relaxed);
        let since =
            (clock::now_ms() / 1000).saturating_sub(persistence.saved_s.load(Ordering::Relaxed));
        config.save.iter().any(|&(seconds, count)| since >= seconds && changes >= count)
    }
}
