//! The deadline queue: a hierarchical timing wheel.
//!
//! Arming and cancelling cost a few links in a slab, however many timers there are. Time is cut
//! in ticks of [`TICK_NS`]; level 0 has a slot for each of the next 4,096 ticks, the first of the
//! levels above a slot for each 4,096 ticks, and each further one a slot for 64 slots of the one
//! below. A timer moves down a level when its slot's time comes, and fires from level 0: never early,
//! and late by less than a tick.
//!
//! With very many timers what counts is how often one waits for memory until it has fired. Hence the
//! wide level 0, into which a timer of up to 4 seconds comes by one move, two timers to a cache line, and
//! several chains of timers to a slot above level 0, which are followed at the same time.

use std::task::Waker;
use std::time::Duration;

use omniring_driver::clock::Instant;

use crate::task::prefetch;

/// Length of a tick in nanoseconds: about 16 microseconds.
const TICK_NS: u64 = 1 << 14;

/// Slots of level 0.
const TICK_SLOTS: usize = 1 << TICK_BITS;
const TICK_BITS: u32 = 12;
/// Slots of each level above.
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 6;
/// The levels above. Together with level 0 they span more than two years; timers beyond are placed
/// again when that is over.
const LEVELS: usize = 5;
const SPAN: u64 = 1 << (TICK_BITS + SLOT_BITS * LEVELS as u32);
const TOP: usize = LEVELS - 1;

/// Chains of timers to each slot of the levels above; a timer is in the one that its index says.
const CHAINS: usize = 8;

/// No timer, and of a timer's `previous`, that it is in no slot.
const NONE: u32 = u32::MAX;
/// Of a timer's `previous`: it is the first of the chain whose number follows.
const HEAD: u32 = 1 << 31;

/// Names an armed timer.
#[derive(Debug)]
pub(crate) struct TimerKey(u32);

struct Timer {
    waker: Option<Waker>,
    /// When it fires.
    tick: u64,
    /// The one before it in its chain.
    previous: u32,
    next: u32,
}

pub(crate) struct Wheel {
    start: Instant,
    /// Everything up to this tick has fired.
    elapsed: u64,
    timers: Vec<Timer>,
    /// First of the unused timers, linked by `next`.
    first_free: u32,
    /// A bit for each slot of level 0 that has timers.
    occupied_ticks: [u64; TICK_SLOTS / 64],
    /// A bit for each of these words that is not zero.
    occupied_words: u64,
    /// A bit for each slot of the levels above that has timers.
    occupied: [u64; LEVELS],
    /// The first timer of each chain, level by level.
    first: Box<[u32]>,
}

/// A slot of the wheel.
#[derive(Clone, Copy)]
enum Slot {
    /// Of level 0.
    Tick(usize),
    /// Of a level above, counted from 0.
    Upper { level: usize, slot: usize },
}

impl Slot {
    /// The number of its first chain; those of level 0 have one only.
    fn first_chain(self) -> usize {
        match self {
            Slot::Tick(slot) => slot,
            Slot::Upper { level, slot } => TICK_SLOTS + (level * SLOTS + slot) * CHAINS,
        }
    }
}

impl Wheel {
    pub(crate) fn new(start: Instant) -> Wheel {
        Wheel {
            start,
            elapsed: 0,
            timers: Vec::new(),
            first_free: NONE,
            occupied_ticks: [0; TICK_SLOTS / 64],
            occupied_words: 0,
            occupied: [0; LEVELS],
            first: vec![NONE; TICK_SLOTS + LEVELS * SLOTS * CHAINS].into_boxed_slice(),
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.first.iter().all(|&first| first == NONE) && self.next_slot().is_none()
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
                let index = self.timers.len();
                assert!(index < HEAD as usize, "fewer than 2^31 timers");
                self.timers.push(Timer { waker: Some(waker), tick, previous: NONE, next: NONE });
                index as u32
            }
        };
        self.place(index, tick);
        TimerKey(index)
    }

    /// Whether it has fired. If not, `waker` is woken when it does; the waker it replaces is
    /// handed out, because dropping one may run the user's code.
    pub(crate) fn poll(&mut self, key: &TimerKey, waker: &Waker) -> Result<(), Option<Waker>> {
        match &mut self.timers[key.0 as usize].waker {
            None => Ok(()),
            Some(current) if current.will_wake(waker) => Err(None),
            Some(current) => Err(Some(std::mem::replace(current, waker.clone()))),
        }
    }

    /// Takes a timer out, fired or not, and hands out its waker.
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        self.unlink(key.0);
        let timer = &mut self.timers[key.0 as usize];
        timer.next = self.first_free;
        self.first_free = key.0;
        timer.waker.take()
    }

    /// Fires what is due by `now`: appends the wakers, in the order of their ticks. With `count_max` of
    /// them it leaves later ticks to the next call.
    pub(crate) fn expire(&mut self, now: Instant, count_max: usize, due: &mut Vec<Waker>) {
        let now_tick = now.saturating_duration_since(self.start).as_nanos() / u128::from(TICK_NS);
        let now_tick = now_tick as u64;
        while let Some((slot, tick)) = self.next_slot()
            && tick <= now_tick
        {
            if due.len() >= count_max {
                return;
            }
            self.elapsed = tick;
            self.mark_empty(slot);
            let chain = slot.first_chain();
            match slot {
                Slot::Tick(_) => {
                    let mut at = std::mem::replace(&mut self.first[chain], NONE);
                    while at != NONE {
                        at = self.fire(at, due);
                    }
                }
                Slot::Upper { .. } => self.move_down(chain, due),
            }
        }
        self.elapsed = self.elapsed.max(now_tick);
    }

    /// Fires a timer, which is out of its chain: the next of that.
    #[inline]
    fn fire(&mut self, index: u32, due: &mut Vec<Waker>) -> u32 {
        let timer = &mut self.timers[index as usize];
        timer.previous = NONE;
        if let Some(waker) = timer.waker.take() {
            prefetch(&waker);
            due.push(waker);
        }
        timer.next
    }

    /// Moves the timers of a slot, whose chains begin with this one, to where they belong by now.
    fn move_down(&mut self, first_chain: usize, due: &mut Vec<Waker>) {
        let mut at = [NONE; CHAINS];
        at.swap_with_slice(&mut self.first[first_chain..first_chain + CHAINS]);
        while at != [NONE; CHAINS] {
            let indices = at;
            let mut ticks = [0; CHAINS];
            // The memory of all is asked for before that of one is waited for.
            for (tick, at) in ticks.iter_mut().zip(&mut at) {
                if let Some(timer) = self.timers.get(*at as usize) {
                    (*tick, *at) = (timer.tick, timer.next);
                }
            }
            for (index, tick) in indices.into_iter().zip(ticks) {
                if index == NONE {
                    continue;
                }
                if tick <= self.elapsed {
                    self.fire(index, due);
                } else {
                    self.place(index, tick);
                }
            }
        }
    }

    /// When to look again: the first timer, or before it the time to move some down a level.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let (_, tick) = self.next_slot()?;
        Some(self.start + Duration::from_nanos(tick.saturating_mul(TICK_NS)))
    }

    /// The next slot whose time comes, and its first tick. Whatever is in a level comes before
    /// everything in the levels above, and all of it, but for the top level, in this round.
    #[inline]
    fn next_slot(&self) -> Option<(Slot, u64)> {
        if self.occupied_words != 0 {
            let word = self.occupied_words.trailing_zeros() as usize;
            let slot = word * 64 + self.occupied_ticks[word].trailing_zeros() as usize;
            let tick = (self.elapsed & !(TICK_SLOTS as u64 - 1)) + slot as u64;
            return Some((Slot::Tick(slot), tick));
        }
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = shift_of(level);
        let current = (self.elapsed >> shift) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(current).trailing_zeros();
        let slot = (current + ahead) as usize % SLOTS;
        // A slot of the top level at or before the current one is of the next round.
        let round = 1u64 << (shift + SLOT_BITS);
        let tick = (self.elapsed & !(round - 1)) + ((slot as u64) << shift);
        let tick = if tick <= self.elapsed && ahead > 0 { tick + round } else { tick };
        Some((Slot::Upper { level, slot }, tick.max(self.elapsed)))
    }

    fn mark_empty(&mut self, slot: Slot) {
        match slot {
            Slot::Tick(slot) => {
                let word = &mut self.occupied_ticks[slot / 64];
                *word &= !(1 << (slot % 64));
                if *word == 0 {
                    self.occupied_words &= !(1 << (slot / 64));
                }
            }
            Slot::Upper { level, slot } => self.occupied[level] &= !(1 << slot),
        }
    }

    /// Links a timer into the slot that its tick belongs to.
    fn place(&mut self, index: u32, tick: u64) {
        // The last slot before the current one of the top level: that one is of this round.
        let last = self.elapsed + (SPAN - (1 << shift_of(TOP)));
        let tick = tick.min(last);
        let differing = self.elapsed ^ tick;
        let chain = if differing < TICK_SLOTS as u64 {
            let slot = tick as usize % TICK_SLOTS;
            self.occupied_ticks[slot / 64] |= 1 << (slot % 64);
            self.occupied_words |= 1 << (slot / 64);
            Slot::Tick(slot).first_chain()
        } else {
            let level = (differing.ilog2() - TICK_BITS) / SLOT_BITS;
            let level = (level as usize).min(TOP);
            let slot = (tick >> shift_of(level)) as usize % SLOTS;
            self.occupied[level] |= 1 << slot;
            Slot::Upper { level, slot }.first_chain() + index as usize % CHAINS
        };
        let next = std::mem::replace(&mut self.first[chain], index);
        if next != NONE {
            self.timers[next as usize].previous = index;
        }
        let timer = &mut self.timers[index as usize];
        timer.previous = HEAD | chain as u32;
        timer.next = next;
    }

    /// Takes a timer out of its slot, if it is in one.
    fn unlink(&mut self, index: u32) {
        let timer = &mut self.timers[index as usize];
        let next = timer.next;
        let previous = std::mem::replace(&mut timer.previous, NONE);
        if previous == NONE {
            return;
        }
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        if previous & HEAD == 0 {
            self.timers[previous as usize].next = next;
            return;
        }
        let chain = (previous & !HEAD) as usize;
        self.first[chain] = next;
        if next == NONE {
            self.chain_ended(chain);
        }
    }

    /// A chain has no timers any more, nor may its slot.
    fn chain_ended(&mut self, chain: usize) {
        let Some(upper) = chain.checked_sub(TICK_SLOTS) else {
            return self.mark_empty(Slot::Tick(chain));
        };
        let first_chain = chain - upper % CHAINS;
        let chains = &self.first[first_chain..first_chain + CHAINS];
        if chains == [NONE; CHAINS] {
            let number = upper / CHAINS;
            self.mark_empty(Slot::Upper { level: number / SLOTS, slot: number % SLOTS });
        }
    }
}

/// By how many bits a tick is more precise than the slots of a level above level 0.
const fn shift_of(level: usize) -> u32 {
    TICK_BITS + SLOT_BITS * level as u32
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
        wheel.expire(now, usize::MAX, &mut due);
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

    #[test]
    fn what_is_too_much_for_one_call_fires_in_the_next() {
        let start = omniring_driver::clock::now();
        let mut wheel = Wheel::new(start);
        for n in 0..1000 {
            wheel.insert(start + Duration::from_millis(n), Waker::noop().clone());
        }
        let now = start + Duration::from_secs(10);
        let mut due = Vec::new();
        wheel.expire(now, 300, &mut due);
        assert!((300..310).contains(&due.len()), "{}", due.len());
        assert!(wheel.next_deadline().unwrap() < now);
        // One that is armed meanwhile has its turn after those that were due before.
        wheel.insert(start + Duration::from_millis(700), Waker::noop().clone());
        assert_eq!(due.len() + fire(&mut wheel, now), 1001);
        assert!(wheel.is_empty());
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
        assert!(size_of::<Timer>() <= 32, "{} bytes", size_of::<Timer>());
        let half = start + Duration::from_secs(30);
        let fired = fire(&mut wheel, half);
        assert!((499_000..501_000).contains(&fired), "{fired}");
        keys.into_iter().for_each(|key| drop(wheel.remove(key)));
        assert!(wheel.is_empty());
    }
}
