//! What tasks cost, apart from I/O: the same work on each runtime, so many times.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{compio_peer, monoio_peer, tokio_peer};

/// A runtime whose tasks are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskRuntime {
    Omniring,
    Tokio,
    Monoio,
    Compio,
}

impl TaskRuntime {
    pub const ALL: [TaskRuntime; 4] = [
        TaskRuntime::Omniring,
        TaskRuntime::Tokio,
        TaskRuntime::Monoio,
        TaskRuntime::Compio,
    ];

    pub fn name(self) -> &'static str {
        match self {
            TaskRuntime::Omniring => "omniring",
            TaskRuntime::Tokio => "tokio",
            TaskRuntime::Monoio => "monoio",
            TaskRuntime::Compio => "compio",
        }
    }
}

/// What is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// A task spawns an empty one and waits for it
    Spawn,
    /// The same from the future of `block_on`
    SpawnFromMain,
    /// A task wakes another one and waits until it is woken by it
    Wake,
    /// A task lets the others run, of which there are none
    Yield,
    /// A timer is armed and cancelled
    Timer,
    /// Tasks that wait for ever: their memory, without their future, which has none
    Idle,
}

impl Work {
    /// Those whose instructions are counted.
    pub const COUNTED: [Work; 5] = [
        Work::Spawn,
        Work::SpawnFromMain,
        Work::Wake,
        Work::Yield,
        Work::Timer,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Work::Spawn => "spawn",
            Work::SpawnFromMain => "spawn-from-main",
            Work::Wake => "wake",
            Work::Yield => "yield",
            Work::Timer => "timer",
            Work::Idle => "idle",
        }
    }

    /// What a figure is of.
    pub fn title(self) -> &'static str {
        match self {
            Work::Spawn => "spawn and join of an empty task",
            Work::SpawnFromMain => "the same, from block_on",
            Work::Wake => "wake-up between two tasks",
            Work::Yield => "a task yields",
            Work::Timer => "timer armed and cancelled",
            Work::Idle => "idle task",
        }
    }
}

/// One kind of work on one runtime.
#[derive(Args)]
pub struct TaskJob {
    #[arg(long)]
    runtime: TaskRuntime,
    #[arg(long)]
    work: Work,
    /// How often
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
}

/// Carries the job out: nanoseconds for each time, or bytes for each idle task.
pub fn run(job: &TaskJob) -> Result<f64> {
    match job.runtime {
        TaskRuntime::Omniring => on_omniring(job.work, job.count),
        TaskRuntime::Tokio => on_tokio(job.work, job.count),
        TaskRuntime::Monoio => on_monoio(job.work, job.count),
        TaskRuntime::Compio => on_compio(job.work, job.count),
    }
}

/// Writes `work`, an `async fn` that carries the work out by these functions of a runtime's.
macro_rules! work_with {
    (spawn: $spawn:path, detach: $detach:expr, sleep: $sleep:path) => {
        async fn spawn_and_join(count: u64) {
            for _ in 0..count {
                let _ = $spawn(async {}).await;
            }
        }

        async fn work(work: Work, count: u64) -> Result<f64> {
            let started = Instant::now();
            match work {
                Work::SpawnFromMain => spawn_and_join(count).await,
                Work::Spawn => {
                    let _ = $spawn(spawn_and_join(count)).await;
                }
                Work::Wake => {
                    let table = Rc::new(Table::default());
                    // Each is woken every other time.
                    let other = $spawn(play(table.clone(), 1, count / 2));
                    let _ = $spawn(play(table, 0, count / 2)).await;
                    let _ = other.await;
                }
                Work::Yield => {
                    let _ = $spawn(async move {
                        for _ in 0..count {
                            yield_once().await;
                        }
                    })
                    .await;
                }
                Work::Timer => {
                    let _ = $spawn(async move {
                        for _ in 0..count {
                            let mut sleep = pin!($sleep(Duration::from_secs(3600)));
                            poll_fn(|cx| {
                                assert!(sleep.as_mut().poll(cx).is_pending());
                                Poll::Ready(())
                            })
                            .await;
                        }
                    })
                    .await;
                }
                Work::Idle => {
                    let mut before = 0;
                    // The first batch lets queues and tables grow to what they need.
                    for batch in 0..=count.div_ceil(IDLE_BATCH) {
                        if batch == 1 {
                            before = heap_bytes();
                        }
                        for _ in 0..IDLE_BATCH {
                            $detach($spawn(pending::<()>()));
                        }
                        for _ in 0..2 * IDLE_BATCH {
                            yield_once().await;
                        }
                    }
                    let bytes = heap_bytes().saturating_sub(before);
                    let idle_count = count.div_ceil(IDLE_BATCH) * IDLE_BATCH;
                    return Ok(bytes as f64 / idle_count as f64);
                }
            }
            Ok(started.elapsed().as_secs_f64() * 1e9 / count as f64)
        }
    };
}

/// Idle tasks between two looks at them.
const IDLE_BATCH: u64 = 1000;

/// Between two tasks: whose turn it is, and who waits.
#[derive(Default)]
struct Table {
    turn: Cell<usize>,
    waiting: RefCell<[Option<Waker>; 2]>,
}

/// Waits for its turn, and gives it to the other one, so many times.
async fn play(table: Rc<Table>, me: usize, count: u64) {
    for _ in 0..count {
        poll_fn(|cx| {
            if table.turn.get() == me {
                return Poll::Ready(());
            }
            table.waiting.borrow_mut()[me] = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        table.turn.set(1 - me);
        let other = table.waiting.borrow_mut()[1 - me].take();
        if let Some(waker) = other {
            waker.wake();
        }
    }
}

/// Lets the others run, in the same way on each runtime.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Bytes that are allocated, as the allocator accounts for them.
fn heap_bytes() -> usize {
    // SAFETY: it reads the allocator's own figures.
    let info = unsafe { libc::mallinfo2() };
    black_box(info.uordblks + info.hblkhd)
}

fn on_omniring(work_: Work, count: u64) -> Result<f64> {
    work_with! { spawn: omniring::spawn, detach: drop, sleep: omniring::time::sleep }
    let runtime = omniring::Runtime::builder()
        .engine(omniring::Engine::Uring)
        .build()?;
    runtime.block_on(work(work_, count))
}

fn on_tokio(work_: Work, count: u64) -> Result<f64> {
    work_with! { spawn: tokio::task::spawn_local, detach: drop, sleep: tokio::time::sleep }
    tokio_peer::runtime_with_time()?.block_on(work(work_, count))
}

fn on_monoio(work_: Work, count: u64) -> Result<f64> {
    work_with! { spawn: monoio::spawn, detach: drop, sleep: monoio::time::sleep }
    monoio_peer::runtime_with_time()?.block_on(work(work_, count))
}

fn on_compio(work_: Work, count: u64) -> Result<f64> {
    work_with! {
        spawn: compio::runtime::spawn,
        detach: compio::runtime::JoinHandle::detach,
        sleep: compio::time::sleep
    }
    compio_peer::runtime()?.block_on(work(work_, count))
}
