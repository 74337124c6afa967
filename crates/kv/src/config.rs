//! The settings, by the names that Redis has for them.

use crate::store::Limits;

/// The settings. A change makes a new copy, which all cores take up before their next command.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limits of compact encodings.
    pub limits: Limits,
    /// Bytes of a string, at most.
    pub proto_max_bulk_len: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config { limits: Limits::default(), proto_max_bulk_len: 512 << 20 }
    }
}
