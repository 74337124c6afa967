//! When, or how often, a key was used, in the 24 bits that an entry has for it.
//!
//! Policies that ask for the last use note seconds. Those that ask for frequency (LFU) note a counter, in the lowest
//! 8 bits, that grows with the logarithm of the uses, and the minute in which it was brought up to date, above them:
//! it shrinks while the key is not used.

use super::db::Access;

/// The counter of a new key, so that it is not evicted at once.
const NEW: u32 = 5;
/// The highest counter.
const MAX: u32 = 255;

/// Seconds, in 24 bits.
pub fn seconds(now_ms: u64) -> Access {
    (now_ms / 1000) as u32 & 0xff_ffff
}

/// Minutes, in 16 bits.
fn minutes(now_ms: u64) -> u32 {
    (now_ms / 60_000) as u32 & 0xffff
}

/// How the frequency of use is counted: `lfu-log-factor` and `lfu-decay-time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lfu {
    /// The more, the more uses it takes to raise the counter by one; with 0 each use does.
    pub log_factor: u32,
    /// After so many minutes without a use the counter is one less; with 0 it never shrinks.
    pub decay_minutes: u32,
}

impl Lfu {
    /// The access of a new key.
    pub fn fresh(now_ms: u64) -> Access {
        Lfu::access(NEW, now_ms)
    }

    /// The access of a key whose counter is known to be `count` now.
    pub fn access(count: u32, now_ms: u64) -> Access {
        minutes(now_ms) << 8 | count.min(MAX)
    }

    /// The access of a key that is used now.
    pub fn used(self, access: Access, now_ms: u64, random: &mut fastrand::Rng) -> Access {
        let count = self.count(access, now_ms);
        let above_new = f64::from(count.saturating_sub(NEW));
        let chance = 1.0 / (above_new * f64::from(self.log_factor) + 1.0);
        let is_more = random.f64() < chance;
        Lfu::access(count + u32::from(is_more), now_ms)
    }

    /// The counter of a key, as it is now.
    pub fn count(self, access: Access, now_ms: u64) -> u32 {
        let unused_minutes = minutes(now_ms).wrapping_sub(access >> 8) & 0xffff;
        let periods = unused_minutes.checked_div(self.decay_minutes).unwrap_or(0);
        (access & MAX).saturating_sub(periods)
    }
}

#[cfg(test)]
mod tests {
    use super::{Lfu, NEW};

    const MINUTE_MS: u64 = 60_000;
    /// Some minute whose lower 16 bits are near their end.
    const THEN_MS: u64 = 0xfffe * MINUTE_MS;

    fn count_after(lfu: Lfu, uses: usize) -> u32 {
        let mut random = fastrand::Rng::with_seed(7);
        let fresh = Lfu::fresh(THEN_MS);
        let access = (0..uses).fold(fresh, |access, _| lfu.used(access, THEN_MS, &mut random));
        lfu.count(access, THEN_MS)
    }

    #[test]
    fn the_log_factor_decides_how_many_uses_raise_the_counter() {
        let lfu = |log_factor| Lfu { log_factor, decay_minutes: 1 };
        assert_eq!(count_after(lfu(0), 100), NEW + 100);
        assert_eq!(count_after(lfu(0), 1000), 255);
        // With factor f the counter c above that of new keys takes about f * c * c / 2 uses.
        for (log_factor, uses, expected) in [(1, 1000, 44), (10, 1000, 14), (100, 100_000, 45)] {
            let count = count_after(lfu(log_factor), uses) - NEW;
            let about = expected * 3 / 4..=expected * 5 / 4;
            assert!(about.contains(&count), "{count} with {log_factor}, not about {expected}");
        }
    }

    #[test]
    fn the_decay_time_decides_how_soon_the_counter_shrinks() {
        let access = Lfu::access(100, THEN_MS);
        let after = |decay_minutes, minutes: u64| {
            Lfu { log_factor: 10, decay_minutes }.count(access, THEN_MS + minutes * MINUTE_MS)
        };
        assert_eq!([after(1, 0), after(1, 7), after(1, 100), after(1, 101)], [100, 93, 0, 0]);
        assert_eq!([after(10, 9), after(10, 10), after(10, 75)], [100, 99, 93]);
        assert_eq!(after(0, 60_000), 100);
    }

    #[test]
    fn a_use_counts_from_what_the_counter_has_shrunk_to() {
        let lfu = Lfu { log_factor: 0, decay_minutes: 2 };
        let later_ms = THEN_MS + 20 * MINUTE_MS;
        let used = lfu.used(Lfu::access(100, THEN_MS), later_ms, &mut fastrand::Rng::with_seed(1));
        assert_eq!(used, Lfu::access(91, later_ms));
    }
}
