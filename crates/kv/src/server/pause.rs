//! A pause of clients' commands: `CLIENT PAUSE`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use omniring::sync::Notify;

use super::Client;
use super::dispatch::is_or_has;
use crate::clock;
use crate::command::{Command, flag};

/// Which commands are to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PauseMode {
    /// Those that change keys, or send messages.
    Write,
    /// All.
    All,
}

/// A pause: until when, and of what.
#[derive(Debug, Default)]
pub struct Pause {
    is_on: AtomicBool,
    state: Mutex<Option<(u64, PauseMode)>>,
    changed: Notify,
}

impl Pause {
    /// Begins a pause, or makes one longer and stricter.
    pub fn begin(&self, until_ms: u64, mode: PauseMode) {
        let mut state = self.lock();
        let (until, stricter) = state.map_or((0, mode), |(until, old)| (until, old.max(mode)));
        *state = Some((until.max(until_ms), stricter));
        self.is_on.store(true, Ordering::Release);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Ends it.
    pub fn end(&self) {
        *self.lock() = None;
        self.is_on.store(false, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whether there may be a pause.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// The kind of pause there is now.
    pub fn mode(&self) -> Option<PauseMode> {
        let state = self.lock();
        state.filter(|&(until, _)| until > clock::now_ms()).map(|(_, mode)| mode)
    }

    /// Whether a command is to wait: as in Redis also the one that would end the pause, when all are.
    pub fn holds(&self, command: &Command, client: &Client) -> bool {
        match self.mode() {
            None => false,
            Some(PauseMode::All) => true,
            Some(PauseMode::Write) => is_or_has(flag::WRITE | flag::MAY_REPLICATE, command, client),
        }
    }

    /// Waits until it has ended or changed.
    pub async fn ends(&self) {
        let changed = self.changed.notified();
        let until = self.lock().map_or(0, |(until, _)| until);
        let left = until.saturating_sub(clock::now_ms());
        if left > 0 {
            // Either of the two is what was waited for.
            let _ = omniring::time::timeout(Duration::from_millis(left), changed).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(u64, PauseMode)>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
