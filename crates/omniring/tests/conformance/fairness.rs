//! Fairness: however busy tasks are, I/O and timers are looked at after a bounded number of polls;
//! and who keeps the core too long is reported by name.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::Write;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use omniring::time::{Instant, now, sleep, sleep_until, timeout};
use omniring::{JoinHandle, Runtime, spawn, spawn_blocking, spawn_named, yield_now};

use crate::harness::conformance;
use crate::loopback::{tcp_pair, tcp_pair_with_std};

conformance!(
    a_thousand_busy_tasks_do_not_starve_io,
    two_tasks_that_wake_each_other_do_not_starve_io,
    tasks_that_spawn_their_successors_do_not_starve_io,
    a_future_of_block_on_that_spins_does_not_starve_io,
    a_timer_waits_for_a_bounded_number_of_polls_of_one_task,
    a_timer_waits_for_a_bounded_number_of_polls_of_a_thousand_tasks,
    busy_tasks_take_turns,
    a_timer_that_is_due_goes_before_who_yields,
    what_has_arrived_goes_before_who_yields,
    a_hog_is_reported_by_its_name,
    a_hog_without_a_name_is_reported_by_its_type,
    the_future_of_block_on_is_reported,
    tasks_that_are_quick_are_not_reported,
    a_report_may_spawn,
    a_name_goes_with_its_task,
);

const SOON: Duration = Duration::from_secs(30);
/// Polls of tasks between two looks at I/O and timers: `TASKS_PER_TURN` in the executor.
const POLLS_PER_TURN: usize = 128;
const CROWD: usize = 1000;

/// Tasks that end when dropped.
struct Busy(Vec<JoinHandle<()>>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// So many tasks that yield for ever.
fn busy(count: usize) -> Busy {
    let spin = async || {
        loop {
            yield_now().await;
        }
    };
    Busy((0..count).map(|_| spawn(spin())).collect())
}

/// Sockets, timers and the pool of threads, all of which go on.
async fn io_goes_on() {
    let (client, server) = tcp_pair().await;
    let echo = spawn(async move {
        for _ in 0..10 {
            let (result, buf) = server.recv_into(Vec::with_capacity(8)).await;
            result.unwrap();
            server.send_all(buf).await.0.unwrap();
        }
    });
    let rounds = async {
        for _ in 0..10 {
            client.send_all("x").await.0.unwrap();
            assert_eq!(client.recv_into(vec![0; 8]).await.0.unwrap(), 1);
        }
        sleep(Duration::from_millis(2)).await;
        spawn_blocking(|| ()).await.unwrap();
    };
    timeout(SOON, rounds).await.unwrap();
    echo.await.unwrap();
}

fn a_thousand_busy_tasks_do_not_starve_io(runtime: &Runtime) {
    runtime.block_on(async {
        let _busy = busy(CROWD);
        io_goes_on().await;
        // From a task too, which has to wait for its turn as they do.
        spawn(io_goes_on()).await.unwrap();
    });
}

fn two_tasks_that_wake_each_other_do_not_starve_io(runtime: &Runtime) {
    runtime.block_on(async {
        let wakers: Rc<[RefCell<Option<Waker>>; 2]> = Rc::default();
        let player = |me: usize| {
            let wakers = wakers.clone();
            spawn(poll_fn(move |cx| {
                let other = wakers[1 - me].borrow_mut().take();
                *wakers[me].borrow_mut() = Some(cx.waker().clone());
                other.into_iter().for_each(Waker::wake);
                Poll::Pending
            }))
        };
        let _players = Busy(vec![player(0), player(1)]);
        yield_now().await;
        io_goes_on().await;
    });
}

fn tasks_that_spawn_their_successors_do_not_starve_io(runtime: &Runtime) {
    fn succeed(stop: Rc<Cell<bool>>) {
        drop(spawn(async move {
            if !stop.get() {
                succeed(stop);
            }
        }));
    }
    runtime.block_on(async {
        let stop = Rc::new(Cell::new(false));
        succeed(stop.clone());
        io_goes_on().await;
        stop.set(true);
    });
}

fn a_future_of_block_on_that_spins_does_not_starve_io(runtime: &Runtime) {
    runtime.block_on(async {
        let io = spawn(io_goes_on());
        while !io.is_finished() {
            yield_now().await;
        }
        io.await.unwrap();
    });
}

/// Counts the polls of all busy tasks from `due` on until somebody stops it.
struct Count {
    due: Instant,
    polls: Cell<usize>,
    stopped: Cell<bool>,
}

/// Polls of so many busy tasks that a timer had to wait for.
fn polls_before_a_timer(runtime: &Runtime, tasks: usize) -> usize {
    runtime.block_on(async {
        let deadline = now() + Duration::from_millis(20);
        let count = Rc::new(Count {
            // A timer may be late by two ticks of 16 microseconds.
            due: deadline + Duration::from_micros(40),
            polls: Cell::new(0),
            stopped: Cell::new(false),
        });
        let spin = async |count: Rc<Count>| {
            while !count.stopped.get() {
                count.polls.set(count.polls.get() + usize::from(now() >= count.due));
                yield_now().await;
            }
        };
        let sleeper = spawn({
            let count = count.clone();
            async move {
                sleep_until(deadline).await;
                count.stopped.set(true);
            }
        });
        let _busy = Busy((0..tasks).map(|_| spawn(spin(count.clone()))).collect());
        timeout(SOON, sleeper).await.unwrap().unwrap();
        count.polls.get()
    })
}

fn a_timer_waits_for_a_bounded_number_of_polls_of_one_task(runtime: &Runtime) {
    let polls = polls_before_a_timer(runtime, 1);
    // Until the runtime looks, and then the one that is before the sleeper in the queue.
    assert!(polls <= POLLS_PER_TURN + 1, "{polls} polls");
}

fn a_timer_waits_for_a_bounded_number_of_polls_of_a_thousand_tasks(runtime: &Runtime) {
    // The same with a thousand in the queue.
    let polls = polls_before_a_timer(runtime, CROWD);
    assert!(polls <= POLLS_PER_TURN + CROWD, "{polls} polls");
}

fn busy_tasks_take_turns(runtime: &Runtime) {
    runtime.block_on(async {
        let counts: Rc<[Cell<u32>; 10]> = Rc::default();
        let count = async |counts: Rc<[Cell<u32>; 10]>, at: usize| {
            for _ in 0..1000 {
                counts[at].set(counts[at].get() + 1);
                let all = || counts.iter().map(Cell::get);
                let (least, most) = (all().min().unwrap(), all().max().unwrap());
                assert!(most - least <= 1, "{least} to {most}");
                yield_now().await;
            }
        };
        let tasks: Vec<_> = (0..10).map(|at| spawn(count(counts.clone(), at))).collect();
        for task in tasks {
            timeout(SOON, task).await.unwrap().unwrap();
        }
    });
}

fn a_timer_that_is_due_goes_before_who_yields(runtime: &Runtime) {
    async fn yields(count: usize) {
        let deadline = now() + Duration::from_millis(1);
        let sleeper = spawn(sleep_until(deadline));
        // It begins to wait.
        yield_now().await;
        // A timer may be late by two ticks of 16 microseconds.
        while now() < deadline + Duration::from_micros(40) {
            std::hint::spin_loop();
        }
        for _ in 0..count {
            yield_now().await;
        }
        assert!(sleeper.is_finished());
    }
    runtime.block_on(async {
        spawn(yields(1)).await.unwrap();
        // This one goes on when the timer has woken the task, which runs then.
        yields(2).await;
    });
}

fn what_has_arrived_goes_before_who_yields(runtime: &Runtime) {
    /// Fewer polls than there are in a turn in any case.
    const ROUNDS: u32 = 12;
    const YIELDS: usize = 4;

    async fn yields() {
        let (ours, mut peer) = tcp_pair_with_std().await;
        let receiver = spawn(async move { ours.recv_into(vec![0; 8]).await.0.unwrap() });
        yield_now().await;
        peer.write_all(b"x").unwrap();
        for round in 0..ROUNDS {
            // Where another thread receives it, that takes some time.
            std::thread::sleep(Duration::from_millis(1 << round));
            for _ in 0..YIELDS {
                yield_now().await;
            }
            if receiver.is_finished() {
                return assert_eq!(receiver.await.unwrap(), 1);
            }
        }
        panic!("it is not received");
    }
    runtime.block_on(async {
        yields().await;
        spawn(yields()).await.unwrap();
    });
}

/// What was reported: names.
type Reports = Arc<Mutex<Vec<String>>>;

/// A runtime on the same engine that reports what takes so long.
fn reporting(runtime: &Runtime, threshold: Duration) -> (Runtime, Reports) {
    let reports = Reports::default();
    let reported = reports.clone();
    let builder = Runtime::builder().engine(runtime.engine());
    let builder = builder.report_hogs_to(threshold, move |hog| {
        assert!(hog.time >= threshold);
        reported.lock().unwrap().push(hog.name.to_owned());
    });
    (builder.build().unwrap(), reports)
}

/// A threshold, and what is longer.
const THRESHOLD: Duration = Duration::from_millis(5);

fn hog_the_core() {
    let start = now();
    while start.elapsed() < THRESHOLD {
        std::hint::spin_loop();
    }
}

fn has(reports: &Reports, name: &str) -> bool {
    reports.lock().unwrap().iter().any(|reported| reported == name)
}

fn a_hog_is_reported_by_its_name(runtime: &Runtime) {
    let (runtime, reports) = reporting(runtime, THRESHOLD);
    let hog = runtime.spawn_named("at its first poll", async { hog_the_core() });
    runtime.block_on(async {
        hog.await.unwrap();
        let later = spawn_named(format!("later {}", 7), async {
            yield_now().await;
            hog_the_core();
            yield_now().await;
        });
        later.await.unwrap();
        let panics = spawn_named("that panics", async {
            hog_the_core();
            panic!("as asked");
        });
        panics.await.unwrap_err();
    });
    for name in ["at its first poll", "later 7", "that panics"] {
        assert!(has(&reports, name), "{name} in {reports:?}");
    }
}

fn a_hog_without_a_name_is_reported_by_its_type(runtime: &Runtime) {
    async fn index_everything() {
        hog_the_core();
    }
    let (runtime, reports) = reporting(runtime, THRESHOLD);
    runtime.block_on(async { spawn(index_everything()).await.unwrap() });
    let reports = reports.lock().unwrap();
    assert!(reports.iter().any(|name| name.contains("index_everything")), "{reports:?}");
}

fn the_future_of_block_on_is_reported(runtime: &Runtime) {
    let (runtime, reports) = reporting(runtime, THRESHOLD);
    runtime.block_on(async { hog_the_core() });
    assert!(has(&reports, "the future of block_on"), "{reports:?}");
}

fn tasks_that_are_quick_are_not_reported(runtime: &Runtime) {
    let (runtime, reports) = reporting(runtime, SOON);
    runtime.block_on(async {
        spawn_named("quick", io_goes_on()).await.unwrap();
        // What it waits for is not its own time.
        spawn_named("waits", sleep(THRESHOLD)).await.unwrap();
    });
    assert!(reports.lock().unwrap().is_empty(), "{reports:?}");
}

fn a_report_may_spawn(runtime: &Runtime) {
    let spawned = Arc::new(Mutex::new(0));
    let counted = spawned.clone();
    let builder = Runtime::builder().engine(runtime.engine());
    let builder = builder.report_hogs_to(THRESHOLD, move |_| {
        let counted = counted.clone();
        drop(spawn_named("counts", async move { *counted.lock().unwrap() += 1 }));
    });
    let runtime = builder.build().unwrap();
    runtime.block_on(async {
        spawn(async { hog_the_core() }).await.unwrap();
        let counted = async {
            while *spawned.lock().unwrap() == 0 {
                yield_now().await;
            }
        };
        timeout(SOON, counted).await.unwrap();
    });
}

/// The next task, which may well be where that one was, has none.
fn a_name_goes_with_its_task(runtime: &Runtime) {
    let (runtime, reports) = reporting(runtime, THRESHOLD);
    runtime.block_on(async {
        for _ in 0..10 {
            spawn_named("gone", async {}).await.unwrap();
            let aborted = spawn_named("gone", std::future::pending::<()>());
            aborted.abort();
            aborted.await.unwrap_err();
            spawn(async { hog_the_core() }).await.unwrap();
        }
    });
    // What is gone may have been slow as well, on a busy machine.
    let reports = reports.lock().unwrap();
    let unnamed = reports.iter().filter(|name| name.contains("a_name_goes_with_its_task"));
    assert!(unnamed.count() >= 10, "{reports:?}");
}
