//! The file that the file workloads read, and the one beside it that the write
//! workloads write.
//!
//! INV-OWN: a file that was there before us is only ever opened for reading.
//! Writes go to a file of our own, and every file that we made is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::sys::statvfs::statvfs;

use crate::cleanup::OwnFile;
use crate::error::Error;
use crate::progress::Progress;

/// Smallest file that tells anything.
pub const BYTES_MIN: u64 = 1 << 20;

/// Most of the file that the page cache rows read.
pub const HOT_BYTES_MAX: u64 = 256 << 20;

/// Largest file that the write rows write.
pub const WRITE_BYTES_MAX: u64 = 256 << 20;

const CHUNK: usize = 1 << 20;

/// The files of a run.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    bytes: u64,
    made: Option<OwnFile>,
    written: Option<OwnFile>,
}

/// A size on the command line: bytes, or a number with K, M, G or T (powers of
/// 1024), optionally followed by B or iB.
pub fn parse_size(text: &str) -> Result<u64, Error> {
    let bad = |problem| Error::Size { text: text.to_owned(), problem };
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match number.char_indices().last() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => {
            let shift = match unit {
                'k' => 10,
                'm' => 20,
                'g' => 30,
                't' => 40,
                _ => return Err(bad("has an unknown unit")),
            };
            (&number[..at], shift)
        }
        _ => (number, 0),
    };
    let count: u64 = digits.trim().parse().map_err(|_| bad("is not a number"))?;
    let bytes = count.checked_mul(1 << shift).ok_or(bad("is too large"))?;
    match bytes {
        0 => Err(bad("is nothing to read")),
        small if small < BYTES_MIN => Err(bad("is too small to measure")),
        i64_max if i64_max > i64::MAX as u64 => Err(bad("is too large")),
        _ => Ok(bytes),
    }
}

impl Target {
    /// Takes the file at `path` if there is one, else makes it with `bytes` bytes;
    /// without a path, makes one in the current directory. With `writes`, makes
    /// the file for the write workloads beside it.
    pub fn prepare(
        path: Option<&Path>,
        bytes: u64,
        writes: bool,
        progress: &Progress,
    ) -> Result<Target, Error> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => PathBuf::from(format!("omniring-bench-{}.tmp", std::process::id())),
        };
        let bytes = bytes / CHUNK as u64 * CHUNK as u64;
        let (made, bytes) = match existing(&path)? {
            Some(found) => (None, found),
            None => (Some(make(&path, bytes, progress)?), bytes),
        };
        let written = if writes {
            let mut name = path.clone().into_os_string();
            name.push(format!(".write-{}.tmp", std::process::id()));
            Some(make(Path::new(&name), bytes.min(WRITE_BYTES_MAX), progress)?)
        } else {
            None
        };
        Ok(Target { path, bytes, made, written })
    }

    /// The file to read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file to write, our own.
    pub fn write_path(&self) -> Option<&Path> {
        self.written.as_ref().map(OwnFile::path)
    }

    /// Length of the file to read, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Length of the file to write, in bytes.
    pub fn write_bytes(&self) -> u64 {
        self.bytes.min(WRITE_BYTES_MAX)
    }

    /// How much of the file the page cache rows read, in bytes from its start.
    pub fn hot_bytes(&self) -> u64 {
        self.bytes.min(HOT_BYTES_MAX)
    }

    /// Whether we made the file to read.
    pub fn is_ours(&self) -> bool {
        self.made.is_some()
    }

    /// Whether parts of the file are holes, which no device is asked for.
    pub fn is_sparse(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|data| data.blocks() * 512 < data.len() / 100 * 99)
    }

    /// Whether the file system opens the file with O_DIRECT.
    pub fn has_direct(&self) -> bool {
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&self.path).is_ok()
    }

    /// Has the page cache let go of the file, so that O_DIRECT reads need not
    /// look there.
    pub fn leave_page_cache(&self) -> io::Result<()> {
        let file = File::open(&self.path)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        Ok(())
    }

    /// Reads the hot part of the file into the page cache.
    pub fn enter_page_cache(&self) -> io::Result<()> {
        let mut file = File::open(&self.path)?.take(self.hot_bytes());
        let mut chunk = vec![0; CHUNK];
        while file.read(&mut chunk)? > 0 {}
        Ok(())
    }
}

/// Length of the file at `path`, if there is one that can be read.
fn existing(path: &Path) -> Result<Option<u64>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    let data = match fs::metadata(path) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let kind = data.file_type();
    if kind.is_dir() {
        return Err(Error::IsDirectory { path: path.to_owned() });
    }
    if kind.is_fifo() || kind.is_socket() || !kind.is_file() {
        return Err(Error::NotRegular { path: path.to_owned() });
    }
    File::open(path).map_err(unreadable)?;
    if data.len() < BYTES_MIN {
        return Err(Error::FileTooSmall { path: path.to_owned(), bytes: data.len() });
    }
    Ok(Some(data.len()))
}

/// Makes a file full of noise, on the device when this returns and out of the
/// page cache as far as the kernel cares to.
fn make(path: &Path, bytes: u64, progress: &Progress) -> Result<OwnFile, Error> {
    let cannot = |source| Error::CannotMake { path: path.to_owned(), source };
    let no_space = |free| Error::NoSpace { path: path.to_owned(), wanted: bytes, free };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let free = statvfs(directory)
        .map(|system| system.blocks_available() * system.fragment_size())
        .map_err(|error| cannot(error.into()))?;
    if free < bytes {
        return Err(no_space(free));
    }
    // Only a file that this very call created is ours to remove.
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(cannot)?;
    let own = OwnFile::new(path.to_owned());
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => no_space(free),
        _ => cannot(error),
    };
    if let Err(error) = fallocate(&file, FallocateFlags::empty(), 0, bytes as i64) {
        let error = io::Error::from(error);
        if error.kind() == io::ErrorKind::StorageFull {
            return Err(no_space(free));
        } // else the file system knows no such call
    }
    progress.filling(path, bytes);
    let mut random = fastrand::Rng::with_seed(bytes);
    let mut chunk = vec![0; CHUNK];
    for _ in 0..bytes / CHUNK as u64 {
        random.fill(&mut chunk);
        file.write_all(&chunk).map_err(told)?;
        progress.filled(CHUNK as u64);
    }
    file.sync_all().map_err(told)?;
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_size("1048576").unwrap(), 1 << 20);
        assert_eq!(parse_size("512M").unwrap(), 512 << 20);
        assert_eq!(parse_size("2gib").unwrap(), 2 << 30);
        assert_eq!(parse_size("4 GB").unwrap(), 4 << 30);
        for bad in ["0", "", "x", "-1", "1X", "99999999T", "1.5G", "1000"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_made_file_is_full_of_noise_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let target = Target::prepare(Some(&path), 3 << 20, true, &Progress::hidden()).unwrap();
        assert!(target.is_ours() && !target.is_sparse());
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 3 << 20);
        assert!(bytes.chunks(4096).all(|block| block.iter().any(|&byte| byte != 0)));
        let written = target.write_path().unwrap().to_owned();
        assert_eq!(fs::metadata(&written).unwrap().len(), 3 << 20);
        drop(target);
        assert!(!path.exists() && !written.exists());
    }

    #[test]
    fn a_file_that_was_there_stays_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, vec![7; 2 << 20]).unwrap();
        let target = Target::prepare(Some(&path), 64 << 20, true, &Progress::hidden()).unwrap();
        assert_eq!((target.bytes(), target.is_ours()), (2 << 20, false));
        assert_ne!(target.write_path(), Some(path.as_path()));
        target.enter_page_cache().unwrap();
        target.leave_page_cache().unwrap();
        drop(target);
        assert_eq!(fs::read(&path).unwrap(), vec![7; 2 << 20]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_a_file_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &Path, bytes| {
            Target::prepare(Some(path), bytes, false, &Progress::hidden()).unwrap_err()
        };
        assert!(matches!(at(directory.path(), 1 << 20), Error::IsDirectory { .. }));
        assert!(matches!(at(Path::new("/dev/null"), 1 << 20), Error::NotRegular { .. }));
        let missing = directory.path().join("no/such/place");
        assert!(matches!(at(&missing, 1 << 20), Error::CannotMake { .. }));
        let huge = directory.path().join("huge");
        assert!(matches!(at(&huge, 1 << 60), Error::NoSpace { .. }));
        assert!(!huge.exists());
        let small = directory.path().join("small");
        fs::write(&small, b"x").unwrap();
        assert!(matches!(at(&small, 1 << 20), Error::FileTooSmall { bytes: 1, .. }));
    }
}
