//! fio's engines as further rivals for the reads.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::compare::Sample;
use crate::process::RunningChild;
use crate::reads::ReadJob;
use crate::rusage::Usage;

/// fio's engines, each set up as its users would for speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FioEngine {
    /// Registered buffers and files, submissions and completions in batches.
    IoUring,
    /// Linux native AIO, in batches.
    Libaio,
    /// `pread` on one thread per read in flight.
    Psync,
    /// The C library's POSIX AIO.
    Posixaio,
}

impl FioEngine {
    /// All of them.
    pub const ALL: [FioEngine; 4] = [
        FioEngine::IoUring,
        FioEngine::Libaio,
        FioEngine::Psync,
        FioEngine::Posixaio,
    ];

    /// The name that fio gives it.
    pub fn name(self) -> &'static str {
        match self {
            FioEngine::IoUring => "io_uring",
            FioEngine::Libaio => "libaio",
            FioEngine::Psync => "psync",
            FioEngine::Posixaio => "posixaio",
        }
    }
}

/// Whether fio can be started.
pub fn is_installed() -> bool {
    Command::new("fio")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

#[derive(Deserialize)]
struct Output {
    jobs: Vec<Job>,
}

/// Percentages are of `job_runtime`, which sums over the threads (ms).
#[derive(Deserialize)]
struct Job {
    read: Reads,
    usr_cpu: f64,
    sys_cpu: f64,
    ctx: u64,
    job_runtime: f64,
}

#[derive(Deserialize)]
struct Reads {
    iops: f64,
    total_ios: u64,
}

/// One run of `job` on `engine`.
pub fn random_read(engine: FioEngine, job: &ReadJob, patience: Duration) -> Result<Sample> {
    let before = Usage::of_ended_children()?;
    let printed = RunningChild::start(command(engine, job), None)?.output(patience)?;
    let children = Usage::of_ended_children()?.since(before);
    // Notes may precede the report.
    let report = printed
        .find('{')
        .map(|start| &printed[start..])
        .context("fio reported nothing")?;
    let output: Output = serde_json::from_str(report).context("fio's report")?;
    let job = output.jobs.first().context("fio ran no job")?;
    ensure!(job.read.total_ios > 0, "fio read nothing");
    let ops = job.read.total_ios as f64;
    let used = match engine {
        // Its helper threads are not in fio's own figures.
        FioEngine::Posixaio => children,
        _ => Usage {
            cpu: Duration::from_secs_f64(
                (job.usr_cpu + job.sys_cpu) / 100.0 * job.job_runtime / 1e3,
            ),
            context_switches: job.ctx,
        },
    };
    Ok(Sample {
        rate: job.read.iops,
        cpu_us_per_op: used.cpu.as_secs_f64() * 1e6 / ops,
        context_switches_per_op: used.context_switches as f64 / ops,
        server_busy: None,
    })
}

fn command(engine: FioEngine, job: &ReadJob) -> Command {
    let mut fio = Command::new("fio");
    fio.args([
        "--name=read",
        "--rw=randread",
        "--thread",
        "--group_reporting",
    ])
    .args([
        "--readonly",
        "--time_based",
        "--invalidate=0",
        "--norandommap",
    ])
    .args(["--gtod_reduce=1", "--output-format=json"])
    .arg(format!("--filename={}", escaped(&job.file)))
    .arg(format!("--ioengine={}", engine.name()))
    .arg(format!("--bs={}", job.block_size))
    .arg(format!("--size={}M", job.span))
    .arg(format!("--runtime={}ms", (job.seconds * 1e3).round()))
    .arg(format!("--direct={}", u8::from(job.direct)));
    let submit_batch = (job.depth / 2).max(1);
    let complete_batch = (job.depth / 4).max(1);
    if engine == FioEngine::IoUring {
        fio.args(["--fixedbufs=1", "--registerfiles=1"]);
    }
    match engine {
        FioEngine::IoUring | FioEngine::Libaio => {
            fio.arg(format!("--iodepth={}", job.depth))
                .arg(format!("--iodepth_batch_submit={submit_batch}"))
                .arg(format!("--iodepth_batch_complete_min={complete_batch}"))
                .arg(format!("--iodepth_batch_complete_max={}", job.depth))
                .arg("--ramp_time=200ms");
        }
        FioEngine::Psync => {
            fio.arg(format!("--numjobs={}", job.depth))
                .arg("--ramp_time=200ms");
        }
        // All of its ops count, as all of its process's CPU time does.
        FioEngine::Posixaio => {
            fio.arg(format!("--iodepth={}", job.depth));
        }
    }
    fio
}

/// fio splits file names at colons.
fn escaped(file: &Path) -> String {
    file.display().to_string().replace(':', "\\:")
}
