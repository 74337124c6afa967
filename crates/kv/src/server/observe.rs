//! What is noted of each command: statistics, the slow log, and what took long.

use std::sync::atomic::Ordering;

use super::{Client, ClientInfo, Core};
use crate::clock;
use crate::command::{Command, flag, is_secret};
use crate::config::Config;
use crate::protocol::Args;

impl Core {
    /// Notes that a client has begun a command.
    pub(super) fn begins(&self, client: &Client, command: &Command) {
        client.info.command.store(command.id + 1, Ordering::Relaxed);
        client.info.db.store(client.db, Ordering::Relaxed);
    }

    /// Notes that a client's command has taken that long.
    pub(super) fn account(
        &self,
        config: &Config,
        client: &ClientInfo,
        command: &'static Command,
        args: Args<'_>,
        micros: u64,
    ) {
        // A command that has changed the settings is noted by the new ones.
        let fresh = self.fresh_config();
        let config = fresh.as_deref().unwrap_or(config);
        let stats = self.server.stats.core(self.index);
        stats.called(command.id, micros, config.latency_tracking);
        let is_slow =
            u64::try_from(config.slowlog_micros).is_ok_and(|threshold| micros >= threshold);
        if is_slow && !command.has(flag::SKIP_SLOWLOG) && config.slowlog_len > 0 {
            let when = (clock::now_ms() / 1000, micros);
            let is_secret = |index| is_secret(command, args, index);
            self.server.slowlog.add(client, args, is_secret, when, config.slowlog_len);
        }
        if config.latency_threshold_ms > 0 {
            let kind = if command.has(flag::FAST) { "fast-command" } else { "command" };
            self.took(config, kind, micros);
        }
    }

    /// Notes that something of a kind has taken that long.
    pub(super) fn took(&self, config: &Config, kind: &'static str, micros: u64) {
        let threshold = config.latency_threshold_ms;
        if threshold > 0 && micros / 1000 >= threshold {
            self.server.latency.add(kind, clock::now_ms() / 1000, micros / 1000);
        }
    }

    /// Begins to count anew, on this core.
    pub fn reset_stats(&self) {
        self.server.stats.core(self.index).reset();
    }
}
