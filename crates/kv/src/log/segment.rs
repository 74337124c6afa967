//! Segments: the files that records lie in. See `docs/kv-format.md`.
//!
//! A segment gets its name when its header and the records that it begins with are durable. From then on it has
//! the records from its first LSN up to that of the next segment; copies of them elsewhere count for nothing.

use super::disk::Disk;
use super::{Damage, Failure, at_file};
use crate::store::Lsn;

/// What a segment's file begins with, and a snapshot's.
const MAGIC: [[u8; 8]; 2] = [*b"OMNIKVLG", *b"OMNIKVSN"];
/// The version of the format.
const VERSION: u32 = 1;
/// Bytes of the header that mean something. Zeros follow up to the alignment of its disk.
pub const HEADER_LEN: usize = 64;

/// What a file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether it is a snapshot.
    pub is_snapshot: bool,
    /// Where records begin, in bytes.
    pub start: u32,
    /// The segment's number. Of a snapshot the LSN of the last record that is in it.
    pub number: u64,
    /// The first record's LSN. Of a snapshot 1, the number of its first block.
    pub first: Lsn,
    /// The LSN of the last record that was durable when the segment got its name; `first - 1` where none was. Of a snapshot
    /// when it began, in milliseconds since 1970.
    pub base: Lsn,
}

impl Header {
    /// The header of a snapshot.
    pub fn of_snapshot(start: u32, number: Lsn, time_ms: u64) -> Header {
        Header { is_snapshot: true, start, number, first: 1, base: time_ms }
    }

    /// What the checksums of this file's records begin with.
    pub fn seed(&self) -> u64 {
        if self.is_snapshot { !self.number } else { self.number }
    }

    /// The header's bytes, with the zeros that follow it.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.start as usize);
        bytes.extend_from_slice(&MAGIC[usize::from(self.is_snapshot)]);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.start.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.base.to_le_bytes());
        bytes.resize(HEADER_LEN - 4, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.resize(self.start as usize, 0);
        bytes
    }

    /// Reads the header of an open segment.
    pub async fn read<D: Disk>(disk: &D, file: &D::File, name: &str) -> Result<Header, Failure> {
        let bytes = at_file(name, disk.read(file, 0, HEADER_LEN).await)?;
        let damaged = |why| Failure::Damaged(Damage::new(name, 0, why));
        let kind = MAGIC.iter().position(|magic| bytes.starts_with(magic));
        let Some(kind) = kind.filter(|_| bytes.len() == HEADER_LEN) else {
            return Err(damaged("it begins neither as a segment of the log nor as a snapshot"));
        };
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if u32_at(60) != crc32c::crc32c(&bytes[..60]) {
            return Err(damaged("the header's checksum is wrong"));
        }
        if u32_at(8) != VERSION {
            return Err(damaged("it is of a version that this program does not know"));
        }
        let header = Header {
            is_snapshot: kind == 1,
            start: u32_at(12),
            number: u64_at(16),
            first: u64_at(24),
            base: u64_at(32),
        };
        let (is, is_not) = if header.is_snapshot { (SNAPSHOT, LOG) } else { (LOG, SNAPSHOT) };
        if number_of(name, is).is_some_and(|number| number != header.number)
            || number_of(name, is_not).is_some()
        {
            return Err(damaged("its name is that of another file"));
        }
        if header.first == 0 || (header.start as usize) < HEADER_LEN || header.start > 1 << 20 {
            return Err(damaged("the header's checksum holds, but it was written wrongly"));
        }
        let start = header.start as usize;
        let zeros = at_file(name, disk.read(file, HEADER_LEN as u64, start - HEADER_LEN).await)?;
        if zeros.len() + HEADER_LEN != start || zeros.iter().any(|&byte| byte != 0) {
            return Err(damaged("the header is not followed by zeros"));
        }
        Ok(header)
    }
}

/// The ending of segments.
pub const LOG: &str = "log";
/// The ending of snapshots, whose number is the LSN of the last record that is in them.
pub const SNAPSHOT: &str = "snapshot";
/// The ending of a segment that is not complete, and goes at the next start.
pub const TEMPORARY: &str = "tmp";
/// The same of a snapshot.
pub const SNAPSHOT_TEMPORARY: &str = "snapshot.tmp";
/// The ending of what a repair put aside.
pub const CUT: &str = "cut";

/// The name of a file with this number and ending.
pub fn name_of(number: u64, ending: &str) -> String {
    format!("{number:016}.{ending}")
}

/// The number of a file with this ending.
pub fn number_of(name: &str, ending: &str) -> Option<u64> {
    let number = name.strip_suffix(ending)?.strip_suffix('.')?;
    (number.len() == 16).then(|| number.parse().ok()).flatten()
}
