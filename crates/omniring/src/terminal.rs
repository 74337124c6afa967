//! Terminals and serial ports.
//!
//! Reads and writes are those of any stream. What a terminal does with the bytes on their way is set by
//! [`Settings`] (`termios(3)`), and by [`RawMode`] for a while.
//!
//! # When the other side goes
//! - Of a pseudo-terminal ([`Terminal::pair`]) whose last user side was closed, the controller's reads
//!   fail with `EIO`, after what was written before was read, until a user side is opened anew.
//! - Of one whose controller was closed, the user side is hung up: reads yield 0, the end of the stream,
//!   and writes fail with `EIO`. So it is when a modem hangs up, or a USB adapter is pulled.
//!
//! Both errors name the terminal; [`raw_os_error`](crate::raw_os_error) has their errno.
//!
//! Reads of the controlling terminal by a process in the background fail with `EIO`, where the
//! signal `SIGTTIN` does not stop it.

mod settings;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use omniring_driver::op::Position;
use omniring_driver::{Explained, OpFuture, SharedHandle, ops};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    OptionalActions, QueueSelector, Termios, Winsize, isatty, tcdrain, tcflush, tcgetattr,
    tcgetwinsize, tcsendbreak, tcsetattr, tcsetwinsize,
};

pub use settings::{DataBits, Parity, Settings, StopBits};

use crate::blocking::offload;
use crate::buf::{IoBuf, IoBufMut};
use crate::executor::current;
use crate::io::{AsyncRead, AsyncWrite, close, write_rest};

/// A terminal, a serial port, or one side of a pseudo-terminal. Clones share it.
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// use omniring::terminal::Terminal;
/// let (controller, user) = Terminal::pair()?;
/// controller.send_all("hello\n").await.0?;
/// let (result, buf) = user.recv_into(Vec::with_capacity(100)).await;
/// assert_eq!((result?, &buf[..]), (6, &b"hello\n"[..]));
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Terminal {
    handle: SharedHandle,
}

/// Bytes that are on their way: see [`Terminal::discard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// Received and not read.
    Input,
    /// Written and not transmitted.
    Output,
    /// Both.
    Both,
}

impl Terminal {
    /// Opens a terminal or a serial port, such as `/dev/ttyUSB0`, for reading and writing. It does not
    /// become the process's controlling terminal, and a port opens whether or not a modem
    /// answers.
    ///
    /// The error names the path; it is `ENOTTY` if that names something else.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<Terminal> {
        let path = path.as_ref();
        let flags = libc::O_RDWR | libc::O_NOCTTY;
        let opened = ops::open(&current().driver, crate::fs::c_path(path)?, flags, 0).await;
        let handle = opened.map_err(|error| match error.raw_os_error() {
            Some(errno) => {
                Explained::new(errno, format!("cannot open {path:?} as a terminal")).into()
            }
            None => error,
        })?;
        if !isatty(handle.fd()?) {
            let what = format!("{path:?} is no terminal");
            return Err(Explained::new(libc::ENOTTY, what).into());
        }
        Ok(Terminal { handle })
    }

    /// The terminal that the process was started from (`/dev/tty`). Unlike standard input and output it
    /// is opened anew, so that the mode in which the runtime puts it is not that of the shell's.
    ///
    /// Fails with `ENXIO` if the process has none.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn controlling() -> io::Result<Terminal> {
        Terminal::open("/dev/tty").await
    }

    /// A new pseudo-terminal (`pty(7)`): the controller, which is where the person would sit, and the
    /// side that is a terminal to programs. Fails if there is no pseudo-terminal left
    /// (`kernel.pty.max`), or no descriptor.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn pair() -> io::Result<(Terminal, Terminal)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags)?;
        unlockpt(&controller)?;
        let user = ioctl_tiocgptpeer(&controller, flags)?;
        Ok((Terminal::from_fd(controller), Terminal::from_fd(user)))
    }

    /// Takes in a terminal that was opened elsewhere. Whether it is in non-blocking mode is the
    /// engine's business from here on, also for others who share the open file, as programs share
    /// their standard input with the shell: see [`controlling`](Terminal::controlling).
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn from_fd(fd: OwnedFd) -> Terminal {
        Terminal { handle: SharedHandle::adopt(&current().driver, fd) }
    }

    /// Hands the terminal out, in blocking mode: to a child process, for example, as
    /// [`Stdio`](std::process::Stdio). Fails with the terminal if a clone, a [`RawMode`] or an op in
    /// flight still uses it.
    pub fn into_fd(self) -> Result<OwnedFd, Terminal> {
        self.handle.into_fd().map_err(|handle| Terminal { handle })
    }

    /// Receives into `buf`, up to its capacity: the bytes received, 0 at the end. As set from the
    /// start, that is a line at a time; of a raw one, what is there.
    ///
    /// Dropping the future cancels the receive; bytes that had arrived in the buffer by then are
    /// lost.
    pub fn recv_into<B: IoBufMut>(&self, buf: B) -> OpFuture<ops::Read<B>> {
        ops::read(&self.handle, buf, Position::Cursor)
    }

    /// Sends the initialised bytes of `buf`: the bytes that the terminal took, which may be fewer. They
    /// are not transmitted yet: see [`drain`](Terminal::drain).
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

    /// Waits for some of these events of `poll(2)`: which are there.
    pub fn poll(&self, events: i16) -> OpFuture<ops::PollEvents> {
        ops::poll(&self.handle, events)
    }

    /// Its settings.
    pub fn settings(&self) -> io::Result<Settings> {
        Ok(Settings::new(self.termios()?))
    }

    fn termios(&self) -> io::Result<Termios> {
        let fd = self.handle.fd()?;
        explained(fd, tcgetattr(fd))
    }

    /// Changes its settings, at once. Fails with `EINVAL` if the device did not take some of them, and
    /// the error says which; the others hold. (The kernel itself calls it a success if the device
    /// took any.)
    ///
    /// A process in the background is stopped for it by `SIGTTOU`.
    pub fn set_settings(&self, settings: &Settings) -> io::Result<()> {
        set(self.handle.fd()?, settings.termios())?;
        match settings.refused_by(&self.settings()?) {
            None => Ok(()),
            Some(refused) => {
                let what = format!("the device did not take {refused}");
                Err(Explained::new(libc::EINVAL, what).into())
            }
        }
    }

    /// Hands every byte on as it comes, without echo, lines, signals or translation
    /// (`cfmakeraw(3)`), until the guard is dropped.
    pub fn raw_mode(&self) -> io::Result<RawMode> {
        let before = self.termios()?;
        let mut raw = before.clone();
        raw.make_raw();
        set(self.handle.fd()?, &raw)?;
        Ok(RawMode { handle: self.handle.clone(), before: Some(before) })
    }

    /// The window's rows and columns, 0 where nobody has said.
    pub fn window_size(&self) -> io::Result<(u16, u16)> {
        let fd = self.handle.fd()?;
        let size = explained(fd, tcgetwinsize(fd))?;
        Ok((size.ws_row, size.ws_col))
    }

    /// Says how many rows and columns the window has. If they change, the processes in the foreground
    /// get `SIGWINCH`.
    pub fn set_window_size(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let fd = self.handle.fd()?;
        explained(fd, tcsetwinsize(fd, size))
    }

    /// Waits until what was written is transmitted (`tcdrain(3)`), on a thread of the pool.
    ///
    /// If the future is dropped, the thread waits on. Where the other side has stopped the flow, that
    /// may take forever: [`discard`](Terminal::discard) ends it.
    pub async fn drain(&self) -> io::Result<()> {
        let fd = self.handle.fd()?.try_clone_to_owned()?;
        offload(move || explained(fd.as_fd(), tcdrain(&fd))).await
    }

    /// Discards bytes that are on their way.
    pub fn discard(&self, which: Discard) -> io::Result<()> {
        let queue = match which {
            Discard::Input => QueueSelector::IFlush,
            Discard::Output => QueueSelector::OFlush,
            Discard::Both => QueueSelector::IOFlush,
        };
        let fd = self.handle.fd()?;
        explained(fd, tcflush(fd, queue))
    }

    /// Sends a break, a quarter to half a second of zeros, on a thread of the pool. Pseudo-terminals
    /// do nothing.
    ///
    /// If the future is dropped, the break is sent all the same.
    pub async fn send_break(&self) -> io::Result<()> {
        let fd = self.handle.fd()?.try_clone_to_owned()?;
        offload(move || explained(fd.as_fd(), tcsendbreak(&fd))).await
    }

    /// Closes the terminal and says whether that went well. With a clone, a [`RawMode`] or an op in
    /// flight, it is closed when those are gone.
    pub async fn close(self) -> io::Result<()> {
        close(self.handle).await
    }
}

/// An error says which terminal is closed, if one is.
fn explained<T>(fd: BorrowedFd<'_>, result: rustix::io::Result<T>) -> io::Result<T> {
    result.map_err(|errno| ops::explain_terminal(errno.into(), fd))
}

fn set(fd: BorrowedFd<'_>, settings: &Termios) -> io::Result<()> {
    explained(fd, tcsetattr(fd, OptionalActions::Now, settings))
}

/// So that one task can read while another, or the same, writes: clones are cheap too.
impl AsyncRead for &Terminal {
    async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B) {
        self.recv_into(buf).await
    }
}

impl AsyncWrite for &Terminal {
    async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
        self.send(buf).await
    }
}

impl AsyncRead for Terminal {
    async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B) {
        self.recv_into(buf).await
    }
}

impl AsyncWrite for Terminal {
    async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
        self.send(buf).await
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl AsRawFd for Terminal {
    fn as_raw_fd(&self) -> RawFd {
        self.handle.as_raw_fd()
    }
}

/// Keeps a terminal raw: see [`Terminal::raw_mode`]. Dropping it brings the settings back that were
/// there before; a process that is killed leaves the terminal raw.
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// let (controller, user) = omniring::terminal::Terminal::pair()?;
/// let raw = user.raw_mode()?;
/// controller.send_all("h").await.0?;
/// let (result, buf) = user.recv_into(Vec::with_capacity(100)).await;
/// assert_eq!((result?, &buf[..]), (1, &b"h"[..]), "without waiting for a line");
/// drop(raw);
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the terminal is raw until this is dropped"]
pub struct RawMode {
    handle: SharedHandle,
    /// There until it is restored.
    before: Option<Termios>,
}

impl RawMode {
    /// Brings the settings back that were there before, and says whether that went well.
    pub fn restore(mut self) -> io::Result<()> {
        self.bring_back()
    }

    fn bring_back(&mut self) -> io::Result<()> {
        match self.before.take() {
            // Not after what was written is transmitted, which may never be.
            Some(before) => set(self.handle.fd()?, &before),
            None => Ok(()),
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone has no settings.
        let _ = self.bring_back();
    }
}

impl fmt::Debug for RawMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawMode")
    }
}
