//! A file as memory.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};

use memmap2::UncheckedAdvice;

use crate::buf::IoBuf;

/// A part of a file as a slice of bytes, mapped into memory for reading (`mmap(2)`, shared).
///
/// It needs no runtime and outlives the file it was made of. What it is good for is data that is
/// read often and mostly is in the page cache already: nothing is copied and no system call is made.
/// What it costs is control: touching a page that is not in memory makes the thread wait for the
/// device, with every task that runs on it. [`Advice::WillNeed`] starts the reading ahead of that;
/// otherwise touch it in [`spawn_blocking`](crate::spawn_blocking), or read with
/// [`File::read_at`](super::File::read_at), which waits for nobody.
///
/// As a buffer it can be written to files and sockets. If the kernel finds no page there, that fails
/// with `EFAULT`.
///
/// ```
/// use omniring::fs::{Advice, Mmap};
/// # let path = std::env::temp_dir().join(format!("omniring-mmap-{}", std::process::id()));
/// # std::fs::write(&path, "the quick brown fox")?;
/// let file = std::fs::File::open(&path)?;
/// // SAFETY: nobody changes or cuts the file: it has just been made, and is ours.
/// let mmap = unsafe { Mmap::map(&file)? };
/// mmap.advise(Advice::Random)?;
/// assert_eq!(&mmap[4..9], b"quick");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Mmap {
    inner: memmap2::Mmap,
}

/// How a mapping is going to be used: see `madvise(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// In no special way (`MADV_NORMAL`).
    Normal,
    /// In random order: reading ahead is of no use (`MADV_RANDOM`).
    Random,
    /// From the start to the end: read far ahead (`MADV_SEQUENTIAL`).
    Sequential,
    /// Soon: start to read it in (`MADV_WILLNEED`).
    WillNeed,
    /// Not soon: the pages leave this process, and come back out of the file when they are touched
    /// (`MADV_DONTNEED`).
    DontNeed,
}

impl Mmap {
    /// Maps the whole of a file as long as it is now. For a block device, whose metadata has no
    /// length, use [`Mmap::map_range`].
    ///
    /// # Safety
    /// While the mapping exists nobody, in this process or in another, may change the bytes that are
    /// mapped, or make the file so short that it does not reach to the end of the mapping. The first
    /// is undefined behaviour, because a slice's bytes do not change; the second ends the process
    /// with `SIGBUS` when such a page is touched, as an error of the device does at any time.
    /// Nothing enforces this: a file that others can write to cannot be mapped soundly.
    pub unsafe fn map(file: &impl AsFd) -> io::Result<Mmap> {
        // SAFETY: the caller's contract is the same.
        let inner = unsafe { memmap2::MmapOptions::new().map(file.as_fd().as_raw_fd())? };
        Ok(Mmap { inner })
    }

    /// Maps `len` bytes from `offset` on, which need not be aligned.
    ///
    /// # Safety
    /// As for [`Mmap::map`]. That the file reaches to the end of the range is for the caller to see
    /// to: it is not checked.
    pub unsafe fn map_range(file: &impl AsFd, offset: u64, len: usize) -> io::Result<Mmap> {
        let mut options = memmap2::MmapOptions::new();
        // SAFETY: the caller's contract is the same.
        let inner = unsafe { options.offset(offset).len(len).map(file.as_fd().as_raw_fd())? };
        Ok(Mmap { inner })
    }

    /// Tells the kernel how the mapping is going to be used. What it reads is the same in any case.
    pub fn advise(&self, advice: Advice) -> io::Result<()> {
        self.advise_range(advice, 0, self.inner.len())
    }

    /// Tells the kernel how `len` bytes from `start` on are going to be used, with the pages that
    /// they lie in.
    ///
    /// # Panics
    /// If the range does not lie in the mapping.
    pub fn advise_range(&self, advice: Advice, start: usize, len: usize) -> io::Result<()> {
        let is_within = start.checked_add(len).is_some_and(|end| end <= self.inner.len());
        assert!(is_within, "{len} bytes from {start} on, of {}", self.inner.len());
        if len == 0 {
            return Ok(());
        }
        let advice = match advice {
            Advice::Normal => memmap2::Advice::Normal,
            Advice::Random => memmap2::Advice::Random,
            Advice::Sequential => memmap2::Advice::Sequential,
            Advice::WillNeed => memmap2::Advice::WillNeed,
            Advice::DontNeed => {
                // SAFETY: the mapping is shared and was never written through: the pages come back
                // with the same contents.
                return unsafe {
                    self.inner.unchecked_advise_range(UncheckedAdvice::DontNeed, start, len)
                };
            }
        };
        self.inner.advise_range(advice, start, len)
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.inner
    }
}

impl AsRef<[u8]> for Mmap {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

// SAFETY: the bytes are mapped until the value is dropped, wherever it is moved; by the contract of
// `map` they do not change.
unsafe impl IoBuf for Mmap {
    fn as_ptr(&self) -> *const u8 {
        self.inner.as_ptr()
    }

    fn len(&self) -> usize {
        self.inner.len()
    }
}

impl fmt::Debug for Mmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mmap").field("len", &self.inner.len()).finish_non_exhaustive()
    }
}
