//! Channels, notifications and locks between tasks, also of different threads.
//!
//! These are tokio's, which work on any runtime: `oneshot`, `mpsc`, `watch` and `broadcast`
//! channels, [`Notify`], [`Semaphore`], and locks that may be held across an `.await`.

pub use tokio::sync::*;
