//! What is measured and how it is summed up: processor time and context
//! switches of a process, latency histograms, medians and paired differences.
//!
//! Latencies are in nanoseconds, histograms have three significant digits.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

/// Longest latency that a histogram tells apart, in nanoseconds: a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// A histogram of latencies in nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency(hdrhistogram::Histogram<u64>);

impl Latency {
    /// An empty histogram.
    pub fn new() -> Self {
        let histogram = hdrhistogram::Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
            .expect("the bounds are in order and the digits in range");
        Latency(histogram)
    }

    /// Counts one op; longer ones than a minute count as a minute.
    #[inline]
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos() as u64);
    }

    /// Adds what another histogram has counted.
    pub fn merge(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("all latency histograms have the same bounds");
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Number of ops counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Latency in microseconds that `percentile` per cent of the ops stayed within.
    pub fn percentile_us(&self, percentile: f64) -> f64 {
        self.0.value_at_quantile(percentile / 100.0) as f64 / 1e3
    }

    /// Longest latency in microseconds.
    pub fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }

    /// The V2 form of the HDR format, in base64.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&self.0, &mut bytes)
            .expect("a vector takes whatever is written to it");
        BASE64.encode(bytes)
    }

    /// The opposite of [`Latency::encode`].
    pub fn decode(text: &str) -> io::Result<Self> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let bytes = BASE64.decode(text).map_err(|error| invalid(error.to_string()))?;
        let histogram = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| invalid(error.to_string()))?;
        let mut latency = Latency::new();
        latency.0.add(histogram).map_err(|error| invalid(error.to_string()))?;
        Ok(latency)
    }
}

impl Default for Latency {
    fn default() -> Self {
        Latency::new()
    }
}

/// Processor time and context switches of this whole process, all of its
/// threads and the kernel's workers for it included, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Time in user mode, in microseconds.
    pub user_us: u64,
    /// Time in the kernel, in microseconds.
    pub system_us: u64,
    /// Context switches, voluntary and not.
    pub context_switches: u64,
}

impl Usage {
    /// What this process has used so far.
    pub fn of_this_process() -> Usage {
        Usage::read(UsageWho::RUSAGE_SELF)
    }

    /// What the ended and awaited children of this process have used so far.
    pub fn of_ended_children() -> Usage {
        Usage::read(UsageWho::RUSAGE_CHILDREN)
    }

    fn read(who: UsageWho) -> Usage {
        let usage = getrusage(who).expect("getrusage fails only for an unknown subject");
        Usage {
            user_us: usage.user_time().num_microseconds() as u64,
            system_us: usage.system_time().num_microseconds() as u64,
            context_switches: (usage.voluntary_context_switches()
                + usage.involuntary_context_switches()) as u64,
        }
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Usage) -> Usage {
        Usage {
            user_us: self.user_us.saturating_sub(earlier.user_us),
            system_us: self.system_us.saturating_sub(earlier.system_us),
            context_switches: self.context_switches.saturating_sub(earlier.context_switches),
        }
    }

    /// User and kernel time together, in microseconds.
    pub fn cpu_us(self) -> u64 {
        self.user_us + self.system_us
    }
}

/// Bytes that this process has had fetched from devices, if the kernel tells.
pub fn device_bytes_read() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("read_bytes:"))?;
    value.trim().parse().ok()
}

/// What one slice of one row measured.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// Ops completed.
    pub ops: u64,
    /// Wall clock time.
    pub elapsed: Duration,
    /// Processor time and context switches of the subject.
    pub usage: Usage,
    /// Bytes that the subject had fetched from devices, if known.
    pub device_bytes: Option<u64>,
    /// System calls of the subject, if this slice was for counting them.
    pub syscalls: Option<u64>,
    /// Latencies of the ops.
    pub latency: Latency,
}

impl Slice {
    /// Ops per second.
    pub fn rate(&self) -> f64 {
        ratio(self.ops as f64, self.elapsed.as_secs_f64())
    }

    /// Processor time per op, in microseconds.
    pub fn cpu_us_per_op(&self) -> f64 {
        ratio(self.usage.cpu_us() as f64, self.ops as f64)
    }

    /// Context switches per op.
    pub fn context_switches_per_op(&self) -> f64 {
        ratio(self.usage.context_switches as f64, self.ops as f64)
    }

    /// System calls per op, if they were counted.
    pub fn syscalls_per_op(&self) -> Option<f64> {
        self.syscalls.filter(|_| self.ops > 0).map(|calls| ratio(calls as f64, self.ops as f64))
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The median, the mean of the two middle values when their number is even;
/// `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The median over rounds of `of / to`, each pair taken from the same round, so
/// that whatever disturbs a round disturbs both sides of its ratio.
pub fn median_ratio(of: &[f64], to: &[f64]) -> Option<f64> {
    median(of.iter().zip(to).map(|(of, to)| of / to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_survive_the_wire() {
        let mut latency = Latency::new();
        for us in 1..=1000 {
            latency.record(Duration::from_micros(us));
        }
        let back = Latency::decode(&latency.encode()).unwrap();
        assert_eq!(back, latency);
        assert_eq!(back.count(), 1000);
        assert!((back.percentile_us(50.0) - 500.0).abs() < 1.0);
        assert!((back.max_us() - 1000.0).abs() < 1.0);
    }

    #[test]
    fn a_broken_histogram_is_an_error() {
        assert!(Latency::decode("?").is_err());
        assert!(Latency::decode("AAAA").is_err());
    }

    #[test]
    fn merging_adds_counts() {
        let mut first = Latency::new();
        first.record(Duration::from_micros(1));
        let mut second = Latency::new();
        second.record(Duration::from_micros(100));
        first.merge(&second);
        assert_eq!(first.count(), 2);
        assert!(first.max_us() > 99.0);
    }

    #[test]
    fn medians_and_paired_ratios() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        // The second round is disturbed on both sides: the ratio stays.
        assert_eq!(median_ratio(&[2.0, 20.0, 2.0], &[1.0, 10.0, 1.0]), Some(2.0));
    }

    #[test]
    fn this_process_uses_processor_time() {
        let before = Usage::of_this_process();
        let mut sum = 0u64;
        while Usage::of_this_process().since(before).cpu_us() < 1000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
