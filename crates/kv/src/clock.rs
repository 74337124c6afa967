//! The time, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, by the wall clock.
pub fn now_ms() -> u64 {
    now_us() / 1000
}

/// Microseconds since 1970, by the wall clock.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // In 64 bits, which is several times as quick as `as_micros`.
    now.as_secs() * 1_000_000 + u64::from(now.subsec_micros())
}
