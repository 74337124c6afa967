//! One file: its parts, several at once, without the holes; and then its mode and times.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use omniring::buf::IoBufExt;
use omniring::fs::{self, File, Metadata, OpenOptions};
use omniring::{TaskGroup, spawn_blocking};
use rustix::fs::{Mode, SeekFrom, Timespec, Timestamps, fchmod, futimens, seek};
use rustix::io::Errno;

/// In how many parts at once, and how long each is in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub count_max: usize,
    pub len: usize,
}

/// Removes a new file that is not complete.
struct Unfinished<'a>(Option<&'a Path>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What is still to be copied, for all who copy parts of one file.
struct Left {
    from: File,
    /// Where the next part begins.
    at: Cell<u64>,
    /// Where the data at `at` ends, and a hole begins.
    data_end: Cell<u64>,
    len: u64,
}

impl Left {
    /// The next part that is no hole: where it begins and how long it is.
    fn next(&self, len_max: usize) -> io::Result<Option<(u64, usize)>> {
        if self.at.get() >= self.data_end.get() {
            let (data, hole) = match seek(&self.from, SeekFrom::Data(self.at.get())) {
                Ok(data) => (data, seek(&self.from, SeekFrom::Hole(data))?),
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => (self.len, self.len),
                // This file system knows of no holes.
                Err(Errno::INVAL) => (self.at.get(), self.len),
                Err(error) => return Err(error.into()),
            };
            self.at.set(data);
            self.data_end.set(hole);
        }
        let (at, end) = (self.at.get(), self.data_end.get().min(self.len));
        let len = end.saturating_sub(at).min(len_max as u64);
        self.at.set(at + len);
        Ok((len > 0).then_some((at, len as usize)))
    }
}

/// Copies a file: its length in bytes, or what failed and on which of the two.
pub async fn copy_file(
    from: &Path,
    to: &Path,
    as_was: &Metadata,
    parts: Parts,
    bar: &ProgressBar,
) -> Result<u64, (PathBuf, io::Error)> {
    let of = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    let mut unfinished = Unfinished(None);
    // Before it is truncated, and by whatever name.
    match fs::metadata(to).await {
        Ok(there) if !there.is_file() => {
            let what = format!("it is there already, as a {:?}", there.file_type());
            return Err((to.to_owned(), io::Error::other(what)));
        }
        Ok(there) if (there.device(), there.inode()) == (as_was.device(), as_was.inode()) => {
            let what = format!("not copied onto itself, {}", from.display());
            return Err((to.to_owned(), io::Error::other(what)));
        }
        Ok(_) => {}
        Err(_) => unfinished.0 = Some(to),
    }
    let source = File::open(from).await.map_err(of(from))?;
    // Others see nothing of it before its mode is known.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let target = options.open(to).await.map_err(of(to))?;
    let len = as_was.len();
    target.set_len(len).await.map_err(of(to))?;
    let left = Left { from: source, at: Cell::new(0), data_end: Cell::new(0), len };
    let left = Rc::new(left);
    let mut copying = TaskGroup::new();
    let count = len.div_ceil(parts.len as u64).min(parts.count_max as u64);
    for _ in 0..count {
        let (left, target, bar) = (left.clone(), target.clone(), bar.clone());
        copying.spawn(async move { copy_parts(&left, &target, parts.len, &bar).await });
    }
    copying.try_join_all().await.map_err(|(is_source, error)| match is_source {
        true => of(from)(error),
        false => of(to)(error),
    })?;
    keep(target, as_was).await.map_err(of(to))?;
    unfinished.0 = None;
    Ok(len)
}

/// Copies one part after the other. An error says whether it is the source's.
async fn copy_parts(
    left: &Left,
    target: &File,
    len_max: usize,
    bar: &ProgressBar,
) -> Result<(), (bool, io::Error)> {
    let mut buf = Vec::with_capacity(len_max.min(left.len as usize));
    while let Some((at, len)) = left.next(len_max).map_err(|error| (true, error))? {
        buf.clear();
        let (result, part) = left.from.read_exact_at(buf.slice(..len), at).await;
        result.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => (true, io::Error::other("it has become shorter")),
            _ => (true, error),
        })?;
        let (result, part) = target.write_all_at(part, at).await;
        result.map_err(|error| (false, error))?;
        buf = part.into_inner();
        bar.inc(len as u64);
    }
    Ok(())
}

/// When it was read and written, for the copy.
pub fn times_of(as_was: &Metadata) -> Timestamps {
    let timespec = |time: SystemTime| match time.duration_since(UNIX_EPOCH) {
        Ok(since) => {
            Timespec { tv_sec: since.as_secs() as i64, tv_nsec: since.subsec_nanos().into() }
        }
        // Before 1970: nanoseconds count upwards all the same.
        Err(before) => {
            let before = before.duration();
            let is_whole = before.subsec_nanos() == 0;
            Timespec {
                tv_sec: -(before.as_secs() as i64) - i64::from(!is_whole),
                tv_nsec: if is_whole {
                    0
                } else {
                    1_000_000_000 - i64::from(before.subsec_nanos())
                },
            }
        }
    };
    Timestamps {
        last_access: timespec(as_was.accessed()),
        last_modification: timespec(as_was.modified()),
    }
}

/// Gives a file or directory the mode and times of another; without the bits that run a program as its owner,
/// who may be another by now.
pub async fn keep(copy: File, as_was: &Metadata) -> io::Result<()> {
    let (mode, times) = (Mode::from_raw_mode(as_was.mode() & 0o1777), times_of(as_was));
    let copy = copy.into_std().map_err(|_| io::Error::other("an op of the copy is in flight"))?;
    let kept = spawn_blocking(move || -> io::Result<()> {
        fchmod(&copy, mode)?;
        Ok(futimens(&copy, &times)?)
    });
    kept.await.map_err(|error| io::Error::other(error.to_string()))?
}
