//! Looking at a directory without a server: what is there, what is torn or damaged, and what a repair would leave out.

use std::fmt;

use super::disk::Disk;
use super::piece::Piece;
use super::recovery::{self, Listing, Open, Records, Rest, Target};
use super::segment::{self, CUT, LOG, SNAPSHOT, TEMPORARY, name_of, number_of};
use super::writer::write_bytes;
use super::{Damage, Failure, at_file, record, snapshot};
use crate::error::Error;
use crate::protocol::Args;
use crate::store::Lsn;

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file's name.
    pub name: String,
    /// Of a segment: the LSN of its first record. Of a snapshot: that of the last one that is in it.
    pub lsn: Lsn,
    /// Records of a segment that are whole and follow on each other, or keys of a snapshot.
    pub count: u64,
    /// Bytes up to the end of those.
    pub len: u64,
    /// Bytes after them that are no zeros: a torn end, or something that is damaged.
    pub rest_len: u64,
    /// Records after them, as far as their headers can be read.
    pub rest_count: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By file.
    pub files: Vec<Found>,
    /// Files that were not completed.
    pub temporary: Vec<String>,
    /// The last record that a server would begin with.
    pub last: Lsn,
    /// Commands in the log that a server would carry out.
    pub commands: u64,
    /// What a server would say when it begins.
    pub notices: Vec<String>,
    /// Why it would not begin.
    pub damage: Option<Damage>,
    /// Records that come after the damage, which a repair would leave out.
    pub lost: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for found in &self.files {
            let (name, count, lsn, len) = (&found.name, found.count, found.lsn, found.len);
            match number_of(name, SNAPSHOT) {
                Some(_) => writeln!(f, "{name}: {count} keys as of record {lsn}, {len} bytes")?,
                None => writeln!(f, "{name}: {count} records from {lsn} on, {len} bytes")?,
            }
            if found.rest_len != 0 {
                let (rest, records) = (found.rest_len, found.rest_count);
                writeln!(f, "{name}: then {rest} bytes that do not hold, with {records} records")?;
            }
        }
        for name in &self.temporary {
            writeln!(f, "{name}: was not completed, and goes at the next start")?;
        }
        for notice in &self.notices {
            writeln!(f, "{notice}")?;
        }
        match &self.damage {
            None => {
                writeln!(
                    f,
                    "good up to record {}; {} commands in the log",
                    self.last, self.commands
                )
            }
            Some(damage) => {
                writeln!(f, "damaged: {damage}")?;
                let (last, lost) = (self.last, self.lost);
                writeln!(
                    f,
                    "a repair keeps what is up to record {last} and leaves {lost} records out"
                )
            }
        }
    }
}

/// Takes everything and counts it.
struct Nobody;

impl Target for Nobody {
    fn command(&mut self, _db: usize, _args: Args<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn piece(&mut self, _piece: &Piece<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Looks at a directory, or at one segment or snapshot of it. Changes nothing.
///
/// # Errors
/// Where the disk fails. Damage is no error but what the report tells.
pub async fn check<D: Disk>(disk: &D, only: Option<&str>) -> Result<Report, Failure> {
    let mut report = Report::default();
    let result = match only {
        None => check_all(disk, &mut report).await,
        Some(name) => check_one(disk, name, &mut report).await,
    };
    match result {
        Ok(()) => Ok(report),
        Err(Failure::Damaged(damage) | Failure::Refused { at: damage }) => {
            report.lost = lost(disk, &report, &damage).await?;
            report.damage = Some(damage);
            Ok(report)
        }
        Err(failure) => Err(failure),
    }
}

async fn check_all<D: Disk>(disk: &D, report: &mut Report) -> Result<(), Failure> {
    let listing = Listing::read(disk).await?;
    report.temporary = listing.temporary.clone();
    let snapshots = listing.snapshots.iter().map(|&number| name_of(number, SNAPSHOT));
    let logs = listing.logs.iter().map(|&number| name_of(number, LOG));
    for name in snapshots.chain(logs) {
        // What is wrong with one is told when all are read in their order.
        match look(disk, &name).await {
            Ok((found, _)) => report.files.push(found),
            Err(Failure::Damaged(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    let mut recovered = recovery::Recovered::default();
    let result = recovery::read(disk, &listing, &mut recovered, &mut Nobody).await;
    report.last = recovered.last;
    report.commands = recovered.commands;
    report.notices = recovered.notices;
    result.map(drop)
}

async fn check_one<D: Disk>(disk: &D, name: &str, report: &mut Report) -> Result<(), Failure> {
    let (found, rest) = look(disk, name).await?;
    let (len, is_segment) = (found.len, number_of(name, LOG).is_some());
    report.last = if is_segment { found.lsn + found.count - 1 } else { found.lsn };
    report.files.push(found);
    match rest {
        Some(rest) if rest.durable > report.last => {
            let why = format!("a record is damaged; records up to {} were durable", rest.durable);
            Err(Failure::Damaged(Damage::new(name, len, why)))
        }
        Some(rest) if rest.dirty != 0 => {
            report.notices.push(format!(
                "'{name}' at byte {len}: the segment ends in a record that was not completed; {} bytes",
                rest.dirty
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Looks at one file by itself.
async fn look<D: Disk>(disk: &D, name: &str) -> Result<(Found, Option<Rest>), Failure> {
    if let Some(number) = number_of(name, SNAPSHOT) {
        let saved = snapshot::read(disk, number, &mut Nobody).await?;
        let found = Found {
            name: name.to_owned(),
            lsn: saved.lsn,
            count: saved.keys,
            len: saved.len,
            rest_len: 0,
            rest_count: 0,
        };
        return Ok((found, None));
    }
    let open = Open::open_named(disk, name).await?;
    let first = open.header.first;
    let mut records = Records::new(disk, &open).await?;
    let mut last = first - 1;
    while let Some((header, _)) = records.next(last).await? {
        if !header.padding {
            last = last.max(header.lsn);
        }
    }
    let len = records.offset();
    let rest = records.rest().await?;
    let found = Found {
        name: name.to_owned(),
        lsn: first,
        count: last + 1 - first,
        len,
        rest_len: rest.dirty,
        rest_count: rest.records,
    };
    Ok((found, Some(Rest { durable: rest.durable.max(open.header.base), ..rest })))
}

/// Records after the damage.
async fn lost<D: Disk>(disk: &D, report: &Report, damage: &Damage) -> Result<u64, Failure> {
    let mut lost = 0;
    for found in report.files.iter().filter(|found| number_of(&found.name, LOG).is_some()) {
        if found.name > damage.file {
            lost += found.count + found.rest_count;
        }
    }
    if let Some(number) = number_of(&damage.file, LOG) {
        // Also where the header is lost: the name has all that is needed to know records.
        let name = damage.file.clone();
        let file = at_file(&name, disk.open(&name).await)?;
        let header = segment::Header { is_snapshot: false, start: 0, number, first: 1, base: 0 };
        let open = Open { file, name, header };
        let mut records = Records::from(disk, &open, damage.offset).await?;
        lost += records.rest().await?.records;
    }
    Ok(lost)
}

/// Makes a directory so that a server begins with it again: what comes after the damage is put aside, in files that
/// end in `.cut`. Gives the report of before; where that tells of no damage, nothing was changed.
///
/// # Errors
/// Where the disk fails, and where it is a snapshot that is damaged: the log before it is gone, so that only
/// another copy helps.
pub async fn repair<D: Disk>(disk: &D) -> Result<Report, Failure> {
    let report = check(disk, None).await?;
    let Some(damage) = &report.damage else {
        return Ok(report);
    };
    let Some(number) = number_of(&damage.file, LOG) else {
        return Err(Failure::Damaged(damage.clone()));
    };
    let listing = Listing::read(disk).await?;
    // The last one goes first, so that those that are left follow on each other at any time.
    for &later in listing.logs.iter().rev().filter(|&&later| later > number) {
        put_aside(disk, &name_of(later, LOG)).await?;
    }
    let kept = keep(disk, damage, number).await?;
    put_aside(disk, &damage.file).await?;
    if let Some(temporary) = kept {
        at_file(&damage.file, disk.rename(&temporary, &damage.file).await)?;
    }
    at_file("the directory", disk.sync_dir().await)?;
    Ok(report)
}

async fn put_aside<D: Disk>(disk: &D, name: &str) -> Result<(), Failure> {
    at_file(name, disk.rename(name, &format!("{name}.{CUT}")).await)
}

/// Writes what comes before the damage to a file of its own. `None` where there is nothing.
async fn keep<D: Disk>(disk: &D, damage: &Damage, number: u64) -> Result<Option<String>, Failure> {
    let name = &damage.file;
    if damage.offset == 0 {
        return Ok(None);
    }
    let open = Open::open_named(disk, name).await?;
    let mut header = open.header;
    let mut records = Records::new(disk, &open).await?;
    let (mut last, mut bytes) = (header.first - 1, Vec::new());
    while records.offset() < damage.offset {
        let Some((found, whole)) = records.next(last).await? else {
            break;
        };
        if !found.padding {
            last = last.max(found.lsn);
            bytes.extend_from_slice(whole);
        }
    }
    // It says no more that later records were durable.
    header.base = header.base.min(last);
    let durable = last.min(header.first - 1);
    let mut contents = header.to_bytes();
    record::pad(&mut bytes, disk.alignment(), last);
    record::seal(&mut bytes, header.seed(), durable);
    contents.extend_from_slice(&bytes);
    contents.resize(contents.len().next_multiple_of(disk.alignment()), 0);
    let temporary = name_of(number, TEMPORARY);
    let file = at_file(&temporary, disk.create(&temporary, 0).await)?;
    at_file(&temporary, write_bytes(disk, &file, &contents, 0, true).await)?;
    Ok(Some(temporary))
}
