//! The settings, by the names that Redis has for them.

use crate::store::Limits;

/// The settings. A change makes a new copy, which all cores take up before their next command.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limits of compact encodings.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Config {
        Config { limits: Limits::default() }
    }
}
