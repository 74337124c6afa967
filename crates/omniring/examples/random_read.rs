//! Random reads of a file by many tasks, and what they cost.
//!
//! Prints one line: reads per second, CPU microseconds per read, context switches per read.
//!
//! `cargo run --release --example random_read -- FILE --engine uring --depth 32 --direct`

mod arguments;

use std::cell::Cell;
use std::error::Error;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use omniring::buf::{AlignedBuf, FixedPool, HugePages, IoBufMut, PoolError};
use omniring::fs::{File, OpenOptions};
use omniring::time::{now, sleep};
use omniring::{Engine, Runtime};

/// Reads blocks at random places of a file.
#[derive(Parser)]
#[command(name = "random_read")]
struct Arguments {
    /// File to read
    file: PathBuf,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Bytes of one read
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    block_size: u32,
    /// Reads in flight
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    depth: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 2.0, value_parser = seconds, allow_negative_numbers = true)]
    seconds: f64,
    /// Stop after so many reads instead, for counting their instructions
    #[arg(long, value_name = "COUNT")]
    reads: Option<u64>,
    /// Mebibytes at the start of the file to read from; the whole file if it is shorter
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    span: u64,
    /// Read past the page cache (O_DIRECT)
    #[arg(long)]
    direct: bool,
    /// Read into registered buffers, from a file in the ring's own table; fails where buffers
    /// cannot be registered
    #[arg(long)]
    fixed: bool,
    /// Have the registered buffers on huge pages
    #[arg(long, requires = "fixed")]
    huge_pages: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds from 0.001 to 86400".to_owned()),
    }
}

/// Time for connections, caches and pools to settle before measuring.
const WARM_UP: Duration = Duration::from_millis(200);
/// What `O_DIRECT` needs on every device in use.
const ALIGNMENT: usize = 4096;

fn main() -> ExitCode {
    arguments::main(|arguments: &Arguments| {
        run(arguments).map_err(|error| format!("{}: {error}", arguments.file.display()))
    })
}

/// What the tasks share.
struct Progress {
    read_count: Cell<u64>,
    read_count_max: u64,
    stop: Cell<bool>,
}

#[expect(clippy::print_stdout, reason = "the result")]
fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let direct_descriptors = if arguments.fixed { 16 } else { 0 };
    let builder = Runtime::builder().engine(arguments.engine);
    let runtime = builder.direct_descriptors(direct_descriptors).build()?;
    runtime.block_on(async {
        let mut options = OpenOptions::new();
        let opened = options.read(true).direct(arguments.direct).open(&arguments.file).await;
        let file = opened.map_err(|error| match error.kind() {
            ErrorKind::InvalidInput if arguments.direct => format!("{error}; leave out --direct"),
            _ => format!("{error}; give a file that can be read"),
        })?;
        let metadata = file.metadata().await?;
        if metadata.is_dir() {
            return Err("is a directory; give a regular file".into());
        }
        if arguments.direct
            && let Some((_, alignment)) = metadata.direct_alignment()
            && !arguments.block_size.is_multiple_of(alignment)
        {
            let what = format!("O_DIRECT needs a --block-size that is a multiple of {alignment}");
            return Err(what.into());
        }
        let span = metadata.len().min(arguments.span * 1024 * 1024);
        let block_count = span / u64::from(arguments.block_size);
        if block_count == 0 {
            return Err("has less than one block to read; give a larger file or span".into());
        }
        let progress = Rc::new(Progress {
            read_count: Cell::new(0),
            read_count_max: arguments.reads.unwrap_or(u64::MAX),
            stop: Cell::new(false),
        });
        let block_size = arguments.block_size as usize;
        let pool = if arguments.fixed { Some(pool(arguments)?) } else { None };
        let mut tasks = Vec::new();
        for seed in 0..arguments.depth {
            let reader = Reader {
                file: file.clone(),
                random: fastrand::Rng::with_seed(seed.into()),
                block_count,
                block_size,
                progress: progress.clone(),
            };
            tasks.push(match &pool {
                Some(pool) => omniring::spawn(reader.run(pool.try_take(block_size)?)),
                None => omniring::spawn(reader.run(AlignedBuf::new(block_size, ALIGNMENT))),
            });
        }

        if arguments.reads.is_some() {
            for task in tasks {
                task.await??;
            }
            return Ok(());
        }
        sleep(WARM_UP).await;
        let (started, before) = (now(), getrusage(UsageWho::RUSAGE_SELF)?);
        let first_count = progress.read_count.get();
        sleep(Duration::from_secs_f64(arguments.seconds)).await;
        let (elapsed, after) = (started.elapsed(), getrusage(UsageWho::RUSAGE_SELF)?);
        let count = (progress.read_count.get() - first_count) as f64;
        progress.stop.set(true);
        for task in tasks {
            task.await??;
        }
        println!(
            "{:.0} {:.3} {:.4}",
            count / elapsed.as_secs_f64(),
            (cpu_us(&after) - cpu_us(&before)) as f64 / count,
            (switch_count(&after) - switch_count(&before)) as f64 / count,
        );
        Ok(())
    })
}

/// A registered buffer for each task.
fn pool(arguments: &Arguments) -> Result<FixedPool, PoolError> {
    let pages = if arguments.huge_pages { HugePages::Required } else { HugePages::No };
    FixedPool::builder()
        .class(arguments.block_size as usize, arguments.depth as usize)
        .alignment(ALIGNMENT)
        .huge_pages(pages)
        .require_registered(true)
        .build()
}

struct Reader {
    file: File,
    random: fastrand::Rng,
    block_count: u64,
    block_size: usize,
    progress: Rc<Progress>,
}

impl Reader {
    async fn run(mut self, mut buf: impl IoBufMut) -> std::io::Result<()> {
        while !self.progress.stop.get() {
            let offset = self.random.u64(..self.block_count) * self.block_size as u64;
            let (result, filled) = self.file.read_at(buf, offset).await;
            if result? != self.block_size {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let read_count = self.progress.read_count.get() + 1;
            self.progress.read_count.set(read_count);
            if read_count >= self.progress.read_count_max {
                break;
            }
            buf = filled;
        }
        Ok(())
    }
}

fn cpu_us(usage: &Usage) -> i64 {
    usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
}

fn switch_count(usage: &Usage) -> i64 {
    usage.voluntary_context_switches() + usage.involuntary_context_switches()
}
