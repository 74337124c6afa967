//! Time: nothing is early, nothing is lost, and waiting costs nothing.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use omniring::time::{Instant, interval, now, sleep, sleep_until, timeout, timeout_at};
use omniring::{Runtime, spawn, yield_now};

use crate::harness::conformance;
use crate::loopback::{poll_once, tcp_pair};

conformance!(
    a_sleep_is_never_early,
    sleeps_end_in_the_order_of_their_deadlines,
    a_sleep_of_no_time_ends_at_once,
    a_deadline_that_has_passed_ends_at_once,
    a_sleep_of_all_time_never_ends,
    a_timeout_lets_a_ready_future_through,
    a_timeout_ends_a_future_that_waits,
    a_timeout_drops_its_future,
    a_timeout_at_a_deadline_that_has_passed_polls_once,
    an_interval_ticks_at_its_times,
    an_interval_catches_up,
    a_dropped_tick_is_not_lost,
    a_reset_moves_a_sleep_both_ways,
    ten_thousand_timers_all_fire,
    timers_cancelled_in_flight_wake_nobody,
    a_timer_and_io_due_together_both_happen,
    timers_fire_while_io_is_busy,
    timers_fire_while_a_task_spins,
    a_sleep_polled_by_another_task_wakes_that_one,
    waiting_for_a_timer_takes_no_processor_time,
    waiting_with_a_far_timer_and_io_takes_no_processor_time,
);

const SOON: Duration = Duration::from_secs(30);

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn a_sleep_is_never_early(runtime: &Runtime) {
    runtime.block_on(async {
        for micros in [1, 10, 50, 100, 500, 999, 1000, 1001, 3000, 10_000, 17_500] {
            let duration = Duration::from_micros(micros);
            for _ in 0..5 {
                let start = now();
                sleep(duration).await;
                assert!(start.elapsed() >= duration, "{:?} of {duration:?}", start.elapsed());
            }
        }
        // Past the first levels of the deadline queue.
        let start = now();
        sleep(millis(300)).await;
        assert!(start.elapsed() >= millis(300));
        assert!(start.elapsed() < SOON);
    });
}

fn sleeps_end_in_the_order_of_their_deadlines(runtime: &Runtime) {
    runtime.block_on(async {
        let log = Rc::new(RefCell::new(Vec::new()));
        let start = now() + millis(5);
        let tasks: Vec<_> = [7u64, 3, 19, 0, 11, 2, 5, 17, 13]
            .into_iter()
            .map(|offset| {
                let log = log.clone();
                spawn(async move {
                    sleep_until(start + millis(offset)).await;
                    log.borrow_mut().push(offset);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*log.borrow(), [0, 2, 3, 5, 7, 11, 13, 17, 19]);
    });
}

fn a_sleep_of_no_time_ends_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        assert!(poll_once(&mut sleep(Duration::ZERO)).await.is_ready());
        for _ in 0..1000 {
            sleep(Duration::ZERO).await;
        }
    });
}

fn a_deadline_that_has_passed_ends_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        let past = now();
        sleep(millis(1)).await;
        assert!(poll_once(&mut sleep_until(past)).await.is_ready());
        assert_eq!(sleep_until(past).deadline(), past);
    });
}

fn a_sleep_of_all_time_never_ends(runtime: &Runtime) {
    runtime.block_on(async {
        for duration in [Duration::MAX, Duration::from_secs(u64::MAX), SOON * 1_000_000] {
            let mut forever = sleep(duration);
            assert!(poll_once(&mut forever).await.is_pending());
            sleep(millis(2)).await;
            assert!(poll_once(&mut forever).await.is_pending());
            assert_eq!(timeout(duration, async { 1 }).await, Ok(1));
            // Nor does it keep others from ending, or the runtime from waiting for I/O.
            assert!(timeout(millis(1), &mut forever).await.is_err());
        }
    });
}

fn a_timeout_lets_a_ready_future_through(runtime: &Runtime) {
    runtime.block_on(async {
        assert_eq!(timeout(Duration::ZERO, async { 1 }).await, Ok(1));
        assert_eq!(timeout(SOON, async { 2 }).await, Ok(2));
        let late = async {
            sleep(millis(2)).await;
            3
        };
        assert_eq!(timeout(SOON, late).await, Ok(3));
    });
}

fn a_timeout_ends_a_future_that_waits(runtime: &Runtime) {
    runtime.block_on(async {
        let start = now();
        let error = timeout(millis(5), std::future::pending::<()>()).await.unwrap_err();
        assert!(start.elapsed() >= millis(5));
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
        // The inner one ends first, and the outer one goes on.
        let inner = timeout(millis(1), std::future::pending::<()>());
        assert!(timeout(SOON, inner).await.unwrap().is_err());
    });
}

fn a_timeout_drops_its_future(runtime: &Runtime) {
    runtime.block_on(async {
        let shared = Rc::new(());
        let held = shared.clone();
        let waiting = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        assert!(timeout(millis(1), waiting).await.is_err());
        assert_eq!(Rc::strong_count(&shared), 1);
    });
}

fn a_timeout_at_a_deadline_that_has_passed_polls_once(runtime: &Runtime) {
    runtime.block_on(async {
        let past = now();
        let polls = Cell::new(0);
        let waiting = std::future::poll_fn(|_| {
            polls.set(polls.get() + 1);
            std::task::Poll::<()>::Pending
        });
        assert!(timeout_at(past, waiting).await.is_err());
        assert_eq!(polls.get(), 1);
    });
}

fn an_interval_ticks_at_its_times(runtime: &Runtime) {
    runtime.block_on(async {
        let start = now();
        let mut ticks = interval(millis(4));
        assert_eq!(ticks.period(), millis(4));
        let first = ticks.tick().await;
        assert!(first >= start && first <= now());
        for number in 1..6 {
            let due = ticks.tick().await;
            assert_eq!(due, first + millis(4) * number);
            assert!(now() >= due, "never early");
        }
    });
}

fn an_interval_catches_up(runtime: &Runtime) {
    runtime.block_on(async {
        let mut ticks = interval(millis(2));
        let first = ticks.tick().await;
        sleep(millis(11)).await;
        // Those that were missed come without a wait, each with its own time.
        for number in 1..=5 {
            let mut tick = Box::pin(ticks.tick());
            let std::task::Poll::Ready(due) = poll_once(&mut tick).await else {
                panic!("tick {number} was due")
            };
            assert_eq!(due, first + millis(2) * number);
        }
    });
}

fn a_dropped_tick_is_not_lost(runtime: &Runtime) {
    runtime.block_on(async {
        let mut ticks = interval(millis(10));
        let first = ticks.tick().await;
        let mut number = 1;
        for _ in 0..3 {
            // On a busy machine the tick may come all the same.
            number += u32::from(timeout(Duration::from_micros(100), ticks.tick()).await.is_ok());
        }
        assert_eq!(ticks.tick().await, first + millis(10) * number);
    });
}

fn a_reset_moves_a_sleep_both_ways(runtime: &Runtime) {
    runtime.block_on(async {
        let start = now();
        let mut moved = sleep(SOON * 100);
        assert!(poll_once(&mut moved).await.is_pending());
        moved.reset(start + millis(3));
        assert_eq!(moved.deadline(), start + millis(3));
        timeout(SOON, &mut moved).await.unwrap();
        assert!(start.elapsed() >= millis(3));

        let mut moved = sleep(millis(1));
        assert!(poll_once(&mut moved).await.is_pending());
        let later = now() + millis(15);
        moved.reset(later);
        moved.await;
        assert!(now() >= later);

        // Also one that has fired but was not asked.
        let mut moved = sleep(millis(1));
        assert!(poll_once(&mut moved).await.is_pending());
        sleep(millis(3)).await;
        let later = now() + millis(5);
        moved.reset(later);
        assert!(poll_once(&mut moved).await.is_pending());
        moved.await;
        assert!(now() >= later);
    });
}

fn ten_thousand_timers_all_fire(runtime: &Runtime) {
    runtime.block_on(async {
        let start = now();
        let tasks: Vec<_> = (0..10_000u64)
            .map(|number| {
                let duration = Duration::from_micros(number.wrapping_mul(7919) % 50_000);
                spawn(async move {
                    sleep(duration).await;
                    assert!(start.elapsed() >= duration);
                })
            })
            .collect();
        for task in tasks {
            timeout(SOON, task).await.unwrap().unwrap();
        }
        assert!(start.elapsed() >= millis(49));
    });
}

fn timers_cancelled_in_flight_wake_nobody(runtime: &Runtime) {
    runtime.block_on(async {
        let polls = Rc::new(Cell::new(0));
        let mut sleeps: Vec<_> = (0..1000).map(|at| sleep(millis(1 + at % 5))).collect();
        let mut far = None;
        let task = spawn({
            let polls = polls.clone();
            std::future::poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                for sleep in &mut sleeps {
                    let _ = std::future::Future::poll(Pin::new(sleep), cx);
                }
                // Armed and cancelled in one poll; only the far one is left.
                sleeps.clear();
                // It is far from here, however late this is polled.
                let far = far.get_or_insert_with(|| sleep(millis(50)));
                std::future::Future::poll(Pin::new(far), cx)
            })
        });
        timeout(SOON, task).await.unwrap().unwrap();
        assert_eq!(polls.get(), 2);
    });
}

fn a_timer_and_io_due_together_both_happen(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        for round in 0..30u64 {
            let due = now() + Duration::from_micros(300 + 50 * round);
            let timer = spawn(async move {
                sleep_until(due).await;
                now()
            });
            let server = server.clone();
            let received = spawn(async move { server.recv_into(vec![0; 8]).await.0.unwrap() });
            let sender = client.clone();
            let sent = spawn(async move {
                sleep_until(due).await;
                sender.send_all("x").await.0.unwrap();
            });
            yield_now().await;
            // Both are due when the loop looks next.
            while now() < due {
                std::hint::spin_loop();
            }
            assert!(timeout(SOON, timer).await.unwrap().unwrap() >= due);
            timeout(SOON, sent).await.unwrap().unwrap();
            assert_eq!(timeout(SOON, received).await.unwrap().unwrap(), 1);
        }
    });
}

fn timers_fire_while_io_is_busy(runtime: &Runtime) {
    runtime.block_on(async {
        let mut pairs = Vec::new();
        for _ in 0..4 {
            pairs.push(tcp_pair().await);
        }
        let tasks: Vec<_> = pairs
            .into_iter()
            .flat_map(|(client, server)| {
                [(client, true), (server, false)].map(|(stream, starts)| {
                    spawn(async move {
                        if starts {
                            stream.send_all("ball").await.0.unwrap();
                        }
                        loop {
                            let (result, buf) = stream.recv_into(Vec::with_capacity(8)).await;
                            result.unwrap();
                            stream.send_all(buf).await.0.unwrap();
                        }
                    })
                })
            })
            .collect();
        let sleeps = async {
            for _ in 0..10 {
                sleep(millis(2)).await;
            }
        };
        timeout(SOON, sleeps).await.unwrap();
        tasks.iter().for_each(|task| task.abort());
        for task in tasks {
            assert!(task.await.unwrap_err().is_aborted());
        }
    });
}

fn timers_fire_while_a_task_spins(runtime: &Runtime) {
    runtime.block_on(async {
        let stop = Rc::new(Cell::new(false));
        let spinner = spawn({
            let stop = stop.clone();
            async move {
                while !stop.get() {
                    yield_now().await;
                }
            }
        });
        for _ in 0..5 {
            timeout(SOON, spawn(sleep(millis(2)))).await.unwrap().unwrap();
        }
        stop.set(true);
        spinner.await.unwrap();
    });
}

fn a_sleep_polled_by_another_task_wakes_that_one(runtime: &Runtime) {
    runtime.block_on(async {
        let mut moved = sleep(millis(5));
        assert!(poll_once(&mut moved).await.is_pending());
        timeout(SOON, spawn(moved)).await.unwrap().unwrap();
    });
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let part = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
    };
    part(usage.user_time()) + part(usage.system_time())
}

pub async fn assert_idle(until: Instant) {
    let before = thread_time();
    sleep_until(until).await;
    let used = thread_time() - before;
    assert!(used < millis(20), "{used:?} of processor time while waiting");
}

fn waiting_for_a_timer_takes_no_processor_time(runtime: &Runtime) {
    runtime.block_on(async { assert_idle(now() + millis(200)).await });
}

fn waiting_with_a_far_timer_and_io_takes_no_processor_time(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let far = spawn(sleep(SOON * 1000));
        let receiving = spawn(async move { server.recv_into(vec![0; 8]).await.0.unwrap() });
        // A socket that was ready once, and is ready to be written to all the time.
        client.send_all("x").await.0.unwrap();
        assert_eq!(receiving.await.unwrap(), 1);
        let waiting = client.clone();
        let waiting = spawn(async move { waiting.recv_into(vec![0; 8]).await.0 });
        yield_now().await;
        assert_idle(now() + millis(200)).await;
        waiting.abort();
        far.abort();
    });
}
