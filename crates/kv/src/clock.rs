//! The time, read in one place.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970, by the wall clock.
pub fn now_ms() -> u64 {
    now_us() / 1000
}

/// Microseconds since 1970, by the wall clock.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap_or(0)
}
