//! MEMORY: how much is used, and for what.

use super::{Answer, Call, DONE, Spec, flag};
use crate::error::Error;
use crate::protocol::{Args, parse_i64};
use crate::store::{DBS, ValueRef};

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::container(
    "memory",
    &[
        Spec::data("usage", -3, usage).reads().key(2).doc(
            "server",
            "4.0.0",
            "O(1)",
            "Show how much memory a key and its value take",
        ),
        Spec::data("stats", 2, stats).all_keys(None).doc(
            "server",
            "4.0.0",
            "O(1)",
            "Show what memory is used for",
        ),
        Spec::data("doctor", 2, doctor).all_keys(None).doc(
            "server",
            "4.0.0",
            "O(1)",
            "Say in words what is wrong with the use of memory",
        ),
        Spec::data("malloc-stats", 2, malloc_stats).doc(
            "server",
            "4.0.0",
            "O(1)",
            "Say which allocator is in use",
        ),
        Spec::data("purge", 2, purge).doc(
            "server",
            "4.0.0",
            "O(N), N being the pieces of memory that are free",
            "Give memory that is free back to the system",
        ),
        Spec::data("help", 2, help).flags(flag::LOADING | flag::STALE).doc(
            "server",
            "4.0.0",
            "O(1)",
            "Show what MEMORY can be asked",
        ),
    ],
)
.doc("server", "4.0.0", "Depends on the subcommand", "Look at the use of memory")];

/// What memory is used for, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// All that is counted: keys and connections.
    pub used: u64,
    /// The most that there was.
    pub peak: u64,
    /// Keys, values and their tables.
    pub data: u64,
    /// Connections.
    pub clients: u64,
    /// What the kernel says that the process has, 0 if it does not say.
    pub resident: u64,
}

impl Usage {
    /// What is used now. All shards are at hand.
    pub fn now(call: &mut Call<'_>) -> Usage {
        let memory = &call.server.memory;
        call.keys.shards().for_each(|shard| memory.note(shard));
        let (data, clients) = (memory.of_shards(), call.server.clients.memory());
        memory.note_clients(clients);
        let used = data + clients;
        Usage { used, peak: memory.peak(used), data, clients, resident: resident() }
    }

    /// Memory of the process for each byte that is used.
    pub fn fragmentation(&self) -> f64 {
        self.resident as f64 / self.used.max(1) as f64
    }
}

/// Memory that the process has, in bytes, from `/proc`.
pub fn resident() -> u64 {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE
}

/// Memory of a value, in bytes, about.
pub fn of_value(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Str(crate::store::StrRef::Int(_)) => 0,
        ValueRef::Str(string) => string.len(),
        ValueRef::List(list) => list.memory(),
        ValueRef::Set(set) => set.memory(),
        ValueRef::Hash(hash) => hash.memory(),
        ValueRef::Zset(zset) => zset.memory(),
    }
}

fn usage(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    /// A key's place in its table, besides its bytes.
    const PLACE: usize = 48;
    // The memory of a value is known without samples; their number is only checked.
    let mut index = 3;
    while index < args.len() {
        if !args.is(index, "samples") || index + 1 >= args.len() {
            return Err(Error::SYNTAX);
        }
        let samples = parse_i64(&args[index + 1]).ok_or(Error::NOT_AN_INTEGER)?;
        if samples < 0 {
            return Err(Error::SYNTAX);
        }
        index += 2;
    }
    let key = &args[2];
    match call.keys.peek(key) {
        None => call.reply.null(),
        Some(value) => {
            let bytes = PLACE + key.len() + of_value(value);
            call.reply.count(bytes);
        }
    }
    DONE
}

fn stats(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let usage = Usage::now(call);
    let mut dbs: Vec<(usize, usize, usize)> = Vec::new();
    for db in 0..DBS {
        let keys: usize = call.keys.shards().map(|shard| shard.dbs[db].len()).sum();
        if keys > 0 {
            let slots: usize = call.keys.shards().map(|shard| shard.dbs[db].capacity()).sum();
            dbs.push((db, keys, slots * size_of::<u64>()));
        }
    }
    let keys: usize = dbs.iter().map(|&(_, keys, _)| keys).sum();
    let tables: usize = dbs.iter().map(|&(_, _, table)| table).sum();
    let overhead = usage.clients + tables as u64;
    let dataset = usage.used.saturating_sub(overhead);
    let percent = |part: u64, of: u64| part as f64 * 100.0 / of.max(1) as f64;
    let reply = &mut *call.reply;
    let ints = |reply: &mut crate::protocol::Reply, fields: &[(&str, u64)]| {
        for (name, value) in fields {
            reply.bulk(name.as_bytes());
            reply.int(*value as i64);
        }
    };
    let begin = reply.begin();
    ints(
        reply,
        &[
            ("peak.allocated", usage.peak),
            ("total.allocated", usage.used),
            ("startup.allocated", 0),
            ("replication.backlog", 0),
            ("clients.slaves", 0),
            ("clients.normal", usage.clients),
            ("cluster.links", 0),
            ("aof.buffer", 0),
            ("lua.caches", 0),
            ("functions.caches", 0),
        ],
    );
    for &(db, _, table) in &dbs {
        reply.bulk(format!("db.{db}").as_bytes());
        reply.map(2);
        ints(
            reply,
            &[("overhead.hashtable.main", table as u64), ("overhead.hashtable.expires", 0)],
        );
    }
    ints(
        reply,
        &[
            ("overhead.total", overhead),
            ("keys.count", keys as u64),
            ("keys.bytes-per-key", usage.data / keys.max(1) as u64),
            ("dataset.bytes", dataset),
        ],
    );
    for (name, value) in [
        ("dataset.percentage", percent(dataset, usage.used)),
        ("peak.percentage", percent(usage.used, usage.peak)),
        ("fragmentation", usage.fragmentation()),
    ] {
        reply.bulk(name.as_bytes());
        reply.double(value);
    }
    ints(reply, &[("fragmentation.bytes", usage.resident.saturating_sub(usage.used))]);
    reply.end_map(begin, 18 + dbs.len());
    DONE
}

fn doctor(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    const SMALL: u64 = 5 * 1024 * 1024;
    let usage = Usage::now(call);
    let mut text = String::new();
    if usage.used < SMALL {
        text += "There is too little data to say anything about it.\n";
    } else {
        if usage.peak as f64 > usage.used as f64 * 1.5 {
            text += "At its peak there was more than one and a half times as much data as now: memory that it took \
                     may not have been given back.\n";
        }
        if usage.fragmentation() > 1.4 {
            text += "The process has more than 1.4 times the memory that is counted as used: it is fragmented, or \
                     was used before.\n";
        }
        let clients = call.server.clients.count() as u64;
        if clients > 0 && usage.clients / clients > 200 * 1024 {
            text += "Connections have more than 200 kB each: clients send faster than they are served, or do not \
                     read their replies.\n";
        }
        if text.is_empty() {
            text += "Nothing is wrong with the use of memory.\n";
        }
    }
    call.reply.verbatim(b"txt", text.as_bytes());
    DONE
}

fn malloc_stats(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.reply.verbatim(b"txt", b"The allocator in use keeps no statistics that could be shown");
    DONE
}

fn purge(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    omniring::os::trim_heap();
    call.reply.ok();
    DONE
}

fn help(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    super::help(
        call,
        "MEMORY",
        &[
            ("DOCTOR", "Say in words what is wrong with the use of memory."),
            ("MALLOC-STATS", "Say which allocator is in use."),
            ("PURGE", "Give memory that is free back to the system."),
            ("STATS", "Show what memory is used for."),
            ("USAGE <key> [SAMPLES <count>]", "Show how much memory a key and its value take."),
        ],
    )
}
