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
//! # Layout
//! [`Runtime`] runs tasks ([`spawn`]) and their I/O: [`fs`], [`block`], [`net`], [`pipe`], [`terminal`],
//! [`time`], [`process`], [`signal`], [`os`]. Calls that block go to [`spawn_blocking`]. [`AsyncFd`] waits
//! for descriptors that others read and write. [`sync`] has channels and locks.

mod async_fd;
pub mod block;
mod blocking;
pub mod buf;
mod cores;
mod executor;
pub mod fs;
mod group;
mod io;
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
pub use io::{AsyncRead, AsyncWrite, copy};
pub use runtime::{Builder, Runtime, Stats, spawn};
pub use sharded::Sharded;
pub use task::{JoinError, JoinHandle};
pub use yielding::yield_now;

/// The program of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
