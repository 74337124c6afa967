//! The executor: the tasks of one core, their queue, and the loop that alternates between running
//! them and the driver.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use omniring_driver::clock::{Instant, now};
use omniring_driver::{Call, Driver, Unparker};

use crate::cores::{self, Peers, Post};
use crate::hogs::{HogWatch, Hogs};
use crate::meter::Meter;
#[cfg(feature = "metrics")]
use crate::metrics::Metrics;
use crate::net::Pipes;
use crate::sharded::Shards;
use crate::task::{Completed, JoinHandle, TASKS_MAX, Task};
use crate::time::wheel::Wheel;
use crate::trace::in_task_span;

/// Tasks run between two looks at I/O and timers, so that a crowd of tasks that never rest does
/// not keep completions waiting.
const TASKS_PER_TURN: usize = 128;

thread_local! {
    /// The runtime that this thread is in: whoever has entered it leaves it. Without a destructor, as the
    /// others, so that to use it costs no look at whether it has run.
    static CURRENT: RefCell<ManuallyDrop<Option<Rc<Core>>>> =
        const { RefCell::new(ManuallyDrop::new(None)) };

    /// Which runtime that is: only to be compared. It is there for wakers that are used in destructors at
    /// the thread's end.
    static OWNER: Cell<*const Shared> = const { Cell::new(std::ptr::null()) };

    /// The queue of the runtime that the thread is in; outside of one it is empty and has no memory.
    static QUEUE: RefCell<ManuallyDrop<VecDeque<Task>>> =
        const { RefCell::new(ManuallyDrop::new(VecDeque::new())) };
}

/// What other threads may use of a runtime.
pub(crate) struct Shared {
    /// Tasks that other threads woke.
    remote: Mutex<Remote>,
    has_remote: AtomicBool,
    /// Whether the future of `block_on` is to be polled.
    main_woken: AtomicBool,
    unparker: Unparker,
}

struct Remote {
    woken: Vec<Task>,
    calls: Vec<Call>,
    /// The runtime has ended: nobody will look.
    closed: bool,
}

impl Shared {
    fn remote(&self) -> MutexGuard<'_, Remote> {
        self.remote.lock().expect("nothing panics under this lock")
    }

    /// Wakes the runtime's thread if it waits. Queue what it should look at before.
    pub(crate) fn unpark(&self) {
        self.unparker.unpark();
    }

    fn has_work(&self) -> bool {
        self.has_remote.load(SeqCst) || self.main_woken.load(SeqCst)
    }
}

/// One runtime's parts, on its thread.
pub(crate) struct Core {
    pub(crate) driver: Rc<Driver>,
    pub(crate) timers: RefCell<Wheel>,
    /// Between files and sockets.
    pub(crate) pipes: Pipes,
    /// Room for the wakers of timers that fire.
    due: Cell<Vec<Waker>>,
    shared: Arc<Shared>,
    /// Tasks to run, while the thread is not in the runtime.
    queue: RefCell<VecDeque<Task>>,
    /// Who has yielded, and goes on after the next turn.
    yielded: RefCell<Vec<Waker>>,
    /// Every task that has not completed.
    tasks: RefCell<Tasks>,
    /// To and from the other cores, if there are some.
    post: OnceCell<Post>,
    /// This core as the only one, if somebody asked.
    alone: OnceCell<Arc<Peers>>,
    /// This core's values of those that each core has one of.
    shards: RefCell<Shards>,
    meter: Meter,
    /// Where tasks that keep the core too long are to be reported.
    hogs: Option<Hogs>,
}

/// A task keeps its place, so that when one goes nobody else's memory is touched.
#[derive(Default)]
struct Tasks {
    list: Vec<Option<Task>>,
    /// Places of the list that nobody has.
    free: Vec<u32>,
    closed: bool,
}

impl Tasks {
    fn count(&self) -> usize {
        self.list.len() - self.free.len()
    }

    /// A place, which is the list's next one or is free.
    #[inline]
    fn place(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let place = self.list.len();
            assert!(place < TASKS_MAX, "fewer than 2^28 tasks");
            self.list.push(None);
            place as u32
        })
    }
}

/// The runtime that the calling code runs in.
///
/// # Panics
/// Outside of a runtime.
pub(crate) fn current() -> Rc<Core> {
    CURRENT.with_borrow(|current| match &**current {
        Some(core) => core.clone(),
        None => no_runtime(),
    })
}

/// Adds a task to the runtime that the calling code runs in: `current().spawn`, for less.
///
/// # Panics
/// Outside of a runtime.
#[inline]
pub(crate) fn spawn_current<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    let (handle, refused) = CURRENT.with_borrow(|current| match &**current {
        Some(core) => core.add(future, None, true),
        None => no_runtime(),
    });
    if let Some(task) = refused {
        task.shut_down();
    }
    handle
}

#[cold]
#[inline(never)]
fn no_runtime() -> ! {
    panic!("this needs a runtime: call it inside of Runtime::block_on")
}

/// The runtime that the calling code runs in, if it does.
pub(crate) fn try_current() -> Option<Rc<Core>> {
    CURRENT.with_borrow(|current| Option::clone(current))
}

/// Whether the calling code runs in the runtime of `shared`, and so on its thread.
#[inline]
pub(crate) fn is_current(shared: &Arc<Shared>) -> bool {
    OWNER.get() == Arc::as_ptr(shared)
}

/// Wakes after the next turn of the runtime that the calling code runs in; without one, now.
pub(crate) fn wake_after_turn(waker: &Waker) {
    // Cloned while nothing is borrowed: a waker may be the user's code.
    let waker = waker.clone();
    let refused = CURRENT.with_borrow(|current| match &**current {
        Some(core) => {
            core.yielded.borrow_mut().push(waker);
            None
        }
        None => Some(waker),
    });
    if let Some(waker) = refused {
        waker.wake();
    }
}

/// Puts a task of the current runtime in its queue.
#[inline]
pub(crate) fn push_local(task: Task) {
    QUEUE.with_borrow_mut(|queue| queue.push_back(task));
}

/// Puts a task in its runtime's remote queue, from any thread.
pub(crate) fn push_remote(task: Task) {
    let shared = task.shared().clone();
    let mut remote = shared.remote();
    if !remote.closed {
        remote.woken.push(task);
        drop(remote);
        shared.has_remote.store(true, SeqCst);
        shared.unparker.unpark();
    }
}

/// Has a call made on its runtime's thread, from any thread. With the runtime gone it is dropped.
pub(crate) fn push_call(shared: &Shared, call: Call) {
    let mut remote = shared.remote();
    if remote.closed {
        drop(remote);
        return drop(call);
    }
    remote.calls.push(call);
    drop(remote);
    shared.has_remote.store(true, SeqCst);
    shared.unpark();
}

/// Leaves the runtime when it goes out of scope.
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        let Some(core) = CURRENT.with_borrow_mut(|current| current.take()) else { return };
        OWNER.set(std::ptr::null());
        core.swap_queue();
    }
}

/// Puts the runtime that the thread is in aside, until this goes out of scope.
struct Aside(Option<Rc<Core>>);

impl Aside {
    fn put() -> Aside {
        let core = try_current();
        if core.is_some() {
            drop(Entered(()));
        }
        Aside(core)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(core) = self.0.take() {
            // Whoever entered it leaves it.
            std::mem::forget(core.enter());
        }
    }
}

struct MainWaker(Arc<Shared>);

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if is_current(&self.0) {
            // The thread is awake, and will look.
            self.0.main_woken.store(true, Relaxed);
        } else if !self.0.main_woken.swap(true, SeqCst) {
            self.0.unparker.unpark();
        }
    }
}

impl Core {
    pub(crate) fn new(driver: Driver, watch: Option<HogWatch>) -> Rc<Core> {
        let shared = Shared {
            remote: Mutex::new(Remote { woken: Vec::new(), calls: Vec::new(), closed: false }),
            has_remote: AtomicBool::new(false),
            main_woken: AtomicBool::new(false),
            unparker: driver.unparker(),
        };
        Rc::new(Core {
            driver: Rc::new(driver),
            timers: RefCell::new(Wheel::new(now())),
            pipes: Pipes::default(),
            due: Cell::default(),
            shared: Arc::new(shared),
            queue: RefCell::new(VecDeque::new()),
            yielded: RefCell::default(),
            tasks: RefCell::new(Tasks::default()),
            post: OnceCell::new(),
            alone: OnceCell::new(),
            shards: RefCell::default(),
            meter: Meter::default(),
            hogs: watch.map(Hogs::new),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Messages to and from the other cores, if there are some.
    #[inline]
    pub(crate) fn post(&self) -> Option<&Post> {
        self.post.get()
    }

    /// The core's number, from 0.
    pub(crate) fn index(&self) -> usize {
        self.post().map_or(0, Post::index)
    }

    pub(crate) fn set_post(&self, post: Post) {
        assert!(self.post.set(post).is_ok(), "cores are wired up once");
    }

    /// This core's values of those that each core has one of.
    pub(crate) fn shards(&self) -> &RefCell<Shards> {
        &self.shards
    }

    /// This core as the only one of its runtime.
    pub(crate) fn alone(&self) -> Arc<Peers> {
        self.alone.get_or_init(|| cores::alone(self.shared.clone())).clone()
    }

    /// Makes this the thread's runtime.
    ///
    /// # Panics
    /// If the thread is in one already.
    pub(crate) fn enter(self: &Rc<Core>) -> Entered {
        CURRENT.with_borrow_mut(|current| {
            assert!(current.is_none(), "a runtime cannot run inside of another: use spawn");
            **current = Some(self.clone());
        });
        OWNER.set(Arc::as_ptr(&self.shared));
        self.swap_queue();
        Entered(())
    }

    /// Exchanges the thread's queue and the runtime's.
    fn swap_queue(&self) {
        QUEUE.with_borrow_mut(|queue| std::mem::swap(&mut **queue, &mut self.queue.borrow_mut()));
    }

    pub(crate) fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        self.spawn_as(None, future)
    }

    fn spawn_as<F: Future + 'static>(
        &self,
        name: Option<&str>,
        future: F,
    ) -> JoinHandle<F::Output> {
        let (handle, refused) = self.add(future, name, is_current(&self.shared));
        if let Some(task) = refused {
            task.shut_down();
        }
        handle
    }

    /// Makes a task and puts it in the queue, which is the thread's if this is its runtime. After the
    /// shutdown it is handed out to be ended, which runs the user's code.
    #[inline]
    fn add<F: Future + 'static>(
        &self,
        future: F,
        name: Option<&str>,
        is_current: bool,
    ) -> (JoinHandle<F::Output>, Option<Task>) {
        // While nothing of the runtime is borrowed: a subscriber may come back in.
        let future = in_task_span(future, name, || self.index());
        let mut tasks = self.tasks.borrow_mut();
        self.meter.count_spawn();
        if tasks.closed {
            let (listed, _, handle) = Task::new::<F>(future, self.shared.clone(), 0);
            return (handle, Some(listed));
        }
        let index = tasks.place();
        let (listed, queued, handle) = Task::new::<F>(future, self.shared.clone(), index);
        tasks.list[index as usize] = Some(listed);
        if is_current {
            push_local(queued);
        } else {
            self.queue.borrow_mut().push_back(queued);
        }
        (handle, None)
    }

    /// As `spawn`, and remembers the name if somebody is to be told.
    pub(crate) fn spawn_named<F: Future + 'static>(
        &self,
        name: Cow<'static, str>,
        future: F,
    ) -> JoinHandle<F::Output> {
        let handle = self.spawn_as(Some(&name), future);
        if let Some(hogs) = &self.hogs
            && !handle.is_finished()
        {
            hogs.set_name(handle.id(), name);
        }
        handle
    }

    pub(crate) fn task_count(&self) -> usize {
        self.tasks.borrow().count()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn metrics(&self) -> Metrics {
        let ready_count = if is_current(&self.shared) {
            QUEUE.with_borrow(|queue| queue.len())
        } else {
            self.queue.borrow().len()
        };
        let ready_count = ready_count + self.yielded.borrow().len();
        let (spawn_count, poll_count) = (self.meter.spawn_count.get(), self.meter.poll_count.get());
        Metrics {
            engine: self.driver.engine(),
            task_count: self.task_count(),
            ready_count,
            spawn_count,
            poll_count,
            // Whatever was in the queue came there by a spawn or by a wake.
            wake_count: (poll_count + ready_count as u64).saturating_sub(spawn_count),
            remote_wake_count: self.meter.remote_wake_count.get(),
            timer_count: self.meter.timer_count.get(),
            driver: self.driver.metrics(),
        }
    }

    /// Runs tasks and I/O until `future` is ready.
    pub(crate) fn block_on<F: Future>(self: &Rc<Core>, future: F) -> F::Output {
        let _entered = self.enter();
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(MainWaker(self.shared.clone())));
        let mut cx = Context::from_waker(&waker);
        self.shared.main_woken.swap(false, AcqRel);
        let mut left = TASKS_PER_TURN - 1;
        loop {
            let polled = match &self.hogs {
                None => future.as_mut().poll(&mut cx),
                Some(hogs) => {
                    let started = now();
                    let polled = future.as_mut().poll(&mut cx);
                    hogs.observe_main(now() - started);
                    polled
                }
            };
            if let Poll::Ready(output) = polled {
                return output;
            }
            left = self.run_until_woken(left);
        }
    }

    /// Runs tasks, so many before the next turn, and I/O until the future of `block_on` is woken: how many are left
    /// after its poll.
    #[inline(never)]
    fn run_until_woken(&self, mut left: usize) -> usize {
        let shared = &*self.shared;
        let takes_wake =
            || shared.main_woken.load(Relaxed) && shared.main_woken.swap(false, AcqRel);
        // A future that woke itself asks for a turn; one that a task wakes goes on at once.
        let mut wants_turn = shared.main_woken.load(Relaxed);
        loop {
            if shared.has_remote.load(Relaxed) {
                self.take_what_is_remote();
            }
            if let Some(post) = self.post.get() {
                post.take();
            }
            left = match &self.hogs {
                None => self.run_tasks(left),
                Some(hogs) => self.run_tasks_watched(hogs, left),
            };
            if !wants_turn && left > 0 && takes_wake() {
                return left - 1;
            }
            self.turn();
            if takes_wake() {
                return TASKS_PER_TURN - 1;
            }
            left = TASKS_PER_TURN;
            wants_turn = false;
        }
    }

    /// Runs so many tasks at most: how many are left of these.
    #[inline]
    fn run_tasks(&self, count_max: usize) -> usize {
        for left in (0..count_max).rev() {
            let next = QUEUE.with_borrow_mut(|queue| queue.pop_front());
            let Some(task) = next else { return left + 1 };
            self.meter.count_poll();
            if let Some(completed) = task.run() {
                self.remove(completed);
            }
        }
        0
    }

    /// As `run_tasks`, with an eye on the clock.
    #[cold]
    #[inline(never)]
    fn run_tasks_watched(&self, hogs: &Hogs, count_max: usize) -> usize {
        for left in (0..count_max).rev() {
            let next = QUEUE.with_borrow_mut(|queue| queue.pop_front());
            let Some(task) = next else { return left + 1 };
            self.meter.count_poll();
            let (id, type_name) = (task.id(), task.type_name());
            let started = now();
            let completed = task.run();
            let time = now() - started;
            let hog = hogs.observe(id, type_name, completed.is_some(), time);
            if let Some(completed) = completed {
                self.remove(completed);
            }
            if let Some(name) = hog {
                hogs.report(&name, time);
            }
        }
        0
    }

    /// Takes a completed task off the list.
    #[inline]
    fn remove(&self, completed: Completed) {
        let listed = {
            let tasks = &mut *self.tasks.borrow_mut();
            let index = completed.index();
            tasks.free.push(index as u32);
            tasks.list[index].take()
        };
        completed.release(listed.expect("it was there until now"));
    }

    #[cold]
    #[inline(never)]
    fn take_what_is_remote(&self) {
        if self.shared.has_remote.swap(false, Acquire) {
            let (woken, calls) = {
                let mut remote = self.shared.remote();
                (std::mem::take(&mut remote.woken), std::mem::take(&mut remote.calls))
            };
            self.meter.count_remote_wakes(woken.len());
            woken.into_iter().for_each(Task::arrive);
            calls.into_iter().for_each(cores::make_call);
        }
    }

    /// Submits, waits if there is nothing else to do, reaps, and wakes whose deadline has passed and, behind
    /// them, those who have yielded.
    #[inline(never)]
    fn turn(&self) {
        let deadline = self.timers.borrow().next_deadline();
        let has_yielded = !self.yielded.borrow().is_empty();
        let idle = !has_yielded && QUEUE.with_borrow(|queue| queue.is_empty());
        let turned = match self.post.get() {
            None => self.driver.turn(idle, deadline, || self.shared.has_work()),
            Some(post) => self.turn_with_post(idle, deadline, post),
        };
        if let Err(error) = turned {
            // The engine is beyond use: no op would ever complete again.
            panic!("engine '{}' failed: {error}", self.driver.engine());
        }
        if deadline.is_some() {
            self.expire_timers();
        }
        if has_yielded {
            self.wake_yielded();
        }
    }

    /// A turn that hands messages over, and is ended by those that come.
    fn turn_with_post(
        &self,
        idle: bool,
        deadline: Option<Instant>,
        post: &Post,
    ) -> std::io::Result<()> {
        let mut deadline = deadline;
        if !post.flush() {
            // Nobody tells when there is room.
            let soon = now() + Post::FULL_PAUSE;
            deadline = Some(deadline.map_or(soon, |deadline| deadline.min(soon)));
        }
        self.driver.turn(idle, deadline, || self.shared.has_work() || post.has_mail())
    }

    fn expire_timers(&self) {
        let mut due = self.due.take();
        // As many as run before the next turn: what they touch is then still in the cache.
        self.timers.borrow_mut().expire(now(), TASKS_PER_TURN, &mut due);
        self.meter.count_timers(due.len());
        due.drain(..).for_each(Waker::wake);
        self.due.set(due);
    }

    fn wake_yielded(&self) {
        let mut yielded = self.yielded.take();
        yielded.drain(..).for_each(Waker::wake);
        let mut next = self.yielded.borrow_mut();
        // Wakers are the user's code, which may have yielded.
        if next.is_empty() {
            *next = yielded;
        }
    }

    /// Drops every task, then what they left behind. The thread may be in another runtime.
    pub(crate) fn shut_down(self: &Rc<Core>) {
        let aside = Aside::put();
        if let Some(current) = &aside.0 {
            assert!(!Rc::ptr_eq(current, self), "a runtime cannot end inside of its block_on");
        }
        let _entered = self.enter();
        {
            let tasks = &mut *self.tasks.borrow_mut();
            tasks.closed = true;
            tasks.list.retain(Option::is_some);
            tasks.free.clear();
        }
        loop {
            let Some(task) = self.tasks.borrow_mut().list.pop() else {
                break;
            };
            task.as_ref().inspect(|task| task.shut_down());
        }
        let queue = QUEUE.with_borrow_mut(|queue| std::mem::take(&mut **queue));
        drop(queue);
        let yielded = self.yielded.take();
        drop(yielded);
        let (woken, calls) = {
            let mut remote = self.shared.remote();
            remote.closed = true;
            (std::mem::take(&mut remote.woken), std::mem::take(&mut remote.calls))
        };
        drop((woken, calls));
        if let Some(post) = self.post.get() {
            post.close();
        }
        self.pipes.clear();
        // Destructors may ask for other values.
        let shards = self.shards.take();
        drop(shards);
        self.driver.shut_down();
    }
}
