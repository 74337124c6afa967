//! Asynchronous I/O for Linux: write the program once, choose the engine when it starts.
//!
//! ```
//! use omniring::{Engine, Runtime, fs};
//!
//! # let path = std::env::temp_dir().join(format!("omniring-doc-{}", std::process::id()));
//! # let path = path.as_path();
//! let runtime = Runtime::builder().engine(Engine::Auto).build()?;
//! runtime.block_on(async {
//!     fs::write(path, "hello").await?;
//!     let file = fs::File::open(path).await?;
//!     let (result, buf) = file.read_at(Vec::with_capacity(100), 0).await;
//!     assert_eq!((result?, &buf[..]), (5, &b"hello"[..]));
//!     fs::remove_file(path).await
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Buffers
//! An op owns its buffer while it is in flight and gives it back with the result: see [`buf`].
//!
//! # Cancellation
//! Dropping a future cancels its ops. An op that was faster than its cancellation has happened;
//! what it yielded (a connection, an open file) is closed.
//!
//! # Features
//! - `macros` (on unless `default-features = false`): [`main`] and [`test`](macro@test).
//! - `metrics`: what a runtime has done, in numbers: see the module `metrics`.
//! - `select`: `select!` and `join!`: see the module `future`.
//! - `tracing`: spans and events for subscribers of the crate `tracing`; without it none of that is compiled.
//!
//! # Tracing
//! | target | level | what |
//! |---|---|---|
//! | `omniring::task` | debug | a span `task` from [`spawn`] to the task's end, entered whenever it runs: `name` ([`spawn_named`], else the type of the future), `core` |
//! | `omniring::op` | trace | a span `op` from an op's start to its end: `opcode`, `engine`; at the end `result` or `errno` |
//! | `omniring::driver` | info | `driver started`: `engine`, and as `choice` why this one |
//! | `omniring::driver` | warn | `engine passed over` by `auto`: `engine`, `reason`, `remedy`; `fell back`: what is not as it was asked for |
//! | `omniring::core` | info, error | `core started`, `core stopped`, `core panicked` |
//! | `omniring::task` | warn | `task kept the core`, where the builder's `report_hogs` asks for it: `task`, `time_us` |
//!
//! A task's span is a child of the span that [`spawn`] or [`spawn_on`] was called in, and an op's of the one
//! that it was started in; so what a request starts is found below the request's span. That keeps a span open as
//! long as what was started in it: a task that goes on by spawning its successor, for ever, had better loop, or
//! its ancestors' spans stay. What has no task (calls of [`spawn_blocking`] and [`send_to`]) begins outside of any
//! span. `tracing::Instrument` works as everywhere. A subscriber that is the thread's own
//! (`with_default`) sees that thread's core only.
//!
//! # Layout
//! [`Runtime`] runs tasks ([`spawn`]) and their I/O: [`fs`], [`block`], [`net`], [`pipe`], [`terminal`],
//! [`time`], [`process`], [`signal`], [`os`]. Calls that block go to [`spawn_blocking`]. [`AsyncFd`] waits
//! for descriptors that others read and write. [`sync`] has channels and locks.

#[cfg(feature = "macros")]
#[doc(hidden)]
#[path = "macros.rs"]
pub mod __macros;
mod async_fd;
pub mod block;
mod blocking;
pub mod buf;
mod cores;
mod executor;
pub mod fs;
#[cfg(feature = "select")]
pub mod future;
mod group;
mod hogs;
mod io;
mod meter;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod net;
pub mod os;
pub mod pipe;
pub mod process;
mod readiness;
mod runtime;
mod sharded;
pub mod signal;
pub mod sync;
mod task;
pub mod terminal;
pub mod time;
mod trace;
mod yielding;

pub use omniring_driver::op::{Op, Opcode};
pub use omniring_driver::{
    ENGINE_VARIABLE, EngineName as Engine, Explained, OpFuture, Operation, StartError, Support,
    Timed, UnknownEngine, doctor, raw_os_error,
};

pub use async_fd::{AsyncFd, ReadyGuard, TryIoError};
pub use blocking::spawn_blocking;
pub use cores::{
    CoreHandle, CorePanic, Handle, core, core_count, handle, on_all_cores, send_to, spawn_on,
};
pub use group::{TaskGroup, scope};
pub use hogs::Hog;
pub use io::{AsyncRead, AsyncWrite, copy};
pub use runtime::{Builder, Runtime, Stats, in_runtime, spawn, spawn_named};
pub use sharded::Sharded;
pub use task::{JoinError, JoinHandle};
pub use yielding::yield_now;

/// Makes an `async fn` a plain one that runs it on a runtime, and ends with it. As a rule that is
/// `main`.
///
/// ```
/// #[omniring::main]
/// async fn main() -> std::io::Result<()> {
///     omniring::fs::metadata("/").await?;
///     Ok(())
/// }
/// ```
///
/// Arguments, each of which may be left out:
/// - `engine = "epoll"`: the engine by name, as [`Builder::engine`]. A name that is no engine's is an error of
///   the compiler's. `OMNIRING_ENGINE` overrides it.
/// - `cores = 2`: the number of cores, at least 1, as the builder's method `cores`.
///
/// Where the runtime cannot be made, the program ends with exit code 1 and one line on standard
/// error that says what does not work here and what to do. Whatever else a runtime is to have is
/// asked for with [`Runtime::builder`].
///
/// ```
/// #[omniring::main(engine = "threads")]
/// async fn main() {
///     omniring::time::sleep(std::time::Duration::from_micros(1)).await;
/// }
/// ```
#[cfg(feature = "macros")]
pub use omniring_macros::main;

/// Makes an `async fn` a test on each engine, so that what differs between engines, which ought to
/// be nothing, is found.
///
/// ```
/// #[omniring::test]
/// async fn a_pair_is_connected() -> std::io::Result<()> {
///     let (one, other) = omniring::net::UnixStream::pair()?;
///     one.send_all("x").await.0?;
///     assert_eq!(&other.recv().await?[..], b"x");
///     Ok(())
/// }
/// # fn main() {}
/// ```
///
/// There is a test for each engine, named after it: `a_pair_is_connected::uring`,
/// `a_pair_is_connected::epoll_level`. One whose engine does not start on the machine prints
/// `skipped: ` and the reason; with `OMNIRING_REQUIRE=all` in the environment it fails. With
/// `OMNIRING_ENGINE` that engine's tests run, and the others are skipped.
///
/// Arguments, each of which may be left out:
/// - `engine = "epoll"` or `engines = ["uring", "epoll"]`: only these (default: all).
///   `engine = "auto"` is one test, on the best that works.
/// - `cores = 2`: the number of cores, at least 1, as the builder's method `cores`.
///
/// A test fails when it panics or its function returns an error. `#[ignore]` and `#[should_panic]`
/// hold for the test on each engine. The function stays what it is; the tests are in a module of
/// its name. `uring-iopoll` takes devices without polled queues here ([`Builder::allow_unpolled`]).
#[cfg(feature = "macros")]
pub use omniring_macros::test;

#[cfg(feature = "select")]
pub use futures_util::{join, select, select_biased, try_join};

/// The program of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
