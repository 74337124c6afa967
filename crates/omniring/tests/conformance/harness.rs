//! Running a case on an engine: in bounded time, and in a process of its own if it counts what a
//! process has.

use std::future::Future;
use std::ops::Deref;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use omniring::{Builder, Runtime};
use omniring_driver::{Config, Driver};

/// A case that takes longer hangs.
const TIME_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 300 });
/// Set in the process of an isolated case.
pub const ISOLATED_VARIABLE: &str = "OMNIRING_TEST_ISOLATED";
/// Where [`disk_dir`] is made, if not in the target directory.
pub const DISK_VARIABLE: &str = "OMNIRING_TEST_DIR";
/// How the reason of a skip begins.
pub const SKIPPED: &str = "skipped: ";

/// Makes a test of each of these functions (`fn case(runtime: &Runtime)`) for each engine. Those
/// marked `isolated` run in a process of their own, so that they may count descriptors, threads
/// and memory. `uring` runs twice, the second time with direct descriptors.
macro_rules! conformance {
    (
        @tests $engine:ident $(.$option:ident($value:expr))*,
        $name:ident, [$($case:ident)*], [$($isolated:ident)*]
    ) => {
        mod $name {
            #[allow(dead_code, reason = "a module may have no case")]
            fn builder() -> omniring::Builder {
                omniring::Runtime::builder().engine(omniring::Engine::$engine)$(.$option($value))*
            }

            $(
                #[test]
                fn $case() {
                    crate::harness::run(builder(), super::$case);
                }
            )*
            $(
                #[test]
                fn $isolated() {
                    let name = concat!(module_path!(), "::", stringify!($isolated));
                    crate::harness::run_isolated(builder(), name, super::$isolated);
                }
            )*
        }
    };
    ($($case:ident),* $(,)? $(; isolated: $($isolated:ident),* $(,)?)?) => {
        conformance!(@tests Uring, uring, [$($case)*], [$($($isolated)*)?]);
        conformance!(
            @tests Uring.direct_descriptors(10_000),
            uring_direct, [$($case)*], [$($($isolated)*)?]
        );
        conformance!(
            @tests UringIopoll.allow_unpolled(true),
            uring_iopoll, [$($case)*], [$($($isolated)*)?]
        );
        conformance!(@tests UringSqpoll, uring_sqpoll, [$($case)*], [$($($isolated)*)?]);
        conformance!(@tests Aio, aio, [$($case)*], [$($($isolated)*)?]);
        conformance!(@tests Epoll, epoll, [$($case)*], [$($($isolated)*)?]);
        conformance!(@tests EpollLevel, epoll_level, [$($case)*], [$($($isolated)*)?]);
        conformance!(@tests Poll, poll, [$($case)*], [$($($isolated)*)?]);
        conformance!(@tests Select, select, [$($case)*], [$($($isolated)*)?]);
        conformance!(@tests Threads, threads, [$($case)*], [$($($isolated)*)?]);
        conformance!(@tests Blocking, blocking, [$($case)*], [$($($isolated)*)?]);
    };
}

pub(crate) use conformance;

/// The runtime; `None`, said aloud, if its engine does not start here.
fn runtime(builder: Builder) -> Option<Runtime> {
    match builder.build() {
        Ok(runtime) => Some(runtime),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

/// A test that needs what this machine has not: a failure where everything is required.
pub fn skip(reason: &str) {
    let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {reason}");
    eprintln!("{SKIPPED}{reason}");
}

/// Runs a case in a thread of its own, in bounded time.
pub fn run(builder: Builder, case: fn(&Runtime)) {
    let (done, finished) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _done = done;
        if let Some(runtime) = runtime(builder) {
            case(&runtime);
        }
    });
    match finished.recv_timeout(TIME_MAX) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("still running after {TIME_MAX:?}"),
        _ => {
            if let Err(payload) = thread.join() {
                std::panic::resume_unwind(payload);
            }
        }
    }
}

/// Runs a case in a process of its own: this test binary, told to run just that.
pub fn run_isolated(builder: Builder, name: &str, case: fn(&Runtime)) {
    in_own_process(name, || run(builder, case));
}

/// Runs this in a process of its own, as a part of the test of this name, path and all.
pub fn in_own_process(name: &str, run: impl FnOnce()) {
    if std::env::var_os(ISOLATED_VARIABLE).is_some() {
        return run();
    }
    let name = name.split_once("::").expect("the path begins with the crate").1;
    let output = Command::new(std::env::current_exe().expect("the test binary has a path"))
        .args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(ISOLATED_VARIABLE, "1")
        .stdin(Stdio::null())
        .output()
        .expect("the test binary starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in a process of its own:\n{text}");
    assert!(text.contains("1 passed"), "no test was run as '{name}':\n{text}");
    // Said there, and to be heard here.
    text.lines().filter(|line| line.starts_with(SKIPPED)).for_each(|line| eprintln!("{line}"));
}

/// A directory on a disk, which that of temporary files need not be.
pub fn disk_dir() -> tempfile::TempDir {
    let place = std::env::var_os(DISK_VARIABLE);
    let place = place.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    tempfile::tempdir_in(place).expect("a directory can be made")
}

/// Open descriptors of this process: for isolated cases.
pub fn fd_count() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs is mounted").count()
}

/// Threads of this process, for isolated cases; without the kernel's own: one may take submissions,
/// and each thread that has used a ring keeps one until it ends.
pub fn thread_count() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs is mounted");
    let names = tasks.filter_map(|task| {
        // A thread may end before its name is read.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    names.filter(|name| !name.starts_with("iou-")).count()
}

/// The errno of an op that has to fail.
pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("it succeeded, and was to fail"),
        Err(error) => {
            omniring::raw_os_error(&error).unwrap_or_else(|| panic!("no errno: {error:?}"))
        }
    }
}

/// A driver without a runtime, which it shuts down as one would: ops whose futures are gone hold on to
/// their driver.
pub struct OwnDriver(Rc<Driver>);

impl Deref for OwnDriver {
    type Target = Rc<Driver>;

    fn deref(&self) -> &Rc<Driver> {
        &self.0
    }
}

impl Drop for OwnDriver {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

/// A driver without a runtime, on the runtime's engine.
pub fn new_driver(runtime: &Runtime) -> OwnDriver {
    let config = Config { engine: runtime.engine(), ..Config::default() };
    OwnDriver(Rc::new(Driver::new(&config).unwrap()))
}

/// Turns the driver until the future is ready.
pub fn drive<F: Future>(driver: &Driver, future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        driver.turn(true, None, || false).unwrap();
    }
}
