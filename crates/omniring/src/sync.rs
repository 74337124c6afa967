//! Channels, notifications and locks between tasks, also of different threads.
//!
//! Those are tokio's, which work on any runtime: `oneshot`, `mpsc`, `watch` and `broadcast`
//! channels, [`Notify`], [`Semaphore`], and locks that may be held across an `.await`.
//! [`CancellationToken`] tells tasks to end.

mod cancellation;

pub use cancellation::CancellationToken;
pub use tokio::sync::*;
