//! Operations as plain data with ring semantics, carried out by a choice of Linux I/O engines.
//!
//! This crate is the lower half of Omniring: the op vocabulary, owned buffers, the table of ops
//! in flight, and the engines. It knows of wakers but of no tasks; the crate `omniring` has the
//! runtime.
//!
//! # Invariants
//! - INV-BUF: whatever memory the kernel or a thread may touch stays in place and alive until the
//!   op's final completion.
//! - INV-ORPHAN: a dropped future cancels its op; what the op still yields is disposed of.
//! - INV-EXIT: a driver ends only after the last completion; past a deadline it leaks.
//! - INV-PARITY: the same program sees the same results, errors, cancellation and end of file on
//!   every engine.

pub mod addr;
mod attempt;
mod batching;
pub mod buf;
mod call;
mod choice;
pub mod clock;
mod cpus;
mod diagnosis;
pub mod doctor;
mod driver;
mod engine;
mod explained;
pub mod file_lock;
mod future;
mod handle;
mod lease;
mod mailbox;
mod meter;
#[cfg(feature = "metrics")]
pub mod metrics;
mod multishot;
mod notify;
pub mod op;
mod op_set;
pub mod ops;
mod pool;
mod process;
mod receiver;
pub mod socket_option;
mod sync;
mod system;
mod table;
mod timed;
mod trace;

pub use call::Call;
pub use choice::{Config, ENGINE_VARIABLE, EngineName, StartError, UnknownEngine};
pub use cpus::Cpus;
pub use driver::{Driver, Unparker};
pub use engine::Support;
pub use explained::{Explained, raw_os_error};
pub use future::{OpFuture, Operation};
pub use handle::SharedHandle;
pub use lease::Lease;
pub use mailbox::{MailReceiver, MailSender, mailbox};
pub use op_set::OpSet;
pub use process::{thread_time, trim_heap};
pub use timed::Timed;
