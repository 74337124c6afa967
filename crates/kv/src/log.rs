//! The append-only log, snapshots, and how both are read again: what outlives the process.
//!
//! # How the server uses it
//! At the start, on core 0, with all shards in one [`Keys`](crate::store::Keys):
//!
//! ```text
//! let disk = Rc::new(Files::open(dir).await?);
//! let mut target = IntoKeys::new(&mut keys, &server);          // or another `Target`
//! let recovered = log::recover(&*disk, &mut target).await?;    // snapshot and log; notices in `recovered.notices`
//! let log = Log::start(disk, recovered, Options::default(), Box::new(|lsn| ...)).await?; // spawns the writer here
//! ```
//!
//! [`Log`] is a handle: cloned, sent to other cores, and a [`Journal`]. The hook is called on core 0 with each
//! LSN up to which the log has become durable. In use:
//!
//! - [`Journal::append`] by any core, [`Journal::refusal`] before a command that writes, [`Log::is_congested`]
//!   before reading more requests and [`Log::room`] to wait for what it says.
//! - [`Log::set_policy`] on `CONFIG SET appendfsync`, [`Log::stop`] at the end, on core 0.
//! - Snapshots: with all shards at hand on one core `Snapshot::begin(&mut keys, log.cut(), now_ms)`, and the shards
//!   go back; then each core calls [`save_slice`]`(shard, 0.5 ms)` on its shards until that is `Done`: at `More` it
//!   yields first, at `Full` it awaits [`Room::wait`] without the shard. Core 0 awaits
//!   [`Snapshot::write`]`(&disk)` meanwhile, after which the older files are gone, and tells [`Log::saved`]. Also
//!   after an error the slices go on to `Done`, quickly. [`Log::wants_snapshot`] tells when the log has grown
//!   enough.
//! - [`Shard::must_save_first`](crate::store::Shard::must_save_first), for each key of a command that writes, tells
//!   whether the command had better wait for a slice. Commands that remove all keys call
//!   [`save_all_first`](crate::store::Shard::save_all_first) on each shard before, those that swap databases
//!   [`swapped`](crate::store::Shard::swapped) after; all others are seen to by `Keys`.
//!
//! Without a server: [`check`] and [`repair`], on [`Files::open_unlocked`] and [`Files::open`].
//!
//! # Invariants
//! - *Nothing acknowledged is lost*: an LSN is published only when a sync that covers it has succeeded.
//! - *A record is whole or nothing*: its checksums cover all of it.
//! - *A failed sync proves nothing*: what was not durable before it is kept in memory until it has been written
//!   to another file, and synced there.
//! - *Synced bytes are never written again*: what is written together begins and ends at the disk's alignment.
//!
//! Deliberately not here: which commands are logged (`server::exec`), and Redis' own files (`rdb`).

mod check;
mod disk;
mod failure;
mod files;
mod into_keys;
mod pace;
mod piece;
mod record;
mod recovery;
mod room;
mod saver;
mod segment;
#[cfg(test)]
mod simulated;
mod snapshot;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use omniring::sync::Notify;

pub use check::{Found, Report, check, repair};
pub use disk::{BUF_LEN, Disk};
pub use failure::{Damage, Failure};
pub use files::Files;
pub use into_keys::IntoKeys;
pub use pace::{SPACING_SHORT, SYNCS_AT_ONCE_MAX};
pub use piece::{Owner, Piece};
pub use recovery::{Recovered, Target, read_again, recover};
pub use snapshot::{Room, Saved, Snapshot, save_slice};

use crate::error::Error;
use crate::server::{Journal, Logged};
use crate::store::Lsn;
use failure::at_file;
use writer::Writer;

/// Looks at a log's directory, or at one file of it, or repairs the directory: which is then as a server would need it,
/// without what is damaged and what came after that.
///
/// # Errors
/// Where it cannot be read or is in use, in one line.
pub async fn look(path: &Path, repairs: bool) -> Result<Report, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let is_dir = std::fs::metadata(path).map_err(|error| told(&error))?.is_dir();
    if repairs {
        if !is_dir {
            return Err(told(&"a repair takes the log's directory"));
        }
        let files = Files::open(path).await.map_err(|error| told(&error))?;
        return repair(&files).await.map_err(|failure| told(&failure));
    }
    let (dir, only) = match is_dir {
        true => (path, None),
        false => (path.parent().unwrap_or(Path::new(".")), path.file_name()),
    };
    let only = only.map(|name| name.to_string_lossy().into_owned());
    let files = Files::open_unlocked(dir).await.map_err(|error| told(&error))?;
    check(&files, only.as_deref()).await.map_err(|failure| told(&failure))
}

/// When records become durable: `appendfsync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Before the reply.
    Always,
    /// Each second.
    #[default]
    EverySecond,
    /// When the kernel likes; every half minute at the latest, since until then memory holds them too.
    No,
}

/// How the log is to be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When records become durable.
    pub policy: Policy,
    /// Bytes of a segment, for which room is made ahead. A record that is longer gets a longer one.
    pub segment_len: u64,
    /// Bytes in memory that are not durable, from which on the log is congested.
    pub congested_len: usize,
    /// The time from a failure to the next attempt to go on.
    pub retry: Duration,
    /// How many syncs may be under way at once that writes wait for, 1 to [`SYNCS_AT_ONCE_MAX`]. `None` finds out how many are worth it.
    pub syncs_at_once: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            policy: Policy::default(),
            segment_len: 64 << 20,
            congested_len: 64 << 20,
            retry: Duration::from_millis(500),
            syncs_at_once: None,
        }
    }
}

/// What was appended and is not yet being written.
#[derive(Debug, Default)]
struct Staging {
    /// Records, unsealed.
    bytes: Vec<u8>,
    /// The LSN of the last record.
    last: Lsn,
    /// Where in `bytes` a new segment is to begin, and the last LSN before it.
    cut: Option<(usize, Lsn)>,
    /// The writer waits until this record is here; 0 while it waits for nothing or for any.
    gathered: Lsn,
    /// Memory to be used next.
    empty: Vec<u8>,
    /// The writer is to finish.
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    staging: Mutex<Staging>,
    /// Something was staged, or said to the writer.
    wake: Notify,
    /// The last record that [`Journal::hurry`] was called for.
    hurried: AtomicU64,
    policy: AtomicU8,
    synced: AtomicU64,
    /// A sync is under way that writes wait for.
    syncing: AtomicBool,
    /// How long syncs take that writes wait for, in microseconds: a moving average.
    sync_us: AtomicU64,
    /// How many there may be at once.
    syncs_at_once: AtomicUsize,
    /// Bytes in memory that are not durable.
    pending: AtomicUsize,
    congested_len: usize,
    room: Notify,
    failed: AtomicBool,
    failure: Mutex<String>,
    /// Bytes of all records so far, of those up to the last cut, and of those up to the last snapshot.
    appended: AtomicU64,
    cut_at: AtomicU64,
    saved_at: AtomicU64,
    /// Bytes of the last snapshot.
    saved_len: AtomicU64,
    /// Times that records became durable, and that the disk failed.
    syncs: AtomicU64,
    failures: AtomicU64,
    /// The writer has finished.
    ended: AtomicBool,
    end: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The log that is being written. Clones are the same log.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

/// What a log has written.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Bytes of records appended, those that were read at the start among them.
    pub appended: u64,
    /// The last record appended.
    pub last: Lsn,
    /// The last record that is durable.
    pub durable: Lsn,
    /// Bytes that are not durable yet.
    pub pending: u64,
    /// Times that records became durable, since the start.
    pub syncs: u64,
    /// How long it takes to write records and sync them, in microseconds, where writes wait for that: of late.
    pub sync_us: u64,
    /// How many syncs may be under way at once that writes wait for.
    pub syncs_at_once: usize,
    /// Times that the disk failed, since the start.
    pub failures: u64,
}

/// Called on the log's core with each LSN up to which it has become durable. Gives how far apart the begins of syncs
/// are from now on at least, where something else is to go first.
pub type Hook = Box<dyn Fn(Lsn) -> Duration>;

impl Log {
    /// Begins a new segment where recovery has ended, and spawns the task that writes, on this core.
    ///
    /// # Errors
    /// Where that segment cannot be made.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn start<D: Disk>(
        disk: Rc<D>,
        recovered: Recovered,
        options: Options,
        hook: Hook,
    ) -> Result<Log, Failure> {
        let shared = Arc::new(Shared {
            staging: Mutex::new(Staging { last: recovered.last, ..Staging::default() }),
            wake: Notify::new(),
            hurried: AtomicU64::new(0),
            policy: AtomicU8::new(options.policy as u8),
            synced: AtomicU64::new(recovered.durable),
            syncing: AtomicBool::new(false),
            sync_us: AtomicU64::new(0),
            syncs_at_once: AtomicUsize::new(options.syncs_at_once.unwrap_or(1)),
            pending: AtomicUsize::new(0),
            congested_len: options.congested_len,
            room: Notify::new(),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            appended: AtomicU64::new(recovered.log_len),
            cut_at: AtomicU64::new(0),
            saved_at: AtomicU64::new(0),
            saved_len: AtomicU64::new(recovered.snapshot.map_or(0, |saved| saved.len)),
            syncs: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            end: Notify::new(),
        });
        let writer = Writer::start(disk, shared.clone(), recovered, options, hook).await?;
        drop(omniring::spawn_named("log writer", writer.run()));
        Ok(Log { shared })
    }

    /// Whether so much is waiting to become durable that no more requests should be read.
    pub fn is_congested(&self) -> bool {
        self.shared.pending.load(Ordering::Relaxed) > self.shared.congested_len
    }

    /// Waits until the log is not congested.
    pub async fn room(&self) {
        loop {
            let room = self.shared.room.notified();
            if !self.is_congested() {
                return;
            }
            room.await;
        }
    }

    /// Whether a sync is under way that writes wait for.
    pub fn is_syncing(&self) -> bool {
        self.shared.syncing.load(Ordering::Relaxed)
    }

    /// When records become durable from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.shared.policy.store(policy as u8, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }

    /// Notes that the snapshot which began at the last [`Log::cut`] is on the disk.
    pub fn saved(&self, saved: &Saved) {
        let shared = &self.shared;
        shared.saved_at.store(shared.cut_at.load(Ordering::Relaxed), Ordering::Relaxed);
        shared.saved_len.store(saved.len, Ordering::Relaxed);
    }

    /// Bytes of snapshot and log together, and of the snapshot alone: `aof_current_size`, `aof_base_size`.
    pub fn len(&self) -> (u64, u64) {
        let shared = &self.shared;
        let appended = shared.appended.load(Ordering::Relaxed);
        let saved = shared.saved_len.load(Ordering::Relaxed);
        (saved + appended.saturating_sub(shared.saved_at.load(Ordering::Relaxed)), saved)
    }

    /// What has been written so far.
    pub fn figures(&self) -> Figures {
        let shared = &self.shared;
        Figures {
            appended: shared.appended.load(Ordering::Relaxed),
            last: lock(&shared.staging).last,
            durable: shared.synced.load(Ordering::Acquire),
            pending: shared.pending.load(Ordering::Relaxed) as u64,
            syncs: shared.syncs.load(Ordering::Relaxed),
            sync_us: shared.sync_us.load(Ordering::Relaxed),
            syncs_at_once: shared.syncs_at_once.load(Ordering::Relaxed),
            failures: shared.failures.load(Ordering::Relaxed),
        }
    }

    /// Whether writes are refused, as the disk is full or has failed.
    pub fn is_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Whether snapshot and log have grown by `percentage` since the last snapshot, and to `min_len` bytes at
    /// least: `auto-aof-rewrite-percentage`, of which 0 means never, and `auto-aof-rewrite-min-size`.
    pub fn wants_snapshot(&self, percentage: u64, min_len: u64) -> bool {
        let (len, base) = self.len();
        let grown = (len - base).saturating_mul(100) / base.max(1);
        percentage != 0 && len >= min_len && grown >= percentage
    }

    /// Makes all that was appended durable and ends. Nothing may be appended any more.
    ///
    /// # Errors
    /// Where that cannot be done now: what is not durable is lost.
    pub async fn stop(&self) -> Result<(), Error> {
        lock(&self.shared.staging).stop = true;
        self.shared.wake.notify_one();
        loop {
            let end = self.shared.end.notified();
            if self.shared.ended.load(Ordering::Acquire) {
                break;
            }
            end.await;
        }
        self.refusal().map_or(Ok(()), Err)
    }

    /// Waits until all that was appended is durable, whatever the policy.
    ///
    /// # Errors
    /// Where the disk has failed.
    pub async fn flush(&self) -> Result<(), Error> {
        let policy = self.shared.policy.swap(Policy::Always as u8, Ordering::Relaxed);
        self.shared.wake.notify_one();
        let mut flushed = Ok(());
        while flushed.is_ok() && self.shared.pending.load(Ordering::Relaxed) > 0 {
            omniring::time::sleep(Duration::from_millis(1)).await;
            flushed = self.refusal().map_or(Ok(()), Err);
        }
        self.shared.policy.store(policy, Ordering::Relaxed);
        flushed
    }

    /// The last record so far, for a [`Snapshot`] that begins at this instant. A new segment begins after it.
    pub fn cut(&self) -> Lsn {
        let mut staging = lock(&self.shared.staging);
        let last = staging.last;
        staging.cut = Some((staging.bytes.len(), last));
        let appended = self.shared.appended.load(Ordering::Relaxed);
        self.shared.cut_at.store(appended, Ordering::Relaxed);
        drop(staging);
        self.shared.wake.notify_one();
        last
    }
}

impl Journal for Log {
    fn append(&self, commands: &[Logged<'_>]) -> Lsn {
        let mut staging = lock(&self.shared.staging);
        let before = staging.bytes.len();
        staging.last += 1;
        let lsn = staging.last;
        record::push(&mut staging.bytes, lsn, commands);
        let len = staging.bytes.len() - before;
        let wakes = if staging.gathered == 0 { before == 0 } else { lsn == staging.gathered };
        drop(staging);
        self.shared.pending.fetch_add(len, Ordering::Relaxed);
        self.shared.appended.fetch_add(len as u64, Ordering::Relaxed);
        if wakes {
            self.shared.wake.notify_one();
        }
        lsn
    }

    fn is_awaited(&self) -> bool {
        self.shared.policy() == Policy::Always
    }

    fn synced(&self) -> Lsn {
        self.shared.synced.load(Ordering::Acquire)
    }

    fn hurry(&self, lsn: Lsn) {
        if self.shared.hurried.fetch_max(lsn, Ordering::Relaxed) < lsn {
            self.shared.wake.notify_one();
        }
    }

    fn is_congested(&self) -> bool {
        Log::is_congested(self)
    }

    fn refusal(&self) -> Option<Error> {
        if !self.shared.failed.load(Ordering::Acquire) {
            return None;
        }
        let why = lock(&self.shared.failure);
        Some(Error::of(format!("MISCONF Errors writing to the AOF file: {why}")))
    }
}

impl Shared {
    fn policy(&self) -> Policy {
        match self.policy.load(Ordering::Relaxed) {
            0 => Policy::Always,
            1 => Policy::EverySecond,
            _ => Policy::No,
        }
    }
}

/// Records that were handed to the disk and may not be durable.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    last: Lsn,
}

type Batches = VecDeque<Batch>;
