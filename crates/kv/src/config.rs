//! The settings, by the names that Redis has for them.

use std::net::SocketAddr;

use crate::server::ClientInfo;
use crate::store::{Keys, Limits};

/// The settings. A change makes a new copy, which all cores take up before their next command.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limits of compact encodings.
    pub limits: Limits,
    /// Addresses to listen on: `bind`.
    pub bind: Vec<std::net::IpAddr>,
    /// The port to listen on: `port`; 0 for none.
    pub port: u16,
    /// The password, or nothing: `requirepass`.
    pub password: Vec<u8>,
    /// Bytes of a word of a request, at most: `proto-max-bulk-len`.
    pub proto_max_bulk_len: u64,
    /// Bytes of a request that is not complete, at most: `client-query-buffer-limit`.
    pub client_query_buffer_limit: usize,
    /// Which events are told: `notify-keyspace-events`, as bits of `EventClass`.
    pub events: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            limits: Limits::default(),
            bind: vec![std::net::Ipv4Addr::LOCALHOST.into()],
            port: 6379,
            password: Vec::new(),
            proto_max_bulk_len: 512 << 20,
            client_query_buffer_limit: 1 << 30,
            events: 0,
        }
    }
}

impl Config {
    /// What commands need of it, put where they see it.
    pub fn apply(&self, keys: &mut Keys) {
        keys.limits = self.limits;
        keys.events_wanted = self.events;
    }

    /// The addresses to listen on.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.bind.iter().map(|&ip| SocketAddr::new(ip, self.port)).collect()
    }

    /// Whether clients have to say a password first.
    pub fn needs_password(&self) -> bool {
        !self.password.is_empty()
    }

    /// Whether this is the password. Takes as long for a wrong one as for the right one.
    pub fn is_password(&self, password: &[u8]) -> bool {
        let differs = password
            .iter()
            .zip(self.password.iter().cycle())
            .fold(0, |differs, (one, other)| differs | (one ^ other));
        password.len() == self.password.len() && differs == 0
    }

    /// Whether a client is to be disconnected for not reading its replies.
    pub fn is_output_too_large(&self, client: &ClientInfo, queued: usize) -> bool {
        let _ = client;
        queued > (4 << 30)
    }
}
