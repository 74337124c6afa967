//! Records of the log: bytes of one or more commands behind a header of [`HEADER_LEN`] bytes.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `ORc1`, of padding `ORp1` |
//! | 4 | 4 | CRC32C of the payload |
//! | 8 | 8 | bytes of the payload |
//! | 16 | 8 | LSN; of padding that of the record before it |
//! | 24 | 8 | LSN up to which records were durable when this one was written |
//! | 32 | 4 | zeros |
//! | 36 | 4 | CRC32C of the 36 bytes before, begun with the number of the segment |
//!
//! All numbers are little-endian. Zeros after the payload make the length of a record a multiple of 8.
//! A record is first made without what only its place tells, which [`seal`] adds: so it can be written again to
//! another segment.

use crate::protocol::OwnedArgs;
use crate::server::Logged;
use crate::store::{DBS, Lsn};

/// Bytes of a header.
pub const HEADER_LEN: usize = 40;
/// What lengths of records are multiples of.
pub const GRAIN: usize = 8;

const RECORD: [u8; 4] = *b"ORc1";
const PADDING: [u8; 4] = *b"ORp1";

/// A header that has been read and whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether it is padding.
    pub padding: bool,
    /// The checksum of the payload.
    pub payload_crc: u32,
    /// Bytes of the payload.
    pub len: u64,
    /// The record's number.
    pub lsn: Lsn,
    /// Up to which record the log was durable when this one was written.
    pub synced: Lsn,
}

impl Header {
    /// Reads a header of a record in the segment with this number. `None` if it is none, or damaged.
    pub fn read(bytes: &[u8], segment: u64) -> Option<Header> {
        let bytes = bytes.get(..HEADER_LEN)?;
        let padding = match bytes[..4].try_into().ok()? {
            RECORD => false,
            PADDING => true,
            _ => return None,
        };
        if read_u32(bytes, 36) != header_crc(&bytes[..36], segment) {
            return None;
        }
        Some(Header {
            padding,
            payload_crc: read_u32(bytes, 4),
            len: read_u64(bytes, 8),
            lsn: read_u64(bytes, 16),
            synced: read_u64(bytes, 24),
        })
    }

    /// Bytes of the whole record. `None` where no file can be that long.
    pub fn total(&self) -> Option<u64> {
        self.len.checked_add((HEADER_LEN + GRAIN - 1) as u64).map(|len| len & !(GRAIN as u64 - 1))
    }

    /// Whether a record's bytes, header first, have the payload that the header tells.
    pub fn fits(&self, record: &[u8]) -> bool {
        let end = HEADER_LEN + self.len as usize;
        crc32c::crc32c(&record[HEADER_LEN..end]) == self.payload_crc
            && record[end..].iter().all(|&byte| byte == 0)
    }
}

fn header_crc(bytes: &[u8], segment: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), bytes)
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Adds a record of these commands, unsealed.
pub fn push(out: &mut Vec<u8>, lsn: Lsn, commands: &[Logged<'_>]) {
    let start = out.len();
    out.resize(start + HEADER_LEN, 0);
    write_varint(out, commands.len() as u64);
    for command in commands {
        write_varint(out, command.db as u64);
        write_varint(out, command.args.len() as u64);
        for word in command.args.iter_from(0) {
            write_varint(out, word.len() as u64);
            out.extend_from_slice(word);
        }
    }
    finish(out, start, RECORD, lsn);
}

/// Adds a record of this payload, unsealed.
pub fn push_payload(out: &mut Vec<u8>, lsn: Lsn, payload: &[u8]) {
    let start = out.len();
    out.resize(start + HEADER_LEN, 0);
    out.extend_from_slice(payload);
    finish(out, start, RECORD, lsn);
}

/// Adds padding, unsealed, so that `out` gets a multiple of `alignment` long.
pub fn pad(out: &mut Vec<u8>, alignment: usize, lsn: Lsn) {
    let len = out.len();
    let mut end = len.next_multiple_of(alignment);
    if end != len {
        if end - len < HEADER_LEN {
            end += alignment;
        }
        push_padding(out, end, lsn);
    }
}

/// Adds padding, unsealed, so that `out` gets `len` bytes.
///
/// # Panics
/// Where there is no room for its header, or the room is no multiple of [`GRAIN`].
pub fn push_padding(out: &mut Vec<u8>, len: usize, lsn: Lsn) {
    let start = out.len();
    assert!(len >= start + HEADER_LEN && (len - start).is_multiple_of(GRAIN), "room for padding");
    out.resize(len, 0);
    finish(out, start, PADDING, lsn);
}

fn finish(out: &mut Vec<u8>, start: usize, magic: [u8; 4], lsn: Lsn) {
    let len = out.len() - start - HEADER_LEN;
    let crc = crc32c::crc32c(&out[start + HEADER_LEN..]);
    out.resize(out.len().next_multiple_of(GRAIN), 0);
    let header = &mut out[start..start + HEADER_LEN];
    header[..4].copy_from_slice(&magic);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    header[8..16].copy_from_slice(&(len as u64).to_le_bytes());
    header[16..24].copy_from_slice(&lsn.to_le_bytes());
}

/// Adds to unsealed records what their place tells. Sealing again for another place is fine.
pub fn seal(records: &mut [u8], segment: u64, synced: Lsn) {
    let mut rest = records;
    while !rest.is_empty() {
        let (_, total) = unsealed(rest);
        let (record, after) = rest.split_at_mut(total);
        record[24..32].copy_from_slice(&synced.to_le_bytes());
        let crc = header_crc(&record[..36], segment);
        record[36..40].copy_from_slice(&crc.to_le_bytes());
        rest = after;
    }
}

/// The LSN and length of the first of these records.
pub fn unsealed(records: &[u8]) -> (Lsn, usize) {
    let len = read_u64(records, 8) as usize;
    (read_u64(records, 16), (HEADER_LEN + len).next_multiple_of(GRAIN))
}

/// The commands of a payload, with their databases. `None` where it is none.
pub fn commands(payload: &[u8]) -> Option<Vec<(usize, OwnedArgs)>> {
    let mut rest = payload;
    let count = read_varint(&mut rest)?;
    let mut commands = Vec::new();
    for _ in 0..count {
        let db = usize::try_from(read_varint(&mut rest)?).ok().filter(|&db| db < DBS)?;
        let words = read_varint(&mut rest)?;
        if words == 0 || words > rest.len() as u64 {
            return None;
        }
        let mut args = OwnedArgs::default();
        for _ in 0..words {
            args.push(read_bytes(&mut rest)?);
        }
        commands.push((db, args));
    }
    rest.is_empty().then_some(commands)
}

/// Adds a number in pieces of 7 bits, the low ones first; the upper bit of a byte says that more follow.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes such a number.
pub fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes bytes behind their number.
pub fn read_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(read_varint(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_it_was_written_and_every_flipped_bit_is_found() {
        let (set, del) =
            (OwnedArgs::of([&b"SET"[..], b"k", &[0xff; 300]]), OwnedArgs::of(["DEL", ""]));
        let mut bytes = Vec::new();
        let logged = [Logged { db: 15, args: set.args() }, Logged { db: 0, args: del.args() }];
        push(&mut bytes, 7, &logged);
        seal(&mut bytes, 3, 5);
        let read = |bytes: &[u8]| {
            let header = Header::read(bytes, 3)?;
            (header.total()? == bytes.len() as u64 && header.fits(bytes)).then_some(header)
        };
        let header = read(&bytes).expect("it is whole");
        assert_eq!((header.lsn, header.synced, header.padding), (7, 5, false));
        let payload = &bytes[HEADER_LEN..HEADER_LEN + header.len as usize];
        assert_eq!(commands(payload), Some(vec![(15, set), (0, del)]));
        assert_eq!(Header::read(&bytes, 4), None, "it is of another segment");
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn padding_fills_the_room() {
        for room in (HEADER_LEN..200).step_by(GRAIN) {
            let mut bytes = Vec::new();
            push_padding(&mut bytes, room, 9);
            seal(&mut bytes, 1, 0);
            let header = Header::read(&bytes, 1).expect("it is whole");
            assert!(header.padding && header.fits(&bytes) && header.total() == Some(room as u64));
        }
    }

    #[test]
    fn any_bytes_are_commands_or_none() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..6)).collect();
            commands(&bytes);
            let long = [&[1, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 1][..], &bytes].concat();
            assert_eq!(commands(&long), None);
        }
    }
}
