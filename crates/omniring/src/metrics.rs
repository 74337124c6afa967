//! What a runtime has done, in numbers, and the same as text for Prometheus (feature `metrics`).
//!
//! With the feature each op reads the clock twice and counts, and each poll of a task counts; without
//! it nothing of that is compiled.
//!
//! ```
//! use omniring::metrics::prometheus_text;
//!
//! let runtime = omniring::Runtime::new()?;
//! runtime.block_on(async { omniring::fs::metadata("/").await })?;
//! let metrics = runtime.metrics();
//! assert_eq!(metrics.driver.op_count(), 1);
//! let text = prometheus_text(&metrics);
//! assert!(text.contains("\nomniring_ops_ended_total{engine="));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program that serves the text serves it on a path of its own HTTP server, with the content type
//! `text/plain; version=0.0.4`.

use std::fmt::{Display, Write};
use std::time::Duration;

pub use omniring_driver::metrics::{DriverMetrics, Latency, OpMetrics};

use crate::Engine;

/// The counts of one runtime at one moment: see [`Runtime::metrics`](crate::Runtime::metrics).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Metrics {
    /// The engine that runs.
    pub engine: Engine,
    /// Tasks that have not completed.
    pub task_count: usize,
    /// Tasks in the queue: they were woken, or have yielded, and have not run since.
    pub ready_count: usize,
    /// Tasks that were spawned since the runtime was made.
    pub spawn_count: u64,
    /// How often a task was run.
    pub poll_count: u64,
    /// How often a task was put in the queue since it was spawned; several wakes before its turn are
    /// one.
    pub wake_count: u64,
    /// Of these wakes, those that came from other threads.
    pub remote_wake_count: u64,
    /// Timers that fired.
    pub timer_count: u64,
    /// What the driver has done.
    pub driver: DriverMetrics,
}

/// Bounds of the latency buckets: four times as long each.
const BUCKETS: [Duration; 13] = {
    let mut buckets = [Duration::ZERO; 13];
    let (mut at, mut microseconds) = (0, 1);
    while at < buckets.len() {
        buckets[at] = Duration::from_micros(microseconds);
        (at, microseconds) = (at + 1, microseconds * 4);
    }
    buckets
};

/// The metrics in the text format of Prometheus (version 0.0.4). Every line has the engine as a label,
/// those about ops the opcode also; times are in seconds.
pub fn prometheus_text(metrics: &Metrics) -> String {
    let Metrics { driver, .. } = metrics;
    let mut text = Text { out: String::new(), engine: metrics.engine };
    text.gauge("tasks", "Tasks that have not completed", metrics.task_count);
    text.gauge("tasks_ready", "Tasks in the queue", metrics.ready_count);
    text.counter("tasks_spawned_total", "Tasks that were spawned", metrics.spawn_count);
    text.counter("task_polls_total", "Times that a task was run", metrics.poll_count);
    text.counter("task_wakes_total", "Wakes of tasks", metrics.wake_count);
    let remote = "Wakes of tasks by other threads";
    text.counter("task_remote_wakes_total", remote, metrics.remote_wake_count);
    text.counter("timers_fired_total", "Timers that fired", metrics.timer_count);
    text.counter("turns_total", "Turns of the loop", driver.turn_count);
    let entries = "System calls that submit, wait or reap";
    text.counter("kernel_entries_total", entries, driver.kernel_entry_count);
    text.counter("unparks_total", "Times that another thread ended a wait", driver.unpark_count);
    text.gauge("ops_in_flight", "Ops in flight", driver.in_flight_count);
    text.gauge("ops_in_flight_max", "The most ops in flight at once", driver.in_flight_max);
    text.gauge("pool_threads", "Threads of the pool", driver.thread_count);
    text.gauge("leased_buffers", "Buffers of the lease pool in use", driver.leased_count);
    text.head("ops_started_total", "Ops that were started", "counter");
    for op in &driver.ops {
        text.line("ops_started_total", &opcode(op), op.started_count);
    }
    text.head("ops_ended_total", "Ops that have ended", "counter");
    for op in &driver.ops {
        text.line("ops_ended_total", &opcode(op), op.ended_count);
    }
    text.head("op_duration_seconds", "From an op's start to its end", "histogram");
    for op in &driver.ops {
        text.histogram("op_duration_seconds", op);
    }
    text.out
}

/// The label that tells ops apart.
fn opcode(op: &OpMetrics) -> String {
    format!(",opcode=\"{}\"", op.opcode.name())
}

struct Text {
    out: String,
    engine: Engine,
}

impl Text {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.write(format_args!("# HELP omniring_{name} {help}.\n# TYPE omniring_{name} {kind}\n"));
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let engine = self.engine;
        self.write(format_args!("omniring_{name}{{engine=\"{engine}\"{labels}}} {value}\n"));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(name, "", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.head(name, help, "gauge");
        self.line(name, "", value);
    }

    fn histogram(&mut self, name: &str, op: &OpMetrics) {
        let opcode = opcode(op);
        let bucket = format!("{name}_bucket");
        for bound in BUCKETS {
            let labels = format!("{opcode},le=\"{}\"", bound.as_secs_f64());
            self.line(&bucket, &labels, op.latency.count_within(bound));
        }
        self.line(&bucket, &format!("{opcode},le=\"+Inf\""), op.ended_count);
        self.line(&format!("{name}_sum"), &opcode, op.latency.sum().as_secs_f64());
        self.line(&format!("{name}_count"), &opcode, op.ended_count);
    }

    fn write(&mut self, line: std::fmt::Arguments<'_>) {
        self.out.write_fmt(line).expect("a string takes everything");
    }
}
