//! What the server counts, a set of counters for each core.
//!
//! Invariant, *one writer*: a core's counters are changed by that core alone, so that adding is a load and a store;
//! others only read them. So counters are set back by each core itself: [`Core::reset_stats`](super::Core).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, on the core whose counter it is.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    /// The count, on any core.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Bits of a time that are told apart, which makes buckets 3 percent wide at most.
const PRECISION: u32 = 5;

/// Buckets of times up to 2^32 microseconds, which is more than an hour.
const BUCKETS: usize = (33 - PRECISION as usize) << PRECISION;

/// How often commands took how long: logarithmic buckets of microseconds, exact up to 31.
#[derive(Debug)]
pub struct Histogram(Box<[Counter]>);

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram((0..BUCKETS).map(|_| Counter::default()).collect())
    }
}

/// The bucket of a time.
fn bucket_of(micros: u64) -> usize {
    let micros = micros.min(u64::from(u32::MAX));
    let bits = 64 - micros.leading_zeros();
    let shift = bits.saturating_sub(PRECISION + 1);
    ((shift as usize) << PRECISION) + (micros >> shift) as usize
}

/// The longest time of a bucket, in microseconds.
fn longest_of(bucket: usize) -> u64 {
    let shift = (bucket >> PRECISION).saturating_sub(1) as u32;
    let leading = (bucket - ((shift as usize) << PRECISION)) as u64;
    ((leading + 1) << shift) - 1
}

/// A histogram of all cores together, as it was at one moment.
#[derive(Debug, Default)]
pub struct Times {
    buckets: Vec<u64>,
    total: u64,
}

impl Times {
    /// How many times there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The time within which so many percent of the calls were, in microseconds.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = ((percent / 100.0 * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return longest_of(bucket);
            }
        }
        0
    }

    /// Powers of two of microseconds with how many calls took no longer, where that is more than for the one before.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut steps: Vec<(u64, u64)> = Vec::new();
        let (mut bound, mut seen) = (1, 0);
        for (bucket, &count) in self.buckets.iter().enumerate() {
            if count == 0 {
                continue;
            }
            while longest_of(bucket) > bound {
                bound *= 2;
            }
            seen += count;
            match steps.last_mut() {
                Some(last) if last.0 == bound => last.1 = seen,
                _ => steps.push((bound, seen)),
            }
        }
        steps
    }
}

/// Counters of one command.
#[derive(Debug, Default)]
pub struct CommandStats {
    /// Calls.
    pub calls: Counter,
    /// Microseconds that they took in all.
    pub micros: Counter,
    /// Calls that were refused before they began.
    pub rejected: Counter,
    /// Calls that ended with an error.
    pub failed: Counter,
    /// How often they took how long.
    times: OnceLock<Histogram>,
}

/// Counters of one core.
#[derive(Debug)]
pub struct CoreStats {
    /// By the number of the command.
    pub commands: Vec<CommandStats>,
    /// Connections that were accepted.
    pub connections: Counter,
    /// Connections refused because there were too many.
    pub refused: Counter,
    /// Connections closed because all together had too much memory.
    pub evicted_clients: Counter,
    /// Commands that were carried out.
    pub processed: Counter,
    /// Error replies.
    pub errors: Counter,
    /// Bytes received.
    pub input: Counter,
    /// Bytes sent.
    pub output: Counter,
    /// Times that something was received.
    pub reads: Counter,
    /// Times that something was sent.
    pub writes: Counter,
    /// Microseconds in which keys were looked for whose time had come.
    pub expire_micros: Counter,
}

impl CoreStats {
    fn new() -> CoreStats {
        let counter = Counter::default;
        CoreStats {
            commands: (0..crate::command::count()).map(|_| CommandStats::default()).collect(),
            connections: counter(),
            refused: counter(),
            evicted_clients: counter(),
            processed: counter(),
            errors: counter(),
            input: counter(),
            output: counter(),
            reads: counter(),
            writes: counter(),
            expire_micros: counter(),
        }
    }

    /// Some calls, one at least, have taken that long together.
    pub fn called(&self, command: usize, calls: u64, micros: u64, with_histogram: bool) {
        let stats = &self.commands[command];
        self.processed.add(calls);
        stats.calls.add(calls);
        stats.micros.add(micros);
        if with_histogram {
            let times = stats.times.get_or_init(Histogram::default);
            if calls == 1 {
                return times.0[bucket_of(micros)].add(1);
            }
            let (each, more) = (micros / calls, micros % calls);
            times.0[bucket_of(each)].add(calls - more);
            times.0[bucket_of(each + 1)].add(more);
        }
    }

    /// A call has ended with an error.
    pub fn failed(&self, command: usize) {
        self.commands[command].failed.add(1);
    }

    /// A call was refused.
    pub fn rejected(&self, command: usize) {
        self.commands[command].rejected.add(1);
    }

    /// All zero again.
    pub fn reset(&self) {
        for command in &self.commands {
            for counter in [&command.calls, &command.micros, &command.rejected, &command.failed] {
                counter.reset();
            }
            command.times.get().into_iter().flat_map(|times| &times.0).for_each(Counter::reset);
        }
        let counters = [
            &self.connections,
            &self.refused,
            &self.evicted_clients,
            &self.processed,
            &self.errors,
            &self.input,
            &self.output,
            &self.reads,
            &self.writes,
            &self.expire_micros,
        ];
        counters.into_iter().for_each(Counter::reset);
    }
}

/// What the server counts, since the start or `CONFIG RESETSTAT`.
#[derive(Debug)]
pub struct Stats {
    cores: Vec<CoreStats>,
}

impl Stats {
    /// All zero.
    pub fn new(cores: usize) -> Stats {
        Stats { cores: (0..cores).map(|_| CoreStats::new()).collect() }
    }

    /// The counters of a core.
    pub fn core(&self, index: usize) -> &CoreStats {
        &self.cores[index]
    }

    /// A counter of all cores together.
    pub fn sum(&self, counter: impl Fn(&CoreStats) -> &Counter) -> u64 {
        self.cores.iter().map(|core| counter(core).get()).sum()
    }

    /// How long a command's calls took.
    pub fn times(&self, command: usize) -> Times {
        let mut times = Times { buckets: vec![0; BUCKETS], total: 0 };
        for core in &self.cores {
            let Some(of_core) = core.commands[command].times.get() else {
                continue;
            };
            for (sum, counter) in times.buckets.iter_mut().zip(&of_core.0) {
                *sum += counter.get();
            }
        }
        times.total = times.buckets.iter().sum();
        times
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Stats, bucket_of, longest_of};

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        let mut from = 0;
        for bucket in 0..BUCKETS {
            let longest = longest_of(bucket);
            assert_eq!(bucket_of(from), bucket, "{from}");
            assert_eq!(bucket_of(longest), bucket, "{longest}");
            assert!((longest - from) as f64 <= from as f64 / 31.0, "{from} to {longest}");
            from = longest + 1;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn times_of_all_cores_are_summed_up() {
        let stats = Stats::new(2);
        for micros in 1..=100 {
            stats.core(micros as usize % 2).called(0, 1, micros, true);
        }
        let times = stats.times(0);
        assert_eq!(times.total(), 100);
        assert!((50..=52).contains(&times.percentile(50.0)));
        assert!((100..=103).contains(&times.percentile(100.0)));
        assert_eq!(times.cumulative().first(), Some(&(1, 1)));
        assert_eq!(times.cumulative().last().map(|step| step.1), Some(100));
        assert_eq!(stats.sum(|core| &core.commands[0].calls), 100);
        stats.core(0).reset();
        assert_eq!(stats.times(0).total(), 50);
    }

    #[test]
    fn the_time_of_several_calls_is_shared_among_them() {
        let stats = Stats::new(1);
        stats.core(0).called(0, 16, 20, true);
        let command = &stats.core(0).commands[0];
        assert_eq!((command.calls.get(), command.micros.get()), (16, 20));
        assert_eq!(stats.times(0).cumulative(), [(1, 12), (2, 16)]);
    }
}
