//! What is noted of each command: statistics, the slow log, and what took long.

use std::sync::atomic::Ordering;

use super::{Client, ClientInfo, Core};
use crate::clock;
use crate::command::{Command, flag, is_secret};
use crate::config::Config;
use crate::protocol::{Args, OwnedArgs};

/// Flags of commands whose calls take less than to look at the clock does, and of how many words those are at most.
const QUICK: u32 = flag::READONLY | flag::FAST;
const QUICK_WORDS_MAX: usize = 3;

/// Where the slow log asks for calls that take fewer microseconds, each is measured by itself.
const QUICK_US: i64 = 1000;

/// So many calls are measured together, at most.
const TOGETHER_MAX: u64 = 16;

/// Calls of a quick command, one after the other, that have ended since the core has looked at the clock.
#[derive(Clone, Copy, Default)]
pub(super) struct Together {
    command: Option<&'static Command>,
    calls: u64,
}

impl Together {
    fn is_of(self, command: &Command) -> bool {
        self.command.is_some_and(|of| of.id == command.id)
    }
}

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
        if self.took_calls(config, command, 1, micros) {
            self.add_slow(config, client, command, args, micros);
        }
    }

    /// Notes that some calls of a command have taken that long together; whether that was slow.
    fn took_calls(&self, config: &Config, command: &Command, calls: u64, micros: u64) -> bool {
        let stats = self.server.stats.core(self.index);
        stats.called(command.id, calls, micros, config.latency_tracking);
        if config.latency_threshold_ms > 0 {
            let kind = if command.has(flag::FAST) { "fast-command" } else { "command" };
            self.took(config, kind, micros);
        }
        u64::try_from(config.slowlog_micros).is_ok_and(|threshold| micros >= threshold)
    }

    #[cold]
    fn add_slow(
        &self,
        config: &Config,
        client: &ClientInfo,
        command: &'static Command,
        args: Args<'_>,
        micros: u64,
    ) {
        if !command.has(flag::SKIP_SLOWLOG) && config.slowlog_len > 0 {
            let when = (clock::now_ms() / 1000, micros);
            let is_secret = |index| is_secret(command, args, index);
            self.server.slowlog.add(client, args, is_secret, when, config.slowlog_len);
        }
    }

    /// Whether a call that is about to begin is measured together with those of the same command before and behind it,
    /// in which case [`Core::joined`] is told of its end. Where it is not, those before it are measured now.
    #[inline]
    pub(super) fn joins(
        &self,
        config: &Config,
        client: &ClientInfo,
        command: &'static Command,
        args: Args<'_>,
    ) -> bool {
        let is_quick = command.spec.flags & QUICK == QUICK
            && args.len() <= QUICK_WORDS_MAX
            && !(0..QUICK_US).contains(&config.slowlog_micros)
            && config.latency_threshold_ms == 0;
        let before = self.together.get();
        if before.calls > 0 && !(is_quick && before.is_of(command)) {
            self.settle(config, client);
        }
        is_quick
    }

    /// Notes the end of a call that is measured together with others.
    #[inline]
    pub(super) fn joined(&self, config: &Config, client: &ClientInfo, command: &'static Command) {
        let calls = self.together.get().calls + 1;
        self.together.set(Together { command: Some(command), calls });
        if calls == TOGETHER_MAX {
            self.settle(config, client);
        }
    }

    /// Measures the calls that were left to be measured together.
    pub(super) fn settle(&self, config: &Config, client: &ClientInfo) {
        let Together { command: Some(command), calls } = self.together.take() else {
            return;
        };
        let begun = self.recent_us();
        let micros = self.look_at_clock().saturating_sub(begun);
        if self.took_calls(config, command, calls, micros) {
            let words = OwnedArgs::of([&command.full_name, &format!("... ({calls} calls)")]);
            self.add_slow(config, client, command, words.args(), micros);
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
