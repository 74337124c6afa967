//! When keys expire, and the search for those whose time has come.
//!
//! A key whose time has come is removed by whoever comes upon it (see `store::Keys`) or by [`cycle`], and logged
//! as a deletion. The log has times that count from 1970 only, so that doing it again does the same.

use super::support::{expire_time, integer};
use super::{Answer, Call, DONE, Spec};
use crate::error::Error;
use crate::protocol::Args;
use crate::store::{DBS, EventClass, Keys};

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("expire", -3, |call, args| expire(call, args, 1000, true))
        .frees()
        .fast()
        .key(1)
        .doc("generic", "1.0.0", "O(1)", "Set a key's time of expiry, in seconds from now"),
    Spec::data("expireat", -3, |call, args| expire(call, args, 1000, false))
        .frees()
        .fast()
        .key(1)
        .doc("generic", "1.2.0", "O(1)", "Set a key's time of expiry, in seconds since 1970"),
    Spec::data("expiretime", 2, |call, args| time(call, args, 1000, false))
        .reads()
        .fast()
        .key(1)
        .doc("generic", "7.0.0", "O(1)", "Get when a key expires, in seconds since 1970"),
    Spec::data("persist", 2, persist).frees().fast().key(1).doc(
        "generic",
        "2.2.0",
        "O(1)",
        "Take away a key's time of expiry",
    ),
    Spec::data("pexpire", -3, |call, args| expire(call, args, 1, true)).frees().fast().key(1).doc(
        "generic",
        "2.6.0",
        "O(1)",
        "Set a key's time of expiry, in milliseconds from now",
    ),
    Spec::data("pexpireat", -3, |call, args| expire(call, args, 1, false))
        .frees()
        .fast()
        .key(1)
        .doc("generic", "2.6.0", "O(1)", "Set a key's time of expiry, in milliseconds since 1970"),
    Spec::data("pexpiretime", 2, |call, args| time(call, args, 1, false))
        .reads()
        .fast()
        .key(1)
        .doc("generic", "7.0.0", "O(1)", "Get when a key expires, in milliseconds since 1970"),
    Spec::data("pttl", 2, |call, args| time(call, args, 1, true)).reads().fast().key(1).doc(
        "generic",
        "2.6.0",
        "O(1)",
        "Get how long a key has to live, in milliseconds",
    ),
    Spec::data("ttl", 2, |call, args| time(call, args, 1000, true)).reads().fast().key(1).doc(
        "generic",
        "1.0.0",
        "O(1)",
        "Get how long a key has to live, in seconds",
    ),
];

/// On which condition a time of expiry is set.
#[derive(Default)]
struct Condition {
    /// The key has none.
    nx: bool,
    /// It has one.
    xx: bool,
    /// It is later than the one it has; none is later than all.
    gt: bool,
    /// It is earlier.
    lt: bool,
}

impl Condition {
    fn parse(args: Args<'_>) -> Result<Condition, Error> {
        let mut condition = Condition::default();
        for index in 3..args.len() {
            match () {
                () if args.is(index, "nx") => condition.nx = true,
                () if args.is(index, "xx") => condition.xx = true,
                () if args.is(index, "gt") => condition.gt = true,
                () if args.is(index, "lt") => condition.lt = true,
                () => {
                    let option = String::from_utf8_lossy(&args[index]);
                    return Err(Error::of(format!("ERR Unsupported option {option}")));
                }
            }
        }
        if condition.nx && (condition.xx || condition.gt || condition.lt) {
            return Err(Error::new(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if condition.gt && condition.lt {
            return Err(Error::new("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(condition)
    }

    /// Whether it holds for a key that expires at `current` and is to expire at `at`.
    fn holds(&self, current: Option<u64>, at: i64) -> bool {
        let current = current.map(|current| current as i64);
        !(self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && current.is_none_or(|current| at <= current)
            || self.lt && current.is_some_and(|current| at >= current))
    }
}

fn expire(call: &mut Call<'_>, args: Args<'_>, unit_ms: i64, relative: bool) -> Answer {
    let condition = Condition::parse(args)?;
    let key = &args[1];
    let base = if relative { call.keys.now_ms() as i64 } else { 0 };
    let at = integer(&args[2])?.checked_mul(unit_ms).and_then(|time| time.checked_add(base));
    let at = at.ok_or_else(|| expire_time(args))?;
    let Some(current) = call.keys.expires_ms(key) else {
        call.reply.flag(false);
        return DONE;
    };
    if !condition.holds(current, at) {
        call.reply.flag(false);
        return DONE;
    }
    if at <= call.keys.now_ms() as i64 && !call.keys.replaying {
        call.keys.delete(key);
        call.keys.log_as([b"DEL", key]);
        call.keys.changed(key, EventClass::GENERIC, "del");
    } else {
        let at = at.max(0) as u64;
        call.keys.set_expires_ms(key, Some(at));
        call.keys.log_as([b"PEXPIREAT", key, itoa::Buffer::new().format(at).as_bytes()]);
        call.keys.changed(key, EventClass::GENERIC, "expire");
    }
    call.reply.flag(true);
    DONE
}

fn time(call: &mut Call<'_>, args: Args<'_>, unit_ms: i64, relative: bool) -> Answer {
    let key = &args[1];
    let time = if !call.keys.exists(key) {
        -2
    } else if let Some(at) = call.keys.expires_ms(key).flatten() {
        let base = if relative { call.keys.now_ms() } else { 0 };
        // To the nearest unit, since some of it has always gone by.
        (at.saturating_sub(base) as i64).saturating_add(unit_ms / 2) / unit_ms
    } else {
        -1
    };
    call.reply.int(time);
    DONE
}

fn persist(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let key = &args[1];
    let expires = call.keys.expires_ms(key).flatten().is_some();
    if expires {
        call.keys.set_expires_ms(key, None);
        call.keys.changed(key, EventClass::GENERIC, "persist");
    }
    call.reply.flag(expires);
    DONE
}

/// Looks at about `budget` keys in each shard at hand, from where the last call came to, and removes those whose
/// time has come; how many. What follows from it is in `keys.effects`, as after a command. Databases in which no
/// key expires cost nothing, and none is walked twice in a call.
pub fn cycle(keys: &mut Keys, budget: usize) -> usize {
    (0..keys.shard_count())
        .filter(|&index| keys.has(index))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|index| cycle_shard(keys, index, budget))
        .sum()
}

fn cycle_shard(keys: &mut Keys, index: usize, budget: usize) -> usize {
    /// Keys looked at in one step, at most.
    const STEP: usize = 64;
    let now = keys.now_ms();
    let (mut db, mut cursor) = keys.shard(index).expiry_at;
    let (mut looked, mut expired, mut walked) = (0, 0, 0);
    while looked < budget && walked <= DBS {
        let table = &keys.shard(index).dbs[db];
        if table.expiring() > 0 {
            let mut due = Vec::new();
            let step = STEP.min(budget - looked);
            cursor = table.scan_expiring(cursor, step, |table, slot| {
                if table.expires_ms(slot).is_some_and(|at| at <= now) {
                    due.push(table.key(slot).to_vec());
                }
            });
            // To pass over keys that do not expire is also work.
            looked += step;
            expired += due.len();
            keys.in_db(db, |keys| due.iter().for_each(|key| keys.expire(key)));
        } else {
            cursor = 0;
        }
        if cursor == 0 {
            db = (db + 1) % DBS;
            walked += 1;
        }
    }
    keys.shard(index).expiry_at = (db, cursor);
    expired
}

#[cfg(test)]
mod tests {
    use super::cycle;
    use crate::server::local::Local;

    #[test]
    fn a_time_of_expiry_is_set_on_its_condition_and_logged_as_absolute() {
        let mut local = Local::default();
        assert_eq!(local.run("EXPIRE a 10"), "0");
        local.run("SET a 1");
        local.logged();
        assert_eq!(local.run("EXPIRE a 10 XX"), "0");
        assert_eq!(local.run("EXPIRE a 10 GT"), "0");
        assert_eq!(local.run("EXPIRE a 10 LT"), "1");
        assert_eq!(local.event_names(), ["expire"]);
        assert_eq!(local.run("PEXPIRE a 10000 GT"), "0");
        assert_eq!(local.run("PEXPIREAT a 1700000010001 GT"), "1");
        assert_eq!(local.run("EXPIRE a 5 NX"), "0");
        assert_eq!(local.run("TTL a"), "10");
        assert_eq!(local.run("PTTL a"), "10001");
        assert_eq!(local.run("EXPIRETIME a"), "1700000010");
        assert_eq!(local.run("PEXPIRETIME a"), "1700000010001");
        assert_eq!(local.run("PERSIST a"), "1");
        assert_eq!(local.run("PERSIST a"), "0");
        assert_eq!(local.run("TTL a"), "-1");
        assert_eq!(local.run("TTL b"), "-2");
        assert_eq!(local.run("EXPIRE a -1"), "1");
        assert_eq!(local.event_names(), ["del"]);
        assert_eq!(
            local.logged(),
            ["PEXPIREAT a 1700000010000", "PEXPIREAT a 1700000010001", "PERSIST a", "DEL a"]
        );
    }

    #[test]
    fn bad_times_and_options_change_nothing() {
        let mut local = Local::default();
        local.run("SET a 1");
        for (words, error) in [
            ("EXPIRE a 9223372036854775", "ERR invalid expire time in 'expire' command"),
            ("PEXPIRE a 9223372036854775807", "ERR invalid expire time in 'pexpire' command"),
            ("EXPIRE a x", "ERR value is not an integer or out of range"),
            ("EXPIRE a 1 AB", "ERR Unsupported option AB"),
            ("EXPIRE a 1 GT LT", "ERR GT and LT options at the same time are not compatible"),
            (
                "EXPIRE a 1 NX XX",
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ),
        ] {
            assert_eq!(local.run(words), format!("(error) {error}"), "{words}");
        }
        assert_eq!(local.run("TTL a"), "-1");
    }

    #[test]
    fn the_cycle_removes_expired_keys_of_all_databases_and_shards() {
        let mut local = Local::new(3);
        for db in [0, 7] {
            local.client.db = db;
            for key in 0..100 {
                local.run(&format!("SET {db}:{key} 1 PX {}", 100 + key));
            }
            local.run("SET stays 1");
        }
        local.now_ms += 149;
        local.keys.effects = Default::default();
        local.keys.begin(0, local.now_ms);
        let expired: usize = (0..20).map(|_| cycle(&mut local.keys, 50)).sum();
        assert_eq!(expired, 100);
        assert_eq!(local.keys.effects.gone.len(), 100);
        assert_eq!(local.run("DBSIZE"), "51");
    }
}
