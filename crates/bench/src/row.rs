//! A row: what one contender did on one workload, as it is printed.
//!
//! A row that could not be measured has no figures and a reason instead.

use serde::Serialize;

use crate::fio::FioResult;
use crate::measure::{Latency, Slice, Usage, median, median_ratio};
use crate::subject::child::Absence;
use crate::workload::Workload;

/// Points of the percentile curve that the report draws.
const CURVE: [f64; 14] =
    [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.95, 99.99];

/// Fewest ops beyond a percentile for it to be drawn.
const OPS_BEYOND_MIN: f64 = 3.0;

/// One row. Absent figures are null in JSON and empty in CSV.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Row {
    /// `floor`, an engine, or one of fio's.
    pub engine: String,
    /// Name of the workload.
    pub workload: String,
    /// Ops completed per second of wall clock, median over slices.
    pub ops_per_s: Option<f64>,
    /// Millions of bytes moved per second.
    pub mb_per_s: Option<f64>,
    /// Processor time per op, in microseconds, median over slices.
    pub cpu_us_per_op: Option<f64>,
    /// Its part in user mode.
    pub cpu_user_us_per_op: Option<f64>,
    /// Its part in the kernel.
    pub cpu_system_us_per_op: Option<f64>,
    /// Context switches per op, median over slices.
    pub context_switches_per_op: Option<f64>,
    /// System calls per op, counted in a slice of its own; absent where they cannot
    /// be counted.
    pub syscalls_per_op: Option<f64>,
    /// Median latency in microseconds.
    pub p50_us: Option<f64>,
    /// Latency in microseconds that 99 % of the ops stayed within.
    pub p99_us: Option<f64>,
    /// Latency in microseconds that 99.9 % of the ops stayed within.
    pub p999_us: Option<f64>,
    /// Longest latency in microseconds.
    pub max_us: Option<f64>,
    /// Difference of the rate from that of `uring` in per cent: the median over
    /// rounds of the differences within a round.
    pub vs_uring_percent: Option<f64>,
    /// Processor time per op as a multiple of the floor's, paired in the same way.
    pub cpu_vs_floor: Option<f64>,
    /// Ops counted in all.
    pub ops: Option<u64>,
    /// Rounds measured.
    pub rounds: Option<usize>,
    /// What would make this row mislead.
    pub warning: Option<String>,
    /// Why the row did not run.
    pub skipped: Option<String>,
    /// Why the row failed.
    pub error: Option<String>,
    /// Percentile and latency in microseconds, for the report.
    #[serde(skip)]
    pub curve: Vec<(f64, f64)>,
}

/// What a row is compared with: the slices of another row, round by round.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    /// Ops per second.
    pub rates: Vec<f64>,
    /// Processor time per op in microseconds.
    pub cpu_us: Vec<f64>,
}

impl Reference {
    /// The figures of some slices.
    pub fn of(slices: &[Slice]) -> Reference {
        Reference {
            rates: slices.iter().map(Slice::rate).collect(),
            cpu_us: slices.iter().map(Slice::cpu_us_per_op).collect(),
        }
    }
}

/// The rows that every other row of a workload is compared with.
#[derive(Debug, Clone, Default)]
pub struct References {
    /// Slices of `uring`, if it ran.
    pub uring: Option<Reference>,
    /// Slices of the floor, if it ran.
    pub floor: Option<Reference>,
}

impl Row {
    fn named(engine: &str, workload: &Workload) -> Row {
        Row { engine: engine.to_owned(), workload: workload.name.to_owned(), ..Row::default() }
    }

    /// A row without figures.
    pub fn absent(engine: &str, workload: &Workload, absence: Absence) -> Row {
        let mut row = Row::named(engine, workload);
        match absence {
            Absence::Skipped(reason) => row.skipped = Some(reason),
            Absence::Failed(reason) => row.error = Some(reason),
        }
        row
    }

    /// A row of slices that alternated with those of the references.
    pub fn of_slices(
        engine: &str,
        workload: &Workload,
        slices: &[Slice],
        references: &References,
    ) -> Row {
        let mut row = Row::named(engine, workload);
        let own = Reference::of(slices);
        let mut latency = Latency::new();
        let (mut usage, mut ops) = (Usage::default(), 0);
        for slice in slices {
            latency.merge(&slice.latency);
            usage.user_us += slice.usage.user_us;
            usage.system_us += slice.usage.system_us;
            ops += slice.ops;
        }
        if ops == 0 {
            let absence = Absence::Failed("no op completed in the time given".to_owned());
            return Row::absent(engine, workload, absence);
        }
        row.set_rate(median(own.rates.iter().copied()), workload);
        // The kernel tells user from kernel time by sampling: only the sum over
        // all slices has enough samples to share the time out.
        let cpu = median(own.cpu_us.iter().copied());
        let user_share = usage.user_us as f64 / (usage.cpu_us() as f64).max(1.0);
        row.cpu_us_per_op = cpu;
        row.cpu_user_us_per_op = cpu.map(|cpu| cpu * user_share);
        row.cpu_system_us_per_op = cpu.map(|cpu| cpu * (1.0 - user_share));
        row.context_switches_per_op = median(slices.iter().map(Slice::context_switches_per_op));
        row.set_latency(&latency);
        row.ops = Some(ops);
        row.rounds = Some(slices.len());
        row.vs_uring_percent = (references.uring.as_ref())
            .and_then(|uring| median_ratio(&own.rates, &uring.rates))
            .map(|ratio| (ratio - 1.0) * 100.0);
        row.cpu_vs_floor =
            (references.floor.as_ref()).and_then(|floor| median_ratio(&own.cpu_us, &floor.cpu_us));
        row
    }

    /// A row of fio, which ran once, after the slices of the references.
    pub fn of_fio(
        engine: &str,
        workload: &Workload,
        result: &FioResult,
        references: &References,
    ) -> Row {
        let mut row = Row::named(engine, workload);
        let cpu = result.cpu_user_us_per_op + result.cpu_system_us_per_op;
        let at = |percentile: f64| {
            let found = result.latency_us.iter().find(|(at, _)| (at - percentile).abs() < 1e-6);
            found.map(|&(_, us)| us)
        };
        row.set_rate(Some(result.rate), workload);
        row.cpu_us_per_op = Some(cpu);
        row.cpu_user_us_per_op = Some(result.cpu_user_us_per_op);
        row.cpu_system_us_per_op = Some(result.cpu_system_us_per_op);
        row.context_switches_per_op = Some(result.context_switches_per_op);
        (row.p50_us, row.p99_us, row.p999_us) = (at(50.0), at(99.0), at(99.9));
        row.max_us = result.max_us;
        row.curve = result.latency_us.clone();
        row.ops = Some(result.ops);
        row.rounds = Some(1);
        let middle = |values: &[f64]| median(values.iter().copied());
        row.vs_uring_percent = (references.uring.as_ref())
            .and_then(|uring| middle(&uring.rates))
            .map(|rate| (result.rate / rate - 1.0) * 100.0);
        row.cpu_vs_floor = (references.floor.as_ref())
            .and_then(|floor| middle(&floor.cpu_us))
            .map(|floor| cpu / floor);
        row
    }

    fn set_rate(&mut self, rate: Option<f64>, workload: &Workload) {
        self.ops_per_s = rate;
        self.mb_per_s = rate.map(|rate| rate * workload.bytes_per_op() as f64 / 1e6);
    }

    fn set_latency(&mut self, latency: &Latency) {
        let ops = latency.count() as f64;
        if ops == 0.0 {
            return;
        }
        self.p50_us = Some(latency.percentile_us(50.0));
        self.p99_us = Some(latency.percentile_us(99.0));
        self.p999_us = Some(latency.percentile_us(99.9));
        self.max_us = Some(latency.max_us());
        let told = CURVE.iter().filter(|&&at| ops * (1.0 - at / 100.0) >= OPS_BEYOND_MIN);
        self.curve = told.map(|&at| (at, latency.percentile_us(at))).collect();
    }

    /// Whether the row has figures.
    pub fn is_measured(&self) -> bool {
        self.ops_per_s.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn slice(ops: u64, user_us: u64, system_us: u64) -> Slice {
        let mut slice = Slice {
            ops,
            elapsed: Duration::from_secs(1),
            usage: Usage { user_us, system_us, context_switches: ops },
            ..Slice::default()
        };
        slice.latency.record(Duration::from_micros(100));
        slice
    }

    #[test]
    fn rows_are_compared_within_rounds() {
        let workload = Workload::named("read-direct-4k-d32").unwrap();
        // The second round ran at half the speed for both.
        let uring = [slice(1000, 1000, 3000), slice(500, 500, 1500)];
        let floor = [slice(1000, 1000, 1000), slice(500, 500, 500)];
        let references =
            References { uring: Some(Reference::of(&uring)), floor: Some(Reference::of(&floor)) };
        let row = Row::of_slices(
            "x",
            workload,
            &[slice(900, 900, 900), slice(450, 450, 450)],
            &references,
        );
        assert!((row.vs_uring_percent.unwrap() + 10.0).abs() < 1e-9);
        assert_eq!(row.cpu_vs_floor, Some(1.0));
        assert_eq!(row.ops_per_s, Some(675.0));
        assert_eq!(row.mb_per_s, Some(675.0 * 4096.0 / 1e6));
        assert_eq!(row.cpu_us_per_op, Some(2.0));
        assert_eq!(row.cpu_user_us_per_op, Some(1.0));
        assert_eq!(row.context_switches_per_op, Some(1.0));
        assert!((row.p50_us.unwrap() - 100.0).abs() < 0.1);
        assert_eq!((row.ops, row.rounds), (Some(1350), Some(2)));
        let own = Row::of_slices("uring", workload, &uring, &references);
        assert_eq!(own.vs_uring_percent, Some(0.0));
    }

    #[test]
    fn nothing_done_is_a_failure() {
        let workload = Workload::named("echo-1").unwrap();
        let row = Row::of_slices("x", workload, &[Slice::default()], &References::default());
        assert!(!row.is_measured() && row.error.is_some());
    }
}
