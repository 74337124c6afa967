//! Pipes, without a name and with one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use omniring_driver::op::Position;
use omniring_driver::{Explained, OpFuture, SharedHandle, ops};
use rustix::fs::{CWD, Mode};

use crate::blocking::offload;
use crate::buf::{IoBuf, IoBufMut};
use crate::executor::current;
use crate::fs::{File, FileType};
use crate::io::{AsyncRead, AsyncWrite, close, write_rest};

/// A pipe without a name (`pipe(2)`): what goes in at the sender comes out at the receiver.
/// Neither end is inherited by child processes, unless handed over ([`Sender::into_std`]).
///
/// Fails if there are no descriptors left (`EMFILE`, `ENFILE`).
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// let (sender, receiver) = omniring::pipe::pipe()?;
/// sender.send_all("hello").await.0?;
/// drop(sender);
/// let (result, buf) = receiver.recv_into(Vec::with_capacity(100)).await;
/// assert_eq!((result?, &buf[..]), (5, &b"hello"[..]));
/// assert_eq!(receiver.recv_into(buf).await.0?, 0, "the sender is gone");
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pipe() -> io::Result<(Sender, Receiver)> {
    let (reader, writer) = std::io::pipe()?;
    Ok((Sender::from_std(writer), Receiver::from_std(reader)))
}

/// Makes a FIFO, a pipe with a name, with these permissions less the process's umask
/// (`mkfifo(3)`). Fails with `AlreadyExists` if the name is taken.
pub async fn make_fifo(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    offload(move || {
        let mode = Mode::from_raw_mode(mode);
        Ok(rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, mode, 0)?)
    })
    .await
}

/// The end of a pipe that is written to. Clones share it; receivers see the end of the stream when
/// the last of them, and of those in other processes, is gone.
#[derive(Clone, Debug)]
pub struct Sender {
    handle: SharedHandle,
}

/// The end of a pipe that is read from. Clones share it; senders get `EPIPE` when the last of them,
/// and of those in other processes, is gone.
#[derive(Clone, Debug)]
pub struct Receiver {
    handle: SharedHandle,
}

impl Sender {
    /// Sends the initialised bytes of `buf`: the bytes that the pipe took, which may be fewer. Up to
    /// 4,096 bytes (`PIPE_BUF`) go in one piece, however many senders there are. It waits while the
    /// pipe is full, and fails with `EPIPE` ([`BrokenPipe`](io::ErrorKind::BrokenPipe)) when nobody
    /// can receive any more.
    ///
    /// Dropping the future cancels the send; part of it may have happened.
    pub fn send<B: IoBuf>(&self, buf: B) -> OpFuture<ops::Write<B>> {
        ops::write(&self.handle, buf, Position::Cursor)
    }

    /// Sends all initialised bytes of `buf`. If the future is dropped, part of them may have been
    /// sent.
    pub async fn send_all<B: IoBuf>(&self, buf: B) -> (io::Result<()>, B) {
        write_rest(buf, 0, async |slice, _| self.send(slice).await).await
    }
}

impl Receiver {
    /// Receives into `buf`, up to its capacity: the bytes received, 0 when no sender is left (at
    /// once if `buf` has no capacity).
    ///
    /// Dropping the future cancels the receive; bytes that had arrived in the buffer by then are
    /// lost.
    pub fn recv_into<B: IoBufMut>(&self, buf: B) -> OpFuture<ops::Read<B>> {
        ops::read(&self.handle, buf, Position::Cursor)
    }
}

/// What both ends have.
macro_rules! pipe_end {
    ($End:ident, $Std:ty) => {
        impl $End {
            /// Takes in an end that was made elsewhere. Whether it is in non-blocking mode is the
            /// engine's business from here on.
            ///
            /// # Panics
            /// Outside of a runtime.
            pub fn from_std(end: $Std) -> $End {
                $End::from_fd(end.into())
            }

            pub(crate) fn from_fd(fd: OwnedFd) -> $End {
                $End { handle: SharedHandle::adopt(&current().driver, fd) }
            }

            /// Hands the end out, in blocking mode: to a child process, for example, as
            /// [`Stdio`](std::process::Stdio). Fails with the end if a clone or an op in flight
            /// still uses it.
            pub fn into_std(self) -> Result<$Std, $End> {
                let fd = self.handle.into_fd();
                fd.map(<$Std>::from).map_err(|handle| $End { handle })
            }

            /// Waits for some of these events of `poll(2)`: which are there.
            pub fn poll(&self, events: i16) -> OpFuture<ops::PollEvents> {
                ops::poll(&self.handle, events)
            }

            /// Closes the end and says whether that went well. With a clone or an op in flight, it
            /// is closed when those are gone.
            pub async fn close(self) -> io::Result<()> {
                close(self.handle).await
            }
        }

        impl AsFd for $End {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.handle.as_fd()
            }
        }

        impl AsRawFd for $End {
            fn as_raw_fd(&self) -> RawFd {
                self.handle.as_raw_fd()
            }
        }
    };
}

pipe_end!(Sender, std::io::PipeWriter);
pipe_end!(Receiver, std::io::PipeReader);

impl AsyncWrite for Sender {
    async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
        self.send(buf).await
    }
}

impl AsyncWrite for &Sender {
    async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
        self.send(buf).await
    }
}

impl AsyncRead for Receiver {
    async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B) {
        self.recv_into(buf).await
    }
}

impl AsyncRead for &Receiver {
    async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B) {
        self.recv_into(buf).await
    }
}

/// How to open a FIFO.
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// use omniring::pipe::{OpenOptions, make_fifo};
/// # let path = std::env::temp_dir().join(format!("omniring-fifo-{}", std::process::id()));
/// make_fifo(&path, 0o600).await?;
/// let nobody = OpenOptions::new().open_sender(&path).await.unwrap_err();
/// assert_eq!(omniring::raw_os_error(&nobody), Some(libc::ENXIO));
/// let receiver = OpenOptions::new().open_receiver(&path).await?;
/// let sender = OpenOptions::new().open_sender(&path).await?;
/// sender.send_all("hello").await.0?;
/// # omniring::fs::remove_file(&path).await?;
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    both: bool,
}

impl OpenOptions {
    /// Nothing special: one end is opened.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Opens it for reading and writing, whichever end is wanted (default off), which Linux allows
    /// for FIFOs: a receiver then never sees the end of the stream, and a sender never lacks
    /// somebody to receive.
    pub fn read_write(&mut self, both: bool) -> &mut OpenOptions {
        self.both = both;
        self
    }

    /// Opens the FIFO for reading. This does not wait for a sender: the first receive does.
    ///
    /// Fails with `InvalidInput` if the path names something else, and as `open(2)` does.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn open_receiver(&self, path: impl AsRef<Path>) -> io::Result<Receiver> {
        let handle = self.open(path.as_ref(), libc::O_RDONLY).await?;
        Ok(Receiver { handle })
    }

    /// Opens the FIFO for writing. This does not wait for a receiver either: while nobody has the
    /// FIFO open for reading, it fails with `ENXIO`, and the error names the path.
    ///
    /// Fails with `InvalidInput` if the path names something else, and as `open(2)` does.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn open_sender(&self, path: impl AsRef<Path>) -> io::Result<Sender> {
        let handle = self.open(path.as_ref(), libc::O_WRONLY).await?;
        Ok(Sender { handle })
    }

    async fn open(&self, path: &Path, access: i32) -> io::Result<SharedHandle> {
        // Were it no FIFO, nothing of it is changed, and no terminal becomes the process's.
        let flags = if self.both { libc::O_RDWR } else { access } | libc::O_NOCTTY;
        let c_path = crate::fs::c_path(path)?;
        let handle = match ops::open(&current().driver, c_path, flags, 0).await {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                let what = format!("nobody has the FIFO {path:?} open for reading");
                return Err(Explained::new(libc::ENXIO, what).into());
            }
            result => result?,
        };
        let file = File { handle };
        match file.metadata().await?.file_type() {
            FileType::Fifo => Ok(file.handle),
            other => {
                let what = format!("{path:?} is no FIFO, but this kind of file: {other:?}");
                Err(io::Error::new(io::ErrorKind::InvalidInput, what))
            }
        }
    }
}
