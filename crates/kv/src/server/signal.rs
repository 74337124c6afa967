//! Wakes one task of the same core.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Something may have changed. Set any number of times, it wakes once.
#[derive(Default)]
pub struct Signal {
    is_set: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Signal {
    /// Wakes the task that waits, or the one that will.
    pub fn set(&self) {
        if !self.is_set.replace(true)
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
    }

    /// Waits until it is set, and takes that back. One task waits at a time.
    pub async fn wait(&self) {
        poll_fn(|cx| self.poll_wait(cx)).await;
    }

    /// The same as a poll.
    pub fn poll_wait(&self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        if self.is_set.take() {
            return Poll::Ready(());
        }
        let mut waker = self.waiting.take();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            waker = Some(cx.waker().clone());
        }
        self.waiting.set(waker);
        Poll::Pending
    }
}
