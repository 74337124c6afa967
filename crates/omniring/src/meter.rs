//! Counting what the executor does, for [`Runtime::metrics`](crate::Runtime::metrics). Without the
//! feature `metrics` it has no size and its functions no instructions.

#[cfg(feature = "metrics")]
use std::cell::Cell;

/// How often what has happened.
#[derive(Default)]
pub(crate) struct Meter {
    #[cfg(feature = "metrics")]
    pub(crate) spawn_count: Cell<u64>,
    #[cfg(feature = "metrics")]
    pub(crate) poll_count: Cell<u64>,
    #[cfg(feature = "metrics")]
    pub(crate) remote_wake_count: Cell<u64>,
    #[cfg(feature = "metrics")]
    pub(crate) timer_count: Cell<u64>,
}

#[cfg(feature = "metrics")]
fn add(count: &Cell<u64>, more: usize) {
    count.set(count.get() + more as u64);
}

#[cfg(feature = "metrics")]
impl Meter {
    pub(crate) fn count_spawn(&self) {
        add(&self.spawn_count, 1);
    }

    pub(crate) fn count_poll(&self) {
        add(&self.poll_count, 1);
    }

    pub(crate) fn count_remote_wakes(&self, count: usize) {
        add(&self.remote_wake_count, count);
    }

    pub(crate) fn count_timers(&self, count: usize) {
        add(&self.timer_count, count);
    }
}

#[cfg(not(feature = "metrics"))]
impl Meter {
    #[inline(always)]
    pub(crate) fn count_spawn(&self) {}

    #[inline(always)]
    pub(crate) fn count_poll(&self) {}

    #[inline(always)]
    pub(crate) fn count_remote_wakes(&self, _count: usize) {}

    #[inline(always)]
    pub(crate) fn count_timers(&self, _count: usize) {}
}
