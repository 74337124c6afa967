//! Those who see all commands: `MONITOR`.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::pubsub::Subscriber;
use super::{Client, Core};
use crate::clock;
use crate::command::{Command, flag, is_secret};
use crate::protocol::{Args, Reply};

/// Who sees all commands.
#[derive(Debug, Default)]
pub struct Monitors {
    count: AtomicUsize,
    all: Mutex<Vec<Subscriber>>,
}

impl Monitors {
    /// Adds one.
    pub fn add(&self, who: Subscriber) {
        let mut all = self.lock();
        if !all.contains(&who) {
            all.push(who);
        }
        self.count.store(all.len(), Ordering::Relaxed);
    }

    /// Removes one who has had enough, or goes.
    pub fn remove(&self, client: u64) {
        if self.count() == 0 {
            return;
        }
        let mut all = self.lock();
        all.retain(|monitor| monitor.client != client);
        self.count.store(all.len(), Ordering::Relaxed);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Core {
    /// Shows a command that was carried out to those who see all of them.
    #[inline]
    pub(super) fn monitor(&self, client: &Client, command: &Command, args: Args<'_>) {
        if self.server.monitors.count() > 0 && !command.has(flag::SKIP_MONITOR | flag::ADMIN) {
            self.show(client, command, args);
        }
    }

    #[cold]
    fn show(&self, client: &Client, command: &Command, args: Args<'_>) {
        let now = clock::now_us();
        let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
        let mut line = format!("+{seconds}.{micros:06} [{} {}]", client.db, client.info.addr);
        for (index, word) in args.iter_from(0).enumerate() {
            line.push(' ');
            quote(&mut line, if is_secret(command, args, index) { b"(redacted)" } else { word });
        }
        line.push_str("\r\n");
        let monitors = self.server.monitors.lock().clone();
        for Subscriber { client, core } in monitors {
            let line = line.clone();
            let push = move |core: &Core| {
                if let Some(conn) = core.connection(client) {
                    let mut message = Reply::default();
                    message.raw(line.as_bytes());
                    conn.push(0, &mut message);
                }
            };
            if core == self.index {
                push(self);
            } else {
                self.server.send_to(core, move |there| push(&there));
            }
        }
    }
}

/// A word in quotes, with what is not printable escaped.
fn quote(line: &mut String, word: &[u8]) {
    line.push('"');
    for &byte in word {
        match byte {
            b'"' | b'\\' => line.extend(['\\', byte as char]),
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            7 => line.push_str("\\a"),
            8 => line.push_str("\\b"),
            b' '..=b'~' => line.push(byte as char),
            // A string takes everything that is written to it.
            _ => drop(write!(line, "\\x{byte:02x}")),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_are_shown_so_that_they_can_be_read_back() {
        let mut line = String::new();
        quote(&mut line, b"a \"b\"\\\n\x00\xff");
        assert_eq!(line, r#""a \"b\"\\\n\x00\xff""#);
    }
}
