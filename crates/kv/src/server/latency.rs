//! What took longer than `latency-monitor-threshold`, by kind: `LATENCY`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

/// Seconds of a kind that are kept, at most.
const SAMPLES_MAX: usize = 160;

/// What happened of one kind.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// The longest ever, in milliseconds.
    pub max_ms: u64,
    /// Seconds since 1970, with the longest of that second in milliseconds; the oldest first, never empty.
    pub samples: VecDeque<(u64, u64)>,
}

/// All kinds.
#[derive(Debug, Default)]
pub struct Latency {
    kinds: Mutex<BTreeMap<&'static str, Series>>,
}

impl Latency {
    /// Something of a kind took that long.
    pub fn add(&self, kind: &'static str, at_s: u64, ms: u64) {
        let mut kinds = self.lock();
        let series = kinds.entry(kind).or_default();
        series.max_ms = series.max_ms.max(ms);
        match series.samples.back_mut() {
            Some(last) if last.0 == at_s => last.1 = last.1.max(ms),
            _ => series.samples.push_back((at_s, ms)),
        }
        if series.samples.len() > SAMPLES_MAX {
            series.samples.pop_front();
        }
    }

    /// What happened, by kind.
    pub fn all(&self) -> BTreeMap<&'static str, Series> {
        self.lock().clone()
    }

    /// What happened of one kind.
    pub fn get(&self, kind: &[u8]) -> Option<Series> {
        let kinds = self.lock();
        let found = kinds.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(kind));
        found.map(|(_, series)| series.clone())
    }

    /// Forgets the kinds for which `is_wanted` holds, and says how many those were.
    pub fn reset(&self, is_wanted: impl Fn(&str) -> bool) -> usize {
        let mut kinds = self.lock();
        let before = kinds.len();
        kinds.retain(|kind, _| !is_wanted(kind));
        before - kinds.len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Series>> {
        self.kinds.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
