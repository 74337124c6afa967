//! Sockets, connections, and whose turn it is: the only part that waits.

mod client;
mod exec;
mod journal;
pub mod local;

pub use client::Client;
pub use exec::{call, follow};
pub use journal::{Journal, Logged};

use crate::config::Config;
use std::sync::{Arc, RwLock};

/// What all cores share.
pub struct Server {
    /// The settings.
    config: RwLock<Arc<Config>>,
    /// The log, where there is one.
    journal: Option<Box<dyn Journal>>,
}

impl Server {
    /// A server with these settings and this log.
    pub fn new(config: Config, journal: Option<Box<dyn Journal>>) -> Server {
        Server { config: RwLock::new(Arc::new(config)), journal }
    }

    /// The settings as they are now.
    pub fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// The log, where there is one.
    pub fn journal(&self) -> Option<&dyn Journal> {
        self.journal.as_deref()
    }
}
