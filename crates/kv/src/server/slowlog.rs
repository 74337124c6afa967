//! Commands that took long: `SLOWLOG`.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use super::ClientInfo;
use crate::protocol::Args;

/// Words of a command that are kept, at most.
const WORDS_MAX: usize = 32;

/// Bytes of a word that are kept, at most.
const WORD_MAX: usize = 128;

/// A command that took long.
#[derive(Clone, Debug)]
pub struct Slow {
    /// Its number, unique in the server.
    pub id: u64,
    /// When it was carried out, in seconds since 1970.
    pub at_s: u64,
    /// How long it took.
    pub micros: u64,
    /// Its words, cut where they are many or long.
    pub words: Vec<Vec<u8>>,
    /// The address of its client.
    pub addr: String,
    /// The name of its client.
    pub name: Vec<u8>,
}

/// Those that were the last.
#[derive(Debug, Default)]
pub struct Slowlog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    latest: VecDeque<Slow>,
}

impl Slowlog {
    /// Adds one, and forgets the oldest where there are more than `len`. Words for which `is_secret` holds are not
    /// kept.
    pub fn add(
        &self,
        client: &ClientInfo,
        args: Args<'_>,
        is_secret: impl Fn(usize) -> bool,
        (at_s, micros): (u64, u64),
        len: usize,
    ) {
        let kept = if args.len() > WORDS_MAX { WORDS_MAX - 1 } else { args.len() };
        let mut words: Vec<Vec<u8>> = Vec::with_capacity(kept + 1);
        for (index, word) in args.iter_from(0).take(kept).enumerate() {
            words.push(match word.get(..WORD_MAX) {
                _ if is_secret(index) => b"(redacted)".to_vec(),
                Some(begin) if word.len() > WORD_MAX => {
                    let more = format!("... ({} more bytes)", word.len() - WORD_MAX);
                    [begin, more.as_bytes()].concat()
                }
                _ => word.to_vec(),
            });
        }
        if kept < args.len() {
            words.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
        }
        let name = client.name.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let addr = client.addr.clone();
        state.latest.push_front(Slow { id, at_s, micros, words, addr, name });
        state.latest.truncate(len);
    }

    /// The latest ones first, `count` at most.
    pub fn get(&self, count: usize) -> Vec<Slow> {
        self.lock().latest.iter().take(count).cloned().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().latest.len()
    }

    /// Forgets all.
    pub fn reset(&self) {
        self.lock().latest.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
