//! The runtime: one driver, one executor and the timers, on the thread that made it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use omniring_driver::op::Opcode;
use omniring_driver::{Config, Cpus, Driver, EngineName, StartError, Support};

use crate::cores::{self, CorePanic, Cores, Handle, Layout};
use crate::executor::{Core, current, spawn_current, try_current};
use crate::hogs::{Hog, HogWatch};
use crate::task::JoinHandle;
use crate::trace;

/// Runs tasks and their I/O, on one core unless told otherwise ([`Builder::cores`]).
///
/// It belongs to the thread that made it. Dropping it drops every task and waits until each of
/// their ops has ended, so that no memory is touched afterwards.
///
/// ```
/// use omniring::{Engine, Runtime};
///
/// let runtime = Runtime::builder().engine(Engine::Auto).build()?;
/// let sum = runtime.block_on(async {
///     let task = omniring::spawn(async { 20 });
///     task.await.unwrap() + 22
/// });
/// assert_eq!(sum, 42);
/// # Ok::<(), omniring::StartError>(())
/// ```
pub struct Runtime {
    core: Rc<Core>,
    /// The others, if there are some.
    others: Option<RefCell<Cores>>,
}

/// How a [`Runtime`] is to be made.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder makes a runtime only when built"]
pub struct Builder {
    config: Config,
    layout: Layout,
    watch: Option<HogWatch>,
}

impl Builder {
    /// The engine that carries out I/O; without this, the best one that works here. Naming one
    /// is strict: it runs, or `build` fails. The environment variable `OMNIRING_ENGINE` overrides
    /// either.
    pub fn engine(mut self, engine: EngineName) -> Builder {
        self.config.engine = engine;
        self
    }

    /// Submission queue entries, 1 to 32,768 (default 256): how many ops go to the kernel at
    /// once. More ops than that can be in flight.
    pub fn queue_entries(mut self, count: u32) -> Builder {
        self.config.queue_entries = count;
        self
    }

    /// For the engine `uring-sqpoll`, and ignored by others: how long the kernel thread that takes
    /// submissions looks for more before it naps, 1 ms (the default) to 1 minute, in whole
    /// milliseconds. Looking takes a whole core; a thread that naps costs a system call to wake.
    pub fn submission_idle_time(mut self, time: Duration) -> Builder {
        self.config.submission_idle_time = time;
        self
    }

    /// For the engine `uring-sqpoll`, and ignored by others: the CPU, from 0, that the kernel
    /// thread stays on (without this, any that the process may use). `build` fails if it is
    /// offline or not allowed to the process.
    pub fn submission_cpu(mut self, cpu: u32) -> Builder {
        self.config.submission_cpu = Some(cpu);
        self
    }

    /// For the engine `uring-iopoll`, and ignored by others: sleep for half of the time that a
    /// request takes as a rule before polling for it (default off). Less CPU, for a little more
    /// time per op. `build` fails before Linux 6.13.
    pub fn hybrid_polling(mut self, hybrid: bool) -> Builder {
        self.config.hybrid_polling = hybrid;
        self
    }

    /// For the engine `uring-iopoll`, and ignored by others: a thread of the kernel's submits to
    /// the device and polls it, so that the runtime's thread sleeps meanwhile (default off). The
    /// thread's idle time and CPU are those of `submission_idle_time` and `submission_cpu`.
    pub fn polling_thread(mut self, thread: bool) -> Builder {
        self.config.polling_thread = thread;
        self
    }

    /// For the engine `uring-iopoll`, and ignored by others: read and write `O_DIRECT` files on
    /// devices without polled queues by interrupts, instead of refusing to open them (default
    /// off).
    pub fn allow_unpolled(mut self, allow: bool) -> Builder {
        self.config.allow_unpolled = allow;
        self
    }

    /// The most threads, at least 1 (default 16), for calls that block: `spawn_blocking`, and
    /// ops that the engine has no other way for. They start when needed. Where there are several,
    /// one of them is kept for ops.
    pub fn threads_max(mut self, count: usize) -> Builder {
        self.config.threads_max = count;
        self
    }

    /// What the names of those threads start with (default `omniring-pool`).
    pub fn thread_name(mut self, name: impl Into<String>) -> Builder {
        self.config.thread_name = name.into();
        self
    }

    /// Direct descriptors that a ring may make, at most as many as the process may have files
    /// (default 0: none). What it opens, accepts and connects then lives in the ring's own table,
    /// where ops find it with less work, and takes no descriptor of the process unless somebody
    /// asks for one (`as_fd`). Beyond that many, descriptors are the process's as usual. Needs
    /// Linux 6.11; without it, and on other engines, this changes nothing.
    pub fn direct_descriptors(mut self, count: u32) -> Builder {
        self.config.direct_descriptors = count;
        self
    }

    /// The pool that received bytes are leased from: at most `count` buffers, 1 to 32,768 (default
    /// 1,024), of `len` bytes each, 256 to 1,048,576 (default 65,536), of which 144 go to the header of a
    /// datagram. Memory is used as it is needed.
    /// One receiver gets at most an eighth of the pool; what it is given beyond that, or when the
    /// pool is empty, is allocated for it.
    pub fn leases(mut self, count: u32, len: u32) -> Builder {
        self.config.leases_max = count;
        self.config.lease_len = len;
        self
    }

    /// How long dropping the runtime waits for ops that do not end when cancelled, such as a
    /// call that blocks on a thread (default 5 seconds). What they use is leaked after that.
    pub fn shutdown_time_max(mut self, time: Duration) -> Builder {
        self.config.shutdown_time_max = time;
        self
    }

    /// How many cores to run on (default 1), 0 for as many as this thread has CPUs. The first is the
    /// thread that makes the runtime, and runs while that is in `block_on`; the others have threads of
    /// their own, `omniring-core-1` and so on. Each has an engine, tasks and timers to itself:
    /// [`spawn_on`](crate::spawn_on) has work done on another core.
    pub fn cores(mut self, count: usize) -> Builder {
        self.layout.count = count;
        self
    }

    /// Whether each of several cores stays on a CPU of its own (the default), in the order of the CPUs
    /// that this thread may use, the first of them this thread's as long as the runtime exists. With
    /// more cores than CPUs some share one.
    pub fn pin_cores(mut self, pin: bool) -> Builder {
        self.layout.pins = pin;
        self
    }

    /// What to do when the thread of a core panics, which a task's panic is no reason for
    /// ([`JoinError::Panicked`](crate::JoinError::Panicked)): a waker's, a timer's or the engine's is.
    pub fn on_core_panic(mut self, what: CorePanic) -> Builder {
        self.layout.on_panic = what;
        self
    }

    /// Reports tasks that keep the core for `threshold` or longer without letting others run: a line on
    /// standard error for each time, with the task's name and the time (default: nobody looks).
    ///
    /// The name is that of [`spawn_named`](crate::spawn_named), else the type of the task's future, which
    /// names the function that it is of. The future of `block_on` is reported too. A report comes
    /// when the task gives the core back; one that never does is not reported. The time is that of
    /// the clock: where other programs take the core away, it counts as the task's.
    ///
    /// Looking takes two readings of the clock for each time that a task runs, about 50 ns; without
    /// this nothing is read.
    pub fn report_hogs(self, threshold: Duration) -> Builder {
        self.report_hogs_to(threshold, |hog| eprintln!("omniring: {hog}"))
    }

    /// As [`Builder::report_hogs`], to a function of one's own. It runs on the runtime's thread, between
    /// two tasks; if it panics, so does `block_on`.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let (sender, reports) = mpsc::channel();
    /// let runtime = omniring::Runtime::builder()
    ///     .report_hogs_to(Duration::from_millis(2), move |hog| {
    ///         let _ = sender.send(hog.name.to_owned());
    ///     })
    ///     .build()?;
    /// runtime.block_on(async {
    ///     let sleeper = omniring::spawn_named("sleeper", async {
    ///         std::thread::sleep(Duration::from_millis(3)); // and not omniring::time::sleep
    ///     });
    ///     sleeper.await.unwrap();
    /// });
    /// assert_eq!(reports.try_recv().as_deref(), Ok("sleeper"));
    /// # Ok::<(), omniring::StartError>(())
    /// ```
    pub fn report_hogs_to(
        mut self,
        threshold: Duration,
        report: impl Fn(&Hog<'_>) + Send + Sync + 'static,
    ) -> Builder {
        self.watch = Some(HogWatch::new(threshold, report));
        self
    }

    /// Makes the runtime. The error says in one line what does not work here and what to do.
    pub fn build(self) -> Result<Runtime, StartError> {
        let Builder { mut config, mut layout, watch } = self;
        if layout.count == 0 {
            layout.count = cores::available_count();
        }
        if layout.count > 1 && layout.pins {
            // Calls that block are to have what the cores leave, not one of them.
            config.pool_cpus = Cpus::of_this_thread().ok();
        }
        let core = Core::new(Driver::new(&config)?, watch.clone());
        let mut runtime = Runtime { core, others: None };
        trace::core_started(0, runtime.engine());
        if layout.count > 1 {
            let others = cores::start(&runtime.core, &config, watch, layout)?;
            runtime.others = Some(RefCell::new(others));
        }
        Ok(runtime)
    }
}

impl Runtime {
    /// A runtime on the best engine that works here.
    pub fn new() -> Result<Runtime, StartError> {
        Runtime::builder().build()
    }

    /// How to make one that is different.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs tasks and I/O until `future` is ready. Other tasks stay where they are until the next
    /// call.
    ///
    /// # Panics
    /// Inside of another runtime's `block_on`; and if the engine fails for good.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.core.block_on(future)
    }

    /// Adds a task that runs while the thread is in `block_on`.
    pub fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        self.core.spawn(future)
    }

    /// Sends work to the cores, from any thread.
    pub fn handle(&self) -> Handle {
        match &self.others {
            Some(others) => others.borrow().handle(),
            None => Handle::alone(&self.core),
        }
    }

    /// The cores that have ended by a panic, from 1 on: see [`Builder::on_core_panic`].
    pub fn panicked_cores(&self) -> Vec<usize> {
        self.others.as_ref().map_or_else(Vec::new, |others| others.borrow().panicked())
    }

    /// As [`Runtime::spawn`], with a name: see [`spawn_named`].
    pub fn spawn_named<F: Future + 'static>(
        &self,
        name: impl Into<Cow<'static, str>>,
        future: F,
    ) -> JoinHandle<F::Output> {
        self.core.spawn_named(name.into(), future)
    }

    /// The engine that runs.
    pub fn engine(&self) -> EngineName {
        self.core.driver.engine()
    }

    /// Why this engine runs, in one line: who chose it, or what is wrong with each engine that was
    /// passed over and what to do about it.
    pub fn engine_choice(&self) -> &str {
        self.core.driver.choice()
    }

    /// How the engine carries out an op on this machine.
    pub fn support(&self, opcode: Opcode) -> Support {
        self.core.driver.support(opcode).expect("the driver runs as long as the runtime exists")
    }

    /// What the runtime has done since it was made.
    #[cfg(feature = "metrics")]
    pub fn metrics(&self) -> crate::metrics::Metrics {
        self.core.metrics()
    }

    /// The runtime's state at this moment.
    pub fn stats(&self) -> Stats {
        Stats {
            task_count: self.core.task_count(),
            in_flight_count: self.core.driver.in_flight_count(),
            thread_count: self.core.driver.thread_count(),
            leased_count: self.core.driver.leased_count(),
        }
    }
}

/// What a runtime holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks that have not completed.
    pub task_count: usize,
    /// Ops that have been started and have not completed.
    pub in_flight_count: usize,
    /// Threads of the pool.
    pub thread_count: usize,
    /// Buffers of the lease pool that are leased.
    pub leased_count: usize,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // The others first, and at the same time: what they still send to this core is dropped with it.
        if let Some(others) = &mut self.others {
            others.get_mut().stop();
        }
        self.core.shut_down();
        trace::core_stopped(0);
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("engine", &self.engine()).finish_non_exhaustive()
    }
}

/// Adds a task to the runtime that the calling code runs in. It need not be `Send`, and it runs
/// on even if the handle is dropped.
///
/// # Panics
/// Outside of a runtime.
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    spawn_current(future)
}

/// As [`spawn`], with a name for the task, by which it is reported where it keeps the core for too long
/// ([`Builder::report_hogs`]). Where nobody asks for reports the name is dropped, and costs nothing.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// let task = omniring::spawn_named("sum", async { 20 + 22 });
/// assert_eq!(task.await.unwrap(), 42);
/// # });
/// # Ok::<(), omniring::StartError>(())
/// ```
pub fn spawn_named<F: Future + 'static>(
    name: impl Into<Cow<'static, str>>,
    future: F,
) -> JoinHandle<F::Output> {
    current().spawn_named(name.into(), future)
}

/// Whether the calling code runs in a runtime, so that it may spawn, sleep and do I/O. Destructors ask
/// this, which may run anywhere.
///
/// ```
/// assert!(!omniring::in_runtime());
/// assert!(omniring::Runtime::new()?.block_on(async { omniring::in_runtime() }));
/// # Ok::<(), omniring::StartError>(())
/// ```
pub fn in_runtime() -> bool {
    try_current().is_some()
}
