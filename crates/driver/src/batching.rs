//! How many completions of a device are worth waiting for at once.
//!
//! Taking completions one by one costs a wake-up and an entry into the kernel each; taking half of
//! what is in flight at once keeps the device busy with the other half and costs a fraction. What
//! that may delay an op by is bounded by the pace of the device, which is learned, and by
//! [`TIME_MAX`]. A few ops in flight are never delayed.

use std::time::Duration;

use crate::clock::Instant;

/// Fewer bounded ops in flight than this are taken as they come.
const IN_FLIGHT_MIN: usize = 4;
/// A completion is never held back longer for the sake of others.
const TIME_MAX: Duration = Duration::from_millis(1);
/// While every wait brings what was asked for, the bound in time is this one, which as a rule
/// costs nothing: a shorter timer has to be programmed for each wait, which was measured to cost
/// 15% of the CPU of a read, while one past the kernel's next tick (4 ms at 250 Hz) is free.
const TIME_TRUSTED: Duration = Duration::from_millis(5);
/// After a wait that brought less, so many waits have the short bound.
const DISTRUSTED_WAITS: u32 = 64;
/// After another thread has woken the driver, so many waits are short, since what wakes it is a
/// single completion among those waited for.
const NOTIFIED_WAITS: u32 = 64;
/// While ops of other kinds are in flight too (sockets, whose peers wait), no longer than this.
const TIME_MAX_MIXED: Duration = Duration::from_micros(50);

/// Learns the pace at which bounded ops complete.
#[derive(Default)]
pub(crate) struct Batching {
    /// Moving average of the time between two completions; 0 until known.
    interval_ns: u64,
    last: Option<Instant>,
    /// How many completions the last wait asked for.
    asked_count: usize,
    distrusted_waits: u32,
    notified_waits: u32,
}

impl Batching {
    /// How many completions to wait for and for how long, with so many ops in flight.
    pub(crate) fn plan(&mut self, bounded_count: usize, other_count: usize) -> (usize, Duration) {
        self.asked_count = 1;
        if bounded_count < IN_FLIGHT_MIN || self.interval_ns == 0 {
            return (1, Duration::ZERO);
        }
        let is_mixed = other_count > 0 || self.notified_waits > 0;
        let time_max = if is_mixed { TIME_MAX_MIXED } else { TIME_MAX };
        let within_time = time_max.as_nanos() as u64 / self.interval_ns;
        let count = (bounded_count / 2).min(within_time as usize);
        if count < 2 {
            return (1, Duration::ZERO);
        }
        self.asked_count = count;
        if !is_mixed && self.distrusted_waits == 0 {
            return (count, TIME_TRUSTED);
        }
        // Twice the time that so many took lately: a pause of the device ends the wait.
        let time = Duration::from_nanos(2 * count as u64 * self.interval_ns);
        (count, time.min(time_max))
    }

    /// Another thread has woken the driver.
    pub(crate) fn observe_notification(&mut self) {
        self.notified_waits = NOTIFIED_WAITS;
    }

    /// A turn took so many bounded completions and left so many in flight.
    pub(crate) fn observe(&mut self, completed_count: usize, left_count: usize) {
        self.notified_waits = self.notified_waits.saturating_sub(1);
        let asked_count = std::mem::take(&mut self.asked_count);
        self.distrusted_waits = if completed_count < asked_count {
            DISTRUSTED_WAITS
        } else {
            self.distrusted_waits.saturating_sub(1)
        };
        if completed_count == 0 {
            return;
        }
        // With nothing left in flight, the time until the next completion is not the device's.
        let now = (left_count > 0).then(crate::clock::now);
        let last = std::mem::replace(&mut self.last, now);
        if let (Some(last), Some(now)) = (last, now) {
            let elapsed_ns = now.saturating_duration_since(last).as_nanos() as u64;
            let sample = (elapsed_ns / completed_count as u64).clamp(1, 1_000_000_000);
            self.interval_ns = match self.interval_ns {
                0 => sample,
                known => (known * 7 + sample) / 8,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_pace(interval_us: u64) -> Batching {
        Batching { interval_ns: interval_us * 1000, distrusted_waits: 1, ..Batching::default() }
    }

    #[test]
    fn a_few_ops_are_never_delayed() {
        for in_flight in 0..IN_FLIGHT_MIN {
            assert_eq!(at_pace(10).plan(in_flight, 0), (1, Duration::ZERO));
        }
    }

    #[test]
    fn half_of_what_is_in_flight_is_worth_waiting_for() {
        assert_eq!(at_pace(10).plan(32, 0), (16, Duration::from_micros(320)));
        assert_eq!(at_pace(1).plan(32, 0), (16, Duration::from_micros(32)));
    }

    #[test]
    fn a_wait_that_brings_less_shortens_the_next_ones() {
        let mut batching = at_pace(10);
        batching.distrusted_waits = 0;
        assert_eq!(batching.plan(32, 0), (16, TIME_TRUSTED));
        batching.observe(15, 17);
        assert_eq!(batching.plan(32, 0), (16, Duration::from_micros(320)));
    }

    #[test]
    fn a_slow_device_is_not_waited_for_in_batches() {
        assert_eq!(at_pace(5000).plan(32, 0), (1, Duration::ZERO));
    }

    #[test]
    fn with_sockets_in_flight_the_wait_is_short() {
        let (count, time) = at_pace(10).plan(32, 1);
        assert!(count <= 5 && time <= TIME_MAX_MIXED);
    }
}
