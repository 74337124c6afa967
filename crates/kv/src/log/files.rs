//! The disk: a directory, through the runtime's files.
//!
//! Writes go past the page cache where the file system can do that, from memory that the engine knows.
//! Deliberately not here: what is written.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use omniring::buf::{FixedBuf, FixedPool};
use omniring::fs::{self, File, OpenOptions};

use super::disk::{BUF_LEN, Disk};
use super::pace;

/// Large buffers: two of the log, one of them for the room that is made ahead, and two of a snapshot.
const BUFS: usize = 4;
/// Bytes of a small buffer, which most batches of the log fit into, and one for each that may be in flight.
const SMALL_LEN: usize = 16 * 1024;
const SMALL_BUFS: usize = pace::SYNCS_AT_ONCE_MAX;
/// No device writes less at once, as far as is known, and no page is less.
const ALIGNMENT_MIN: usize = 4096;
/// Who has it locked has the directory.
const LOCK: &str = "lock";

/// A directory of the file system, of which no other process is making use.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    pool: FixedPool,
    direct: Cell<bool>,
    alignment: usize,
    sync_delay: Duration,
    _lock: Option<File>,
}

impl Files {
    /// Opens a directory, which is made if it is not there, and keeps others out of it.
    ///
    /// # Errors
    /// Where another process has it: `AlreadyExists`, and where the directory cannot be made or read.
    ///
    /// # Panics
    /// Outside of a runtime, on which all uses have to stay.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<Files> {
        let path = path.as_ref();
        fs::create_dir_all(path).await?;
        let name = path.join(LOCK);
        let lock = OpenOptions::new().write(true).create(true).open(&name).await?;
        if !lock.try_lock()? {
            let what = format!("another process has '{}' locked", name.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        let mut files = Files::open_unlocked(path).await?;
        if let Some((_, offset)) = lock.metadata().await?.direct_alignment() {
            files.alignment = ALIGNMENT_MIN.max(offset as usize).min(BUF_LEN);
        }
        files._lock = Some(lock);
        Ok(files)
    }

    /// Opens a directory to look at it, whoever else has it.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn open_unlocked(path: impl AsRef<Path>) -> io::Result<Files> {
        let pool = FixedPool::builder().class(BUF_LEN, BUFS).class(SMALL_LEN, SMALL_BUFS).build();
        Ok(Files {
            path: path.as_ref().to_owned(),
            pool: pool.map_err(|error| io::Error::other(error.to_string()))?,
            direct: Cell::new(true),
            alignment: ALIGNMENT_MIN,
            sync_delay: Duration::ZERO,
            _lock: None,
        })
    }

    /// Has each sync end later by this, as on a slower disk: for measurements.
    pub fn set_sync_delay(&mut self, delay: Duration) {
        self.sync_delay = delay;
    }

    /// What a sync has come to, when the time for it is over.
    async fn delayed(&self, result: io::Result<()>) -> io::Result<()> {
        if !self.sync_delay.is_zero() {
            self.pause(self.sync_delay).await;
        }
        result
    }

    /// Whether writes go past the page cache, as far as is known.
    pub fn is_direct(&self) -> bool {
        self.direct.get()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    async fn open_for_writing(&self, name: &str, is_new: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(is_new).truncate(is_new);
        if self.direct.get() {
            match options.direct(true).open(self.path(name)).await {
                // The file system cannot do it.
                Err(error) if omniring::raw_os_error(&error) == Some(EINVAL) => {
                    self.direct.set(false);
                    options.direct(false);
                }
                done => return done,
            }
        }
        options.open(self.path(name)).await
    }
}

const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

impl Disk for Files {
    type File = File;
    type Buf = FixedBuf;

    fn alignment(&self) -> usize {
        self.alignment
    }

    async fn buffer(&self, len: usize) -> FixedBuf {
        self.pool.take(len).await.expect("there is a class of that length")
    }

    async fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut entries = fs::read_dir(&self.path).await?;
        while let Some(entry) = entries.next_entry().await? {
            names.extend(entry.file_name().to_str().map(str::to_owned));
        }
        Ok(names)
    }

    async fn create(&self, name: &str, len: u64) -> io::Result<File> {
        let file = self.open_for_writing(name, true).await?;
        if len != 0 {
            match file.allocate(0, len).await {
                Err(error) if omniring::raw_os_error(&error) == Some(EOPNOTSUPP) => {}
                done => done?,
            }
        }
        Ok(file)
    }

    async fn reopen(&self, name: &str) -> io::Result<File> {
        self.open_for_writing(name, false).await
    }

    async fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.path(name)).await
    }

    async fn len(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata().await?.len())
    }

    async fn read(&self, file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut buf = Vec::with_capacity(len);
        while buf.len() < len {
            let filled = buf.len();
            let slice = omniring::buf::IoBufExt::slice(buf, filled..);
            let (result, slice) = file.read_at(slice, at + filled as u64).await;
            buf = slice.into_inner();
            if result? == 0 {
                break;
            }
        }
        // The memory may be larger than was asked for.
        buf.truncate(len);
        Ok(buf)
    }

    async fn write(
        &self,
        file: &File,
        mut buf: FixedBuf,
        len: usize,
        at: u64,
        sync: bool,
    ) -> (io::Result<()>, FixedBuf) {
        let whole = buf.len();
        buf.set_len(len);
        let (mut result, mut buf) = match sync {
            true => file.write_durable_at(buf, at).await,
            false => file.write_all_at(buf, at).await,
        };
        if sync {
            result = self.delayed(result).await;
        }
        buf.set_len(whole);
        (result, buf)
    }

    async fn sync(&self, file: &File) -> io::Result<()> {
        self.delayed(file.sync_data().await).await
    }

    async fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(name)).await?;
        file.set_len(len).await?;
        file.sync_all().await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to)).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name)).await
    }

    async fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path).await?.sync_all().await
    }

    async fn pause(&self, time: Duration) {
        omniring::time::sleep(time).await;
    }
}
