//! Two cores of one runtime that send each other work.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use omniring::Runtime;

use crate::clock;
use crate::measure::Latency;
use crate::subject::Subject;
use crate::workload::Talk;

/// Messages between two looks at the clock, and at how far the other core is.
const BURST: u64 = 4096;

/// Two cores: the one that the subject runs on, and another.
pub(super) struct CoresSubject {
    runtime: Runtime,
    talk: Talk,
}

impl CoresSubject {
    pub(super) fn new(runtime: Runtime, talk: Talk) -> CoresSubject {
        CoresSubject { runtime, talk }
    }
}

thread_local! {
    /// Messages that this core has handled.
    static HANDLED: Cell<u64> = const { Cell::new(0) };
}

impl Subject for CoresSubject {
    fn run(&mut self, length: Duration, latency: &mut Latency) -> io::Result<u64> {
        match self.talk {
            Talk::RoundTrips => self.runtime.block_on(round_trips(length, latency)),
            Talk::Messages => self.runtime.block_on(messages(length)),
        }
    }
}

/// A task on the other core, awaited, one after the other: both cores sleep in between.
async fn round_trips(length: Duration, latency: &mut Latency) -> io::Result<u64> {
    let mut start = clock::now();
    let deadline = start + length;
    let mut ops = 0;
    while start < deadline {
        omniring::spawn_on(1, || async {}).await.map_err(gone)?;
        let now = clock::now();
        latency.record(now - start);
        start = now;
        ops += 1;
    }
    Ok(ops)
}

/// Messages, as many as the other core handles: at most two bursts are on the way.
async fn messages(length: Duration) -> io::Result<u64> {
    let before = handled().await?;
    let deadline = clock::now() + length;
    let mut last = None;
    while clock::now() < deadline {
        for _ in 0..BURST {
            omniring::send_to(1, || HANDLED.set(HANDLED.get() + 1));
        }
        // It is answered when all before it were handled.
        let answer = omniring::spawn_on(1, || async {});
        if let Some(last) = last.replace(answer) {
            last.await.map_err(gone)?;
        }
    }
    Ok(handled().await? - before)
}

async fn handled() -> io::Result<u64> {
    omniring::spawn_on(1, || async { HANDLED.get() }).await.map_err(gone)
}

fn gone(error: omniring::JoinError) -> io::Error {
    io::Error::other(format!("the other core: {error}"))
}
