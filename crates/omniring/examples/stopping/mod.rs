//! Ending a server: told by a signal, and not before what it has begun is done, as far as there is time.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use omniring::signal::{Signal, SignalKind};
use omniring::sync::Notify;
use omniring::time::timeout;

/// SIGINT (Ctrl-C) and SIGTERM, from now on.
pub struct StopSignals(Rc<Notify>);

impl StopSignals {
    /// Listens for both.
    pub fn new() -> io::Result<StopSignals> {
        let told = Rc::new(Notify::new());
        for kind in [SignalKind::INTERRUPT, SignalKind::TERMINATE] {
            let (mut signal, told) = (Signal::new(kind)?, told.clone());
            drop(omniring::spawn(async move {
                while signal.recv().await.is_ok() {
                    told.notify_one();
                }
            }));
        }
        Ok(StopSignals(told))
    }

    /// Waits for the next of them.
    pub async fn recv(&self) {
        self.0.notified().await;
    }
}

/// What has been begun and is not done.
#[derive(Clone, Default)]
pub struct Open(Rc<(Cell<usize>, Notify)>);

/// One of them, as long as this exists.
pub struct OpenGuard(Open);

impl Open {
    /// One more.
    pub fn enter(&self) -> OpenGuard {
        self.0.0.set(self.count() + 1);
        OpenGuard(self.clone())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.0.get()
    }

    /// Waits until there is none: for so long at most, and not after another signal.
    pub async fn drained(&self, time_max: Duration, signals: &StopSignals) {
        let (open, told) = (self.clone(), signals.0.clone());
        // Whoever notifies of a signal ends the wait too: see `StopSignals::recv`.
        let impatience = omniring::spawn(async move {
            told.notified().await;
            open.0.1.notify_one();
        });
        let drained = async {
            while self.count() > 0 && !impatience.is_finished() {
                self.0.1.notified().await;
            }
        };
        let _ = timeout(time_max, drained).await;
        impatience.abort();
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let (count, changed) = &*self.0.0;
        count.set(count.get() - 1);
        changed.notify_one();
    }
}
