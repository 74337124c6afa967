//! The task that writes the log: takes all that has gathered, writes it as one piece, and syncs.
//!
//! `held` are the batches that were handed to the disk and are not durable. When anything fails they are written
//! once more, to a new segment whose first record is the first of them; until that has succeeded nothing else is
//! written. So no byte counts whose fate is unknown.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use omniring::JoinHandle;

use super::disk::{BUF_LEN, Disk};
use super::segment::{self, LOG, TEMPORARY, name_of};
use super::{
    Batch, Batches, Failure, Hook, Options, Policy, Recovered, Shared, at_file, lock, record,
};
use crate::report;
use crate::store::Lsn;

/// Bytes that are synced before the time has come, so that memory does not hold many.
const HELD_LEN_MAX: usize = 16 << 20;
/// Bytes of the first segment of a process, for whose room the start waits.
const FIRST_LEN: u64 = 4 << 20;
/// How many times as long as it should be a segment gets before the writer waits for the next one's file.
const OVERLONG: u64 = 4;
/// Memory of a batch that is kept for the next ones, in bytes.
const KEPT_LEN_MAX: usize = 4 << 20;

/// The segment that is being written.
struct Current<F> {
    file: F,
    number: u64,
    /// Where the next batch goes.
    at: u64,
    /// The LSN of its first record.
    first: Lsn,
    /// Bytes for which room was made ahead.
    len: u64,
}

/// A file that becomes a segment, and its name until then.
type Spare<F> = (String, io::Result<F>);

pub(super) struct Writer<D: Disk> {
    disk: Rc<D>,
    shared: Arc<Shared>,
    options: Options,
    hook: Hook,
    current: Option<Current<D::File>>,
    spare: Option<JoinHandle<Spare<D::File>>>,
    next_number: u64,
    held: Batches,
    held_len: usize,
    /// Up to which record the log is durable, and was handed to the disk.
    durable: Lsn,
    written: Lsn,
    /// A new segment is to be begun as soon as there is a file for it.
    begin: bool,
    /// Ends when what was written is to be synced.
    timer: Option<Pin<Box<dyn Future<Output = ()>>>>,
    gather: Gather,
}

/// Whether it is worth waiting for more records before a sync, and how long.
///
/// Clients that have waited for a sync write again when it is over. A writer that began the next sync with what has come
/// meanwhile would have half of them in each, and each would wait for two.
#[derive(Debug, Default)]
struct Gather {
    /// How long a write with its sync takes: a moving average.
    time: Duration,
    /// The record that there is when all whom the last sync has answered have written again, and when half of them have.
    wanted: Lsn,
    half: Lsn,
    /// A sync has just ended.
    is_due: bool,
    /// Syncs before which nothing is waited for, as it was in vain.
    rest: u32,
}

impl Gather {
    /// The part of the time of a sync that it may take.
    const SHARE: u32 = 2;
    /// Syncs that go at once after one that was waited for in vain.
    const REST: u32 = 8;

    /// A sync has taken so long and made so many records durable; `last` is the last that there is.
    fn synced(&mut self, time: Duration, records: u64, last: Lsn) {
        self.time = if self.time.is_zero() { time } else { (self.time * 7 + time) / 8 };
        self.wanted = last + records;
        self.half = last + records.div_ceil(2);
        self.is_due = self.rest == 0;
        self.rest = self.rest.saturating_sub(1);
    }

    /// How long to wait, if at all, before the next sync.
    fn take_time(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.is_due).then(|| self.time / Self::SHARE)
    }

    /// The wait is over, and this is the last record that there is.
    fn observe(&mut self, last: Lsn) {
        if last < self.half {
            self.rest = Self::REST;
        }
    }
}

/// What there is to do.
enum Work {
    Write { batch: Batch, then_begin: bool },
    Sync,
    Stop,
}

impl<D: Disk> Writer<D> {
    pub(super) async fn start(
        disk: Rc<D>,
        shared: Arc<Shared>,
        recovered: Recovered,
        options: Options,
        hook: Hook,
    ) -> Result<Writer<D>, Failure> {
        let mut writer = Writer {
            disk,
            shared,
            options,
            hook,
            current: None,
            spare: None,
            next_number: recovered.next_number,
            held: Batches::new(),
            held_len: 0,
            durable: recovered.durable,
            written: recovered.last,
            begin: false,
            timer: None,
            gather: Gather::default(),
        };
        if !recovered.tail.is_empty() {
            writer.shared.pending.fetch_add(recovered.tail.len(), Ordering::Relaxed);
            writer.hold(Batch { bytes: recovered.tail, last: recovered.last });
        }
        writer.begin_segment().await?;
        writer.publish();
        if let Some((name, len)) = recovered.end {
            // The room that was made ahead and is not used. Not needed for anything but that.
            let _ = writer.disk.cut(&name, len).await;
        }
        Ok(writer)
    }

    pub(super) async fn run(mut self) {
        let sound = loop {
            let done = match self.next().await {
                Work::Write { batch, then_begin } => self.write(batch, then_begin).await,
                Work::Sync => self.sync().await,
                Work::Stop => break true,
            };
            if let Err(failure) = done
                && !self.begin_again(failure).await
            {
                break false;
            }
        };
        // After a failure a sync that succeeds would prove nothing.
        if sound && self.sync().await.is_ok() {
            self.close().await;
        } else {
            self.shared.failed.store(true, Ordering::Release);
        }
        if let Some(spare) = self.spare.take() {
            spare.abort();
            // It goes at the next start otherwise.
            let _ = self.disk.remove(&name_of(self.next_number, TEMPORARY)).await;
        }
        self.shared.ended.store(true, Ordering::Release);
        self.shared.end.notify_waiters();
    }

    /// Waits a moment for more records of those who have written before, if it is worth it.
    async fn gather(&mut self) {
        let Some(time) = self.gather.take_time() else {
            return;
        };
        let wanted = self.gather.wanted;
        let mut pause = std::pin::pin!(self.disk.pause(time));
        let last = loop {
            if self.has_gathered(wanted) {
                break wanted;
            }
            let mut wake = std::pin::pin!(self.shared.wake.notified());
            let woken = poll_fn(|cx| match wake.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending => pause.as_mut().poll(cx).map(|()| false),
            });
            if !woken.await {
                let mut staging = lock(&self.shared.staging);
                staging.gathered = 0;
                break staging.last;
            }
        };
        self.gather.observe(last);
    }

    /// Whether the record is there, or something else is to be done. If not, whoever appends it wakes the writer.
    fn has_gathered(&self, wanted: Lsn) -> bool {
        let mut staging = lock(&self.shared.staging);
        let is_over = staging.last >= wanted || staging.cut.is_some() || staging.stop;
        staging.gathered = if is_over { 0 } else { wanted };
        is_over
    }

    /// Waits for something to do.
    async fn next(&mut self) -> Work {
        loop {
            if !lock(&self.shared.staging).bytes.is_empty() {
                self.gather().await;
            }
            if let Some(work) = self.staged() {
                return work;
            }
            let mut wake = std::pin::pin!(self.shared.wake.notified());
            let timer = &mut self.timer;
            let due = poll_fn(|cx| {
                if timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
                    *timer = None;
                    return Poll::Ready(true);
                }
                wake.as_mut().poll(cx).map(|()| false)
            });
            if due.await {
                return Work::Sync;
            }
        }
    }

    fn staged(&mut self) -> Option<Work> {
        let mut staging = lock(&self.shared.staging);
        let cut = staging.cut.take();
        if staging.bytes.is_empty() && cut.is_none() {
            if self.written != self.durable && self.shared.policy() == Policy::Always {
                return Some(Work::Sync);
            }
            return staging.stop.then_some(Work::Stop);
        }
        let (at, last) = cut.unwrap_or((staging.bytes.len(), staging.last));
        let mut empty = std::mem::take(&mut staging.empty);
        empty.extend_from_slice(&staging.bytes[at..]);
        staging.bytes.truncate(at);
        let bytes = std::mem::replace(&mut staging.bytes, empty);
        Some(Work::Write { batch: Batch { bytes, last }, then_begin: cut.is_some() })
    }

    /// Hands a batch to the disk, as the policy wants it.
    async fn write(&mut self, batch: Batch, then_begin: bool) -> Result<(), Failure> {
        self.written = batch.last;
        if !batch.bytes.is_empty() {
            let policy = self.shared.policy();
            self.hold(batch);
            let current = self.current.as_mut().expect("there is a segment");
            let number = current.number;
            let bytes = &mut self.held.back_mut().expect("it was just added").bytes;
            let always = policy == Policy::Always;
            let begun = omniring::time::now();
            self.shared.syncing.store(always, Ordering::Relaxed);
            let end = write_records(&*self.disk, current, bytes, self.durable, always).await;
            self.shared.syncing.store(false, Ordering::Relaxed);
            current.at = at_file(&name_of(number, LOG), end)?;
            if always {
                let (records, last) =
                    (self.written - self.durable, lock(&self.shared.staging).last);
                self.gather.synced(omniring::time::now() - begun, records, last);
                let sync_us = self.gather.time.as_micros() as u64;
                self.shared.sync_us.store(sync_us, Ordering::Relaxed);
                self.publish();
            } else if self.held_len >= HELD_LEN_MAX {
                self.sync().await?;
            } else if self.timer.is_none() {
                let seconds = if policy == Policy::EverySecond { 1 } else { 30 };
                let disk = self.disk.clone();
                let time = Duration::from_secs(seconds);
                self.timer = Some(Box::pin(async move { disk.pause(time).await }));
            }
        }
        let current = self.current.as_ref().expect("there is a segment");
        let len = current.len;
        self.begin |= current.at >= len || (then_begin && current.first <= self.written);
        // Where the next file is not ready yet this one goes on for a while.
        let ready = self.spare.as_ref().is_none_or(JoinHandle::is_finished);
        if self.begin && (ready || current.at >= len.saturating_mul(OVERLONG)) {
            self.sync().await?;
            self.begin_segment().await?;
        }
        Ok(())
    }

    /// Makes durable what was written.
    async fn sync(&mut self) -> Result<(), Failure> {
        self.timer = None;
        if self.written != self.durable {
            let current = self.current.as_ref().expect("there is a segment");
            at_file(&name_of(current.number, LOG), self.disk.sync(&current.file).await)?;
            self.publish();
        }
        Ok(())
    }

    /// Notes in the segment that all of it is durable, so that the next start need not write any of it again.
    async fn close(&mut self) {
        let Some(current) = &mut self.current else {
            return;
        };
        let mut bytes = Vec::new();
        record::push_padding(&mut bytes, self.disk.alignment(), self.durable);
        // Not needed for anything but a quicker start, as that the room which is not used is given back.
        let written = write_records(&*self.disk, current, &mut bytes, self.durable, true).await;
        if let Ok(end) = written {
            let _ = self.disk.cut(&name_of(current.number, LOG), end).await;
        }
    }

    fn hold(&mut self, batch: Batch) {
        self.held_len += batch.bytes.len();
        self.held.push_back(batch);
    }

    /// All that was written is durable: tells everybody.
    fn publish(&mut self) {
        self.durable = self.written;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        let freed = std::mem::take(&mut self.held_len);
        let congested = self.shared.congested_len;
        let before = self.shared.pending.fetch_sub(freed, Ordering::Relaxed);
        if let Some(batch) = self.held.pop_front()
            && batch.bytes.capacity() <= KEPT_LEN_MAX
        {
            let mut bytes = batch.bytes;
            bytes.clear();
            let mut staging = lock(&self.shared.staging);
            if staging.empty.capacity() < bytes.capacity() {
                staging.empty = bytes;
            }
        }
        self.held.clear();
        self.timer = None;
        self.shared.synced.store(self.durable, Ordering::Release);
        if before > congested && before - freed <= congested {
            self.shared.room.notify_waiters();
        }
        (self.hook)(self.durable);
    }

    fn fail(&self, why: String) {
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        *lock(&self.shared.failure) = why;
        self.shared.failed.store(true, Ordering::Release);
    }

    /// Refuses writes until a new segment has what is not durable. Whether it came to that before the end.
    async fn begin_again(&mut self, failure: Failure) -> bool {
        let (durable, waiting) = (self.durable, self.held_len);
        let fields: [(&str, &dyn std::fmt::Display); 3] =
            [("error", &failure), ("durable_lsn", &durable), ("waiting_bytes", &waiting)];
        report::warning("the log cannot be written: writes are refused until it can", &fields);
        self.fail(failure.to_string());
        loop {
            match self.begin_segment().await {
                Ok(()) => break,
                Err(failure) => self.fail(failure.to_string()),
            }
            if lock(&self.shared.staging).stop {
                return false;
            }
            self.disk.pause(self.options.retry).await;
        }
        self.publish();
        self.shared.failed.store(false, Ordering::Release);
        report::notice("the log is written again", &[("durable_lsn", &self.durable)]);
        true
    }

    /// Begins a segment with the batches that are held.
    async fn begin_segment(&mut self) -> Result<(), Failure> {
        let mut len = self.options.segment_len;
        let (temporary, file) = match self.spare.take() {
            Some(spare) => match spare.await {
                Ok(spare) => spare,
                Err(aborted) => aborted.resume(),
            },
            None => {
                // The first one, or one after a failure: it is waited for.
                len = len.min(FIRST_LEN);
                prepare(self.disk.clone(), self.next_number, len).await
            }
        };
        let number = self.next_number;
        self.next_number += 1;
        let name = name_of(number, LOG);
        let begun = match file {
            Ok(file) => self.fill_segment(file, number, len, &temporary, &name).await,
            Err(error) => Err(error),
        };
        match begun {
            Ok(current) => {
                let spare = prepare(self.disk.clone(), number + 1, self.options.segment_len);
                self.spare = Some(omniring::spawn_named("log spare", spare));
                self.current = Some(current);
                self.begin = false;
                Ok(())
            }
            Err(error) => {
                // It takes room that there may be too little of.
                let _ = self.disk.remove(&temporary).await;
                at_file(&name, Err(error))
            }
        }
    }

    async fn fill_segment(
        &mut self,
        file: D::File,
        number: u64,
        len: u64,
        temporary: &str,
        name: &str,
    ) -> io::Result<Current<D::File>> {
        let start = self.disk.alignment().max(segment::HEADER_LEN) as u32;
        let first = self.durable + 1;
        let header =
            segment::Header { is_snapshot: false, start, number, first, base: self.written };
        let mut current = Current { file, number, at: 0, first, len };
        write_bytes(&*self.disk, &current.file, &header.to_bytes(), 0, false).await?;
        current.at = u64::from(start);
        for batch in &mut self.held {
            let bytes = &mut batch.bytes;
            current.at = write_records(&*self.disk, &current, bytes, self.durable, false).await?;
        }
        self.disk.sync(&current.file).await?;
        // Only what is durable gets the name.
        self.disk.rename(temporary, name).await?;
        self.disk.sync_dir().await?;
        Ok(current)
    }
}

/// Makes a file that becomes a segment.
async fn prepare<D: Disk>(disk: Rc<D>, number: u64, len: u64) -> Spare<D::File> {
    let name = name_of(number, TEMPORARY);
    let file = disk.create(&name, len).await;
    (name, file)
}

/// Seals records, fills up with padding, and writes them at the segment's end. Gives the new end.
async fn write_records<D: Disk>(
    disk: &D,
    to: &Current<D::File>,
    records: &mut Vec<u8>,
    durable: Lsn,
    sync: bool,
) -> io::Result<u64> {
    let len = records.len();
    record::pad(records, disk.alignment(), durable);
    let end = records.len();
    record::seal(records, to.number, durable);
    let result = write_bytes(disk, &to.file, records, to.at, sync).await;
    // The padding is of this place; the records may have to be written elsewhere.
    records.truncate(len);
    result.map(|()| to.at + end as u64)
}

/// Writes bytes through buffers; with `sync` they are durable then.
pub(super) async fn write_bytes<D: Disk>(
    disk: &D,
    file: &D::File,
    bytes: &[u8],
    at: u64,
    sync: bool,
) -> io::Result<()> {
    let mut at = at;
    let mut pieces = bytes.chunks(BUF_LEN).peekable();
    while let Some(piece) = pieces.next() {
        let mut buf = disk.buffer().await;
        buf[..piece.len()].copy_from_slice(piece);
        let last = pieces.peek().is_none();
        let (result, _) = disk.write(file, buf, piece.len(), at, sync && last).await;
        result?;
        at += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_millis(2);

    #[test]
    fn who_was_answered_is_waited_for_half_as_long_as_a_sync_takes() {
        let mut gather = Gather::default();
        assert_eq!(gather.take_time(), None, "nobody was answered yet");
        gather.synced(SYNC, 50, 125);
        assert_eq!((gather.take_time(), gather.wanted), (Some(SYNC / 2), 175));
        assert_eq!(gather.take_time(), None, "once after each sync");
    }

    #[test]
    fn a_wait_in_vain_is_not_repeated_at_once() {
        let mut gather = Gather::default();
        gather.synced(SYNC, 50, 125);
        gather.observe(149);
        for _ in 0..Gather::REST {
            gather.synced(SYNC, 50, 200);
            assert_eq!(gather.take_time(), None);
        }
        gather.synced(SYNC, 50, 200);
        assert!(gather.take_time().is_some());
        gather.observe(225);
        gather.synced(SYNC, 50, 300);
        assert!(gather.take_time().is_some(), "half of them had come");
    }
}
