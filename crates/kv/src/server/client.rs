//! What the server knows of a client.

use crate::protocol::Proto;

/// A client: the state that its commands see and change.
#[derive(Debug, Default)]
pub struct Client {
    /// Its number, unique in the server.
    pub id: u64,
    /// Its database.
    pub db: usize,
    /// The version of the protocol it speaks.
    pub proto: Proto,
}
