//! Commands of Redis for things that are not here: each is known by name, so as to say so.
//!
//! They are not shown by `COMMAND`, and a transaction with one of them is refused.

use super::{Answer, Call, Command, DONE, Spec, flag};
use crate::error::Error;
use crate::protocol::Args;

const STREAMS: &str = "there are no streams";
const SCRIPTS: &str = "there are no scripts and functions";
const CLUSTER: &str = "there is no cluster";
const USERS: &str = "there is one user, with the password of requirepass";
const REPLICAS: &str = "there is no replication";
const MODULES: &str = "there are no modules";

/// A command that is refused, and why.
pub(super) const fn refused(name: &'static str, why: &'static str) -> Spec {
    Spec::data(name, -1, refuse).flags(flag::REFUSED).doc("refused", "1.0.0", "O(1)", why)
}

/// A subcommand of FUNCTION that is refused.
pub(super) const fn refused_function(name: &'static str) -> Spec {
    refused(name, SCRIPTS)
}

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    refused("acl", USERS),
    refused("eval", SCRIPTS),
    refused("eval_ro", SCRIPTS),
    refused("evalsha", SCRIPTS),
    refused("evalsha_ro", SCRIPTS),
    refused("failover", REPLICAS),
    refused("fcall", SCRIPTS),
    refused("fcall_ro", SCRIPTS),
    Spec::data("migrate", -6, migrate).frees().all_keys(Some(3)).doc(
        "generic",
        "2.6.0",
        "O(1)",
        "Say that there is no such key; moving one to another server is refused",
    ),
    refused("module", MODULES),
    refused("psync", REPLICAS),
    refused("replconf", REPLICAS),
    refused("restore-asking", CLUSTER),
    refused("script", SCRIPTS),
    refused("xack", STREAMS),
    refused("xadd", STREAMS),
    refused("xautoclaim", STREAMS),
    refused("xclaim", STREAMS),
    refused("xdel", STREAMS),
    refused("xgroup", STREAMS),
    refused("xinfo", STREAMS),
    refused("xlen", STREAMS),
    refused("xpending", STREAMS),
    refused("xrange", STREAMS),
    refused("xread", STREAMS),
    refused("xreadgroup", STREAMS),
    refused("xrevrange", STREAMS),
    refused("xsetid", STREAMS),
    refused("xtrim", STREAMS),
];

/// The error with which a command is refused that is not here.
pub fn refusal(command: &Command) -> Error {
    let name = command.full_name.replace('|', " ").to_uppercase();
    Error::of(format!("ERR {name} is not supported: {}", command.spec.summary))
}

/// Commands that are refused are so before they are called.
fn refuse(_call: &mut Call<'_>, args: Args<'_>) -> Answer {
    Err(super::lookup(args).map_or(Error::SYNTAX, refusal))
}

fn migrate(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let listed = (6..args.len()).find(|&index| args.is(index, "keys")).map(|at| at + 1);
    let first = listed.unwrap_or(3);
    let last = if listed.is_some() { args.len() } else { 4 };
    if (first..last).any(|index| call.keys.contains(&args[index])) {
        return Err(Error::new("ERR MIGRATE is not supported: use DUMP and RESTORE"));
    }
    call.reply.simple("NOKEY");
    DONE
}
