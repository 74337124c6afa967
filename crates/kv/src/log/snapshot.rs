//! Snapshots: all keys as they were at one instant, in a file of their own. See `docs/kv-format.md`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disk::Disk;
use super::piece::Piece;
use super::recovery::{Listing, Open, Records};
use super::saver::{Exchange, ShardSaver};
use super::segment::{self, LOG, SNAPSHOT, SNAPSHOT_TEMPORARY, name_of};
use super::writer::write_bytes;
use super::{Damage, Failure, Target, at_file, record};
use crate::store::{Keys, Lsn, Shard, Slice};

/// What the last piece of a snapshot is followed by: this, and the number of keys.
const END: u8 = 255;
/// Bytes that are written before they are synced, so that the last sync does not take long.
const SYNC_LEN: u64 = 32 << 20;

/// A snapshot that has begun and is not written yet.
#[derive(Debug)]
pub struct Snapshot {
    /// The last record that is in it.
    pub lsn: Lsn,
    /// When it began, in milliseconds since 1970.
    pub time_ms: u64,
    exchange: Arc<Exchange>,
}

/// A snapshot that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The last record that is in it.
    pub lsn: Lsn,
    /// When it began, in milliseconds since 1970.
    pub time_ms: u64,
    /// Its keys.
    pub keys: u64,
    /// Its bytes.
    pub len: u64,
}

/// Waits until a walk that found too much waiting for the disk can go on.
#[derive(Clone, Debug)]
pub struct Room(Arc<Exchange>);

impl Room {
    /// Waits until it can.
    pub async fn wait(&self) {
        loop {
            let room = self.0.room.notified();
            if !self.0.is_full() {
                return;
            }
            room.await;
        }
    }
}

impl Snapshot {
    /// Begins a snapshot of the keys as they are now, with all shards at hand. `lsn` is the last record that they
    /// are the outcome of: [`Log::cut`](super::Log::cut), where there is a log. `None` while another one is being
    /// written.
    ///
    /// # Panics
    /// Where a shard is not at hand.
    pub fn begin(keys: &mut Keys, lsn: Lsn, now_ms: u64) -> Option<Snapshot> {
        if keys.shards().any(|shard| shard.saver.is_some()) {
            return None;
        }
        let exchange = Arc::new(Exchange::default());
        let count = keys.shard_count();
        exchange.left.store(count, Ordering::Release);
        for index in 0..count {
            let shard = keys.shard(index);
            let saver = ShardSaver::begin(exchange.clone(), &mut shard.dbs);
            shard.saver = Some(Box::new(saver));
        }
        Some(Snapshot { lsn, time_ms: now_ms, exchange })
    }

    /// What the walks wait for when they are told that it is full.
    pub fn room(&self) -> Room {
        Room(self.exchange.clone())
    }

    /// Writes what the shards' savers give, to a file that gets its name when all is durable; then removes older
    /// snapshots and segments.
    ///
    /// # Errors
    /// Where the disk fails, or a shard ended before it was saved. Nothing has changed then: the older files still
    /// tell everything. The savers have to go on to their end all the same.
    pub async fn write<D: Disk>(self, disk: &D) -> Result<Saved, Failure> {
        let name = name_of(self.lsn, SNAPSHOT);
        let temporary = name_of(self.lsn, SNAPSHOT_TEMPORARY);
        let written = self.write_to(disk, &temporary, &name).await;
        match written {
            Ok(saved) => {
                clean(disk, self.lsn).await?;
                Ok(saved)
            }
            Err(error) => {
                self.exchange.fail();
                // It goes at the next start otherwise.
                let _ = disk.remove(&temporary).await;
                at_file(&name, Err(error))
            }
        }
    }

    async fn write_to<D: Disk>(&self, disk: &D, temporary: &str, name: &str) -> io::Result<Saved> {
        let file = disk.create(temporary, 0).await?;
        let start = disk.alignment().max(segment::HEADER_LEN) as u32;
        let header = segment::Header::of_snapshot(start, self.lsn, self.time_ms);
        let seed = header.seed();
        write_bytes(disk, &file, &header.to_bytes(), 0, false).await?;
        let (mut at, mut synced, mut number) = (u64::from(start), 0, 0);
        let mut is_end = false;
        while !is_end {
            let wake = self.exchange.wake.notified();
            // Asked for first: a saver that is done has handed over everything.
            let is_done = self.exchange.left.load(Ordering::Acquire) == 0;
            let payload = match self.exchange.pop() {
                Some(pieces) => pieces,
                None if self.exchange.failed.load(Ordering::Acquire) => {
                    return Err(io::Error::other("a shard ended before it was saved"));
                }
                None if is_done => {
                    is_end = true;
                    let mut end = vec![END];
                    record::write_varint(&mut end, self.exchange.keys.load(Ordering::Relaxed));
                    end
                }
                None => {
                    wake.await;
                    continue;
                }
            };
            if payload.is_empty() {
                continue;
            }
            number += 1;
            let mut block = Vec::with_capacity(payload.len() + disk.alignment() * 2);
            record::push_payload(&mut block, number, &payload);
            record::pad(&mut block, disk.alignment(), number);
            record::seal(&mut block, seed, 0);
            write_bytes(disk, &file, &block, at, is_end).await?;
            at += block.len() as u64;
            if at - synced >= SYNC_LEN {
                disk.sync(&file).await?;
                synced = at;
            }
        }
        disk.rename(temporary, name).await?;
        disk.sync_dir().await?;
        let keys = self.exchange.keys.load(Ordering::Relaxed);
        Ok(Saved { lsn: self.lsn, time_ms: self.time_ms, keys, len: at })
    }
}

/// Saves some keys of a shard, about as many as can be done in that time; large values go in pieces. When it says
/// that it is done the shard has no part in the snapshot any more.
pub fn save_slice(shard: &mut Shard, time: Duration) -> Slice {
    let Some(mut saver) = shard.saver.take() else {
        return Slice::Done;
    };
    let slice = saver.slice(&mut shard.dbs, time);
    if slice != Slice::Done {
        shard.saver = Some(saver);
    }
    slice
}

/// Removes what a snapshot of this LSN makes needless.
pub(super) async fn clean<D: Disk>(disk: &D, lsn: Lsn) -> Result<(), Failure> {
    let listing = Listing::read(disk).await?;
    let mut needless = Vec::new();
    let mut logs = Vec::new();
    for &number in &listing.logs {
        logs.push((number, Open::open(disk, number, LOG).await?.header.first));
    }
    let from = logs.iter().rposition(|&(_, first)| first <= lsn + 1).unwrap_or(0);
    // The oldest goes first, so that those that are left follow on each other at any time.
    needless.extend(logs[..from].iter().map(|&(number, _)| name_of(number, LOG)));
    let older = listing.snapshots.iter().filter(|&&snapshot| snapshot < lsn);
    needless.extend(older.map(|&snapshot| name_of(snapshot, SNAPSHOT)));
    for name in &needless {
        at_file(name, disk.remove(name).await)?;
    }
    if !needless.is_empty() {
        at_file("the directory", disk.sync_dir().await)?;
    }
    Ok(())
}

/// Reads a snapshot.
pub(super) async fn read<D: Disk>(
    disk: &D,
    number: u64,
    target: &mut impl Target,
) -> Result<Saved, Failure> {
    let open = Open::open(disk, number, SNAPSHOT).await?;
    let mut blocks = Records::new(disk, &open).await?;
    let mut saved = Saved { lsn: number, time_ms: open.header.base, keys: 0, len: 0 };
    let mut last = 0;
    loop {
        let offset = blocks.offset();
        let damaged = |why: &str| Failure::Damaged(Damage::new(&open.name, offset, why));
        let Some((header, block)) = blocks.next(last).await? else {
            return Err(damaged("a block is damaged or missing, and a snapshot is whole or none"));
        };
        if header.padding {
            continue;
        }
        if header.lsn != last + 1 {
            return Err(damaged("the blocks are not in order"));
        }
        last = header.lsn;
        let mut rest = &block[record::HEADER_LEN..record::HEADER_LEN + header.len as usize];
        if let [END, count @ ..] = rest {
            let mut count = count;
            if record::read_varint(&mut count) != Some(saved.keys) {
                return Err(damaged("it has another number of keys than it says"));
            }
            saved.len = blocks.offset();
            return Ok(saved);
        }
        while !rest.is_empty() {
            let Some(piece) = Piece::take(&mut rest) else {
                return Err(damaged("the block's checksums hold, but what it has is no key"));
            };
            saved.keys += u64::from(piece.is_last);
            target.piece(&piece).map_err(|error| {
                let key = piece.owner.key.escape_ascii();
                let why = format!("the key \"{key}\" is refused: {error}");
                Failure::Refused { at: Damage::new(&open.name, offset, why) }
            })?;
        }
    }
}
