//! When a sync is to begin: after how many records, and how many syncs there may be at once.

use std::time::Duration;

use crate::store::Lsn;

/// Syncs under way at once, at most.
pub const SYNCS_AT_ONCE_MAX: usize = 8;

/// From one sync's begin to the next one's at least, where others go first but somebody is not to wait long.
pub const SPACING_SHORT: Duration = Duration::from_millis(2);

/// Whether it is worth waiting for more records before a sync, and how long.
///
/// Clients that have waited for a sync write again when it is over. A writer that began the next sync with what has come
/// meanwhile would have half of them in each, and each would wait for two. And one that began a sync with each record
/// that comes would have all that there may be at once under way for a few.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// How long a write with its sync takes: a moving average.
    time: Duration,
    /// The record that there is when all whom the last sync has answered have written again, and when half of them have.
    wanted: Lsn,
    half: Lsn,
    /// A sync has ended, and none has begun alone since.
    is_due: bool,
    /// Syncs before which nothing is waited for, as it was in vain.
    rest: u32,
    /// From one's begin to the next one's at least.
    spacing: Duration,
}

impl Gather {
    /// The part of the time of a sync that it may take.
    const SHARE: u32 = 2;
    /// Where there may be several under way at once: the part of it after which the next one begins, if its part of all
    /// records is not there before.
    const SHARE_OF_SEVERAL: u32 = 8;
    /// Syncs that go at once after one that was waited for in vain.
    const REST: u32 = 8;

    /// A sync has taken so long and made so many records durable; `last` is the last that there is.
    pub(super) fn synced(&mut self, time: Duration, records: u64, last: Lsn) {
        self.time = if self.time.is_zero() { time } else { (self.time * 7 + time) / 8 };
        self.wanted = last + records;
        self.half = last + records.div_ceil(2);
        self.is_due = self.rest == 0;
        self.rest = self.rest.saturating_sub(1);
    }

    /// How long syncs take.
    pub(super) fn time(&self) -> Duration {
        self.time
    }

    /// How far apart the begins of syncs are at least, whatever there is to gather.
    pub(super) fn set_spacing(&mut self, spacing: Duration) {
        self.spacing = spacing;
    }

    /// Somebody waits for the next sync who is not to wait long. Whether that changes something.
    pub(super) fn hurry(&mut self) -> bool {
        let is_longer = self.spacing > SPACING_SHORT;
        self.spacing = self.spacing.min(SPACING_SHORT);
        is_longer
    }

    /// How long to wait, if at all, and for which record, before the next sync.
    pub(super) fn wait(&mut self, moment: &Moment) -> Option<(Duration, Lsn)> {
        let wait = if moment.at_once == 1 {
            let is_due = std::mem::take(&mut self.is_due);
            is_due.then_some((self.time / Self::SHARE, self.wanted))
        } else {
            let left = (self.time / Self::SHARE_OF_SEVERAL).saturating_sub(moment.since);
            let wanted = moment.taken + moment.part();
            (!left.is_zero() && moment.last < wanted).then_some((left, wanted))
        };
        let left = self.spacing.saturating_sub(moment.since);
        if left.is_zero() {
            return wait;
        }
        let time = wait.map_or(left, |(time, _)| left.max(time));
        Some((time, Lsn::MAX))
    }

    /// The wait for a record is over, and this is the last one that there is.
    pub(super) fn observe(&mut self, wanted: Lsn, last: Lsn) {
        if wanted == self.wanted && last < self.half {
            self.rest = Self::REST;
        }
    }
}

/// What there is when a sync could begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// How many syncs there may be under way at once.
    pub at_once: usize,
    /// How long ago the last one began.
    pub since: Duration,
    /// The last records that are durable, are under way, and are there.
    pub durable: Lsn,
    pub taken: Lsn,
    pub last: Lsn,
}

impl Moment {
    /// How many of the records that are not durable each sync would have, if all had as many.
    fn part(&self) -> u64 {
        (self.last - self.durable).div_ceil(self.at_once as u64)
    }
}

/// How many syncs may be in flight at once.
///
/// A disk that takes two as quickly as one has who writes wait for half as long before their sync begins. A disk that
/// lets one wait for the other, as those do that give so many syncs a second, has each sync take twice as long, with half
/// the records. What it is like is found out by trying: twice as many, and half as many again where each takes so much
/// longer that little is won.
#[derive(Debug)]
pub(super) struct Overlap {
    at_once: usize,
    /// How long a sync takes with so many at once, and alone: moving averages.
    time: Duration,
    alone: Duration,
    /// Syncs since the number was changed.
    seen: u32,
    /// Syncs to be seen before it is doubled, which grows with each time that this was in vain.
    patience: u32,
    is_fixed: bool,
}

impl Overlap {
    /// Each sync costs the processor some, so that quick ones do not overlap: the time of those that may, which do no
    /// longer when it has halved, and the least time from one to the next.
    const SLOW_MIN: Duration = Duration::from_micros(1500);
    const SPACING_MIN: Duration = Duration::from_micros(250);
    /// Syncs after which an average says something.
    const SEEN_MIN: u32 = 32;
    const PATIENCE_MAX: u32 = 8192;
    /// Syncs after which more at once have proved good.
    const PROVED: u32 = 1024;

    /// As many as turns out to be good, or as many as are said.
    pub(super) fn new(fixed: Option<usize>) -> Overlap {
        Overlap {
            at_once: fixed.unwrap_or(1),
            time: Duration::ZERO,
            alone: Duration::ZERO,
            seen: 0,
            patience: Self::SEEN_MIN,
            is_fixed: fixed.is_some(),
        }
    }

    /// How many there may be.
    pub(super) fn at_once(&self) -> usize {
        self.at_once
    }

    /// A sync has taken so long.
    pub(super) fn synced(&mut self, time: Duration) {
        self.time = if self.seen == 0 { time } else { (self.time * 15 + time) / 16 };
        self.seen = self.seen.saturating_add(1);
        if self.is_fixed || self.seen < Self::SEEN_MIN {
            return;
        }
        let doubled = self.at_once * 2;
        if self.at_once > 1 && self.is_slowed() {
            self.patience = (self.patience * 4).min(Self::PATIENCE_MAX);
            self.set(self.at_once / 2);
        } else if self.at_once > 1 && self.time < Self::SLOW_MIN / 2 {
            self.set(1);
        } else if doubled <= SYNCS_AT_ONCE_MAX
            && self.seen >= self.patience
            && self.time >= Self::SLOW_MIN.max(Self::SPACING_MIN * doubled as u32)
        {
            if self.at_once == 1 {
                self.alone = self.time;
            }
            self.set(doubled);
        } else if self.at_once > 1 && self.seen == Self::PROVED {
            self.patience = Self::SEEN_MIN;
        }
    }

    /// Whether they take so much longer than one alone did that hardly more of them end in the same time, or twice as
    /// long, so that who writes waits no less.
    fn is_slowed(&self) -> bool {
        self.time * 3 > self.alone * (3 + self.at_once as u32).min(6)
    }

    fn set(&mut self, at_once: usize) {
        self.at_once = at_once;
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_millis(2);

    /// A moment at which so many records are there that are not durable, the first of them under way.
    fn moment(at_once: usize, since: Duration, under_way: u64, last: Lsn, durable: Lsn) -> Moment {
        Moment { at_once, since, durable, taken: durable + under_way, last }
    }

    /// Long after the last sync has begun, where they go one by one.
    const ALONE: Moment =
        Moment { at_once: 1, since: Duration::from_secs(1), durable: 0, taken: 0, last: 1 };

    #[test]
    fn who_was_answered_is_waited_for_half_as_long_as_a_sync_takes() {
        let mut gather = Gather::default();
        assert_eq!(gather.wait(&ALONE), None, "nobody was answered yet");
        gather.synced(SYNC, 50, 125);
        assert_eq!(gather.wait(&ALONE), Some((SYNC / 2, 175)));
        assert_eq!(gather.wait(&ALONE), None, "once after each sync");
    }

    #[test]
    fn a_wait_in_vain_is_not_repeated_at_once() {
        let mut gather = Gather::default();
        gather.synced(SYNC, 50, 125);
        gather.observe(175, 149);
        for _ in 0..Gather::REST {
            gather.synced(SYNC, 50, 200);
            assert_eq!(gather.wait(&ALONE), None);
        }
        gather.synced(SYNC, 50, 200);
        assert!(gather.wait(&ALONE).is_some());
        gather.observe(250, 225);
        gather.synced(SYNC, 50, 300);
        assert!(gather.wait(&ALONE).is_some(), "half of them had come");
    }

    #[test]
    fn syncs_under_way_at_once_have_their_part_of_the_records_or_are_some_time_apart() {
        let mut gather = Gather::default();
        gather.synced(SYNC, 50, 125);
        let (apart, little) = (SYNC / 8, SYNC / 100);
        let mut wait = |since, last| gather.wait(&moment(8, since, 42, last, 100));
        assert_eq!(wait(little, 143), Some((apart - little, 148)), "43 records, 6 for each");
        assert_eq!(wait(apart, 143), None);
        assert_eq!(wait(little, 148), None);
        assert_eq!(gather.wait(&moment(8, little, 0, 101, 100)), None, "one who is alone");
    }

    #[test]
    fn syncs_are_as_far_apart_as_they_are_told_to_be() {
        let (spacing, little) = (SYNC * 3, SYNC / 100);
        let mut gather = Gather::default();
        gather.set_spacing(spacing);
        let alone = |since| Moment { since, ..ALONE };
        assert_eq!(gather.wait(&alone(little)), Some((spacing - little, Lsn::MAX)));
        assert_eq!(gather.wait(&alone(spacing)), None);
        gather.synced(SYNC, 50, 125);
        let all_may_come = Some((spacing - SYNC, Lsn::MAX));
        assert_eq!(gather.wait(&alone(SYNC)), all_may_come);
        gather.synced(SYNC, 50, 125);
        assert_eq!(gather.wait(&alone(spacing)), Some((SYNC / 2, 175)));
        assert_eq!(gather.wait(&moment(8, SYNC, 0, 101, 100)), all_may_come);
    }

    #[test]
    fn who_only_reads_does_not_wait_for_those_who_write() {
        let mut gather = Gather::default();
        gather.set_spacing(SYNC * 10);
        let moment = Moment { since: SYNC / 2, ..ALONE };
        assert_eq!(gather.wait(&moment), Some((SYNC * 10 - SYNC / 2, Lsn::MAX)));
        assert!(gather.hurry());
        assert_eq!(gather.wait(&moment), Some((SYNC / 2, Lsn::MAX)));
        assert!(!gather.hurry(), "it is as near as it may be");
    }

    /// The numbers that there may be at once while a disk, asked for so many, takes its time.
    fn tried(syncs: u32, time: impl Fn(usize) -> Duration) -> Vec<usize> {
        let mut overlap = Overlap::new(None);
        (0..syncs)
            .map(|_| {
                overlap.synced(time(overlap.at_once()));
                overlap.at_once()
            })
            .collect()
    }

    #[test]
    fn slow_syncs_overlap_where_the_disk_takes_several_at_once() {
        let tried = tried(1000, |_| SYNC);
        assert_eq!(tried[..20], [1; 20]);
        assert_eq!(tried[500..], [8; 500]);
    }

    #[test]
    fn syncs_that_wait_for_one_another_go_one_by_one_but_for_rare_trials() {
        let tried = tried(100_000, |at_once| SYNC * at_once as u32);
        assert!(tried.contains(&2));
        let more = tried.iter().filter(|&&at_once| at_once > 1).count();
        assert!(more < tried.len() / 100, "{more}");
    }

    #[test]
    fn quick_syncs_go_one_by_one() {
        let quick = Duration::from_micros(150);
        assert_eq!(tried(1000, |_| quick), [1; 1000]);
        let mut overlap = Overlap::new(None);
        (0..200).for_each(|_| overlap.synced(SYNC));
        assert_eq!(overlap.at_once(), 8);
        (0..200).for_each(|_| overlap.synced(quick));
        assert_eq!(overlap.at_once(), 1, "they have become quick");
    }
}
