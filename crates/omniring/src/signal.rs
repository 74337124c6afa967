//! Signals of the process.
//!
//! ```
//! # omniring::Runtime::new()?.block_on(async {
//! use omniring::signal::{Signal, SignalKind};
//! let mut reload = Signal::new(SignalKind::HANGUP)?;
//! // Somebody says so, here the process itself.
//! rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP)?;
//! reload.recv().await?;
//! # Ok::<(), std::io::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What becomes of a signal
//! A signal belongs to the process, and so does what is done about it, its disposition. The first
//! listener of a kind replaces that, by the registry of the crate `signal-hook`, which others in the
//! process may use as well:
//! - The default action (to end the process, as a rule) is not taken any more, **not even after the
//!   last listener is gone**: then the signal does nothing. [`SignalKind::default_action`] takes it by
//!   hand.
//! - A signal that was ignored, as by `nohup(1)`, reaches listeners.
//! - A handler that a C library had installed before is still called, before listeners are told.
//!   One that is installed later, without regard for that of the registry, silences listeners.
//!
//! What is started by [`process`](crate::process) does not inherit any of it, but for ignored signals.
//!
//! # How often
//! Every [`Signal`] of a kind is told, whichever runtime or thread it is on. Like the system, which
//! has one mark for each kind of signal that is pending, it may tell once of several that come
//! before it is asked; it tells of one at least after the last that came. (That holds for
//! real-time signals too, which the system counts.)

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use signal_hook::{SigId, consts::FORBIDDEN, low_level};

use crate::readiness::{Direction, Readiness};

/// A kind of signal: see `signal(7)`.
///
/// ```
/// use omniring::signal::SignalKind;
/// assert_eq!(SignalKind::TERMINATE.as_raw(), libc::SIGTERM);
/// assert_eq!(format!("{:?}", SignalKind::TERMINATE), "SIGTERM");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignalKind(i32);

impl SignalKind {
    /// `SIGALRM`: a timer of `alarm(2)` or `setitimer(2)`.
    pub const ALARM: SignalKind = SignalKind(libc::SIGALRM);
    /// `SIGCHLD`: a child has ended, stopped or gone on.
    pub const CHILD: SignalKind = SignalKind(libc::SIGCHLD);
    /// `SIGCONT`: the process goes on after a stop.
    pub const CONTINUE: SignalKind = SignalKind(libc::SIGCONT);
    /// `SIGHUP`: the terminal is gone; for daemons by custom: read your configuration again.
    pub const HANGUP: SignalKind = SignalKind(libc::SIGHUP);
    /// `SIGINT`: Ctrl-C.
    pub const INTERRUPT: SignalKind = SignalKind(libc::SIGINT);
    /// `SIGIO`: a descriptor with `O_ASYNC` is ready.
    pub const IO: SignalKind = SignalKind(libc::SIGIO);
    /// `SIGPIPE`: a write that nobody can read any more. Rust programs ignore it from the start.
    pub const PIPE: SignalKind = SignalKind(libc::SIGPIPE);
    /// `SIGQUIT`: Ctrl-\.
    pub const QUIT: SignalKind = SignalKind(libc::SIGQUIT);
    /// `SIGTERM`: end, please.
    pub const TERMINATE: SignalKind = SignalKind(libc::SIGTERM);
    /// `SIGTSTP`: Ctrl-Z.
    pub const TERMINAL_STOP: SignalKind = SignalKind(libc::SIGTSTP);
    /// `SIGUSR1`.
    pub const USER_1: SignalKind = SignalKind(libc::SIGUSR1);
    /// `SIGUSR2`.
    pub const USER_2: SignalKind = SignalKind(libc::SIGUSR2);
    /// `SIGWINCH`: the terminal's window has another size.
    pub const WINDOW_CHANGE: SignalKind = SignalKind(libc::SIGWINCH);

    /// The signal of this number, whether there is one or not: [`Signal::new`] says so.
    pub const fn from_raw(number: i32) -> SignalKind {
        SignalKind(number)
    }

    /// Its number.
    pub const fn as_raw(self) -> i32 {
        self.0
    }

    /// Does what the system does where nobody listens: ends the process, stops it, or nothing. For
    /// a program that has cleaned up after `SIGTERM`, or is to stop after `SIGTSTP`. Fails with
    /// `EINVAL` for signals that it does not know.
    pub fn default_action(self) -> io::Result<()> {
        low_level::emulate_default_handler(self.0)
    }
}

impl fmt::Debug for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match low_level::signal_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Listens to one kind of signal, from the moment it is made. See [the module](self) for what that
/// changes.
///
/// Any number of them may listen to the same kind. Each takes two descriptors.
pub struct Signal {
    /// Of a pipe that the handler writes to.
    readiness: Readiness,
    kind: SignalKind,
    registration: SigId,
}

impl Signal {
    /// Begins to listen. Fails with `InvalidInput` for signals that cannot be listened to
    /// (`SIGKILL`, `SIGSTOP`, `SIGILL`, `SIGFPE`, `SIGSEGV`, and what is no signal), and if there are
    /// no descriptors left.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(kind: SignalKind) -> io::Result<Signal> {
        let refuse = |why: &str| {
            let what = format!("cannot listen to {kind:?}: {why}");
            io::Error::new(io::ErrorKind::InvalidInput, what)
        };
        if FORBIDDEN.contains(&kind.0) {
            return Err(refuse("no handler can do anything about it"));
        }
        let (reader, writer) = std::io::pipe()?;
        let reader = OwnedFd::from(reader);
        rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK)?;
        let readiness = Readiness::new(reader);
        let registered = low_level::pipe::register(kind.0, writer);
        let registration = registered.map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => refuse("there is no such signal"),
            _ => error,
        })?;
        Ok(Signal { readiness, kind, registration })
    }

    /// The kind that it listens to.
    pub fn kind(&self) -> SignalKind {
        self.kind
    }

    /// Waits for the next signal; not at all if one has come since it was asked last, or since it was
    /// made.
    ///
    /// Dropping the future loses no signal.
    pub async fn recv(&mut self) -> io::Result<()> {
        // What has come so far counts as one.
        let mut marks = [0; 256];
        let read = |fd: std::os::fd::BorrowedFd<'_>| Ok(rustix::io::read(fd, &mut marks)?);
        self.readiness.io(Direction::Read, read).await?;
        Ok(())
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        // Before the pipe is closed. It waits for handlers that run on other threads.
        low_level::unregister(self.registration);
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Waits for Ctrl-C (`SIGINT`), from the first poll on. What that changes for good is said in
/// [the module](self): in particular, after the first call the process does not end by itself any
/// more. Who wants to hear of every one makes a [`Signal`].
///
/// Dropping the future ends listening.
///
/// # Panics
/// Outside of a runtime.
///
/// ```no_run
/// # omniring::Runtime::new()?.block_on(async {
/// omniring::signal::ctrl_c().await?;
/// println!("cleaning up");
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn ctrl_c() -> io::Result<()> {
    Signal::new(SignalKind::INTERRUPT)?.recv().await
}
