use crate::protocol::Proto;
use crate::server::local::Local;

/// Runs commands and compares their replies.
fn check(local: &mut Local, cases: &[(&str, &str)]) {
    for (command, reply) in cases {
        assert_eq!(local.run(command), *reply, "{command}");
    }
}

#[test]
fn fields_are_set_found_and_removed() {
    let mut local = Local::default();
    check(
        &mut local,
        &[
            ("HSET h a 1 b 2", "2"),
            ("HSET h a 3", "0"),
            ("HSET h a", "(error) ERR wrong number of arguments for 'hset' command"),
            ("HMSET h a 3 b", "(error) ERR wrong number of arguments for 'hmset' command"),
            ("HMSET h c xyz", "OK"),
            ("HSETNX h c 1", "0"),
            ("HGET h a", r#""3""#),
            ("HGET h none", "(nil)"),
            ("HMGET h a none c", r#"["3", (nil), "xyz"]"#),
            ("HMGET none a", "[(nil)]"),
            ("HLEN h", "3"),
            ("HSTRLEN h c", "3"),
            ("HSTRLEN h none", "0"),
            ("HEXISTS h a", "1"),
            ("HDEL h a none c", "2"),
            ("HGETALL h", r#"["b", "2"]"#),
            ("HKEYS h", r#"["b"]"#),
            ("HVALS h", r#"["2"]"#),
            ("HDEL h b", "1"),
        ],
    );
    assert_eq!(local.event_names(), ["hdel", "del"]);
    assert_eq!(local.run("HGETALL h"), "[]");
}

#[test]
fn numbers_are_added_to() {
    let mut local = Local::default();
    check(
        &mut local,
        &[
            ("HINCRBY h n 5", "5"),
            ("HINCRBY h n -7", "-2"),
            ("HINCRBY h n x", "(error) ERR value is not an integer or out of range"),
            ("HSET h n 9223372036854775807 s text", "1"),
            ("HINCRBY h n 1", "(error) ERR increment or decrement would overflow"),
            ("HINCRBY h s 1", "(error) ERR hash value is not an integer"),
            ("HINCRBYFLOAT h s 1", "(error) ERR hash value is not a float"),
            ("HINCRBYFLOAT h s x", "(error) ERR value is not a valid float"),
            ("HINCRBYFLOAT h s inf", "(error) ERR value is NaN or Infinity"),
        ],
    );
    local.logged();
    assert_eq!(local.run("HINCRBYFLOAT h f 3"), r#""3""#);
    assert_eq!(local.run("HINCRBYFLOAT h f 0.2"), r#""3.2""#);
    assert_eq!(local.event_names(), ["hincrbyfloat"]);
    assert_eq!(local.logged(), ["HSET h f 3", "HSET h f 3.2"]);
}

#[test]
fn a_refused_command_leaves_no_key_behind() {
    let mut local = Local::default();
    for command in ["HINCRBY h n x", "HINCRBYFLOAT h n x", "HSET h a", "HDEL h a"] {
        local.run(command);
    }
    assert!(!local.keys.contains(b"h"));
    assert!(local.logged().is_empty());
}

#[test]
fn fields_are_picked_with_their_values() {
    let mut local = Local::default();
    local.run("HSET h a 1");
    check(
        &mut local,
        &[
            ("HRANDFIELD h", r#""a""#),
            ("HRANDFIELD h 5", r#"["a"]"#),
            ("HRANDFIELD h -2 WITHVALUES", r#"["a", "1", "a", "1"]"#),
            ("HRANDFIELD h 0", "[]"),
            ("HRANDFIELD none", "(nil)"),
            ("HRANDFIELD none 2", "[]"),
            ("HRANDFIELD h 1 VALUES", "(error) ERR syntax error"),
            ("HRANDFIELD h -9223372036854775807 WITHVALUES", "(error) ERR value is out of range"),
        ],
    );
    local.client.proto = Proto::Resp3;
    assert_eq!(local.run("HRANDFIELD h 1 WITHVALUES"), r#"[["a", "1"]]"#);
    assert_eq!(local.run("HRANDFIELD h 5 WITHVALUES"), r#"[["a", "1"]]"#);
    assert_eq!(local.run("HGETALL h"), r#"{"a": "1"}"#);
    assert_eq!(local.run("HSCAN h 0"), r#"["0", ["a", "1"]]"#);
    assert_eq!(local.run("HSCAN h 0 MATCH b*"), r#"["0", []]"#);
}
