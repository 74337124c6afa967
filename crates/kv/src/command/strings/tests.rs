use crate::server::local::Local;

#[test]
fn set_takes_its_options() {
    let mut local = Local::default();
    assert_eq!(local.run("SET a 1 NX"), "OK");
    assert_eq!(local.run("SET a 2 NX"), "(nil)");
    assert_eq!(local.run("SET a 2 XX GET"), "\"1\"");
    assert_eq!(local.run("SET b 2 XX GET"), "(nil)");
    assert_eq!(local.run("SET a 2 NX XX"), "(error) ERR syntax error");
    assert_eq!(local.run("SET a 2 EX 1 PX 1"), "(error) ERR syntax error");
    assert_eq!(local.run("SET a 2 EX"), "(error) ERR syntax error");
    assert_eq!(local.run("SET a 2 EX 0"), "(error) ERR invalid expire time in 'set' command");
    assert_eq!(local.run("SET a 2 EX x"), "(error) ERR value is not an integer or out of range");
    assert_eq!(
        local.run("SETEX a 9223372036854775 2"),
        "(error) ERR invalid expire time in 'setex' command"
    );
    local.logged();
    assert_eq!(local.run("SET a 3 EX 10"), "OK");
    assert_eq!(local.event_names(), ["set", "expire"]);
    assert_eq!(local.run("SET a 4 KEEPTTL"), "OK");
    assert_eq!(local.run("SET a 5"), "OK");
    assert_eq!(
        local.logged(),
        ["SET a 3 PXAT 1700000010000", "SET a 4 PXAT 1700000010000", "SET a 5"]
    );
}

#[test]
fn an_expired_key_is_gone() {
    let mut local = Local::default();
    local.run("PSETEX a 100 1");
    local.now_ms += 100;
    local.logged();
    assert_eq!(local.run("GET a"), "(nil)");
    assert_eq!(local.logged(), ["DEL a"]);
    assert_eq!(local.event_names(), ["expired", "keymiss"]);
}

#[test]
fn getex_and_getdel_are_logged_as_what_they_did() {
    let mut local = Local::default();
    local.run("SET a 1");
    local.logged();
    assert_eq!(local.run("GETEX a EX 10"), "\"1\"");
    assert_eq!(local.run("GETEX a"), "\"1\"");
    assert_eq!(local.run("GETEX a PERSIST"), "\"1\"");
    assert_eq!(local.run("GETEX a PXAT 1"), "\"1\"");
    assert_eq!(local.run("GETEX a EX 0"), "(nil)");
    local.run("SET a 1");
    assert_eq!(local.run("GETEX a EX 0"), "(error) ERR invalid expire time in 'getex' command");
    assert_eq!(local.run("GETDEL a"), "\"1\"");
    assert_eq!(local.run("GETDEL a"), "(nil)");
    assert_eq!(
        local.logged(),
        ["PEXPIREAT a 1700000010000", "PERSIST a", "DEL a", "SET a 1", "DEL a"]
    );
}

#[test]
fn several_keys_are_set_at_once_in_all_shards() {
    let mut local = Local::new(3);
    assert_eq!(local.run("MSET a 1 b 2 c 3 d 4"), "OK");
    assert_eq!(local.run("MGET a b x c d"), r#"["1", "2", (nil), "3", "4"]"#);
    assert_eq!(local.run("MSETNX e 1 d 2"), "0");
    assert_eq!(local.run("MSETNX e 1 f 2"), "1");
    assert_eq!(local.run("MSET a 1 b"), "(error) ERR wrong number of arguments for 'mset' command");
}

#[test]
fn numbers_count_without_overflow() {
    let mut local = Local::default();
    assert_eq!(local.run("INCR n"), "1");
    assert_eq!(local.run("INCRBY n 9223372036854775806"), "9223372036854775807");
    assert_eq!(local.run("INCR n"), "(error) ERR increment or decrement would overflow");
    assert_eq!(local.run("DECRBY n -9223372036854775808"), "(error) ERR decrement would overflow");
    assert_eq!(local.run("SET n 5 EX 10"), "OK");
    local.logged();
    assert_eq!(local.run("DECRBY n 7"), "-2");
    assert_eq!(local.run("INCRBYFLOAT n 0.1"), "\"-1.9\"");
    assert_eq!(local.run("INCR n"), "(error) ERR value is not an integer or out of range");
    assert_eq!(
        local.run("INCRBYFLOAT n inf"),
        "(error) ERR increment would produce NaN or Infinity"
    );
    assert_eq!(local.logged(), ["DECRBY n 7", "SET n -1.9 KEEPTTL"]);
    assert!(local.keys.expires_ms(b"n").flatten().is_some());
}

#[test]
fn strings_change_in_place() {
    let mut local = Local::default();
    assert_eq!(local.run("APPEND s ab"), "2");
    assert_eq!(local.run("OBJECT ENCODING s"), "\"embstr\"");
    assert_eq!(local.run("APPEND s c"), "3");
    assert_eq!(local.run("OBJECT ENCODING s"), "\"raw\"");
    assert_eq!(local.run("SETRANGE s 5 x"), "6");
    assert_eq!(local.run("GET s"), "\"abc\\x00\\x00x\"");
    assert_eq!(local.run("GETRANGE s -3 -1"), "\"\\x00\\x00x\"");
    assert_eq!(local.run("GETRANGE s -1 -3"), "\"\"");
    assert_eq!(local.run("GETRANGE s 1 100"), "\"bc\\x00\\x00x\"");
    assert_eq!(local.run("GETRANGE s 0 -100"), "\"a\"");
    assert_eq!(local.run("STRLEN s"), "6");
    assert_eq!(local.run("SETRANGE s -1 x"), "(error) ERR offset is out of range");
    assert_eq!(
        local.run("SETRANGE s 536870912 x"),
        "(error) ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    );
    assert_eq!(local.words(&[b"SETRANGE", b"t", b"9", b""]), "0");
    assert_eq!(local.run("EXISTS t"), "0");
}

#[test]
fn the_longest_common_subsequence_has_its_pieces() {
    let mut local = Local::default();
    local.run("MSET a ohmytext b mynewtext");
    assert_eq!(local.run("LCS a b"), "\"mytext\"");
    assert_eq!(local.run("LCS a b LEN"), "6");
    assert_eq!(
        local.run("LCS a b IDX WITHMATCHLEN"),
        r#"["matches", [[[4, 7], [5, 8], 4], [[2, 3], [0, 1], 2]], "len", 6]"#
    );
    assert_eq!(
        local.run("LCS a b IDX MINMATCHLEN 4"),
        r#"["matches", [[[4, 7], [5, 8]]], "len", 6]"#
    );
}
