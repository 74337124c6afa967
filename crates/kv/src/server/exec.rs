//! Calls a command whose shards are at hand, and carries out what follows from it.

use std::sync::atomic::Ordering;

use super::{Client, Journal, Logged, Server};
use crate::command::{Answer, Call, Command, Run};
use crate::error::Error;
use crate::protocol::{Args, OwnedArgs};
use crate::store::{Keys, LogAs, Lsn, Written};

/// Calls a command. Its reply is written, an error also, unless the outcome says that it comes later. What
/// follows is in `keys.effects`.
#[inline]
pub fn call(command: &Command, call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    let begin = call.reply.begin();
    let answer = match command.spec.run {
        Run::Data(run) => run(call, args),
        Run::Session(run) => run(call, client, args),
        Run::Container => Err(Error::SYNTAX),
    };
    if let Err(error) = &answer {
        call.reply.undo(begin);
        call.reply.error(error);
    }
    answer
}

/// Logs what a command changed, and notes what its reply has to wait for. `args` are its words.
#[inline]
pub fn follow(keys: &mut Keys, server: &Server, args: Args<'_>) {
    if keys.effects.dirty == 0 && keys.effects.gone.is_empty() {
        return;
    }
    follow_changes(keys, server, args);
}

fn follow_changes(keys: &mut Keys, server: &Server, args: Args<'_>) {
    follow_gone(keys, server);
    let effects = &mut keys.effects;
    if effects.dirty == 0 {
        return;
    }
    if effects.log == LogAs::Verbatim {
        return commit(keys, server, &[Logged { db: keys.db(), args }]);
    }
    let mut record = Record::default();
    record.add(keys, args);
    record.commit(keys, server);
}

/// Logs keys that are gone without a command that removes them: each by itself.
pub fn follow_gone(keys: &mut Keys, server: &Server) {
    if keys.effects.gone.is_empty() {
        return;
    }
    let (dirty, log) = (keys.effects.dirty, std::mem::take(&mut keys.effects.log));
    for (db, key) in std::mem::take(&mut keys.effects.gone) {
        let words = OwnedArgs::of([b"DEL", &key[..]]);
        commit(keys, server, &[Logged { db, args: words.args() }]);
    }
    (keys.effects.dirty, keys.effects.log) = (dirty, log);
}

/// The changes of a transaction: all in one record.
#[derive(Debug, Default)]
pub struct Record {
    commands: Vec<(usize, OwnedArgs)>,
}

impl Record {
    /// Adds what the command with these words has changed.
    pub fn add(&mut self, keys: &mut Keys, args: Args<'_>) {
        let db = keys.db();
        let effects = &mut keys.effects;
        for (db, key) in effects.gone.drain(..) {
            self.commands.push((db, OwnedArgs::of([b"DEL", &key[..]])));
        }
        let log = std::mem::take(&mut effects.log);
        if std::mem::take(&mut effects.dirty) == 0 {
            return;
        }
        match log {
            LogAs::Verbatim => self.commands.push((db, args.to_owned())),
            LogAs::Commands(commands) => {
                self.commands.extend(commands.into_iter().map(|args| (db, args)));
            }
        }
    }

    /// Writes the record.
    pub fn commit(self, keys: &mut Keys, server: &Server) {
        if self.commands.is_empty() {
            return forget(keys);
        }
        let logged = self.commands.iter().map(|(db, args)| Logged { db: *db, args: args.args() });
        commit(keys, server, &logged.collect::<Vec<_>>());
    }
}

/// Writes a record.
fn commit(keys: &mut Keys, server: &Server, commands: &[Logged<'_>]) {
    server.persistence.changes.fetch_add(commands.len() as u64, Ordering::Relaxed);
    server.follow_up(commands);
    match server.journal() {
        Some(journal) => {
            let lsn = journal.append(commands);
            written(keys, journal, lsn);
        }
        None => forget(keys),
    }
}

/// Nothing is logged.
fn forget(keys: &mut Keys) {
    let effects = &mut keys.effects;
    effects.written.clear();
    effects.gone.clear();
    effects.dirty = 0;
    effects.log = LogAs::Verbatim;
}

/// The record has this number: replies that show what it changed wait for it.
fn written(keys: &mut Keys, journal: &dyn Journal, lsn: Lsn) {
    let mut written = std::mem::take(&mut keys.effects.written);
    if journal.is_awaited() {
        keys.effects.gate = keys.effects.gate.max(lsn);
        for &written in &written {
            match written {
                Written::Key(shard, hash) => keys.shard(shard).wrote(hash, lsn),
                Written::All => keys.shards().for_each(|shard| shard.wrote_all(lsn)),
            }
        }
    }
    // Its memory is of use to the next command.
    written.clear();
    keys.effects.written = written;
    keys.effects.dirty = 0;
    keys.effects.log = LogAs::Verbatim;
}
