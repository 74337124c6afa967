//! DEBUG: what tests need.

mod digest;

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::memory::of_value;
use super::{Answer, Call, DONE, Later, Outcome, Spec, flag};
use crate::error::Error;
use crate::protocol::{Args, Proto, parse_f64, parse_u64};
use crate::report;
use crate::store::{DBS, Db, Shard, ValueRef, seconds};
use crate::{config, glob, server};

const FLAGS: u32 = flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::DEBUG;

/// A subcommand.
const fn row(spec: Spec, summary: &'static str) -> Spec {
    spec.flags(FLAGS).doc("server", "1.0.0", "Depends on what is asked", summary)
}

/// A subcommand of Redis for what is not here.
const fn refused(name: &'static str) -> Spec {
    super::refused::refused(name, "it is about the inside of Redis, or ends the server by a crash")
}

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::container(
    "debug",
    &[
        row(Spec::data("sleep", 3, sleep), "Have the core do nothing for so many seconds"),
        row(
            Spec::data("set-active-expire", 3, set_active_expire),
            "Remove keys whose time has come only when they are looked at, or by themselves again",
        ),
        row(Spec::data("reload", -2, reload).all_keys(None), "Write a snapshot and load it again"),
        row(Spec::data("loadaof", 2, loadaof).all_keys(None), "Load the log again"),
        row(Spec::data("protocol", 3, protocol), "Reply something of a type of the protocol"),
        row(Spec::data("object", -3, object).key(2), "Show how a value is stored"),
        row(Spec::data("digest", 2, digest).all_keys(None), "Show a checksum of all keys"),
        row(
            Spec::data("digest-value", -2, digest_value).keys(2, -1, 1),
            "Show checksums of the values of keys",
        ),
        row(Spec::data("populate", -3, populate).all_keys(None), "Set keys, numbered from 0 on"),
        row(
            Spec::data("htstats", -3, htstats).all_keys(None),
            "Show the size of a database's tables",
        ),
        row(
            Spec::data("htstats-key", -3, htstats_key).key(2),
            "Show the size of the table of a key's value",
        ),
        row(
            Spec::data("stringmatch-len", 4, stringmatch_len),
            "Match a long text of A against a pattern",
        ),
        row(Spec::data("quicklist-packed-threshold", 3, accept), "Is taken, and does nothing"),
        row(Spec::data("replybuffer", -3, accept), "Is taken, and does nothing"),
        row(Spec::data("pause-cron", 3, pause_cron), "Have nothing be done from time to time"),
        row(Spec::data("change-repl-id", 2, change_repl_id), "Choose a new replication ID"),
        row(
            Spec::data("config-rewrite-force-all", 2, rewrite_all),
            "Write all settings into the file that they were read from",
        ),
        row(Spec::data("log", 3, log), "Write a message to the standard error output"),
        row(Spec::data("error", 3, error), "Reply an error"),
        row(Spec::data("listpack", 3, layout).key(2), "Show the encoding of a key's value"),
        row(Spec::data("ziplist", 3, layout).key(2), "Show the encoding of a key's value"),
        row(Spec::data("quicklist", -3, layout).key(2), "Show the encoding of a key's value"),
        refused("assert"),
        refused("crash-and-abort"),
        refused("crash-and-recover"),
        refused("jmap"),
        refused("leak"),
        refused("mallctl"),
        refused("mallctl-str"),
        refused("oom"),
        refused("panic"),
        refused("restart"),
        refused("sdslen"),
        refused("segfault"),
        refused("structsize"),
        Spec::data("help", 2, help).flags(flag::LOADING | flag::STALE).doc(
            "server",
            "4.0.0",
            "O(1)",
            "Show what DEBUG can be asked",
        ),
    ],
)
.doc("server", "1.0.0", "Depends on the subcommand", "Do what tests need")
.flags(FLAGS)];

fn sleep(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let seconds = parse_f64(&args[2]).filter(|seconds| (0.0..1000.0).contains(seconds));
    let seconds = seconds.ok_or(Error::NOT_A_FLOAT)?;
    // That nothing else happens on this core is what it is for.
    std::thread::sleep(Duration::from_secs_f64(seconds));
    call.reply.ok();
    DONE
}

fn set_active_expire(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    call.server.set_active_expiry(&args[2] != b"0");
    call.reply.ok();
    DONE
}

fn reload(_call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (mut save, mut flush) = (true, true);
    for index in 2..args.len() {
        if args.is(index, "nosave") {
            save = false;
        } else if args.is(index, "noflush") {
            flush = false;
        } else if !args.is(index, "merge") {
            return Err(Error::new(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    Ok(Outcome::later(Later::Reload { save, flush }))
}

fn loadaof(_call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    Ok(Outcome::later(Later::ReloadLog))
}

#[allow(clippy::approx_constant, reason = "it is what Redis replies")]
fn protocol(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let reply = &mut *call.reply;
    let is_new = reply.proto() == Proto::Resp3;
    let name = args[2].to_ascii_lowercase();
    match &name[..] {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.int(12345),
        b"double" => reply.double(3.141),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.int(number));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.int(number));
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.int(number);
                reply.bool(number == 1);
            }
        }
        b"attrib" => {
            if is_new {
                reply.raw(b"|1\r\n");
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.int(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" if !is_new => {
            return Err(Error::new("ERR RESP2 is not supported by this command"));
        }
        b"push" => {
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.int(42);
            // A push is no reply: this is.
            reply.bulk(b"Some real reply following the push reply");
        }
        b"true" => reply.bool(true),
        b"false" => reply.bool(false),
        b"verbatim" => reply.verbatim(b"txt", b"This is a verbatim\nstring"),
        b"bignum" if is_new => reply.raw(b"(1234567999999999999999999999999999999\r\n"),
        b"bignum" => reply.bulk(b"1234567999999999999999999999999999999"),
        _ => {
            return Err(Error::new(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    DONE
}

fn object(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[2];
    let access = call.keys.access(key).ok_or(Error::NO_SUCH_KEY)?;
    let idle = seconds(call.keys.now_ms()).wrapping_sub(access) & 0xff_ffff;
    let value = call.keys.peek(key).ok_or(Error::NO_SUCH_KEY)?;
    let (encoding, bytes) = (value.encoding(), of_value(value));
    let line = format!(
        "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{bytes} lru:{access} lru_seconds_idle:{idle}"
    );
    call.reply.simple(&line);
    DONE
}

fn digest(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let digest = digest::of_all(call.keys);
    call.reply.simple(&digest.to_string());
    DONE
}

fn digest_value(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    call.reply.array(args.len() - 2);
    for key in args.iter_from(2) {
        let digest = call.keys.peek(key).map(digest::of_value).unwrap_or_default();
        call.reply.simple(&digest.to_string());
    }
    DONE
}

fn populate(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if args.len() > 5 {
        return Err(Error::SYNTAX);
    }
    let positive = Error::new("ERR value is out of range, must be positive");
    let count = parse_u64(&args[2]).ok_or(positive.clone())?;
    let prefix = args.get(3).unwrap_or(b"key");
    let size = args.get(4).map(|word| parse_u64(word).ok_or(positive)).transpose()?;
    for number in 0..count {
        let key = [prefix, format!(":{number}").as_bytes()].concat();
        if call.keys.contains(&key) {
            continue;
        }
        let mut value = format!("value:{number}").into_bytes();
        if let Some(size) = size.filter(|&size| size > 0) {
            value.resize(size as usize, 0);
        }
        call.keys.insert_string(&key, &value);
        call.keys.changed_quietly(&key);
        call.keys.log_as([b"SET", &key[..], &value[..]]);
    }
    call.reply.ok();
    DONE
}

fn htstats(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if args.len() > 4 || (args.len() == 4 && !args.is(3, "full")) {
        return Err(Error::SYNTAX);
    }
    let db = super::support::database(&args[2], Error::NOT_AN_INTEGER);
    let db = db.map_err(|_| Error::new("ERR Out of range database"))?;
    debug_assert!(db < DBS);
    let mut sum = |count: fn(&Db) -> usize| {
        call.keys.shards().map(|shard: &mut Shard| count(&shard.dbs[db])).sum::<usize>()
    };
    let (size, keys, expires) = (sum(Db::capacity), sum(Db::len), sum(Db::expiring));
    let table = |size: usize, count: usize, name: &str| match count {
        0 => format!("Hash table 0 stats ({name}):\nNo stats available for empty dictionaries\n"),
        _ => format!(
            "Hash table 0 stats ({name}):\n table size: {size}\n number of elements: {count}\n"
        ),
    };
    // A key's time of expiry lies in the same table.
    let text = format!(
        "[Dictionary HT]\n{}[Expires HT]\n{}",
        table(size, keys, "main hash table"),
        table(size, expires, "main hash table")
    );
    call.reply.verbatim(b"txt", text.as_bytes());
    DONE
}

fn htstats_key(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let value = call.keys.peek(&args[2]).ok_or(Error::NO_SUCH_KEY)?;
    let len = match value {
        ValueRef::Set(set) if value.encoding() == "hashtable" => set.len(),
        ValueRef::Hash(hash) if value.encoding() == "hashtable" => hash.len(),
        ValueRef::Zset(zset) if value.encoding() == "skiplist" => zset.len(),
        _ => {
            return Err(Error::new(
                "ERR The value stored at the specified key is not represented using an hash table",
            ));
        }
    };
    let text = format!("Hash table 0 stats (main hash table):\n number of elements: {len}\n");
    call.reply.verbatim(b"txt", text.as_bytes());
    DONE
}

fn stringmatch_len(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    const LONGEST: u64 = 256 * 1024 * 1024;
    let len = parse_u64(&args[2]).filter(|&len| len <= LONGEST).ok_or(Error::NOT_AN_INTEGER)?;
    let text = vec![b'A'; len as usize];
    call.reply.flag(glob::matches(&args[3], &text));
    DONE
}

fn accept(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.reply.ok();
    DONE
}

fn pause_cron(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    call.server.is_cron_paused.store(&args[2] != b"0", Ordering::Relaxed);
    call.reply.ok();
    DONE
}

fn change_repl_id(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let mut id = call.server.replication_id.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    *id = server::random_id();
    call.reply.ok();
    DONE
}

fn rewrite_all(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let file = call.server.config_file();
    let file = file.ok_or(Error::new("ERR The server is running without a config file"))?;
    config::rewrite(file, call.config, true)
        .map_err(|error| Error::of(format!("ERR CONFIG-REWRITE-FORCE-ALL failed: {error}")))?;
    call.reply.ok();
    DONE
}

fn log(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    report::warning("DEBUG LOG", &[("text", &String::from_utf8_lossy(&args[2]))]);
    call.reply.ok();
    DONE
}

fn error(_call: &mut Call<'_>, args: Args<'_>) -> Answer {
    Err(Error::of(String::from_utf8_lossy(&args[2]).into_owned()))
}

fn layout(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let value = call.keys.peek(&args[2]).ok_or(Error::NO_SUCH_KEY)?;
    let line = format!("{} of {} bytes", value.encoding(), of_value(value));
    call.reply.simple(&line);
    DONE
}

fn help(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let container = super::find(b"debug");
    let rows: Vec<(String, &str)> = container
        .into_iter()
        .flat_map(|command| &command.subcommands)
        .filter(|command| !command.has(flag::REFUSED) && command.spec.name != "help")
        .map(|command| (command.spec.name.to_uppercase(), command.spec.summary))
        .collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(name, text)| (&name[..], *text)).collect();
    super::help(call, "DEBUG", &rows)
}

#[cfg(test)]
mod tests {
    use crate::server::local::Local;

    #[test]
    fn a_digest_depends_on_the_data_and_not_on_its_order() {
        let (mut one, mut other) = (Local::new(2), Local::new(2));
        for words in ["SET a 1", "RPUSH l a b", "SADD s a b c", "HSET h a 1 b 2", "ZADD z 1 a 2 b"]
        {
            one.run(words);
        }
        for words in ["ZADD z 2 b 1 a", "HSET h b 2 a 1", "SADD s c b a", "RPUSH l a b", "SET a 1"]
        {
            other.run(words);
        }
        assert_eq!(one.run("DEBUG DIGEST"), other.run("DEBUG DIGEST"));
        assert_eq!(one.run("DEBUG DIGEST").len(), 40);
        for words in
            ["SET a 2", "LSET l 0 x", "SREM s a", "HSET h a 3", "ZADD z 3 a", "EXPIRE a 10"]
        {
            let before = other.run("DEBUG DIGEST");
            other.run(words);
            assert_ne!(other.run("DEBUG DIGEST"), before, "{words}");
        }
        assert_eq!(one.run("DEBUG DIGEST-VALUE none"), format!("[{}]", "0".repeat(40)));
        one.run("FLUSHALL");
        assert_eq!(one.run("DEBUG DIGEST"), "0".repeat(40));
    }

    #[test]
    fn populated_keys_are_logged_as_sets() {
        let mut local = Local::default();
        assert_eq!(local.run("DEBUG POPULATE 2 k 9"), "OK");
        assert_eq!(local.logged(), [r"SET k:0 value:0\x00\x00", r"SET k:1 value:1\x00\x00"]);
    }
}
