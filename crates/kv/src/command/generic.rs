//! Keys, of whatever type: which there are, and to name, copy, move and delete them.
//!
//! When they expire is in `expiry`.

use super::support::{database, help, integer};
use super::{Answer, Call, DONE, Spec, flag};
use crate::error::Error;
use crate::glob;
use crate::protocol::{Args, parse_cursor};
use crate::store::{DBS, EventClass, StrRef, ValueRef, seconds};

#[cfg(test)]
mod tests;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("copy", -3, copy).writes().keys(1, 2, 1).doc(
        "generic",
        "6.2.0",
        "O(N) where N is the number of elements of the value, O(1) for strings",
        "Copy a key",
    ),
    Spec::data("dbsize", 1, dbsize).reads().fast().all_keys(None).doc(
        "server",
        "1.0.0",
        "O(1)",
        "Get the number of keys in the database",
    ),
    Spec::data("del", -2, del).frees().keys(1, -1, 1).doc(
        "generic",
        "1.0.0",
        "O(N) where N is the number of keys and of the elements of their values",
        "Delete keys",
    ),
    Spec::data("exists", -2, exists).reads().fast().keys(1, -1, 1).doc(
        "generic",
        "1.0.0",
        "O(N) where N is the number of keys",
        "Count how many of these keys there are",
    ),
    Spec::data("flushall", -1, |call, args| flush(call, args, true)).frees().all_keys(None).doc(
        "server",
        "1.0.0",
        "O(N) where N is the number of keys",
        "Delete all keys of all databases",
    ),
    Spec::data("flushdb", -1, |call, args| flush(call, args, false)).frees().all_keys(None).doc(
        "server",
        "1.0.0",
        "O(N) where N is the number of keys in the database",
        "Delete all keys of the database",
    ),
    Spec::data("keys", 2, keys).reads().all_keys(None).doc(
        "generic",
        "1.0.0",
        "O(N) where N is the number of keys in the database",
        "Get all keys that match a pattern",
    ),
    Spec::data("move", 3, move_key).frees().fast().key(1).doc(
        "generic",
        "1.0.0",
        "O(1)",
        "Move a key to another database",
    ),
    Spec::container(
        "object",
        &[
            Spec::data("encoding", 3, object_encoding).reads().key(2).doc(
                "generic",
                "2.2.3",
                "O(1)",
                "Get how a value is kept in memory",
            ),
            Spec::data("freq", 3, object_freq).reads().key(2).doc(
                "generic",
                "4.0.0",
                "O(1)",
                "Get how often a key is used, as a logarithm",
            ),
            Spec::data("help", 2, object_help).flags(flag::LOADING | flag::STALE).doc(
                "generic",
                "6.2.0",
                "O(1)",
                "Get what the subcommands do",
            ),
            Spec::data("idletime", 3, object_idletime).reads().key(2).doc(
                "generic",
                "2.2.3",
                "O(1)",
                "Get how many seconds ago a key was used",
            ),
            Spec::data("refcount", 3, object_refcount).reads().key(2).doc(
                "generic",
                "2.2.3",
                "O(1)",
                "Get how many hold a value",
            ),
        ],
    )
    .doc("generic", "2.2.3", "Depends on the subcommand", "Look at how values are kept"),
    Spec::data("randomkey", 1, randomkey).reads().all_keys(None).doc(
        "generic",
        "1.0.0",
        "O(1)",
        "Get a key picked at random",
    ),
    Spec::data("rename", 3, |call, args| rename(call, args, false)).frees().keys(1, 2, 1).doc(
        "generic",
        "1.0.0",
        "O(1)",
        "Give a key another name",
    ),
    Spec::data("renamenx", 3, |call, args| rename(call, args, true))
        .frees()
        .fast()
        .keys(1, 2, 1)
        .doc("generic", "1.0.0", "O(1)", "Give a key another name, if no key has it"),
    Spec::data("scan", -2, scan).reads().all_keys(None).doc(
        "generic",
        "2.8.0",
        "O(1) for each call, O(N) for a walk where N is the number of keys",
        "Walk over the keys, some at a time",
    ),
    Spec::data("swapdb", 3, swapdb).frees().fast().all_keys(None).doc(
        "server",
        "4.0.0",
        "O(N) where N is the number of clients that watch or wait for keys of both",
        "Exchange two databases",
    ),
    Spec::data("touch", -2, touch).reads().fast().keys(1, -1, 1).doc(
        "generic",
        "3.2.1",
        "O(N) where N is the number of keys",
        "Note that keys are used; how many of them there are",
    ),
    Spec::data("type", 2, type_of).reads().fast().key(1).doc(
        "generic",
        "1.0.0",
        "O(1)",
        "Get the type of a value",
    ),
    Spec::data("unlink", -2, del).frees().fast().keys(1, -1, 1).doc(
        "generic",
        "4.0.0",
        "O(N) where N is the number of keys",
        "Delete keys, and free their memory later",
    ),
];

// Which keys there are.

fn exists(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let count = args.iter_from(1).filter(|key| call.keys.exists(key)).count();
    call.reply.count(count);
    DONE
}

fn touch(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let count = args.iter_from(1).filter(|key| call.keys.read(key).is_some()).count();
    call.reply.count(count);
    DONE
}

fn type_of(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let there = call.keys.exists(&args[1]);
    let kind = if there { call.keys.kind(&args[1]) } else { None };
    call.reply.simple(kind.map_or("none", |kind| kind.name()));
    DONE
}

fn dbsize(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.keys.reads_all();
    let count = call.keys.count();
    call.reply.count(count);
    DONE
}

fn randomkey(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.keys.reads_all();
    match call.keys.random_key() {
        Some(key) => call.reply.bulk(&key),
        None => call.reply.null(),
    }
    DONE
}

fn keys(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    call.keys.reads_all();
    let pattern = &args[1];
    let (db, now, replaying) = (call.keys.db(), call.keys.now_ms(), call.keys.replaying);
    let begin = call.reply.begin();
    let mut count = 0;
    for shard in call.keys.shards() {
        let mut cursor = 0;
        loop {
            cursor = shard.dbs[db].scan(cursor, usize::MAX, |table, slot| {
                let key = table.key(slot);
                let alive = replaying || table.expires_ms(slot).is_none_or(|at| at > now);
                if alive && glob::matches(pattern, key) {
                    call.reply.bulk(key);
                    count += 1;
                }
            });
            if cursor == 0 {
                break;
            }
        }
    }
    call.reply.end_array(begin, count);
    DONE
}

fn scan(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let cursor = parse_cursor(&args[1]).ok_or(Error::new("ERR invalid cursor"))?;
    let (mut count, mut pattern, mut kind) = (10, None, None);
    let mut index = 2;
    while index < args.len() {
        if index + 1 == args.len() {
            return Err(Error::SYNTAX);
        } else if args.is(index, "count") {
            count = integer(&args[index + 1])?;
            if count < 1 {
                return Err(Error::SYNTAX);
            }
        } else if args.is(index, "match") {
            pattern = args.get(index + 1).filter(|&pattern| pattern != b"*");
        } else if args.is(index, "type") {
            kind = args.get(index + 1);
        } else {
            return Err(Error::SYNTAX);
        }
        index += 2;
    }
    call.keys.reads_all();
    let mut found = Vec::new();
    let cursor = call.keys.scan(cursor, count as usize, |key| {
        if pattern.is_none_or(|pattern| glob::matches(pattern, key)) {
            found.push(key.to_vec());
        }
    });
    found.retain(|key| match call.keys.kind(key) {
        Some(of) => kind.is_none_or(|kind| kind.eq_ignore_ascii_case(of.name().as_bytes())),
        None => false,
    });
    call.reply.array(2);
    call.reply.bulk(cursor.to_string().as_bytes());
    call.reply.array(found.len());
    found.iter().for_each(|key| call.reply.bulk(key));
    DONE
}

// Naming, copying, moving.

fn rename(call: &mut Call<'_>, args: Args<'_>, if_none: bool) -> Answer {
    let (from, to) = (&args[1], &args[2]);
    if !call.keys.contains(from) {
        return Err(Error::NO_SUCH_KEY);
    }
    let same = from == to;
    let done = !if_none || !(same || call.keys.contains(to));
    if done && !same {
        call.keys.delete(to);
        if let Some((value, expires_ms)) = call.keys.take_value(from) {
            call.keys.insert(to, value, expires_ms);
        }
        call.keys.changed(from, EventClass::GENERIC, "rename_from");
        call.keys.changed(to, EventClass::GENERIC, "rename_to");
    }
    if if_none {
        call.reply.flag(done);
    } else {
        call.reply.ok();
    }
    DONE
}

fn move_key(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let db = database(&args[2], Error::NOT_AN_INTEGER)?;
    if db == call.keys.db() {
        return Err(SAME_OBJECT);
    }
    let there = call.keys.in_db(db, |keys| keys.contains(key));
    let moved = if there { None } else { call.keys.take_value(key) };
    call.reply.flag(moved.is_some());
    if let Some((value, expires_ms)) = moved {
        call.keys.changed(key, EventClass::GENERIC, "move_from");
        call.keys.in_db(db, |keys| {
            keys.insert(key, value, expires_ms);
            keys.changed(key, EventClass::GENERIC, "move_to");
        });
    }
    DONE
}

fn copy(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (from, to) = (&args[1], &args[2]);
    let (mut db, mut replace) = (call.keys.db(), false);
    let mut index = 3;
    while index < args.len() {
        if args.is(index, "replace") {
            replace = true;
        } else if args.is(index, "db") && index + 1 < args.len() {
            index += 1;
            db = database(&args[index], Error::NOT_AN_INTEGER)?;
        } else {
            return Err(Error::SYNTAX);
        }
        index += 1;
    }
    if db == call.keys.db() && from == to {
        return Err(SAME_OBJECT);
    }
    // A value may be large: it is copied only if it goes anywhere.
    let there = call.keys.read(from).is_some();
    let copied = there && (replace || !call.keys.in_db(db, |keys| keys.contains(to)));
    if copied {
        let expires_ms = call.keys.expires_ms(from).flatten();
        let value = call.keys.peek(from).map(|value| value.to_value());
        call.keys.in_db(db, |keys| {
            keys.delete(to);
            if let Some(value) = value {
                keys.insert(to, value, expires_ms);
            }
            keys.changed(to, EventClass::GENERIC, "copy_to");
        });
    }
    call.reply.flag(copied);
    DONE
}

const SAME_OBJECT: Error = Error::new("ERR source and destination objects are the same");

// Deleting.

fn del(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let mut count = 0;
    for key in args.iter_from(1) {
        if call.keys.delete(key) {
            call.keys.changed(key, EventClass::GENERIC, "del");
            count += 1;
        }
    }
    call.reply.count(count);
    DONE
}

fn flush(call: &mut Call<'_>, args: Args<'_>, all: bool) -> Answer {
    if args.len() > 2 || args.len() == 2 && !args.is(1, "sync") && !args.is(1, "async") {
        return Err(Error::SYNTAX);
    }
    /// So many bytes are worth the system calls.
    const MANY: usize = 16 << 20;
    let bytes = match all {
        true => (0..DBS).map(|db| call.keys.clear(db)).sum(),
        false => call.keys.clear(call.keys.db()),
    };
    if bytes >= MANY && !args.is(1, "async") {
        // Otherwise the allocator keeps it for what comes next, since it lies below something that is in use.
        call.keys.shards().for_each(|shard| shard.gives_back = true);
    }
    call.keys.changed_all();
    call.reply.ok();
    DONE
}

fn swapdb(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let number = |index: usize, error| integer(&args[index]).map_err(|_| error);
    number(1, Error::new("ERR invalid first DB index"))?;
    number(2, Error::new("ERR invalid second DB index"))?;
    let a = database(&args[1], Error::new("ERR invalid first DB index"))?;
    let b = database(&args[2], Error::new("ERR invalid second DB index"))?;
    if a != b {
        call.keys.swap_dbs(a, b);
    }
    call.keys.changed_all();
    call.reply.ok();
    DONE
}

// Looking at values.

fn object_encoding(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    match call.keys.peek(&args[2]) {
        Some(value) => call.reply.bulk(value.encoding().as_bytes()),
        None => call.reply.null(),
    }
    DONE
}

fn object_refcount(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    match call.keys.peek(&args[2]) {
        // Redis keeps these once for all keys, and says so with the largest count there is.
        Some(ValueRef::Str(StrRef::Int(0..10_000))) => call.reply.int(i64::from(i32::MAX)),
        Some(_) => call.reply.int(1),
        None => call.reply.null(),
    }
    DONE
}

fn object_idletime(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    match call.keys.access(&args[2]) {
        None => call.reply.null(),
        Some(_) if call.keys.lfu.is_some() => {
            return Err(Error::new(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note \
                 that when switching between policies at runtime LRU and LFU data will take \
                 some time to adjust.",
            ));
        }
        Some(access) => {
            let idle = seconds(call.keys.now_ms()).wrapping_sub(access) & 0xff_ffff;
            call.reply.int(i64::from(idle));
        }
    }
    DONE
}

fn object_freq(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    match (call.keys.access(&args[2]), call.keys.lfu) {
        (None, _) => call.reply.null(),
        (Some(_), None) => {
            return Err(Error::new(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
                 Please note that when switching between policies at runtime LRU and LFU data \
                 will take some time to adjust.",
            ));
        }
        (Some(access), Some(lfu)) => {
            call.reply.int(i64::from(lfu.count(access, call.keys.now_ms())));
        }
    }
    DONE
}

fn object_help(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    help(
        call.reply,
        "object",
        &[
            "ENCODING <key>",
            "    How the value of the key is kept in memory.",
            "FREQ <key>",
            "    How often the key is used: a counter that grows with the logarithm of its uses.",
            "IDLETIME <key>",
            "    How many seconds ago the key was used.",
            "REFCOUNT <key>",
            "    How many hold the value of the key.",
        ],
    );
    DONE
}
