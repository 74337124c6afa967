//! fio's engines as rows: the same block size, depth and file, run by the `fio`
//! program if there is one, and read back from its JSON.
//!
//! fio cannot be run in slices that alternate with the other rows, so each of
//! its rows is one run. Its jobs report the processor time of their own threads
//! only. Where others do the work (glibc's pool, the kernel's workers) what
//! counts is what the whole process used, less what fio uses to start up, which
//! is measured once.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::cleanup::OwnChild;
use crate::clock;
use crate::error::plain;
use crate::measure::Usage;
use crate::subject::child::Absence;
use crate::workload::{Shape, Source, Tier, Workload};

/// An engine of fio and how it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// pread and pwrite, as many threads as the depth says.
    Psync,
    /// POSIX AIO, glibc's pool of threads.
    PosixAio,
    /// Linux native AIO.
    LibAio,
    /// io_uring as it comes.
    IoUring,
    /// io_uring with registered buffers and files, in batches.
    IoUringFixed,
}

/// Percentiles that fio is asked for.
const PERCENTILES: [f64; 13] =
    [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99];

/// How long fio may take beyond the time that it measures.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one run of fio measured.
#[derive(Debug, Clone, PartialEq)]
pub struct FioResult {
    /// Ops completed.
    pub ops: u64,
    /// Ops per second.
    pub rate: f64,
    /// User time per op, in microseconds.
    pub cpu_user_us_per_op: f64,
    /// Kernel time per op, in microseconds.
    pub cpu_system_us_per_op: f64,
    /// Context switches per op.
    pub context_switches_per_op: f64,
    /// Percentile and latency in microseconds, in ascending order.
    pub latency_us: Vec<(f64, f64)>,
    /// Longest latency in microseconds, where fio's is one that can be.
    pub max_us: Option<f64>,
}

impl Backend {
    /// Every engine of fio that is run.
    pub const ALL: &[Backend] = &[
        Backend::Psync,
        Backend::PosixAio,
        Backend::LibAio,
        Backend::IoUring,
        Backend::IoUringFixed,
    ];

    /// The name in the column `engine`.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Psync => "fio psync",
            Backend::PosixAio => "fio posixaio",
            Backend::LibAio => "fio libaio",
            Backend::IoUring => "fio io_uring",
            Backend::IoUringFixed => "fio io_uring fixed",
        }
    }

    /// Whether it runs the workload in the way of the other rows.
    pub fn runs(self, workload: &Workload) -> bool {
        match workload.shape {
            Shape::Read { .. } if workload.tier == Tier::Fixed => self == Backend::IoUringFixed,
            Shape::Read { .. } => true,
            // In batches, fio no longer waits for each fdatasync.
            Shape::WriteSync { .. } => self != Backend::IoUringFixed,
            Shape::Echo { .. } | Shape::Cores(_) => false,
        }
    }

    /// Whether threads that fio does not count carry the ops out.
    fn has_helpers(self, workload: &Workload) -> bool {
        let is_ring = matches!(self, Backend::IoUring | Backend::IoUringFixed);
        let is_write = matches!(workload.shape, Shape::WriteSync { .. });
        self == Backend::PosixAio || (is_ring && is_write)
    }

    /// fio's options for this engine at that depth.
    fn options(self, depth: usize) -> Vec<String> {
        let engine = match self {
            Backend::Psync => "psync",
            Backend::PosixAio => "posixaio",
            Backend::LibAio => "libaio",
            Backend::IoUring | Backend::IoUringFixed => "io_uring",
        };
        let mut options = vec![format!("--ioengine={engine}")];
        match self {
            // One job does one op at a time, so the depth is a number of jobs.
            Backend::Psync => options.push(format!("--numjobs={depth}")),
            _ => options.push(format!("--iodepth={depth}")),
        }
        match self {
            // 32 processes would cost more than the reads.
            Backend::Psync => options.push("--thread".to_owned()),
            Backend::IoUringFixed => {
                let batch = (depth / 2).max(1);
                options.extend(["--fixedbufs=1".to_owned(), "--registerfiles=1".to_owned()]);
                options.push(format!("--iodepth_batch_submit={batch}"));
                options.push(format!("--iodepth_batch_complete_min={batch}"));
                options.push(format!("--iodepth_batch_complete_max={depth}"));
            }
            _ => {}
        }
        options
    }
}

/// fio's own version, if it is installed.
pub fn version() -> Option<&'static str> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    let version = VERSION.get_or_init(|| {
        let output = Command::new("fio").arg("--version").stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    });
    version.as_deref()
}

/// What fio uses to start up and to end, without doing anything in between.
fn start_up() -> Usage {
    static USAGE: OnceLock<Usage> = OnceLock::new();
    *USAGE.get_or_init(|| {
        let before = Usage::of_ended_children();
        let idle = ["--name=idle", "--ioengine=null", "--size=4k", "--bs=4k"];
        let _ = Command::new("fio").args(idle).stdin(Stdio::null()).output();
        Usage::of_ended_children().since(before)
    })
}

/// Runs a file workload on one of fio's engines.
pub fn run(
    backend: Backend,
    workload: &Workload,
    file: &Path,
    span: u64,
    length: Duration,
) -> Result<FioResult, Absence> {
    let failed = |what: String| Absence::Failed(format!("fio: {what}"));
    let start_up = start_up();
    let before = Usage::of_ended_children();
    let mut command = command(backend, workload, file, span, length);
    let mut child = OwnChild::start(&mut command).map_err(|error| failed(plain(&error)))?;
    let stdout = child.inner().stdout.take().expect("fio's output is piped");
    let stderr = child.inner().stderr.take().expect("fio's complaints are piped");
    let output = std::thread::spawn(move || read_all(stdout));
    let complaint = std::thread::spawn(move || read_all(stderr));
    let limit = clock::now() + length + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(|error| failed(plain(&error)))? {
            Some(status) => break status,
            None if clock::now() < limit => std::thread::sleep(Duration::from_millis(5)),
            None => {
                child.terminate();
                std::thread::sleep(Duration::from_secs(1));
                return Err(failed(format!("no result within {} s", PATIENCE.as_secs())));
            }
        }
    };
    let output = output.join().unwrap_or_default();
    let complaint = complaint.join().unwrap_or_default();
    let json = output.find('{').map(|at| &output[at..]).unwrap_or_default();
    let writes = matches!(workload.shape, Shape::WriteSync { .. });
    match parse(json, writes) {
        Some(mut result) if status.success() => {
            if backend.has_helpers(workload) {
                result.charge(Usage::of_ended_children().since(before).since(start_up));
            }
            Ok(result)
        }
        _ => {
            let said = complaint.lines().chain(output.lines()).find(|line| !line.trim().is_empty());
            Err(failed(said.map_or_else(|| status.to_string(), |line| line.trim().to_owned())))
        }
    }
}

impl FioResult {
    /// Takes the usage of the whole process for that of the ops.
    fn charge(&mut self, usage: Usage) {
        let ops = self.ops as f64;
        self.cpu_user_us_per_op = usage.user_us as f64 / ops;
        self.cpu_system_us_per_op = usage.system_us as f64 / ops;
        self.context_switches_per_op = usage.context_switches as f64 / ops;
    }
}

fn read_all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn command(
    backend: Backend,
    workload: &Workload,
    file: &Path,
    span: u64,
    length: Duration,
) -> Command {
    let mut command = Command::new("fio");
    let (block, depth) = match workload.shape {
        Shape::Read { source, block, depth } => {
            let direct = u8::from(source == Source::Device);
            command.args(["--rw=randread", "--readonly"]).arg(format!("--direct={direct}"));
            (block, depth)
        }
        Shape::WriteSync { block, depth } => {
            command.args(["--rw=randwrite", "--fdatasync=1", "--direct=0"]);
            (block, depth)
        }
        Shape::Echo { .. } | Shape::Cores(_) => unreachable!("fio runs files only"),
    };
    let percentiles: Vec<String> = PERCENTILES.iter().map(f64::to_string).collect();
    command
        .args(["--name=omniring", "--output-format=json", "--group_reporting", "--time_based"])
        .args(["--norandommap", "--randrepeat=0", "--invalidate=0", "--allow_file_create=0"])
        .arg(format!("--percentile_list={}", percentiles.join(":")))
        .arg(format!("--runtime={}ms", length.as_millis()))
        .arg(format!("--bs={block}"))
        .arg(format!("--size={}", span / block as u64 * block as u64))
        .args(backend.options(depth))
        // fio takes a colon for a separator of file names.
        .arg(format!("--filename={}", file.display().to_string().replace(':', "\\:")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn parse(json: &str, writes: bool) -> Option<FioResult> {
    let report: Value = serde_json::from_str(json).ok()?;
    let job = report.get("jobs")?.get(0)?;
    if job.get("error")?.as_i64()? != 0 {
        return None;
    }
    let side = job.get(if writes { "write" } else { "read" })?;
    let ops = side.get("total_ios")?.as_u64().filter(|&ops| ops > 0)?;
    // Of a write and its fdatasync, the fdatasync is what takes the time.
    let latency = if writes { job.get("sync")?.get("lat_ns")? } else { side.get("clat_ns")? };
    let mut latency_us: Vec<(f64, f64)> = latency
        .get("percentile")?
        .as_object()?
        .iter()
        .filter_map(|(at, ns)| Some((at.parse().ok()?, ns.as_f64()? / 1e3)))
        .collect();
    latency_us.sort_by(|a, b| a.0.total_cmp(&b.0));
    // The shares of the processor are per cent of the jobs' time taken together.
    let runtime_us = job.get("job_runtime")?.as_f64()? * 1e3;
    let us_per_percent = runtime_us / 100.0;
    let per_op = |name| Some(job.get(name)?.as_f64()? * us_per_percent / ops as f64);
    Some(FioResult {
        ops,
        rate: side.get("iops")?.as_f64()?,
        cpu_user_us_per_op: per_op("usr_cpu")?,
        cpu_system_us_per_op: per_op("sys_cpu")?,
        context_switches_per_op: job.get("ctx")?.as_f64()? / ops as f64,
        latency_us,
        // fio has been seen to report hours for an op of a run of two seconds.
        max_us: latency.get("max")?.as_f64().map(|ns| ns / 1e3).filter(|&us| us <= runtime_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"jobs":[{"error":0,"job_runtime":1000,"usr_cpu":10.0,"sys_cpu":20.0,
        "ctx":500,"read":{"total_ios":1000,"iops":1000.0,"clat_ns":{"max":9000,
        "percentile":{"99.000000":8000,"50.000000":5000}}}}]}"#;

    #[test]
    fn a_report_becomes_figures_per_op() {
        let result = parse(REPORT, false).unwrap();
        assert_eq!((result.ops, result.rate), (1000, 1000.0));
        assert_eq!(result.cpu_user_us_per_op, 100.0);
        assert_eq!(result.cpu_system_us_per_op, 200.0);
        assert_eq!(result.context_switches_per_op, 0.5);
        assert_eq!(result.latency_us, [(50.0, 5.0), (99.0, 8.0)]);
        assert_eq!(result.max_us, Some(9.0));
        let hours = parse(&REPORT.replace("\"max\":9000", "\"max\":9000000000000"), false);
        assert_eq!(hours.unwrap().max_us, None);
    }

    #[test]
    fn a_failed_job_and_nonsense_are_no_result() {
        assert_eq!(parse(&REPORT.replace("\"error\":0", "\"error\":5"), false), None);
        assert_eq!(parse("fio: out of luck", false), None);
        assert_eq!(parse(REPORT, true), None);
    }

    #[test]
    fn helpers_are_charged_where_there_are_some() {
        let workload = |name| Workload::named(name).unwrap();
        assert!(Backend::PosixAio.has_helpers(workload("read-hot-4k-d32")));
        assert!(Backend::IoUring.has_helpers(workload("write-sync-4k-d8")));
        assert!(!Backend::IoUring.has_helpers(workload("read-direct-4k-d32")));
        let mut result = parse(REPORT, false).unwrap();
        result.charge(Usage { user_us: 2000, system_us: 30_000, context_switches: 4000 });
        assert_eq!(result.cpu_system_us_per_op, 30.0);
        assert_eq!(result.context_switches_per_op, 4.0);
    }

    #[test]
    fn the_depth_of_psync_is_a_number_of_jobs() {
        assert!(Backend::Psync.options(32).contains(&"--numjobs=32".to_owned()));
        assert!(Backend::IoUring.options(32).contains(&"--iodepth=32".to_owned()));
    }
}
