//! Tasks: how they end, who wakes them, and that none keeps the core from the others.

// Waking by value, and what becomes of the clone, is what some of these are about.
#![allow(clippy::waker_clone_wake)]

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc as std_mpsc};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use omniring::sync::{Notify, Semaphore, mpsc, oneshot};
use omniring::time::{sleep, timeout};
use omniring::{JoinError, Runtime, spawn, spawn_blocking, yield_now};

use crate::harness::{conformance, thread_count};
use crate::loopback::tcp_pair;

conformance!(
    a_handle_yields_the_output,
    a_panic_is_carried_to_the_joiner,
    a_task_aborted_before_its_first_poll_never_runs,
    a_task_aborted_while_it_waits_drops_its_future,
    a_task_that_aborts_itself_ends_at_its_next_wait,
    a_task_aborted_after_it_finished_keeps_its_output,
    an_abort_cancels_the_ops_of_the_task,
    a_task_whose_handle_is_dropped_runs_on,
    an_output_nobody_takes_is_dropped_once,
    an_output_nobody_takes_is_dropped_while_wakers_are_left,
    a_destructor_that_panics_does_not_stop_the_others,
    a_future_is_dropped_on_its_thread_when_its_waker_is_elsewhere,
    a_task_is_polled_once_for_wakes_before_its_turn,
    a_task_that_wakes_itself_while_it_runs_is_polled_again,
    a_waker_of_a_finished_task_does_nothing,
    a_waker_outlives_its_runtime,
    wakers_work_from_another_thread_in_every_form,
    four_threads_that_wake_one_task_lose_no_wake,
    yielding_lets_the_others_run,
    a_hundred_thousand_tasks_run,
    a_task_that_yields_for_ever_does_not_starve_io_or_timers,
    a_task_whose_ops_complete_at_once_does_not_starve_the_others,
    tasks_spawned_by_tasks_run,
    tasks_spawned_outside_run_in_the_next_block_on,
    a_blocking_call_yields_its_result,
    a_panic_of_a_blocking_call_is_carried_to_the_caller,
    a_blocking_call_nobody_waits_for_runs_all_the_same,
    blocking_calls_do_not_hold_up_tasks,
    blocking_calls_that_wait_for_io_do_not_stop_it,
    channels_connect_tasks,
    channels_connect_threads_and_tasks,
    a_sleeping_runtime_hears_every_wake;
    isolated:
    blocking_calls_use_no_more_threads_than_allowed,
    blocking_calls_not_begun_are_dropped_at_shutdown,
    finished_tasks_leave_no_memory_behind,
);

const SOON: Duration = Duration::from_secs(30);

/// Counts its drops, and on which thread they happen.
#[derive(Clone)]
struct DropCount(Arc<(AtomicUsize, ThreadId)>);

impl DropCount {
    fn new() -> (DropCount, DropGuard) {
        let count = DropCount(Arc::new((AtomicUsize::new(0), thread::current().id())));
        let guard = DropGuard(count.clone());
        (count, guard)
    }

    fn count(&self) -> usize {
        self.0.0.load(SeqCst)
    }
}

struct DropGuard(DropCount);

impl Drop for DropGuard {
    fn drop(&mut self) {
        let (count, thread) = &*self.0.0;
        assert_eq!(*thread, thread::current().id(), "dropped on the thread it belongs to");
        count.fetch_add(1, SeqCst);
    }
}

fn a_handle_yields_the_output(runtime: &Runtime) {
    runtime.block_on(async {
        let task = spawn(async { "output".to_string() });
        assert!(!task.is_finished());
        yield_now().await;
        assert!(task.is_finished());
        assert_eq!(task.await.unwrap(), "output");
        // It need not be Send.
        let local = Rc::new(5);
        assert_eq!(*spawn(async move { local }).await.unwrap(), 5);
    });
}

fn a_panic_is_carried_to_the_joiner(runtime: &Runtime) {
    runtime.block_on(async {
        let (count, guard) = DropCount::new();
        let number = std::hint::black_box(1);
        let task = spawn(async move {
            let _guard = guard;
            yield_now().await;
            panic!("carried {number}");
        });
        let error: JoinError = task.await.unwrap_err();
        assert!(!error.is_aborted());
        assert_eq!(error.to_string(), "the task panicked: carried 1");
        assert_eq!(count.count(), 1, "the future is gone");
        let JoinError::Panicked(payload) = error else { panic!("it is a panic") };
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "carried 1");
        // The others never noticed.
        assert_eq!(spawn(async { 1 }).await.unwrap(), 1);
    });
}

fn a_task_aborted_before_its_first_poll_never_runs(runtime: &Runtime) {
    runtime.block_on(async {
        let ran = Rc::new(Cell::new(false));
        let (count, guard) = DropCount::new();
        let task = spawn({
            let ran = ran.clone();
            async move {
                let _guard = guard;
                ran.set(true);
            }
        });
        task.abort();
        task.abort();
        assert!(task.await.unwrap_err().is_aborted());
        assert!(!ran.get());
        assert_eq!(count.count(), 1);
    });
}

fn a_task_aborted_while_it_waits_drops_its_future(runtime: &Runtime) {
    runtime.block_on(async {
        let (count, guard) = DropCount::new();
        let task = spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        yield_now().await;
        assert_eq!(count.count(), 0);
        task.abort();
        assert!(timeout(SOON, task).await.unwrap().unwrap_err().is_aborted());
        assert_eq!(count.count(), 1);
    });
}

fn a_task_that_aborts_itself_ends_at_its_next_wait(runtime: &Runtime) {
    runtime.block_on(async {
        let (send, receive) = oneshot::channel::<omniring::JoinHandle<()>>();
        let went_on = Rc::new(Cell::new(0));
        let task = spawn({
            let went_on = went_on.clone();
            async move {
                let myself = receive.await.unwrap();
                myself.abort();
                went_on.set(1);
                yield_now().await;
                went_on.set(2);
            }
        });
        send.send(task).unwrap();
        timeout(SOON, async {
            while runtime.stats().task_count > 0 {
                yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(went_on.get(), 1);

        // One that finishes in the same poll keeps its output.
        let (send, receive) = oneshot::channel::<Rc<omniring::JoinHandle<i32>>>();
        let task = Rc::new(spawn(async move {
            receive.await.unwrap().abort();
            7
        }));
        send.send(task.clone()).unwrap();
        while !task.is_finished() {
            yield_now().await;
        }
        assert_eq!(Rc::into_inner(task).unwrap().await.unwrap(), 7);
    });
}

fn a_task_aborted_after_it_finished_keeps_its_output(runtime: &Runtime) {
    runtime.block_on(async {
        let task = spawn(async { 3 });
        yield_now().await;
        assert!(task.is_finished());
        task.abort();
        yield_now().await;
        assert_eq!(task.await.unwrap(), 3);
    });
}

fn an_abort_cancels_the_ops_of_the_task(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let task = spawn(async move { server.recv_into(vec![0; 64]).await.0 });
        yield_now().await;
        yield_now().await;
        assert!(runtime.stats().in_flight_count > 0);
        task.abort();
        assert!(timeout(SOON, task).await.unwrap().unwrap_err().is_aborted());
        // The socket went with the op, so that the peer sees the end.
        let (result, _) = timeout(SOON, client.recv_into(vec![0; 8])).await.unwrap();
        assert_eq!(result.unwrap(), 0);
    });
}

fn a_task_whose_handle_is_dropped_runs_on(runtime: &Runtime) {
    runtime.block_on(async {
        let (send, receive) = oneshot::channel();
        drop(spawn(async move {
            sleep(Duration::from_millis(1)).await;
            send.send("done").unwrap();
        }));
        assert_eq!(timeout(SOON, receive).await.unwrap().unwrap(), "done");
    });
}

fn an_output_nobody_takes_is_dropped_once(runtime: &Runtime) {
    runtime.block_on(async {
        // The handle goes before the task finishes, after, and with the runtime's turn between.
        for turns in [0, 1, 3] {
            let (count, guard) = DropCount::new();
            let task = spawn(async move { guard });
            for _ in 0..turns {
                yield_now().await;
            }
            drop(task);
            yield_now().await;
            yield_now().await;
            assert_eq!(count.count(), 1, "after {turns} turns");
        }
    });
}

fn an_output_nobody_takes_is_dropped_while_wakers_are_left(runtime: &Runtime) {
    runtime.block_on(async {
        let (count, guard) = DropCount::new();
        let waker = Rc::new(RefCell::new(None));
        let task = spawn({
            let waker = waker.clone();
            async move {
                poll_fn(|cx| {
                    *waker.borrow_mut() = Some(cx.waker().clone());
                    Poll::Ready(())
                })
                .await;
                guard
            }
        });
        yield_now().await;
        assert!(task.is_finished() && count.count() == 0);
        drop(task);
        assert_eq!(count.count(), 1);
        let waker = waker.borrow_mut().take().unwrap();
        thread::spawn(move || drop(waker)).join().unwrap();
        assert_eq!(count.count(), 1);
    });
}

fn a_destructor_that_panics_does_not_stop_the_others(runtime: &Runtime) {
    struct PanicOnDrop;
    impl Drop for PanicOnDrop {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    runtime.block_on(async {
        let task = spawn(async {
            let _panics = PanicOnDrop;
            std::future::pending::<()>().await;
        });
        yield_now().await;
        task.abort();
        let error = timeout(SOON, task).await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the task panicked: in a destructor");
        drop(spawn(async { PanicOnDrop }));
        yield_now().await;
        assert_eq!(spawn(async { 1 }).await.unwrap(), 1);
    });
}

fn a_future_is_dropped_on_its_thread_when_its_waker_is_elsewhere(runtime: &Runtime) {
    runtime.block_on(async {
        for drops_waker_last in [false, true] {
            let (send, receive) = std_mpsc::channel::<Waker>();
            let (count, guard) = DropCount::new();
            let task = spawn(async move {
                let guard = guard;
                let mut polled = false;
                poll_fn(|cx| {
                    if std::mem::replace(&mut polled, true) {
                        return Poll::Ready(());
                    }
                    send.send(cx.waker().clone()).unwrap();
                    Poll::Pending
                })
                .await;
                guard
            });
            yield_now().await;
            let waker = receive.recv().unwrap();
            if drops_waker_last {
                // The task is aborted; the waker on the other thread is the last to know it.
                task.abort();
                yield_now().await;
                drop(task);
                thread::spawn(move || drop(waker)).join().unwrap();
            } else {
                drop(task);
                thread::spawn(move || waker.wake()).join().unwrap();
                timeout(SOON, async {
                    while count.count() == 0 {
                        yield_now().await;
                    }
                })
                .await
                .unwrap();
            }
            assert_eq!(count.count(), 1);
        }
    });
}

type SharedWaker = Rc<RefCell<Option<Waker>>>;

/// A task that counts how often it is polled and never finishes by itself.
fn poll_counter() -> (Rc<Cell<usize>>, SharedWaker, omniring::JoinHandle<()>) {
    let count = Rc::new(Cell::new(0));
    let waker = Rc::new(RefCell::new(None));
    let task = spawn({
        let (count, waker) = (count.clone(), waker.clone());
        poll_fn(move |cx| {
            count.set(count.get() + 1);
            *waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
    });
    (count, waker, task)
}

fn a_task_is_polled_once_for_wakes_before_its_turn(runtime: &Runtime) {
    runtime.block_on(async {
        let (count, waker, task) = poll_counter();
        yield_now().await;
        assert_eq!(count.get(), 1);
        let waker = waker.borrow().clone().unwrap();
        for _ in 0..100 {
            waker.wake_by_ref();
            waker.clone().wake();
        }
        yield_now().await;
        yield_now().await;
        assert_eq!(count.get(), 2);
        task.abort();
    });
}

fn a_task_that_wakes_itself_while_it_runs_is_polled_again(runtime: &Runtime) {
    runtime.block_on(async {
        for by_value in [false, true] {
            let mut left = 1000;
            let task = spawn(poll_fn(move |cx| {
                if left == 0 {
                    return Poll::Ready("polled");
                }
                left -= 1;
                if by_value {
                    cx.waker().clone().wake();
                } else {
                    cx.waker().wake_by_ref();
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }));
            assert_eq!(timeout(SOON, task).await.unwrap().unwrap(), "polled");
        }
    });
}

fn a_waker_of_a_finished_task_does_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (count, waker, task) = poll_counter();
        yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_aborted());
        let waker = waker.borrow_mut().take().unwrap();
        waker.wake_by_ref();
        let elsewhere = waker.clone();
        thread::spawn(move || elsewhere.wake()).join().unwrap();
        yield_now().await;
        waker.wake();
        yield_now().await;
        assert_eq!(count.get(), 1);
    });
}

fn a_waker_outlives_its_runtime(runtime: &Runtime) {
    let other = Runtime::builder().engine(runtime.engine()).build().unwrap();
    let (main, task) = other.block_on(async {
        let (_, waker, task) = poll_counter();
        yield_now().await;
        drop(task);
        let main = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        (main, waker.borrow().clone().unwrap())
    });
    let (main_too, task_too) = (main.clone(), task.clone());
    drop(other);
    for waker in [&main, &task] {
        waker.wake_by_ref();
        waker.clone().wake();
    }
    thread::spawn(move || {
        main_too.wake_by_ref();
        task_too.wake_by_ref();
        main_too.wake();
        task_too.wake();
        drop((main, task));
    })
    .join()
    .unwrap();
}

fn wakers_work_from_another_thread_in_every_form(runtime: &Runtime) {
    type WakeIn = fn(Waker);
    let forms: [WakeIn; 4] = [
        |waker| waker.wake(),
        |waker| waker.wake_by_ref(),
        |waker| waker.clone().wake(),
        |waker| {
            let clone = waker.clone();
            drop(waker);
            clone.wake_by_ref();
        },
    ];
    for form in forms {
        for in_task in [false, true] {
            let woken = async move {
                let flag = Arc::new(AtomicBool::new(false));
                let mut thread = None;
                poll_fn(|cx| {
                    if flag.load(SeqCst) {
                        return Poll::Ready(());
                    }
                    if thread.is_none() {
                        let (flag, waker) = (flag.clone(), cx.waker().clone());
                        thread = Some(thread::spawn(move || {
                            flag.store(true, SeqCst);
                            form(waker);
                        }));
                    }
                    Poll::Pending
                })
                .await;
                thread.unwrap().join().unwrap();
            };
            runtime.block_on(async {
                if in_task {
                    timeout(SOON, spawn(woken)).await.unwrap().unwrap();
                } else {
                    timeout(SOON, woken).await.unwrap();
                }
            });
        }
    }
}

fn four_threads_that_wake_one_task_lose_no_wake(runtime: &Runtime) {
    const WAKES: usize = 20_000;
    runtime.block_on(async {
        let signals: Arc<[AtomicUsize; 4]> = Arc::default();
        let (send, receive) = std_mpsc::channel::<Waker>();
        let waiting = spawn({
            let signals = signals.clone();
            let mut sent = false;
            poll_fn(move |cx| {
                if !std::mem::replace(&mut sent, true) {
                    for _ in 0..4 {
                        send.send(cx.waker().clone()).unwrap();
                    }
                }
                // The wake after the last signal has to be the one that is not lost.
                match signals.iter().map(|signal| signal.load(SeqCst)).sum::<usize>() {
                    sum if sum == 4 * WAKES => Poll::Ready(()),
                    _ => Poll::Pending,
                }
            })
        });
        yield_now().await;
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (waker, signals) = (receive.recv().unwrap(), signals.clone());
                thread::spawn(move || {
                    for wake in 0..WAKES {
                        signals[number].fetch_add(1, SeqCst);
                        if wake % 2 == 0 {
                            waker.wake_by_ref();
                        } else {
                            waker.clone().wake();
                        }
                    }
                })
            })
            .collect();
        timeout(SOON, waiting).await.unwrap().unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

fn yielding_lets_the_others_run(runtime: &Runtime) {
    runtime.block_on(async {
        let log = Rc::new(RefCell::new(Vec::new()));
        let tasks = ["a", "b", "c"].map(|name| {
            let log = log.clone();
            spawn(async move {
                for round in 0..3 {
                    log.borrow_mut().push((round, name));
                    yield_now().await;
                }
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        let expected: Vec<_> =
            (0..3).flat_map(|round| ["a", "b", "c"].map(|name| (round, name))).collect();
        assert_eq!(*log.borrow(), expected);
    });
}

fn a_hundred_thousand_tasks_run(runtime: &Runtime) {
    const COUNT: usize = 100_000;
    runtime.block_on(async {
        let gate = Rc::new(Semaphore::new(0));
        let tasks: Vec<_> = (0..COUNT)
            .map(|number| {
                let gate = gate.clone();
                spawn(async move {
                    gate.acquire().await.unwrap().forget();
                    number
                })
            })
            .collect();
        assert_eq!(runtime.stats().task_count, COUNT);
        yield_now().await;
        gate.add_permits(COUNT);
        let mut sum = 0;
        for task in tasks {
            sum += task.await.unwrap();
        }
        assert_eq!(sum, COUNT * (COUNT - 1) / 2);
        assert_eq!(runtime.stats().task_count, 0);
    });
}

fn a_task_that_yields_for_ever_does_not_starve_io_or_timers(runtime: &Runtime) {
    runtime.block_on(async {
        let spinner = spawn(async {
            loop {
                yield_now().await;
            }
        });
        let (client, server) = tcp_pair().await;
        let echo = spawn(async move {
            for _ in 0..100 {
                let (result, buf) = server.recv_into(Vec::with_capacity(8)).await;
                result.unwrap();
                server.send_all(buf).await.0.unwrap();
            }
        });
        let rounds = async {
            for _ in 0..100 {
                client.send_all("x").await.0.unwrap();
                assert_eq!(client.recv_into(vec![0; 8]).await.0.unwrap(), 1);
            }
            sleep(Duration::from_millis(5)).await;
            spawn_blocking(|| ()).await.unwrap();
        };
        timeout(SOON, rounds).await.unwrap();
        echo.await.unwrap();
        assert!(!spinner.is_finished());
        spinner.abort();
    });
}

fn a_task_whose_ops_complete_at_once_does_not_starve_the_others(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, _server) = tcp_pair().await;
        let stop = Rc::new(Cell::new(false));
        let busy = spawn({
            let stop = stop.clone();
            async move {
                // A send of nothing never waits.
                while !stop.get() {
                    client.send(Vec::new()).await.0.unwrap();
                }
            }
        });
        let others = async {
            sleep(Duration::from_millis(5)).await;
            for _ in 0..10 {
                yield_now().await;
            }
            let (one, other) = tcp_pair().await;
            one.send_all("x").await.0.unwrap();
            assert_eq!(other.recv_into(vec![0; 8]).await.0.unwrap(), 1);
        };
        timeout(SOON, others).await.unwrap();
        stop.set(true);
        timeout(SOON, busy).await.unwrap().unwrap();
    });
}

fn tasks_spawned_by_tasks_run(runtime: &Runtime) {
    fn tree(depth: u32) -> Pin<Box<dyn Future<Output = u64>>> {
        Box::pin(async move {
            if depth == 0 {
                return 1;
            }
            let (one, other) = (spawn(tree(depth - 1)), spawn(tree(depth - 1)));
            one.await.unwrap() + other.await.unwrap()
        })
    }
    assert_eq!(runtime.block_on(tree(12)), 4096);
}

fn tasks_spawned_outside_run_in_the_next_block_on(runtime: &Runtime) {
    let task = runtime.spawn(async { 11 });
    assert!(!task.is_finished());
    assert_eq!(runtime.stats().task_count, 1);
    assert_eq!(runtime.block_on(task).unwrap(), 11);
    // One that had no time to finish goes on in the next.
    let count = Rc::new(Cell::new(0));
    let task = runtime.spawn({
        let count = count.clone();
        async move {
            loop {
                count.set(count.get() + 1);
                yield_now().await;
            }
        }
    });
    runtime.block_on(yield_now());
    let first = count.get();
    assert!(first > 0);
    runtime.block_on(yield_now());
    assert!(count.get() > first);
    drop(task);
}

fn a_blocking_call_yields_its_result(runtime: &Runtime) {
    runtime.block_on(async {
        let here = thread::current().id();
        let (there, name) = spawn_blocking(|| {
            let current = thread::current();
            (current.id(), current.name().map(str::to_owned))
        })
        .await
        .unwrap();
        assert_ne!(here, there);
        assert!(name.unwrap().starts_with("omniring-pool"), "threads have names");
        let calls: Vec<_> = (0..100u64).map(|number| spawn_blocking(move || number)).collect();
        let mut sum = 0;
        for call in calls {
            sum += timeout(SOON, call).await.unwrap().unwrap();
        }
        assert_eq!(sum, 4950);
    });
}

fn a_panic_of_a_blocking_call_is_carried_to_the_caller(runtime: &Runtime) {
    runtime.block_on(async {
        for _ in 0..50 {
            let call = spawn_blocking(|| -> () { panic!("on the pool") });
            let error = timeout(SOON, call).await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "the task panicked: on the pool");
        }
        assert_eq!(spawn_blocking(|| 1).await.unwrap(), 1);
    });
}

fn a_blocking_call_nobody_waits_for_runs_all_the_same(runtime: &Runtime) {
    runtime.block_on(async {
        let (send, receive) = oneshot::channel();
        drop(spawn_blocking(move || send.send("ran").unwrap()));
        assert_eq!(timeout(SOON, receive).await.unwrap().unwrap(), "ran");
    });
}

fn blocking_calls_do_not_hold_up_tasks(runtime: &Runtime) {
    runtime.block_on(async {
        let (release, released) = std_mpsc::channel::<()>();
        let call = spawn_blocking(move || released.recv().is_ok());
        let (client, server) = tcp_pair().await;
        client.send_all("x").await.0.unwrap();
        assert_eq!(timeout(SOON, server.recv_into(vec![0; 8])).await.unwrap().0.unwrap(), 1);
        timeout(SOON, sleep(Duration::from_millis(1))).await.unwrap();
        release.send(()).unwrap();
        assert!(timeout(SOON, call).await.unwrap().unwrap());
    });
}

/// More calls than threads, all of which wait for what an op has to do first.
fn blocking_calls_that_wait_for_io_do_not_stop_it(runtime: &Runtime) {
    let limited = Runtime::builder().engine(runtime.engine()).threads_max(2).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    limited.block_on(async {
        let (senders, calls): (Vec<_>, Vec<_>) = (0..4)
            .map(|_| {
                let (sender, receiver) = std::sync::mpsc::channel::<()>();
                (sender, spawn_blocking(move || receiver.recv_timeout(SOON).is_ok()))
            })
            .unzip();
        let written = omniring::fs::write(&path, "done");
        omniring::time::timeout(SOON / 2, written).await.expect("the file is written").unwrap();
        for sender in &senders {
            sender.send(()).unwrap();
        }
        for call in calls {
            assert!(call.await.unwrap(), "the call was told in time");
        }
    });
}

fn channels_connect_tasks(runtime: &Runtime) {
    runtime.block_on(async {
        let (send, mut receive) = mpsc::channel::<u32>(4);
        let sender = spawn(async move {
            for number in 0..1000 {
                send.send(number).await.unwrap();
            }
        });
        for number in 0..1000 {
            assert_eq!(receive.recv().await, Some(number));
        }
        assert_eq!(receive.recv().await, None);
        sender.await.unwrap();

        let notify = Rc::new(Notify::new());
        let waiting = spawn({
            let notify = notify.clone();
            async move { notify.notified().await }
        });
        yield_now().await;
        assert!(!waiting.is_finished());
        notify.notify_one();
        timeout(SOON, waiting).await.unwrap().unwrap();

        // Never more inside than there are permits.
        let (permits, inside, most) =
            (Rc::new(Semaphore::new(3)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (permits, inside, most) = (permits.clone(), inside.clone(), most.clone());
                spawn(async move {
                    let _permit = permits.acquire().await.unwrap();
                    inside.set(inside.get() + 1);
                    most.set(most.get().max(inside.get()));
                    yield_now().await;
                    inside.set(inside.get() - 1);
                })
            })
            .collect();
        for task in tasks {
            timeout(SOON, task).await.unwrap().unwrap();
        }
        assert_eq!(most.get(), 3);
    });
}

fn channels_connect_threads_and_tasks(runtime: &Runtime) {
    runtime.block_on(async {
        let (send, receive) = oneshot::channel();
        let thread = thread::spawn(move || send.send(1).unwrap());
        assert_eq!(timeout(SOON, receive).await.unwrap().unwrap(), 1);
        thread.join().unwrap();

        let (send, mut receive) = mpsc::unbounded_channel();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let send = send.clone();
                thread::spawn(move || (0..1000).for_each(|number| send.send(number).unwrap()))
            })
            .collect();
        drop(send);
        let mut sum = 0;
        while let Some(number) = timeout(SOON, receive.recv()).await.unwrap() {
            sum += number;
        }
        assert_eq!(sum, 4 * 499_500);
        for thread in threads {
            thread.join().unwrap();
        }

        let notify = Arc::new(Notify::new());
        let semaphore = Arc::new(Semaphore::new(0));
        let thread = thread::spawn({
            let (notify, semaphore) = (notify.clone(), semaphore.clone());
            move || {
                notify.notify_one();
                semaphore.add_permits(1);
            }
        });
        timeout(SOON, notify.notified()).await.unwrap();
        timeout(SOON, semaphore.acquire()).await.unwrap().unwrap().forget();
        thread.join().unwrap();
    });
}

fn a_sleeping_runtime_hears_every_wake(runtime: &Runtime) {
    const ROUNDS: u32 = 10_000;
    let engine = runtime.engine();
    let (ping, mut pinged) = mpsc::channel::<u32>(1);
    let (pong, mut ponged) = mpsc::channel::<u32>(1);
    let other = thread::spawn(move || {
        let runtime = Runtime::builder().engine(engine).build().unwrap();
        runtime.block_on(async {
            while let Some(number) = pinged.recv().await {
                pong.send(number).await.unwrap();
            }
        });
    });
    runtime.block_on(async {
        let start = omniring::time::now();
        let rounds = async {
            for number in 0..ROUNDS {
                ping.send(number).await.unwrap();
                assert_eq!(ponged.recv().await, Some(number));
                // On a busy machine fewer have to do.
                if start.elapsed() > SOON / 3 {
                    break;
                }
            }
        };
        timeout(SOON, rounds).await.expect("a wake was lost");
    });
    drop(ping);
    other.join().unwrap();
}

fn blocking_calls_use_no_more_threads_than_allowed(runtime: &Runtime) {
    let before = thread_count();
    let limited = Runtime::builder().engine(runtime.engine()).threads_max(4).build().unwrap();
    limited.block_on(async {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let (running, most) = (running.clone(), most.clone());
                spawn_blocking(move || {
                    most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                    let threads = thread_count();
                    thread::sleep(Duration::from_millis(1));
                    running.fetch_sub(1, SeqCst);
                    threads
                })
            })
            .collect();
        for call in calls {
            let threads = timeout(SOON, call).await.unwrap().unwrap();
            assert!(threads <= before + 4, "{threads} threads, {before} before");
        }
        assert_eq!(most.load(SeqCst), 3, "all but the one that is kept for ops");
        assert_eq!(limited.stats().thread_count, 4);
    });
    drop(limited);
    let deadline = omniring::time::now() + SOON;
    while thread_count() > before {
        assert!(omniring::time::now() < deadline, "{} threads are left", thread_count());
        thread::yield_now();
    }
}

#[allow(clippy::async_yields_async, reason = "the call is awaited after the runtime ended")]
fn blocking_calls_not_begun_are_dropped_at_shutdown(runtime: &Runtime) {
    let limited = Runtime::builder().engine(runtime.engine()).threads_max(1).build().unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let (release, released) = std_mpsc::channel::<()>();
    let (begun, has_begun) = std_mpsc::channel::<()>();
    let queued = limited.block_on(async {
        drop(spawn_blocking(move || {
            begun.send(()).unwrap();
            let _ = released.recv();
        }));
        has_begun.recv().unwrap();
        let ran = ran.clone();
        spawn_blocking(move || ran.fetch_add(1, SeqCst))
    });
    let start = omniring::time::now();
    drop(limited);
    assert!(start.elapsed() < Duration::from_secs(4), "it does not wait for calls of the user's");
    assert_eq!(Arc::strong_count(&ran), 1, "the queued call is gone");
    drop(release);
    let result = runtime.block_on(async { timeout(SOON, queued).await.unwrap() });
    assert!(result.unwrap_err().is_aborted());
    assert_eq!(ran.load(SeqCst), 0);
}

fn finished_tasks_leave_no_memory_behind(runtime: &Runtime) {
    fn resident_kib() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
    runtime.block_on(async {
        let round = async || {
            for _ in 0..1000 {
                let task = spawn(async {
                    let data = vec![1u8; 1000];
                    yield_now().await;
                    data.len()
                });
                let aborted = spawn(std::future::pending::<()>());
                aborted.abort();
                assert_eq!(task.await.unwrap(), 1000);
                let _ = aborted.await;
            }
        };
        round().await;
        let before = resident_kib();
        for _ in 0..20 {
            round().await;
        }
        // 20,000 tasks of more than 1 KiB each.
        let after = resident_kib();
        assert!(after < before + 4096, "{before} KiB, then {after} KiB");
    });
}
