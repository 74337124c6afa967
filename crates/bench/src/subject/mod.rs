//! A subject: the process that runs one workload on one engine and nothing else,
//! so that its processor time is the row's processor time.
//!
//! [`serve`] is the whole of it. It sets up, then runs a slice for each line on
//! its input. Whatever a row costs (helper threads, the kernel's workers) is in
//! the subject's own resource usage; the load generator and the bench are not.

pub mod child;
pub mod engines;
pub mod floor;

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::affinity;
use crate::clock;
use crate::error::plain;
use crate::measure::{Latency, Slice, Usage, device_bytes_read};
use crate::protocol::{Reply, Request, SliceLine};
use crate::syscalls::SyscallCounter;
use crate::workload::Workload;

/// Name of the rows of the bare ring loop.
pub const FLOOR: &str = "floor";

/// Name of the rows of the bare ring loop without what a tier is about, beside
/// the floor of the tier.
pub const PLAIN_FLOOR: &str = "floor-plain";

/// Name of the rows that copy out of a mapping of the file.
pub const MAPPING: &str = "mmap";

/// What a subject is started with.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `floor`, `floor-plain`, `mmap` or the name of an engine.
    pub engine: String,
    /// What to do.
    pub workload: &'static Workload,
    /// File to read or write, for the file workloads.
    pub file: Option<PathBuf>,
    /// How much of the file to use, in bytes from its start.
    pub span: u64,
    /// Core that this process and all its threads stay on.
    pub core: Option<usize>,
}

impl Spec {
    /// The file of a file workload.
    fn file_path(&self) -> Result<&Path, SetupError> {
        let missing = || SetupError::Failed("a file workload needs a file".to_owned());
        self.file.as_deref().ok_or_else(missing)
    }
}

/// A workload set up on an engine, ready to run for a while, again and again.
pub trait Subject {
    /// Port of the echo server, if there is one.
    fn port(&self) -> Option<u16> {
        None
    }

    /// Runs for `length` and counts the ops that completed, recording their
    /// latencies where the subject is the one to see them.
    fn run(&mut self, length: Duration, latency: &mut Latency) -> io::Result<u64>;
}

/// Why a subject could not be set up.
#[derive(Debug)]
pub enum SetupError {
    /// Something here does not support the row; the row is skipped.
    Refused(String),
    /// Something went wrong.
    Failed(String),
}

impl From<io::Error> for SetupError {
    fn from(error: io::Error) -> Self {
        SetupError::Failed(plain(&error))
    }
}

/// Opens a file of a row, telling a file system without O_DIRECT from a fault.
fn refusal_of_open(error: io::Error, direct: bool) -> SetupError {
    if direct && omniring::raw_os_error(&error) == Some(libc::EINVAL) {
        SetupError::Refused("the file system does not support O_DIRECT".to_owned())
    } else {
        SetupError::Failed(format!("cannot open the file: {}", plain(&error)))
    }
}

/// Runs the subject to the end of `input`. The result is false if it failed.
pub fn serve(spec: &Spec, input: impl BufRead, mut output: impl Write) -> bool {
    let mut say = |reply: &Reply| -> io::Result<()> {
        let mut line = serde_json::to_string(reply).map_err(io::Error::other)?;
        line.push('\n');
        output.write_all(line.as_bytes())?;
        output.flush()
    };
    let mut subject = match set_up(spec) {
        Ok(subject) => subject,
        Err(SetupError::Refused(reason)) => return say(&Reply::Refused { reason }).is_ok(),
        Err(SetupError::Failed(reason)) => {
            let _ = say(&Reply::Failed { reason });
            return false;
        }
    };
    if say(&Reply::Ready { port: subject.port() }).is_err() {
        return false;
    }
    let mut slice = Slice::default();
    for line in input.lines() {
        let request: Request = match line.map(|line| serde_json::from_str(&line)) {
            Ok(Ok(request)) => request,
            _ => return false,
        };
        let reply = match measure(&mut *subject, request, &mut slice) {
            Ok(()) => Reply::Slice(SliceLine::from(&slice)),
            Err(error) => Reply::Failed { reason: plain(&error) },
        };
        let failed = matches!(reply, Reply::Failed { .. });
        if say(&reply).is_err() || failed {
            return false;
        }
    }
    true
}

fn set_up(spec: &Spec) -> Result<Box<dyn Subject>, SetupError> {
    if let Some(core) = spec.core {
        affinity::pin_this_thread(core)?;
    }
    match spec.engine.as_str() {
        FLOOR | PLAIN_FLOOR => floor::set_up(spec),
        MAPPING => floor::mapping::set_up(spec),
        _ => engines::set_up(spec),
    }
}

fn measure(subject: &mut dyn Subject, request: Request, slice: &mut Slice) -> io::Result<()> {
    slice.latency.clear();
    slice.syscalls = None;
    let length = Duration::from_millis(request.run_ms);
    if request.count_syscalls {
        let counter = SyscallCounter::start();
        slice.ops = subject.run(length, &mut slice.latency)?;
        // Where they cannot be counted the row is without, and nothing worse.
        slice.syscalls = counter.and_then(SyscallCounter::stop).ok();
        return Ok(());
    }
    let device_bytes = device_bytes_read();
    let usage = Usage::of_this_process();
    let start = clock::now();
    slice.ops = subject.run(length, &mut slice.latency)?;
    slice.elapsed = start.elapsed();
    slice.usage = Usage::of_this_process().since(usage);
    slice.device_bytes =
        device_bytes_read().zip(device_bytes).map(|(now, then)| now.saturating_sub(then));
    Ok(())
}

/// What the tests of the floor and of the engines share.
#[cfg(test)]
pub(crate) mod testing {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::sync::mpsc::{TryRecvError, channel};
    use std::time::Duration;

    use super::Subject;
    use crate::load::Load;
    use crate::measure::Latency;

    /// Runs an echo server in slices under load until it has answered in at
    /// least two of them. False if it could not be set up here.
    pub(crate) fn answers_in_slices(
        connections: usize,
        set_up: impl FnOnce() -> Option<Box<dyn Subject>> + Send,
    ) -> bool {
        let slices = &AtomicU32::new(0);
        std::thread::scope(|scope| {
            let (sender, port) = channel();
            let (enough, loaded) = channel::<()>();
            let server = scope.spawn(move || {
                let Some(mut subject) = set_up() else { return };
                sender.send(subject.port().unwrap()).unwrap();
                // Until the load is done with it, so that it never sees a reset.
                while loaded.try_recv() == Err(TryRecvError::Empty) {
                    let length = Duration::from_millis(20);
                    let ops = subject.run(length, &mut Latency::new()).unwrap();
                    slices.fetch_add(u32::from(ops > 0), Relaxed);
                }
            });
            let Ok(port) = port.recv() else { return false };
            let mut load =
                Load::connect((Ipv4Addr::LOCALHOST, port).into(), connections, None).unwrap();
            let (mut runs, mut ops) = (0, 0);
            // On a busy machine a slice may take as long as several runs.
            let is_enough = |ops| ops > connections as u64 && slices.load(Relaxed) >= 2;
            while runs < 3 || (!is_enough(ops) && runs < 100) {
                ops += load.run(Duration::from_millis(50)).unwrap().ops;
                runs += 1;
            }
            drop(enough);
            server.join().unwrap();
            assert!(is_enough(ops), "{ops} round trips in {slices:?} slices");
            true
        })
    }
}
