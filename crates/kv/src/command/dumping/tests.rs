//! DUMP and RESTORE.

use crate::server::local::Local;

/// What DUMP gives.
fn dumped(local: &mut Local, key: &str) -> Vec<u8> {
    let bytes = local.bytes(&[b"DUMP", key.as_bytes()]);
    let start = bytes.iter().position(|&byte| byte == b'\n').expect("a reply has a line") + 1;
    bytes[start..bytes.len() - 2].to_vec()
}

#[test]
fn a_dump_is_restored_with_its_time_and_use() {
    let mut local = Local::default();
    local.run("SET foo bar");
    let payload = dumped(&mut local, "foo");
    // As Redis has it: type, length, text; version 10; CRC64.
    assert_eq!(payload[..7], *b"\0\x03bar\x0a\0");
    assert_eq!(
        local.words(&[b"RESTORE", b"foo", b"0", b"..."]),
        "(error) BUSYKEY Target key name already exists."
    );
    local.run("DEL foo");
    local.logged();
    assert_eq!(local.words(&[b"RESTORE", b"foo", b"5000", &payload]), "OK");
    assert!(local.event_names().contains(&"restore"));
    let logged = local.logged();
    let at = local.now_ms + 5000;
    assert!(
        logged.len() == 1 && logged[0].starts_with(&format!("RESTORE foo {at} ")),
        "{logged:?}"
    );
    assert!(logged[0].ends_with(" ABSTTL"));
    assert_eq!(local.run("PTTL foo"), "5000");
    assert_eq!(local.run("GET foo"), "\"bar\"");
    assert_eq!(
        local.words(&[b"RESTORE", b"foo", b"0", &payload, b"replace", b"idletime", b"1000"]),
        "OK"
    );
    assert_eq!(local.run("PTTL foo"), "-1");
    assert_eq!(local.run("OBJECT IDLETIME foo"), "1000");
    assert_eq!(local.run("DUMP missing"), "(nil)");
}

#[test]
fn what_is_past_is_not_restored_and_removes_what_was_there() {
    let mut local = Local::default();
    local.run("SET foo bar");
    let payload = dumped(&mut local, "foo");
    local.logged();
    assert_eq!(local.words(&[b"RESTORE", b"foo", b"1000", &payload, b"ABSTTL", b"REPLACE"]), "OK");
    assert_eq!(local.run("EXISTS foo"), "0");
    assert_eq!(local.logged(), ["DEL foo"]);
}

#[test]
fn what_is_wrong_is_told_as_redis_does() {
    let mut local = Local::default();
    local.run("RPUSH l a b");
    let payload = dumped(&mut local, "l");
    let mut run = |words: &[&[u8]]| local.words(words);
    assert_eq!(run(&[b"RESTORE", b"x", b"0", b"...", b"nonsense"]), "(error) ERR syntax error");
    assert_eq!(
        run(&[b"RESTORE", b"x", b"-1", &payload]),
        "(error) ERR Invalid TTL value, must be >= 0"
    );
    assert_eq!(
        run(&[b"RESTORE", b"x", b"a", &payload]),
        "(error) ERR value is not an integer or out of range"
    );
    let idle = run(&[b"RESTORE", b"x", b"0", &payload, b"IDLETIME", b"-1"]);
    assert_eq!(idle, "(error) ERR Invalid IDLETIME value, must be >= 0");
    let frequency = run(&[b"RESTORE", b"x", b"0", &payload, b"FREQ", b"256"]);
    assert_eq!(frequency, "(error) ERR Invalid FREQ value, must be >= 0 and <= 255");
    let wrong = "(error) ERR DUMP payload version or checksum are wrong";
    assert_eq!(run(&[b"RESTORE", b"x", b"0", b"short"]), wrong);
    assert_eq!(run(&[b"RESTORE", b"x", b"0", &payload[1..]]), wrong);
    // Sealed well, and no value.
    let mut bad = vec![0, 0x81, 255, 255, 255, 255, 255, 255, 255, 0xf7, 10, 0];
    let crc = crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&bad);
    bad.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(run(&[b"RESTORE", b"x", b"0", &bad]), "(error) ERR Bad data format");
}
