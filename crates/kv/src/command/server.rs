//! The server: TIME, SAVE and the like, SHUTDOWN, ROLE, WAIT; FUNCTION as far as a server without functions has it.

use std::sync::atomic::Ordering;

use super::refused::refused_function;
use super::support::integer;
use super::{Answer, Call, DONE, Later, Outcome, Spec, flag};
use crate::clock;
use crate::error::Error;
use crate::protocol::{Args, parse_i64};
use crate::server::{Client, Subscriber};

const ANY_TIME: u32 = flag::LOADING | flag::STALE;
const SAVES: u32 = flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING;
const REPLICAOF: u32 = SAVES | flag::STALE;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("time", 1, time).fast().flags(ANY_TIME).doc(
        "server",
        "2.6.0",
        "O(1)",
        "Show the time",
    ),
    Spec::data("save", 1, save).flags(SAVES | flag::NO_MULTI).doc(
        "server",
        "1.0.0",
        "O(N), N being the keys",
        "Write a snapshot, and answer when it is written",
    ),
    Spec::data("bgsave", -1, bgsave).flags(SAVES).doc(
        "server",
        "1.0.0",
        "O(1)",
        "Begin to write a snapshot",
    ),
    Spec::data("bgrewriteaof", 1, bgrewriteaof).flags(SAVES).doc(
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
    Spec::session("sync", 1, sync).flags(SAVES | flag::NO_MULTI).doc(
        "server",
        "1.0.0",
        "O(1)",
        "Follow the stream of commands as they are logged",
    ),
    Spec::data("lastsave", 1, lastsave).fast().flags(ANY_TIME).doc(
        "server",
        "1.0.0",
        "O(1)",
        "Show when a snapshot was written last",
    ),
    Spec::data("role", 1, role).fast().flags(flag::NOSCRIPT | ANY_TIME).doc(
        "server",
        "2.8.12",
        "O(1)",
        "Show the part that the server has in replication, which is that of a master",
    ),
    Spec::data("replicaof", 3, replicaof).flags(REPLICAOF).doc(
        "server",
        "5.0.0",
        "O(1)",
        "Say that the server is to be a master, as it is",
    ),
    Spec::data("slaveof", 3, replicaof).flags(REPLICAOF).doc(
        "server",
        "1.0.0",
        "O(1)",
        "The same by an older name",
    ),
    Spec::data("wait", 3, wait).flags(flag::NOSCRIPT).doc(
        "generic",
        "3.0.0",
        "O(1)",
        "Wait until replicas have what was written, of which there are none",
    ),
    Spec::container(
        "function",
        &[
            Spec::data("flush", -2, function_flush).flags(flag::NOSCRIPT | flag::WRITE).doc(
                "scripting",
                "7.0.0",
                "O(1)",
                "Remove all functions, of which there are none",
            ),
            Spec::data("list", -2, function_list).flags(flag::NOSCRIPT).doc(
                "scripting",
                "7.0.0",
                "O(1)",
                "Show all functions, of which there are none",
            ),
            refused_function("delete"),
            refused_function("dump"),
            refused_function("kill"),
            refused_function("load"),
            refused_function("restore"),
            refused_function("stats"),
        ],
    )
    .doc("scripting", "7.0.0", "O(1)", "Manage functions, of which there are none"),
];

fn time(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let now = clock::now_us();
    call.reply.array(2);
    call.reply.bulk_int((now / 1_000_000) as i64);
    call.reply.bulk_int((now % 1_000_000) as i64);
    DONE
}

fn save(_call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    Ok(Outcome::later(Later::Save))
}

fn bgsave(_call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if args.len() > 2 || (args.len() == 2 && !args.is(1, "schedule")) {
        return Err(Error::SYNTAX);
    }
    Ok(Outcome::later(Later::BackgroundSave("Background saving started")))
}

fn bgrewriteaof(_call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let started = "Background append only file rewriting started";
    Ok(Outcome::later(Later::BackgroundSave(started)))
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
    Ok(Outcome::later(Later::Shutdown { save, force }))
}

fn lastsave(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.reply.int(call.server.persistence.saved_s.load(Ordering::Relaxed) as i64);
    DONE
}

fn role(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.reply.array(3);
    call.reply.bulk(b"master");
    call.reply.int(0);
    call.reply.array(0);
    DONE
}

fn replicaof(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if !args.is(1, "no") || !args.is(2, "one") {
        let name = String::from_utf8_lossy(&args[0]).to_uppercase();
        return Err(Error::of(format!("ERR {name} is not supported: there is no replication")));
    }
    call.reply.ok();
    DONE
}

fn wait(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let replicas = integer(&args[1])?;
    let timeout = parse_i64(&args[2]);
    let timeout = timeout.ok_or(Error::new("ERR timeout is not an integer or out of range"))?;
    let timeout = u64::try_from(timeout).map_err(|_| Error::new("ERR timeout is negative"))?;
    if replicas <= 0 {
        call.reply.int(0);
        return DONE;
    }
    let timeout_ms = Some(timeout).filter(|&timeout| timeout > 0);
    Ok(Outcome::later(Later::WaitForReplicas { timeout_ms }))
}

fn function_list(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.reply.array(0);
    DONE
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
