//! A child process, how its end is waited for, and who does if nobody else does.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::process::{Child as StdChild, Command, ExitStatus, Output};
use std::rc::{Rc, Weak};
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use omniring_driver::{Explained, SharedHandle, ops};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::buf::IoBufExt;
use crate::executor::{Core, current};
use crate::pipe::{Receiver, Sender};
use crate::signal::{Signal, SignalKind};
use crate::time::sleep;

/// Children that nobody waits for any more and that have outlived their runtime.
static LEFT_BEHIND: Mutex<Vec<StdChild>> = Mutex::new(Vec::new());

/// A child process.
///
/// Dropping it lets the process run on, unless told otherwise by
/// [`kill_on_drop`](super::Command::kill_on_drop). It leaves no zombie: see [the module](super).
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// use omniring::process::Command;
/// let mut child = Command::new("sleep").arg("1000").spawn()?;
/// assert!(child.try_wait()?.is_none());
/// child.kill()?;
/// assert!(!child.wait().await?.success());
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Child {
    /// The sender of the pipe to its standard input, if there is one.
    pub stdin: Option<Sender>,
    /// The receiver of the pipe from its standard output, if there is one.
    pub stdout: Option<Receiver>,
    /// The receiver of the pipe from its standard error, if there is one.
    pub stderr: Option<Receiver>,
    process: Process,
    kill_on_drop: bool,
}

pub(super) fn spawn(command: &mut Command, kill_on_drop: bool) -> io::Result<Child> {
    let core = current();
    collect_left_behind();
    let mut child = command.spawn()?;
    Ok(Child {
        stdin: child.stdin.take().map(|pipe| Sender::from_fd(pipe.into())),
        stdout: child.stdout.take().map(|pipe| Receiver::from_fd(pipe.into())),
        stderr: child.stderr.take().map(|pipe| Receiver::from_fd(pipe.into())),
        process: Process {
            child: Some(child),
            end: None,
            status: None,
            core: Rc::downgrade(&core),
        },
        kill_on_drop,
    })
}

impl Child {
    /// Its process id. `None` once it was found to have ended, as the number may then belong to
    /// another process.
    pub fn id(&self) -> Option<u32> {
        match self.process.status {
            None => self.process.child.as_ref().map(StdChild::id),
            Some(_) => None,
        }
    }

    /// Waits for its end: how it ended. Its standard input is closed first, if it is still here, so
    /// that it does not wait for that. It may be asked again.
    ///
    /// Dropping the future loses nothing. Fails with `ECHILD` if nobody knows any more how it ended:
    /// `SIGCHLD` is ignored, or somebody else has asked (`wait(2)`).
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.stdin = None;
        self.process.wait().await
    }

    /// How it ended; `None` if it runs. Fails as [`wait`](Child::wait) does.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// Closes its standard input, receives what it writes to standard output and standard error, as
    /// far as there are pipes, and waits for its end.
    ///
    /// It also waits for whoever else has these pipes. If the future is dropped, the child is.
    pub async fn wait_with_output(mut self) -> io::Result<Output> {
        self.stdin = None;
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let (stdout, stderr) = both(recv_to_end(stdout), recv_to_end(stderr)).await;
        let status = self.wait().await?;
        Ok(Output { status, stdout: stdout?, stderr: stderr? })
    }

    /// Kills it (`SIGKILL`). Nothing happens if it was found to have ended. This does not wait for
    /// its end.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Sends it a signal. Fails with `InvalidInput` for signals without a name, and with `ESRCH` if it
    /// was found to have ended; that error has its number and how it ended.
    pub fn signal(&self, kind: SignalKind) -> io::Result<()> {
        let child = self.process.child.as_ref().expect("there until it is dropped");
        if let Some(status) = self.process.status {
            let what = format!("process {} has ended ({status}); it gets no {kind:?}", child.id());
            return Err(Explained::new(libc::ESRCH, what).into());
        }
        let Some(signal) = rustix::process::Signal::from_named_raw(kind.as_raw()) else {
            let what = format!("{kind:?} has no name");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        // Nobody has asked for its status: the number is its own, dead or alive.
        Ok(rustix::process::kill_process(Pid::from_child(child), signal)?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.kill_on_drop {
            let _ = self.process.kill();
        }
    }
}

/// The process alone. Dropping it sees to it that its status is asked for.
#[derive(Debug)]
struct Process {
    /// There until it is dropped.
    child: Option<StdChild>,
    /// What tells of its end, once somebody has waited.
    end: Option<End>,
    status: Option<ExitStatus>,
    core: Weak<Core>,
}

/// What tells of the end of a process.
#[derive(Debug)]
enum End {
    /// Readable when it has ended.
    Pidfd(SharedHandle),
    /// It may be any other child's.
    Signal(Signal),
}

impl Process {
    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let child = self.child.as_mut().expect("there until it is dropped");
            self.status = child.try_wait().map_err(explain)?;
            if self.status.is_some() {
                self.end = None;
            }
        }
        Ok(self.status)
    }

    fn kill(&mut self) -> io::Result<()> {
        match (&mut self.child, self.status) {
            (Some(child), None) => child.kill(),
            _ => Ok(()),
        }
    }

    async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        if self.end.is_none() {
            self.end = Some(self.open_end()?);
        }
        loop {
            // A signal that came before it was listened to, or a process that ended while there was
            // no descriptor of it.
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            match self.end.as_mut().expect("there until the status is known") {
                End::Signal(signal) => signal.recv().await?,
                End::Pidfd(pidfd) => {
                    ops::poll(pidfd, libc::POLLIN).await?;
                    if let Some(status) = self.try_wait()? {
                        return Ok(status);
                    }
                    // It has ended, but somebody who traces it (ptrace(2)) has not let go of it.
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    /// Its number is its own: nobody has asked for the status.
    fn open_end(&self) -> io::Result<End> {
        let child = self.child.as_ref().expect("there until it is dropped");
        match pidfd_open(Pid::from_child(child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(End::Pidfd(SharedHandle::adopt_as_is(&current().driver, pidfd))),
            // ENOSYS before 5.3, and EPERM where it is denied.
            Err(_) => Signal::new(SignalKind::CHILD).map(End::Signal),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        collect_left_behind();
        if !matches!(self.try_wait(), Ok(None)) {
            return;
        }
        let Some(child) = self.child.take() else { return };
        match self.core.upgrade() {
            Some(core) => {
                let process = Process {
                    child: Some(child),
                    end: self.end.take(),
                    status: None,
                    core: Weak::new(),
                };
                // If the runtime ends first, it drops this, and there is no runtime then.
                drop(core.spawn(collect(process)));
            }
            None => LEFT_BEHIND.lock().expect("nothing panics under this lock").push(child),
        }
    }
}

/// Waits for the end of a process that nobody else waits for.
async fn collect(mut process: Process) {
    // Without a way to wait, it is left behind.
    let _ = process.wait().await;
}

/// Asks for the status of those left behind, as far as they have ended.
fn collect_left_behind() {
    let mut left = LEFT_BEHIND.lock().expect("nothing panics under this lock");
    left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

#[cold]
fn explain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ECHILD) => {
            let what = "how the child ended is not known any more: SIGCHLD is ignored, or \
                        somebody else has asked";
            Explained::new(libc::ECHILD, what).into()
        }
        _ => error,
    }
}

async fn recv_to_end(receiver: Option<Receiver>) -> io::Result<Vec<u8>> {
    let mut buf = Vec::new();
    let Some(receiver) = receiver else { return Ok(buf) };
    loop {
        if buf.len() == buf.capacity() {
            buf.reserve(16 * 1024);
        }
        let filled = buf.len();
        let (result, slice) = receiver.recv_into(buf.slice(filled..)).await;
        buf = slice.into_inner();
        if result? == 0 {
            return Ok(buf);
        }
    }
}

/// Both outputs, of futures that go on together.
async fn both<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> (T, T) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = one.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = other.as_mut().poll(cx)
        {
            second = Some(output);
        }
        if first.is_some() && second.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (first.expect("set above"), second.expect("set above"))
}
