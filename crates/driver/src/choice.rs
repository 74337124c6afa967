//! Choosing an engine: by name, which is strict, or `auto`, which proves one after the other and
//! says why it passed some over.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::calls::{Calls, Policy};
use crate::engine::uring::Uring;

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
    /// Readiness by `epoll(7)`; file ops on a pool of threads.
    Epoll,
    /// Every op on a pool of threads, as POSIX AIO does.
    Threads,
    /// File ops by blocking calls on the driver's thread: the baseline.
    Blocking,
}

impl EngineName {
    /// Every engine, without `Auto`.
    pub const ALL: &'static [EngineName] =
        &[EngineName::Uring, EngineName::Epoll, EngineName::Threads, EngineName::Blocking];

    /// The name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            EngineName::Auto => "auto",
            EngineName::Uring => "uring",
            EngineName::Epoll => "epoll",
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
    /// The most threads of the pool, at least 1.
    pub threads_max: usize,
    /// What the names of the pool's threads start with.
    pub thread_name: String,
    /// How long the end of a driver waits for ops that do not end when cancelled.
    pub shutdown_time_max: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            engine: EngineName::Auto,
            queue_entries: 256,
            threads_max: 16,
            thread_name: "omniring-pool".to_owned(),
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
    /// A system call failed while setting up.
    Io(io::Error),
    /// The environment variable names no engine.
    Variable(UnknownEngine),
    /// An argument is out of its range.
    Argument(&'static str),
}

impl StartError {
    fn remedy(&self) -> &'static str {
        let Cause::Io(error) = &self.cause else {
            return "";
        };
        match (self.engine, error.raw_os_error()) {
            (EngineName::Uring, Some(libc::EPERM)) => {
                "io_uring is forbidden: check `sysctl kernel.io_uring_disabled` and the \
                 container's seccomp profile, or use engine 'epoll'"
            }
            (EngineName::Uring, Some(libc::ENOSYS)) => {
                "this needs Linux 5.11 or a seccomp profile that does not hide io_uring; or use \
                 engine 'epoll'"
            }
            (EngineName::Uring, Some(libc::ENOMEM)) => {
                "too little locked memory: raise `ulimit -l` or ask for fewer queue entries"
            }
            (_, Some(libc::EMFILE | libc::ENFILE)) => "too many open files: raise `ulimit -n`",
            (_, Some(libc::EAGAIN)) => "no more threads: raise `ulimit -u` or the pids limit",
            _ => "use another engine, or see the error's meaning in the man page",
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Io(error) => {
                write!(f, "engine '{}' does not start: {error}; {}", self.engine, self.remedy())
            }
            Cause::Variable(error) => write!(f, "{ENGINE_VARIABLE}: {error}"),
            Cause::Argument(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Io(error) => Some(error),
            Cause::Variable(error) => Some(error),
            Cause::Argument(_) => None,
        }
    }
}

/// The engine that runs, and why.
pub(crate) fn start(config: &Config) -> Result<(EngineName, Box<dyn Engine>, String), StartError> {
    let argument = |what| Err(StartError { engine: config.engine, cause: Cause::Argument(what) });
    if !(1..=32_768).contains(&config.queue_entries) {
        return argument("queue entries must be between 1 and 32768");
    }
    if config.threads_max == 0 {
        return argument("the pool needs at least 1 thread");
    }
    let (wanted, by) = match std::env::var(ENGINE_VARIABLE) {
        Ok(name) if !name.is_empty() => match name.parse() {
            Ok(engine) => (engine, ENGINE_VARIABLE),
            Err(error) => {
                let cause = Cause::Variable(error);
                return Err(StartError { engine: config.engine, cause });
            }
        },
        _ => (config.engine, "the program"),
    };
    if wanted != EngineName::Auto {
        let engine = start_named(wanted, config)?;
        return Ok((wanted, engine, format!("{wanted}: chosen by {by}")));
    }
    let mut passed_over = String::new();
    let mut last_error = None;
    for name in [EngineName::Uring, EngineName::Epoll] {
        match start_named(name, config) {
            Ok(engine) => return Ok((name, engine, format!("{name}: works here{passed_over}"))),
            Err(error) => {
                passed_over.push_str(&format!("; {error}"));
                last_error = Some(error);
            }
        }
    }
    Err(last_error.expect("at least one engine was tried"))
}

fn start_named(name: EngineName, config: &Config) -> Result<Box<dyn Engine>, StartError> {
    let Config { threads_max, thread_name, queue_entries, .. } = config;
    let calls = |policy| {
        Calls::new(policy, *threads_max, thread_name).map(|engine| Box::new(engine) as Box<_>)
    };
    let started: io::Result<Box<dyn Engine>> = match name {
        EngineName::Auto => unreachable!("resolved by the caller"),
        EngineName::Uring => Uring::new(*queue_entries, *threads_max, thread_name)
            .map(|engine| Box::new(engine) as Box<_>),
        EngineName::Epoll => calls(Policy::Epoll),
        EngineName::Threads => calls(Policy::Threads),
        EngineName::Blocking => calls(Policy::Blocking),
    };
    started.map_err(|error| StartError { engine: name, cause: Cause::Io(error) })
}
