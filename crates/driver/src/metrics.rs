//! What a driver has done since it was made: [`Driver::metrics`](crate::Driver::metrics).

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::op::Opcode;

/// The counts of one driver at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DriverMetrics {
    /// Rounds of the loop: submit, wait, reap.
    pub turn_count: u64,
    /// System calls by which the engine submitted, waited or reaped. Those that carry out one op by
    /// itself, as on the engines made of system calls, are not among them.
    pub kernel_entry_count: u64,
    /// Ops in flight now.
    pub in_flight_count: usize,
    /// The most ops that were in flight at once.
    pub in_flight_max: usize,
    /// How often another thread woke the driver out of its wait.
    pub unpark_count: u64,
    /// Threads of the pool.
    pub thread_count: usize,
    /// Buffers of the lease pool that are leased.
    pub leased_count: usize,
    /// Each kind of op that was started, in the order of [`Opcode::ALL`].
    pub ops: Vec<OpMetrics>,
}

impl DriverMetrics {
    /// Ops that were started.
    pub fn op_count(&self) -> u64 {
        self.ops.iter().map(|op| op.started_count).sum()
    }
}

/// The ops of one kind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpMetrics {
    /// Which kind.
    pub opcode: Opcode,
    /// Ops that were started.
    pub started_count: u64,
    /// Ops that have ended, well or not.
    pub ended_count: u64,
    /// From the start to when the driver saw the end; of a multishot op, its last end.
    pub latency: Latency,
}

/// How long ops of one kind took, with two significant digits; an hour stands for everything longer.
#[derive(Clone)]
pub struct Latency(pub(crate) Histogram<u64>);

impl Latency {
    /// The time within which this share of the ops ended, 0.0 to 1.0; zero if none has.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(share))
    }

    /// The longest time.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// Of all of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos((self.0.mean() * self.0.len() as f64) as u64)
    }

    /// Ops that took `time` at most.
    pub fn count_within(&self, time: Duration) -> u64 {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.count_between(0, nanoseconds.min(self.0.high()))
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency")
            .field("median", &self.quantile(0.5))
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}
