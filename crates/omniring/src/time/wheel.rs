//! The deadline queue: a hierarchical timing wheel.
//!
//! Arming and cancelling cost a few links in a slab, however many timers there are. Time is cut
//! in ticks of [`TICK_NS`]; level 0 has a slot for each of the next 64 ticks, each further level
//! a slot for 64 slots of the one below. A timer moves down a level when its slot's time comes,
//! and fires from level 0: never early, and late by less than a tick.

use std::task::Waker;
use std::time::Duration;

use omniring_driver::clock::Instant;

/// Length of a tick in nanoseconds: about 16 microseconds.
const TICK_NS: u64 = 1 << 14;
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
/// Together they span more than two years; timers beyond are placed again when that is over.
const LEVELS: usize = 7;
const SPAN: u64 = 1 << (SLOT_BITS * LEVELS as u32);

const NONE: u32 = u32::MAX;

/// Names an armed timer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimerKey {
    index: u32,
    generation: u32,
}

struct Timer {
    waker: Option<Waker>,
    /// When it fires.
    tick: u64,
    generation: u32,
    previous: u32,
    next: u32,
    /// Level and slot while armed.
    place: Option<(u8, u8)>,
}

pub(crate) struct Wheel {
    start: Instant,
    /// Everything up to this tick has fired.
    elapsed: u64,
    timers: Vec<Timer>,
    /// First of the unused timers, linked by `next`.
    first_free: u32,
    armed_count: usize,
    /// A bit for each slot that has timers.
    occupied: [u64; LEVELS],
    first: [[u32; SLOTS]; LEVELS],
}

impl Wheel {
    pub(crate) fn new(start: Instant) -> Wheel {
        Wheel {
            start,
            elapsed: 0,
            timers: Vec::new(),
            first_free: NONE,
            armed_count: 0,
            occupied: [0; LEVELS],
            first: [[NONE; SLOTS]; LEVELS],
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.armed_count == 0
    }

    fn tick_at_or_after(&self, deadline: Instant) -> u64 {
        let since = deadline.saturating_duration_since(self.start).as_nanos();
        u64::try_from(since.div_ceil(u128::from(TICK_NS))).unwrap_or(u64::MAX / 2)
    }

    /// Wakes `waker` at `deadline`. The timer stays, fired or not, until it is removed.
    pub(crate) fn insert(&mut self, deadline: Instant, waker: Waker) -> TimerKey {
        // What is due already fires with the next tick.
        let tick = self.tick_at_or_after(deadline).max(self.elapsed + 1);
        let index = match self.timers.get_mut(self.first_free as usize) {
            Some(timer) => {
                let index = self.first_free;
                self.first_free = timer.next;
                timer.waker = Some(waker);
                timer.tick = tick;
                index
            }
            None => {
                let index = u32::try_from(self.timers.len()).expect("fewer than 2^32 timers");
                self.timers.push(Timer {
                    waker: Some(waker),
                    tick,
                    generation: 0,
                    previous: NONE,
                    next: NONE,
                    place: None,
                });
                index
            }
        };
        self.place(index);
        TimerKey { index, generation: self.timers[index as usize].generation }
    }

    fn timer(&mut self, key: TimerKey) -> &mut Timer {
        let timer = &mut self.timers[key.index as usize];
        debug_assert_eq!(timer.generation, key.generation, "a timer is removed once");
        timer
    }

    /// Whether it has fired. If not, `waker` is woken when it does; the waker it replaces is
    /// handed out, because dropping one may run the user's code.
    pub(crate) fn poll(&mut self, key: TimerKey, waker: &Waker) -> Result<(), Option<Waker>> {
        let timer = self.timer(key);
        match &mut timer.waker {
            None => Ok(()),
            Some(current) if current.will_wake(waker) => Err(None),
            Some(current) => Err(Some(std::mem::replace(current, waker.clone()))),
        }
    }

    /// Takes a timer out, fired or not, and hands out its waker.
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        if self.timer(key).place.is_some() {
            self.unlink(key.index);
        }
        let first_free = self.first_free;
        let timer = self.timer(key);
        timer.generation = timer.generation.wrapping_add(1);
        timer.next = first_free;
        let waker = timer.waker.take();
        self.first_free = key.index;
        waker
    }

    /// Fires everything that is due by `now`: appends the wakers.
    pub(crate) fn expire(&mut self, now: Instant, due: &mut Vec<Waker>) {
        let now_tick = now.saturating_duration_since(self.start).as_nanos() / u128::from(TICK_NS);
        let now_tick = now_tick as u64;
        while let Some((level, slot, tick)) = self.next_slot()
            && tick <= now_tick
        {
            self.elapsed = tick;
            let mut at = std::mem::replace(&mut self.first[level][slot], NONE);
            self.occupied[level] &= !(1 << slot);
            while at != NONE {
                let timer = &mut self.timers[at as usize];
                let next = timer.next;
                timer.place = None;
                self.armed_count -= 1;
                if timer.tick <= tick {
                    due.extend(timer.waker.take());
                } else {
                    self.place(at);
                }
                at = next;
            }
        }
        self.elapsed = self.elapsed.max(now_tick);
    }

    /// When to look again: the first timer, or before it the time to move some down a level.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let (_, _, tick) = self.next_slot()?;
        Some(self.start + Duration::from_nanos(tick.saturating_mul(TICK_NS)))
    }

    /// The next slot whose time comes, and its first tick. Whatever is in a level comes before
    /// everything in the levels above.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = SLOT_BITS * level as u32;
        let current = (self.elapsed >> shift) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(current).trailing_zeros();
        let slot = (current + ahead) as usize % SLOTS;
        // A slot of the top level at or before the current one is of the next round.
        let round = 1u64 << (shift + SLOT_BITS);
        let tick = (self.elapsed & !(round - 1)) + ((slot as u64) << shift);
        let tick = if tick <= self.elapsed && ahead > 0 { tick + round } else { tick };
        Some((level, slot, tick.max(self.elapsed)))
    }

    /// Links a timer into the slot that its tick belongs to.
    fn place(&mut self, index: u32) {
        // The last slot before the current one of the top level: that one is of this round.
        let last = self.elapsed + (SPAN - SPAN / SLOTS as u64);
        let tick = self.timers[index as usize].tick.min(last);
        let differing = (self.elapsed ^ tick) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
        let slot = (tick >> (SLOT_BITS * level)) as usize % SLOTS;
        let level = level as usize;
        let next = std::mem::replace(&mut self.first[level][slot], index);
        if next != NONE {
            self.timers[next as usize].previous = index;
        }
        self.occupied[level] |= 1 << slot;
        self.armed_count += 1;
        let timer = &mut self.timers[index as usize];
        timer.previous = NONE;
        timer.next = next;
        timer.place = Some((level as u8, slot as u8));
    }

    fn unlink(&mut self, index: u32) {
        let Timer { previous, next, place, .. } = self.timers[index as usize];
        let (level, slot) = place.expect("only armed timers are unlinked");
        let (level, slot) = (usize::from(level), usize::from(slot));
        match previous {
            NONE => self.first[level][slot] = next,
            previous => self.timers[previous as usize].next = next,
        }
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        if self.first[level][slot] == NONE {
            self.occupied[level] &= !(1 << slot);
        }
        self.timers[index as usize].place = None;
        self.armed_count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn fire(wheel: &mut Wheel, now: Instant) -> usize {
        let mut due = Vec::new();
        wheel.expire(now, &mut due);
        due.len()
    }

    /// The order and the times are those of a sorted list, over all levels.
    #[test]
    fn timers_fire_in_their_tick_and_never_early() {
        let start = omniring_driver::clock::now();
        let mut wheel = Wheel::new(start);
        let mut random = 12345u64;
        let mut deadlines = Vec::new();
        for bits in (10..52).cycle().take(5000) {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let deadline = start + Duration::from_nanos((random >> 12) & ((1 << bits) - 1));
            wheel.insert(deadline, Waker::noop().clone());
            deadlines.push(deadline);
        }
        deadlines.sort();
        let mut fired = 0;
        while let Some(next) = wheel.next_deadline() {
            let count = fire(&mut wheel, next);
            for deadline in &deadlines[fired..fired + count] {
                let first_tick = Duration::from_nanos(2 * TICK_NS);
                assert!(*deadline <= next && next <= (*deadline).max(start) + first_tick);
            }
            fired += count;
        }
        assert_eq!(fired, deadlines.len());
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_wheel_that_slept_long_catches_up() {
        let start = omniring_driver::clock::now();
        let mut wheel = Wheel::new(start);
        for seconds in [1, 60, 3600, 86_400, 10_000_000, 1_000_000_000] {
            wheel.insert(start + Duration::from_secs(seconds), Waker::noop().clone());
        }
        assert_eq!(fire(&mut wheel, start + Duration::from_secs(100_000)), 4);
        assert_eq!(fire(&mut wheel, start + Duration::from_secs(999_999_999)), 1);
        assert_eq!(fire(&mut wheel, start + Duration::from_secs(1_000_000_001)), 1);
    }

    /// At whatever time it is armed, a timer beyond the wheel's span waits for its turn.
    #[test]
    fn a_timer_beyond_the_span_does_not_fire_now() {
        let start = omniring_driver::clock::now();
        for since in [0, 1, 1000, 100_000_000, 5_000_000_000] {
            let mut wheel = Wheel::new(start);
            let now = start + Duration::from_secs(since) + Duration::from_millis(1);
            assert_eq!(fire(&mut wheel, now), 0);
            wheel.insert(now + Duration::from_secs(1_000_000_000), Waker::noop().clone());
            assert_eq!(fire(&mut wheel, now), 0);
            assert!(wheel.next_deadline().unwrap() > now + Duration::from_secs(86_400));
            assert_eq!(fire(&mut wheel, now + Duration::from_secs(999_999_999)), 0);
            assert_eq!(fire(&mut wheel, now + Duration::from_secs(1_000_000_001)), 1);
        }
    }

    #[test]
    fn a_removed_timer_does_not_fire_and_its_place_is_used_again() {
        let start = omniring_driver::clock::now();
        let mut wheel = Wheel::new(start);
        let count = Arc::new(Count::default());
        for _ in 0..1000 {
            let keys: Vec<_> = (1..10)
                .map(|n| wheel.insert(start + Duration::from_millis(n * n), count.clone().into()))
                .collect();
            keys.into_iter().for_each(|key| drop(wheel.remove(key)));
        }
        assert!(wheel.is_empty() && wheel.timers.len() == 9 && wheel.next_deadline().is_none());
        assert_eq!(fire(&mut wheel, start + Duration::from_secs(1)), 0);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn a_million_timers_are_armed_and_cancelled_cheaply() {
        let start = omniring_driver::clock::now();
        let mut wheel = Wheel::new(start);
        let keys: Vec<_> = (0..1_000_000u64)
            .map(|n| {
                let deadline = start + Duration::from_micros(n.wrapping_mul(7919) % 60_000_000);
                wheel.insert(deadline, Waker::noop().clone())
            })
            .collect();
        assert!(size_of::<Timer>() <= 48, "{} bytes", size_of::<Timer>());
        let half = start + Duration::from_secs(30);
        let fired = fire(&mut wheel, half);
        assert!((499_000..501_000).contains(&fired), "{fired}");
        keys.into_iter().for_each(|key| drop(wheel.remove(key)));
        assert!(wheel.is_empty());
    }
}
