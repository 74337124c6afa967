use crate::command::{Null, Outcome};
use crate::server::local::Local;

/// Runs commands and compares their replies.
fn check(local: &mut Local, cases: &[(&str, &str)]) {
    for (command, reply) in cases {
        assert_eq!(local.run(command), *reply, "{command}");
    }
}

#[test]
fn elements_are_pushed_found_and_popped_at_both_ends() {
    let mut local = Local::default();
    check(
        &mut local,
        &[
            ("RPUSH l b c", "2"),
            ("LPUSH l a z", "4"),
            ("LRANGE l 0 -1", r#"["z", "a", "b", "c"]"#),
            ("LRANGE l -2 100", r#"["b", "c"]"#),
            ("LRANGE l 3 1", "[]"),
            ("LINDEX l -1", r#""c""#),
            ("LINDEX l 9", "(nil)"),
            ("LLEN l", "4"),
            ("LPOP l", r#""z""#),
            ("RPOP l 2", r#"["c", "b"]"#),
            ("RPOP l 0", "[]"),
            ("LPUSHX none a", "0"),
            ("LPOP none", "(nil)"),
            ("LPOP none 1", "(nil)"),
            ("LPOP l -1", "(error) ERR value is out of range, must be positive"),
            ("LPOP l 1 1", "(error) ERR wrong number of arguments for 'lpop' command"),
            ("LPOP l 5", r#"["a"]"#),
            ("LLEN l", "0"),
        ],
    );
    assert_eq!(local.run("GET l"), "(nil)");
}

#[test]
fn elements_are_inserted_replaced_and_removed_by_place_and_value() {
    let mut local = Local::default();
    check(
        &mut local,
        &[
            ("RPUSH l a b a c a", "5"),
            ("LINSERT l BEFORE b x", "6"),
            ("LINSERT l after c y", "7"),
            ("LINSERT l after none y", "-1"),
            ("LINSERT l beside c y", "(error) ERR syntax error"),
            ("LREM l -2 a", "2"),
            ("LRANGE l 0 -1", r#"["a", "x", "b", "c", "y"]"#),
            ("LSET l -1 z", "OK"),
            ("LSET l 5 z", "(error) ERR index out of range"),
            ("LSET none 0 z", "(error) ERR no such key"),
            ("LTRIM l 1 -2", "OK"),
            ("LRANGE l 0 -1", r#"["x", "b", "c"]"#),
            ("LTRIM l 5 9", "OK"),
        ],
    );
    assert_eq!(local.event_names(), ["ltrim", "del"]);
    assert!(!local.keys.contains(b"l"));
}

#[test]
fn many_equal_elements_are_removed_at_once() {
    let mut local = Local::default();
    for _ in 0..40 {
        local.run("RPUSH l a b");
    }
    assert_eq!(local.run("LREM l -30 a"), "30");
    assert_eq!(local.run("LLEN l"), "50");
    assert_eq!(local.run("LPOS l a COUNT 0 RANK -1"), "[18, 16, 14, 12, 10, 8, 6, 4, 2, 0]");
    assert_eq!(local.run("LREM l 0 b"), "40");
    assert_eq!(local.run("LREM l 0 a"), "10");
    assert_eq!(local.event_names(), ["lrem", "del"]);
}

#[test]
fn matches_are_found_by_rank_count_and_length() {
    let mut local = Local::default();
    check(
        &mut local,
        &[
            ("RPUSH l a b c 1 2 3 c c", "8"),
            ("LPOS l c", "2"),
            ("LPOS l c RANK -1", "7"),
            ("LPOS l c RANK 2 COUNT 0", "[6, 7]"),
            ("LPOS l c COUNT 0 MAXLEN 3", "[2]"),
            ("LPOS l x", "(nil)"),
            ("LPOS none x COUNT 1", "[]"),
            (
                "LPOS l c RANK 0",
                "(error) ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... \
                 or use negative to start from the end of the list",
            ),
            ("LPOS l c COUNT -1", "(error) ERR COUNT can't be negative"),
        ],
    );
}

#[test]
fn an_element_moves_between_lists_or_within_one() {
    let mut local = Local::new(3);
    check(
        &mut local,
        &[
            ("RPUSH a 1 2 3", "3"),
            ("LMOVE a b LEFT RIGHT", r#""1""#),
            ("RPOPLPUSH a a", r#""3""#),
            ("LRANGE a 0 -1", r#"["3", "2"]"#),
            ("SET s v", "OK"),
            (
                "LMOVE a s LEFT LEFT",
                "(error) WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            ("LLEN a", "2"),
            ("LMOVE none s LEFT LEFT", "(nil)"),
            ("LMOVE b a LEFT LEFT", r#""1""#),
        ],
    );
    assert_eq!(local.event_names(), ["lpush", "lpop", "del"]);
}

#[test]
fn several_are_popped_of_the_first_list_and_logged_as_a_pop() {
    let mut local = Local::new(3);
    local.run("RPUSH b 1 2 3");
    local.logged();
    check(
        &mut local,
        &[
            ("LMPOP 2 a b RIGHT COUNT 2", r#"["b", ["3", "2"]]"#),
            ("LMPOP 1 a LEFT", "(nil)"),
            ("LMPOP 0 a LEFT", "(error) ERR numkeys should be greater than 0"),
            ("LMPOP 2 a LEFT", "(error) ERR syntax error"),
            ("LMPOP 1 b LEFT COUNT 0", "(error) ERR count should be greater than 0"),
            ("BLMPOP 0 1 b LEFT COUNT 9", r#"["b", ["1"]]"#),
        ],
    );
    assert_eq!(local.logged(), ["RPOP b 2", "LPOP b 1"]);
}

#[test]
fn a_pop_of_nothing_waits_and_is_logged_as_what_it_did() {
    let mut local = Local::new(2);
    local.run("BLPOP a b 1.5");
    let Outcome::Block(block) = &local.outcome else {
        panic!("{:?}", local.outcome);
    };
    assert_eq!(block.keys, [b"a", b"b"]);
    assert_eq!((block.timeout_ms, block.null), (Some(1500), Null::Array));
    local.run("BLMOVE a b LEFT RIGHT 0");
    assert!(
        matches!(&local.outcome, Outcome::Block(block) if block.timeout_ms.is_none() && block.null == Null::Bulk)
    );
    local.run("RPUSH b 1 2 3 4");
    local.logged();
    check(
        &mut local,
        &[
            ("BLPOP a b 1.5", r#"["b", "1"]"#),
            ("BRPOP b 0", r#"["b", "4"]"#),
            ("BLMOVE b c left right 0", r#""2""#),
            ("BRPOPLPUSH b c 0", r#""3""#),
            ("BLPOP c x", "(error) ERR timeout is not a float or out of range"),
            ("BLPOP c -1", "(error) ERR timeout is negative"),
        ],
    );
    assert_eq!(local.logged(), ["LPOP b", "RPOP b", "LMOVE b c left right", "RPOPLPUSH b c"]);
}

#[test]
fn a_key_of_another_type_wakes_nobody() {
    const WRONG_TYPE: &str =
        "(error) WRONGTYPE Operation against a key holding the wrong kind of value";
    let mut local = Local::default();
    local.run("SET s v");
    assert_eq!(local.run("BLPOP s 0"), WRONG_TYPE);
    local.keys.has_waited = true;
    for command in ["BLPOP s 0", "BLMPOP 0 1 s LEFT", "BLMOVE s d LEFT LEFT 0"] {
        local.run(command);
        assert!(matches!(local.outcome, Outcome::Block(_)), "{command}");
    }
    local.run("RPUSH l 1");
    assert_eq!(local.run("BLMOVE l s LEFT LEFT 0"), WRONG_TYPE);
    assert_eq!(local.run("BLPOP s l 0"), r#"["l", "1"]"#);
}
