//! `omniring bench`: measures every I/O engine on this machine, on a real file
//! and real sockets, beside a bare ring loop (the floor) and fio.
//!
//! # Layout
//!
//! | module | job |
//! |---|---|
//! | [`workload`] | the closed list of what is measured |
//! | [`contender`] | who is measured: the floor, the engines, fio; and who by default |
//! | [`subject`] | the child process that runs one workload on one engine |
//! | [`protocol`] | what the bench and a subject say to each other |
//! | [`load`] | the load generator of the echo rows |
//! | [`fio`] | fio's engines as rows |
//! | [`schedule`] | alternating slices, so that ratios hold on a noisy machine |
//! | [`measure`], [`syscalls`] | processor time, system calls, histograms, medians, paired ratios |
//! | [`row`] | a row, as it is printed |
//! | [`target`] | the file: made, never overwritten, removed |
//! | [`machine`], [`neighbours`], [`warnings`] | where it was measured, and what may mislead |
//! | [`published`] | figures of others to set beside |
//! | [`report`] | table, JSON, CSV and the HTML page |
//!
//! # Invariants
//!
//! - A row's processor time is that of a process that does nothing else.
//! - A row that fails never stops the run: it becomes a row with a reason.
//! - INV-OWN ([`target`]): nothing is written to a file that was there before.
//! - INV-CLEAN ([`cleanup`]): no file and no child outlives the run.
#![deny(unsafe_code)] // allowed in one place: subject::floor

pub mod affinity;
pub mod cleanup;
mod clock;
pub mod contender;
pub mod error;
pub mod fio;
pub mod load;
pub mod machine;
pub mod measure;
pub mod neighbours;
mod progress;
pub mod protocol;
pub mod published;
pub mod report;
pub mod row;
pub mod schedule;
mod select;
pub mod subject;
pub mod syscalls;
pub mod target;
pub mod warnings;
pub mod workload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::contender::Contender;
use crate::error::Error;
use crate::machine::Machine;
use crate::neighbours::Watch;
use crate::progress::Progress;
use crate::row::Row;
use crate::schedule::Plan;
use crate::syscalls::SyscallCounter;
use crate::target::Target;
use crate::workload::Workload;

/// Seconds per row unless told otherwise: the whole run stays under 4 minutes.
const SECONDS_DEFAULT: f64 = 1.0;

/// Seconds per row of a quick run: the whole run stays under 60 seconds.
const SECONDS_QUICK: f64 = 0.25;

/// Seconds per row that are accepted.
const SECONDS_RANGE: std::ops::RangeInclusive<f64> = 0.05..=3600.0;

/// Size of the file unless told otherwise, in bytes.
const BYTES_DEFAULT: u64 = 1 << 30;

/// Size of the file of a quick run, in bytes.
const BYTES_QUICK: u64 = 256 << 20;

/// What to measure, as the command line says it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Engines, comma separated, on whatever workloads they run; if `None`, the
    /// main ones on all workloads and the others on the headline ones.
    pub engines: Option<String>,
    /// Workloads, comma separated; all of them if `None`.
    pub workloads: Option<String>,
    /// Seconds per row.
    pub seconds: Option<f64>,
    /// The file to read; made and removed again if it does not exist.
    pub file: Option<PathBuf>,
    /// Size of the file if it has to be made.
    pub size: Option<String>,
    /// Less of everything, in under a minute.
    pub quick: bool,
}

/// What a run found.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The rows, workload by workload.
    pub rows: Vec<Row>,
    /// Where they were measured.
    pub machine: Machine,
    /// What may mislead.
    pub warnings: Vec<String>,
    /// How the run was set, in words.
    pub settings: String,
    /// How long it took.
    pub elapsed: Duration,
}

/// Measures. Progress goes to standard error, if that is a terminal; nothing is
/// printed otherwise.
pub fn run(options: &Options) -> Result<Outcome, Error> {
    let start = clock::now();
    let workloads = workload::select(options.workloads.as_deref())?;
    let seconds = match options.seconds {
        Some(seconds) if !SECONDS_RANGE.contains(&seconds) => {
            return Err(Error::Seconds { seconds });
        }
        Some(seconds) => seconds,
        None if options.quick => SECONDS_QUICK,
        None => SECONDS_DEFAULT,
    };
    let bytes = match &options.size {
        Some(text) => target::parse_size(text)?,
        None if options.quick => BYTES_QUICK,
        None => BYTES_DEFAULT,
    };
    let contenders = contender::select(options.engines.as_deref())?;
    let grid = grid(&workloads, &contenders, options);
    let rows_wanted: usize = grid.iter().map(|(_, contenders)| contenders.len()).sum();
    if rows_wanted == 0 {
        return Err(Error::NothingToRun);
    }

    cleanup::on_signals();
    raise_open_files();
    let progress = Progress::on_stderr();
    let target = prepare(&grid, options.file.as_deref(), bytes, &progress)?;
    let machine = Machine::observe(target.as_ref().map(Target::path));
    let mut warnings = warnings::before(&machine, target.as_ref(), bytes, block_max(&grid));
    let uncounted = SyscallCounter::available().err();
    let plan = Plan { counts_syscalls: uncounted.is_none(), ..Plan::for_seconds(seconds) };

    progress.measuring(rows_wanted);
    let mut rows = Vec::with_capacity(rows_wanted);
    let mut seen = Vec::new();
    for (workload, contenders) in &grid {
        let watch = Watch::start();
        rows.extend(schedule::run(workload, contenders, plan, target.as_ref(), &progress));
        seen.push((workload.name, watch.stop()));
    }
    progress.finish();
    warnings.extend(warnings::about_neighbours(&seen));
    if options.engines.is_none() && fio::version().is_none() {
        warnings.push("fio is not installed: its rows are left out".to_owned());
    }
    if let Some(reason) = uncounted {
        warnings.push(format!("system calls are not counted: {reason}"));
    }
    let settings = settings(plan, target.as_ref());
    Ok(Outcome { rows, machine, warnings, settings, elapsed: start.elapsed() })
}

type Grid<'a> = Vec<(&'static Workload, Vec<&'a Contender>)>;

/// Which contenders run which workloads: those that were named whatever they can,
/// and otherwise what makes a run of bearable length.
fn grid<'a>(
    workloads: &[&'static Workload],
    contenders: &'a [Contender],
    options: &Options,
) -> Grid<'a> {
    let of = |workload: &'static Workload| {
        let runs = |contender: &&Contender| match &options.engines {
            Some(_) => contender.runs(workload),
            None => contender.runs_unnamed(workload, options.quick),
        };
        let able: Vec<&Contender> = contenders.iter().filter(runs).collect();
        (workload, able)
    };
    workloads.iter().map(|workload| of(workload)).filter(|(_, able)| !able.is_empty()).collect()
}

/// The largest block that is read or written, in bytes.
fn block_max(grid: &Grid<'_>) -> usize {
    let files = grid.iter().filter(|(workload, _)| workload.is_file());
    files.map(|(workload, _)| workload.bytes_per_op()).max().unwrap_or(0)
}

/// The file, if any workload needs one.
fn prepare(
    grid: &Grid<'_>,
    path: Option<&Path>,
    bytes: u64,
    progress: &Progress,
) -> Result<Option<Target>, Error> {
    if !grid.iter().any(|(workload, _)| workload.is_file()) {
        return Ok(None);
    }
    let is_write =
        |workload: &Workload| matches!(workload.shape, workload::Shape::WriteSync { .. });
    let writes = grid.iter().any(|(workload, _)| is_write(workload));
    Target::prepare(path, bytes, writes, progress).map(Some)
}

/// The echo rows of all engines hold their connections at the same time.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn settings(plan: Plan, target: Option<&Target>) -> String {
    let mut text = format!(
        "{} rounds of {} ms for each row, alternating between the engines of a workload",
        plan.rounds,
        plan.slice.as_millis()
    );
    if let Some(target) = target {
        let whose = if target.is_ours() { "made for this run" } else { "found there" };
        text += &format!(
            "; a file of {} MiB {whose}, of which hot reads use {} MiB",
            target.bytes() >> 20,
            target.hot_bytes() >> 20
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row takes beyond its slices: starting and ending the process.
    const BEYOND_S: f64 = 0.05;
    const BEYOND_FIO_S: f64 = 0.4;
    /// Making the file, and bringing it into the page cache.
    const FILE_S: f64 = 5.0;

    fn seconds_of_a_run(quick: bool, seconds: f64) -> f64 {
        // The engines of all machines, and fio whether or not it is here.
        let contenders = contender::all();
        let workloads = workload::select(None).unwrap();
        let options = Options { quick, ..Options::default() };
        let plan = Plan { counts_syscalls: true, ..Plan::for_seconds(seconds) };
        let of = |contender: &Contender| match contender {
            Contender::Fio(_) => plan.row().as_secs_f64() + BEYOND_FIO_S,
            _ => plan.lane().as_secs_f64() + BEYOND_S,
        };
        let rows = grid(&workloads, &contenders, &options);
        FILE_S + rows.iter().flat_map(|(_, row)| row).map(|contender| of(contender)).sum::<f64>()
    }

    #[test]
    fn a_run_is_as_short_as_the_help_says() {
        let whole = seconds_of_a_run(false, SECONDS_DEFAULT);
        assert!(whole < 240.0, "{whole}");
        let quick = seconds_of_a_run(true, SECONDS_QUICK);
        assert!(quick < 60.0, "{quick}");
    }

    #[test]
    fn a_named_engine_runs_whatever_it_can() {
        let contenders = vec![Contender::Engine("poll".to_owned())];
        let workloads = workload::select(Some("read-direct-8k-d32")).unwrap();
        let rows = |engines: Option<&str>| {
            let options = Options { engines: engines.map(str::to_owned), ..Options::default() };
            grid(&workloads, &contenders, &options).len()
        };
        assert_eq!((rows(None), rows(Some("poll"))), (0, 1));
    }
}
