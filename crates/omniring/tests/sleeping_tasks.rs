//! A million tasks that sleep: at most 200 MB, and at most a second of processor time to fire them
//! all within a second's window. Without optimisation a tenth of them, in the same time.
//!
//! One test, in a process of its own: memory and time are the process's.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use omniring::time::{now, sleep_until};
use omniring::{Engine, Runtime, spawn, yield_now};

const TASKS: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
/// Of resident memory: the runtime, the process, and the tasks with their timers.
const BYTES_MAX: u64 = 200_000_000;
const CPU_TIME_MAX: Duration = Duration::from_secs(1);
/// Between the first deadline and the last.
const WINDOW: Duration = Duration::from_secs(1);
/// Time to spawn them all before the first deadline; the wait for what is left of it costs nothing.
const LEAD: Duration = if cfg!(debug_assertions) { SECONDS_5 } else { SECONDS_3 };
const SECONDS_3: Duration = Duration::from_secs(3);
const SECONDS_5: Duration = Duration::from_secs(5);

/// User and system time of the process.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it is the process's own");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.try_into().expect("time is not negative"))
}

/// The most memory that was resident at once.
fn peak_bytes() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it is the process's own");
    u64::try_from(usage.max_rss()).expect("it is a size") * 1024
}

#[test]
fn a_million_sleeping_tasks_take_little_memory_and_time() {
    let runtime = Runtime::builder().engine(Engine::Epoll).build().expect("epoll is everywhere");
    runtime.block_on(async {
        let first = now() + LEAD;
        for number in 0..TASKS {
            // All over the window, in no order.
            let part = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let offset = WINDOW.mul_f64(part as f64 / 2f64.powi(32));
            drop(spawn(sleep_until(first + offset)));
            if number.is_multiple_of(1000) {
                yield_now().await;
            }
        }
        sleep_until(first - Duration::from_millis(1)).await;
        assert_eq!(
            runtime.stats().task_count,
            TASKS as usize,
            "spawning takes longer than {LEAD:?}"
        );
        let before = cpu_time();
        sleep_until(first + WINDOW).await;
        while runtime.stats().task_count > 0 {
            yield_now().await;
        }
        let (used, bytes) = (cpu_time() - before, peak_bytes());
        let took = first.elapsed();
        eprintln!(
            "{TASKS} tasks: {used:?} of processor time, all fired {took:?} after the first \
             deadline; at most {} MB",
            bytes / 1_000_000
        );
        assert!(used <= CPU_TIME_MAX, "{used:?} of processor time");
        assert!(bytes <= BYTES_MAX, "{bytes} bytes");
    });
}
