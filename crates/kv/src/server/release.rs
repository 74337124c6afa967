//! Who goes first: those who read, or those whose writes the disk has held up.
//!
//! A sync frees the replies of very many writers at once, each of whom sends its next write when it has its reply; and
//! each sync costs the processor more than some ten reads do. Where others keep the core busy, replies of writers leave
//! one by one among theirs, and syncs begin further apart, with more records each. Where nobody else is there nothing
//! is held back.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Messages to others with which one reply of a writer leaves.
const OTHERS_EACH: u64 = 16;
/// Replies of writers that leave in a turn of the loop in which others were sent nothing, and the same where others keep
/// the core busy all the same.
const ALONE_MAX: usize = 16;
const CROWDED_MAX: usize = 1;
/// From one sync's begin to the next one's at least, where others keep the core busy.
const SPACING: Duration = Duration::from_millis(2);
/// How long it is looked at what a core does.
const LOOK: Duration = Duration::from_millis(2);
/// The core is crowded where it works in so many parts of a hundred of that time, and sends so many times as many
/// messages to others as to writers.
const BUSY_PERCENT: u32 = 75;
const OTHERS_MORE: u64 = 4;

/// What is known of a core to say that, with its numbers at the last look.
#[derive(Debug)]
pub(super) struct Release {
    /// Messages sent to clients, which unlike those of the statistics are never set back, and the same when the last
    /// replies were let go, these included.
    sends: Cell<u64>,
    sends_before: Cell<u64>,
    /// Messages to others that count for the next reply.
    others: Cell<u64>,
    /// Replies of writers that were let go.
    released: Cell<u64>,
    is_crowded: Cell<bool>,
    looked: Cell<Look>,
}

/// A moment: the time, the processor time of the core up to then, messages and replies of writers.
#[derive(Clone, Copy, Debug)]
struct Look {
    now: Instant,
    worked: Duration,
    sends: u64,
    released: u64,
}

impl Release {
    pub(super) fn new(now: Instant) -> Release {
        let looked = Look { now, worked: Duration::ZERO, sends: 0, released: 0 };
        Release {
            sends: Cell::new(0),
            sends_before: Cell::new(0),
            others: Cell::new(0),
            released: Cell::new(0),
            is_crowded: Cell::new(false),
            looked: Cell::new(looked),
        }
    }

    /// A client is sent a message.
    #[inline]
    pub(super) fn sent(&self) {
        self.sends.set(self.sends.get() + 1);
    }

    /// How many replies of writers leave in this turn, of so many that wait.
    pub(super) fn count(&self, waiting: usize) -> usize {
        let sends = self.sends.get();
        // Those of the last turn may not all have been sent yet.
        let others = sends.saturating_sub(self.sends_before.get());
        let credit = self.others.get() + others;
        let (count, left) = match others {
            0 if self.is_crowded.get() => (CROWDED_MAX, credit),
            0 => (ALONE_MAX, 0),
            _ => ((credit / OTHERS_EACH) as usize, credit % OTHERS_EACH),
        };
        let count = count.min(waiting);
        self.others.set(left);
        self.sends_before.set(sends + count as u64);
        self.released.set(self.released.get() + count as u64);
        count
    }

    /// How far apart syncs begin at least, after one has ended; `worked` tells the processor time of the core.
    pub(super) fn spacing(&self, now: Instant, worked: impl FnOnce() -> Duration) -> Duration {
        let sends = self.sends.get();
        let before = self.looked.get();
        let time = now - before.now;
        if time >= LOOK {
            let look = Look { now, worked: worked(), sends, released: self.released.get() };
            let released = look.released - before.released;
            let others = (sends - before.sends).saturating_sub(released);
            let is_busy = (look.worked - before.worked) * 100 >= time * BUSY_PERCENT;
            self.is_crowded.set(is_busy && others > OTHERS_EACH + released * OTHERS_MORE);
            self.looked.set(look);
        }
        if self.is_crowded.get() { SPACING } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn send(release: &Release, count: u64) {
        (0..count).for_each(|_| release.sent());
    }

    #[test]
    fn nobody_is_held_back_where_nobody_else_is_there() {
        let release = Release::new(omniring::time::now());
        for waiting in [50, 34, 18] {
            assert_eq!(release.count(waiting), ALONE_MAX);
            send(&release, ALONE_MAX as u64);
        }
        assert_eq!(release.count(2), 2);
    }

    #[test]
    fn beside_others_one_leaves_with_so_many_of_theirs() {
        let release = Release::new(omniring::time::now());
        let mut writers = 0;
        for _ in 0..OTHERS_EACH {
            send(&release, 10);
            let count = release.count(50);
            send(&release, count as u64);
            writers += count;
        }
        assert_eq!(writers, 10);
    }

    #[test]
    fn syncs_are_apart_where_others_keep_the_core_busy() {
        let begun = omniring::time::now();
        let release = Release::new(begun);
        let spacing = |at, worked| release.spacing(begun + ms(at), || ms(worked));
        send(&release, 1000);
        assert_eq!(spacing(1, 1), Duration::ZERO, "it is too early to tell");
        assert_eq!(spacing(10, 9), SPACING);
        let released = release.count(100);
        assert_eq!(released as u64, 1000 / OTHERS_EACH);
        send(&release, released as u64);
        assert_eq!(release.count(50), CROWDED_MAX, "others are there, if not in this turn");
        send(&release, 1 + 1000);
        assert_eq!(spacing(20, 12), Duration::ZERO, "it has rested more than it has worked");
        assert_eq!(spacing(30, 22), Duration::ZERO, "the others have gone");
    }
}
