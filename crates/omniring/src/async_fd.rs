//! Readiness of foreign descriptors: the reactor beside the proactor.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use omniring_driver::{OpFuture, ops};

use crate::readiness::{Direction, Readiness};

/// Waits until a descriptor that somebody else reads and writes is ready for it: that of a C
/// library, a device, or a socket whose calls have no op.
///
/// Two ways to use it:
/// - [`poll`](AsyncFd::poll) asks the kernel each time (level): as long as an event is there, it
///   ends at once.
/// - [`readable`](AsyncFd::readable) and [`writable`](AsyncFd::writable) remember what they were told
///   (edge): they end at once, without a system call, until a [`ReadyGuard`] says that there was
///   nothing left, by [`try_io`](ReadyGuard::try_io) or [`clear_ready`](ReadyGuard::clear_ready).
///   Unlike with `EPOLLET`, who forgets too early loses nothing: the next wait asks the kernel what is
///   the case. [`read_with`](AsyncFd::read_with) and [`write_with`](AsyncFd::write_with) do it all.
///
/// The calls are yours, and so is the descriptor's mode: put it in non-blocking mode (`O_NONBLOCK`),
/// or a call that finds nothing blocks the thread, and with it every task.
///
/// The runtime polls a duplicate of the descriptor, so that closing or replacing what is inside
/// never has an op act on another file; it takes one descriptor more. Regular files and directories
/// are always ready. On the engine `select`, polls fail with `EMFILE` where the duplicate's number is
/// 1,024 or more.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// # omniring::Runtime::new()?.block_on(async {
/// let (ours, mut theirs) = UnixStream::pair()?;
/// ours.set_nonblocking(true)?;
/// let ours = omniring::AsyncFd::new(ours)?;
/// theirs.write_all(b"hello")?;
/// let mut buf = [0; 16];
/// let count = loop {
///     let mut guard = ours.readable().await?;
///     match guard.try_io(|fd| fd.get_ref().read(&mut buf)) {
///         Ok(result) => break result?,
///         Err(_would_block) => continue,
///     }
/// };
/// assert_eq!(&buf[..count], b"hello");
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AsyncFd<T: AsFd> {
    readiness: Readiness,
    inner: T,
}

impl<T: AsFd> AsyncFd<T> {
    /// Takes in what has a descriptor. Its mode stays as it is. Fails if there is no descriptor left
    /// for the duplicate (`EMFILE`, `ENFILE`).
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(inner: T) -> io::Result<AsyncFd<T>> {
        let readiness = Readiness::new(inner.as_fd().try_clone_to_owned()?);
        Ok(AsyncFd { readiness, inner })
    }

    /// What is inside.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What is inside. If it gets another descriptor, the old one is waited for all the same.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Hands out what was inside.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Waits for some of these events of `poll(2)` (`libc::POLLIN` and so on), for an error, or for
    /// a hang-up, also of the peer's sending side (`POLLRDHUP`): which are there.
    ///
    /// Dropping the future loses nothing.
    pub fn poll(&self, events: i16) -> OpFuture<ops::PollEvents> {
        self.readiness.poll(events)
    }

    /// Waits until a read need not wait: there is data, an end, an error, or for a listener a
    /// connection. An error of the socket's error queue that nobody takes (`MSG_ERRQUEUE`) counts.
    ///
    /// Dropping the future loses nothing.
    pub async fn readable(&self) -> io::Result<ReadyGuard<'_, T>> {
        self.ready(Direction::Read).await
    }

    /// Waits until a write need not wait: there is room, or an error. As [`readable`](Self::readable)
    /// otherwise.
    pub async fn writable(&self) -> io::Result<ReadyGuard<'_, T>> {
        self.ready(Direction::Write).await
    }

    async fn ready(&self, direction: Direction) -> io::Result<ReadyGuard<'_, T>> {
        let events = self.readiness.wait(direction).await?;
        Ok(ReadyGuard { fd: self, direction, events })
    }

    /// Makes a call that reads when it need not wait, and again as long as it says `WouldBlock`:
    /// its result.
    ///
    /// Dropping the future loses nothing: after a call that did something, nothing is awaited.
    ///
    /// ```
    /// # omniring::Runtime::new()?.block_on(async {
    /// use std::os::unix::net::UnixDatagram;
    /// let (ours, theirs) = UnixDatagram::pair()?;
    /// ours.set_nonblocking(true)?;
    /// theirs.send(b"hello")?;
    /// let mut buf = [0; 16];
    /// let ours = omniring::AsyncFd::new(ours)?;
    /// assert_eq!(ours.read_with(|socket| socket.recv(&mut buf)).await?, 5);
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn read_with<R>(&self, mut call: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.readiness.io(Direction::Read, |_| call(&self.inner)).await
    }

    /// Makes a call that writes: as [`read_with`](Self::read_with).
    pub async fn write_with<R>(&self, mut call: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.readiness.io(Direction::Write, |_| call(&self.inner)).await
    }
}

impl<T: AsFd> AsFd for AsyncFd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFd").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Says that a descriptor was ready: see [`AsyncFd`]. That it is no longer has to be said by
/// [`try_io`](ReadyGuard::try_io) or [`clear_ready`](ReadyGuard::clear_ready); dropping the guard alone
/// leaves the descriptor ready in the runtime's eyes, and the next wait ends at once.
#[must_use = "a guard tells the runtime when there was nothing left"]
pub struct ReadyGuard<'a, T: AsFd> {
    fd: &'a AsyncFd<T>,
    direction: Direction,
    events: i16,
}

impl<'a, T: AsFd> ReadyGuard<'a, T> {
    /// The events of `poll(2)` that made it ready: those waited for, `POLLERR`, `POLLHUP` and
    /// `POLLRDHUP`.
    pub fn events(&self) -> i16 {
        self.events
    }

    /// A call would have had to wait: the next wait asks the kernel again.
    pub fn clear_ready(&mut self) {
        self.fd.readiness.clear(self.direction);
    }

    /// Makes a call. If it says `WouldBlock`, the descriptor is not ready any more, and the error
    /// says to wait again; any other result of the call is handed on.
    pub fn try_io<R>(
        &mut self,
        call: impl FnOnce(&'a AsyncFd<T>) -> io::Result<R>,
    ) -> Result<io::Result<R>, TryIoError> {
        match call(self.fd) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.clear_ready();
                Err(TryIoError(()))
            }
            result => Ok(result),
        }
    }

    /// What is inside of the [`AsyncFd`].
    pub fn get_inner(&self) -> &'a T {
        &self.fd.inner
    }
}

impl<T: AsFd> fmt::Debug for ReadyGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyGuard").field("events", &self.events).finish_non_exhaustive()
    }
}

/// The call of [`ReadyGuard::try_io`] would have had to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryIoError(());

impl fmt::Display for TryIoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the descriptor is not ready any more: wait again")
    }
}

impl std::error::Error for TryIoError {}
