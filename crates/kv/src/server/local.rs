//! A server without sockets, threads or time, for tests of commands.

use std::sync::{Arc, Mutex};

use super::{Client, Journal, Logged, Server, call, follow};
use crate::command::{Call, Outcome, resolve};
use crate::config::Config;
use crate::error::Error;
use crate::protocol::{OwnedArgs, Reply};
use crate::store::{Event, Keys, Lsn, Shard};

/// One client and its keys, which are all at hand. Its clock stands still unless moved.
pub struct Local {
    /// The settings.
    pub config: Config,
    /// The keys.
    pub keys: Keys,
    /// The client.
    pub client: Client,
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
    /// The events of the last command.
    pub events: Vec<Event>,
    /// The outcome of the last command.
    pub outcome: Outcome,
    server: Server,
    logged: Arc<Mutex<Vec<String>>>,
}

/// A log in memory, as text.
struct Memory(Arc<Mutex<Vec<String>>>);

impl Journal for Memory {
    fn append(&self, commands: &[Logged<'_>]) -> Lsn {
        let mut all = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        all.extend(commands.iter().map(|command| {
            let words = command.args.iter_from(0).map(|word| word.escape_ascii().to_string());
            words.collect::<Vec<_>>().join(" ")
        }));
        all.len() as Lsn
    }

    fn is_awaited(&self) -> bool {
        false
    }

    fn synced(&self) -> Lsn {
        0
    }

    fn refusal(&self) -> Option<Error> {
        None
    }
}

impl Default for Local {
    fn default() -> Local {
        Local::new(1)
    }
}

impl Local {
    /// A server without keys, in that many shards.
    pub fn new(shards: usize) -> Local {
        let mut keys = Keys::new(shards);
        (0..shards).for_each(|index| keys.put(Box::new(Shard::new(index))));
        let logged = Arc::new(Mutex::new(Vec::new()));
        Local {
            config: Config::default(),
            keys,
            client: Client::default(),
            now_ms: 1_700_000_000_000,
            events: Vec::new(),
            outcome: Outcome::Done,
            server: Server::new(Config::default(), Some(Box::new(Memory(logged.clone()))), shards),
            logged,
        }
    }

    /// Runs a command given as words between spaces, and gives its reply as `redis-cli` would show it in one
    /// line: `"text"`, `OK`, `3`, `(nil)`, `[1, "a"]`, `(error) ERR ...`.
    pub fn run(&mut self, words: &str) -> String {
        self.words(&words.split_whitespace().map(str::as_bytes).collect::<Vec<_>>())
    }

    /// The same for words that may hold anything.
    pub fn words(&mut self, words: &[&[u8]]) -> String {
        show(&self.bytes(words))
    }

    /// Runs a command and gives the bytes of its reply.
    pub fn bytes(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let args = OwnedArgs::of(words);
        let mut reply = Reply::new(self.client.proto);
        let command = match resolve(args.args()) {
            Ok(command) => command,
            Err(error) => {
                reply.error(&error);
                return reply.to_bytes();
            }
        };
        self.keys.effects = Default::default();
        self.keys.limits = self.config.limits;
        self.keys.events_wanted = u32::MAX;
        self.keys.begin(self.client.db, self.now_ms);
        let mut with = Call {
            keys: &mut self.keys,
            reply: &mut reply,
            config: &self.config,
            server: &self.server,
            deliveries: &mut Vec::new(),
        };
        let answer = call(command, &mut with, &mut self.client, args.args());
        self.outcome = answer.unwrap_or(Outcome::Done);
        follow(&mut self.keys, &self.server, args.args());
        self.events = std::mem::take(&mut self.keys.effects.events);
        reply.to_bytes()
    }

    /// What was logged since the last call, a command in a line.
    pub fn logged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.logged.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// The names of the last command's events, in order.
    pub fn event_names(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.name).collect()
    }
}

/// The reply in one line, for people.
fn show(bytes: &[u8]) -> String {
    let mut rest = bytes;
    let mut shown = String::new();
    while !rest.is_empty() {
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown += &one(&mut rest);
    }
    shown
}

fn one(rest: &mut &[u8]) -> String {
    let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("a reply has a line end");
    let line = String::from_utf8_lossy(&rest[..end]).into_owned();
    *rest = &rest[end + 2..];
    let (kind, text) = line.split_at(1);
    let count = || text.parse::<i64>().expect("a length is a number");
    match kind {
        "+" | ":" | "," => text.to_owned(),
        "-" => format!("(error) {text}"),
        "_" => "(nil)".to_owned(),
        "#" => (if text == "t" { "true" } else { "false" }).to_owned(),
        "$" | "=" if count() < 0 => "(nil)".to_owned(),
        "$" | "=" => {
            let len = count() as usize;
            let text = format!("\"{}\"", rest[..len].escape_ascii());
            *rest = &rest[len + 2..];
            text
        }
        "*" if count() < 0 => "(nil)".to_owned(),
        "*" | "~" | ">" => {
            let items: Vec<String> = (0..count()).map(|_| one(rest)).collect();
            format!("[{}]", items.join(", "))
        }
        "%" => {
            let pairs: Vec<String> =
                (0..count()).map(|_| format!("{}: {}", one(rest), one(rest))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => panic!("no type of reply begins with {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::Local;

    #[test]
    fn a_value_is_read_as_it_was_set() {
        let mut local = Local::default();
        assert_eq!(local.run("GET a"), "(nil)");
        assert_eq!(local.run("SET a 1"), "OK");
        assert_eq!(local.run("get a"), "\"1\"");
        assert_eq!(local.logged(), ["SET a 1"]);
        assert_eq!(local.event_names(), Vec::<&str>::new());
    }
}
