//! The one place where the bench reads real time, which is all that it is about.

pub use std::time::Instant;

/// The monotonic clock.
#[inline]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    Instant::now()
}
