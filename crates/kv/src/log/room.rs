//! Room for the log, made ahead: files of zeros that become segments.
//!
//! Where a file system keeps a journal a sync is two to three times as quick if what was written changes no metadata. So
//! a segment's room is written once before it is used. What is written so has to reach the medium too, and the next sync
//! of the log waits for it: while the log is in use, room is made just as quickly as it is used up, in small pieces.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::disk::Disk;
use super::segment::{TEMPORARY, name_of};

/// Bytes that are written at once, and the pause after them: about 50 MB/s while nobody else uses the disk.
const PIECE_LEN: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(1);
/// Pauses without a sync after which the log is not in use.
const QUIET: u32 = 20;

/// A file that becomes a segment, its name until then, and its room in bytes.
pub(super) struct Spare<F> {
    pub name: String,
    pub len: u64,
    pub file: io::Result<F>,
}

/// How much of the segment that is being written is used up: bytes, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Used {
    at: Cell<u64>,
    len: Cell<u64>,
}

impl Used {
    pub(super) fn set(&self, at: u64, len: u64) {
        self.at.set(at);
        self.len.set(len);
    }

    /// The next segment is wanted as soon as can be.
    pub(super) fn hurry(&self) {
        self.set(u64::MAX, 1);
    }

    /// Whether the greater part of that segment is used up than is made of the next one, `at` of `len` bytes.
    fn is_ahead_of(&self, at: u64, len: u64) -> bool {
        u128::from(self.at.get()) * u128::from(len) > u128::from(at) * u128::from(self.len.get())
    }
}

/// Makes a file that becomes a segment, at once.
pub(super) async fn make<D: Disk>(disk: &D, number: u64, len: u64) -> Spare<D::File> {
    make_with(disk, number, len, async |_| ()).await
}

/// Makes a file that becomes a segment while another one is in use.
pub(super) async fn make_beside<D: Disk>(
    disk: Rc<D>,
    number: u64,
    len: u64,
    shared: Arc<Shared>,
    used: Rc<Used>,
) -> Spare<D::File> {
    let mut quiet = QUIET;
    let mut syncs = 0;
    let rest = async |made| {
        loop {
            disk.pause(PAUSE).await;
            let now = shared.syncs.load(Ordering::Relaxed);
            quiet = if now == syncs { quiet.saturating_add(1) } else { 0 };
            syncs = now;
            if quiet >= QUIET || used.is_ahead_of(made, len) {
                break;
            }
        }
    };
    make_with(&*disk, number, len, rest).await
}

async fn make_with<D: Disk>(
    disk: &D,
    number: u64,
    len: u64,
    rest: impl AsyncFnMut(u64),
) -> Spare<D::File> {
    let name = name_of(number, TEMPORARY);
    let file = fill(disk, &name, len, rest).await;
    Spare { name, len, file }
}

/// Makes a file of zeros; between pieces `rest` is told how many there are, and waited for.
async fn fill<D: Disk>(
    disk: &D,
    name: &str,
    len: u64,
    mut rest: impl AsyncFnMut(u64),
) -> io::Result<D::File> {
    let file = disk.create(name, len).await?;
    let piece_len = PIECE_LEN.max(disk.alignment());
    let mut buf = disk.buffer(piece_len).await;
    buf.fill(0);
    let mut at = 0;
    while at < len {
        let piece = (len - at).min(piece_len as u64) as usize;
        let (done, given_back) = disk.write(&file, buf, piece, at, false).await;
        done?;
        buf = given_back;
        at += piece as u64;
        if at < len {
            rest(at).await;
        }
    }
    disk.sync(&file).await?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::simulated::Simulated;
    use super::*;

    #[test]
    fn a_rest_is_between_two_pieces_and_not_after_the_last() {
        let disk = Simulated::new(1);
        let (len, mut rests) = (2 * PIECE_LEN as u64 + 4096, Vec::new());
        let fill = fill(&disk, "spare", len, async |made| rests.push(made));
        omniring::Runtime::new().unwrap().block_on(fill).unwrap();
        assert_eq!(rests, [PIECE_LEN as u64, 2 * PIECE_LEN as u64]);
        assert_eq!(disk.files(), [("spare".to_owned(), vec![0; len as usize])]);
    }

    #[test]
    fn the_next_segment_is_made_as_quickly_as_this_one_is_used_up() {
        let used = Used::default();
        assert!(!used.is_ahead_of(0, 100), "nothing is known of it yet");
        used.set(4, 8);
        assert!(used.is_ahead_of(49, 100));
        assert!(!used.is_ahead_of(50, 100));
        used.set(12, 8);
        assert!(used.is_ahead_of(99, 100), "it goes on for longer than it should");
        used.set(1, 8);
        used.hurry();
        assert!(used.is_ahead_of(u64::MAX - 1, u64::MAX));
    }
}
