use std::collections::BTreeSet;

use crate::server::local::Local;

#[test]
fn keys_are_deleted_in_all_shards() {
    let mut local = Local::new(3);
    local.run("MSET a 1 b 2 c 3");
    local.logged();
    assert_eq!(local.run("EXISTS a b x a"), "3");
    assert_eq!(local.run("DEL a x b"), "2");
    assert_eq!(local.event_names(), ["del", "del"]);
    assert_eq!(local.run("UNLINK a"), "0");
    assert_eq!(local.run("DBSIZE"), "1");
    assert_eq!(local.logged(), ["DEL a x b"]);
    assert_eq!(local.run("RANDOMKEY"), "\"c\"");
    assert_eq!(local.run("FLUSHALL now"), "(error) ERR syntax error");
    assert_eq!(local.run("FLUSHALL"), "OK");
    assert_eq!(local.run("RANDOMKEY"), "(nil)");
    assert_eq!(local.logged(), ["FLUSHALL"]);
}

#[test]
fn a_walk_with_scan_sees_every_key_of_every_shard() {
    for shards in [1, 3, 4] {
        let mut local = Local::new(shards);
        let all: BTreeSet<String> = (0..300).map(|key| format!("key:{key}")).collect();
        for key in &all {
            local.run(&format!("SET {key} 1"));
        }
        local.run("SET gone 1 PX 1");
        local.run("APPEND other 1");
        local.now_ms += 1;
        let (mut cursor, mut seen) = ("0".to_owned(), BTreeSet::new());
        loop {
            let reply = local.run(&format!("SCAN {cursor} COUNT 7 MATCH key:* TYPE STRING"));
            let words: Vec<&str> = reply.split('"').skip(1).step_by(2).collect();
            seen.extend(words[1..].iter().map(|&key| key.to_owned()));
            cursor = words[0].to_owned();
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen, all, "{shards} shards");
    }
    let mut local = Local::default();
    assert_eq!(local.run("SCAN x"), "(error) ERR invalid cursor");
    assert_eq!(local.run("SCAN 0 COUNT 0"), "(error) ERR syntax error");
    assert_eq!(local.run("SCAN 0 MATCH"), "(error) ERR syntax error");
}

#[test]
fn keys_shows_only_what_matches_and_is_alive() {
    let mut local = Local::new(2);
    local.run("SET ab 1 PX 1");
    local.run("SET ac 1");
    local.run("SET b 1");
    local.now_ms += 1;
    assert_eq!(local.run("KEYS a*"), "[\"ac\"]");
}

#[test]
fn a_key_is_renamed_with_its_time_of_expiry() {
    let mut local = Local::new(3);
    assert_eq!(local.run("RENAME a b"), "(error) ERR no such key");
    local.run("SET a 1 PX 100");
    local.run("SET b 2");
    assert_eq!(local.run("RENAMENX a b"), "0");
    assert_eq!(local.run("RENAMENX a a"), "0");
    assert_eq!(local.run("RENAME a a"), "OK");
    assert_eq!(local.run("RENAME a b"), "OK");
    assert_eq!(local.event_names(), ["new", "rename_from", "rename_to"]);
    assert_eq!(local.run("PTTL b"), "100");
    assert_eq!(local.run("EXISTS a"), "0");
}

#[test]
fn keys_go_to_other_databases() {
    let mut local = Local::new(2);
    local.run("SET a 1 PX 100");
    assert_eq!(local.run("MOVE a 0"), "(error) ERR source and destination objects are the same");
    assert_eq!(local.run("MOVE a 16"), "(error) ERR DB index is out of range");
    assert_eq!(local.run("COPY a a DB 2"), "1");
    assert_eq!(local.run("COPY a b"), "1");
    assert_eq!(local.run("COPY b a"), "0");
    assert_eq!(local.run("COPY b a REPLACE"), "1");
    assert_eq!(local.run("COPY x a REPLACE"), "0");
    assert_eq!(local.run("MOVE a 2"), "0");
    assert_eq!(local.run("MOVE b 2"), "1");
    local.client.db = 2;
    assert_eq!(local.run("PTTL a"), "100");
    assert_eq!(local.run("PTTL b"), "100");
    assert_eq!(local.run("SWAPDB 0 2"), "OK");
    assert_eq!(local.run("EXISTS a b"), "1");
    assert_eq!(local.run("SWAPDB a 2"), "(error) ERR invalid first DB index");
    assert_eq!(local.run("SWAPDB 0 99"), "(error) ERR DB index is out of range");
}

#[test]
fn watchers_and_waiters_hear_of_databases_that_change() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut local = Local::default();
    let (there, other) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    local.run("SET a 1");
    local.keys.watch(b"a", &there);
    local.keys.watch(b"b", &other);
    local.run("FLUSHDB");
    assert!(there.load(Ordering::Acquire));
    assert!(!other.load(Ordering::Acquire));
    local.client.db = 1;
    local.run("SET b 1");
    local.run("SWAPDB 0 1");
    assert!(other.load(Ordering::Acquire));
}

#[test]
fn object_tells_of_encodings_and_use() {
    let mut local = Local::default();
    local.run("SET n 1");
    local.words(&[b"SET", b"s", &[b'x'; 44]]);
    local.words(&[b"SET", b"l", &[b'x'; 45]]);
    assert_eq!(local.run("OBJECT ENCODING n"), "\"int\"");
    assert_eq!(local.run("OBJECT ENCODING s"), "\"embstr\"");
    assert_eq!(local.run("OBJECT ENCODING l"), "\"raw\"");
    assert_eq!(local.run("OBJECT ENCODING x"), "(nil)");
    local.now_ms += 5000;
    assert_eq!(local.run("TYPE n"), "string");
    assert_eq!(local.run("OBJECT IDLETIME n"), "5");
    local.run("TOUCH n");
    assert_eq!(local.run("OBJECT IDLETIME n"), "0");
    local.now_ms += 5000;
    local.run("INCR n");
    assert_eq!(local.run("OBJECT IDLETIME n"), "0");
    assert_eq!(local.run("OBJECT REFCOUNT s"), "1");
    assert!(local.run("OBJECT FREQ n").starts_with("(error) ERR An LFU maxmemory policy"));
    assert!(local.run("OBJECT HELP").contains("OBJECT <subcommand>"));
}
