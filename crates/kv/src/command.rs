//! What each command does, and the table of them.
//!
//! A file per family. Each has its commands' functions and `COMMANDS`, their rows of the table. A command of
//! data ([`Run::Data`]) sees keys and writes a reply; where it runs and what follows from it is not its
//! business. A command of the session ([`Run::Session`]) also sees its client.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::config::Config;
use crate::error::Error;
use crate::protocol::{Args, Reply};
use crate::server::{Client, Delivery, Server};
use crate::store::Keys;

pub mod bits;
pub mod clients;
pub mod cluster;
pub mod connection;
pub mod debug;
pub mod dumping;
mod elements;
pub mod expiry;
pub mod generic;
pub mod geo;
pub mod hashes;
pub mod hyperloglog;
pub mod info;
pub mod introspect;
pub mod key_range;
pub mod latency;
pub mod lists;
pub mod memory;
pub mod monitor;
pub mod pubsub;
pub mod refused;
mod secret;
pub mod server;
pub mod sets;
pub mod settings;
pub mod slowlog;
pub mod sorting;
pub mod strings;
pub mod support;
pub mod transactions;
pub mod zsets;

pub use refused::refusal;
pub use secret::is_secret;

/// What a command works with.
pub struct Call<'a> {
    /// The keys of the shards at hand.
    pub keys: &'a mut Keys,
    /// Where the reply goes.
    pub reply: &'a mut Reply,
    /// The settings.
    pub config: &'a Config,
    /// What all cores share.
    pub server: &'a Server,
    /// Messages to subscribers, which are sent after the reply.
    pub deliveries: &'a mut Vec<Delivery>,
}

/// What a command has come to. Small, since it passes through many hands and is nearly always `Done`.
#[derive(Debug)]
pub enum Outcome {
    /// The reply is written.
    Done,
    /// There is nothing yet: the client waits for keys.
    Block(Box<Block>),
    /// The server does it, which takes time, and writes the reply.
    Later(Box<Later>),
}

/// A wait until one of these keys has something: the command is called again then. Inside of MULTI, and when the time
/// is up, the reply is `null`.
#[derive(Debug)]
pub struct Block {
    /// The keys.
    pub keys: Vec<Vec<u8>>,
    /// Milliseconds to wait at most; `None` for ever.
    pub timeout_ms: Option<u64>,
    /// What is answered when the time is up.
    pub null: Null,
}

impl Outcome {
    /// The client waits for one of these keys.
    pub fn block(keys: Vec<Vec<u8>>, timeout_ms: Option<u64>, null: Null) -> Outcome {
        Outcome::Block(Box::new(Block { keys, timeout_ms, null }))
    }

    /// The server does this.
    pub fn later(later: Later) -> Outcome {
        Outcome::Later(Box::new(later))
    }

    /// Whether a transaction is to be run.
    pub fn is_exec(&self) -> bool {
        matches!(self, Outcome::Later(later) if **later == Later::Exec)
    }
}

/// A null reply, of the type that the command has when it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Null {
    /// In the place of a string.
    Bulk,
    /// In the place of an array.
    Array,
}

/// What takes time, so that the connection's task does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Later {
    /// Run the transaction that was queued.
    Exec,
    /// Change settings, which these words give by turns with their values, among them where is listened.
    Listen(Vec<String>),
    /// Write a snapshot and answer when it is done.
    Save,
    /// Begin one and answer at once, with this status.
    BackgroundSave(&'static str),
    /// Write a snapshot and load it again: `DEBUG RELOAD`.
    Reload {
        /// Whether a snapshot is written first.
        save: bool,
        /// Whether all keys are removed before loading.
        flush: bool,
    },
    /// Load the log again: `DEBUG LOADAOF`.
    ReloadLog,
    /// End the server.
    Shutdown {
        /// Whether a snapshot is written; by default if any is configured.
        save: Option<bool>,
        /// End even where something cannot be written.
        force: bool,
    },
    /// Answer how many replicas have it: none has.
    WaitForReplicas {
        /// Milliseconds to wait at most; `None` for ever.
        timeout_ms: Option<u64>,
    },
    /// Close the connection once everything is sent.
    Quit,
}

/// What a command gives back: its outcome, or the error that is its reply.
pub type Answer = Result<Outcome, Error>;

/// The answer of a command that has written its reply.
pub const DONE: Answer = Ok(Outcome::Done);

/// A command's function.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// Of data.
    Data(fn(&mut Call<'_>, Args<'_>) -> Answer),
    /// Of the session.
    Session(fn(&mut Call<'_>, &mut Client, Args<'_>) -> Answer),
    /// None: its subcommands have theirs.
    Container,
}

/// Which words of a request are keys, and so which shards it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySpec {
    /// No keys.
    None,
    /// Every `step`th word from `first` to `last`, which counts from the end where negative.
    Range {
        /// Index of the first key.
        first: usize,
        /// Index of the last one; -1 is the last word.
        last: isize,
        /// How far keys are apart.
        step: usize,
    },
    /// As many words as the word at `count` says, right after it, and the one at `also`.
    Counted {
        /// Index of the number of keys.
        count: usize,
        /// Index of a further key.
        also: Option<usize>,
    },
    /// The word at `key`, and the one after the last of these words, from `from` on, where one is given.
    OneAndAfter {
        /// Index of the first key.
        key: usize,
        /// Index of the first word that may be one of `after`.
        from: usize,
        /// The words before a further key, such as `store`.
        after: &'static [&'static str],
    },
    /// Keys that no position tells, or all of them: it needs all shards. The word at `key`, if any, is a key.
    All {
        /// Index of a key.
        key: Option<usize>,
        /// The word before a further key, such as `store`, where it is given.
        after: Option<&'static str>,
    },
}

/// What is true of a command: bits of [`Spec::flags`], named as `COMMAND` names them.
#[allow(missing_docs)]
pub mod flag {
    pub const WRITE: u32 = 1 << 0;
    pub const READONLY: u32 = 1 << 1;
    pub const DENYOOM: u32 = 1 << 2;
    pub const ADMIN: u32 = 1 << 3;
    pub const PUBSUB: u32 = 1 << 4;
    pub const NOSCRIPT: u32 = 1 << 5;
    pub const BLOCKING: u32 = 1 << 6;
    pub const LOADING: u32 = 1 << 7;
    pub const STALE: u32 = 1 << 8;
    pub const FAST: u32 = 1 << 9;
    pub const NO_AUTH: u32 = 1 << 10;
    pub const NO_MULTI: u32 = 1 << 11;
    pub const MOVABLEKEYS: u32 = 1 << 12;
    /// May be called by a client of RESP2 that has subscribed.
    pub const SUBSCRIBED: u32 = 1 << 13;
    pub const SKIP_SLOWLOG: u32 = 1 << 14;
    pub const SKIP_MONITOR: u32 = 1 << 15;
    pub const NO_MANDATORY_KEYS: u32 = 1 << 16;
    pub const ALLOW_BUSY: u32 = 1 << 17;
    pub const MAY_REPLICATE: u32 = 1 << 18;
    /// Is carried out while a transaction is queued, not queued.
    pub const NO_QUEUE: u32 = 1 << 19;
    /// Is known by name only, so as to say that there is no such thing here.
    pub const REFUSED: u32 = 1 << 20;
    pub const NO_ASYNC_LOADING: u32 = 1 << 21;
    /// Is refused unless `enable-debug-command` says otherwise.
    pub const DEBUG: u32 = 1 << 22;
}

/// A row of the table of commands.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The name, in lower case; of a subcommand its own name alone.
    pub name: &'static str,
    /// The number of words, name included; where negative, at least that many.
    pub arity: i32,
    /// Its function.
    pub run: Run,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Which words are keys.
    pub keys: KeySpec,
    /// The group in the documentation, such as `string`.
    pub group: &'static str,
    /// The version of Redis that has had it first.
    pub since: &'static str,
    /// How its cost grows.
    pub complexity: &'static str,
    /// What it does, in a sentence without a full stop.
    pub summary: &'static str,
    /// Its subcommands.
    pub subcommands: &'static [Spec],
}

impl Spec {
    /// A command of data.
    pub const fn data(
        name: &'static str,
        arity: i32,
        run: fn(&mut Call<'_>, Args<'_>) -> Answer,
    ) -> Spec {
        Spec::new(name, arity, Run::Data(run))
    }

    /// A command of the session.
    pub const fn session(
        name: &'static str,
        arity: i32,
        run: fn(&mut Call<'_>, &mut Client, Args<'_>) -> Answer,
    ) -> Spec {
        Spec::new(name, arity, Run::Session(run))
    }

    /// A command that has only subcommands.
    pub const fn container(name: &'static str, subcommands: &'static [Spec]) -> Spec {
        let mut spec = Spec::new(name, -2, Run::Container);
        spec.subcommands = subcommands;
        spec
    }

    const fn new(name: &'static str, arity: i32, run: Run) -> Spec {
        Spec {
            name,
            arity,
            run,
            flags: 0,
            keys: KeySpec::None,
            group: "generic",
            since: "1.0.0",
            complexity: "O(1)",
            summary: "",
            subcommands: &[],
        }
    }

    /// With these bits of [`flag`].
    pub const fn flags(mut self, flags: u32) -> Spec {
        self.flags |= flags;
        self
    }

    /// It reads keys.
    pub const fn reads(self) -> Spec {
        self.flags(flag::READONLY)
    }

    /// It changes keys, and may make them larger.
    pub const fn writes(self) -> Spec {
        self.flags(flag::WRITE | flag::DENYOOM)
    }

    /// It changes keys, and makes none larger.
    pub const fn frees(self) -> Spec {
        self.flags(flag::WRITE)
    }

    /// It takes a time that does not grow with the data, or with its logarithm.
    pub const fn fast(self) -> Spec {
        self.flags(flag::FAST)
    }

    /// The word at this index is its key.
    pub const fn key(mut self, index: usize) -> Spec {
        self.keys = KeySpec::Range { first: index, last: index as isize, step: 1 };
        self
    }

    /// Words from `first` to `last` are keys.
    pub const fn keys(mut self, first: usize, last: isize, step: usize) -> Spec {
        self.keys = KeySpec::Range { first, last, step };
        self
    }

    /// As many words as the word at `count` says are keys, after it, and the one at `also`.
    pub const fn counted_keys(mut self, count: usize, also: Option<usize>) -> Spec {
        self.keys = KeySpec::Counted { count, also };
        self.flags(flag::MOVABLEKEYS)
    }

    /// The word at `key` is a key, and so is the one after any of these words, from `from` on.
    pub const fn key_and_after(
        mut self,
        key: usize,
        from: usize,
        after: &'static [&'static str],
    ) -> Spec {
        self.keys = KeySpec::OneAndAfter { key, from, after };
        self.flags(flag::MOVABLEKEYS)
    }

    /// It needs all shards.
    pub const fn all_keys(mut self, key: Option<usize>) -> Spec {
        self.keys = KeySpec::All { key, after: None };
        self
    }

    /// It needs all shards, and the word after the last `after` is also a key.
    pub const fn all_keys_and_after(mut self, key: usize, after: &'static str) -> Spec {
        self.keys = KeySpec::All { key: Some(key), after: Some(after) };
        self.flags(flag::MOVABLEKEYS)
    }

    /// What the documentation says.
    pub const fn doc(
        mut self,
        group: &'static str,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> Spec {
        self.group = group;
        self.since = since;
        self.complexity = complexity;
        self.summary = summary;
        self
    }
}

/// A command of the table.
#[derive(Debug)]
pub struct Command {
    /// Its row.
    pub spec: &'static Spec,
    /// Its name, with its container's before it: `config|get`.
    pub full_name: String,
    /// Its number, below [`count`], by which statistics are kept.
    pub id: usize,
    /// Its subcommands.
    pub subcommands: Vec<Command>,
}

impl Command {
    /// Whether any of these bits of [`flag`] is set.
    pub fn has(&self, flags: u32) -> bool {
        self.spec.flags & flags != 0
    }

    /// Whether it takes that many words.
    pub fn takes(&self, words: usize) -> bool {
        let (words, arity) = (words as i64, i64::from(self.spec.arity));
        if arity < 0 { words >= -arity } else { words == arity }
    }

    /// Whether it is this command that a request calls, and with a right number of words. Says no of commands that
    /// have subcommands, or are one.
    #[inline]
    pub fn is_called_by(&self, args: Args<'_>) -> bool {
        self.subcommands.is_empty()
            && self.full_name.len() == self.spec.name.len()
            && args.is(0, self.spec.name)
            && self.takes(args.len())
    }

    /// Whether it is a subcommand that a request calls.
    fn asks_subcommand(&self, args: Args<'_>) -> bool {
        match self.spec.run {
            Run::Container => true,
            _ => !self.subcommands.is_empty() && args.len() > 1,
        }
    }

    /// The word that is a key, of a command that takes one and no more.
    #[inline]
    pub fn only_key<'a>(&self, args: Args<'a>) -> Option<&'a [u8]> {
        match self.spec.keys {
            KeySpec::Range { first, last, .. } if last == first as isize => args.get(first),
            _ => None,
        }
    }

    /// Calls `f` with the index of each word that is a key. Where the words do not fit, those that are there.
    pub fn for_each_key(&self, args: Args<'_>, mut f: impl FnMut(usize)) {
        match self.spec.keys {
            KeySpec::None => {}
            KeySpec::Range { first, last, step } => {
                let last = if last < 0 { args.len() as isize + last } else { last };
                let mut index = first;
                while (index as isize) <= last && index < args.len() {
                    f(index);
                    index += step;
                }
            }
            KeySpec::Counted { count, also } => {
                if let Some(also) = also.filter(|&also| also < args.len()) {
                    f(also);
                }
                let keys = args.get(count).and_then(crate::protocol::parse_u64).unwrap_or(0);
                let first = count + 1;
                let last = first.saturating_add(keys as usize).min(args.len());
                (first..last).for_each(f);
            }
            KeySpec::OneAndAfter { key, from, after } => {
                if key < args.len() {
                    f(key);
                }
                let (mut at, mut last) = (from, None);
                while at + 1 < args.len() {
                    if after.iter().any(|word| args.is(at, word)) {
                        at += 1;
                        last = Some(at);
                    }
                    at += 1;
                }
                last.into_iter().for_each(f);
            }
            KeySpec::All { key, after } => {
                let Some(key) = key.filter(|&key| key < args.len()) else {
                    return;
                };
                f(key);
                let after = after.and_then(|word| {
                    (key + 1..args.len() - 1).rev().find(|&index| args.is(index, word))
                });
                after.into_iter().for_each(|index| f(index + 1));
            }
        }
    }
}

/// Every family's rows.
const FAMILIES: &[&[Spec]] = &[
    bits::COMMANDS,
    clients::COMMANDS,
    cluster::COMMANDS,
    connection::COMMANDS,
    debug::COMMANDS,
    dumping::COMMANDS,
    server::COMMANDS,
    expiry::COMMANDS,
    generic::COMMANDS,
    geo::COMMANDS,
    key_range::COMMANDS,
    hashes::COMMANDS,
    hyperloglog::COMMANDS,
    info::COMMANDS,
    introspect::COMMANDS,
    latency::COMMANDS,
    lists::COMMANDS,
    memory::COMMANDS,
    monitor::COMMANDS,
    pubsub::COMMANDS,
    refused::COMMANDS,
    sets::COMMANDS,
    settings::COMMANDS,
    slowlog::COMMANDS,
    sorting::COMMANDS,
    strings::COMMANDS,
    transactions::COMMANDS,
    zsets::COMMANDS,
];

struct Table {
    commands: Vec<Command>,
    names: Vec<String>,
    by_name: HashMap<&'static str, usize, ahash::RandomState>,
    count: usize,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut count = 0;
        let mut number = || {
            count += 1;
            count - 1
        };
        let mut commands = Vec::new();
        let mut by_name = HashMap::default();
        for spec in FAMILIES.iter().copied().flatten() {
            let id = number();
            let subcommand = |sub: &'static Spec| Command {
                spec: sub,
                full_name: format!("{}|{}", spec.name, sub.name),
                id: number(),
                subcommands: Vec::new(),
            };
            let subcommands = spec.subcommands.iter().map(subcommand).collect();
            let full_name = spec.name.to_owned();
            by_name.insert(spec.name, commands.len());
            commands.push(Command { spec, full_name, id, subcommands });
        }
        let mut names = vec![String::new(); count];
        for command in &commands {
            names[command.id].clone_from(&command.full_name);
            for sub in &command.subcommands {
                names[sub.id].clone_from(&sub.full_name);
            }
        }
        Table { commands, names, by_name, count }
    })
}

/// All commands, in the order of the table.
pub fn all() -> &'static [Command] {
    &table().commands
}

/// The number of commands and subcommands.
pub fn count() -> usize {
    table().count
}

/// The name of the command with that number, with its container's before it.
pub fn name_of(id: usize) -> &'static str {
    &table().names[id]
}

/// The command of that name, in whatever case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    const LONGEST: usize = 32;
    if name.len() > LONGEST {
        return None;
    }
    let mut lower = [0; LONGEST];
    let lower = &mut lower[..name.len()];
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let table = table();
    let at = table.by_name.get(std::str::from_utf8(lower).ok()?)?;
    Some(&table.commands[*at])
}

/// The command that a request calls, its subcommand where it has any, or the error that is the reply.
pub fn resolve(args: Args<'_>) -> Result<&'static Command, Error> {
    let Some(command) = find(&args[0]) else {
        return Err(unknown(args));
    };
    if command.asks_subcommand(args) {
        let Some(name) = args.get(1) else {
            return Err(Error::arity(command.spec.name));
        };
        let sub = command.subcommands.iter().find(|sub| args.is(1, sub.spec.name));
        let Some(sub) = sub else {
            let (name, container) = (printable(name, 128), command.spec.name.to_uppercase());
            return Err(Error::of(format!(
                "ERR unknown subcommand '{name}'. Try {container} HELP."
            )));
        };
        return arity(sub, args);
    }
    arity(command, args)
}

/// The command that a request calls, whether it has the right number of words or not.
pub fn lookup(args: Args<'_>) -> Option<&'static Command> {
    let command = find(args.get(0)?)?;
    if command.asks_subcommand(args) {
        return command.subcommands.iter().find(|sub| args.is(1, sub.spec.name));
    }
    Some(command)
}

/// The command of that full name, `config|get`, in whatever case.
pub fn find_full(name: &[u8]) -> Option<&'static Command> {
    let Some(at) = name.iter().position(|&byte| byte == b'|') else {
        return find(name);
    };
    let sub = &name[at + 1..];
    find(&name[..at])?
        .subcommands
        .iter()
        .find(|of| of.spec.name.as_bytes().eq_ignore_ascii_case(sub))
}

fn arity(command: &'static Command, args: Args<'_>) -> Result<&'static Command, Error> {
    if command.takes(args.len()) { Ok(command) } else { Err(Error::arity(&command.full_name)) }
}

fn unknown(args: Args<'_>) -> Error {
    let mut shown = String::new();
    for word in args.iter_from(1) {
        if shown.len() >= 128 {
            break;
        }
        shown += &format!("'{}' ", printable(word, 128 - shown.len()));
    }
    let name = printable(&args[0], 128);
    Error::of(format!("ERR unknown command '{name}', with args beginning with: {shown}"))
}

fn printable(word: &[u8], longest: usize) -> String {
    String::from_utf8_lossy(&word[..word.len().min(longest)]).into_owned()
}

/// The reply of a container's subcommand HELP.
pub fn help(call: &mut Call<'_>, name: &str, lines: &[(&str, &str)]) -> Answer {
    call.reply.array(lines.len() * 2 + 3);
    let head = format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    call.reply.simple(&head);
    for (usage, text) in lines {
        call.reply.simple(usage);
        call.reply.simple(&format!("    {text}"));
    }
    call.reply.simple("HELP");
    call.reply.simple("    Print this help.");
    DONE
}
