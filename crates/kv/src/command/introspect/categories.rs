//! Categories of commands, by which Redis' ACLs name them, and tips for clients.

use crate::command::{Command, flag};

/// Commands that are in `dangerous` though they are not for administrators.
const DANGEROUS: &[&str] =
    &["flushall", "flushdb", "info", "keys", "migrate", "restore", "sort", "sort_ro", "swapdb"];

/// Commands that are in `admin` though they are not for administrators only.
const ADMIN: &[&str] = &["lastsave", "role"];

/// Commands of another group that are in `connection`.
const CONNECTION: &[&str] = &["asking", "readonly", "readwrite", "wait"];

/// Commands of another group that are in `keyspace`.
const KEYSPACE: &[&str] = &["dbsize", "flushall", "flushdb", "swapdb"];

/// The categories of a command.
pub(super) fn categories(command: &Command) -> Vec<&'static str> {
    let name = command.full_name.as_str();
    let mut categories = Vec::new();
    if command.has(flag::WRITE) {
        categories.push("write");
    }
    if command.has(flag::READONLY) {
        categories.push("read");
    }
    let of_group = match command.spec.group {
        "sorted-set" => &["sortedset"][..],
        "transactions" => &["transaction"],
        "generic" if name.starts_with("sort") => &["set", "sortedset", "list"],
        "generic" if !CONNECTION.contains(&name) => &["keyspace"],
        "bitmap" => &["bitmap"],
        "geo" => &["geo"],
        "connection" => &["connection"],
        "hash" => &["hash"],
        "hyperloglog" => &["hyperloglog"],
        "list" => &["list"],
        "scripting" => &["scripting"],
        "set" => &["set"],
        "string" => &["string"],
        _ => &[],
    };
    // A container is none of what its subcommands are.
    let of_group = if command.subcommands.is_empty() { of_group } else { &[] };
    categories.extend(of_group);
    if name.starts_with("command") || CONNECTION.contains(&name) {
        categories.push("connection");
    }
    if KEYSPACE.contains(&name) && !categories.contains(&"keyspace") {
        categories.push("keyspace");
    }
    let is_admin = command.has(flag::ADMIN) || ADMIN.contains(&name);
    if is_admin {
        categories.push("admin");
    }
    if is_admin || DANGEROUS.contains(&name) {
        categories.push("dangerous");
    }
    if command.has(flag::PUBSUB) {
        categories.push("pubsub");
    }
    categories.push(if command.has(flag::FAST) { "fast" } else { "slow" });
    if command.has(flag::BLOCKING) {
        categories.push("blocking");
    }
    categories
}

/// Tips, each with the commands of which it is true.
const TIPS: &[(&str, &[&str])] = &[
    (
        "nondeterministic_output",
        &[
            "client|info",
            "client|list",
            "dump",
            "hrandfield",
            "hscan",
            "info",
            "lastsave",
            "latency|doctor",
            "latency|graph",
            "latency|histogram",
            "latency|history",
            "latency|latest",
            "memory|doctor",
            "memory|malloc-stats",
            "memory|stats",
            "migrate",
            "object|encoding",
            "object|freq",
            "object|idletime",
            "object|refcount",
            "pttl",
            "randomkey",
            "scan",
            "slowlog|get",
            "slowlog|len",
            "spop",
            "srandmember",
            "sscan",
            "time",
            "ttl",
            "zrandmember",
            "zscan",
        ],
    ),
    (
        "nondeterministic_output_order",
        &[
            "function|list",
            "command|docs",
            "command|info",
            "command|list",
            "command",
            "hgetall",
            "hkeys",
            "hvals",
            "keys",
            "sdiff",
            "sinter",
            "smembers",
            "sunion",
        ],
    ),
    (
        "request_policy:all_nodes",
        &[
            "config|set",
            "latency|doctor",
            "latency|graph",
            "latency|histogram",
            "latency|history",
            "latency|latest",
            "latency|reset",
            "slowlog|get",
            "slowlog|len",
            "slowlog|reset",
        ],
    ),
    (
        "response_policy:all_succeeded",
        &[
            "function|flush",
            "config|set",
            "flushall",
            "flushdb",
            "latency|reset",
            "memory|purge",
            "mset",
            "ping",
            "slowlog|reset",
        ],
    ),
    (
        "request_policy:all_shards",
        &[
            "function|flush",
            "dbsize",
            "flushall",
            "flushdb",
            "info",
            "keys",
            "memory|doctor",
            "memory|malloc-stats",
            "memory|purge",
            "memory|stats",
            "ping",
            "randomkey",
            "wait",
        ],
    ),
    ("response_policy:agg_sum", &["dbsize", "del", "exists", "slowlog|len", "touch", "unlink"]),
    ("request_policy:multi_shard", &["del", "exists", "mget", "mset", "msetnx", "touch", "unlink"]),
    (
        "response_policy:special",
        &[
            "info",
            "latency|doctor",
            "latency|graph",
            "latency|histogram",
            "latency|history",
            "latency|latest",
            "memory|doctor",
            "memory|malloc-stats",
            "memory|stats",
        ],
    ),
    ("response_policy:agg_min", &["msetnx", "wait"]),
    ("request_policy:special", &["scan"]),
];

/// The tips for a command.
pub(super) fn tips(full_name: &str) -> Vec<&'static str> {
    let of_it = TIPS.iter().filter(|(_, names)| names.contains(&full_name));
    of_it.map(|(tip, _)| *tip).collect()
}
