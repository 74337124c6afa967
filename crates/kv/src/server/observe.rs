//! What is noted of each command: statistics, the slow log, and those who watch all commands.

use std::sync::atomic::Ordering;

use super::{Client, Core};
use crate::command::Command;
use crate::protocol::Args;

impl Core {
    /// Notes that a client's command has taken that long.
    pub(super) fn account(
        &self,
        client: &Client,
        command: &'static Command,
        args: Args<'_>,
        micros: u64,
        is_waiting: bool,
    ) {
        let _ = args;
        client.info.command.store(command.id + 1, Ordering::Relaxed);
        client.info.db.store(client.db, Ordering::Relaxed);
        if !is_waiting {
            self.server.stats.called(command.id, micros);
        }
    }

    /// Shows a command to those who watch all of them.
    pub(super) fn monitor(&self, client: &Client, command: &Command, args: Args<'_>, now_us: u64) {
        let _ = (client, command, args, now_us);
    }
}
