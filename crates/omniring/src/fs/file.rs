//! Open files.

use std::io::{self, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use omniring_driver::op::Position;
use omniring_driver::ops::{self, Read, ReadMany, Write};
use omniring_driver::{OpFuture, SharedHandle};

use super::direct::explain_direct;
use super::{Metadata, c_path};
use crate::buf::{IoBuf, IoBufExt, IoBufMut};
use crate::executor::current;
use crate::io::{AsyncRead, AsyncWrite, close, fill, write_rest};

/// How to open a file.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    custom_flags: i32,
    mode: u32,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions::new()
    }
}

impl OpenOptions {
    /// Nothing chosen yet: at least one of `read`, `write` and `append` is needed.
    pub fn new() -> OpenOptions {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            custom_flags: 0,
            mode: 0o666,
        }
    }

    /// For reading.
    pub fn read(&mut self, read: bool) -> &mut OpenOptions {
        self.read = read;
        self
    }

    /// For writing.
    pub fn write(&mut self, write: bool) -> &mut OpenOptions {
        self.write = write;
        self
    }

    /// For writing at the end, wherever that is by then. Positions of writes are ignored.
    pub fn append(&mut self, append: bool) -> &mut OpenOptions {
        self.append = append;
        self
    }

    /// Empties the file.
    pub fn truncate(&mut self, truncate: bool) -> &mut OpenOptions {
        self.truncate = truncate;
        self
    }

    /// Makes the file if it is not there.
    pub fn create(&mut self, create: bool) -> &mut OpenOptions {
        self.create = create;
        self
    }

    /// Makes the file and fails with `AlreadyExists` if it is there.
    pub fn create_new(&mut self, create_new: bool) -> &mut OpenOptions {
        self.create_new = create_new;
        self
    }

    /// Past the page cache (`O_DIRECT`). Memory, offsets and lengths have to be aligned as
    /// [`Metadata::direct_alignment`] says, else reads and writes fail with `EINVAL`, and the error
    /// says what is not aligned. A file system that cannot do it refuses to open with `EINVAL`, and
    /// the error names it. ([`raw_os_error`](crate::raw_os_error) has the errno of both.)
    pub fn direct(&mut self, direct: bool) -> &mut OpenOptions {
        self.set_flag(libc::O_DIRECT, direct)
    }

    /// Each write is durable when it completes (`O_DSYNC`).
    pub fn sync_data(&mut self, sync: bool) -> &mut OpenOptions {
        self.set_flag(libc::O_DSYNC, sync)
    }

    fn set_flag(&mut self, flag: i32, set: bool) -> &mut OpenOptions {
        if set {
            self.custom_flags |= flag;
        } else {
            self.custom_flags &= !flag;
        }
        self
    }

    /// Further flags of `open(2)`.
    pub fn custom_flags(&mut self, flags: i32) -> &mut OpenOptions {
        self.custom_flags |= flags & !libc::O_ACCMODE;
        self
    }

    /// Permissions of a file that is made, less the process's umask (default 0o666).
    pub fn mode(&mut self, mode: u32) -> &mut OpenOptions {
        self.mode = mode;
        self
    }

    /// Opens the file.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let given = path.as_ref();
        let path = c_path(given)?;
        let flags = self.flags()?;
        match ops::open(&current().driver, path, flags, self.mode).await {
            Ok(handle) => Ok(File { handle }),
            Err(error) if flags & libc::O_DIRECT != 0 => Err(explain_direct(error, given).await),
            Err(error) => Err(error),
        }
    }

    fn flags(&self) -> io::Result<i32> {
        let writes = self.write || self.append;
        let access = match (self.read, writes) {
            (true, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
            (false, false) => return invalid("open a file for read, write or append"),
        };
        if (self.truncate || self.create || self.create_new) && !writes {
            return invalid("a file is made or emptied only when it is opened for writing");
        }
        if self.truncate && self.append && !self.create_new {
            return invalid("truncate and append exclude each other");
        }
        let mut flags = access | self.custom_flags;
        for (set, flag) in [
            (self.append, libc::O_APPEND),
            (self.truncate && !self.create_new, libc::O_TRUNC),
            (self.create || self.create_new, libc::O_CREAT),
            (self.create_new, libc::O_EXCL),
        ] {
            if set {
                flags |= flag;
            }
        }
        Ok(flags)
    }
}

fn invalid<T>(what: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// An open file.
///
/// Reads and writes at a position can be in flight together, in any number. Those at the file's
/// cursor ([`AsyncRead`], [`AsyncWrite`]) come one after the other. Clones share the open file and
/// its cursor. Dropping the last one closes it; [`File::close`] also says whether that went well.
///
/// ```
/// # let runtime = omniring::Runtime::new()?;
/// # let path = std::env::temp_dir().join(format!("omniring-file-{}", std::process::id()));
/// # runtime.block_on(async {
/// use omniring::fs::File;
/// let file = File::create(&path).await?;
/// let (result, _) = file.write_all_at("hello", 0).await;
/// result?;
/// file.sync_data().await?;
/// file.close().await?;
/// # omniring::fs::remove_file(&path).await
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct File {
    pub(crate) handle: SharedHandle,
}

impl File {
    /// Opens a file for reading.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).open(path).await
    }

    /// Opens a file for writing: makes it, or empties it.
    pub async fn create(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path).await
    }

    /// Takes in a file that was opened elsewhere.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn from_std(file: std::fs::File) -> File {
        File::from_fd(file.into())
    }

    /// Takes in a descriptor of a file, a pipe or a terminal.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn from_fd(fd: OwnedFd) -> File {
        File { handle: SharedHandle::adopt(&current().driver, fd) }
    }

    /// Hands the file out. Fails with the file if a clone or an op in flight still uses it.
    pub fn into_std(self) -> Result<std::fs::File, File> {
        self.handle.into_fd().map(std::fs::File::from).map_err(|handle| File { handle })
    }

    /// Reads at `offset` in bytes into `buf`, up to its capacity: the bytes read, 0 at the end of
    /// the file.
    ///
    /// Dropping the future cancels the read; the buffer goes when the kernel is done with it.
    pub fn read_at<B: IoBufMut>(&self, buf: B, offset: u64) -> OpFuture<Read<B>> {
        ops::read(&self.handle, buf, Position::At(offset))
    }

    /// Writes the initialised bytes of `buf` at `offset`: the bytes written, which may be fewer.
    ///
    /// Dropping the future cancels the write, which may have happened, wholly or in part.
    pub fn write_at<B: IoBuf>(&self, buf: B, offset: u64) -> OpFuture<Write<B>> {
        ops::write(&self.handle, buf, Position::At(offset))
    }

    /// Reads at `offset` until `buf` is full to its capacity. At an early end of the file the
    /// error is `UnexpectedEof`.
    pub async fn read_exact_at<B: IoBufMut>(&self, buf: B, offset: u64) -> (io::Result<()>, B) {
        fill(buf, async |slice, filled| self.read_at(slice, offset + filled as u64).await).await
    }

    /// Writes all initialised bytes of `buf` at `offset`.
    pub async fn write_all_at<B: IoBuf>(&self, buf: B, offset: u64) -> (io::Result<()>, B) {
        let write = async |slice, written| self.write_at(slice, offset + written as u64).await;
        write_rest(buf, 0, write).await
    }

    /// Writes all initialised bytes of `buf` at `offset` and makes them durable, as
    /// [`write_all_at`](File::write_all_at) and [`sync_data`](File::sync_data) do, in one submission
    /// where the engine can link the two.
    ///
    /// Success means that all bytes are durable, and with them everything else that was written to
    /// the file before. After an error, or if the future is dropped, any part of them may have been
    /// written and may be durable.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("omniring-durable-{}", std::process::id()));
    /// # omniring::Runtime::new()?.block_on(async {
    /// let journal = omniring::fs::File::create(&path).await?;
    /// let (result, _) = journal.write_durable_at("commit 1", 0).await;
    /// result?;
    /// # omniring::fs::remove_file(&path).await
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn write_durable_at<B: IoBuf>(&self, mut buf: B, offset: u64) -> (io::Result<()>, B) {
        let mut written = 0;
        loop {
            let position = Position::At(offset + written as u64);
            let (result, synced, slice) =
                ops::write_synced(&self.handle, buf.slice(written..), position).await;
            buf = slice.into_inner();
            match result {
                Ok(0) if written < buf.len() => return (Err(io::ErrorKind::WriteZero.into()), buf),
                Ok(count) => written += count,
                Err(error) => return (Err(error), buf),
            }
            if written == buf.len() {
                let synced = match synced {
                    Some(synced) => synced,
                    None => self.sync_data().await,
                };
                return (synced, buf);
            }
        }
    }

    /// Reads at many offsets in bytes, each into its buffer up to its capacity. All reads are
    /// submitted together (on a ring with one kernel entry, as far as the queue has room) when the
    /// first result is asked for; they yield their results as they finish, or all in order.
    /// Neighbours can be read with one call: see [`merge_neighbours`](ReadMany::merge_neighbours).
    ///
    /// Dropping it cancels what is left.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("omniring-many-{}", std::process::id()));
    /// # omniring::Runtime::new()?.block_on(async {
    /// # omniring::fs::write(&path, "the quick brown fox").await?;
    /// let file = omniring::fs::File::open(&path).await?;
    /// let requests = [4, 10, 16].map(|offset| (offset, vec![0; 3].into_boxed_slice()));
    /// let mut reads = file.read_many_at(requests);
    /// while let Some((index, result, buf)) = reads.next().await {
    ///     assert_eq!(result?, 3);
    ///     assert_eq!(*buf, *[b"qui", b"bro", b"fox"][index]);
    /// }
    /// # omniring::fs::remove_file(&path).await
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_many_at<B: IoBufMut>(
        &self,
        requests: impl IntoIterator<Item = (u64, B)>,
    ) -> ReadMany<B> {
        ops::read_many(&self.handle, requests)
    }

    /// Reads at `offset` into several buffers in order: the bytes read in all. Only the first
    /// 1,024 buffers are used.
    pub fn read_vectored_at<B: IoBufMut>(
        &self,
        bufs: Vec<B>,
        offset: u64,
    ) -> OpFuture<ops::ReadVectored<B>> {
        ops::read_vectored(&self.handle, bufs, Position::At(offset))
    }

    /// Writes several buffers in order at `offset`: the bytes written in all. Only the first
    /// 1,024 buffers are used.
    pub fn write_vectored_at<B: IoBuf>(
        &self,
        bufs: Vec<B>,
        offset: u64,
    ) -> OpFuture<ops::WriteVectored<B>> {
        ops::write_vectored(&self.handle, bufs, Position::At(offset))
    }

    /// Makes data and metadata durable (`fsync(2)`).
    pub async fn sync_all(&self) -> io::Result<()> {
        ops::fsync(&self.handle, false).await.map(drop)
    }

    /// Makes data durable, and of the metadata what is needed to read it (`fdatasync(2)`).
    pub async fn sync_data(&self) -> io::Result<()> {
        ops::fsync(&self.handle, true).await.map(drop)
    }

    /// What is known of the file.
    pub async fn metadata(&self) -> io::Result<Metadata> {
        ops::stat(&self.handle).await.map(Metadata::new)
    }

    /// Makes the file `len` bytes long: cuts it, or appends zeros.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        ops::truncate(&self.handle, len).await.map(drop)
    }

    /// Reserves room on the device for `len` bytes from `offset` on, and makes the file at least
    /// that long (`fallocate(2)`).
    pub async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        ops::allocate(&self.handle, 0, offset, len).await.map(drop)
    }

    /// Moves the cursor: its new place in bytes. This does not wait.
    pub fn seek(&self, to: SeekFrom) -> io::Result<u64> {
        rustix::fs::seek(
            self,
            match to {
                SeekFrom::Start(at) => rustix::fs::SeekFrom::Start(at),
                SeekFrom::End(from) => rustix::fs::SeekFrom::End(from),
                SeekFrom::Current(by) => rustix::fs::SeekFrom::Current(by),
            },
        )
        .map_err(io::Error::from)
    }

    /// Waits until the file, a pipe or a device as a rule, is ready for some of these events of
    /// `poll(2)`: which are.
    pub fn poll(&self, events: i16) -> OpFuture<ops::PollEvents> {
        ops::poll(&self.handle, events)
    }

    /// Moves up to `len` bytes to `to`, one of the two being a pipe, without copying them to user
    /// memory (`splice(2)`): the bytes moved, 0 at the end. An offset of `None` is the cursor, and
    /// the only choice for pipes.
    pub fn splice_to(
        &self,
        offset: Option<u64>,
        to: &File,
        to_offset: Option<u64>,
        len: usize,
    ) -> OpFuture<ops::Splice> {
        ops::splice(&self.handle, offset, &to.handle, to_offset, len)
    }

    /// Closes the file and says whether that went well. With a clone or an op in flight, it is
    /// closed when those are gone.
    pub async fn close(self) -> io::Result<()> {
        close(self.handle).await
    }
}

impl AsyncRead for File {
    async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B) {
        ops::read(&self.handle, buf, Position::Cursor).await
    }
}

impl AsyncWrite for File {
    async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
        ops::write(&self.handle, buf, Position::Cursor).await
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.handle.as_raw_fd()
    }
}
