//! Calls a command whose shards are at hand, and carries out what follows from it.

use super::{Client, Logged, Server};
use crate::command::{Call, Command, Outcome, Run};
use crate::error::Error;
use crate::protocol::{Args, OwnedArgs};
use crate::store::{Keys, LogAs, Written};

/// Calls a command. Its reply is written, an error also, unless the outcome says that it comes later. What
/// follows is in `keys.effects`.
pub fn call(
    command: &Command,
    call: &mut Call<'_>,
    client: &mut Client,
    args: Args<'_>,
) -> Outcome {
    let begin = call.reply.begin();
    let answer = match command.spec.run {
        Run::Data(run) => run(call, args),
        Run::Session(run) => run(call, client, args),
        Run::Container => Err(Error::SYNTAX),
    };
    answer.unwrap_or_else(|error| {
        call.reply.undo(begin);
        call.reply.error(&error);
        Outcome::Done
    })
}

/// Logs what a command changed, and notes what replies have to wait for. `args` are its words.
pub fn follow(keys: &mut Keys, server: &Server, args: Args<'_>) {
    if keys.effects.dirty == 0 && keys.effects.gone.is_empty() {
        return;
    }
    let db = keys.db();
    let written = std::mem::take(&mut keys.effects.written);
    let log = std::mem::take(&mut keys.effects.log);
    let gone = std::mem::take(&mut keys.effects.gone);
    let dirty = std::mem::take(&mut keys.effects.dirty);
    let Some(journal) = server.journal() else {
        return;
    };
    let gone: Vec<(usize, OwnedArgs)> =
        gone.iter().map(|(db, key)| (*db, OwnedArgs::of([b"DEL", &key[..]]))).collect();
    let mut commands: Vec<Logged<'_>> =
        gone.iter().map(|(db, args)| Logged { db: *db, args: args.args() }).collect();
    match &log {
        _ if dirty == 0 => {}
        LogAs::Verbatim => commands.push(Logged { db, args }),
        LogAs::Commands(words) => {
            commands.extend(words.iter().map(|words| Logged { db, args: words.args() }));
        }
    }
    let lsn = journal.append(&commands);
    if !journal.is_awaited() {
        return;
    }
    keys.effects.gate = keys.effects.gate.max(lsn);
    for written in written {
        match written {
            Written::Key(shard, hash) => keys.shard(shard).wrote(hash, lsn),
            Written::All => keys.shards().for_each(|shard| shard.wrote_all(lsn)),
        }
    }
}
