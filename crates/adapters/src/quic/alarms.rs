//! The deadlines of quinn's timers, under a lock; the home sleeps until the first of them.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use omniring::sync::Notify;
use omniring::sync::futures::Notified;
use omniring::time::{Instant, now};
use quinn::AsyncTimer;

/// When, and whose it is.
type Key = (Instant, u64);

#[derive(Default)]
pub(super) struct Alarms {
    state: Mutex<State>,
    /// There is a new first one.
    changed: Notify,
}

#[derive(Default)]
struct State {
    armed: BTreeMap<Key, Waker>,
    next_id: u64,
}

impl Alarms {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// The first deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.state().armed.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Ready when the first deadline has become an earlier one.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Wakes all that are due.
    pub(super) fn fire(&self, now: Instant) {
        let due = {
            let mut state = self.state();
            let later = state.armed.split_off(&(now, u64::MAX));
            std::mem::replace(&mut state.armed, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// Arms, and says so at home if it is the first.
    fn arm(&self, key: Key, waker: &Waker) {
        let mut state = self.state();
        let is_first = state.armed.first_key_value().is_none_or(|(first, _)| key < *first);
        let old = state.armed.insert(key, waker.clone());
        drop(state);
        drop(old);
        if is_first {
            self.changed.notify_one();
        }
    }

    fn disarm(&self, key: Key) {
        let waker = self.state().armed.remove(&key);
        drop(waker);
    }
}

/// One of quinn's timers.
pub(super) struct Alarm {
    alarms: Arc<Alarms>,
    key: Key,
    is_armed: bool,
}

impl Alarm {
    pub(super) fn new(alarms: Arc<Alarms>, deadline: Instant) -> Alarm {
        let id = {
            let mut state = alarms.state();
            state.next_id += 1;
            state.next_id
        };
        Alarm { alarms, key: (deadline, id), is_armed: false }
    }

    fn disarm(&mut self) {
        if std::mem::take(&mut self.is_armed) {
            self.alarms.disarm(self.key);
        }
    }
}

impl AsyncTimer for Alarm {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        if self.key.0 != deadline {
            self.disarm();
            self.key.0 = deadline;
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.key.0 <= now() {
            self.disarm();
            return Poll::Ready(());
        }
        // Also when it is armed: the task may be another one.
        self.alarms.arm(self.key, cx.waker());
        self.is_armed = true;
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("deadline", &self.key.0).finish()
    }
}
