//! Trying the engines: a file, a connection and a timer.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Status, Verdict};
use crate::choice::{Chosen, Config, ENGINE_VARIABLE, EngineName, LADDER, start_named};
use crate::diagnosis::{Diagnosis, Failure, Step};
use crate::driver::Driver;
use crate::engine::Support;
use crate::engine::uring::features::memory_file;
use crate::op::{Opcode, Position};
use crate::{OpFuture, Operation, SharedHandle, ops};

/// How long the ops of one engine may take together.
const TIME_MAX: Duration = Duration::from_secs(4);

fn config(engine: EngineName) -> Config {
    let shutdown_time_max = Duration::from_secs(1);
    Config { engine, threads_max: 1, shutdown_time_max, ..Config::default() }
}

/// What `auto` takes here.
pub(super) fn check_auto() -> Verdict {
    let mut passed_over: Vec<(EngineName, Diagnosis)> = Vec::new();
    for &name in LADDER {
        match try_engine(name) {
            Ok(_) => {
                let mut diagnosis = Diagnosis::new(format!("{name}: the best there is"), "");
                if let Some((_, why)) = passed_over.first() {
                    let others = passed_over.iter().map(|(name, _)| name.name());
                    let others = others.collect::<Vec<_>>().join(" and ");
                    diagnosis.reason = format!("{name}, because {others} does not work");
                    diagnosis.remedy = why.remedy.clone();
                }
                let falls_back = !passed_over.is_empty();
                let status = if falls_back { Status::FallsBack } else { Status::Works };
                if let Ok(value) = std::env::var(ENGINE_VARIABLE)
                    && !value.is_empty()
                {
                    diagnosis.reason += &format!("; {ENGINE_VARIABLE}={value} overrides it");
                }
                return Verdict::new(status, diagnosis).with_value(name.name());
            }
            Err(why) => passed_over.push((name, why)),
        }
    }
    let why = passed_over.pop().map(|(_, why)| why);
    let why = why.unwrap_or_else(|| Diagnosis::new("no engine works", "another kernel"));
    Verdict::new(Status::Missing, why)
}

/// Whether an engine works, and how it carries out ops.
pub(super) fn check(engine: EngineName) -> Verdict {
    match try_engine(engine) {
        Ok(said) => Verdict::works(said),
        Err(why) => Verdict::new(Status::Missing, why),
    }
}

fn try_engine(name: EngineName) -> Result<String, Diagnosis> {
    let config = config(name);
    let (engine, remark) = start_named(name, &config)
        .map_err(|error| Diagnosis::new(error.reason(), error.remedy()))?;
    let count =
        |support| Opcode::ALL.iter().filter(|&&opcode| engine.support(opcode) == support).count();
    let counts = [Support::Native, Support::Inline, Support::Offloaded, Support::Unsupported];
    let counts = counts.map(|support| (count(support), support.name()));
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts = counts.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>();
    let choice = String::new();
    let driver = Rc::new(Driver::from_chosen(Chosen { name, engine, choice }, &config));
    use_driver(&driver)
        .map_err(|error| Diagnosis::of_calls(&Failure { step: Step::Prove, error }))?;
    Ok(format!("ops: {}{remark}", counts.join(", ")))
}

/// Writes and reads a file, sends over a connection, and waits for the clock.
fn use_driver(driver: &Rc<Driver>) -> io::Result<()> {
    let deadline = crate::clock::now() + TIME_MAX;
    let file = SharedHandle::adopt(driver, memory_file()?.into());
    let (count, _) = drive(driver, ops::write(&file, "to a file", Position::At(3)), deadline)?;
    expect(count? == 9)?;
    let read = ops::read(&file, Vec::with_capacity(16), Position::At(3));
    let (count, buf) = drive(driver, read, deadline)?;
    expect(count? == 9 && buf == b"to a file")?;

    let (mut here, there) = UnixStream::pair()?;
    let there = SharedHandle::adopt(driver, OwnedFd::from(there));
    let recv = ops::recv(&there, Vec::with_capacity(16), 0);
    here.write_all(b"to a peer")?;
    let (count, buf) = drive(driver, recv, deadline)?;
    expect(count? == 9 && buf == b"to a peer")?;

    drive(driver, ops::timeout(driver, Duration::from_millis(1)), deadline).map(drop)
}

fn expect(holds: bool) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other("an op did not do what it says")) }
}

/// Turns the driver until the op has ended.
fn drive<O: Operation>(
    driver: &Driver,
    future: OpFuture<O>,
    deadline: crate::clock::Instant,
) -> io::Result<O::Output> {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Ok(output);
        }
        if crate::clock::now() >= deadline {
            return Err(io::Error::other("an op does not end"));
        }
        driver.turn(true, Some(deadline), || false)?;
    }
}
