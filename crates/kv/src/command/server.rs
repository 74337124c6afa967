//! The server: INFO, TIME, SAVE and the like, SHUTDOWN; FUNCTION as far as a server without functions has it.

use std::sync::atomic::Ordering;

use super::{Answer, Call, DONE, Later, Outcome, Spec, flag};
use crate::clock;
use crate::error::Error;
use crate::protocol::Args;
use crate::server::{Client, Subscriber};

const ANY_TIME: u32 = flag::LOADING | flag::STALE;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("info", -1, info).all_keys(None).flags(ANY_TIME).doc(
        "server",
        "1.0.0",
        "O(1)",
        "Show what the server knows of itself",
    ),
    Spec::data("time", 1, time).fast().flags(ANY_TIME).doc(
        "server",
        "2.6.0",
        "O(1)",
        "Show the time",
    ),
    Spec::data("save", 1, save).flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_MULTI).doc(
        "server",
        "1.0.0",
        "O(N), N being the keys",
        "Write a snapshot, and answer when it is written",
    ),
    Spec::data("bgsave", -1, bgsave).flags(flag::ADMIN | flag::NOSCRIPT).doc(
        "server",
        "1.0.0",
        "O(1)",
        "Begin to write a snapshot",
    ),
    Spec::data("bgrewriteaof", 1, bgrewriteaof).flags(flag::ADMIN | flag::NOSCRIPT).doc(
        "server",
        "1.0.0",
        "O(1)",
        "Begin to write a snapshot, after which the log before it goes",
    ),
    Spec::data("shutdown", -1, shutdown)
        .flags(flag::ADMIN | flag::NOSCRIPT | ANY_TIME | flag::NO_MULTI | flag::ALLOW_BUSY)
        .doc(
            "server",
            "1.0.0",
            "O(N), N being the keys, when saving; otherwise O(1)",
            "End the server",
        ),
    Spec::session("sync", 1, sync).flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_MULTI).doc(
        "server",
        "1.0.0",
        "O(1)",
        "Follow the stream of commands as they are logged",
    ),
    Spec::container(
        "function",
        &[Spec::data("flush", -2, function_flush).flags(flag::NOSCRIPT | flag::WRITE).doc(
            "scripting",
            "7.0.0",
            "O(1)",
            "Remove all functions, of which there are none",
        )],
    ),
];

fn info(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let keys: u64 = call.keys.shards().map(|shard| shard.stats.hits).sum();
    let mut text = format!(
        "# Server\r\nredis_version:{}\r\nprocess_id:{}\r\nuptime_in_seconds:{}\r\n\r\n# Clients\r\n\
         connected_clients:{}\r\nblocked_clients:{}\r\n\r\n# Persistence\r\nloading:0\r\naof_rewrite_in_progress:0\r\n\
         rdb_bgsave_in_progress:0\r\n\r\n# Stats\r\nkeyspace_hits:{keys}\r\n\r\n# Replication\r\nrole:master\r\n\r\n\
         # Keyspace\r\n",
        crate::REDIS_VERSION,
        std::process::id(),
        (clock::now_ms() - call.server.started_ms) / 1000,
        call.server.clients.count(),
        call.server.blocked.load(Ordering::Relaxed),
    );
    for db in 0..crate::store::DBS {
        let count = |part: fn(&crate::store::Db) -> usize, call: &mut Call<'_>| -> usize {
            call.keys.shards().map(|shard| part(&shard.dbs[db])).sum()
        };
        let keys = count(|db| db.len(), call);
        if keys > 0 {
            let expires = count(|db| db.expiring(), call);
            text += &format!("db{db}:keys={keys},expires={expires},avg_ttl=0\r\n");
        }
    }
    call.reply.verbatim(b"txt", text.as_bytes());
    DONE
}

fn time(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let now = clock::now_us();
    call.reply.array(2);
    call.reply.bulk_int((now / 1_000_000) as i64);
    call.reply.bulk_int((now % 1_000_000) as i64);
    DONE
}

fn save(_call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    Ok(Outcome::Later(Later::Save))
}

fn bgsave(_call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if args.len() > 2 || (args.len() == 2 && !args.is(1, "schedule")) {
        return Err(Error::SYNTAX);
    }
    Ok(Outcome::Later(Later::BackgroundSave("Background saving started")))
}

fn bgrewriteaof(_call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let started = "Background append only file rewriting started";
    Ok(Outcome::Later(Later::BackgroundSave(started)))
}

fn shutdown(_call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (mut save, mut force) = (None, false);
    for index in 1..args.len() {
        if args.is(index, "save") {
            save = Some(true);
        } else if args.is(index, "nosave") {
            save = Some(false);
        } else if args.is(index, "force") {
            force = true;
        } else if !args.is(index, "now") {
            return Err(Error::SYNTAX);
        }
    }
    Ok(Outcome::Later(Later::Shutdown { save, force }))
}

fn function_flush(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.reply.ok();
    DONE
}

/// A snapshot without keys, in Redis' format: a header, the end, and no checksum.
const NO_KEYS: &[u8] = b"REDIS0010\xff\0\0\0\0\0\0\0\0";

fn sync(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    call.reply.raw(format!("${}\r\n", NO_KEYS.len()).as_bytes());
    call.reply.raw(NO_KEYS);
    call.server.feed.add(Subscriber { client: client.info.id, core: client.info.core });
    DONE
}
