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
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use self::state::State;
use crate::executor::{self, Shared};

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

/// What every task begins with, whatever its future.
struct Header {
    state: State,
    vtable: &'static VTable,
    shared: Arc<Shared>,
    /// The task's place in the executor's list. This and the flags below are used on the
    /// runtime's thread only.
    index: Cell<u32>,
    /// An entry of the local queue exists.
    scheduled: Cell<bool>,
    /// The future is gone: it is not polled any more.
    completed: Cell<bool>,
    /// The future is to be dropped instead of polled.
    aborted: Cell<bool>,
    /// The join handle exists and has not taken the output.
    joined: Cell<bool>,
}

struct VTable {
    /// Polls the future; true if it is gone.
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> bool,
    /// Drops the future and leaves the error to the join handle.
    abort: unsafe fn(NonNull<Header>),
    /// Moves the output to where the pointer points: a `Result<T, JoinError>`.
    take_output: unsafe fn(NonNull<Header>, *mut ()),
    /// Drops the output that the join handle did not take.
    drop_output: unsafe fn(NonNull<Header>),
    /// Frees the memory.
    free: unsafe fn(NonNull<Header>),
    /// What the future's type is called.
    type_name: fn() -> &'static str,
}

enum Stage<F: Future> {
    Future(F),
    Output(Result<F::Output, JoinError>),
    Gone,
}

#[repr(C)]
struct TaskCell<F: Future> {
    header: Header,
    /// Used on the runtime's thread only.
    joiner: UnsafeCell<Option<Waker>>,
    /// Used on the runtime's thread only.
    stage: UnsafeCell<Stage<F>>,
}

impl<F: Future> TaskCell<F> {
    const VTABLE: VTable = VTable {
        poll: Self::poll,
        abort: Self::abort,
        take_output: Self::take_output,
        drop_output: Self::drop_output,
        free: Self::free,
        type_name: std::any::type_name::<F>,
    };

    /// # Safety
    /// `header` is of a `TaskCell<F>` with a reference, here and in the functions below; `poll` and
    /// `abort` are called on the runtime's thread while the future is there.
    unsafe fn poll(header: NonNull<Header>, cx: &mut Context<'_>) -> bool {
        // SAFETY: the contract above.
        let cell = unsafe { header.cast::<TaskCell<F>>().as_ref() };
        let completed = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the only user of the stage: a poll does not poll its own task.
            let Stage::Future(future) = (unsafe { &mut *cell.stage.get() }) else {
                unreachable!("a completed task is not polled")
            };
            // SAFETY: the future stays in the cell until it is dropped there.
            let Poll::Ready(output) = unsafe { Pin::new_unchecked(future) }.poll(cx) else {
                return false;
            };
            // SAFETY: as above, and the borrow of the future is over.
            unsafe { drop_in_place_stage(cell.stage.get()) };
            cell.leave(Ok(output));
            true
        }));
        completed.unwrap_or_else(|payload| {
            // Of the future, which is still there, or of its destructor.
            cell.finish(Err(JoinError::Panicked(payload)));
            true
        })
    }

    /// # Safety
    /// As for `poll`.
    unsafe fn abort(header: NonNull<Header>) {
        // SAFETY: the contract.
        unsafe { header.cast::<TaskCell<F>>().as_ref() }.finish(Err(JoinError::Aborted));
    }

    /// Replaces the future by what the join handle will find.
    fn finish(&self, output: Result<F::Output, JoinError>) {
        // A destructor that panics must not keep the task from completing.
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the only user of the stage: the task is not being polled any more.
            unsafe { drop_in_place_stage(self.stage.get()) };
        }));
        let output = match dropped {
            Ok(()) => output,
            Err(payload) => Err(JoinError::Panicked(payload)),
        };
        self.leave(output);
    }

    /// Leaves the output to the join handle. The future is gone.
    #[inline]
    fn leave(&self, output: Result<F::Output, JoinError>) {
        if self.header.joined.get() {
            // SAFETY: the only user of the stage, which is `Gone`: nothing is overwritten.
            unsafe { self.stage.get().write(Stage::Output(output)) };
        } else {
            // Nobody will ask; a destructor that panics here has nobody to tell either.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(output)));
        }
    }

    /// # Safety
    /// Called on the runtime's thread, after the task completed; `to` has room for the output.
    unsafe fn take_output(header: NonNull<Header>, to: *mut ()) {
        // SAFETY: the contract: nobody else uses the stage any more.
        let stage = unsafe { &mut *header.cast::<TaskCell<F>>().as_ref().stage.get() };
        let Stage::Output(output) = std::mem::replace(stage, Stage::Gone) else {
            panic!("a task was joined twice")
        };
        // SAFETY: the contract.
        unsafe { to.cast::<Result<F::Output, JoinError>>().write(output) };
    }

    /// # Safety
    /// Called on the runtime's thread, after the task completed.
    unsafe fn drop_output(header: NonNull<Header>) {
        // SAFETY: the contract: nobody else uses the stage any more.
        unsafe { drop_in_place_stage(header.cast::<TaskCell<F>>().as_ref().stage.get()) };
    }

    /// # Safety
    /// Nobody has a reference any more, and the stage is `Gone`.
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: made by `Box::leak` in `Task::new`.
        drop(unsafe { Box::from_raw(header.cast::<TaskCell<F>>().as_ptr()) });
    }
}

/// Drops what is in the stage where it is, since a future may not be moved, and leaves `Gone`
/// even if that panics.
///
/// # Safety
/// Nobody else uses the stage.
unsafe fn drop_in_place_stage<F: Future>(stage: *mut Stage<F>) {
    struct Leave<F: Future>(*mut Stage<F>);
    impl<F: Future> Drop for Leave<F> {
        fn drop(&mut self) {
            // SAFETY: what was there has been dropped; writing does not drop it again.
            unsafe { self.0.write(Stage::Gone) };
        }
    }
    let _leave = Leave(stage);
    // SAFETY: the contract; the guard overwrites it.
    unsafe { std::ptr::drop_in_place(stage) };
}

/// Tells a task from others that exist at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TaskId(usize);

/// A reference to a task.
pub(crate) struct Task(NonNull<Header>);

impl Task {
    /// A task that is scheduled: references for the list and for the queue, and the join handle.
    pub(crate) fn new<F: Future + 'static>(
        future: F,
        shared: Arc<Shared>,
        index: u32,
    ) -> (Task, Task, JoinHandle<F::Output>) {
        let cell = Box::new(TaskCell {
            header: Header {
                state: State::new(3),
                vtable: &TaskCell::<F>::VTABLE,
                shared,
                index: Cell::new(index),
                scheduled: Cell::new(true),
                completed: Cell::new(false),
                aborted: Cell::new(false),
                joined: Cell::new(true),
            },
            joiner: UnsafeCell::new(None),
            stage: UnsafeCell::new(Stage::Future(future)),
        });
        let header = NonNull::from(Box::leak(cell)).cast::<Header>();
        let handle = JoinHandle { task: Task(header), output: PhantomData };
        (Task(header), Task(header), handle)
    }

    fn header(&self) -> &Header {
        // SAFETY: this reference keeps it alive.
        unsafe { self.0.as_ref() }
    }

    /// The task's place in the executor's list.
    pub(crate) fn index(&self) -> u32 {
        self.header().index.get()
    }

    /// The list moved the task.
    pub(crate) fn set_index(&self, index: u32) {
        self.header().index.set(index);
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
        if !header.completed.get() && !header.scheduled.replace(true) {
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

    /// Runs the task, which came out of the local queue. True if it completed and belongs out of
    /// the executor's list, which holds it as long as this runs.
    #[inline]
    pub(crate) fn run(self) -> bool {
        let task = ManuallyDrop::new(self);
        let header = task.header();
        header.scheduled.set(false);
        let (completed, kept) = if header.completed.get() {
            (false, true)
        } else if header.aborted.get() {
            // SAFETY: on the runtime's thread, and the future is there.
            unsafe { (header.vtable.abort)(task.0) };
            (true, true)
        } else {
            task.poll()
        };
        if completed {
            task.complete();
        }
        if kept {
            drop(ManuallyDrop::into_inner(task));
        }
        completed
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

    fn complete(&self) {
        self.header().completed.set(true);
        // SAFETY: on the runtime's thread, and nothing else borrows the waker.
        if let Some(joiner) = unsafe { (*self.joiner()).take() } {
            joiner.wake();
        }
    }

    /// Drops the future of a task, which is not running: its runtime ends.
    pub(crate) fn shut_down(&self) {
        if !self.header().completed.get() {
            // SAFETY: on the runtime's thread, and the future is there.
            unsafe { (self.header().vtable.abort)(self.0) };
            self.complete();
        }
    }

    /// Where the joiner's waker is: behind the header, whatever the future's type.
    fn joiner(&self) -> *mut Option<Waker> {
        // The layout up to the joiner does not depend on the future (repr(C)).
        #[repr(C)]
        struct Prefix {
            header: Header,
            joiner: UnsafeCell<Option<Waker>>,
        }
        // SAFETY: every task begins with these two fields.
        unsafe { self.0.cast::<Prefix>().as_ref().joiner.get() }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: this reference is given up.
        unsafe { drop_reference(self.0) };
    }
}

// SAFETY: a reference may be passed to another thread and dropped there: what runs the future,
// drops it or touches the output is called on the runtime's thread only (see the protocol).
unsafe impl Send for Task {}

/// # Safety
/// Gives up one reference.
unsafe fn drop_reference(header: NonNull<Header>) {
    // SAFETY: the reference keeps the header alive until it is given up.
    let (is_last, free) = unsafe {
        let free = header.as_ref().vtable.free;
        (header.as_ref().state.drop_reference(), free)
    };
    if is_last {
        // SAFETY: that was the last one. The future went when the task completed, or there is no
        // executor any more that would have kept it in its list.
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
        self.task.header().aborted.set(true);
        self.task.clone().wake();
    }

    pub(crate) fn id(&self) -> TaskId {
        self.task.id()
    }

    /// Whether the task has finished.
    pub fn is_finished(&self) -> bool {
        self.task.header().completed.get()
    }
}

impl<T> Unpin for JoinHandle<T> {}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_finished() {
            // SAFETY: on the runtime's thread: the handle cannot leave it. The old waker is
            // dropped after the new one is in place.
            let old = unsafe { (*self.task.joiner()).replace(cx.waker().clone()) };
            drop(old);
            return Poll::Pending;
        }
        self.task.header().joined.set(false);
        let mut output = MaybeUninit::<Self::Output>::uninit();
        // SAFETY: on the runtime's thread, after the task completed. The handle's type is that of
        // the task's output, and the call fills it in or panics.
        Poll::Ready(unsafe {
            (self.task.header().vtable.take_output)(self.task.0, output.as_mut_ptr().cast());
            output.assume_init()
        })
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let header = self.task.header();
        // SAFETY: on the runtime's thread, as in `poll`.
        drop(unsafe { (*self.task.joiner()).take() });
        if header.joined.replace(false) && header.completed.get() {
            // SAFETY: on the runtime's thread, after the task completed.
            unsafe { (header.vtable.drop_output)(self.task.0) };
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

    #[test]
    fn an_idle_task_costs_at_most_64_bytes_beyond_its_future() {
        let beyond = size_of::<TaskCell<std::future::Ready<[u8; 64]>>>()
            - size_of::<Stage<std::future::Ready<[u8; 64]>>>();
        assert!(beyond <= 64, "{beyond} bytes");
    }
}
