//! The task that writes the log: takes all that has gathered, writes it as one piece, and syncs.
//!
//! With `always` a batch is in flight until its sync has ended, and where syncs are slow some are in flight at once
//! ([`Overlap`]). They are published in the order of their records, whichever ends first. Each has an open file of its
//! own: an error of the file is told to each open file once, so that none of them can take it from another.
//!
//! `held` are the batches that were handed to the disk, are not durable, and are not in flight. When anything fails
//! those in flight that were not published become held, and all are written once more, to a new segment whose first
//! record is the first of them; until that has succeeded nothing else is written. So no byte counts whose fate is
//! unknown. While something is held nothing takes off, and where something is in flight nothing becomes held.
//!
//! Deliberately not here: when to gather and how many syncs overlap (`pace`), and how room is made ahead (`room`).

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use omniring::JoinHandle;

use super::disk::{BUF_LEN, Disk};
use super::pace::{Gather, Moment, Overlap};
use super::room::{self, Spare, Used};
use super::segment::{self, LOG, TEMPORARY, name_of};
use super::{
    Batch, Batches, Failure, Hook, Options, Policy, Recovered, Shared, at_file, lock, record,
};
use crate::report;
use crate::store::Lsn;

/// Bytes that are synced before the time has come, so that memory does not hold many.
const HELD_LEN_MAX: usize = 16 << 20;
/// Bytes of the first segment of a process, for whose room the start waits. The next ones have twice as many each, up to
/// what is wanted, so that little has to be made ahead while it is used up.
const FIRST_LEN: u64 = 4 << 20;
/// How many times as long as it should be a segment gets before the writer waits for the next one's file.
const OVERLONG: u64 = 4;
/// Memory of a batch that is kept for the next ones, in bytes.
const KEPT_LEN_MAX: usize = 4 << 20;

/// The segment that is being written.
struct Current<F> {
    /// Files open on it that are not in flight; the first is there whenever nothing is.
    idle: Vec<F>,
    number: u64,
    /// Where the next batch goes.
    at: u64,
    /// The LSN of its first record.
    first: Lsn,
    /// Bytes for which room was made ahead.
    len: u64,
}

impl<F> Current<F> {
    /// The file, while nothing is in flight.
    fn file(&self) -> &F {
        self.idle.first().expect("a file is idle while nothing is in flight")
    }
}

/// What a flight has come to: its file, and the batch's bytes.
type Landing<F> = (io::Result<F>, Vec<u8>);

/// A batch on its way to the disk.
struct Flight<F> {
    task: Pin<Box<dyn Future<Output = Landing<F>>>>,
    landed: Option<Landing<F>>,
    last: Lsn,
    begun: Instant,
}

impl<F> Flight<F> {
    /// Whether it has landed.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if self.landed.is_none()
            && let Poll::Ready(landed) = self.task.as_mut().poll(cx)
        {
            self.landed = Some(landed);
        }
        self.landed.is_some()
    }

    /// Waits until it has landed.
    async fn land(mut self) -> Landing<F> {
        poll_fn(|cx| if self.poll(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        self.landed.expect("it was waited for")
    }
}

pub(super) struct Writer<D: Disk> {
    disk: Rc<D>,
    shared: Arc<Shared>,
    options: Options,
    hook: Hook,
    current: Option<Current<D::File>>,
    spare: Option<JoinHandle<Spare<D::File>>>,
    used: Rc<Used>,
    next_number: u64,
    flights: VecDeque<Flight<D::File>>,
    held: Batches,
    held_len: usize,
    /// Up to which record the log is durable, and was handed to the disk.
    durable: Lsn,
    written: Lsn,
    /// A new segment is to be begun as soon as there is a file for it.
    begin: bool,
    /// Ends when what was written is to be synced.
    timer: Option<Timer>,
    gather: Gather,
    /// Ends when no more records are waited for before a batch takes off.
    gathering: Option<Timer>,
    overlap: Overlap,
    /// When the last flight began.
    took_off: Instant,
}

type Timer = Pin<Box<dyn Future<Output = ()>>>;

/// What there is to do.
enum Work {
    Write { batch: Batch, then_begin: bool },
    Land,
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
            used: Rc::default(),
            next_number: recovered.next_number,
            flights: VecDeque::new(),
            held: Batches::new(),
            held_len: 0,
            durable: recovered.durable,
            written: recovered.last,
            begin: false,
            timer: None,
            gather: Gather::default(),
            gathering: None,
            overlap: Overlap::new(options.syncs_at_once),
            took_off: omniring::time::now(),
        };
        if !recovered.tail.is_empty() {
            writer.shared.pending.fetch_add(recovered.tail.len(), Ordering::Relaxed);
            writer.hold(Batch { bytes: recovered.tail, last: recovered.last });
        }
        writer.begin_segment().await?;
        writer.publish_held();
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
                Work::Land => self.land().await,
                Work::Sync => self.sync().await,
                Work::Stop => match self.land_all().await {
                    Ok(()) => break true,
                    failed => failed,
                },
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

    /// Waits for something to do.
    async fn next(&mut self) -> Work {
        loop {
            if self.flights.front().is_some_and(|flight| flight.landed.is_some()) {
                return Work::Land;
            }
            if self.may_take_off()
                && let Some(work) = self.staged()
            {
                return work;
            }
            let mut wake = std::pin::pin!(self.shared.wake.notified());
            let (flights, gathering) = (&mut self.flights, &mut self.gathering);
            let timer = &mut self.timer;
            let is_due = poll_fn(|cx| {
                let mut landed = false;
                for flight in flights.iter_mut() {
                    landed |= flight.landed.is_none() && flight.poll(cx);
                }
                if timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
                    *timer = None;
                    return Poll::Ready(true);
                }
                if landed {
                    return Poll::Ready(false);
                }
                if gathering.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
                    *gathering = None;
                    return Poll::Ready(false);
                }
                wake.as_mut().poll(cx).map(|()| false)
            });
            if is_due.await {
                return Work::Sync;
            }
        }
    }

    /// Whether what is staged may be written now: if there is room in the air, and nobody is worth waiting for.
    fn may_take_off(&mut self) -> bool {
        if self.flights.len() >= self.overlap.at_once() {
            return false;
        }
        let mut staging = lock(&self.shared.staging);
        if staging.bytes.is_empty() {
            return true;
        }
        let is_urgent = staging.cut.is_some() || staging.stop;
        let is_hurried = self.shared.hurried.load(Ordering::Relaxed) > self.written;
        if is_hurried && self.gather.hurry() {
            staging.gathered = 0;
        }
        if staging.gathered == 0 {
            let moment = Moment {
                at_once: self.overlap.at_once(),
                since: omniring::time::now() - self.took_off,
                durable: self.durable,
                taken: self.written,
                last: staging.last,
            };
            let wait = self.gather.wait(&moment);
            let Some((time, wanted)) = wait.filter(|_| !is_urgent) else {
                return true;
            };
            // Whoever appends that one wakes the writer.
            staging.gathered = wanted;
            let disk = self.disk.clone();
            self.gathering = Some(Box::pin(async move { disk.pause(time).await }));
        }
        let wanted = staging.gathered;
        if !is_urgent && staging.last < wanted && self.gathering.is_some() {
            return false;
        }
        staging.gathered = 0;
        self.gathering = None;
        self.gather.observe(wanted, staging.last);
        true
    }

    fn staged(&mut self) -> Option<Work> {
        let mut staging = lock(&self.shared.staging);
        let cut = staging.cut.take();
        if staging.bytes.is_empty() && cut.is_none() {
            if !self.held.is_empty() && self.shared.policy() == Policy::Always {
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
        let policy = self.shared.policy();
        let before = match policy {
            Policy::Always if self.held.is_empty() => self.ready_file().await,
            Policy::Always => self.sync().await,
            Policy::EverySecond | Policy::No => self.land_all().await,
        };
        self.written = batch.last;
        if batch.bytes.is_empty() {
            before?;
        } else if let Err(failure) = before {
            self.hold(batch);
            return Err(failure);
        } else if policy == Policy::Always {
            self.take_off(batch);
        } else {
            self.write_held(batch, policy).await?;
        }
        let current = self.current.as_ref().expect("there is a segment");
        let len = current.len;
        self.used.set(current.at, len);
        self.begin |= current.at >= len || (then_begin && current.first <= self.written);
        if self.begin {
            self.used.hurry();
        }
        // Where the next file is not ready yet this one goes on for a while.
        let ready = self.spare.as_ref().is_none_or(JoinHandle::is_finished);
        if self.begin && (ready || current.at >= len.saturating_mul(OVERLONG)) {
            self.land_all().await?;
            self.sync().await?;
            self.begin_segment().await?;
        }
        Ok(())
    }

    /// Hands over a batch that is synced later.
    async fn write_held(&mut self, batch: Batch, policy: Policy) -> Result<(), Failure> {
        self.hold(batch);
        let current = self.current.as_mut().expect("there is a segment");
        let bytes = &mut self.held.back_mut().expect("it was just added").bytes;
        let end = write_records(&*self.disk, current, bytes, self.durable, false).await;
        current.at = at_file(&name_of(current.number, LOG), end)?;
        if self.held_len >= HELD_LEN_MAX {
            return self.sync().await;
        }
        if self.timer.is_none() {
            let seconds = if policy == Policy::EverySecond { 1 } else { 30 };
            let disk = self.disk.clone();
            let time = Duration::from_secs(seconds);
            self.timer = Some(Box::pin(async move { disk.pause(time).await }));
        }
        Ok(())
    }

    /// Sees to it that there is a file for a flight.
    async fn ready_file(&mut self) -> Result<(), Failure> {
        let current = self.current.as_mut().expect("there is a segment");
        if current.idle.is_empty() {
            match self.disk.reopen(&name_of(current.number, LOG)).await {
                Ok(file) => current.idle.push(file),
                // There may be as many open files as there can be. A flight gives its own back.
                Err(_) => self.land().await?,
            }
        }
        Ok(())
    }

    /// Lets a batch fly that is durable when it has landed.
    fn take_off(&mut self, batch: Batch) {
        let current = self.current.as_mut().expect("there is a segment");
        let Batch { mut bytes, last } = batch;
        let len = seal(&mut bytes, self.disk.alignment(), current.number, self.durable);
        let (disk, at) = (self.disk.clone(), current.at);
        let file = current.idle.pop().expect("there is a file for a flight");
        current.at += bytes.len() as u64;
        let task = async move {
            let result = write_bytes(&*disk, &file, &bytes, at, true).await.map(|()| file);
            // The padding is of this place; the records may have to be written elsewhere.
            bytes.truncate(len);
            (result, bytes)
        };
        self.took_off = omniring::time::now();
        let flight = Flight { task: Box::pin(task), landed: None, last, begun: self.took_off };
        self.flights.push_back(flight);
        self.shared.syncing.store(true, Ordering::Relaxed);
    }

    /// Waits for the first flight and publishes it. If it has failed all others are waited for, and nothing of them counts.
    async fn land(&mut self) -> Result<(), Failure> {
        let Some(flight) = self.flights.pop_front() else {
            return Ok(());
        };
        let (last, begun) = (flight.last, flight.begun);
        let (result, bytes) = flight.land().await;
        let current = self.current.as_mut().expect("there is a segment");
        match result {
            Ok(file) => {
                current.idle.push(file);
                self.shared.syncing.store(!self.flights.is_empty(), Ordering::Relaxed);
                self.note_pace(omniring::time::now() - begun, last);
                self.publish(last, bytes.len(), bytes);
                Ok(())
            }
            Err(error) => {
                let name = name_of(current.number, LOG);
                self.hold(Batch { bytes, last });
                self.hold_flights().await;
                at_file(&name, Err(error))
            }
        }
    }

    /// Waits for all flights.
    async fn land_all(&mut self) -> Result<(), Failure> {
        while !self.flights.is_empty() {
            self.land().await?;
        }
        Ok(())
    }

    /// Waits for all flights, of which nothing is known then.
    async fn hold_flights(&mut self) {
        while let Some(flight) = self.flights.pop_front() {
            let last = flight.last;
            let (_, bytes) = flight.land().await;
            self.hold(Batch { bytes, last });
        }
        self.shared.syncing.store(false, Ordering::Relaxed);
    }

    /// A sync took so long, and makes the records up to this one durable.
    fn note_pace(&mut self, time: Duration, synced: Lsn) {
        let last = lock(&self.shared.staging).last;
        self.gather.synced(time, synced - self.durable, last);
        self.overlap.synced(time);
        let shared = &self.shared;
        shared.sync_us.store(self.gather.time().as_micros() as u64, Ordering::Relaxed);
        shared.syncs_at_once.store(self.overlap.at_once(), Ordering::Relaxed);
    }

    /// Makes durable what is held.
    async fn sync(&mut self) -> Result<(), Failure> {
        self.timer = None;
        if !self.held.is_empty() {
            let current = self.current.as_ref().expect("there is a segment");
            at_file(&name_of(current.number, LOG), self.disk.sync(current.file()).await)?;
            self.publish_held();
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

    /// All that is held is durable.
    fn publish_held(&mut self) {
        let freed = std::mem::take(&mut self.held_len);
        let memory = self.held.pop_front().map(|batch| batch.bytes).unwrap_or_default();
        self.held.clear();
        self.timer = None;
        self.publish(self.written, freed, memory);
    }

    /// The log is durable up to this record, and so many bytes need not be in memory any more: tells everybody.
    fn publish(&mut self, durable: Lsn, freed: usize, mut memory: Vec<u8>) {
        self.durable = durable;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        let congested = self.shared.congested_len;
        let before = self.shared.pending.fetch_sub(freed, Ordering::Relaxed);
        if memory.capacity() <= KEPT_LEN_MAX {
            memory.clear();
            let mut staging = lock(&self.shared.staging);
            if staging.empty.capacity() < memory.capacity() {
                staging.empty = memory;
            }
        }
        self.shared.synced.store(durable, Ordering::Release);
        if before > congested && before - freed <= congested {
            self.shared.room.notify_waiters();
        }
        self.gather.set_spacing((self.hook)(durable));
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
        self.publish_held();
        self.shared.failed.store(false, Ordering::Release);
        report::notice("the log is written again", &[("durable_lsn", &self.durable)]);
        true
    }

    /// Begins a segment with the batches that are held.
    async fn begin_segment(&mut self) -> Result<(), Failure> {
        let len_max = self.options.segment_len;
        let spare = match self.spare.take() {
            Some(spare) => match spare.await {
                Ok(spare) => spare,
                Err(aborted) => aborted.resume(),
            },
            // The first one, or one after a failure: it is waited for.
            None => room::make(&*self.disk, self.next_number, len_max.min(FIRST_LEN)).await,
        };
        let Spare { name: temporary, len, file } = spare;
        let number = self.next_number;
        self.next_number += 1;
        let name = name_of(number, LOG);
        let begun = match file {
            Ok(file) => self.fill_segment(file, number, len, &temporary, &name).await,
            Err(error) => Err(error),
        };
        match begun {
            Ok(current) => {
                self.used.set(current.at, len);
                let (disk, shared) = (self.disk.clone(), self.shared.clone());
                let next_len = len_max.min(len * 2);
                let spare =
                    room::make_beside(disk, number + 1, next_len, shared, self.used.clone());
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
        let mut current = Current { idle: vec![file], number, at: 0, first, len };
        write_bytes(&*self.disk, current.file(), &header.to_bytes(), 0, false).await?;
        current.at = u64::from(start);
        for batch in &mut self.held {
            let bytes = &mut batch.bytes;
            current.at = write_records(&*self.disk, &current, bytes, self.durable, false).await?;
        }
        self.disk.sync(current.file()).await?;
        // Only what is durable gets the name.
        self.disk.rename(temporary, name).await?;
        self.disk.sync_dir().await?;
        Ok(current)
    }
}

/// Seals records, fills up with padding, and writes them at the segment's end. Gives the new end.
async fn write_records<D: Disk>(
    disk: &D,
    to: &Current<D::File>,
    records: &mut Vec<u8>,
    durable: Lsn,
    sync: bool,
) -> io::Result<u64> {
    let len = seal(records, disk.alignment(), to.number, durable);
    let end = to.at + records.len() as u64;
    let result = write_bytes(disk, to.file(), records, to.at, sync).await;
    // The padding is of this place; the records may have to be written elsewhere.
    records.truncate(len);
    result.map(|()| end)
}

/// Fills records up with padding and seals them for a segment. Gives their length without padding.
fn seal(records: &mut Vec<u8>, alignment: usize, segment: u64, durable: Lsn) -> usize {
    let len = records.len();
    record::pad(records, alignment, durable);
    record::seal(records, segment, durable);
    len
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
        let mut buf = disk.buffer(piece.len()).await;
        buf[..piece.len()].copy_from_slice(piece);
        let last = pieces.peek().is_none();
        let (result, _) = disk.write(file, buf, piece.len(), at, sync && last).await;
        result?;
        at += piece.len() as u64;
    }
    Ok(())
}
