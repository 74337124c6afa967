//! Reading the log again: the newest snapshot, then the records since.
//!
//! A record that does not hold ends the log, if it is in the last batch that was written: whoever waited for it
//! has had no answer. Where anything says that the log was durable past it (a later segment, or a later record,
//! each of which tells how far it was), it is damage, and refused.

use super::disk::Disk;
use super::piece::Piece;
use super::segment::{self, CUT, LOG, SNAPSHOT, SNAPSHOT_TEMPORARY, TEMPORARY, name_of, number_of};
use super::snapshot::{self, Saved};
use super::{Damage, Failure, at_file, record};
use crate::error::Error;
use crate::protocol::Args;
use crate::store::Lsn;

/// Bytes that are read at once.
const READ_LEN: usize = 1 << 20;

/// Who takes what was logged.
pub trait Target {
    /// A command that was logged, in its database. Time stands still: nothing expires but what the log deletes.
    ///
    /// # Errors
    /// Where it cannot be carried out: recovery ends with that.
    fn command(&mut self, db: usize, args: Args<'_>) -> Result<(), Error>;

    /// A key of the snapshot, or a part of a large one. All keys of the snapshot come before the first command.
    ///
    /// # Errors
    /// Where it cannot be taken: recovery ends with that.
    fn piece(&mut self, piece: &Piece<'_>) -> Result<(), Error>;
}

/// What recovery has found, for the log to go on with.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The last record's LSN.
    pub last: Lsn,
    /// Up to which record the log is known to be durable. Later ones are written again at the start.
    pub durable: Lsn,
    /// Bytes of the records that were carried out.
    pub log_len: u64,
    /// Commands that were carried out.
    pub commands: u64,
    /// The snapshot that was read.
    pub snapshot: Option<Saved>,
    /// What somebody should know, such as where a torn tail was cut.
    pub notices: Vec<String>,
    /// The last segment, and where its records end.
    pub(super) end: Option<(String, u64)>,
    /// Records after `durable`.
    pub(super) tail: Vec<u8>,
    /// The next file's number.
    pub(super) next_number: u64,
}

/// The files of a directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Numbers of segments, ascending.
    pub logs: Vec<u64>,
    /// Numbers of snapshots, ascending.
    pub snapshots: Vec<u64>,
    /// Names of what was not completed.
    pub temporary: Vec<String>,
    /// A number that no file has had.
    pub next_number: u64,
}

impl Listing {
    pub(super) async fn read<D: Disk>(disk: &D) -> Result<Listing, Failure> {
        let mut listing = Listing { next_number: 1, ..Listing::default() };
        for name in at_file("the directory", disk.list().await)? {
            let mut note = |number: u64| {
                listing.next_number = listing.next_number.max(number + 1);
                number
            };
            if let Some(number) = number_of(&name, LOG).map(&mut note) {
                listing.logs.push(number);
            } else if let Some(number) = number_of(&name, SNAPSHOT) {
                listing.snapshots.push(number);
            } else if let Some(aside) = name.strip_suffix(CUT) {
                number_of(aside.trim_end_matches('.'), LOG).map(&mut note);
            } else if number_of(&name, TEMPORARY).map(&mut note).is_some()
                || number_of(&name, SNAPSHOT_TEMPORARY).is_some()
            {
                listing.temporary.push(name);
            }
        }
        listing.logs.sort_unstable();
        listing.snapshots.sort_unstable();
        Ok(listing)
    }
}

/// Reads snapshot and log of a directory into a target.
///
/// # Errors
/// Where the disk fails, where something is damaged that was durable, and where the target refuses a command.
/// Nothing of the directory has been changed then.
pub async fn recover<D: Disk>(disk: &D, target: &mut impl Target) -> Result<Recovered, Failure> {
    let listing = Listing::read(disk).await?;
    let mut recovered = Recovered::default();
    read(disk, &listing, &mut recovered, target).await?;
    for name in &listing.temporary {
        at_file(name, disk.remove(name).await)?;
    }
    if let Some(saved) = recovered.snapshot {
        snapshot::clean(disk, saved.lsn).await?;
    }
    Ok(recovered)
}

/// Reads snapshot and log of a directory that is in use into a target, while nothing is being appended. Changes
/// nothing.
///
/// # Errors
/// As [`recover`].
pub async fn read_again<D: Disk>(disk: &D, target: &mut impl Target) -> Result<(), Failure> {
    let listing = Listing::read(disk).await?;
    read(disk, &listing, &mut Recovered::default(), target).await
}

/// The same, and changes nothing. After an error `recovered` tells how far it came.
pub(super) async fn read<D: Disk>(
    disk: &D,
    listing: &Listing,
    recovered: &mut Recovered,
    target: &mut impl Target,
) -> Result<(), Failure> {
    recovered.next_number = listing.next_number;
    let (mut segments, mut failed) = (Vec::new(), None);
    for &number in &listing.logs {
        match Open::open(disk, number, LOG).await {
            Ok(open) => segments.push(open),
            Err(failure) => {
                // Those before it are read first, so that it is told how far the log is good.
                failed = Some(failure);
                break;
            }
        }
    }
    check_order(&segments)?;
    if let Some(&number) = listing.snapshots.last() {
        let saved = snapshot::read(disk, number, target).await?;
        recovered.last = saved.lsn;
        recovered.snapshot = Some(saved);
    }
    replay(disk, &segments, recovered, target).await?;
    failed.map_or(Ok(()), Err)
}

/// A segment that is open for reading.
pub(super) struct Open<F> {
    pub file: F,
    pub name: String,
    pub header: segment::Header,
}

impl<F: 'static> Open<F> {
    pub(super) async fn open<D: Disk<File = F>>(
        disk: &D,
        number: u64,
        ending: &str,
    ) -> Result<Open<F>, Failure> {
        Open::open_named(disk, &name_of(number, ending)).await
    }

    pub(super) async fn open_named<D: Disk<File = F>>(
        disk: &D,
        name: &str,
    ) -> Result<Open<F>, Failure> {
        let file = at_file(name, disk.open(name).await)?;
        let header = segment::Header::read(disk, &file, name).await?;
        Ok(Open { file, name: name.to_owned(), header })
    }
}

fn check_order<F>(segments: &[Open<F>]) -> Result<(), Failure> {
    for pair in segments.windows(2) {
        let (before, after) = (&pair[0].header, &pair[1].header);
        if after.first < before.first {
            let why = format!(
                "its first record is {}, and that of the segment before it {}",
                after.first, before.first
            );
            return Err(Failure::Damaged(Damage::new(&pair[1].name, 0, why)));
        }
    }
    Ok(())
}

/// Carries out the records after `recovered.last`.
async fn replay<D: Disk>(
    disk: &D,
    segments: &[Open<D::File>],
    recovered: &mut Recovered,
    target: &mut impl Target,
) -> Result<(), Failure> {
    recovered.durable = recovered.last;
    // Earlier ones have only what is in the snapshot.
    let from = segments.iter().rposition(|segment| segment.header.first <= recovered.last + 1);
    let Some(from) = from else {
        return match segments.first() {
            None => Ok(()),
            Some(segment) => {
                let (first, last) = (segment.header.first, recovered.last);
                let why = format!("records {} to {} are missing before it", last + 1, first - 1);
                Err(Failure::Damaged(Damage::new(&segment.name, 0, why)))
            }
        };
    };
    for (index, segment) in segments.iter().enumerate().skip(from) {
        let end = segments.get(index + 1).map(|next| next.header.first);
        replay_one(disk, segment, end, recovered, target).await?;
    }
    Ok(())
}

/// Carries out the records of one segment, up to before `end`, where another segment goes on.
async fn replay_one<D: Disk>(
    disk: &D,
    segment: &Open<D::File>,
    end: Option<Lsn>,
    recovered: &mut Recovered,
    target: &mut impl Target,
) -> Result<(), Failure> {
    let name = &segment.name;
    let mut records = Records::new(disk, segment).await?;
    note_durable(recovered, segment.header.first - 1);
    loop {
        if end.is_some_and(|end| recovered.last + 1 >= end) {
            return Ok(());
        }
        let offset = records.offset();
        let Some((header, bytes)) = records.next(recovered.last).await? else {
            break;
        };
        if header.padding {
            note_durable(recovered, header.synced);
            continue;
        }
        let payload = &bytes[record::HEADER_LEN..record::HEADER_LEN + header.len as usize];
        let Some(commands) = record::commands(payload) else {
            let why = "the record's checksums hold, but it has no commands: it was written wrongly";
            return Err(Failure::Damaged(Damage::new(name, offset, why)));
        };
        if header.lsn > recovered.last {
            for (db, args) in &commands {
                target.command(*db, args.args()).map_err(|error| {
                    let shown = String::from_utf8_lossy(&args.args()[0]).into_owned();
                    let why = format!("'{shown}' was logged, and is refused: {error}");
                    Failure::Refused { at: Damage::new(name, offset, why) }
                })?;
            }
            recovered.commands += commands.len() as u64;
            recovered.log_len += bytes.len() as u64;
            recovered.last = header.lsn;
            recovered.tail.extend_from_slice(bytes);
        }
        note_durable(recovered, header.synced);
    }
    let offset = records.offset();
    let expected = recovered.last + 1;
    if let Some(end) = end {
        let why = format!("record {expected} is damaged, and the log goes on to {}", end - 1);
        return Err(Failure::Damaged(Damage::new(name, offset, why)));
    }
    let rest = records.rest().await?;
    let durable = rest.durable.max(segment.header.base);
    if durable >= expected {
        let why = format!(
            "record {expected} is damaged, and was durable: the log says so of records up to {durable}"
        );
        return Err(Failure::Damaged(Damage::new(name, offset, why)));
    }
    recovered.end = Some((name.clone(), offset));
    if rest.dirty != 0 {
        recovered.notices.push(format!(
            "'{name}' at byte {offset}: the log ends in a record that was not completed; {} bytes after \
             record {} are left out, which nobody was told were kept",
            rest.dirty, recovered.last
        ));
    }
    Ok(())
}

/// Records are durable up to this one: they need not be written again.
fn note_durable(recovered: &mut Recovered, lsn: Lsn) {
    if lsn <= recovered.durable {
        return;
    }
    recovered.durable = lsn.min(recovered.last);
    let mut at = 0;
    while at < recovered.tail.len() {
        let (lsn, total) = record::unsealed(&recovered.tail[at..]);
        if lsn > recovered.durable {
            break;
        }
        at += total;
    }
    recovered.tail.drain(..at);
}

/// What follows on the last record of a segment.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// How far the log was durable by what records there say.
    pub durable: Lsn,
    /// Records there, whole or not, that come after.
    pub records: u64,
    /// Bytes up to the last one that is no zero.
    pub dirty: u64,
}

/// The records of a segment, one after the other.
pub(super) struct Records<'a, D: Disk> {
    disk: &'a D,
    segment: &'a Open<D::File>,
    len: u64,
    /// Where `buf` begins in the file.
    at: u64,
    buf: Vec<u8>,
    /// Bytes of `buf` that have been used.
    used: usize,
    /// Bytes of the record that was given last.
    given: usize,
}

impl<'a, D: Disk> Records<'a, D> {
    pub(super) async fn new(
        disk: &'a D,
        segment: &'a Open<D::File>,
    ) -> Result<Records<'a, D>, Failure> {
        Records::from(disk, segment, u64::from(segment.header.start)).await
    }

    /// The records from an offset on, at which one begins.
    pub(super) async fn from(
        disk: &'a D,
        segment: &'a Open<D::File>,
        at: u64,
    ) -> Result<Records<'a, D>, Failure> {
        let len = at_file(&segment.name, disk.len(&segment.file).await)?;
        Ok(Records { disk, segment, len, at, buf: Vec::new(), used: 0, given: 0 })
    }

    /// Where the next record begins, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.at + (self.used + self.given) as u64
    }

    /// The next record with its header, if it is whole, and comes after the one with the LSN `last` or is a copy
    /// of an earlier one.
    pub(super) async fn next(
        &mut self,
        last: Lsn,
    ) -> Result<Option<(record::Header, &[u8])>, Failure> {
        self.used += std::mem::take(&mut self.given);
        let number = self.segment.header.seed();
        if !self.fill(record::HEADER_LEN as u64).await? {
            return Ok(None);
        }
        let Some(header) = record::Header::read(&self.buf[self.used..], number) else {
            return Ok(None);
        };
        let Some(total) = header.total() else {
            return Ok(None);
        };
        if (!header.padding && header.lsn > last + 1) || !self.fill(total).await? {
            return Ok(None);
        }
        let bytes = &self.buf[self.used..self.used + total as usize];
        if !header.fits(bytes) {
            return Ok(None);
        }
        self.given = total as usize;
        Ok(Some((header, bytes)))
    }

    /// Looks at what comes after the last whole record.
    pub(super) async fn rest(&mut self) -> Result<Rest, Failure> {
        self.used += std::mem::take(&mut self.given);
        let mut rest = Rest::default();
        let start = self.offset();
        let number = self.segment.header.seed();
        loop {
            let more = self.fill(READ_LEN as u64).await?;
            let ahead = &self.buf[self.used..];
            let dirty = dirty_len(ahead);
            if dirty > 0 {
                rest.dirty = self.at + (self.used + dirty) as u64 - start;
            }
            // The last header's worth of bytes is looked at again with what follows.
            let end = if more { ahead.len() - record::HEADER_LEN } else { ahead.len() };
            let end = end & !(record::GRAIN - 1);
            // What most of it is, zeros, is passed over quickly.
            for at in (0..end.min(dirty)).step_by(record::GRAIN) {
                if ahead[at] != 0
                    && let Some(header) = record::Header::read(&ahead[at..], number)
                {
                    rest.durable = rest.durable.max(header.synced);
                    rest.records += u64::from(!header.padding);
                }
            }
            self.used += end;
            if !more {
                return Ok(rest);
            }
        }
    }

    /// Reads until `len` bytes are there that have not been used; whether the file has as many.
    async fn fill(&mut self, len: u64) -> Result<bool, Failure> {
        let here = (self.buf.len() - self.used) as u64;
        if here >= len {
            return Ok(true);
        }
        let enough = len <= self.len.saturating_sub(self.at + self.used as u64);
        let want = if enough { len } else { self.len.saturating_sub(self.at + self.used as u64) };
        self.buf.drain(..self.used);
        self.at += std::mem::take(&mut self.used) as u64;
        let from = self.at + self.buf.len() as u64;
        let missing = (want.saturating_sub(here) as usize).max(READ_LEN);
        let read = self.disk.read(&self.segment.file, from, missing).await;
        self.buf.extend_from_slice(&at_file(&self.segment.name, read)?);
        Ok(self.buf.len() as u64 >= len)
    }
}

/// Bytes up to the last one that is no zero. Whole pages of zeros, which most of them are, cost little.
fn dirty_len(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    for page in bytes.rchunks(ZEROS.len()) {
        end -= page.len();
        if *page != ZEROS[..page.len()]
            && let Some(last) = page.iter().rposition(|&byte| byte != 0)
        {
            return end + last + 1;
        }
    }
    0
}
