use std::collections::BTreeSet;

use crate::protocol::Proto;
use crate::server::local::Local;

const WRONG_TYPE: &str =
    "(error) WRONGTYPE Operation against a key holding the wrong kind of value";

/// Runs commands and compares their replies.
fn check(local: &mut Local, cases: &[(&str, &str)]) {
    for (command, reply) in cases {
        assert_eq!(local.run(command), *reply, "{command}");
    }
}

/// The elements of an array that is shown, in order.
fn sorted(shown: &str) -> Vec<String> {
    let elements = shown.trim_matches(['[', ']']).split(", ").filter(|text| !text.is_empty());
    elements
        .map(|text| text.trim_matches('"').to_owned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

#[test]
fn members_are_added_found_and_removed() {
    let mut local = Local::default();
    check(
        &mut local,
        &[
            ("SADD s 3 1 2 1", "3"),
            ("SADD s 1", "0"),
            ("SCARD s", "3"),
            ("SISMEMBER s 1", "1"),
            ("SISMEMBER s 4", "0"),
            ("SMISMEMBER s 1 4", "[1, 0]"),
            ("SMISMEMBER none 1 4", "[0, 0]"),
            ("SREM s 4", "0"),
            ("SREM s 1 2 4", "2"),
            ("SMEMBERS s", r#"["3"]"#),
            ("SREM s 3", "1"),
        ],
    );
    assert_eq!(local.event_names(), ["srem", "del"]);
    assert_eq!(local.logged(), ["SADD s 3 1 2 1", "SREM s 1 2 4", "SREM s 3"]);
}

#[test]
fn sets_are_combined_over_shards() {
    let mut local = Local::new(4);
    for command in ["SADD a 1 2 3 4", "SADD b 2 3 5", "SADD c 3 2 x", "SET s v"] {
        local.run(command);
    }
    for (command, members) in [
        ("SINTER a b c", "2 3"),
        ("SINTER a none", ""),
        ("SUNION a b none", "1 2 3 4 5"),
        ("SDIFF a b", "1 4"),
        ("SDIFF a b a", ""),
        ("SDIFF none a", ""),
    ] {
        let members: Vec<&str> = members.split_whitespace().collect();
        assert_eq!(sorted(&local.run(command)), members, "{command}");
    }
    check(
        &mut local,
        &[
            ("SINTERCARD 3 a b c", "2"),
            ("SINTERCARD 2 a b LIMIT 1", "1"),
            ("SINTERCARD 3 a b", "(error) ERR Number of keys can't be greater than number of args"),
            ("SINTERCARD 1 a LIMIT -1", "(error) ERR LIMIT can't be negative"),
            ("SINTER none s", WRONG_TYPE),
            ("SUNIONSTORE s s a", WRONG_TYPE),
            ("SUNIONSTORE s a b", "5"),
            ("SCARD s", "5"),
            ("SDIFFSTORE a a b", "2"),
            ("SINTERSTORE a a b", "0"),
        ],
    );
    assert_eq!(local.event_names(), ["del"]);
    assert_eq!(local.run("SCARD a"), "0");
}

#[test]
fn a_difference_does_not_depend_on_how_it_is_found() {
    let mut local = Local::default();
    for member in 0..60 {
        local.run(&format!("SADD large {member}"));
        local.run(&format!("SADD other{} {member} x", member % 6));
    }
    // Five sixths are taken away, by either way: the sizes choose it.
    let others = ["other0", "other1", "other2", "other3", "other4"];
    let few: Vec<String> =
        (0..60).filter(|member| member % 6 == 5).map(|m| m.to_string()).collect();
    let few: BTreeSet<String> = few.into_iter().collect();
    let left = sorted(&local.run(&format!("SDIFF large {}", others.join(" "))));
    assert_eq!(left, few.iter().cloned().collect::<Vec<_>>());
    local.run("SUNIONSTORE all other0 other1 other2 other3 other4");
    assert_eq!(sorted(&local.run("SDIFF large all")), left);
}

#[test]
fn a_member_moves_between_sets() {
    let mut local = Local::new(2);
    local.run("SADD a 1 2");
    local.run("SET s v");
    check(
        &mut local,
        &[
            ("SMOVE a b 3", "0"),
            ("SMOVE none s 1", "0"),
            ("SMOVE a s 1", WRONG_TYPE),
            ("SMOVE a a 1", "1"),
            ("SMOVE a b 1", "1"),
            ("SMEMBERS b", r#"["1"]"#),
            ("SMOVE a b 2", "1"),
        ],
    );
    assert_eq!(local.event_names(), ["srem", "del", "sadd"]);
}

#[test]
fn members_popped_at_random_are_logged_as_removed() {
    let mut local = Local::default();
    local.run("SADD s 1 2 3 4 5 6 7 8 9 10");
    local.logged();
    let one = local.run("SPOP s");
    assert_eq!(local.logged(), [format!("SREM s {}", one.trim_matches('"'))]);
    let shown = local.run("SPOP s 7");
    let (popped, log) = (sorted(&shown), local.logged());
    assert_eq!((popped.len(), log.len()), (7, 1));
    let logged: BTreeSet<String> = log[0].split(' ').skip(2).map(str::to_owned).collect();
    assert_eq!(logged.into_iter().collect::<Vec<_>>(), popped);
    assert_eq!(local.run("SCARD s"), "2");
    assert_eq!(sorted(&local.run("SPOP s 5")).len(), 2);
    assert_eq!(local.event_names(), ["spop", "del"]);
    assert_eq!(local.logged(), ["DEL s"]);
    check(
        &mut local,
        &[
            ("SPOP s", "(nil)"),
            ("SPOP s 1", "[]"),
            ("SPOP s -1", "(error) ERR value is out of range, must be positive"),
        ],
    );
}

#[test]
fn picks_are_distinct_unless_the_count_is_negative() {
    let mut local = Local::default();
    for member in 0..30 {
        local.run(&format!("SADD s {member}"));
    }
    for count in [1, 2, 9, 10, 11, 29, 30, 99] {
        let picked = sorted(&local.run(&format!("SRANDMEMBER s {count}")));
        assert_eq!(picked.len(), count.min(30), "{count}");
    }
    let shown = local.run("SRANDMEMBER s -200");
    assert_eq!(shown.split(", ").count(), 200);
    assert!(sorted(&shown).len() <= 30);
    // Each of 30 is missing in 600 picks with a chance below 30 * (29/30)^600 = 5e-8.
    assert_eq!(sorted(&local.run("SRANDMEMBER s -600")).len(), 30);
    assert_eq!(local.run("SRANDMEMBER none -3"), "[]");
    assert_eq!(local.run("SRANDMEMBER none"), "(nil)");
}

#[test]
fn replies_are_sets_in_resp3() {
    let mut local = Local::default();
    local.run("SADD s 1");
    local.client.proto = Proto::Resp3;
    for command in [&[&b"SMEMBERS"[..], b"s"], &[b"SINTER", b"s"], &[b"SUNION", b"s"]] {
        assert_eq!(local.bytes(command), b"~1\r\n$1\r\n1\r\n");
    }
    assert_eq!(local.bytes(&[b"SRANDMEMBER", b"s", b"1"]), b"*1\r\n$1\r\n1\r\n");
    assert_eq!(local.bytes(&[b"SPOP", b"s", b"1"]), b"~1\r\n$1\r\n1\r\n");
}

#[test]
fn a_scan_finds_all_members_that_match() {
    let mut local = Local::default();
    for member in 0..1000 {
        local.run(&format!("SADD s m{member}"));
    }
    let (mut cursor, mut found) = ("0".to_owned(), BTreeSet::new());
    loop {
        let shown = local.run(&format!("SSCAN s {cursor} MATCH m?5? COUNT 20"));
        let (next, members) = shown.split_once(", ").expect("a cursor and an array");
        found.extend(sorted(members));
        cursor = next.trim_matches(['[', '"']).to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), 90);
    assert_eq!(local.run("SSCAN s x"), "(error) ERR invalid cursor");
    assert_eq!(local.run("SSCAN s 0 COUNT 0"), "(error) ERR syntax error");
    assert_eq!(local.run("SSCAN none 0"), r#"["0", []]"#);
}
