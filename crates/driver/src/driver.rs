//! The driver: one engine and the table of ops in flight, on one thread.
//!
//! A future starts its op here and finds its completion here; the loop calls [`Driver::turn`].
//! The user's code (wakers, destructors of buffers) runs only while nothing here is borrowed, so
//! that it may come back in.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::batching::Batching;
use crate::choice::{Chosen, Config, EngineName, StartError, start};
use crate::clock::Instant;
use crate::engine::{Engine, Refused, Submitted, Support, Wait};
use crate::lease::LeasePool;
#[cfg(feature = "metrics")]
use crate::metrics::DriverMetrics;
use crate::notify::Notifier;
use crate::op::{Completion, FixedIndex, Handle, Op, Opcode};
use crate::table::{Key, Orphan, Table};
use crate::trace::{self, OpSpan};

/// Ops that complete at submit do so at once only this often between two turns; then their tasks
/// have to let others run, so that a task whose ops never wait does not keep the core to itself.
const INLINE_PER_TURN: u32 = 128;

/// How an op went when it was started.
pub(crate) enum Started {
    /// It has completed.
    Done(Completion),
    /// It is in flight.
    Pending(Key),
}

/// One engine and its ops in flight. It belongs to the thread that made it.
///
/// Futures, handles and ops that were dropped in flight hold on to their driver, and it to the latter.
/// So whoever makes one ends it by [`Driver::shut_down`], as a runtime does; without it a driver with
/// such ops stays for ever, its ring and its threads too.
pub struct Driver {
    inner: RefCell<Inner>,
    notifier: Arc<Notifier>,
    engine_name: EngineName,
    choice: String,
    wants_nonblocking: bool,
    shutdown_time_max: Duration,
    /// Direct descriptors in use or asked for, and the most there may be.
    direct_count: Cell<u32>,
    direct_max: u32,
    /// Made when the first lease is asked for.
    leases: OnceCell<Rc<LeasePool>>,
    lease_len: u32,
    leases_max: u32,
}

struct Inner {
    /// `None` once the driver has shut down.
    engine: Option<Box<dyn Engine>>,
    table: Table,
    batching: Batching,
    /// Ops that completed at submit since the last turn.
    inline_count: u32,
    /// The notifier's, at the last turn.
    unpark_count: u32,
}

/// Wakes a driver that waits in [`Driver::turn`], from any thread.
#[derive(Clone)]
pub struct Unparker(Arc<Notifier>);

impl Unparker {
    /// Wakes the driver if it waits. Queue what it should look at before.
    pub fn unpark(&self) {
        self.0.unpark();
    }
}

impl fmt::Debug for Unparker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unparker")
    }
}

impl Driver {
    /// Starts the engine that the configuration asks for.
    pub fn new(config: &Config) -> Result<Driver, StartError> {
        let chosen = start(config)?;
        trace::started(chosen.name, &chosen.choice);
        Ok(Driver::from_chosen(chosen, config))
    }

    pub(crate) fn from_chosen(chosen: Chosen, config: &Config) -> Driver {
        let Chosen { name: engine_name, engine, choice } = chosen;
        let inner = Inner {
            batching: Batching::default(),
            inline_count: 0,
            unpark_count: 0,
            engine: Some(engine),
            table: Table::new(),
        };
        let engine = inner.engine.as_ref().expect("set above");
        let direct_max = engine.direct_max();
        Driver {
            notifier: engine.notifier().clone(),
            wants_nonblocking: engine.wants_nonblocking(),
            inner: RefCell::new(inner),
            engine_name,
            choice,
            shutdown_time_max: config.shutdown_time_max,
            direct_count: Cell::new(0),
            direct_max,
            leases: OnceCell::new(),
            lease_len: config.lease_len,
            leases_max: config.leases_max,
        }
    }

    /// The engine that runs.
    pub fn engine(&self) -> EngineName {
        self.engine_name
    }

    /// Why this engine runs, in one line: who chose it, or what is wrong with each engine that was
    /// passed over and what to do about it.
    pub fn choice(&self) -> &str {
        &self.choice
    }

    /// How the engine carries out `opcode` on this machine. `None` after the shutdown.
    pub fn support(&self, opcode: Opcode) -> Option<Support> {
        self.inner.borrow().engine.as_ref().map(|engine| engine.support(opcode))
    }

    /// Ops that were started and have not completed.
    pub fn in_flight_count(&self) -> usize {
        self.inner.borrow().table.in_flight_count()
    }

    /// Threads that the driver has started.
    pub fn thread_count(&self) -> usize {
        self.inner.borrow().engine.as_ref().map_or(0, |engine| engine.thread_count())
    }

    /// What the driver has done since it was made.
    #[cfg(feature = "metrics")]
    pub fn metrics(&self) -> DriverMetrics {
        let inner = self.inner.borrow();
        let meter = &inner.table.meter;
        DriverMetrics {
            turn_count: meter.turn_count,
            kernel_entry_count: inner.engine.as_ref().map_or(0, |engine| engine.entry_count()),
            in_flight_count: inner.table.in_flight_count(),
            in_flight_max: meter.in_flight_max,
            unpark_count: u64::from(self.notifier.unpark_count()),
            thread_count: inner.engine.as_ref().map_or(0, |engine| engine.thread_count()),
            leased_count: self.leased_count(),
            ops: meter.ops(),
        }
    }

    /// What wakes [`Driver::turn`] from another thread.
    pub fn unparker(&self) -> Unparker {
        Unparker(self.notifier.clone())
    }

    pub(crate) fn wants_nonblocking(&self) -> bool {
        self.wants_nonblocking
    }

    /// Starts an op. After the shutdown it completes with `-ECANCELED`.
    ///
    /// # Safety
    /// INV-BUF: what the op points at stays in place and untouched until the completion.
    #[inline]
    pub(crate) unsafe fn start(&self, op: Op, waker: &Waker) -> Started {
        // Made before anything is borrowed, and ended when nothing is.
        let span = OpSpan::of(&op, self.engine_name);
        let mut borrow = self.inner.borrow_mut();
        let inner = &mut *borrow;
        let Some(engine) = &mut inner.engine else {
            return self.refuse(borrow, span);
        };
        let key = inner.table.insert(op.is_bounded());
        inner.table.count(key, &op);
        // SAFETY: the caller's contract.
        match unsafe { engine.submit(key, &op) } {
            Submitted::Pending => {
                // A waker's clone is not to come back in here; that of a task never does.
                inner.table.set_waker(key, waker.clone());
                inner.table.set_span(key, span);
                Started::Pending(key)
            }
            Submitted::Done(completion) if inner.inline_count < INLINE_PER_TURN => {
                inner.inline_count += 1;
                inner.table.remove_ended(key);
                drop(borrow);
                span.end(completion);
                Started::Done(completion)
            }
            Submitted::Done(completion) => {
                inner.table.complete(key, completion);
                drop(borrow);
                span.end(completion);
                waker.wake_by_ref();
                Started::Pending(key)
            }
        }
    }

    /// How an op goes after the shutdown.
    #[cold]
    fn refuse(&self, borrow: RefMut<'_, Inner>, span: OpSpan) -> Started {
        drop(borrow);
        let completion = Completion::error(libc::ECANCELED);
        span.end(completion);
        Started::Done(completion)
    }

    /// Carries an op out here and now, where the engine does so and it need not wait. `None` if
    /// nothing was done: also when enough has been done between two turns.
    ///
    /// # Safety
    /// What the op points at is valid for the time of the call.
    #[inline]
    pub(crate) unsafe fn attempt(&self, op: &Op) -> Option<Completion> {
        let inner = &mut *self.inner.borrow_mut();
        let engine = inner.engine.as_mut()?;
        if inner.inline_count >= INLINE_PER_TURN {
            return None;
        }
        // SAFETY: the caller's contract.
        let completion = unsafe { engine.attempt(op) }?;
        inner.inline_count += 1;
        let stamp = inner.table.meter.begin(op, inner.table.in_flight_count());
        inner.table.meter.end(stamp);
        Some(completion)
    }

    /// Starts two ops as one submission, if the engine links these two: see
    /// [`Engine::submit_linked`]. Each has a slot of its own and is waited for, cancelled and
    /// abandoned by itself. `None` if nothing was started.
    ///
    /// # Safety
    /// As for [`Driver::start`], of both.
    pub(crate) unsafe fn start_linked(&self, ops: [&Op; 2], waker: &Waker) -> Option<[Key; 2]> {
        let mut borrow = self.inner.borrow_mut();
        let inner = &mut *borrow;
        let engine = inner.engine.as_mut()?;
        let keys = ops.map(|op| inner.table.insert(op.is_bounded()));
        // SAFETY: the caller's contract.
        if !unsafe { engine.submit_linked(keys, ops) } {
            keys.into_iter().for_each(|key| inner.table.remove(key));
            return None;
        }
        keys.into_iter().zip(ops).for_each(|(key, op)| inner.table.count(key, op));
        // As in `start`: a task's waker does not come back in here when it is cloned.
        keys.into_iter().for_each(|key| inner.table.set_waker(key, waker.clone()));
        drop(borrow);
        if cfg!(feature = "tracing") {
            // Only now is it known that they are started so. None of them ends but in a turn.
            let spans = ops.map(|op| OpSpan::of(op, self.engine_name));
            let table = &mut self.inner.borrow_mut().table;
            keys.into_iter().zip(spans).for_each(|(key, span)| table.set_span(key, span));
        }
        Some(keys)
    }

    /// Starts an op that may complete more than once. With `ready_max` completions that were not
    /// taken it is told to end.
    ///
    /// # Safety
    /// INV-BUF: what the op points at stays in place and untouched until the last completion.
    pub(crate) unsafe fn start_multi(&self, op: Op, waker: &Waker, ready_max: u32) -> Started {
        let span = OpSpan::of(&op, self.engine_name);
        let mut borrow = self.inner.borrow_mut();
        let inner = &mut *borrow;
        let Some(engine) = &mut inner.engine else {
            return self.refuse(borrow, span);
        };
        let key = inner.table.insert(false);
        inner.table.count(key, &op);
        // SAFETY: the caller's contract.
        match unsafe { engine.submit(key, &op) } {
            Submitted::Done(completion) if inner.inline_count < INLINE_PER_TURN => {
                inner.inline_count += 1;
                inner.table.remove_ended(key);
                drop(borrow);
                span.end(completion);
                Started::Done(completion)
            }
            Submitted::Done(completion) => {
                inner.table.set_multi(key, ready_max, Waker::noop().clone());
                inner.table.complete(key, completion);
                drop(borrow);
                span.end(completion);
                waker.wake_by_ref();
                Started::Pending(key)
            }
            Submitted::Pending => {
                inner.table.set_multi(key, ready_max, waker.clone());
                inner.table.set_span(key, span);
                Started::Pending(key)
            }
        }
    }

    /// The next completion of the multishot op `key`, or `waker` is woken when it is there. After
    /// the last one `key` is stale.
    #[inline]
    pub(crate) fn take_next(&self, key: Key, waker: &Waker) -> Option<Completion> {
        self.inner.borrow_mut().table.take_next(key, waker)
    }

    /// The stream of `key` is gone: cancels the op, whose memory `orphan` owns from here on.
    pub(crate) fn abandon_multi(&self, key: Key, mut orphan: Box<dyn Orphan>) {
        let mut inner = self.inner.borrow_mut();
        // What is taken here is disposed of at the end: by the orphan, which outlives it all.
        while let Some(completion) = inner.table.try_next(key) {
            if !completion.has_more() {
                drop(inner);
                orphan.finish(completion);
                return;
            }
            orphan.keep(completion);
        }
        if inner.engine.is_none() {
            // The shutdown gave up on this op: the kernel may use its memory for ever.
            std::mem::forget(orphan);
            return;
        }
        let wakers = inner.table.abandon_multi(key, orphan);
        let engine = inner.engine.as_mut().expect("checked above");
        engine.cancel(key);
        drop(inner);
        drop(wakers);
    }

    /// The completion of `key`, or `waker` is woken when it is there.
    #[inline]
    pub(crate) fn take(&self, key: Key, waker: &Waker) -> Option<Completion> {
        let taken = self.inner.borrow_mut().table.take(key, waker);
        // The waker that was replaced is dropped with nothing borrowed.
        taken.ok()
    }

    /// As [`Driver::take`], but with exactly this result `key` wakes nobody.
    #[inline]
    pub(crate) fn take_quietly(
        &self,
        key: Key,
        waker: &Waker,
        expected: i32,
    ) -> Option<Completion> {
        let taken = self.inner.borrow_mut().table.take_quietly(key, waker, expected);
        // As in `take`.
        taken.ok()
    }

    /// Asks for `key` to end early.
    pub(crate) fn cancel(&self, key: Key) {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(engine) = &mut inner.engine
            && inner.table.is_in_flight(key)
        {
            engine.cancel(key);
        }
    }

    /// The future of `key` is gone: cancels the op, whose memory `orphan` owns from here on.
    pub(crate) fn abandon(&self, key: Key, orphan: Box<dyn Orphan>) {
        let mut inner = self.inner.borrow_mut();
        if inner.engine.is_none() && inner.table.is_in_flight(key) {
            // The shutdown gave up on this op: the kernel may use its memory for ever.
            std::mem::forget(orphan);
            return;
        }
        let abandoned = inner.table.abandon(key, orphan);
        if abandoned.is_err() {
            let engine = inner.engine.as_mut().expect("checked above: ops in flight");
            engine.cancel(key);
        }
        drop(inner);
        if let Ok((orphan, completion)) = abandoned {
            orphan.finish(completion);
        }
    }

    /// Submits what was started, waits, and wakes those whose ops completed.
    ///
    /// With `wait` it waits until something completes, an [`Unparker`] is used or the deadline
    /// passes; but not if `has_work` says, after the wait was announced to other threads, that
    /// there is work by now.
    pub fn turn(
        &self,
        wait: bool,
        deadline: Option<Instant>,
        has_work: impl FnOnce() -> bool,
    ) -> io::Result<()> {
        let mut borrow = self.inner.borrow_mut();
        let inner = &mut *borrow;
        let Some(engine) = &mut inner.engine else {
            return Ok(());
        };
        let bounded_count = inner.table.bounded_count();
        let wait = if wait {
            self.notifier.announce_sleep();
            if has_work() || engine.has_outcomes() {
                Wait::No
            } else {
                let other_count = inner.table.in_flight_count() - bounded_count;
                let (batch_count, batch_time) = inner.batching.plan(bounded_count, other_count);
                Wait::Until { deadline, batch_count, batch_time }
            }
        } else {
            Wait::No
        };
        inner.inline_count = 0;
        inner.table.meter.count_turn();
        let result = engine.turn(wait, &mut inner.table);
        self.notifier.announce_awake();
        let bounded_left = inner.table.bounded_count();
        let unpark_count = self.notifier.unpark_count();
        if unpark_count != inner.unpark_count {
            inner.unpark_count = unpark_count;
            inner.batching.observe_notification();
        }
        if bounded_count > 0 {
            inner.batching.observe(bounded_count - bounded_left, bounded_left);
        }
        while let Some(key) = inner.table.take_unread() {
            if inner.table.is_in_flight(key)
                && let Some(engine) = &mut inner.engine
            {
                engine.cancel(key);
            }
        }
        let (mut wakers, orphans) = inner.table.take_finished();
        let ended_spans = inner.table.take_ended_spans();
        let mut unused = inner.table.take_unused();
        drop(borrow);
        ended_spans.end();
        wakers.drain(..).for_each(Waker::wake);
        if let Some(unused) = &mut unused {
            unused.clear();
        }
        for (orphan, completion) in orphans {
            orphan.finish(completion);
        }
        self.inner.borrow_mut().table.give_back(wakers, unused);
        result
    }

    /// Runs a call that blocks on a thread of the driver's pool. A panic must not leave it.
    pub fn spawn_call(&self, call: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        match &mut self.inner.borrow_mut().engine {
            Some(engine) => engine.spawn_call(call),
            None => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
        }
    }

    /// Whether the next op that makes a handle is to make a direct descriptor. It counts as in
    /// use from here on: see [`Driver::release_direct`].
    #[inline]
    pub(crate) fn reserve_direct(&self) -> bool {
        let may = self.direct_count.get() < self.direct_max;
        self.direct_count.set(self.direct_count.get() + u32::from(may));
        may
    }

    /// Whether an op that makes any number of handles may make direct descriptors: as long as
    /// there is room for many.
    pub(crate) fn has_room_for_direct(&self) -> bool {
        self.direct_count.get() < self.direct_max / 2
    }

    /// A direct descriptor was made without having been reserved.
    pub(crate) fn count_direct(&self) {
        self.direct_count.set(self.direct_count.get() + 1);
    }

    /// A direct descriptor that was reserved was not made.
    pub(crate) fn release_direct(&self) {
        self.direct_count.set(self.direct_count.get() - 1);
    }

    /// Closes a direct descriptor.
    pub(crate) fn close_direct(&self, index: u32) {
        self.release_direct();
        // A ring that is gone has closed it.
        if let Some(engine) = &mut self.inner.borrow_mut().engine {
            engine.close_direct(index);
        }
    }

    /// A file descriptor of the process for a direct one.
    pub(crate) fn install(&self, index: u32) -> io::Result<OwnedFd> {
        match &mut self.inner.borrow_mut().engine {
            Some(engine) => engine.install(index),
            None => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
        }
    }

    /// Buffers of the lease pool that are leased.
    pub fn leased_count(&self) -> usize {
        self.leases.get().map_or(0, |pool| pool.leased_count())
    }

    /// The pool of lease buffers.
    pub(crate) fn leases(&self) -> &Rc<LeasePool> {
        self.leases.get_or_init(|| {
            let pool = Rc::new(LeasePool::new(self.lease_len, self.leases_max));
            if let Some(engine) = &mut self.inner.borrow_mut().engine {
                engine.provide(&pool);
            }
            pool
        })
    }

    /// Whether the engine takes ops on a file that was opened past the page cache.
    pub(crate) fn admit(&self, handle: Handle) -> io::Result<()> {
        match &mut self.inner.borrow_mut().engine {
            Some(engine) => engine.admit(handle),
            None => Ok(()),
        }
    }

    /// `handle` is about to be closed or to leave the driver's care.
    pub(crate) fn forget(&self, handle: Handle) {
        if let Some(engine) = &mut self.inner.borrow_mut().engine {
            engine.forget(handle);
        }
    }

    /// Registers memory with the engine.
    ///
    /// # Safety
    /// The memory is mapped, for reading and writing.
    pub(crate) unsafe fn register_buffer(
        &self,
        start: *mut u8,
        len: usize,
    ) -> Result<FixedIndex, Refused> {
        match &mut self.inner.borrow_mut().engine {
            // SAFETY: the caller's contract.
            Some(engine) => unsafe { engine.register_buffer(start, len) },
            None => Err(Refused::Errno(libc::ECANCELED)),
        }
    }

    /// Takes a registration back. No op in flight names it.
    pub(crate) fn unregister_buffer(&self, index: FixedIndex) {
        if let Some(engine) = &mut self.inner.borrow_mut().engine {
            engine.unregister_buffer(index);
        }
    }

    /// Cancels every op, waits for the last completion and ends the engine (INV-EXIT). Futures
    /// that still exist find their ops completed; whatever is started later is cancelled at once.
    ///
    /// Past the configured time it gives up waiting: what the kernel or a thread may still touch
    /// is then leaked rather than freed. Returns how many ops that were.
    pub fn shut_down(&self) -> usize {
        let deadline = crate::clock::now() + self.shutdown_time_max;
        loop {
            {
                let inner = &mut *self.inner.borrow_mut();
                let Some(engine) = &mut inner.engine else {
                    return 0;
                };
                let keys: Vec<Key> = inner.table.in_flight().collect();
                if keys.is_empty() {
                    break;
                }
                for key in keys {
                    engine.cancel(key);
                }
            }
            // Destructors that run in a turn may start ops again: those are cancelled too.
            let before = self.in_flight_count();
            while self.in_flight_count() > 0 && crate::clock::now() < deadline {
                if self.turn(true, Some(deadline), || false).is_err() {
                    break;
                }
                if self.in_flight_count() > before {
                    break;
                }
            }
            if crate::clock::now() >= deadline {
                break;
            }
        }
        let mut engine = match self.inner.borrow_mut().engine.take() {
            Some(engine) => engine,
            None => return 0,
        };
        let leaked_count = self.in_flight_count();
        if !engine.stop(deadline) || leaked_count > 0 {
            // What is still in flight uses the rings and the orphans' memory.
            std::mem::forget(engine);
            self.inner.borrow_mut().table.leak_orphans();
        }
        leaked_count
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("engine", &self.engine_name)
            .field("in_flight_count", &self.in_flight_count())
            .finish()
    }
}
