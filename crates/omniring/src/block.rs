//! Block devices, and files used as such: requests past the page cache that are checked against what
//! the device takes, and split where it takes no more at a time.
//!
//! Deliberately not here: caching, queueing and scheduling; those are the caller's and the kernel's.

mod geometry;

use std::fmt;
use std::io;
use std::path::Path;

use omniring_driver::ops::{self, SplitLimits};

pub use self::geometry::{Discard, Geometry};

use crate::buf::{AlignedBuf, IoBuf, IoBufMut};
use crate::fs::{self, File, FileType, OpenOptions};
use crate::raw_os_error;

/// How to open a [`BlockDevice`].
#[derive(Clone, Debug, Default)]
pub struct Options {
    read_only: bool,
    buffered_if_refused: bool,
    request_len_max: Option<usize>,
}

impl Options {
    /// For reading and writing, past the page cache or not at all.
    pub fn new() -> Options {
        Options::default()
    }

    /// For reading only.
    pub fn read_only(&mut self, read_only: bool) -> &mut Options {
        self.read_only = read_only;
        self
    }

    /// Where the file system does not take `O_DIRECT`, goes through the page cache instead of
    /// failing. [`BlockDevice::is_direct`] tells which it was.
    pub fn buffered_if_refused(&mut self, buffered: bool) -> &mut Options {
        self.buffered_if_refused = buffered;
        self
    }

    /// Splits requests at this many bytes, if the device's own limit is not lower. It is rounded
    /// down to whole sectors, and is one at least.
    pub fn request_len_max(&mut self, len: usize) -> &mut Options {
        self.request_len_max = Some(len);
        self
    }

    /// Opens a block device or a regular file. The error names the path and what to do.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn open(&self, path: impl AsRef<Path>) -> io::Result<BlockDevice> {
        let path = path.as_ref();
        let naming =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut options = OpenOptions::new();
        options.read(true).write(!self.read_only).direct(true);
        let (file, is_direct) = match options.open(path).await {
            Ok(file) => (file, true),
            Err(error) if raw_os_error(&error) != Some(libc::EINVAL) => return Err(naming(error)),
            Err(error) => {
                is_device(fs::metadata(path).await.map_err(naming)?.file_type()).map_err(naming)?;
                if !self.buffered_if_refused {
                    // The error names file and file system.
                    return Err(invalid(format!(
                        "{error}; put it on one that takes it (ext4, xfs), or allow the page cache \
                         with Options::buffered_if_refused"
                    )));
                }
                (options.direct(false).open(path).await.map_err(naming)?, false)
            }
        };
        let metadata = file.metadata().await.map_err(naming)?;
        let is_device = is_device(metadata.file_type()).map_err(naming)?;
        let mut geometry = Geometry::of(&file, &metadata).await.map_err(naming)?;
        if !is_direct {
            geometry.memory_align = 1;
        }
        if let Some(len) = self.request_len_max {
            let sector_len = geometry.logical_sector_len as usize;
            let len = (len / sector_len).max(1) * sector_len;
            geometry.request_len_max = geometry.request_len_max.min(len);
        }
        Ok(BlockDevice { file, geometry, is_device, is_direct })
    }
}

/// Whether it is a block device rather than a regular file; an error if it is neither.
fn is_device(kind: FileType) -> io::Result<bool> {
    match kind {
        FileType::BlockDevice => Ok(true),
        FileType::File => Ok(false),
        kind => Err(invalid(format!("{kind:?} is neither a block device nor a regular file"))),
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// A block device, or a regular file used as one.
///
/// Reads and writes go past the page cache; offset, length and memory have to be aligned, and a
/// request that is not is refused with an error that says what is needed. Requests longer than the
/// device takes are split, with several parts in flight together. Any number of requests can be in
/// flight; what order they are carried out in is not known. Clones share the open file.
///
/// ```
/// use omniring::block::BlockDevice;
/// # let path = std::env::temp_dir().join(format!("omniring-block-{}", std::process::id()));
/// # std::fs::write(&path, vec![0; 1 << 20])?;
/// # let open = async |path| {
/// #     let mut options = omniring::block::Options::new();
/// #     options.buffered_if_refused(true).open(path).await
/// # };
/// # omniring::Runtime::new()?.block_on(async {
/// # /*
/// let device = BlockDevice::open("/dev/nvme0n1").await?;
/// # */
/// # let device: BlockDevice = open(&path).await?;
/// let mut buf = device.aligned_buf(64 * 1024);
/// buf.fill(7);
/// let (result, buf) = device.write_at(buf, 4096).await;
/// result?;
/// device.flush().await?;
/// let (result, buf) = device.read_at(buf, 4096).await;
/// assert_eq!((result?, buf[0]), (64 * 1024, 7));
/// let error = device.read_at(buf, 1).await.0.unwrap_err();
/// assert!(error.to_string().contains("multiples of"), "{error}");
/// # std::io::Result::Ok(())
/// # })?;
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BlockDevice {
    file: File,
    geometry: Geometry,
    is_device: bool,
    is_direct: bool,
}

impl BlockDevice {
    /// Opens a block device or a regular file for reading and writing: see [`Options`].
    pub async fn open(path: impl AsRef<Path>) -> io::Result<BlockDevice> {
        Options::new().open(path).await
    }

    /// What is known of the device, as it was when it was opened.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Whether it is a block device, rather than a regular file.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// Whether it is used past the page cache (`O_DIRECT`).
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// The open file, for what is not here.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Zeroed memory that is aligned as the device needs it, of `len` bytes rounded up to whole
    /// sectors.
    pub fn aligned_buf(&self, len: usize) -> AlignedBuf {
        let Geometry { logical_sector_len, memory_align, .. } = self.geometry;
        let len = len.next_multiple_of(logical_sector_len as usize);
        AlignedBuf::new(len, memory_align.max(logical_sector_len) as usize)
    }

    /// Reads at `offset` in bytes into `buf`, up to its capacity: the bytes read, fewer only at the
    /// end of the device. If part of it cannot be read, the error says where the first sector is
    /// that cannot be; what lies before it is in the buffer.
    ///
    /// Dropping the future cancels the read; the buffer goes when the kernel is done with it.
    pub async fn read_at<B: IoBufMut>(&self, mut buf: B, offset: u64) -> (Result<usize, Error>, B) {
        let len = buf.capacity();
        if let Err(error) = self.check("read", offset, len as u64, Some(buf.as_mut_ptr())) {
            return (Err(error), buf);
        }
        if len <= self.geometry.request_len_max {
            let (result, filled) = self.file.read_at(buf, offset).await;
            if matches!(result, Ok(count) if count == len) {
                return (Ok(len), filled);
            }
            // The end, or a sector that cannot be read: what exactly is found out below.
            buf = filled;
        }
        let (result, buf) =
            ops::read_split(&self.file.handle, buf, offset, self.split_limits()).await;
        (result.map_err(Error::at), buf)
    }

    /// Writes all initialised bytes of `buf` at `offset` in bytes, where the device has room for
    /// them. They are durable after the next [`flush`](BlockDevice::flush). If part of them cannot
    /// be written, the error says where the first sector is that cannot be; sectors behind it may
    /// have been written.
    ///
    /// Dropping the future cancels the write, which may have happened, wholly or in part.
    pub async fn write_at<B: IoBuf>(&self, mut buf: B, offset: u64) -> (Result<(), Error>, B) {
        let len = buf.len();
        let checked = self
            .check("write", offset, len as u64, Some(buf.as_ptr()))
            .and_then(|()| self.check_end("write", offset, len as u64));
        if let Err(error) = checked {
            return (Err(error), buf);
        }
        if len <= self.geometry.request_len_max {
            let (result, written) = self.file.write_at(buf, offset).await;
            if matches!(result, Ok(count) if count == len) {
                return (Ok(()), written);
            }
            buf = written;
        }
        let (result, buf) =
            ops::write_split(&self.file.handle, buf, offset, self.split_limits()).await;
        (result.map(drop).map_err(Error::at), buf)
    }

    /// Makes durable what was written (`fdatasync(2)`, which empties the device's own cache).
    pub async fn flush(&self) -> io::Result<()> {
        self.file.sync_data().await
    }

    /// Gives `len` bytes from `offset` on back to the device, or the file system: their contents are
    /// of no use any more. A file reads as zeros there afterwards; what a device reads as is its to
    /// say. A device that cannot discard fails with `EOPNOTSUPP`: see [`Geometry::discard`].
    pub async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.check("discard", offset, len, None)?;
        self.check_end("discard", offset, len)?;
        let len_max = self.geometry.discard.map_or(u64::MAX, |discard| discard.len_max);
        let mut done = 0;
        while done < len {
            let (at, part) = (offset + done, (len - done).min(len_max));
            let discarded = if self.is_device {
                ops::discard(&self.file.handle, at, part).await
            } else {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                ops::allocate(&self.file.handle, mode, at, part).await
            };
            discarded.map_err(|error| Error::at((at, error)))?;
            done += part;
        }
        Ok(())
    }

    /// Makes `len` bytes from `offset` on zeros, without moving any where the device or the file
    /// system knows how (`fallocate(2)` with `FALLOC_FL_ZERO_RANGE`). A file system that does not
    /// fails with `EOPNOTSUPP`.
    pub async fn write_zeros(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.check("write of zeros", offset, len, None)?;
        self.check_end("write of zeros", offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        let zeroed = ops::allocate(&self.file.handle, mode, offset, len).await;
        zeroed.map(drop).map_err(|error| Error::at((offset, error)))
    }

    /// Closes the device and says whether that went well: see [`File::close`].
    pub async fn close(self) -> io::Result<()> {
        self.file.close().await
    }

    fn split_limits(&self) -> SplitLimits {
        SplitLimits {
            part_len: self.geometry.request_len_max,
            align: self.geometry.logical_sector_len as usize,
        }
    }

    /// Whether the request is one that the device takes.
    fn check(
        &self,
        what: &str,
        offset: u64,
        len: u64,
        memory: Option<*const u8>,
    ) -> Result<(), Error> {
        let Geometry { logical_sector_len, memory_align, .. } = self.geometry;
        let sector_len = u64::from(logical_sector_len);
        let is_aligned = offset.is_multiple_of(sector_len) && len.is_multiple_of(sector_len);
        let address = memory.map_or(0, |start| start.addr() as u64);
        if is_aligned && (len == 0 || address.is_multiple_of(memory_align.into())) {
            return Ok(());
        }
        let mut message = format!(
            "a {what} of {len} bytes at offset {offset}: offset and length have to be multiples of \
             {sector_len} bytes"
        );
        if memory.is_some() {
            message.push_str(&format!(
                ", the memory's address ({address:#x}) of {memory_align} bytes; \
                 BlockDevice::aligned_buf allocates such memory"
            ));
        }
        Err(Error::at((offset, invalid(message))))
    }

    /// Whether it ends on the device, which does not grow.
    fn check_end(&self, what: &str, offset: u64, len: u64) -> Result<(), Error> {
        let device_len = self.geometry.len;
        if offset.checked_add(len).is_some_and(|end| end <= device_len) {
            return Ok(());
        }
        let message = format!(
            "a {what} of {len} bytes at offset {offset} ends past the device's {device_len} bytes"
        );
        Err(Error::at((offset, invalid(message))))
    }
}

/// Why a request to a [`BlockDevice`] failed, and where.
#[derive(Debug)]
pub struct Error {
    offset: u64,
    source: io::Error,
}

impl Error {
    fn at((offset, source): (u64, io::Error)) -> Error {
        Error { offset, source }
    }

    /// Of the first byte that is concerned, from the start of the device.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The kernel's error number; `None` where the request was refused before it was submitted.
    pub fn raw_os_error(&self) -> Option<i32> {
        raw_os_error(&self.source)
    }

    /// What kind of error it is; `InvalidInput` for a request that was refused.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.raw_os_error() {
            Some(_) => write!(f, "at byte {}: {}", self.offset, self.source),
            None => write!(f, "{}", self.source),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Without the offset, but with the kernel's error number.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        error.source
    }
}
