//! The random-read job: what every rival's `random_read` shares, so that they
//! differ only in how a read is made.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::rusage::Usage;

/// Time that runs before the measured window.
const WARM_UP: Duration = Duration::from_millis(200);

/// Ops between two looks at the clock, so that looking costs nothing.
const OPS_PER_LOOK: u64 = 32;

/// A random-read run, as the command line gave it.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadJob {
    /// File to read from
    pub file: PathBuf,
    /// Bytes per read
    #[arg(long, default_value_t = 4096)]
    pub block_size: usize,
    /// Reads in flight
    #[arg(long, default_value_t = 32)]
    pub depth: usize,
    /// Measured time in seconds, after a short warm-up
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Read only inside the first MiB of the file, this many
    #[arg(long, default_value_t = 256)]
    pub span: u64,
    /// Bypass the page cache (O_DIRECT)
    #[arg(long)]
    pub direct: bool,
}

impl ReadJob {
    /// Refuses a job that cannot be carried out as described.
    pub fn check(&self) -> Result<()> {
        ensure!(self.depth > 0, "--depth must be at least 1");
        ensure!(self.block_size > 0, "--block-size must be at least 1");
        ensure!(
            !self.direct || self.block_size.is_multiple_of(512),
            "--direct needs a --block-size that is a multiple of 512"
        );
        let length = self
            .file
            .metadata()
            .with_context(|| format!("{}", self.file.display()))?
            .len();
        ensure!(
            length >= self.span << 20,
            "{} is shorter than --span {} MiB",
            self.file.display(),
            self.span
        );
        ensure!(self.blocks() > 0, "--span is smaller than one block");
        Ok(())
    }

    /// Opens the file as `--direct` says.
    pub fn open(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(if self.direct { libc::O_DIRECT } else { 0 })
            .open(&self.file)
            .with_context(|| format!("opening {}", self.file.display()))
    }

    /// The offsets that task `task` reads at.
    pub fn offsets(&self, task: usize) -> Offsets {
        Offsets {
            random: fastrand::Rng::with_seed(task as u64 + 1),
            blocks: self.blocks(),
            block_size: self.block_size as u64,
        }
    }

    fn blocks(&self) -> u64 {
        (self.span << 20) / self.block_size as u64
    }
}

/// An endless run of random block-aligned offsets.
pub struct Offsets {
    random: fastrand::Rng,
    blocks: u64,
    block_size: u64,
}

impl Offsets {
    /// The next offset in bytes.
    #[inline]
    pub fn next_offset(&mut self) -> u64 {
        self.random.u64(0..self.blocks) * self.block_size
    }
}

/// What a run measured; prints as `IOPS CPU_US_PER_OP CONTEXT_SWITCHES`.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    iops: f64,
    cpu_us_per_op: f64,
    context_switches_per_op: f64,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.0} {:.3} {:.4}",
            self.iops, self.cpu_us_per_op, self.context_switches_per_op
        )
    }
}

#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    ops: u64,
    usage: Usage,
}

/// Counts ops of all tasks of one thread and ends the run when its time is over.
pub struct Meter {
    ops: Cell<u64>,
    window: Duration,
    next_mark: Cell<Instant>,
    start: Cell<Option<Mark>>,
    end: Cell<Option<Mark>>,
}

impl Meter {
    /// A meter whose warm-up begins now.
    pub fn new(job: &ReadJob) -> Meter {
        Meter {
            ops: Cell::new(0),
            window: Duration::from_secs_f64(job.seconds),
            next_mark: Cell::new(Instant::now() + WARM_UP),
            start: Cell::new(None),
            end: Cell::new(None),
        }
    }

    /// Counts one op; false when the task shall end.
    #[inline]
    pub fn count_op(&self) -> bool {
        let ops = self.ops.get() + 1;
        self.ops.set(ops);
        if ops.is_multiple_of(OPS_PER_LOOK) {
            self.look()
        } else {
            self.end.get().is_none()
        }
    }

    #[cold]
    fn look(&self) -> bool {
        if self.end.get().is_some() {
            return false;
        }
        let at = Instant::now();
        if at < self.next_mark.get() {
            return true;
        }
        let usage = Usage::of_self().expect("getrusage of the own process cannot fail");
        let mark = Mark {
            at,
            ops: self.ops.get(),
            usage,
        };
        if self.start.get().is_none() {
            self.start.set(Some(mark));
            self.next_mark.set(at + self.window);
            true
        } else {
            self.end.set(Some(mark));
            false
        }
    }

    /// The figures of the measured window, once all tasks have ended.
    pub fn report(&self) -> Result<Report> {
        let (start, end) = self
            .start
            .get()
            .zip(self.end.get())
            .context("the run ended before its time")?;
        let ops = (end.ops - start.ops) as f64;
        let used = end.usage.since(start.usage);
        Ok(Report {
            iops: ops / (end.at - start.at).as_secs_f64(),
            cpu_us_per_op: used.cpu.as_secs_f64() * 1e6 / ops,
            context_switches_per_op: used.context_switches as f64 / ops,
        })
    }
}
