//! The one atomic word of a task: its references, and whether it is in the remote queue.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering, fence};

use Ordering::{AcqRel, Acquire, Relaxed, Release};

/// An entry of the remote queue exists.
const REMOTE: u32 = 1;
const REFERENCE: u32 = 2;
/// With so many references somebody leaks wakers, and goes on: before the count runs over, which would
/// free a task that is in use, the process ends.
const COUNT_MAX: u32 = u32::MAX / REFERENCE / 2;

pub(super) struct State(AtomicU32);

impl State {
    pub(super) fn new(reference_count: u32) -> State {
        State(AtomicU32::new(reference_count * REFERENCE))
    }

    /// For who has a reference.
    #[inline]
    pub(super) fn add_reference(&self) {
        if self.0.fetch_add(REFERENCE, Relaxed) / REFERENCE > COUNT_MAX {
            std::process::abort();
        }
    }

    /// Gives so many references up. True for the last ones: all that was done under the others has
    /// happened before.
    #[inline]
    pub(super) fn drop_references(&self, count: u32) -> bool {
        let is_last = self.0.fetch_sub(count * REFERENCE, Release) / REFERENCE == count;
        if is_last {
            fence(Acquire);
        }
        is_last
    }

    /// A wake on another thread. True for who has to add an entry to the remote queue; for the others
    /// there is one, and who takes it out sees what happened before this.
    #[inline]
    pub(super) fn set_remote(&self) -> bool {
        self.0.fetch_or(REMOTE, AcqRel) & REMOTE == 0
    }

    /// The entry was taken out. The poll to come sees what happened before the wakes.
    #[inline]
    pub(super) fn clear_remote(&self) {
        self.0.fetch_and(!REMOTE, Acquire);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::State;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    struct Task {
        state: State,
        /// What wakers tell of; each writes its own.
        told: [UnsafeCell<usize>; 2],
        freed: AtomicUsize,
    }

    /// Wakes on two threads, and the runtime that takes entries out and polls: what a waker had to tell
    /// is seen by a poll after its wake, and the memory goes once, after everything else.
    #[test]
    fn no_wake_is_lost_and_the_last_reference_frees() {
        loom::model(|| {
            let task = Arc::new(Task {
                // One for the runtime's list, one for each waker.
                state: State::new(3),
                told: [UnsafeCell::new(0), UnsafeCell::new(0)],
                freed: AtomicUsize::new(0),
            });
            let queued = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
            let release = |task: &Task| {
                if task.state.drop_references(1) {
                    assert_eq!(task.freed.fetch_add(1, Ordering::Relaxed), 0);
                    // Nobody uses it any more.
                    task.told.iter().for_each(|told| told.with_mut(|_| ()));
                }
            };
            let wakers: Vec<_> = (0..2)
                .map(|index| {
                    let (task, queued) = (task.clone(), queued.clone());
                    loom::thread::spawn(move || {
                        // SAFETY: only this thread writes it, and readers come after the wake.
                        task.told[index].with_mut(|told| unsafe { *told = 1 });
                        if task.state.set_remote() {
                            // The queue, under its lock.
                            queued[index].store(true, Ordering::Release);
                        } else {
                            release(&task);
                        }
                    })
                })
                .collect();
            wakers.into_iter().for_each(|waker| waker.join().unwrap());
            let mut polled = false;
            for entry in queued.iter() {
                if entry.load(Ordering::Acquire) {
                    task.state.clear_remote();
                    polled = true;
                    release(&task);
                }
            }
            assert!(polled, "a wake adds an entry");
            for told in &task.told {
                // SAFETY: the wakes came before the poll.
                assert_eq!(told.with(|told| unsafe { *told }), 1);
            }
            assert_eq!(task.freed.load(Ordering::Relaxed), 0, "the list has a reference");
            release(&task);
            assert_eq!(task.freed.load(Ordering::Relaxed), 1);
        });
    }

    /// One wake while the entry of an earlier one is taken out: the poll sees what the wake had to tell,
    /// or a new entry was added.
    #[test]
    fn a_wake_during_a_poll_is_not_lost() {
        loom::model(|| {
            let state = Arc::new(State::new(2));
            assert!(state.set_remote());
            let told = Arc::new(AtomicBool::new(false));
            let waker = {
                let (state, told) = (state.clone(), told.clone());
                loom::thread::spawn(move || {
                    told.store(true, Ordering::Relaxed);
                    state.set_remote()
                })
            };
            state.clear_remote();
            let seen = told.load(Ordering::Relaxed);
            let is_queued_again = waker.join().unwrap();
            assert!(seen || is_queued_again);
        });
    }
}
