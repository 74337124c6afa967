//! Who goes first: those who read, or those whose writes the disk has held up.
//!
//! A sync frees the replies of very many writers at once, each of whom sends its next write when it has its reply; and
//! each sync is a few moments in which the processor does nothing else. Where others keep the core busy, replies of
//! writers leave one by one among theirs, requests of writers are carried out so too, and syncs begin further apart, with
//! more records each. Where nobody else is there, or `reads-first` is `no`, nothing is held back.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::log::SPACING_SHORT;

/// Messages to others with which one reply of a writer leaves, and one of their requests is carried out.
const OTHERS_EACH: u64 = 32;
/// Replies of writers that leave in a turn of the loop in which others were sent nothing, and the same where others keep
/// the core busy all the same. As many of their requests are carried out.
const ALONE_MAX: usize = 16;
const CROWDED_MAX: usize = 1;
/// From one sync's begin to the next one's at least, where others keep the core busy.
const SPACING: Duration = Duration::from_millis(20);
/// Syncs that may begin [`SPACING_SHORT`] apart, where as many were left out before: who writes now and then does not
/// wait.
const SAVED_MAX: u32 = 8;
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
    is_wanted: Cell<bool>,
    is_crowded: Cell<bool>,
    /// Syncs that may begin sooner after one another.
    saved: Cell<u32>,
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
            is_wanted: Cell::new(true),
            is_crowded: Cell::new(false),
            saved: Cell::new(0),
            looked: Cell::new(looked),
        }
    }

    /// A client is sent a message.
    #[inline]
    pub(super) fn sent(&self) {
        self.sends.set(self.sends.get() + 1);
    }

    /// How many replies of writers leave in this turn, of so many that wait, and how many of their requests are carried
    /// out.
    pub(super) fn count(&self, replies: usize, requests: usize) -> (usize, usize) {
        let sends = self.sends.get();
        // Those of the last turn may not all have been sent yet.
        let others = sends.saturating_sub(self.sends_before.get());
        let credit = self.others.get() + others;
        let (count, left) = match others {
            0 if self.is_crowded.get() => (CROWDED_MAX, credit),
            0 => (ALONE_MAX, 0),
            _ if !self.is_wanted.get() => (ALONE_MAX, 0),
            _ => ((credit / OTHERS_EACH) as usize, credit % OTHERS_EACH),
        };
        let (replies, requests) = (replies.min(count), requests.min(count));
        self.others.set(left);
        self.sends_before.set(sends + replies as u64);
        self.released.set(self.released.get() + replies as u64);
        (replies, requests)
    }

    /// Whether others keep the core busy.
    #[inline]
    pub(super) fn is_crowded(&self) -> bool {
        self.is_crowded.get()
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
            let are_more = others > OTHERS_EACH + released * OTHERS_MORE;
            self.is_crowded.set(self.is_wanted.get() && is_busy && are_more);
            self.looked.set(look);
        }
        if !self.is_crowded.get() {
            return Duration::ZERO;
        }
        let left_out = (time.as_micros() / SPACING.as_micros()).saturating_sub(1) as u32;
        let saved = self.saved.get().saturating_add(left_out).min(SAVED_MAX);
        self.saved.set(saved.saturating_sub(1));
        if saved > 0 { SPACING_SHORT } else { SPACING }
    }

    /// Whether anybody is to go first.
    pub(super) fn set_wanted(&self, is_wanted: bool) {
        self.is_wanted.set(is_wanted);
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
            assert_eq!(release.count(waiting, 20), (ALONE_MAX, ALONE_MAX));
            send(&release, ALONE_MAX as u64);
        }
        assert_eq!(release.count(2, 0), (2, 0));
    }

    #[test]
    fn beside_others_one_leaves_with_so_many_of_theirs() {
        let release = Release::new(omniring::time::now());
        let (mut replies, mut requests) = (0, 0);
        for _ in 0..OTHERS_EACH {
            send(&release, 10);
            let next = release.count(50, 50 - requests);
            send(&release, next.0 as u64);
            (replies, requests) = (replies + next.0, requests + next.1);
        }
        assert_eq!((replies, requests), (10, 10));
    }

    #[test]
    fn syncs_are_apart_where_others_keep_the_core_busy() {
        let begun = omniring::time::now();
        let release = Release::new(begun);
        let spacing = |at, worked| release.spacing(begun + ms(at), || ms(worked));
        send(&release, 1000);
        assert_eq!(spacing(1, 1), Duration::ZERO, "it is too early to tell");
        assert_eq!(spacing(10, 9), SPACING);
        let released = release.count(100, 0).0;
        assert_eq!(released as u64, 1000 / OTHERS_EACH);
        send(&release, released as u64);
        assert_eq!(release.count(50, 50), (1, 1), "others are there, if not in this turn");
        send(&release, 1 + 1000);
        assert_eq!(spacing(20, 12), Duration::ZERO, "it has rested more than it has worked");
        assert_eq!(spacing(30, 22), Duration::ZERO, "the others have gone");
    }

    #[test]
    fn nobody_goes_first_where_that_is_not_wanted() {
        let begun = omniring::time::now();
        let release = Release::new(begun);
        release.set_wanted(false);
        send(&release, 1000);
        assert_eq!(release.spacing(begun + ms(10), || ms(10)), Duration::ZERO);
        assert_eq!((release.count(50, 50), release.is_crowded()), ((ALONE_MAX, ALONE_MAX), false));
    }

    #[test]
    fn syncs_that_were_left_out_are_made_up_for() {
        let begun = omniring::time::now();
        let release = Release::new(begun);
        let spacing = |at| {
            send(&release, 1000);
            release.spacing(begun + ms(at), || ms(at))
        };
        let apart = SPACING.as_millis() as u64;
        assert_eq!(spacing(3 * apart), SPACING_SHORT);
        assert_eq!(spacing(3 * apart + 2), SPACING_SHORT);
        for at in 4..10 {
            assert_eq!(spacing(at * apart), SPACING, "each in its time saves none");
        }
        let long = 1000 * apart;
        let saved = (0..100).take_while(|&at| spacing(long + 2 * at) == SPACING_SHORT).count();
        assert_eq!(saved, SAVED_MAX as usize);
    }
}
