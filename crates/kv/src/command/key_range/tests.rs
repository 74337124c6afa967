use std::collections::BTreeMap;

use crate::server::local::Local;

fn ordered(shards: usize) -> Local {
    let mut local = Local::new(shards);
    local.keys.keep_order();
    local
}

#[test]
fn bounds_take_keys_in_or_leave_them_out() {
    for shards in [1, 2] {
        let mut local = ordered(shards);
        assert_eq!(local.run("KEYRANGE - +"), "[]");
        local.run("MSET a 1 b 2 ba 3 c 4");
        local.run("RPUSH list x");
        local.logged();
        for (command, reply) in [
            ("KEYRANGE - +", r#"["a", "b", "ba", "c", "list"]"#),
            ("KEYRANGE [b (c", r#"["b", "ba"]"#),
            ("KEYRANGE (b [c", r#"["ba", "c"]"#),
            ("KEYRANGE + - REV LIMIT 1 2", r#"["c", "ba"]"#),
            ("keyrange (c [b rev", r#"["ba", "b"]"#),
            ("KEYRANGE - + LIMIT 3 -1", r#"["c", "list"]"#),
            ("KEYRANGE - + LIMIT 0 0", "[]"),
            ("KEYRANGE - + LIMIT -1 5", "[]"),
            ("KEYRANGE + -", "[]"),
            ("KEYRANGE [c [b", "[]"),
            ("KEYRANGE (b (b", "[]"),
            ("KEYRANGE [b (b", "[]"),
            ("KEYRANGE [b [b", r#"["b"]"#),
            ("KEYRANGE a [b", "(error) ERR min or max not valid string range item"),
            ("KEYRANGE - + LIMIT 1", "(error) ERR syntax error"),
            ("KEYRANGE - + LIMIT x 1", "(error) ERR value is not an integer or out of range"),
            ("KEYRANGE - + WITHVALUES", "(error) ERR syntax error"),
            ("KEYRANGE -", "(error) ERR wrong number of arguments for 'keyrange' command"),
        ] {
            assert_eq!(local.run(command), reply, "{command}");
        }
        assert_eq!(local.logged(), Vec::<String>::new());
    }
}

#[test]
fn a_server_without_order_says_which_setting_keeps_it() {
    let reply = Local::new(2).run("KEYRANGE - +");
    assert!(reply.starts_with("(error) ERR") && reply.ends_with("ordered-keys yes"), "{reply}");
}

#[test]
fn the_order_follows_whatever_becomes_of_keys() {
    for shards in [1, 2] {
        let mut local = ordered(shards);
        local.run("MSET a 1 b 2 c 3 d 4");
        local.run("RENAME a z");
        local.run("DEL b");
        local.run("SET c 1 PX 10");
        local.run("COPY d e");
        local.run("RPUSH list x");
        local.run("LPOP list");
        local.run("MOVE e 3");
        assert_eq!(local.run("KEYRANGE - +"), r#"["c", "d", "z"]"#);
        local.now_ms += 10;
        assert_eq!(local.run("KEYRANGE - +"), r#"["d", "z"]"#);
        local.run("GET c");
        local.run("SET c again");
        local.run("SWAPDB 0 3");
        assert_eq!(local.run("KEYRANGE - +"), r#"["e"]"#);
        local.run("FLUSHDB");
        local.run("SET f 1");
        assert_eq!(local.run("KEYRANGE - +"), r#"["f"]"#);
        local.run("SWAPDB 0 3");
        assert_eq!(local.run("KEYRANGE - +"), r#"["c", "d", "z"]"#);
        local.keys.begin(0, local.now_ms);
        local.keys.evict(b"d");
        assert_eq!(local.run("KEYRANGE - +"), r#"["c", "z"]"#);
        local.run("FLUSHALL ASYNC");
        assert_eq!(local.run("KEYRANGE - +"), "[]");
        local.run("SET a 1");
        assert_eq!(local.run("KEYRANGE - +"), r#"["a"]"#);
    }
}

#[test]
fn ranges_are_those_of_a_model_after_random_commands() {
    for shards in [1, 2] {
        let mut random = fastrand::Rng::with_seed(7);
        let mut local = ordered(shards);
        // Keys with the time that they expire.
        let mut model: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..1000 {
            let key = format!("k{}", random.u32(..200));
            match random.u32(..8) {
                0..4 => {
                    let long = "x".repeat(random.usize(..300));
                    local.run(&format!("SET {key} v{long}"));
                    model.insert(key, u64::MAX);
                }
                4 => {
                    let life = random.u64(1..50);
                    local.run(&format!("SET {key} v PX {life}"));
                    model.insert(key, local.now_ms + life);
                }
                5 => {
                    local.run(&format!("DEL {key}"));
                    model.remove(&key);
                }
                6 => {
                    let other = format!("k{}", random.u32(..200));
                    local.run(&format!("RENAME {key} {other}"));
                    if let Some(at) = model.remove(&key) {
                        model.insert(other, at);
                    }
                }
                _ => {
                    local.now_ms += random.u64(..5);
                    let now = local.now_ms;
                    model.retain(|_, at| *at > now);
                }
            }
            let (one, other) =
                (format!("k{}", random.u32(..200)), format!("k{}", random.u32(..200)));
            let between = model.keys().filter(|key| **key >= one && **key < other);
            let mut expected: Vec<String> = between.map(|key| format!("\"{key}\"")).collect();
            let limit = random.usize(..20);
            let reply = if random.bool() {
                expected.reverse();
                local.run(&format!("KEYRANGE ({other} [{one} REV LIMIT 1 {limit}"))
            } else {
                local.run(&format!("KEYRANGE [{one} ({other} LIMIT 1 {limit}"))
            };
            let expected: Vec<String> = expected.into_iter().skip(1).take(limit).collect();
            assert_eq!(reply, format!("[{}]", expected.join(", ")));
        }
    }
}
