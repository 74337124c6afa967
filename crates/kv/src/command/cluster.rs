//! CLUSTER and its like: a server that is no part of a cluster knows them, and says that it is none.

use super::{Answer, Call, Spec, flag};
use crate::error::Error;
use crate::protocol::Args;

/// Flags of subcommands that change a cluster.
const CHANGES: u32 = flag::ADMIN | flag::STALE | flag::NO_ASYNC_LOADING;
/// Flags of subcommands that look at it, for administrators.
const LOOKS: u32 = flag::ADMIN | flag::STALE;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("asking", 1, disabled).fast().doc(
        "cluster",
        "3.0.0",
        "O(1)",
        "Ask for keys that move to this node",
    ),
    Spec::container(
        "cluster",
        &[
            sub("addslots", -3, CHANGES, "3.0.0", "Give slots to this node"),
            sub("addslotsrange", -4, CHANGES, "7.0.0", "Give ranges of slots to this node"),
            sub("bumpepoch", 2, CHANGES, "3.0.0", "Begin a new epoch"),
            sub("count-failure-reports", 3, LOOKS, "3.0.0", "Count reports that a node has failed"),
            sub("countkeysinslot", 3, flag::STALE, "3.0.0", "Count the keys of a slot"),
            sub("delslots", -3, CHANGES, "3.0.0", "Take slots from this node"),
            sub("delslotsrange", -4, CHANGES, "7.0.0", "Take ranges of slots from this node"),
            sub("failover", -2, CHANGES, "3.0.0", "Make a replica take the place of its master"),
            sub("flushslots", 2, CHANGES, "3.0.0", "Take all slots from this node"),
            sub("forget", 3, CHANGES, "3.0.0", "Remove a node"),
            sub("getkeysinslot", 4, flag::STALE, "3.0.0", "Get keys of a slot"),
            sub("help", 2, flag::LOADING | flag::STALE, "5.0.0", "Show what CLUSTER can be asked"),
            sub("info", 2, flag::STALE, "3.0.0", "Show how the cluster is"),
            sub("keyslot", 3, flag::STALE, "3.0.0", "Get the slot of a key"),
            sub("links", 2, flag::STALE, "7.0.0", "Show the connections between nodes"),
            sub("meet", -4, CHANGES, "3.0.0", "Introduce a node"),
            sub("myid", 2, flag::STALE, "3.0.0", "Get the name of this node"),
            sub("nodes", 2, flag::STALE, "3.0.0", "Show the nodes"),
            sub("replicas", 3, LOOKS, "5.0.0", "Show the replicas of a node"),
            sub("replicate", 3, CHANGES, "3.0.0", "Make this node a replica"),
            sub("reset", -2, LOOKS | flag::NOSCRIPT, "3.0.0", "Make this node a new one"),
            sub("saveconfig", 2, CHANGES, "3.0.0", "Save what this node knows of the cluster"),
            sub("set-config-epoch", 3, CHANGES, "3.0.0", "Set the epoch of a new node"),
            sub("setslot", -4, CHANGES, "3.0.0", "Say which node has a slot"),
            sub("shards", 2, flag::STALE, "7.0.0", "Show which nodes have which slots, by shard"),
            sub("slaves", 3, LOOKS, "3.0.0", "Show the replicas of a node"),
            sub("slots", 2, flag::STALE, "3.0.0", "Show which nodes have which slots"),
        ],
    )
    .doc("cluster", "3.0.0", "Depends on the subcommand", "Look at a cluster and change it"),
    Spec::data("readonly", 1, disabled).fast().flags(flag::LOADING | flag::STALE).doc(
        "cluster",
        "3.0.0",
        "O(1)",
        "Read from a replica of a cluster",
    ),
    Spec::data("readwrite", 1, disabled).fast().flags(flag::LOADING | flag::STALE).doc(
        "cluster",
        "3.0.0",
        "O(1)",
        "Read from a replica of a cluster no longer",
    ),
];

const fn sub(
    name: &'static str,
    arity: i32,
    flags: u32,
    since: &'static str,
    summary: &'static str,
) -> Spec {
    Spec::data(name, arity, disabled).flags(flags).doc("cluster", since, "O(1)", summary)
}

fn disabled(_call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    Err(Error::new("ERR This instance has cluster support disabled"))
}

#[cfg(test)]
mod tests {
    use crate::server::local::Local;

    #[test]
    fn there_is_no_cluster_whatever_it_is_asked() {
        let mut local = Local::default();
        for command in ["CLUSTER INFO", "cluster slots", "CLUSTER HELP", "READONLY", "ASKING"] {
            let error = "(error) ERR This instance has cluster support disabled";
            assert_eq!(local.run(command), error, "{command}");
        }
        let list = local.run("COMMAND LIST FILTERBY PATTERN cl*help");
        assert_eq!(list, r#"["client|help", "cluster|help"]"#);
    }
}
