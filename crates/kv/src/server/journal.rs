//! What the commands see of the log.

use crate::error::Error;
use crate::protocol::Args;
use crate::store::Lsn;

/// A command as it is logged.
#[derive(Clone, Copy)]
pub struct Logged<'a> {
    /// The database it runs in.
    pub db: usize,
    /// Its words.
    pub args: Args<'a>,
}

/// The log, as those see it who write to it. Never waits.
pub trait Journal: Send + Sync {
    /// Adds one record, which holds commands that are all carried out again or none. Records are in the order of
    /// these calls; a caller has in hand the shards that the commands changed.
    fn append(&self, commands: &[Logged<'_>]) -> Lsn;

    /// Whether replies wait until their records are on the disk.
    fn is_awaited(&self) -> bool;

    /// Up to which record the disk is.
    fn synced(&self) -> Lsn;

    /// A reply that only shows a record waits for it: its sync is not to be put off for long.
    fn hurry(&self, _lsn: Lsn) {}

    /// Whether so much waits for the disk that no more requests should be read for now.
    fn is_congested(&self) -> bool {
        false
    }

    /// Why nothing may be changed now, where the disk is full or has failed.
    fn refusal(&self) -> Option<Error>;
}
