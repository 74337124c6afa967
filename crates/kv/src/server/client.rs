//! What the server knows of a client.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::limits::PastSoft;
use super::tracking::Tracks;
use crate::command::Command;
use crate::config::WhoMay;
use crate::protocol::{OwnedArgs, Proto};

/// A client: the state that its own commands see and change.
#[derive(Debug, Default)]
pub struct Client {
    /// What others may look at.
    pub info: Arc<ClientInfo>,
    /// Its database.
    pub db: usize,
    /// The version of the protocol it speaks.
    pub proto: Proto,
    /// Whether it has said the password, or needs none.
    pub is_authenticated: bool,
    /// The transaction that it is queueing.
    pub multi: Option<Multi>,
    /// Keys it watches, with their databases.
    pub watched: Vec<(usize, Vec<u8>)>,
    /// Those of them that were not there when the watch began: one whose time has come is not there either.
    pub watched_absent: BTreeSet<(usize, Vec<u8>)>,
    /// Set when one of them changes.
    pub watch_flag: Arc<AtomicBool>,
    /// Channels it is subscribed to.
    pub channels: BTreeSet<Vec<u8>>,
    /// Patterns of channels it is subscribed to.
    pub patterns: BTreeSet<Vec<u8>>,
    /// Channels of shards it is subscribed to.
    pub shard_channels: BTreeSet<Vec<u8>>,
    /// Which replies it wants: `CLIENT REPLY`.
    pub replies: Replies,
    /// Whether its reads leave no trace of use: `CLIENT NO-TOUCH`.
    pub no_touch: bool,
    /// Whether the keys that it reads are noted, so that it hears when one changes.
    pub notes_reads: bool,
    /// Whether it has called `CLIENT CACHING` for its next command.
    pub is_caching_given: bool,
    /// Whether it sees all commands: `MONITOR`.
    pub is_monitor: bool,
    /// The command that it called last: mostly the next one is the same.
    pub last_command: Option<&'static Command>,
    /// Whether its connection is closed once its replies are sent.
    pub closes: bool,
}

impl Client {
    /// Whether it has subscribed to anything: a client of RESP2 may then do little else.
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions() != 0 || !self.shard_channels.is_empty()
    }

    /// Channels and patterns together, which replies to SUBSCRIBE count.
    pub fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }
}

/// A transaction that is being queued.
#[derive(Debug, Default)]
pub struct Multi {
    /// The commands.
    pub queued: Vec<(&'static Command, OwnedArgs)>,
    /// Whether a command was refused, so that EXEC will be.
    pub is_aborted: bool,
}

/// Which replies a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replies {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// All but that of the next command.
    SkipNext,
    /// All but that of this command.
    Skip,
}

/// What others see of a client: `CLIENT LIST`. Numbers are written by the client's core, and may be a moment old.
#[derive(Debug, Default)]
pub struct ClientInfo {
    /// Its number, unique in the server.
    pub id: u64,
    /// The core of its connection.
    pub core: usize,
    /// The descriptor of its socket.
    pub fd: i32,
    /// Its address and the server's, as `CLIENT LIST` shows them.
    pub addr: String,
    /// The server's address.
    pub local_addr: String,
    /// Whether it came by a Unix socket.
    pub is_unix: bool,
    /// When it came, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it sent its last command, in milliseconds since 1970.
    pub last_ms: AtomicU64,
    /// The name it gave itself.
    pub name: Mutex<Vec<u8>>,
    /// Its database.
    pub db: AtomicUsize,
    /// Commands in its transaction, -1 outside of one.
    pub multi: AtomicI64,
    /// Channels it is subscribed to.
    pub channels: AtomicUsize,
    /// Patterns it is subscribed to.
    pub patterns: AtomicUsize,
    /// Channels of shards it is subscribed to.
    pub shard_channels: AtomicUsize,
    /// Keys it watches.
    pub watched: AtomicUsize,
    /// 2 or 3.
    pub resp: AtomicU32,
    /// Bits of [`state`].
    pub state: AtomicU32,
    /// The number of the command it sent last, plus one.
    pub command: AtomicUsize,
    /// Bytes it has sent that are no whole request yet.
    pub input: AtomicUsize,
    /// Bytes it is still to be sent.
    pub output: AtomicUsize,
    /// Since when those have been too many.
    pub past_soft: PastSoft,
    /// How it follows keys, if it does.
    pub tracks: Mutex<Option<Box<Tracks>>>,
}

/// Bits of [`ClientInfo::state`].
#[allow(missing_docs)]
pub mod state {
    pub const BLOCKED: u32 = 1;
    pub const MONITOR: u32 = 2;
    pub const NO_EVICT: u32 = 4;
    pub const KILLED: u32 = 8;
    pub const DIRTY: u32 = 16;
    pub const NO_TOUCH: u32 = 32;
    pub const CLOSING: u32 = 64;
    pub const PAUSED: u32 = 128;
}

impl ClientInfo {
    /// Sets or takes away bits of [`state`].
    pub fn set_state(&self, bits: u32, on: bool) {
        if on {
            self.state.fetch_or(bits, Ordering::Relaxed);
        } else {
            self.state.fetch_and(!bits, Ordering::Relaxed);
        }
    }

    /// Whether it has subscribed to anything.
    pub fn is_subscribed(&self) -> bool {
        let counts = [&self.channels, &self.patterns, &self.shard_channels];
        counts.iter().any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Whether the client is among those who may.
    pub fn may(&self, who: WhoMay) -> bool {
        match who {
            WhoMay::Nobody => false,
            WhoMay::All => true,
            WhoMay::Local => {
                let addr = self.addr.parse::<std::net::SocketAddr>();
                self.is_unix || addr.is_ok_and(|addr| addr.ip().to_canonical().is_loopback())
            }
        }
    }

    /// Its memory, in bytes, about: what it is, and what waits in it.
    pub fn memory(&self) -> u64 {
        /// Of a connection that does nothing: its tasks, buffers and entries in tables.
        const IDLE: usize = 3 * 1024;
        let waits = self.input.load(Ordering::Relaxed) + self.output.load(Ordering::Relaxed);
        (IDLE + waits) as u64
    }

    /// Whether any of these bits of [`state`] is set.
    pub fn is(&self, bits: u32) -> bool {
        self.state.load(Ordering::Relaxed) & bits != 0
    }
}

/// All clients of the server.
#[derive(Debug, Default)]
pub struct Clients {
    all: Mutex<BTreeMap<u64, Arc<ClientInfo>>>,
    next_id: AtomicU64,
}

impl Clients {
    /// A number that no client has had.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a client.
    pub fn add(&self, info: Arc<ClientInfo>) {
        self.lock().insert(info.id, info);
    }

    /// Removes a client.
    pub fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// The client with that number.
    pub fn get(&self, id: u64) -> Option<Arc<ClientInfo>> {
        self.lock().get(&id).cloned()
    }

    /// All of them, in the order in which they came.
    pub fn all(&self) -> Vec<Arc<ClientInfo>> {
        self.lock().values().cloned().collect()
    }

    /// The memory of all of them, in bytes, about.
    pub fn memory(&self) -> u64 {
        self.lock().values().map(|client| client.memory()).sum()
    }

    /// Those with the most memory, as many as have to go so that the others have no more than `max` bytes together.
    /// Clients that asked to stay (`CLIENT NO-EVICT`) stay, whatever they have.
    pub fn too_many_for(&self, max: u64) -> Vec<Arc<ClientInfo>> {
        let mut all: Vec<(u64, Arc<ClientInfo>)> =
            self.lock().values().map(|client| (client.memory(), client.clone())).collect();
        let mut total: u64 = all.iter().map(|(memory, _)| memory).sum();
        if total <= max {
            return Vec::new();
        }
        all.retain(|(_, client)| !client.is(state::NO_EVICT));
        all.sort_by_key(|&(memory, _)| Reverse(memory));
        let has_to_go = |&(memory, _): &(u64, _)| {
            let is_too_much = total > max;
            total = total.saturating_sub(memory);
            is_too_much
        };
        all.into_iter().take_while(has_to_go).map(|(_, client)| client).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ClientInfo>>> {
        self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_the_most_memory_go_but_not_those_that_asked_to_stay() {
        let clients = Clients::default();
        for (id, output) in [(1, 50_000), (2, 10_000), (3, 90_000), (4, 70_000), (5, 0)] {
            clients.add(Arc::new(ClientInfo {
                id,
                output: output.into(),
                ..ClientInfo::default()
            }));
        }
        clients.get(3).expect("it was added").set_state(state::NO_EVICT, true);
        let gone = |max| -> Vec<u64> {
            clients.too_many_for(max).iter().map(|client| client.id).collect()
        };
        let all = clients.memory();
        assert_eq!(gone(all), []);
        assert_eq!(gone(all - 1), [4]);
        assert_eq!(gone(all - 70_000), [4]);
        assert_eq!(gone(all - 100_000), [4, 1]);
        assert_eq!(gone(1), [4, 1, 2, 5]);
    }
}
