//! The task cell: a future, its state, and who waits for it, in one allocation.
//!
//! # Protocol
//! A task belongs to its runtime's thread. Only there are its future, its output and its flags
//! used, without atomic operations. Other threads hold references (in wakers) and wake.
//!
//! The one atomic word counts references: the executor's list has one, so has each entry of a
//! queue, the join handle, and each waker. The entry's goes on to the first waker that is cloned
//! while the task is polled, which nearly always is the one that is woken next: so counting costs
//! nothing then. Whoever lets the last one go frees the memory. That
//! may be any thread, so the future and the output must be gone by then: the executor drops the
//! future on its own thread when it completes, is aborted, or when the runtime ends, and the join
//! handle, which cannot leave the thread, takes or drops the output.
//!
//! A wake on the runtime's thread sets `scheduled` and puts the task in the local queue; a wake
//! elsewhere sets REMOTE in the atomic word and puts it in the runtime's remote queue. Only who
//! sets a flag adds an entry, and whoever takes an entry out clears its flag first, so that a wake
//! from then on adds a new one. A task may be in both queues, and is then polled once too often.

mod state;

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use self::state::State;
use crate::executor::{self, Shared};
use crate::trace::Traced;

/// Why a task has no output.
pub enum JoinError {
    /// It was aborted, or its runtime ended.
    Aborted,
    /// It panicked with this payload.
    Panicked(Box<dyn Any + Send>),
}

impl JoinError {
    /// Whether the task was aborted.
    pub fn is_aborted(&self) -> bool {
        matches!(self, JoinError::Aborted)
    }

    /// Goes on with the task's panic on this task; an abort becomes a panic that says so.
    pub fn resume(self) -> ! {
        match self {
            JoinError::Aborted => panic!("the task was aborted"),
            JoinError::Panicked(payload) => std::panic::resume_unwind(payload),
        }
    }
}

impl std::fmt::Debug for JoinError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for JoinError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JoinError::Aborted => f.write_str("the task was aborted"),
            JoinError::Panicked(payload) => {
                let message = payload
                    .downcast_ref::<&str>()
                    .copied()
                    .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                write!(f, "the task panicked: {}", message.unwrap_or("(no message)"))
            }
        }
    }
}

impl std::error::Error for JoinError {}

thread_local! {
    /// The task that is being polled, as long as the reference that its queue entry had is there
    /// to be taken by a waker. Only to be compared.
    static SPARE: Cell<*const Header> = const { Cell::new(std::ptr::null()) };
}

/// What every task begins with, whatever its future: 40 bytes.
#[repr(C)]
struct Header {
    state: State,
    /// The task's place in the executor's list above the flags. Used on the runtime's thread only.
    place_and_flags: Cell<u32>,
    vtable: &'static VTable,
    shared: Arc<Shared>,
    /// Used on the runtime's thread only.
    slot: UnsafeCell<Slot>,
}

/// An entry of the local queue exists.
const SCHEDULED: u32 = 1;
/// The future is gone: it is not polled any more.
const COMPLETED: u32 = 1 << 1;
/// The future is to be dropped instead of polled; of a completed task, that it was.
const ABORTED: u32 = 1 << 2;
/// The join handle exists and has not taken the output.
const JOINED: u32 = 1 << 3;
const FLAG_BITS: u32 = 4;

/// So many tasks are there at most, on one core.
pub(crate) const TASKS_MAX: usize = 1 << (u32::BITS - FLAG_BITS);

/// For who waits for the task until it has completed, and for how it panicked, if it did, from then
/// on.
#[repr(C)]
union Slot {
    joiner: ManuallyDrop<Option<Waker>>,
    panic: ManuallyDrop<Option<Box<dyn Any + Send>>>,
}

impl Header {
    fn has(&self, flag: u32) -> bool {
        self.place_and_flags.get() & flag != 0
    }

    fn set(&self, flag: u32) {
        self.place_and_flags.set(self.place_and_flags.get() | flag);
    }

    fn clear(&self, flag: u32) {
        self.place_and_flags.set(self.place_and_flags.get() & !flag);
    }

    /// Whom to wake when the task has completed, in place of who that was.
    ///
    /// # Safety
    /// On the runtime's thread, while the task has not completed.
    #[inline]
    unsafe fn replace_joiner(&self, joiner: Option<Waker>) -> Option<Waker> {
        // SAFETY: the contract: the slot has a waker, and nothing else borrows it.
        unsafe { std::mem::replace(&mut *(*self.slot.get()).joiner, joiner) }
    }

    /// How the task has panicked, if it did.
    ///
    /// # Safety
    /// On the runtime's thread, after the task has completed.
    #[inline]
    unsafe fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        // SAFETY: the contract: the slot has a panic, and nothing else borrows it.
        unsafe { (*(*self.slot.get()).panic).take() }
    }

    /// The future is gone, its output in place if somebody is to take it: wakes who waits for that.
    ///
    /// # Safety
    /// On the runtime's thread, once.
    #[inline]
    unsafe fn complete(&self, panic: Option<Box<dyn Any + Send>>) {
        // SAFETY: the contract.
        let joiner = unsafe { self.replace_joiner(None) };
        self.set(COMPLETED);
        // SAFETY: on the runtime's thread; what the slot had was taken out.
        unsafe { (*self.slot.get()).panic = ManuallyDrop::new(panic) };
        if let Some(joiner) = joiner {
            joiner.wake();
        }
    }
}

struct VTable {
    /// Polls the future; true if it is gone.
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> bool,
    /// Drops the future.
    abort: unsafe fn(NonNull<Header>),
    /// Frees the memory.
    free: unsafe fn(NonNull<Header>),
    /// From the header to the output.
    output_offset: usize,
    /// What the future's type is called.
    type_name: fn() -> &'static str,
}

/// The future, and then its output if the join handle is to take one. Nothing says which: the flags of
/// the header do, and while a task is polled, the poll.
#[repr(C)]
union Body<F: Future> {
    future: ManuallyDrop<Traced<F>>,
    output: ManuallyDrop<F::Output>,
}

#[repr(C)]
struct TaskCell<F: Future> {
    header: Header,
    /// Used on the runtime's thread only.
    body: UnsafeCell<Body<F>>,
}

impl<F: Future> TaskCell<F> {
    const VTABLE: VTable = VTable {
        poll: Self::poll,
        abort: Self::abort,
        free: Self::free,
        output_offset: std::mem::offset_of!(TaskCell<F>, body),
        type_name: std::any::type_name::<F>,
    };

    /// # Safety
    /// `header` is of a `TaskCell<F>` with a reference, here and in the functions below; `poll` and
    /// `abort` are called on the runtime's thread while the future is there.
    unsafe fn poll(header: NonNull<Header>, cx: &mut Context<'_>) -> bool {
        // SAFETY: the contract above.
        let cell = unsafe { header.cast::<TaskCell<F>>().as_ref() };
        let mut is_there = true;
        let completed = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the only user of the body, which has the future: a poll does not poll its own
            // task. The future stays in the cell until it is dropped there.
            let polled = unsafe { Pin::new_unchecked(&mut *(*cell.body.get()).future) }.poll(cx);
            let Poll::Ready(output) = polled else { return false };
            is_there = false;
            // SAFETY: as above, and the borrow of the future is over; it is dropped once.
            unsafe { cell.drop_future() };
            if cell.header.has(JOINED) {
                // SAFETY: the only user of the body, of which nothing is left.
                unsafe { (*cell.body.get()).output = ManuallyDrop::new(output) };
            }
            true
        }));
        match completed {
            Ok(false) => return false,
            Ok(true) => {
                // An abort from inside comes too late.
                cell.header.clear(ABORTED);
                // SAFETY: on the runtime's thread, after the only poll that completed.
                unsafe { cell.header.complete(None) };
            }
            // SAFETY: the future is there if its poll has panicked, and not if its destructor has, or
            // that of an output that nobody takes.
            Err(payload) => unsafe { cell.fail(is_there, payload) },
        }
        true
    }

    /// Completes a task that has panicked.
    ///
    /// # Safety
    /// On the runtime's thread, once; `is_there` says whether the future is.
    #[cold]
    unsafe fn fail(&self, is_there: bool, mut payload: Box<dyn Any + Send>) {
        if is_there {
            // A destructor that panics must not keep the task from completing.
            // SAFETY: the contract; it is dropped once.
            let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { self.drop_future() }));
            if let Err(second) = dropped {
                drop_quietly(std::mem::replace(&mut payload, second));
            }
        }
        self.header.clear(ABORTED);
        if self.header.has(JOINED) {
            // SAFETY: the contract.
            unsafe { self.header.complete(Some(payload)) };
        } else {
            drop_quietly(payload);
            // SAFETY: the contract.
            unsafe { self.header.complete(None) };
        }
    }

    /// # Safety
    /// As for `poll`.
    unsafe fn abort(header: NonNull<Header>) {
        // SAFETY: the contract.
        let cell = unsafe { header.cast::<TaskCell<F>>().as_ref() };
        cell.header.set(ABORTED);
        // SAFETY: the only user of the body: the task is not being polled. It is dropped once.
        match catch_unwind(AssertUnwindSafe(|| unsafe { cell.drop_future() })) {
            // SAFETY: on the runtime's thread, once.
            Ok(()) => unsafe { cell.header.complete(None) },
            // SAFETY: as above; the future is gone.
            Err(payload) => unsafe { cell.fail(false, payload) },
        }
    }

    /// Drops the future where it is, since it may not be moved. It is gone even if that panics.
    ///
    /// # Safety
    /// On the runtime's thread; the body has the future, and nothing borrows it.
    #[inline]
    unsafe fn drop_future(&self) {
        // SAFETY: the contract.
        unsafe { ManuallyDrop::drop(&mut (*self.body.get()).future) };
    }

    /// # Safety
    /// Nobody has a reference any more, and neither future nor output is there.
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: made by `Box::leak` in `Task::new`.
        drop(unsafe { Box::from_raw(header.cast::<TaskCell<F>>().as_ptr()) });
    }
}

/// Drops what nobody will ask for; a destructor that panics has nobody to tell either.
fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        std::mem::forget(payload);
    }
}

/// Tells a task from others that exist at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TaskId(usize);

/// A reference to a task.
pub(crate) struct Task(NonNull<Header>);

impl Task {
    /// A task that is scheduled: references for the list and for the queue, and the join handle. `index`
    /// is its place in the list, less than [`TASKS_MAX`].
    pub(crate) fn new<F: Future + 'static>(
        future: Traced<F>,
        shared: Arc<Shared>,
        index: u32,
    ) -> (Task, Task, JoinHandle<F::Output>) {
        let cell = Box::new(TaskCell {
            header: Header {
                state: State::new(3),
                place_and_flags: Cell::new(index << FLAG_BITS | SCHEDULED | JOINED),
                vtable: &TaskCell::<F>::VTABLE,
                shared,
                slot: UnsafeCell::new(Slot { joiner: ManuallyDrop::new(None) }),
            },
            body: UnsafeCell::new(Body { future: ManuallyDrop::new(future) }),
        });
        let header = NonNull::from(Box::leak(cell)).cast::<Header>();
        let handle = JoinHandle { task: Task(header), output: PhantomData };
        (Task(header), Task(header), handle)
    }

    fn header(&self) -> &Header {
        // SAFETY: this reference keeps it alive.
        unsafe { self.0.as_ref() }
    }

    /// The runtime it belongs to.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.header().shared
    }

    /// Tells it from other tasks that exist at the same time.
    pub(crate) fn id(&self) -> TaskId {
        TaskId(self.0.as_ptr().addr())
    }

    /// What its future's type is called.
    pub(crate) fn type_name(&self) -> &'static str {
        (self.header().vtable.type_name)()
    }

    /// Takes the task in that came out of the remote queue, on the runtime's thread: it goes on in
    /// the local one.
    pub(crate) fn arrive(self) {
        self.header().state.clear_remote();
        self.schedule();
    }

    /// Puts the task in the local queue if it is not there, on the runtime's thread.
    #[inline]
    fn schedule(self) {
        let header = self.header();
        if !header.has(COMPLETED | SCHEDULED) {
            header.set(SCHEDULED);
            // The future begins in this line of memory or the next.
            prefetch_at(self.0.as_ptr().cast_const().wrapping_byte_add(64).cast());
            executor::push_local(self);
        }
    }

    /// Wakes the task, from any thread.
    #[inline]
    fn wake(self) {
        if executor::is_current(&self.header().shared) {
            self.schedule();
        } else {
            self.wake_remotely();
        }
    }

    #[inline(never)]
    fn wake_remotely(self) {
        if self.header().state.set_remote() {
            executor::push_remote(self);
        }
    }

    /// Runs the task, which came out of the local queue and is in the executor's list. If it completes,
    /// its reference in that list has to go.
    #[inline]
    pub(crate) fn run(self) -> Option<Completed> {
        let task = ManuallyDrop::new(self);
        let header = task.header();
        header.clear(SCHEDULED);
        let (completed, kept) =
            if header.has(COMPLETED | ABORTED) { (task.run_unpolled(), true) } else { task.poll() };
        if completed {
            return Some(Completed { task: task.0, has_entry: kept });
        }
        if kept {
            drop(ManuallyDrop::into_inner(task));
        }
        None
    }

    /// As `run`, of a task that is not to be polled: whether it completes.
    #[cold]
    fn run_unpolled(&self) -> bool {
        let header = self.header();
        let aborts = !header.has(COMPLETED);
        if aborts {
            // SAFETY: on the runtime's thread, and the future is there.
            unsafe { (header.vtable.abort)(self.0) };
        }
        aborts
    }

    /// Polls the future. Whether it is gone, and whether the reference of the queue's entry is
    /// still there: it goes to the first waker that is cloned meanwhile.
    #[inline]
    fn poll(&self) -> (bool, bool) {
        let this = self.0.as_ptr().cast_const();
        let outer = SPARE.replace(this);
        // SAFETY: the waker borrows the reference of the executor's list; it is not dropped.
        let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw_waker(self.0)) });
        let mut cx = Context::from_waker(&waker);
        // SAFETY: on the runtime's thread, and the future is there. No panic comes out of it.
        let completed = unsafe { (self.header().vtable.poll)(self.0, &mut cx) };
        (completed, SPARE.replace(outer) == this)
    }

    /// Drops the future of a task, which is not running: its runtime ends.
    pub(crate) fn shut_down(&self) {
        if !self.header().has(COMPLETED) {
            // SAFETY: on the runtime's thread, and the future is there.
            unsafe { (self.header().vtable.abort)(self.0) };
        }
    }
}

/// A task that has completed just now, with the reference that its queue entry had, unless a waker
/// took it.
#[must_use]
pub(crate) struct Completed {
    task: NonNull<Header>,
    has_entry: bool,
}

impl Completed {
    /// The task's place in the executor's list.
    #[inline]
    pub(crate) fn index(&self) -> usize {
        // SAFETY: the list has a reference.
        (unsafe { self.task.as_ref() }.place_and_flags.get() >> FLAG_BITS) as usize
    }

    /// Gives up the references of the list and of the queue's entry.
    #[inline]
    pub(crate) fn release(self, listed: Task) {
        debug_assert!(listed.0 == self.task, "the list has it at its place");
        std::mem::forget(listed);
        // SAFETY: these are given up.
        unsafe { drop_references(self.task, 1 + u32::from(self.has_entry)) };
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: this reference is given up.
        unsafe { drop_references(self.0, 1) };
    }
}

// SAFETY: a reference may be passed to another thread and dropped there: what runs the future,
// drops it or touches the output is called on the runtime's thread only (see the protocol).
unsafe impl Send for Task {}

/// # Safety
/// Gives up so many references.
#[inline]
unsafe fn drop_references(header: NonNull<Header>, count: u32) {
    // SAFETY: the references keep the header alive until they are given up.
    let (is_last, free) = unsafe {
        let free = header.as_ref().vtable.free;
        (header.as_ref().state.drop_references(count), free)
    };
    if is_last {
        // SAFETY: that was the last one. The future went when the task completed, or there is no
        // executor any more that would have kept it in its list; the output, with the join handle.
        unsafe { free(header) };
    }
}

impl Clone for Task {
    #[inline]
    fn clone(&self) -> Task {
        // The thread polls the task, and its queue entry's reference is to spare.
        if SPARE.get() == self.0.as_ptr().cast_const() {
            SPARE.set(std::ptr::null());
        } else {
            self.header().state.add_reference();
        }
        Task(self.0)
    }
}

const WAKER: RawWakerVTable = RawWakerVTable::new(
    |data| raw_waker(ManuallyDrop::new((*borrowed(data)).clone()).0),
    |data| Task(header_of(data)).wake(),
    |data| (*borrowed(data)).clone().wake(),
    |data| drop(Task(header_of(data))),
);

/// Has the processor fetch what a wake by this waker needs first, if it is a task's. Many are fetched at
/// the same time, where wakes one after the other would each wait for memory.
#[inline]
pub(crate) fn prefetch(waker: &Waker) {
    prefetch_at(waker.data());
}

#[inline]
fn prefetch_at(address: *const ()) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: nothing is read, whatever the address; every x86-64 has the instruction.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The task of a waker that keeps its reference.
fn borrowed(data: *const ()) -> ManuallyDrop<Task> {
    ManuallyDrop::new(Task(header_of(data)))
}

fn header_of(data: *const ()) -> NonNull<Header> {
    NonNull::new(data.cast_mut().cast()).expect("a waker's data is its task")
}

fn raw_waker(header: NonNull<Header>) -> RawWaker {
    RawWaker::new(header.as_ptr().cast(), &WAKER)
}

/// Waits for a task and takes its output. Dropping it lets the task run on alone.
///
/// A panic of the task comes as [`JoinError::Panicked`].
#[must_use = "a dropped handle leaves the task to itself; say so with `drop`"]
pub struct JoinHandle<T> {
    task: Task,
    /// Bound to the runtime's thread, as the output is.
    output: PhantomData<(T, *mut ())>,
}

impl<T> JoinHandle<T> {
    /// Has the task's future dropped the next time it is the task's turn; a task that has
    /// finished by then keeps its output.
    pub fn abort(&self) {
        if !self.is_finished() {
            self.task.header().set(ABORTED);
            self.task.clone().wake();
        }
    }

    pub(crate) fn id(&self) -> TaskId {
        self.task.id()
    }

    /// Whether the task has finished.
    pub fn is_finished(&self) -> bool {
        self.task.header().has(COMPLETED)
    }
}

impl<T> Unpin for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// Where the output is, once the task has completed.
    fn output(&self) -> *mut T {
        let offset = self.task.header().vtable.output_offset;
        // SAFETY: within the task's cell, of which the reference has all. The handle's type is that
        // of the task's output.
        unsafe { self.task.0.byte_add(offset).as_ptr().cast() }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let header = self.task.header();
        if !header.has(COMPLETED) {
            // SAFETY: on the runtime's thread: the handle cannot leave it. The old waker is
            // dropped after the new one is in place.
            let old = unsafe { header.replace_joiner(Some(cx.waker().clone())) };
            drop(old);
            return Poll::Pending;
        }
        assert!(header.has(JOINED), "a task was joined twice");
        header.clear(JOINED);
        // SAFETY: on the runtime's thread, as above, after the task completed.
        if let Some(payload) = unsafe { header.take_panic() } {
            return Poll::Ready(Err(JoinError::Panicked(payload)));
        }
        if header.has(ABORTED) {
            return Poll::Ready(Err(JoinError::Aborted));
        }
        // SAFETY: on the runtime's thread; the task completed with an output for this handle, which
        // takes it once: the flag was there.
        Poll::Ready(Ok(unsafe { self.output().read() }))
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let header = self.task.header();
        let was_joined = header.has(JOINED);
        if !was_joined {
            // The output was taken.
            return;
        }
        header.clear(JOINED);
        if !header.has(COMPLETED) {
            // SAFETY: on the runtime's thread, as in `poll`.
            drop(unsafe { header.replace_joiner(None) });
        } else if was_joined {
            // SAFETY: on the runtime's thread, after the task completed.
            if let Some(payload) = unsafe { header.take_panic() } {
                drop(payload);
            } else if !header.has(ABORTED) {
                // SAFETY: as in `poll`: the output is there, and goes here.
                unsafe { self.output().drop_in_place() };
            }
        }
    }
}

impl<T> std::fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_finished() { "JoinHandle(finished)" } else { "JoinHandle(running)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the allocator and the executor's list add is 24 bytes at most.
    #[test]
    fn an_idle_task_costs_40_bytes_beyond_its_future() {
        use std::future::{Pending, Ready};
        fn beyond<F: Future>(output: usize) -> usize {
            size_of::<TaskCell<F>>() - size_of::<Traced<F>>().max(output)
        }
        assert_eq!(beyond::<Pending<()>>(0), 40);
        assert_eq!(beyond::<Ready<[u64; 8]>>(64), 40);
        assert_eq!(beyond::<Pending<[u64; 4]>>(32), 40, "the output takes the future's place");
    }
}
