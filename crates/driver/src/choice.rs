//! Choosing an engine: by name, which is strict, or `auto`, which proves one after the other and
//! says why it passed some over.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::cpus::Cpus;
use crate::diagnosis::{Diagnosis, Failure, Step};
use crate::engine::calls::{Calls, Policy, Readiness};
use crate::engine::uring::{Mode, SubmissionThread, Uring};
use crate::engine::{Engine, prove};
use crate::trace;

/// The environment variable that overrides a program's choice of engine.
pub const ENGINE_VARIABLE: &str = "OMNIRING_ENGINE";

/// An engine, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum EngineName {
    /// The best one that works here.
    #[default]
    Auto,
    /// io_uring, interrupt-driven.
    Uring,
    /// io_uring with a thread of the kernel's that takes the submissions: no system call as long as
    /// it is awake, for a core of its own. It naps when idle ([`Config::submission_idle_time`]).
    UringSqpoll,
    /// io_uring with a second ring that polls the device for positional reads and writes of files
    /// opened with `O_DIRECT`: the shortest way to a device with polled queues, for a core that is
    /// busy while they are in flight. A device without polled queues is refused, by name, when such
    /// a file is opened ([`Config::allow_unpolled`]); ops on one that was opened elsewhere end with
    /// `EOPNOTSUPP`. A request that the device has ends by itself: cancels do not reach it.
    UringIopoll,
    /// As `Epoll`, with Linux native AIO for files open past the page cache (`O_DIRECT`), where
    /// `Config::queue_entries` is the most requests with the kernel at once; and for syncs.
    Aio,
    /// Readiness by `epoll(7)`, edge-triggered; file ops on a pool of threads.
    Epoll,
    /// The same, level-triggered: `epoll-level`.
    EpollLevel,
    /// As `Epoll` with `poll(2)`, whose cost grows with the number of descriptors waited for.
    Poll,
    /// As `Epoll` with `select(2)`, which takes no descriptor numbers past 1,023: an op that may
    /// have to wait for one, such as an accept or a receive, fails with `EMFILE` before it starts.
    /// Files may have any number.
    Select,
    /// Every op on a pool of threads, as POSIX AIO does.
    Threads,
    /// File ops by blocking calls on the driver's thread: the baseline.
    Blocking,
}

impl EngineName {
    /// Every engine, without `Auto`.
    pub const ALL: &'static [EngineName] = &[
        EngineName::Uring,
        EngineName::UringSqpoll,
        EngineName::UringIopoll,
        EngineName::Aio,
        EngineName::Epoll,
        EngineName::EpollLevel,
        EngineName::Poll,
        EngineName::Select,
        EngineName::Threads,
        EngineName::Blocking,
    ];

    /// The name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            EngineName::Auto => "auto",
            EngineName::Uring => "uring",
            EngineName::UringSqpoll => "uring-sqpoll",
            EngineName::UringIopoll => "uring-iopoll",
            EngineName::Aio => "aio",
            EngineName::Epoll => "epoll",
            EngineName::EpollLevel => "epoll-level",
            EngineName::Poll => "poll",
            EngineName::Select => "select",
            EngineName::Threads => "threads",
            EngineName::Blocking => "blocking",
        }
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no engine's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEngine(String);

impl fmt::Display for UnknownEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown engine '{}'; the engines are: auto", self.0)?;
        EngineName::ALL.iter().try_for_each(|name| write!(f, ", {name}"))
    }
}

impl std::error::Error for UnknownEngine {}

impl FromStr for EngineName {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<EngineName, UnknownEngine> {
        [EngineName::Auto]
            .iter()
            .chain(EngineName::ALL)
            .find(|engine| engine.name() == name)
            .copied()
            .ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

/// What a driver is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The engine.
    pub engine: EngineName,
    /// Submission queue entries of a ring, 1 to 32,768: how many ops go to the kernel at once.
    /// More ops than that can be in flight.
    pub queue_entries: u32,
    /// How long the kernel thread that takes submissions goes on looking for more before it naps,
    /// 1 ms to 1 minute, in whole milliseconds. Only `uring-sqpoll` has one, and `uring-iopoll`
    /// where asked for ([`Config::polling_thread`]).
    ///
    /// Looking takes a whole core. While ops keep coming the gaps between them are far shorter
    /// than the default, 1 ms, the shortest that the kernel knows; and to wake it costs one system
    /// call, which `uring` makes for every batch.
    pub submission_idle_time: Duration,
    /// The CPU that this thread stays on; any if `None`.
    pub submission_cpu: Option<u32>,
    /// For `uring-iopoll`: the poller sleeps for half of the time that a request takes as a rule
    /// before it asks the device (`IORING_SETUP_HYBRID_IOPOLL`, Linux 6.13). Less CPU, for a
    /// little more time per op.
    pub hybrid_polling: bool,
    /// For `uring-iopoll`: a thread of the kernel's takes the submissions of the second ring and
    /// polls the device, so that the driver's thread sleeps meanwhile.
    pub polling_thread: bool,
    /// For `uring-iopoll`: `O_DIRECT` files on devices without polled queues are not refused, but
    /// read and written by interrupts.
    pub allow_unpolled: bool,
    /// The most threads of the pool, at least 1.
    pub threads_max: usize,
    /// What the names of the pool's threads start with.
    pub thread_name: String,
    /// Where the pool's threads run; where the thread does that starts them if `None`.
    pub pool_cpus: Option<Cpus>,
    /// Direct descriptors that a ring may make: what it opens, accepts and connects then lives in
    /// its own table, where ops find it with less work, and takes no descriptor of the process
    /// (5.19; those of 6.11 are needed for all ops). 0 is none. Other engines ignore it.
    pub direct_descriptors: u32,
    /// Bytes in a lease buffer, 256 to 1,048,576.
    pub lease_len: u32,
    /// The most lease buffers in the pool, 1 to 32,768.
    pub leases_max: u32,
    /// How long the end of a driver waits for ops that do not end when cancelled.
    pub shutdown_time_max: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            engine: EngineName::Auto,
            queue_entries: 256,
            submission_idle_time: Duration::from_millis(1),
            submission_cpu: None,
            hybrid_polling: false,
            polling_thread: false,
            allow_unpolled: false,
            threads_max: 16,
            thread_name: "omniring-pool".to_owned(),
            pool_cpus: None,
            direct_descriptors: 0,
            lease_len: 64 << 10,
            leases_max: 1024,
            shutdown_time_max: Duration::from_secs(5),
        }
    }
}

/// Why an engine did not start, and what to do.
#[derive(Debug)]
pub struct StartError {
    engine: EngineName,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    /// A step of the start failed.
    Failure(Failure, Diagnosis),
    /// None of the engines that `auto` tries started.
    All(Vec<StartError>),
    /// The environment variable names no engine.
    Variable(UnknownEngine),
    /// An argument is out of its range.
    Argument(&'static str),
    /// A core of several has no thread, or lost it.
    Core(String),
}

impl StartError {
    fn of(engine: EngineName, failure: Failure) -> StartError {
        let diagnosis = match engine {
            EngineName::Uring => Diagnosis::of_ring(&failure),
            EngineName::UringSqpoll => Diagnosis::of_ring_with_thread(&failure),
            EngineName::UringIopoll => Diagnosis::of_polled_ring(&failure),
            EngineName::Aio => Diagnosis::of_aio(&failure),
            _ => Diagnosis::of_calls(&failure),
        };
        StartError { engine, cause: Cause::Failure(failure, diagnosis) }
    }

    /// A core of several did not come up.
    pub fn of_core(engine: EngineName, reason: String) -> StartError {
        StartError { engine, cause: Cause::Core(reason) }
    }

    /// The engine that did not start.
    pub fn engine(&self) -> EngineName {
        self.engine
    }

    /// What stands in the way, in less than a line: the call that failed, how, and by what (a
    /// sysctl, a seccomp filter, a limit, the kernel's age).
    pub fn reason(&self) -> String {
        match &self.cause {
            Cause::Failure(_, diagnosis) => diagnosis.reason.clone(),
            Cause::All(errors) => join(errors.iter().map(StartError::to_string)),
            Cause::Variable(error) => format!("{ENGINE_VARIABLE}: {error}"),
            Cause::Argument(what) => (*what).to_owned(),
            Cause::Core(reason) => reason.clone(),
        }
    }

    /// What to do about it, in less than a line; empty where the reason says that.
    pub fn remedy(&self) -> &str {
        match &self.cause {
            Cause::Failure(_, diagnosis) => &diagnosis.remedy,
            _ => "",
        }
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join("; ")
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Failure(_, diagnosis) => {
                write!(f, "engine '{}' does not start: {diagnosis}", self.engine)
            }
            Cause::All(_) => write!(f, "no engine starts: {}", self.reason()),
            Cause::Variable(_) | Cause::Argument(_) | Cause::Core(_) => f.write_str(&self.reason()),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Failure(failure, _) => Some(&failure.error),
            Cause::Variable(error) => Some(error),
            Cause::All(_) | Cause::Argument(_) | Cause::Core(_) => None,
        }
    }
}

/// The engines that `auto` tries, the best first. The last one needs nothing that a kernel or a
/// container may lack.
pub(crate) const LADDER: &[EngineName] =
    &[EngineName::Uring, EngineName::Aio, EngineName::Epoll, EngineName::Poll];

/// An engine that was made and proved.
pub(crate) struct Chosen {
    pub(crate) name: EngineName,
    pub(crate) engine: Box<dyn Engine>,
    /// Why this one, in one line.
    pub(crate) choice: String,
}

/// The engine that runs, and why.
pub(crate) fn start(config: &Config) -> Result<Chosen, StartError> {
    let refuse = |cause| Err(StartError { engine: config.engine, cause });
    if !(1..=32_768).contains(&config.queue_entries) {
        return refuse(Cause::Argument("queue entries must be between 1 and 32768"));
    }
    if !(1..=60_000).contains(&config.submission_idle_time.as_millis()) {
        let what = "the submission thread's idle time must be between 1 ms and 1 minute";
        return refuse(Cause::Argument(what));
    }
    if config.threads_max == 0 {
        return refuse(Cause::Argument("the pool needs at least 1 thread"));
    }
    if !(256..=1 << 20).contains(&config.lease_len) {
        return refuse(Cause::Argument("lease buffers must have between 256 and 1048576 bytes"));
    }
    if !(1..=32_768).contains(&config.leases_max) {
        return refuse(Cause::Argument("lease buffers must be between 1 and 32768"));
    }
    let (wanted, by) = match std::env::var(ENGINE_VARIABLE) {
        Ok(name) if !name.is_empty() => match name.parse() {
            Ok(engine) => (engine, ENGINE_VARIABLE),
            Err(error) => return refuse(Cause::Variable(error)),
        },
        _ => (config.engine, "the program"),
    };
    if wanted == EngineName::Auto {
        return start_auto(config);
    }
    let (engine, remark) = start_named(wanted, config)?;
    remarked(wanted, &remark);
    Ok(Chosen { name: wanted, engine, choice: format!("{wanted}: chosen by {by}{remark}") })
}

/// The first engine of the ladder that works, and what is wrong with those above it.
pub(crate) fn start_auto(config: &Config) -> Result<Chosen, StartError> {
    let mut errors = Vec::new();
    for &name in LADDER {
        match start_named(name, config) {
            Ok((engine, remark)) => {
                remarked(name, &remark);
                let passed_over = |error: &StartError| {
                    let StartError { engine, .. } = error;
                    format!("; {engine} does not: {}; remedy: {}", error.reason(), error.remedy())
                };
                let passed_over: String = errors.iter().map(passed_over).collect();
                let choice = format!("{name}: works here{remark}{passed_over}");
                return Ok(Chosen { name, engine, choice });
            }
            Err(error) => {
                trace::passed_over(&error);
                errors.push(error);
            }
        }
    }
    Err(StartError { engine: EngineName::Auto, cause: Cause::All(errors) })
}

/// Tells what is not as it was asked for, if something is not.
fn remarked(name: EngineName, remark: &str) {
    if !remark.is_empty() {
        trace::fell_back(name, remark.trim_start_matches(", "));
    }
}

/// This engine, made and proved, and what is not as it was asked for.
pub(crate) fn start_named(
    name: EngineName,
    config: &Config,
) -> Result<(Box<dyn Engine>, String), StartError> {
    make(name, config)
        .and_then(|(mut engine, remark)| {
            prove(&mut *engine).map_err(Failure::at(Step::Prove))?;
            Ok((engine, remark.map(|remark| format!(", {remark}")).unwrap_or_default()))
        })
        .map_err(|failure| StartError::of(name, failure))
}

type Made = (Box<dyn Engine>, Option<String>);

fn make(name: EngineName, config: &Config) -> Result<Made, Failure> {
    let calls = |policy, readiness| match Calls::new(policy, readiness, config) {
        Ok(engine) => Ok((Box::new(engine) as Box<_>, None)),
        Err(error) => Err(Failure { step: Step::SetUp, error }),
    };
    let uring = |mode, polled_mode| {
        let engine = Uring::new(config, mode, polled_mode)?;
        let remark = engine.remark();
        Ok((Box::new(engine) as Box<_>, remark))
    };
    let submission_thread = SubmissionThread {
        idle_ms: config.submission_idle_time.as_millis() as u32,
        cpu: config.submission_cpu,
    };
    match name {
        EngineName::Auto => unreachable!("resolved by the caller"),
        EngineName::Uring => uring(Mode::default(), None),
        EngineName::UringSqpoll => {
            uring(Mode { thread: Some(submission_thread), ..Mode::default() }, None)
        }
        EngineName::UringIopoll => {
            let polled_mode = Mode {
                thread: config.polling_thread.then_some(submission_thread),
                polls_device: true,
                is_hybrid: config.hybrid_polling,
            };
            uring(Mode::default(), Some(polled_mode))
        }
        EngineName::Aio => Calls::with_aio(config).map(|engine| (Box::new(engine) as Box<_>, None)),
        EngineName::Epoll => calls(Policy::DevicesOnPool, Readiness::EpollEdge),
        EngineName::EpollLevel => calls(Policy::DevicesOnPool, Readiness::EpollLevel),
        EngineName::Poll => calls(Policy::DevicesOnPool, Readiness::Poll),
        EngineName::Select => calls(Policy::DevicesOnPool, Readiness::Select),
        EngineName::Threads => calls(Policy::AllOnPool, Readiness::EpollEdge),
        EngineName::Blocking => calls(Policy::DevicesInline, Readiness::EpollEdge),
    }
}
