//! Load from elsewhere: how busy the processors were that we did not keep busy.
//!
//! /proc/stat counts in ticks and charges a whole tick to whoever runs at its
//! end, so small shares mean nothing; [`Disturbance::is_notable`] says which do.

use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::affinity;
use crate::clock::{self, Instant};
use crate::measure::Usage;

/// Share of all processors that others may use before it is worth a word.
const ELSEWHERE_NOTABLE: f64 = 0.08;

/// Share of all processors that the hypervisor may take before it is.
const STOLEN_NOTABLE: f64 = 0.02;

/// The shortest time over which ticks are worth counting.
const WATCH_MIN: Duration = Duration::from_millis(200);

/// A moment to measure from.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    at: Instant,
    ticks: Option<Ticks>,
    own_us: u64,
}

/// What others used between two moments, as shares of all processors.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Disturbance {
    /// Used by other processes of this machine.
    pub elsewhere: f64,
    /// Taken by the hypervisor for other machines.
    pub stolen: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Ticks {
    busy: u64,
    stolen: u64,
}

impl Watch {
    /// Starts watching. Children must have been awaited, or not started, both
    /// now and at the end, for their processor time to count as ours.
    pub fn start() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        Watch { at: clock::now(), ticks: parse(&stat), own_us: own_us() }
    }

    /// What others used since the start.
    pub fn stop(self) -> Disturbance {
        let now = Watch::start();
        let elapsed = now.at - self.at;
        let (Some(then), Some(ticks)) = (self.ticks, now.ticks) else {
            return Disturbance::default();
        };
        if elapsed < WATCH_MIN {
            return Disturbance::default();
        }
        let ticks_per_s = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        let all_s = elapsed.as_secs_f64() * affinity::online() as f64;
        let seconds = |now: u64, then: u64| now.saturating_sub(then) as f64 / ticks_per_s;
        let own_s = now.own_us.saturating_sub(self.own_us) as f64 / 1e6;
        Disturbance {
            elsewhere: ((seconds(ticks.busy, then.busy) - own_s) / all_s).max(0.0),
            stolen: seconds(ticks.stolen, then.stolen) / all_s,
        }
    }
}

impl Disturbance {
    /// Whether it is large enough to mislead.
    pub fn is_notable(&self) -> bool {
        self.elsewhere > ELSEWHERE_NOTABLE || self.stolen > STOLEN_NOTABLE
    }
}

fn own_us() -> u64 {
    Usage::of_this_process().cpu_us() + Usage::of_ended_children().cpu_us()
}

/// The time in interrupts is left out: most of it is the work of our own I/O.
fn parse(stat: &str) -> Option<Ticks> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (user, nice, system) = (next()?, next()?, next()?);
    let (_idle, _iowait, _irq, _softirq) = (next()?, next()?, next()?, next()?);
    Some(Ticks { busy: user + nice + system, stolen: next().unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_stat_is_read() {
        let stat = "cpu  10 1 5 900 3 2 4 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse(stat), Some(Ticks { busy: 16, stolen: 7 }));
        assert_eq!(parse(""), None);
    }

    #[test]
    fn small_shares_are_not_notable() {
        assert!(!Disturbance { elsewhere: 0.01, stolen: 0.0 }.is_notable());
        assert!(Disturbance { elsewhere: 0.5, stolen: 0.0 }.is_notable());
        assert!(Disturbance { elsewhere: 0.0, stolen: 0.1 }.is_notable());
    }
}
