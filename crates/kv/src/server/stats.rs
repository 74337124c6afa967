//! What the server counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one command.
#[derive(Debug, Default)]
pub struct CommandStats {
    /// Calls.
    pub calls: AtomicU64,
    /// Microseconds that they took in all.
    pub micros: AtomicU64,
    /// Calls that were refused before they began.
    pub rejected: AtomicU64,
    /// Calls that ended with an error.
    pub failed: AtomicU64,
}

/// What the server counts, since the start or `CONFIG RESETSTAT`.
#[derive(Debug)]
pub struct Stats {
    /// By the number of the command.
    pub commands: Vec<CommandStats>,
    /// Connections that were accepted.
    pub connections: AtomicU64,
    /// Connections refused because there were too many.
    pub refused: AtomicU64,
}

impl Stats {
    /// All zero.
    pub fn new() -> Stats {
        Stats {
            commands: (0..crate::command::count()).map(|_| CommandStats::default()).collect(),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// All zero again.
    pub fn reset(&self) {
        for command in &self.commands {
            for counter in [&command.calls, &command.micros, &command.rejected, &command.failed] {
                counter.store(0, Ordering::Relaxed);
            }
        }
        self.connections.store(0, Ordering::Relaxed);
        self.refused.store(0, Ordering::Relaxed);
    }

    /// A call has taken that long.
    pub fn called(&self, command: usize, micros: u64) {
        let stats = &self.commands[command];
        stats.calls.fetch_add(1, Ordering::Relaxed);
        stats.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// A call has ended with an error.
    pub fn failed(&self, command: usize) {
        self.commands[command].failed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Stats {
    fn default() -> Stats {
        Stats::new()
    }
}
