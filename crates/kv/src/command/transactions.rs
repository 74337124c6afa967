//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.

use std::sync::atomic::Ordering;

use super::{Answer, Call, DONE, Later, Outcome, Spec, flag};
use crate::error::Error;
use crate::protocol::Args;
use crate::server::{Client, Multi};

const FLAGS: u32 =
    flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_QUEUE | flag::ALLOW_BUSY;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::session("multi", 1, multi).flags(FLAGS).doc(
        "transactions",
        "1.2.0",
        "O(1)",
        "Begin a transaction",
    ),
    Spec::session("exec", 1, exec)
        .flags(FLAGS & !flag::FAST & !flag::ALLOW_BUSY | flag::SKIP_SLOWLOG)
        .doc(
            "transactions",
            "1.2.0",
            "Depends on the commands of the transaction",
            "Carry out the commands queued since MULTI",
        ),
    Spec::session("discard", 1, discard).flags(FLAGS).doc(
        "transactions",
        "2.0.0",
        "O(N), N being the commands queued",
        "Forget the commands queued since MULTI",
    ),
    Spec::session("watch", -2, watch).keys(1, -1, 1).flags(FLAGS).doc(
        "transactions",
        "2.2.0",
        "O(1) for each key",
        "Have EXEC refuse if one of these keys has changed by then",
    ),
    Spec::session("unwatch", 1, unwatch).flags(FLAGS & !flag::NO_QUEUE).doc(
        "transactions",
        "2.2.0",
        "O(1)",
        "Forget all watched keys",
    ),
];

fn multi(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    if client.multi.is_some() {
        return Err(Error::new("ERR MULTI calls can not be nested"));
    }
    client.multi = Some(Multi::default());
    client.info.multi.store(0, Ordering::Relaxed);
    call.reply.ok();
    DONE
}

fn exec(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    let Some(multi) = &client.multi else {
        return Err(Error::new("ERR EXEC without MULTI"));
    };
    client.info.multi.store(-1, Ordering::Relaxed);
    if multi.is_aborted {
        client.multi = None;
        call.server.unwatch(call.keys, client);
        return Err(Error::new("EXECABORT Transaction discarded because of previous errors."));
    }
    Ok(Outcome::later(Later::Exec))
}

fn discard(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    if client.multi.take().is_none() {
        return Err(Error::new("ERR DISCARD without MULTI"));
    }
    client.info.multi.store(-1, Ordering::Relaxed);
    call.server.unwatch(call.keys, client);
    call.reply.ok();
    DONE
}

fn watch(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    if client.multi.is_some() {
        return Err(Error::new("ERR WATCH inside MULTI is not allowed"));
    }
    for key in args.iter_from(1) {
        let name = (client.db, key.to_vec());
        if !client.watched.contains(&name) {
            call.keys.watch(key, &client.watch_flag);
            if !call.keys.contains(key) {
                client.watched_absent.insert(name.clone());
            }
            client.watched.push(name);
        }
    }
    client.info.watched.store(client.watched.len(), Ordering::Relaxed);
    call.reply.ok();
    DONE
}

fn unwatch(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    call.server.unwatch(call.keys, client);
    call.reply.ok();
    DONE
}
