//! Metrics: what is counted is what has happened, and the text says it.

use std::time::Duration;

use omniring::fs::File;
use omniring::metrics::{Metrics, OpMetrics, prometheus_text};
use omniring::time::{sleep, timeout};
use omniring::{Opcode, Runtime, spawn, yield_now};

use crate::harness::conformance;
use crate::loopback::{start, tcp_pair};

conformance!(
    each_op_is_counted_under_its_kind,
    an_op_in_flight_is_counted_and_one_that_is_cancelled_has_ended,
    a_latency_is_the_time_that_the_op_took,
    polls_and_wakes_of_tasks_are_counted,
    wakes_from_other_threads_are_counted,
    timers_that_fire_are_counted,
    the_driver_has_a_turn_after_a_bounded_number_of_polls,
    waits_enter_the_kernel,
    the_text_has_every_number_under_its_name,
);

const SOON: Duration = Duration::from_secs(30);
/// Polls between two turns: `TASKS_PER_TURN` in the executor.
const POLLS_PER_TURN: u64 = 128;

fn of(metrics: &Metrics, opcode: Opcode) -> Option<&OpMetrics> {
    metrics.driver.ops.iter().find(|op| op.opcode == opcode)
}

fn started(metrics: &Metrics, opcode: Opcode) -> u64 {
    of(metrics, opcode).map_or(0, |op| op.started_count)
}

fn ended(metrics: &Metrics, opcode: Opcode) -> u64 {
    of(metrics, opcode).map_or(0, |op| op.ended_count)
}

fn each_op_is_counted_under_its_kind(runtime: &Runtime) {
    runtime.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        let before = runtime.metrics();
        for _ in 0..7 {
            file.write_at("hello", 0).await.0.unwrap();
        }
        for _ in 0..300 {
            file.read_at(Vec::with_capacity(8), 0).await.0.unwrap();
        }
        let after = runtime.metrics();
        for (opcode, count) in [(Opcode::Write, 7), (Opcode::Read, 300), (Opcode::Fsync, 0)] {
            assert_eq!(started(&after, opcode) - started(&before, opcode), count, "{opcode:?}");
            assert_eq!(ended(&after, opcode) - ended(&before, opcode), count, "{opcode:?}");
        }
        assert_eq!(after.driver.op_count() - before.driver.op_count(), 307);
    });
}

fn an_op_in_flight_is_counted_and_one_that_is_cancelled_has_ended(runtime: &Runtime) {
    runtime.block_on(async {
        let (_client, server) = tcp_pair().await;
        let before = runtime.metrics();
        let mut waiting = server.recv_into(vec![0; 8]);
        assert!(start(&mut waiting).await.is_none());
        let during = runtime.metrics();
        assert_eq!(during.driver.in_flight_count, before.driver.in_flight_count + 1);
        assert!(during.driver.in_flight_max >= during.driver.in_flight_count);
        drop(waiting);
        let ended = async {
            while runtime.metrics().driver.in_flight_count > before.driver.in_flight_count {
                yield_now().await;
            }
        };
        timeout(SOON, ended).await.unwrap();
        let (started, ended) = runtime
            .metrics()
            .driver
            .ops
            .iter()
            .fold((0, 0), |sum, op| (sum.0 + op.started_count, sum.1 + op.ended_count));
        assert_eq!(started - ended, before.driver.in_flight_count as u64);
    });
}

fn a_latency_is_the_time_that_the_op_took(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let time = Duration::from_millis(20);
        let receiving = spawn(async move { server.recv_into(vec![0; 8]).await.0 });
        sleep(time).await;
        client.send_all("x").await.0.unwrap();
        receiving.await.unwrap().unwrap();
        let metrics = runtime.metrics();
        let latencies = metrics.driver.ops.iter().map(|op| op.latency.max());
        let longest = latencies.max().expect("there are ops");
        // With two digits.
        assert!(longest >= time.mul_f64(0.95) && longest < SOON, "{longest:?}");
        for op in &metrics.driver.ops {
            assert!(op.latency.quantile(0.5) <= op.latency.max());
            assert_eq!(op.latency.count_within(SOON * 1000), op.ended_count);
        }
    });
}

fn polls_and_wakes_of_tasks_are_counted(runtime: &Runtime) {
    runtime.block_on(async {
        let before = runtime.metrics();
        let task = spawn(async {
            for _ in 0..10 {
                yield_now().await;
            }
        });
        assert_eq!(runtime.metrics().ready_count, before.ready_count + 1);
        task.await.unwrap();
        let after = runtime.metrics();
        assert_eq!(after.spawn_count - before.spawn_count, 1);
        assert_eq!(after.poll_count - before.poll_count, 11);
        assert_eq!(after.wake_count - before.wake_count, 10);
        assert_eq!(after.task_count, before.task_count);
    });
}

fn wakes_from_other_threads_are_counted(runtime: &Runtime) {
    runtime.block_on(async {
        let before = runtime.metrics();
        let (sender, receiver) = omniring::sync::oneshot::channel();
        let task = spawn(receiver);
        // It waits.
        while runtime.metrics().poll_count == before.poll_count {
            yield_now().await;
        }
        std::thread::spawn(move || sender.send(1)).join().unwrap().unwrap();
        assert_eq!(timeout(SOON, task).await.unwrap().unwrap(), Ok(1));
        assert_eq!(runtime.metrics().remote_wake_count - before.remote_wake_count, 1);
    });
}

fn timers_that_fire_are_counted(runtime: &Runtime) {
    runtime.block_on(async {
        let before = runtime.metrics().timer_count;
        for _ in 0..5 {
            sleep(Duration::from_micros(100)).await;
        }
        drop(sleep(SOON));
        let fired = runtime.metrics().timer_count - before;
        // One whose time has passed when it is first polled is not armed.
        assert!((1..=5).contains(&fired), "{fired}");
    });
}

fn the_driver_has_a_turn_after_a_bounded_number_of_polls(runtime: &Runtime) {
    runtime.block_on(async {
        for task_count in [1, 1000] {
            let before = runtime.metrics();
            let tasks: Vec<_> = (0..task_count)
                .map(|_| {
                    spawn(async move {
                        for _ in 0..20_000 / task_count {
                            yield_now().await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let after = runtime.metrics();
            let polls = after.poll_count - before.poll_count;
            let turns = after.driver.turn_count - before.driver.turn_count;
            assert!(
                polls >= 20_000 && turns >= polls / POLLS_PER_TURN,
                "{polls} polls, {turns} turns"
            );
        }
    });
}

fn waits_enter_the_kernel(runtime: &Runtime) {
    runtime.block_on(async {
        let before = runtime.metrics().driver;
        for _ in 0..3 {
            sleep(Duration::from_millis(2)).await;
        }
        let after = runtime.metrics().driver;
        assert!(after.kernel_entry_count > before.kernel_entry_count, "{before:?}, {after:?}");
        assert!(after.turn_count > before.turn_count);
    });
}

fn the_text_has_every_number_under_its_name(runtime: &Runtime) {
    runtime.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        for _ in 0..3 {
            file.write_at("hello", 0).await.0.unwrap();
        }
    });
    let text = prometheus_text(&runtime.metrics());
    let engine = runtime.engine();
    let expected = [
        format!("omniring_ops_ended_total{{engine=\"{engine}\",opcode=\"Write\"}} 3"),
        format!(
            "omniring_op_duration_seconds_bucket{{engine=\"{engine}\",opcode=\"Write\",le=\"+Inf\"}} 3"
        ),
        format!("omniring_op_duration_seconds_count{{engine=\"{engine}\",opcode=\"Write\"}} 3"),
        format!("omniring_ops_in_flight{{engine=\"{engine}\"}} 0"),
        "# TYPE omniring_op_duration_seconds histogram".to_owned(),
    ];
    for line in &expected {
        assert!(text.lines().any(|found| found == line), "no line {line} in:\n{text}");
    }
    assert!(text.ends_with('\n'));
    let mut bucket_before = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("omniring_") && name.ends_with('}'), "{line}");
        let value: f64 = value.parse().expect("a number");
        if name.contains("_bucket") && name.contains("\"Write\"") {
            assert!(value as u64 >= bucket_before, "{line}");
            bucket_before = value as u64;
        }
        // Each has its kind said before.
        let family = name.split('{').next().expect("before the labels");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| family.strip_suffix(suffix))
            .unwrap_or(family);
        assert!(text.contains(&format!("# TYPE {family} ")), "{line}");
    }
}
