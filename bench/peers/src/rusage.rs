//! CPU time and context switches of this process, and of another one.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Voluntary and involuntary context switches of all threads.
    pub context_switches: u64,
}

impl Usage {
    /// Usage of this process.
    pub fn of_self() -> Result<Usage> {
        Usage::of(UsageWho::RUSAGE_SELF)
    }

    /// Usage of the children that have ended and been waited for.
    pub fn of_ended_children() -> Result<Usage> {
        Usage::of(UsageWho::RUSAGE_CHILDREN)
    }

    fn of(who: UsageWho) -> Result<Usage> {
        let usage = getrusage(who).context("getrusage")?;
        let cpu_us = [usage.user_time(), usage.system_time()]
            .iter()
            .map(|time| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64)
            .sum();
        let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
        Ok(Usage {
            cpu: Duration::from_micros(cpu_us),
            context_switches: switches as u64,
        })
    }

    /// Usage of the process `pid` while it runs: its CPU clock, to the
    /// nanosecond, with the kernel's worker threads for its rings included.
    pub fn of_process(pid: u32) -> Result<Usage> {
        let clock = clock_getcpuclockid(Pid::from_raw(pid as i32))
            .with_context(|| format!("CPU clock of process {pid}"))?;
        let cpu = Duration::from(clock_gettime(clock).context("reading a CPU clock")?);
        Ok(Usage {
            cpu,
            context_switches: context_switches_of(pid)?,
        })
    }

    /// What was used between `earlier` and this.
    pub fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            context_switches: self
                .context_switches
                .saturating_sub(earlier.context_switches),
        }
    }
}

/// Sums over the threads that are alive now.
fn context_switches_of(pid: u32) -> Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let mut switches = 0;
    for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        // A thread may end between the listing and the reading.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        switches += status
            .lines()
            .filter_map(|line| line.split_once("ctxt_switches:"))
            .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(switches)
}
