//! The time, read in one place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, by the wall clock.
pub fn now_ms() -> u64 {
    now_us() / 1000
}

/// Microseconds since 1970, by the wall clock.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros() as u64
}
