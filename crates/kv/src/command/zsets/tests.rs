use crate::command::{Null, Outcome};
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

#[test]
fn options_say_which_members_are_added_or_changed() {
    let mut local = Local::default();
    check(
        &mut local,
        &[
            ("ZADD z 1 a 2 b", "2"),
            ("ZADD z CH 3 a 2 b 1 c", "2"),
            ("ZADD z NX 9 a 4 d", "1"),
            ("ZADD z XX CH 5 a 5 e", "1"),
            ("ZADD z GT CH 4 a 6 b", "1"),
            ("ZADD z LT CH 4 a 9 b", "1"),
            ("ZADD z INCR 1.5 a", r#""5.5""#),
            ("ZADD z NX INCR 1 a", "(nil)"),
            ("ZADD none XX 1 a", "0"),
            ("ZADD none XX INCR 1 a", "(nil)"),
            ("ZINCRBY z -0.5 a", r#""5""#),
            ("ZRANGE z 0 -1 WITHSCORES", r#"["c", "1", "d", "4", "a", "5", "b", "6"]"#),
            (
                "ZADD z NX XX 1 a",
                "(error) ERR XX and NX options at the same time are not compatible",
            ),
            (
                "ZADD z GT LT 1 a",
                "(error) ERR GT, LT, and/or NX options at the same time are not compatible",
            ),
            (
                "ZADD z INCR 1 a 2 b",
                "(error) ERR INCR option supports a single increment-element pair",
            ),
            ("ZADD z 1 a 2", "(error) ERR syntax error"),
            ("ZADD z 1 x y z", "(error) ERR value is not a valid float"),
            ("ZSCORE z x", "(nil)"),
            ("ZADD z inf i", "1"),
            ("ZINCRBY z -inf i", "(error) ERR resulting score is not a number (NaN)"),
        ],
    );
    local.run("ZINCRBY z 1 a");
    assert_eq!(local.event_names(), ["zincr"]);
    assert!(!local.keys.contains(b"none"));
}

#[test]
fn members_have_scores_and_ranks() {
    let mut local = Local::default();
    check(
        &mut local,
        &[
            ("ZADD z 1 a 2 b 2 c", "3"),
            ("ZCARD z", "3"),
            ("ZSCORE z b", r#""2""#),
            ("ZMSCORE z a x", r#"["1", (nil)]"#),
            ("ZMSCORE none a", "[(nil)]"),
            ("ZRANK z b", "1"),
            ("ZREVRANK z b", "1"),
            ("ZREVRANK z a", "2"),
            ("ZRANK z x", "(nil)"),
            ("ZREM z x a", "1"),
            ("ZREM z b c b", "2"),
        ],
    );
    assert_eq!(local.event_names(), ["zrem", "del"]);
}

#[test]
fn ranges_are_of_ranks_scores_or_bytes() {
    let mut local = Local::default();
    local.run("ZADD z 1 a 2 b 3 c 4 d");
    local.run("ZADD lex 0 a 0 b 0 c");
    check(
        &mut local,
        &[
            ("ZRANGE z 1 -2", r#"["b", "c"]"#),
            ("ZREVRANGE z 0 1 WITHSCORES", r#"["d", "4", "c", "3"]"#),
            ("ZRANGE z 0 1 REV", r#"["d", "c"]"#),
            ("ZRANGEBYSCORE z (1 +inf LIMIT 1 1", r#"["c"]"#),
            ("ZREVRANGEBYSCORE z (4 2", r#"["c", "b"]"#),
            ("ZRANGE z 4 (2 BYSCORE REV LIMIT 1 -1", r#"["c"]"#),
            ("ZRANGEBYSCORE z 1 4 LIMIT -1 2", "[]"),
            ("ZRANGEBYSCORE z 4 1", "[]"),
            ("ZRANGEBYSCORE z 1e999 4", "[]"),
            ("ZRANGEBYSCORE z x 4", "(error) ERR min or max is not a float"),
            ("ZRANGEBYLEX lex - (c", r#"["a", "b"]"#),
            ("ZREVRANGEBYLEX lex + [b", r#"["c", "b"]"#),
            ("ZRANGE lex [b + BYLEX", r#"["b", "c"]"#),
            ("ZRANGEBYLEX lex b c", "(error) ERR min or max not valid string range item"),
            (
                "ZRANGE lex - + BYLEX WITHSCORES",
                "(error) ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ),
            (
                "ZRANGE z 0 1 LIMIT 0 1",
                "(error) ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ),
            ("ZREVRANGE z 0 1 REV", "(error) ERR syntax error"),
            ("ZCOUNT z (1 3", "2"),
            ("ZLEXCOUNT lex - +", "3"),
            ("ZRANGESTORE to z 1 2", "2"),
            ("ZRANGE to 0 -1 WITHSCORES", r#"["b", "2", "c", "3"]"#),
            ("ZRANGESTORE to z 9 9", "0"),
            ("ZCARD to", "0"),
            ("ZREMRANGEBYRANK z 0 0", "1"),
            ("ZREMRANGEBYSCORE z (2 3", "1"),
            ("ZREMRANGEBYLEX lex [a (c", "2"),
            ("ZREMRANGEBYSCORE z -inf inf", "2"),
        ],
    );
    assert_eq!(local.event_names(), ["zremrangebyscore", "del"]);
}

#[test]
fn sorted_sets_are_combined_over_shards_and_with_sets() {
    let mut local = Local::new(4);
    local.run("ZADD a 1 x 2 y 3 z");
    local.run("ZADD b 10 y 20 z 30 w");
    local.run("SADD s y q");
    check(
        &mut local,
        &[
            ("ZUNION 2 a b WITHSCORES", r#"["x", "1", "y", "12", "z", "23", "w", "30"]"#),
            ("ZUNION 2 a b AGGREGATE MAX", r#"["x", "y", "z", "w"]"#),
            ("ZINTER 2 a b WEIGHTS 2 1 WITHSCORES", r#"["y", "14", "z", "26"]"#),
            ("ZINTER 3 a b s WITHSCORES", r#"["y", "13"]"#),
            ("ZDIFF 2 a b WITHSCORES", r#"["x", "1"]"#),
            ("ZDIFF 2 a s", r#"["x", "z"]"#),
            ("ZINTERCARD 2 a b", "2"),
            ("ZINTERCARD 2 a b LIMIT 1", "1"),
            ("ZINTERCARD 2 a none", "0"),
            ("ZUNIONSTORE to 2 a b AGGREGATE MIN", "4"),
            ("ZRANGE to 0 -1 WITHSCORES", r#"["x", "1", "y", "2", "z", "3", "w", "30"]"#),
            ("ZINTERSTORE to 2 a s WEIGHTS 1 0.5", "1"),
            ("ZSCORE to y", r#""2.5""#),
            ("ZDIFFSTORE to 2 a a", "0"),
            ("ZUNION 0 a", "(error) ERR at least 1 input key is needed for 'zunion' command"),
            ("ZUNION 3 a b", "(error) ERR syntax error"),
            ("ZUNION 2 a b WEIGHTS 1", "(error) ERR syntax error"),
            ("ZUNION 2 a b WEIGHTS 1 x", "(error) ERR weight value is not a float"),
            ("ZDIFF 1 a WEIGHTS 1", "(error) ERR syntax error"),
            ("ZINTERCARD 1 a LIMIT -1", "(error) ERR LIMIT can't be negative"),
            ("ZADD inf inf x", "1"),
            ("ZADD negative -inf x", "1"),
            ("ZUNION 2 inf negative WITHSCORES", r#"["x", "0"]"#),
        ],
    );
    local.run("SET str v");
    assert_eq!(local.run("ZUNION 2 a str"), WRONG_TYPE);
}

#[test]
fn members_are_popped_from_either_end_and_logged_so() {
    let mut local = Local::new(3);
    local.run("ZADD z 1 a 2 b 3 c 4 d 5 e");
    local.logged();
    check(
        &mut local,
        &[
            ("ZPOPMIN z", r#"["a", "1"]"#),
            ("ZPOPMAX z 0", "[]"),
            ("ZPOPMAX z -1", "(error) ERR value is out of range, must be positive"),
            ("ZMPOP 2 none z MAX COUNT 2", r#"["z", [["e", "5"], ["d", "4"]]]"#),
            ("ZMPOP 1 none MIN", "(nil)"),
            ("ZMPOP 1 z LEFT", "(error) ERR syntax error"),
            ("BZPOPMIN none z 0", r#"["z", "b", "2"]"#),
            ("BZMPOP 0 1 z MIN", r#"["z", [["c", "3"]]]"#),
            ("ZPOPMIN z", "[]"),
        ],
    );
    assert_eq!(local.logged(), ["ZPOPMIN z", "ZPOPMAX z 2", "ZPOPMIN z", "ZPOPMIN z 1"]);
    local.run("BZPOPMAX z y 0.001");
    let Outcome::Block(block) = &local.outcome else {
        panic!("{:?}", local.outcome);
    };
    assert_eq!((block.keys.len(), block.timeout_ms, block.null), (2, Some(1), Null::Array));
    local.run("RPUSH z 1");
    assert_eq!(local.run("BZPOPMAX z 0"), WRONG_TYPE);
    local.keys.has_waited = true;
    local.run("BZPOPMAX z 0");
    assert!(matches!(&local.outcome, Outcome::Block(block) if block.timeout_ms.is_none()));
}

#[test]
fn members_and_scores_are_pairs_in_resp3() {
    let mut local = Local::default();
    local.client.proto = Proto::Resp3;
    local.run("ZADD z 1.5 a");
    check(
        &mut local,
        &[
            ("ZRANGE z 0 -1 WITHSCORES", r#"[["a", 1.5]]"#),
            ("ZUNION 1 z WITHSCORES", r#"[["a", 1.5]]"#),
            ("ZRANDMEMBER z 2 WITHSCORES", r#"[["a", 1.5]]"#),
            ("ZRANDMEMBER z -2 WITHSCORES", r#"[["a", 1.5], ["a", 1.5]]"#),
            ("ZSCORE z a", "1.5"),
            ("ZSCAN z 0", r#"["0", ["a", "1.5"]]"#),
            ("ZPOPMIN z 1", r#"[["a", 1.5]]"#),
            ("ZADD z 1 a", "1"),
            ("ZPOPMIN z", r#"["a", 1]"#),
        ],
    );
}
