//! Several cores: a runtime on each, on a thread of its own, and messages between them.
//!
//! Work stays on its core and moves by message only: a [`Call`] that goes into the mailbox from one
//! core to another, one for each ordered pair. Messages are staged while tasks run and handed over once
//! a turn, with one look at whether the other core sleeps. Threads outside hand theirs in through the
//! queue that remote wakes use.
//!
//! The first core is the thread that made the runtime, and runs while that is in `block_on`; the others
//! run until the runtime is dropped. A core that ends, by a panic even, drops what was sent to it, so
//! that whoever waits for an answer learns that none will come.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle as ThreadHandle;
use std::time::Duration;

use omniring_driver::clock::now;
use omniring_driver::{Call, Config, Cpus, Driver, MailReceiver, MailSender, StartError, mailbox};
use tokio::sync::oneshot;

use crate::executor::{Core, Shared, current, push_call, try_current};
use crate::hogs::HogWatch;
use crate::task::JoinError;
use crate::trace::{self, Spawner};

/// Messages on their way from one core to another; more wait with the sender.
const MAILBOX_LEN: usize = 1024;
/// So many are handed over at once, even if the turn is not over.
const STAGED_MAX: usize = 128;
/// So many are taken from one sender in a turn.
const TAKEN_MAX: usize = MAILBOX_LEN;
/// How soon a core tries again that found a mailbox full.
const FULL_PAUSE: Duration = Duration::from_micros(50);
/// What shutting a core down may take beyond the time that its ops have.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How a core is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Running,
    Ended,
    Panicked,
}

/// A core, as the others see it.
struct Peer {
    shared: Arc<Shared>,
    state: AtomicU8,
}

impl Peer {
    fn is_running(&self) -> bool {
        self.state.load(Acquire) == State::Running as u8
    }
}

/// All cores of a runtime.
pub(crate) struct Peers(Vec<Peer>);

/// A core's side of the messages.
pub(crate) struct Post {
    index: usize,
    peers: Arc<Peers>,
    /// To each core, but itself.
    outgoing: RefCell<Vec<Option<MailSender<Call>>>>,
    /// From each core, but itself.
    incoming: RefCell<Vec<MailReceiver<Call>>>,
    /// Cores that something is staged for, and how much in all.
    staged_count: Cell<usize>,
    /// Room for those taken.
    taken: Cell<Vec<Call>>,
}

impl Post {
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Sends a message. After the end, this core's or the other's, it is dropped.
    fn send(&self, to: usize, call: Call) {
        if to == self.index {
            // In the next turn, as elsewhere.
            return push_call(&self.peers.0[to].shared, call);
        }
        let staged = match self.outgoing.borrow_mut().get_mut(to).and_then(Option::as_mut) {
            Some(sender) => {
                sender.stage(call);
                Ok(sender.staged_count())
            }
            None => Err(call),
        };
        match staged {
            Ok(count) => {
                self.staged_count.set(self.staged_count.get() + 1);
                if count >= STAGED_MAX {
                    self.flush_to(to);
                }
            }
            // With nothing borrowed: its destructor may send.
            Err(call) => drop(call),
        }
    }

    /// Hands what is staged for a core over, and wakes it.
    fn flush_to(&self, to: usize) {
        // Out of the cell meanwhile: with that core gone messages are dropped, whose destructors may
        // send.
        let taken = self.outgoing.borrow_mut().get_mut(to).and_then(Option::take);
        let Some(mut sender) = taken else { return };
        let before = sender.staged_count();
        if sender.flush() > 0 {
            self.peers.0[to].shared.unpark();
        }
        let handed_over = before - sender.staged_count();
        self.staged_count.set(self.staged_count.get() - handed_over);
        if let Some(place) = self.outgoing.borrow_mut().get_mut(to) {
            *place = Some(sender);
        }
    }

    /// Hands over what is staged. False if something is left, for want of room.
    #[inline]
    pub(crate) fn flush(&self) -> bool {
        if self.staged_count.get() > 0 {
            (0..self.peers.0.len()).for_each(|to| self.flush_to(to));
        }
        self.staged_count.get() == 0
    }

    /// How long a turn may wait although something is left: see [`Post::flush`].
    pub(crate) const FULL_PAUSE: Duration = FULL_PAUSE;

    /// Whether messages are there.
    pub(crate) fn has_mail(&self) -> bool {
        self.incoming.borrow().iter().any(MailReceiver::has_mail)
    }

    /// Does what the messages say.
    #[inline]
    pub(crate) fn take(&self) {
        let mut taken = self.taken.take();
        for receiver in self.incoming.borrow_mut().iter_mut() {
            receiver.take(TAKEN_MAX, &mut taken);
        }
        taken.drain(..).for_each(make_call);
        self.taken.set(taken);
    }

    /// The core ends: what was sent to it is dropped, now and later.
    pub(crate) fn close(&self) {
        // Out of the cells first: destructors of what was sent may send.
        let mail = (self.incoming.take(), self.outgoing.take());
        drop(mail);
    }
}

/// Makes a call. As a task's, its panic is not the core's.
pub(crate) fn make_call(call: Call) {
    let _ = catch_unwind(AssertUnwindSafe(|| call.call()));
}

/// The other cores of a runtime, in the hands of the first.
pub(crate) struct Cores {
    peers: Arc<Peers>,
    /// By index, from the second core on.
    threads: Vec<CoreThread>,
    stop_time_max: Duration,
    /// What the first core's thread could run on before.
    cpus_before: Option<Cpus>,
    on_panic: CorePanic,
}

struct CoreThread {
    index: usize,
    /// Ends the core when told to.
    stop: Waker,
    ended: Receiver<()>,
    thread: ThreadHandle<()>,
}

/// What a core's panic does to the program: see [`Builder::on_core_panic`](crate::Builder::on_core_panic).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CorePanic {
    /// The core ends, and says so on standard error. What was sent to it is dropped: whoever waits
    /// for an answer gets [`JoinError::Aborted`].
    #[default]
    Report,
    /// The program is aborted after that.
    Abort,
}

/// How many cores, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) count: usize,
    pub(crate) pins: bool,
    pub(crate) on_panic: CorePanic,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout { count: 1, pins: true, on_panic: CorePanic::default() }
    }
}

/// What a core's thread says when it is up.
type Up = Result<(Arc<Shared>, Waker), StartError>;

/// What it is told then.
struct Wiring {
    peers: Arc<Peers>,
    outgoing: Vec<Option<MailSender<Call>>>,
    incoming: Vec<MailReceiver<Call>>,
}

/// Starts the other cores beside `first`.
pub(crate) fn start(
    first: &Rc<Core>,
    config: &Config,
    watch: Option<HogWatch>,
    layout: Layout,
) -> Result<Cores, StartError> {
    let Layout { count, pins, on_panic } = layout;
    let engine = first.driver.engine();
    let cpus_before = config.pool_cpus.filter(|_| pins);
    let cpus = cpus_before.map_or_else(Vec::new, |cpus| cpus.numbers());
    // The engine that the first one got, so that all have the same.
    let config = Config { engine, ..config.clone() };
    let mut starting = Vec::new();
    for index in 1..count {
        let (up, is_up) = channel::<Up>();
        let (wire, wiring) = channel::<Wiring>();
        let (end, ended) = channel::<()>();
        let name = format!("{}-{index}", config.thread_name);
        let config = Config { thread_name: name, ..config.clone() };
        let cpu = (!cpus.is_empty()).then(|| cpus[index % cpus.len()]);
        let watch = watch.clone();
        let thread = std::thread::Builder::new()
            .name(format!("omniring-core-{index}"))
            .spawn(move || {
                let _end = end;
                let make = || Ok(Core::new(Driver::new(&config)?, watch));
                run_core(index, cpu, make, on_panic, &up, &wiring);
            })
            .map_err(|error| {
                StartError::of_core(engine, format!("no thread for core {index}: {error}"))
            })?;
        starting.push((index, is_up, wire, ended, thread));
    }
    let peer = |shared| Peer { shared, state: AtomicU8::new(State::Running as u8) };
    let mut peers = vec![peer(first.shared().clone())];
    let mut threads = Vec::new();
    let mut wires = Vec::new();
    for (index, is_up, wire, ended, thread) in starting {
        let up = is_up.recv().unwrap_or_else(|_| {
            Err(StartError::of_core(engine, format!("core {index} ended while it was started")))
        });
        // An error drops the wires of the others, whose threads end then.
        let (shared, stop) = up?;
        peers.push(peer(shared));
        threads.push(CoreThread { index, stop, ended, thread });
        wires.push(wire);
    }
    let peers = Arc::new(Peers(peers));
    let mut wirings: Vec<Wiring> = (0..count)
        .map(|_| Wiring { peers: peers.clone(), outgoing: Vec::new(), incoming: Vec::new() })
        .collect();
    for from in 0..count {
        for to in 0..count {
            let pair = (from != to).then(|| mailbox(MAILBOX_LEN));
            let (sender, receiver) = pair.unzip();
            wirings[from].outgoing.push(sender);
            wirings[to].incoming.extend(receiver);
        }
    }
    let mut wirings = wirings.into_iter();
    first.set_post(post(0, wirings.next().expect("one for each core")));
    for (wire, wiring) in wires.into_iter().zip(wirings) {
        // A core that is gone by now is seen to be.
        let _ = wire.send(wiring);
    }
    if let Some(&cpu) = cpus.first() {
        pin(cpu);
    }
    Ok(Cores { peers, threads, stop_time_max: config.shutdown_time_max, cpus_before, on_panic })
}

fn post(index: usize, wiring: Wiring) -> Post {
    let Wiring { peers, outgoing, incoming } = wiring;
    Post {
        index,
        peers,
        outgoing: RefCell::new(outgoing),
        incoming: RefCell::new(incoming),
        staged_count: Cell::new(0),
        taken: Cell::default(),
    }
}

/// As many as there are CPUs for this thread.
pub(crate) fn available_count() -> usize {
    Cpus::of_this_thread().map_or(1, |cpus| cpus.numbers().len().max(1))
}

/// Keeps this thread on one CPU. Where that is not allowed it goes where it may.
fn pin(cpu: usize) {
    let _ = Cpus::one(cpu).keep_this_thread();
}

/// The life of a core's thread.
fn run_core(
    index: usize,
    cpu: Option<usize>,
    make: impl FnOnce() -> Result<Rc<Core>, StartError>,
    on_panic: CorePanic,
    up: &Sender<Up>,
    wiring: &Receiver<Wiring>,
) {
    if let Some(cpu) = cpu {
        pin(cpu);
    }
    let core = match make() {
        Ok(core) => core,
        Err(error) => return drop(up.send(Err(error))),
    };
    let (stop, is_stopped) = stop_signal();
    if up.send(Ok((core.shared().clone(), stop))).is_err() {
        return core.shut_down();
    }
    // Without wiring, another core did not start.
    let Ok(wiring) = wiring.recv() else { return core.shut_down() };
    let peers = wiring.peers.clone();
    core.set_post(post(index, wiring));
    trace::core_started(index, core.driver.engine());
    let outcome = catch_unwind(AssertUnwindSafe(|| core.block_on(is_stopped)));
    let state = if outcome.is_ok() { State::Ended } else { State::Panicked };
    peers.0[index].state.store(state as u8, Release);
    if let Err(payload) = outcome {
        report_panic(index, payload.as_ref(), on_panic);
    }
    // A destructor of a task's may panic as well.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| core.shut_down())) {
        report_panic(index, payload.as_ref(), on_panic);
    }
    trace::core_stopped(index);
}

fn report_panic(index: usize, payload: &(dyn Any + Send), on_panic: CorePanic) {
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("(no message)");
    trace::core_panicked(index, message);
    eprintln!("omniring: core {index} has ended by a panic: {message}");
    if on_panic == CorePanic::Abort {
        std::process::abort();
    }
}

/// A future that is ready when its signal, a waker, is used.
fn stop_signal() -> (Waker, impl Future<Output = ()>) {
    #[derive(Default)]
    struct Signal(Mutex<(bool, Option<Waker>)>);
    impl std::task::Wake for Signal {
        fn wake(self: Arc<Self>) {
            let waker = {
                let mut inner = self.0.lock().expect("nothing panics under this lock");
                inner.0 = true;
                inner.1.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
    let signal = Arc::new(Signal::default());
    let stopped = {
        let signal = signal.clone();
        poll_fn(move |cx| {
            let mut inner = signal.0.lock().expect("as above");
            if inner.0 {
                return Poll::Ready(());
            }
            inner.1 = Some(cx.waker().clone());
            Poll::Pending
        })
    };
    (Waker::from(signal), stopped)
}

impl Cores {
    /// What anybody may use to send work to the cores.
    pub(crate) fn handle(&self) -> Handle {
        Handle { peers: self.peers.clone() }
    }

    pub(crate) fn panicked(&self) -> Vec<usize> {
        let has_panicked = |peer: &Peer| peer.state.load(Acquire) == State::Panicked as u8;
        let peers = self.peers.0.iter().enumerate();
        peers.filter(|(_, peer)| has_panicked(peer)).map(|(index, _)| index).collect()
    }

    /// Ends the other cores, all at once, and waits for their threads. One that is still busy when
    /// its time is over is left to itself.
    pub(crate) fn stop(&mut self) {
        self.peers.0[0].state.store(State::Ended as u8, Release);
        for thread in &self.threads {
            thread.stop.wake_by_ref();
        }
        let deadline = now() + self.stop_time_max + STOP_GRACE;
        for CoreThread { index, ended, thread, .. } in self.threads.drain(..) {
            let left = deadline.saturating_duration_since(now());
            match ended.recv_timeout(left) {
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!(
                        "omniring: core {index} does not end: a task of its keeps it busy; its \
                         thread is left to itself"
                    );
                    if self.on_panic == CorePanic::Abort {
                        std::process::abort();
                    }
                }
                _ => drop(thread.join()),
            }
        }
        if let Some(before) = self.cpus_before.take() {
            let _ = before.keep_this_thread();
        }
    }
}

/// Sends work to the cores of a runtime, from any thread.
///
/// ```
/// let runtime = omniring::Runtime::builder().cores(2).build()?;
/// let handle = runtime.handle();
/// let outside = std::thread::spawn(move || {
///     // Ends when the task has, or could not: see `CoreHandle`.
///     handle.spawn_on(1, || async { omniring::core() }).wait()
/// });
/// assert_eq!(outside.join().unwrap().unwrap(), 1);
/// # Ok::<(), omniring::StartError>(())
/// ```
#[derive(Clone)]
pub struct Handle {
    peers: Arc<Peers>,
}

impl Handle {
    /// Of a runtime with one core.
    pub(crate) fn alone(core: &Core) -> Handle {
        Handle { peers: core.alone() }
    }

    /// Cores of the runtime.
    pub fn core_count(&self) -> usize {
        self.peers.0.len()
    }

    /// Calls `make` on core `core`, from 0, and runs the future there: see [`spawn_on`].
    ///
    /// # Panics
    /// If there is no such core.
    pub fn spawn_on<F, T>(
        &self,
        core: usize,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> CoreHandle<T>
    where
        F: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (call, handle) = remote_task(self.peers.clone(), core, make);
        self.send(core, call);
        handle
    }

    /// Calls `call` on core `core`, from 0, between two tasks: see [`send_to`].
    ///
    /// # Panics
    /// If there is no such core.
    pub fn send_to(&self, core: usize, call: impl FnOnce() + Send + 'static) {
        self.send(core, Call::new(call));
    }

    fn send(&self, core: usize, call: Call) {
        assert!(core < self.core_count(), "no core {core}: there are {}", self.core_count());
        match try_current().as_deref().and_then(Core::post) {
            Some(post) if Arc::ptr_eq(&post.peers, &self.peers) => post.send(core, call),
            _ => push_call(&self.peers.0[core].shared, call),
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} cores)", self.core_count())
    }
}

/// The runtime's handle, from inside.
///
/// # Panics
/// Outside of a runtime.
pub fn handle() -> Handle {
    let core = current();
    match core.post() {
        Some(post) => Handle { peers: post.peers.clone() },
        None => Handle::alone(&core),
    }
}

/// The core that the calling code runs on, from 0.
///
/// # Panics
/// Outside of a runtime.
pub fn core() -> usize {
    current().index()
}

/// Cores of the runtime that the calling code runs in.
///
/// # Panics
/// Outside of a runtime.
pub fn core_count() -> usize {
    current().post().map_or(1, |post| post.peers.0.len())
}

/// Calls `make` on core `core`, from 0, and runs the future that it makes there, as a task. The future
/// stays on that core and need not be `Send`; what makes it, and its output, travel and have to be.
///
/// The task runs on even if the handle is dropped.
///
/// ```
/// let runtime = omniring::Runtime::builder().cores(2).build()?;
/// let there = runtime.block_on(async {
///     omniring::spawn_on(1, || async { omniring::core() }).await
/// });
/// assert_eq!(there.unwrap(), 1);
/// # Ok::<(), omniring::StartError>(())
/// ```
///
/// # Panics
/// Outside of a runtime, and if it has no such core.
pub fn spawn_on<F, T>(core: usize, make: impl FnOnce() -> F + Send + 'static) -> CoreHandle<T>
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    handle().spawn_on(core, make)
}

/// Calls `call` on core `core`, from 0, between two of its tasks, and waits for nothing: the message
/// itself, for those who send many. Messages from one core to another are handled in the order in which
/// they were sent. A panic of the call is the call's own.
///
/// The message is dropped if that core has ended.
///
/// # Panics
/// Outside of a runtime, and if it has no such core.
pub fn send_to(core: usize, call: impl FnOnce() + Send + 'static) {
    let current = current();
    match current.post() {
        Some(post) => {
            let count = post.peers.0.len();
            assert!(core < count, "no core {core}: there are {count}");
            post.send(core, Call::new(call));
        }
        None => {
            assert!(core == 0, "no core {core}: there is 1");
            push_call(current.shared(), Call::new(call));
        }
    }
}

/// What starts a task on another core, and what waits for it here.
fn remote_task<F, T>(
    peers: Arc<Peers>,
    core: usize,
    make: impl FnOnce() -> F + Send + 'static,
) -> (Call, CoreHandle<T>)
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    let (stop, is_stopped) = oneshot::channel::<()>();
    let spawner = Spawner::current();
    let call = Call::new(move || {
        let made = catch_unwind(AssertUnwindSafe(|| spawner.enter(make)));
        let future = match made {
            Ok(future) => future,
            Err(payload) => return drop(answer.send(Err(JoinError::Panicked(payload)))),
        };
        let task = spawner.enter(|| crate::spawn(future));
        drop(crate::spawn(async move {
            drop(answer.send(join_or_abort(task, is_stopped).await));
        }));
    });
    (call, CoreHandle { answered, stop: Some(stop), peers, core })
}

/// The output of a task, which is aborted when told to.
async fn join_or_abort<T>(
    mut task: crate::JoinHandle<T>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<T, JoinError> {
    let mut listens = true;
    poll_fn(|cx| {
        if listens && let Poll::Ready(told) = Pin::new(&mut stopped).poll(cx) {
            listens = false;
            if told.is_ok() {
                task.abort();
            }
        }
        Pin::new(&mut task).poll(cx)
    })
    .await
}

/// Waits for a task on another core, from any thread: see [`spawn_on`]. Dropping it lets the task run on.
///
/// A task that panicked yields [`JoinError::Panicked`]; one that was aborted, or whose core has ended,
/// [`JoinError::Aborted`].
#[must_use = "a dropped handle leaves the task to itself; say so with `drop`"]
pub struct CoreHandle<T> {
    answered: oneshot::Receiver<Result<T, JoinError>>,
    stop: Option<oneshot::Sender<()>>,
    peers: Arc<Peers>,
    core: usize,
}

impl<T> CoreHandle<T> {
    /// Has the task's future dropped the next time it is the task's turn; a task that has finished by
    /// then keeps its output.
    pub fn abort(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Blocks the calling thread until the task has finished: for threads that are no core's.
    ///
    /// # Panics
    /// On a thread of a runtime, which would wait for ever if it is that task's.
    pub fn wait(self) -> Result<T, JoinError> {
        assert!(try_current().is_none(), "a core must not block: await the handle instead");
        self.answered.blocking_recv().unwrap_or(Err(JoinError::Aborted))
    }

    /// Whether the task's core still runs.
    pub fn is_core_running(&self) -> bool {
        self.peers.0[self.core].is_running()
    }
}

impl<T> Future for CoreHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answered).poll(cx);
        answer.map(|answer| answer.unwrap_or(Err(JoinError::Aborted)))
    }
}

impl<T> fmt::Debug for CoreHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoreHandle(core {})", self.core)
    }
}

/// Runs a future on every core and waits for all: their outputs, by core.
///
/// ```
/// let runtime = omniring::Runtime::builder().cores(2).build()?;
/// let cores = runtime.block_on(omniring::on_all_cores(|core| async move { core * 10 }));
/// assert_eq!(cores.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 10]);
/// # Ok::<(), omniring::StartError>(())
/// ```
///
/// # Panics
/// Outside of a runtime.
pub async fn on_all_cores<F, T>(
    make: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Vec<Result<T, JoinError>>
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let handle = handle();
    let tasks: Vec<_> = (0..handle.core_count())
        .map(|core| {
            let make = make.clone();
            handle.spawn_on(core, move || make(core))
        })
        .collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(task.await);
    }
    outputs
}

/// For a runtime of one core: the core itself as the only peer.
pub(crate) fn alone(shared: Arc<Shared>) -> Arc<Peers> {
    Arc::new(Peers(vec![Peer { shared, state: AtomicU8::new(State::Running as u8) }]))
}
