//! What is to be known of a device before it is used: from the kernel's calls and from sysfs.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use crate::blocking::offload;
use crate::fs::{File, Metadata};

/// What a device, or the device under a file, takes. Lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    /// The length of the device or file.
    pub len: u64,
    /// Offsets and lengths of requests are multiples of this.
    pub logical_sector_len: u32,
    /// The least that the device, or the file system, writes without reading around it.
    pub physical_sector_len: u32,
    /// Memory addresses are multiples of this.
    pub memory_align: u32,
    /// Longer requests are split: a multiple of the logical sector.
    pub request_len_max: usize,
    /// How the device discards, `None` if it cannot. A file system is asked only when it is used.
    pub discard: Option<Discard>,
}

/// How a device discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Discard {
    /// Only whole pieces of this length, at a multiple of it, are given back.
    pub granularity: u64,
    /// Longer requests are split.
    pub len_max: u64,
}

/// The smallest page there is: larger ones make fewer segments.
const PAGE_LEN: u64 = 4096;
/// Where nobody says what alignment is needed.
const ALIGN_UNKNOWN: u32 = 4096;
/// The most that the kernel moves in one call, in whole sectors of any size up to 64 KiB.
const LEN_MAX: u64 = 0x7fff_0000;

impl Geometry {
    pub(super) async fn of(file: &File, metadata: &Metadata) -> io::Result<Geometry> {
        let is_device = !metadata.is_file();
        let numbers = if is_device { metadata.special_device() } else { metadata.device() };
        let queue = offload(move || Ok(Queue::of(numbers))).await?;
        let queue_sector_len = queue.number("logical_block_size").map(|len| len as u32);
        let (memory_align, logical_sector_len) = match metadata.direct_alignment() {
            Some(known) => known,
            None => {
                let sector_len = queue_sector_len.unwrap_or(ALIGN_UNKNOWN);
                let memory = queue.number("dma_alignment").map(|mask| mask as u32 + 1);
                (memory.unwrap_or(sector_len), sector_len)
            }
        };
        let (len, logical_sector_len, physical_sector_len) = if is_device {
            // Where a seek to the end leads is what BLKGETSIZE64 says.
            let len = file.seek(SeekFrom::End(0))?;
            let logical = rustix::fs::ioctl_blksszget(file)?;
            (len, logical.max(logical_sector_len), rustix::fs::ioctl_blkpbszget(file)?)
        } else {
            (metadata.len(), logical_sector_len, metadata.block_len())
        };
        let request_len_max = [
            queue.number("max_sectors_kb").map(|len| len * 1024),
            // Each page may be a segment of its own.
            queue.number("max_segments").map(|count| count * PAGE_LEN),
            Some(LEN_MAX),
        ];
        let request_len_max = request_len_max.into_iter().flatten().min().unwrap_or(LEN_MAX);
        let sector_len = u64::from(logical_sector_len);
        let request_len_max = (request_len_max / sector_len).max(1) * sector_len;
        let discard = if is_device {
            queue.number("discard_max_bytes").filter(|&len| len >= sector_len).map(|len| Discard {
                granularity: queue.number("discard_granularity").unwrap_or(0).max(sector_len),
                len_max: len / sector_len * sector_len,
            })
        } else {
            Some(Discard { granularity: metadata.block_len().into(), len_max: u64::MAX })
        };
        Ok(Geometry {
            len,
            logical_sector_len,
            physical_sector_len: physical_sector_len.max(logical_sector_len),
            memory_align,
            request_len_max: request_len_max as usize,
            discard,
        })
    }
}

/// The numbers that sysfs has of a device's queue.
struct Queue(Vec<(&'static str, u64)>);

const NAMES: [&str; 6] = [
    "logical_block_size",
    "dma_alignment",
    "max_sectors_kb",
    "max_segments",
    "discard_granularity",
    "discard_max_bytes",
];

impl Queue {
    /// Of the device with these numbers, or of the one that it is a partition of. What is on no
    /// device (tmpfs, a network, several devices) has none.
    fn of((major, minor): (u32, u32)) -> Queue {
        let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let number = |name| {
            [device.join("queue"), device.join("../queue")]
                .iter()
                .find_map(|queue| read_number(&queue.join(name)))
                .map(|number| (name, number))
        };
        Queue(NAMES.into_iter().filter_map(number).collect())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
    }
}

fn read_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
