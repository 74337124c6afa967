//! What commands do with their keys, as `COMMAND` says it.

/// `RO` reads the key, `RW` reads and changes it, `OW` sets it whatever it was, `RM` removes it; then what is done with
/// the data in it, where it is looked at at all.
pub(super) type Access = [&'static str];

/// What a command does with its keys: the first of them, the second and so on, the last entry standing for all further
/// ones. A single empty entry where it has none.
pub(super) fn key_flags(full_name: &str) -> &'static [&'static Access] {
    let found = TABLE.iter().find(|(_, names)| names.contains(&full_name));
    found.map_or(&[&[]], |(access, _)| access)
}

type Row = (&'static [&'static Access], &'static [&'static str]);

const TABLE: &[Row] = &[
    (
        &[&["RW", "insert"]],
        &["append", "hsetnx", "linsert", "lpush", "lpushx", "pfadd", "rpush", "rpushx", "sadd"],
    ),
    (
        &[&["RO", "access"]],
        &["bitcount", "bitfield_ro", "bitpos", "dump", "expiretime", "get", "getbit", "getrange", "hget", "hgetall", "hkeys", "hmget", "hrandfield", "hscan", "hvals", "lcs", "lindex", "lpos", "lrange", "mget", "pexpiretime", "pttl", "sdiff", "sinter", "sintercard", "smembers", "smismember", "sort_ro", "srandmember", "sscan", "substr", "sunion", "ttl", "zcount", "zdiff", "zinter", "zintercard", "zlexcount", "zmscore", "zrandmember", "zrange", "zrangebylex", "zrangebyscore", "zrank", "zrevrange", "zrevrangebylex", "zrevrangebyscore", "zrevrank", "zscan", "zscore", "zunion"],
    ),
    (
        &[&["RW", "access", "update", "variable_flags"]],
        &["bitfield"],
    ),
    (
        &[&["OW", "update"], &["RO", "access"]],
        &["bitop", "sdiffstore", "sunionstore", "zdiffstore", "zinterstore", "zrangestore", "zunionstore"],
    ),
    (
        &[&["RW", "access", "delete"], &["RW", "insert"]],
        &["blmove", "brpoplpush", "lmove", "rpoplpush", "smove"],
    ),
    (
        &[&["RW", "access", "delete"]],
        &["blmpop", "blpop", "brpop", "bzmpop", "bzpopmax", "bzpopmin", "getdel", "lmpop", "lpop", "migrate", "rpop", "spop", "zmpop", "zpopmax", "zpopmin"],
    ),
    (
        &[&["RO", "access"], &["OW", "update"]],
        &["copy", "sort"],
    ),
    (
        &[&["RW", "access", "update"]],
        &["decr", "decrby", "getex", "getset", "hincrby", "hincrbyfloat", "incr", "incrby", "incrbyfloat", "move", "setbit", "zincrby"],
    ),
    (
        &[&["RM", "delete"]],
        &["del", "unlink"],
    ),
    (
        &[&["RO"]],
        &["exists", "hexists", "hlen", "hstrlen", "llen", "memory|usage", "object|encoding", "object|freq", "object|idletime", "object|refcount", "scard", "sismember", "strlen", "touch", "type", "watch", "zcard"],
    ),
    (
        &[&["RW", "update"]],
        &["expire", "expireat", "hmset", "hset", "lset", "persist", "pexpire", "pexpireat", "setrange", "zadd"],
    ),
    (
        &[&["RW", "delete"]],
        &["hdel", "lrem", "ltrim", "srem", "zrem", "zremrangebylex", "zremrangebyrank", "zremrangebyscore"],
    ),
    (
        &[&["OW", "update"]],
        &["mset", "psetex", "restore", "setex"],
    ),
    (
        &[&["OW", "insert"]],
        &["msetnx", "setnx"],
    ),
    (
        &[&["RW", "access"]],
        &["pfcount"],
    ),
    (
        &[&["RW", "access", "insert"], &["RO", "access"]],
        &["pfmerge"],
    ),
    (
        &[&["RW", "access", "delete"], &["OW", "update"]],
        &["rename"],
    ),
    (
        &[&["RW", "access", "delete"], &["OW", "insert"]],
        &["renamenx"],
    ),
    (
        &[&["OW", "update"]],
        &["set"],
    ),
    (
        &[&["RW", "update"], &["RO", "access"]],
        &["sinterstore"],
    ),
];
