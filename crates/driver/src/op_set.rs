//! Several ops of one kind, started together and taken as they finish.
//!
//! Each op of the set has a waker of its own, which notes the op's place in a queue and wakes
//! whoever waits for the set: taking the next result polls one op, however many are in flight.
//! Those wakers are entries of one allocation that belongs to the set, so that starting, waking
//! and taking allocate nothing per op.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use crate::future::{OpFuture, Operation};

/// Ops that are started together, in one submission, and yield their results as they finish.
///
/// All of them are started when the set is first polled. Dropping the set cancels those that are
/// left.
pub struct OpSet<O: Operation> {
    /// By place; `None` once it has finished.
    ops: Vec<Option<OpFuture<O>>>,
    /// Those that have not yielded their result.
    left_count: usize,
    is_started: bool,
    /// Of ops that completed when they were started.
    outputs: VecDeque<(usize, O::Output)>,
    readiness: Rc<Readiness>,
}

/// Which ops of a set are to be polled, and who waits for the set.
struct Readiness {
    /// Places, in the order they were woken, each at most once.
    woken: RefCell<VecDeque<u32>>,
    waiter: Cell<Option<Waker>>,
    /// One for each op. What its waker points at.
    marks: Box<[Mark]>,
}

/// What wakes one op.
struct Mark {
    /// The readiness that owns the mark. Null until that has its place in memory.
    owner: Cell<*const Readiness>,
    place: u32,
    /// Whether it is among the woken.
    is_woken: Cell<bool>,
}

impl<O: Operation> OpSet<O> {
    /// A set of ops that were not started yet.
    ///
    /// # Panics
    /// With 2^32 ops or more.
    pub fn new(ops: impl IntoIterator<Item = OpFuture<O>>) -> OpSet<O> {
        let ops: Vec<_> = ops.into_iter().map(Some).collect();
        let readiness = Readiness::new(ops.len());
        OpSet { left_count: ops.len(), ops, is_started: false, outputs: VecDeque::new(), readiness }
    }

    /// How many ops have not yielded their result.
    pub fn left_count(&self) -> usize {
        self.left_count
    }

    /// The next op that has finished: its place in the order given to [`OpSet::new`], and its
    /// output. `None` when there is none left.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, O::Output)>> {
        if self.left_count == 0 {
            return Poll::Ready(None);
        }
        if !self.is_started {
            self.is_started = true;
            for place in 0..self.ops.len() {
                if let Some(output) = self.poll_op(place) {
                    self.outputs.push_back((place, output));
                }
            }
        }
        if let Some(first) = self.outputs.pop_front() {
            self.left_count -= 1;
            return Poll::Ready(Some(first));
        }
        while let Some(place) = self.readiness.next_woken() {
            if let Some(output) = self.poll_op(place) {
                self.left_count -= 1;
                return Poll::Ready(Some((place, output)));
            }
        }
        self.readiness.wait(cx.waker());
        Poll::Pending
    }

    /// The output of the op at `place`, if it finishes now.
    fn poll_op(&mut self, place: usize) -> Option<O::Output> {
        let op = self.ops[place].as_mut()?;
        let waker = self.readiness.waker(place);
        match Pin::new(op).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => {
                self.ops[place] = None;
                Some(output)
            }
            Poll::Pending => None,
        }
    }

    /// Puts an op in the place of one that has yielded its result. It is started by the next poll.
    ///
    /// # Panics
    /// If the place is taken or past the end.
    pub fn put(&mut self, place: usize, op: OpFuture<O>) {
        assert!(self.ops[place].is_none(), "place {place} has an op that is not finished");
        self.ops[place] = Some(op);
        self.left_count += 1;
        self.readiness.wake(place);
    }

    /// Asks for all ops that are left to end early: see [`OpFuture::cancel`].
    pub fn cancel(&mut self) {
        self.ops.iter_mut().flatten().for_each(OpFuture::cancel);
    }
}

impl<O: Operation> fmt::Debug for OpSet<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpSet").field("left_count", &self.left_count).finish_non_exhaustive()
    }
}

impl Readiness {
    fn new(count: usize) -> Rc<Readiness> {
        let count = u32::try_from(count).expect("fewer than 2^32 ops in a set");
        let owner = Cell::new(std::ptr::null());
        let mark = |place| Mark { owner: owner.clone(), place, is_woken: Cell::new(false) };
        let readiness = Rc::new(Readiness {
            woken: RefCell::new(VecDeque::new()),
            waiter: Cell::new(None),
            marks: (0..count).map(mark).collect(),
        });
        for mark in &readiness.marks {
            mark.owner.set(Rc::as_ptr(&readiness));
        }
        readiness
    }

    /// Notes that the op at `place` is to be polled.
    fn wake(&self, place: usize) {
        let mark = &self.marks[place];
        if !mark.is_woken.replace(true) {
            self.woken.borrow_mut().push_back(mark.place);
        }
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }

    /// The next op to be polled.
    fn next_woken(&self) -> Option<usize> {
        let place = self.woken.borrow_mut().pop_front()? as usize;
        self.marks[place].is_woken.set(false);
        Some(place)
    }

    /// Whom to wake with the next op.
    fn wait(&self, waiter: &Waker) {
        let current = self.waiter.take();
        let next = match current {
            Some(current) if current.will_wake(waiter) => current,
            // The waker that is replaced is dropped with nothing borrowed.
            _ => waiter.clone(),
        };
        self.waiter.set(Some(next));
    }

    /// What wakes the op at `place`, for as long as it is borrowed; its clones count.
    fn waker(self: &Rc<Self>, place: usize) -> impl Deref<Target = Waker> + use<> {
        let mark = &raw const self.marks[place];
        // SAFETY: the vtable's functions are for marks, and keep a waker's contract but that they
        // are for one thread. They never see another: a waker of this kind is lent to an op's
        // future only, which hands it to the driver, and neither of these is `Send`.
        ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(mark.cast(), &VTABLE)) })
    }
}

/// Each clone of a waker counts as an owner of the readiness that its mark belongs to.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, release);

/// # Safety
/// `mark` is what [`Readiness::waker`] made a waker of, and its readiness exists.
unsafe fn mark_of<'a>(mark: *const ()) -> &'a Mark {
    // SAFETY: the caller's contract; marks stay where they are.
    unsafe { &*mark.cast() }
}

unsafe fn clone(mark: *const ()) -> RawWaker {
    // SAFETY: the waker that is cloned keeps the readiness, or its set does; the pointer came out
    // of the `Rc`.
    unsafe { Rc::increment_strong_count(mark_of(mark).owner.get()) };
    RawWaker::new(mark, &VTABLE)
}

unsafe fn wake(mark: *const ()) {
    // SAFETY: as in `clone`; the waker's own share goes with it.
    unsafe {
        wake_by_ref(mark);
        release(mark);
    }
}

unsafe fn wake_by_ref(mark: *const ()) {
    // SAFETY: as in `clone`.
    let mark = unsafe { mark_of(mark) };
    // SAFETY: as in `clone`. A share of its own, since waking may run the user's code.
    let readiness = unsafe {
        Rc::increment_strong_count(mark.owner.get());
        Rc::from_raw(mark.owner.get())
    };
    readiness.wake(mark.place as usize);
}

unsafe fn release(mark: *const ()) {
    // SAFETY: as in `clone`; the share was counted there.
    unsafe { Rc::decrement_strong_count(mark_of(mark).owner.get()) };
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_op_is_woken_once_and_the_waiter_with_the_first() {
        let readiness = Readiness::new(3);
        let count = Arc::new(Count(AtomicUsize::new(0)));
        readiness.wait(&Waker::from(count.clone()));
        let wakers = [2, 0, 2].map(|place| (*readiness.waker(place)).clone());
        assert!(wakers[0].will_wake(&wakers[2]) && !wakers[0].will_wake(&wakers[1]));
        assert_eq!(Rc::strong_count(&readiness), 4);
        wakers.into_iter().for_each(Waker::wake);
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "it does not wait any more");
        assert_eq!([(); 3].map(|()| readiness.next_woken()), [Some(2), Some(0), None]);
        assert_eq!(Rc::strong_count(&readiness), 1);
    }

    #[test]
    fn a_waker_outlives_its_set() {
        let readiness = Readiness::new(1);
        let waker = (*readiness.waker(0)).clone();
        drop(readiness);
        waker.wake_by_ref();
        drop(waker.clone());
        drop(waker);
    }
}
