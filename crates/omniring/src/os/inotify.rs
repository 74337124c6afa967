//! News of files and directories.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use omniring_driver::{Explained, raw_os_error};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::blocking::offload;
use crate::readiness::{Direction, Readiness};

/// Room for events: one has at most 272 bytes.
const EVENTS_LEN: usize = 4096;

/// What is being watched: one file or directory, by whichever of its names it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId(i32);

/// Something that happened to what is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileEvent {
    /// To which of the watched. `None` of an overflow (`IN_Q_OVERFLOW`): events were lost because
    /// they were not asked for in time.
    pub watch: Option<WatchId>,
    /// What: `libc::IN_CREATE` and so on. After `IN_IGNORED` it is not watched any more.
    pub mask: u32,
    /// The same number, not 0, in the two events of a file that is moved (`IN_MOVED_FROM`,
    /// `IN_MOVED_TO`).
    pub cookie: u32,
    /// The name in the watched directory, where it happened to an entry of one.
    pub name: Option<OsString>,
}

/// Watches files and directories: see `inotify(7)`.
///
/// It tells of what is done by this machine, and not of what another one does to files on a network.
/// Nor does it tell of entries of directories below a watched one.
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// # let dir = std::env::temp_dir().join(format!("omniring-inotify-{}", std::process::id()));
/// # std::fs::create_dir(&dir)?;
/// let mut inotify = omniring::os::Inotify::new()?;
/// let watch = inotify.watch(&dir, libc::IN_CREATE).await?;
/// omniring::fs::write(dir.join("file"), "hello").await?;
/// let event = inotify.next().await?;
/// assert_eq!((event.watch, event.mask), (Some(watch), libc::IN_CREATE));
/// assert_eq!(event.name.unwrap(), "file");
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Inotify {
    readiness: Readiness,
    events: VecDeque<FileEvent>,
}

impl Inotify {
    /// One that watches nothing yet. Fails with `EMFILE` if the user has too many
    /// (`fs.inotify.max_user_instances`) or the process has no descriptor left.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new() -> io::Result<Inotify> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags)
            .map_err(|error| explain(error, "watching files", "fs.inotify.max_user_instances"))?;
        Ok(Inotify { readiness: Readiness::new(fd), events: VecDeque::new() })
    }

    /// Watches a file or a directory for these events (`libc::IN_MODIFY` and so on), and with these
    /// options (`libc::IN_ONESHOT` and so on). What is watched already gets the new mask, and
    /// keeps its id.
    ///
    /// Fails with `ENOSPC` if the user watches too many files (`fs.inotify.max_user_watches`), with
    /// `InvalidInput` if the mask names no event, and as `open(2)` does; the error names the path.
    /// If the future is dropped, it may be watched all the same.
    pub async fn watch(&self, path: impl AsRef<Path>, mask: u32) -> io::Result<WatchId> {
        // The path may be on a slow device.
        let fd = self.readiness.as_fd().try_clone_to_owned()?;
        let path = path.as_ref().to_owned();
        offload(move || {
            let mask = inotify::WatchFlags::from_bits_retain(mask);
            inotify::add_watch(&fd, &path, mask).map(WatchId).map_err(|error| {
                explain(error, &format!("watching {path:?}"), "fs.inotify.max_user_watches")
            })
        })
        .await
    }

    /// Does not watch it any more; the last event of it is `IN_IGNORED`. Fails with `EINVAL` if it
    /// was not watched: perhaps the file is gone.
    pub fn unwatch(&self, watch: WatchId) -> io::Result<()> {
        Ok(inotify::remove_watch(&self.readiness, watch.0)?)
    }

    /// Waits for the next event.
    ///
    /// Dropping the future loses none.
    pub async fn next(&mut self) -> io::Result<FileEvent> {
        let Inotify { readiness, events } = self;
        if events.is_empty() {
            readiness.io(Direction::Read, |fd| read_events(fd, events)).await?;
        }
        Ok(events.pop_front().expect("a read brings an event at least"))
    }
}

/// What is there, as far as it fits.
fn read_events(fd: BorrowedFd<'_>, events: &mut VecDeque<FileEvent>) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); EVENTS_LEN];
    let mut reader = inotify::Reader::new(fd, &mut room);
    loop {
        let event = reader.next()?;
        events.push_back(FileEvent {
            watch: Some(event.wd()).filter(|&number| number >= 0).map(WatchId),
            mask: event.events().bits(),
            cookie: event.cookie(),
            name: event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned()),
        });
        if reader.is_buffer_empty() {
            return Ok(());
        }
    }
}

#[cold]
fn explain(error: Errno, what: &str, limit: &str) -> io::Error {
    let error = io::Error::from(error);
    let errno = raw_os_error(&error).unwrap_or(libc::EIO);
    match errno {
        libc::ENOSPC | libc::EMFILE => {
            Explained::new(errno, format!("{what}: a limit is reached, as a rule {limit}")).into()
        }
        _ => Explained::new(errno, what).into(),
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }
}

impl std::fmt::Debug for Inotify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inotify")
    }
}
