//! The in-flight table: a slot for each op that was started and not yet taken.
//!
//! A slot is an index and a generation, so that a stale completion is recognised and dropped. The
//! table reuses slots last-in first-out and allocates only when it grows. It keeps INV-BUF and
//! INV-ORPHAN: while an op is in flight its memory is owned either by its future or, once that
//! was dropped, by the slot.

use std::collections::VecDeque;
use std::task::Waker;

use crate::meter::{Meter, Stamp};
use crate::op::{Completion, Op};
use crate::trace::{EndedSpans, OpSpan};

/// Names one op in flight: slot index, generation and whether the op [is bounded](crate::op::Op).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    /// Generation in the low 30 bits, the tag in the high 2.
    tagged_generation: u32,
}

const GENERATION_MASK: u32 = (1 << 30) - 1;
const TAG_BOUNDED: u32 = 1 << 30;
const TAG_INTERNAL: u32 = 1 << 31;

impl Key {
    /// The slot's place in the table: engines index tables of their own with it.
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    pub(crate) fn is_bounded(self) -> bool {
        self.tagged_generation & TAG_BOUNDED != 0
    }

    /// As the 64-bit user data of a submission.
    pub(crate) fn to_user_data(self) -> u64 {
        (u64::from(self.tagged_generation) << 32) | u64::from(self.index)
    }

    /// Back from user data; `None` for what an engine submitted for itself.
    pub(crate) fn from_user_data(user_data: u64) -> Option<Key> {
        let tagged_generation = (user_data >> 32) as u32;
        (tagged_generation & TAG_INTERNAL == 0)
            .then_some(Key { index: user_data as u32, tagged_generation })
    }

    /// User data for a submission of the engine's own, which no slot knows.
    pub(crate) const fn internal(number: u32) -> u64 {
        ((TAG_INTERNAL as u64) << 32) | number as u64
    }
}

/// What is left of an op whose future was dropped: it owns the op's memory until the final
/// completion and then disposes of the result (INV-ORPHAN).
pub(crate) trait Orphan {
    /// An op that goes on has yielded something: to be kept until the end, because nothing may be
    /// disposed of in the middle of a turn.
    fn keep(&mut self, completion: Completion);

    /// The op has ended: releases the memory, and closes a handle nobody will take.
    fn finish(self: Box<Self>, completion: Completion);
}

enum State {
    /// `next_free` is the next slot of the free list.
    Free { next_free: u32 },
    /// In flight; whoever waits for it is woken.
    Waiting { waker: Option<Waker> },
    /// In flight; whoever waits for it is woken unless it yields what was expected.
    Quiet { waker: Waker, expected: i32 },
    /// In flight, and nobody waits for it any more.
    Orphaned { orphan: Box<dyn Orphan> },
    /// Completed and not yet taken.
    Done { completion: Completion },
    /// An op that may complete again and again, until its last completion was taken.
    Multi { multi: Box<Multi> },
}

/// What a multishot op has yielded. As a rule that is one completion for one waker: these two lie
/// here, in one cache line, and what is beyond them elsewhere.
#[derive(Default)]
#[repr(C)]
struct Multi {
    /// Who waits for the next completion.
    waker: Option<Waker>,
    /// The first completion not yet taken.
    first: Option<Completion>,
    /// The last completion is among those not taken.
    ended: bool,
    /// With `ready_max` completions not taken it was told to end.
    throttled: bool,
    ready_max: u32,
    /// The completions after the first, if there is a first.
    more: VecDeque<Completion>,
    /// The others who wait, if somebody waits.
    others: Vec<Waker>,
}

impl Multi {
    fn push(&mut self, completion: Completion) {
        if self.first.is_none() {
            self.first = Some(completion);
        } else {
            self.more.push_back(completion);
        }
    }

    fn pop(&mut self) -> Option<Completion> {
        let completion = self.first.take()?;
        if !self.more.is_empty() {
            self.first = self.more.pop_front();
        }
        Some(completion)
    }

    fn ready_count(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    fn register(&mut self, waker: &Waker) {
        match &self.waker {
            None => self.waker = Some(waker.clone()),
            Some(registered) if registered.will_wake(waker) => {}
            Some(_) if self.others.iter().any(|registered| registered.will_wake(waker)) => {}
            Some(_) => self.others.push(waker.clone()),
        }
    }

    fn take_wakers(&mut self, into: &mut Vec<Waker>) {
        if let Some(waker) = self.waker.take() {
            into.push(waker);
            if !self.others.is_empty() {
                into.append(&mut self.others);
            }
        }
    }
}

impl State {
    /// Replaces a state that owns nothing: an assignment would ask what there is to drop.
    #[inline]
    fn overwrite(&mut self, new: State) {
        debug_assert!(matches!(
            self,
            State::Free { .. } | State::Waiting { waker: None } | State::Done { .. }
        ));
        std::mem::forget(std::mem::replace(self, new));
    }

    fn is_in_flight(&self) -> bool {
        match self {
            State::Waiting { .. } | State::Quiet { .. } | State::Orphaned { .. } => true,
            State::Multi { multi } => !multi.ended,
            State::Free { .. } | State::Done { .. } => false,
        }
    }
}

struct Slot {
    generation: u32,
    bounded: bool,
    stamp: Stamp,
    /// There while the op is in flight.
    span: OpSpan,
    state: State,
}

const NO_SLOT: u32 = u32::MAX;

/// An orphan and how its op ended.
type FinishedOrphan = (Box<dyn Orphan>, Completion);

pub(crate) struct Table {
    slots: Vec<Slot>,
    first_free: u32,
    /// Started and not completed.
    in_flight_count: usize,
    /// Of these, the bounded ones.
    bounded_count: usize,
    /// Of those who wait for what has completed.
    wakers: Vec<Waker>,
    /// Of those who do not want to know: to be dropped.
    unused_wakers: Vec<Waker>,
    /// What has completed and nobody waits for.
    orphans: Vec<FinishedOrphan>,
    /// Of ops that have ended.
    ended_spans: EndedSpans,
    /// Multishot ops whose completions are not taken as fast as they come.
    unread: Vec<Key>,
    /// What ended multishot ops have left: their room is used again.
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    spare: Vec<Box<Multi>>,
    pub(crate) meter: Meter,
}

/// So many are kept at most.
const SPARE_MAX: usize = 64;

impl Table {
    pub(crate) fn new() -> Table {
        Table {
            slots: Vec::new(),
            first_free: NO_SLOT,
            in_flight_count: 0,
            bounded_count: 0,
            wakers: Vec::new(),
            unused_wakers: Vec::new(),
            orphans: Vec::new(),
            ended_spans: EndedSpans::default(),
            unread: Vec::new(),
            spare: Vec::new(),
            meter: Meter::default(),
        }
    }

    pub(crate) fn in_flight_count(&self) -> usize {
        self.in_flight_count
    }

    pub(crate) fn bounded_count(&self) -> usize {
        self.bounded_count
    }

    /// Slots that are in flight or completed and not yet taken.
    #[cfg(test)]
    pub(crate) fn used_count(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(slot.state, State::Free { .. })).count()
    }

    /// Reserves a slot for an op about to start.
    #[inline]
    pub(crate) fn insert(&mut self, bounded: bool) -> Key {
        self.in_flight_count += 1;
        self.bounded_count += usize::from(bounded);
        let index = self.first_free;
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return self.grow(bounded);
        };
        let State::Free { next_free } = slot.state else {
            unreachable!("the free list holds free slots only")
        };
        self.first_free = next_free;
        slot.state.overwrite(State::Waiting { waker: None });
        slot.bounded = bounded;
        slot.stamp = Stamp::NONE;
        Key::pack(index, slot.generation, bounded)
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, bounded: bool) -> Key {
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 ops in flight");
        assert!(index < NO_SLOT);
        let state = State::Waiting { waker: None };
        self.slots.push(Slot {
            generation: 0,
            bounded,
            stamp: Stamp::NONE,
            span: OpSpan::NONE,
            state,
        });
        Key::pack(index, 0, bounded)
    }

    #[inline]
    fn slot(&mut self, key: Key) -> Option<&mut Slot> {
        slot_of(&mut self.slots, key)
    }

    /// Gives the slot back. The generation moves on, so that `key` is stale from here on.
    #[inline]
    fn release(&mut self, key: Key) -> State {
        let next_free = self.first_free;
        let slot = &mut self.slots[key.index as usize];
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.first_free = key.index;
        std::mem::replace(&mut slot.state, State::Free { next_free })
    }

    /// Records the completion of `key`; a stale key is ignored. The user's code that this calls
    /// for waits in `wakers` and `orphans`.
    #[inline]
    pub(crate) fn complete(&mut self, key: Key, completion: Completion) {
        let Some(slot) = slot_of(&mut self.slots, key) else { return };
        let stamp = slot.stamp;
        let span = match completion.has_more() {
            true => OpSpan::NONE,
            false => slot.span.take(),
        };
        match &mut slot.state {
            State::Waiting { waker } => {
                if let Some(waker) = waker.take() {
                    self.wakers.push(waker);
                }
                slot.state.overwrite(State::Done { completion });
            }
            State::Quiet { expected, .. } => {
                let is_expected = *expected == completion.result;
                let done = State::Done { completion };
                if let State::Quiet { waker, .. } = std::mem::replace(&mut slot.state, done) {
                    let wakers =
                        if is_expected { &mut self.unused_wakers } else { &mut self.wakers };
                    wakers.push(waker);
                }
            }
            State::Multi { multi } => {
                multi.push(completion);
                multi.take_wakers(&mut self.wakers);
                if completion.has_more() {
                    if multi.ready_count() >= multi.ready_max as usize && !multi.throttled {
                        multi.throttled = true;
                        self.unread.push(key);
                    }
                    return;
                }
                multi.ended = true;
            }
            State::Orphaned { orphan } if completion.has_more() => {
                orphan.keep(completion);
                return;
            }
            State::Orphaned { .. } => {
                let State::Orphaned { orphan } = self.release(key) else {
                    unreachable!("matched above")
                };
                self.orphans.push((orphan, completion));
            }
            // A second final completion of one op: an engine's defect, not the user's.
            State::Done { .. } | State::Free { .. } => {
                debug_assert!(false, "completed twice: {key:?}");
                return;
            }
        }
        self.meter.end(stamp);
        self.ended_spans.push(span, completion);
        self.in_flight_count -= 1;
        self.bounded_count -= usize::from(key.is_bounded());
    }

    /// What has completed since the last call: to be woken and finished while nothing is
    /// borrowed. The empty vectors are given back with [`Table::give_back`].
    pub(crate) fn take_finished(&mut self) -> (Vec<Waker>, Vec<FinishedOrphan>) {
        (std::mem::take(&mut self.wakers), std::mem::take(&mut self.orphans))
    }

    /// The spans of ops that have ended since the last call: to be ended while nothing is borrowed.
    #[inline]
    pub(crate) fn take_ended_spans(&mut self) -> EndedSpans {
        self.ended_spans.take()
    }

    /// Wakers to drop while nothing is borrowed, given back in the same way; as a rule there are none.
    #[inline]
    pub(crate) fn take_unused(&mut self) -> Option<Vec<Waker>> {
        (!self.unused_wakers.is_empty()).then(|| std::mem::take(&mut self.unused_wakers))
    }

    /// Room for the next time.
    pub(crate) fn give_back(&mut self, wakers: Vec<Waker>, unused: Option<Vec<Waker>>) {
        // What the user's code has completed meanwhile comes first.
        if self.wakers.is_empty() {
            self.wakers = wakers;
        }
        if let Some(unused) = unused
            && self.unused_wakers.is_empty()
        {
            self.unused_wakers = unused;
        }
    }

    /// Takes the completion of `key` if it is there, else registers `waker`. The waker it
    /// replaces is handed out, because dropping one may run the user's code.
    #[inline]
    pub(crate) fn take(&mut self, key: Key, waker: &Waker) -> Result<Completion, Option<Waker>> {
        let slot = self.slot(key).expect("a future's key stays valid until it takes the result");
        match &mut slot.state {
            State::Done { completion } => {
                let completion = *completion;
                std::mem::forget(self.release(key));
                Ok(completion)
            }
            State::Waiting { waker: Some(current) } if current.will_wake(waker) => Err(None),
            State::Waiting { waker: current } => Err(current.replace(waker.clone())),
            state @ State::Quiet { .. } => {
                let waiting = State::Waiting { waker: Some(waker.clone()) };
                match std::mem::replace(state, waiting) {
                    State::Quiet { waker, .. } => Err(Some(waker)),
                    _ => unreachable!("matched above"),
                }
            }
            State::Orphaned { .. } | State::Free { .. } | State::Multi { .. } => {
                unreachable!("polled after its future was dropped")
            }
        }
    }

    /// As [`Table::take`], but the waker is woken only if the op yields another result than this one.
    #[inline]
    pub(crate) fn take_quietly(
        &mut self,
        key: Key,
        waker: &Waker,
        expected: i32,
    ) -> Result<Completion, Option<Waker>> {
        let slot = self.slot(key).expect("a future's key stays valid until it takes the result");
        match &mut slot.state {
            State::Quiet { waker: current, expected: before }
                if *before == expected && current.will_wake(waker) =>
            {
                return Err(None);
            }
            State::Waiting { waker: current } => match current.take() {
                Some(current) if current.will_wake(waker) => {
                    slot.state.overwrite(State::Quiet { waker: current, expected });
                    return Err(None);
                }
                before => {
                    slot.state.overwrite(State::Quiet { waker: waker.clone(), expected });
                    return Err(before);
                }
            },
            _ => {}
        }
        // It has ended, or somebody else waited.
        let taken = self.take(key, waker);
        if taken.is_err()
            && let Some(slot) = self.slot(key)
            && let State::Waiting { waker } = &mut slot.state
            && let Some(waker) = waker.take()
        {
            slot.state.overwrite(State::Quiet { waker, expected });
        }
        taken
    }

    /// Makes an op that was just inserted one that may complete more than once. With `ready_max`
    /// completions that nobody has taken it is reported by [`Table::take_unread`].
    pub(crate) fn set_multi(&mut self, key: Key, ready_max: u32, waker: Waker) {
        let mut multi = self.spare.pop().unwrap_or_default();
        multi.waker = Some(waker);
        (multi.ended, multi.ready_max, multi.throttled) = (false, ready_max, false);
        let state = &mut self.slots[key.index()].state;
        debug_assert!(matches!(state, State::Waiting { waker: None }), "it was just inserted");
        state.overwrite(State::Multi { multi });
    }

    /// Gives the slot of a multishot op back, whose last completion was taken.
    fn release_multi(&mut self, key: Key) {
        if let State::Multi { multi } = self.release(key)
            && self.spare.len() < SPARE_MAX
        {
            debug_assert!(multi.first.is_none() && multi.waker.is_none(), "it has ended");
            self.spare.push(multi);
        }
    }

    /// The next completion of a multishot op, else registers `waker`. With the last one, the one
    /// that has no more to come, the slot is given back.
    #[inline]
    pub(crate) fn take_next(&mut self, key: Key, waker: &Waker) -> Option<Completion> {
        let slot = self.slot(key).expect("a stream's key stays valid until its last completion");
        let State::Multi { multi } = &mut slot.state else {
            unreachable!("polled after its stream was dropped")
        };
        match multi.pop() {
            Some(completion) => {
                if !completion.has_more() {
                    self.release_multi(key);
                }
                Some(completion)
            }
            None => {
                multi.register(waker);
                None
            }
        }
    }

    /// Takes what a multishot op has yielded so far, if that is something. As with
    /// [`Table::take_next`], the slot goes with the last completion.
    pub(crate) fn try_next(&mut self, key: Key) -> Option<Completion> {
        match &mut self.slot(key)?.state {
            State::Multi { multi } => {
                let completion = multi.pop()?;
                if !completion.has_more() {
                    self.release_multi(key);
                }
                Some(completion)
            }
            _ => None,
        }
    }

    /// The stream of `key` is gone, all that it had yielded was taken, and it goes on: the slot
    /// owns the orphan from here on. Those who waited are handed out.
    pub(crate) fn abandon_multi(&mut self, key: Key, orphan: Box<dyn Orphan>) -> Vec<Waker> {
        let slot = self.slot(key).expect("a stream's key stays valid until its last completion");
        match std::mem::replace(&mut slot.state, State::Orphaned { orphan }) {
            State::Multi { mut multi } if !multi.ended => {
                let mut wakers = Vec::new();
                multi.take_wakers(&mut wakers);
                wakers
            }
            _ => unreachable!("its last completion was not taken"),
        }
    }

    /// Multishot ops that are to end, because what they yield is not taken.
    pub(crate) fn take_unread(&mut self) -> Option<Key> {
        self.unread.pop()
    }

    /// Undoes `insert` for an op that completed at submit.
    #[inline]
    pub(crate) fn remove(&mut self, key: Key) {
        self.in_flight_count -= 1;
        self.bounded_count -= usize::from(key.is_bounded());
        let state = self.release(key);
        debug_assert!(matches!(state, State::Waiting { waker: None }), "it was just inserted");
    }

    /// Counts an op that was just inserted.
    #[inline]
    pub(crate) fn count(&mut self, key: Key, op: &Op) {
        let stamp = self.meter.begin(op, self.in_flight_count);
        // Without metrics there is nothing to store, and no place to look for.
        if size_of::<Stamp>() > 0 {
            self.slots[key.index()].stamp = stamp;
        }
    }

    /// The span of an op that was just inserted and goes on.
    #[inline]
    pub(crate) fn set_span(&mut self, key: Key, span: OpSpan) {
        self.slots[key.index()].span = span;
    }

    /// As `remove`, of an op that was counted.
    #[inline]
    pub(crate) fn remove_ended(&mut self, key: Key) {
        if size_of::<Stamp>() > 0 {
            self.meter.end(self.slots[key.index()].stamp);
        }
        self.remove(key);
    }

    /// Says who waits for an op that did not complete at submit.
    #[inline]
    pub(crate) fn set_waker(&mut self, key: Key, new: Waker) {
        match &mut self.slots[key.index()].state {
            State::Waiting { waker } => {
                let before = waker.replace(new);
                debug_assert!(before.is_none(), "it was just inserted");
                std::mem::forget(before);
            }
            _ => unreachable!("it was just inserted"),
        }
    }

    /// The future of `key` is gone. `Ok` hands back the orphan with the completion if the op had
    /// ended already; otherwise the slot owns it from here on and the old waker is handed out.
    pub(crate) fn abandon(
        &mut self,
        key: Key,
        orphan: Box<dyn Orphan>,
    ) -> Result<(Box<dyn Orphan>, Completion), Option<Waker>> {
        let slot = self.slot(key).expect("a future's key stays valid until it takes the result");
        match &mut slot.state {
            State::Done { completion } => {
                let completion = *completion;
                self.release(key);
                Ok((orphan, completion))
            }
            state @ (State::Waiting { .. } | State::Quiet { .. }) => {
                match std::mem::replace(state, State::Orphaned { orphan }) {
                    State::Waiting { waker } => Err(waker),
                    State::Quiet { waker, .. } => Err(Some(waker)),
                    _ => unreachable!("matched above"),
                }
            }
            State::Orphaned { .. } | State::Free { .. } | State::Multi { .. } => {
                unreachable!("abandoned twice")
            }
        }
    }

    /// Whether `key` is in flight: started, not completed.
    pub(crate) fn is_in_flight(&mut self, key: Key) -> bool {
        self.slot(key).is_some_and(|slot| slot.state.is_in_flight())
    }

    /// The shutdown gives up on the ops in flight: the kernel may use their memory for ever.
    pub(crate) fn leak_orphans(&mut self) {
        for slot in &mut self.slots {
            if let State::Orphaned { .. } = slot.state {
                let given_up = State::Waiting { waker: None };
                std::mem::forget(std::mem::replace(&mut slot.state, given_up));
            }
        }
    }

    /// The keys of all ops in flight.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = Key> + '_ {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.state.is_in_flight())
            .map(|(index, slot)| Key::pack(index as u32, slot.generation, slot.bounded))
    }
}

#[inline]
fn slot_of(slots: &mut [Slot], key: Key) -> Option<&mut Slot> {
    let slot = slots.get_mut(key.index as usize)?;
    (slot.generation == key.tagged_generation & GENERATION_MASK
        && !matches!(slot.state, State::Free { .. }))
    .then_some(slot)
}

impl Key {
    #[inline]
    fn pack(index: u32, generation: u32, bounded: bool) -> Key {
        let tag = if bounded { TAG_BOUNDED } else { 0 };
        Key { index, tagged_generation: generation | tag }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_completion_is_dropped() {
        let mut table = Table::new();
        let first = table.insert(false);
        table.complete(first, Completion::new(1));
        assert_eq!(table.take(first, Waker::noop()).ok(), Some(Completion::new(1)));
        let second = table.insert(false);
        assert_eq!(second.index(), first.index(), "the slot is reused");
        table.complete(first, Completion::new(2));
        assert!(table.is_in_flight(second), "the old key is stale");
        assert_eq!(table.in_flight_count(), 1);
    }

    #[test]
    fn counts_follow_the_bounded_ops() {
        let mut table = Table::new();
        let bounded = table.insert(true);
        let unbounded = table.insert(false);
        assert!(bounded.is_bounded() && !unbounded.is_bounded());
        assert_eq!((table.in_flight_count(), table.bounded_count()), (2, 1));
        table.complete(bounded, Completion::new(0));
        assert_eq!((table.in_flight_count(), table.bounded_count()), (1, 0));
        table.remove(unbounded);
        assert_eq!((table.in_flight_count(), table.used_count()), (0, 1));
    }

    #[test]
    fn an_expected_result_wakes_nobody_and_another_does() {
        let mut table = Table::new();
        for (result, woken_count) in [(5, 0), (4, 1), (-libc::EPIPE, 1)] {
            let key = table.insert(false);
            assert!(table.take_quietly(key, Waker::noop(), 5).is_err());
            assert!(table.is_in_flight(key));
            table.complete(key, Completion::new(result));
            assert_eq!(table.take_finished().0.len(), woken_count, "{result}");
            assert_eq!(table.take_unused().map_or(0, |unused| unused.len()), 1 - woken_count);
            assert_eq!(table.take(key, Waker::noop()).ok(), Some(Completion::new(result)));
        }
        assert_eq!((table.in_flight_count(), table.used_count()), (0, 0));
    }

    #[test]
    fn who_asks_again_is_woken_by_an_expected_result() {
        let mut table = Table::new();
        let key = table.insert(false);
        assert!(table.take_quietly(key, Waker::noop(), 5).is_err());
        assert!(table.take(key, Waker::noop()).is_err());
        table.complete(key, Completion::new(5));
        assert_eq!(table.take_finished().0.len(), 1);
    }

    #[test]
    fn user_data_round_trips_and_internal_is_apart() {
        let mut table = Table::new();
        let key = table.insert(true);
        assert_eq!(Key::from_user_data(key.to_user_data()), Some(key));
        assert_eq!(Key::from_user_data(Key::internal(7)), None);
    }

    #[test]
    fn slots_are_reused_not_added() {
        let mut table = Table::new();
        for _ in 0..1000 {
            let key = table.insert(false);
            table.complete(key, Completion::new(0));
            let _ = table.take(key, Waker::noop());
        }
        assert_eq!(table.slots.len(), 1);
    }
}
