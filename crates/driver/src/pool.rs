//! A bounded pool of named threads for calls that block: file ops where the kernel has no
//! asynchronous form, and `spawn_blocking`.
//!
//! A job costs one lock to queue (a batch of them together) and one lock to finish, which also
//! takes the next job; a thread sleeps only when the queue is empty. What jobs yield waits in a
//! list until the driver takes it; the driver is notified when the list has as many entries as it
//! said it wants. Threads start when a job finds all others busy and stay until the pool goes.
//!
//! Calls of the user's never take the last thread, where there are several: a call may wait for
//! what an op has to do first.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::attempt::{Attempt, Outcome, attempt};
use crate::choice::Config;
use crate::clock::Instant;
use crate::cpus::Cpus;
use crate::notify::Notifier;
use crate::op::Op;
use crate::table::Key;

struct OpJob {
    key: Key,
    op: Op,
    which: Attempt,
}

type Call = Box<dyn FnOnce() + Send>;

enum Job {
    Op(OpJob),
    Call(Call),
}

struct State {
    ops: VecDeque<OpJob>,
    calls: VecDeque<Call>,
    outcomes: Vec<(Key, Outcome)>,
    idle_count: usize,
    /// Threads that have not ended.
    live_count: usize,
    /// Threads that run a call of the user's at this moment.
    calling_count: usize,
    stopping: bool,
}

impl State {
    /// The next job for a thread that has nothing to do. Ops first, as somebody's read waits for
    /// them; but one call at a time always has its turn.
    fn next_job(&mut self, calling_max: usize) -> Option<Job> {
        let may_call = self.calling_count < calling_max;
        if may_call
            && (self.calling_count == 0 || self.ops.is_empty())
            && let Some(call) = self.calls.pop_front()
        {
            return Some(Job::Call(call));
        }
        self.ops.pop_front().map(Job::Op)
    }
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    notifier: Arc<Notifier>,
    /// The most threads that may run calls of the user's.
    calling_max: usize,
    /// Notify the driver once so many outcomes wait for it.
    wanted_count: AtomicUsize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no user code runs under this lock")
    }
}

pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    threads_max: usize,
    name: String,
    cpus: Option<Cpus>,
    /// Ops to be queued at the next flush.
    staged: Vec<OpJob>,
    /// Ops handed in whose outcome was not taken yet.
    outstanding_count: usize,
}

impl Pool {
    pub(crate) fn new(config: &Config, notifier: Arc<Notifier>) -> Pool {
        let threads_max = config.threads_max;
        let state = State {
            ops: VecDeque::new(),
            calls: VecDeque::new(),
            outcomes: Vec::new(),
            idle_count: 0,
            live_count: 0,
            calling_count: 0,
            stopping: false,
        };
        let shared = Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            notifier,
            calling_max: threads_max.saturating_sub(1).max(1),
            wanted_count: AtomicUsize::new(1),
        };
        Pool {
            shared: Arc::new(shared),
            threads: Vec::new(),
            threads_max: threads_max.max(1),
            name: config.thread_name.clone(),
            cpus: config.pool_cpus,
            staged: Vec::new(),
            outstanding_count: 0,
        }
    }

    /// Threads that were started.
    pub(crate) fn thread_count(&self) -> usize {
        self.threads.len()
    }

    /// Ops handed in whose outcome was not taken yet.
    pub(crate) fn outstanding_count(&self) -> usize {
        self.outstanding_count
    }

    /// Stages an op until the next [`Pool::flush`].
    ///
    /// # Safety
    /// INV-BUF: what the op points at stays in place until its outcome was taken.
    pub(crate) unsafe fn stage(&mut self, key: Key, op: Op, which: Attempt) {
        self.outstanding_count += 1;
        self.staged.push(OpJob { key, op, which });
    }

    /// Queues a call at once: it may outlive any turn of the loop.
    pub(crate) fn call(&mut self, call: Call) -> io::Result<()> {
        self.shared.lock().calls.push_back(call);
        self.hand_over()
    }

    /// Hands the staged jobs to the threads. An error means that there is not even one thread.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.hand_over()
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let (wake_count, missing_count) = {
            let mut state = self.shared.lock();
            state.ops.extend(self.staged.drain(..));
            let queued = state.ops.len() + state.calls.len();
            (queued.min(state.idle_count), queued.saturating_sub(state.idle_count))
        };
        for _ in 0..wake_count {
            self.shared.work.notify_one();
        }
        let start_count = missing_count.min(self.threads_max - self.threads.len());
        for _ in 0..start_count {
            if let Err(error) = self.start_thread() {
                // Fewer threads than wished for still do the work.
                return if self.threads.is_empty() { Err(error) } else { Ok(()) };
            }
        }
        Ok(())
    }

    #[cold]
    fn start_thread(&mut self) -> io::Result<()> {
        let (shared, cpus) = (self.shared.clone(), self.cpus);
        let name = format!("{}-{}", self.name, self.threads.len());
        self.shared.lock().live_count += 1;
        let started = std::thread::Builder::new().name(name).spawn(move || {
            // Where that is not allowed any more it runs where it may.
            let _ = cpus.map(|cpus| cpus.keep_this_thread());
            work(&shared);
        });
        if started.is_err() {
            self.shared.lock().live_count -= 1;
        }
        self.threads.push(started?);
        Ok(())
    }

    /// From now on the driver is notified only when this many outcomes wait for it.
    pub(crate) fn want(&self, count: usize) {
        self.shared.wanted_count.store(count.max(1), Ordering::Relaxed);
    }

    /// Whether fewer outcomes wait than the driver wants. To be asked after the driver announced
    /// its sleep.
    pub(crate) fn is_behind(&self) -> bool {
        let wanted = self.shared.wanted_count.load(Ordering::Relaxed);
        self.outstanding_count == 0 || self.shared.lock().outcomes.len() < wanted
    }

    /// Moves all outcomes to `outcomes`, which is empty.
    pub(crate) fn take_outcomes(&mut self, outcomes: &mut Vec<(Key, Outcome)>) {
        debug_assert!(outcomes.is_empty());
        if self.outstanding_count == 0 {
            return;
        }
        std::mem::swap(outcomes, &mut self.shared.lock().outcomes);
        self.outstanding_count -= outcomes.len();
    }

    /// Takes an op back that no thread has begun. False if one has: its outcome will come.
    pub(crate) fn cancel(&mut self, key: Key) -> bool {
        let is_it = |job: &OpJob| job.key == key;
        let found = if let Some(at) = self.staged.iter().position(is_it) {
            self.staged.remove(at);
            true
        } else {
            let mut state = self.shared.lock();
            match state.ops.iter().position(is_it) {
                Some(at) => state.ops.remove(at).is_some(),
                None => false,
            }
        };
        self.outstanding_count -= usize::from(found);
        found
    }

    /// Ends the threads and drops what is queued. Waits until `deadline` for those that carry
    /// out ops, and so use the ops' memory; those that run calls of the user's end by themselves
    /// when the call returns. False if one was still at an op at the deadline.
    pub(crate) fn stop(&mut self, deadline: Instant) -> bool {
        let mut state = self.shared.lock();
        state.stopping = true;
        state.ops.clear();
        let dropped = std::mem::take(&mut state.calls);
        self.shared.work.notify_all();
        while state.live_count > state.calling_count {
            let left = deadline.saturating_duration_since(crate::clock::now());
            if left.is_zero() {
                // What is dropped may run the user's code, which may come back in.
                drop(state);
                return false;
            }
            state = self.shared.work.wait_timeout(state, left).expect("as in lock").0;
        }
        let have_ended = state.live_count == 0;
        drop(state);
        // A queued call of the user's is dropped, which runs the user's code.
        drop(dropped);
        if have_ended {
            // They are at their last instructions: with this, they and the notifier's descriptor
            // are gone for whoever counts.
            for thread in self.threads.drain(..) {
                let _ = thread.join();
            }
        }
        true
    }
}

/// The life of one thread.
fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        let Some(job) = state.next_job(shared.calling_max) else {
            if state.stopping {
                break;
            }
            state.idle_count += 1;
            state = shared.work.wait(state).expect("as in lock");
            state.idle_count -= 1;
            continue;
        };
        match job {
            Job::Op(OpJob { key, op, which }) => {
                drop(state);
                // SAFETY: INV-BUF, promised to `stage`.
                let outcome = unsafe { attempt(&op, which) };
                state = shared.lock();
                state.outcomes.push((key, outcome));
                if state.outcomes.len() >= shared.wanted_count.load(Ordering::Relaxed) {
                    drop(state);
                    shared.notifier.notify();
                    state = shared.lock();
                }
            }
            Job::Call(call) => {
                state.calling_count += 1;
                drop(state);
                // A panic is caught inside the call, which carries it to whoever waits.
                call();
                state = shared.lock();
                state.calling_count -= 1;
            }
        }
    }
    state.live_count -= 1;
    shared.work.notify_all();
}
