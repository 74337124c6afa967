//! Child processes bounded in time, and pinning to cores.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Time for a child to end once its output has.
const EXIT_GRACE: Duration = Duration::from_secs(2);

/// A running child; killed and waited for when dropped.
pub struct RunningChild {
    child: Child,
    stdout: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl RunningChild {
    /// Starts `command`, on core `core` alone if one is given.
    pub fn start(mut command: Command, core: Option<usize>) -> Result<RunningChild> {
        let cores = core.map(only).transpose()?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: between fork and exec the closure makes two system calls and
        // allocates nothing.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                if let Some(cores) = &cores {
                    sched_setaffinity(Pid::from_raw(0), cores)?;
                }
                Ok(())
            })
        };
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let (sender, stdout) = channel();
        let pipe = BufReader::new(child.stdout.take().expect("stdout is piped"));
        spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut pipe = child.stderr.take().expect("stderr is piped");
        let stderr = spawn(move || {
            let mut bytes = Vec::new();
            // What could be read is worth showing, whatever ended the reading.
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).trim().to_owned()
        });
        Ok(RunningChild {
            child,
            stdout,
            stderr: Some(stderr),
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of output, if it comes in time.
    pub fn line(&mut self, patience: Duration) -> Result<String> {
        match self.stdout.recv_timeout(patience) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("no output within {patience:?}"),
            Err(RecvTimeoutError::Disconnected) => Err(self.failure()),
        }
    }

    /// All output, if the child ends well and in time.
    pub fn output(mut self, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        let mut output = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left) {
                Ok(line) => {
                    output.push_str(&line);
                    output.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => bail!("not finished within {patience:?}"),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let deadline = Instant::now() + EXIT_GRACE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "closed its output but does not end"
            );
            sleep(Duration::from_millis(1));
        };
        if status.success() {
            Ok(output)
        } else {
            Err(self.failure())
        }
    }

    /// Ends the child and tells what it said about its failure.
    fn failure(&mut self) -> anyhow::Error {
        let status = self.end();
        let said = self
            .stderr
            .take()
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        match status {
            Some(status) if said.is_empty() => anyhow!("{status}"),
            Some(status) => anyhow!("{status}: {said}"),
            None => anyhow!("{said}"),
        }
    }

    fn end(&mut self) -> Option<std::process::ExitStatus> {
        // A child that ended by itself cannot be killed: nothing to report.
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for RunningChild {
    fn drop(&mut self) {
        self.end();
    }
}

fn only(core: usize) -> Result<CpuSet> {
    let mut cores = CpuSet::new();
    cores.set(core).with_context(|| format!("core {core}"))?;
    Ok(cores)
}

/// Keeps the calling thread on one core until dropped.
pub struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// Moves the calling thread to `core`.
    pub fn to(core: usize) -> Result<Pinned> {
        let thread = Pid::from_raw(0);
        let before = sched_getaffinity(thread).context("sched_getaffinity")?;
        sched_setaffinity(thread, &only(core)?)
            .with_context(|| format!("moving to core {core}"))?;
        Ok(Pinned { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The set was valid when it was read; at worst the thread stays pinned.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}
