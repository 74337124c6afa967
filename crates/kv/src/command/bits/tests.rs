use crate::server::local::Local;

#[test]
fn single_bits_are_set_and_got() {
    let mut local = Local::default();
    assert_eq!(local.run("SETBIT a 7 1"), "0");
    assert_eq!(local.event_names(), ["new", "setbit"]);
    assert_eq!(local.run("SETBIT a 7 1"), "1");
    assert_eq!(local.event_names(), Vec::<&str>::new());
    assert_eq!(local.run("GET a"), "\"\\x01\"");
    assert_eq!(local.run("GETBIT a 7"), "1");
    assert_eq!(local.run("GETBIT a 100"), "0");
    assert_eq!(local.run("SETBIT a 16 0"), "0");
    assert_eq!(local.run("STRLEN a"), "3");
    let bad_offset = "(error) ERR bit offset is not an integer or out of range";
    assert_eq!(local.run("SETBIT a 4294967296 1"), bad_offset);
    assert_eq!(local.run("SETBIT a -1 1"), bad_offset);
    assert_eq!(local.run("SETBIT a 1 2"), "(error) ERR bit is not an integer or out of range");
}

#[test]
fn counts_and_positions_agree_with_a_look_at_every_bit() {
    let mut local = Local::default();
    let mut random = fastrand::Rng::with_seed(1);
    for len in [0usize, 1, 2, 7, 8, 9, 30] {
        let bytes: Vec<u8> =
            (0..len).map(|_| *random.choice(&[0, 0xff, 0x10, 0x81]).unwrap()).collect();
        local.words(&[b"SET", b"a", &bytes]);
        let bit = |at: i64| bytes[at as usize / 8] >> (7 - at % 8) & 1;
        let total = len as i64 * 8;
        for _ in 0..200 {
            let (start, end) = (random.i64(0..total + 3), random.i64(0..total + 3));
            let within = || start..(end + 1).min(total);
            let count = within().filter(|&at| bit(at) == 1).count();
            assert_eq!(local.run(&format!("BITCOUNT a {start} {end} BIT")), count.to_string());
            for set in [0, 1] {
                let position = within().find(|&at| bit(at) == set).unwrap_or(-1);
                let position = if len == 0 && set == 0 { -1 } else { position };
                assert_eq!(
                    local.run(&format!("BITPOS a {set} {start} {end} BIT")),
                    position.to_string(),
                    "{bytes:?} {start} {end}"
                );
            }
        }
    }
}

#[test]
fn a_clear_bit_is_found_past_the_end_unless_the_end_was_asked_for() {
    let mut local = Local::default();
    local.words(&[b"SET", b"a", &[0xff; 3]]);
    assert_eq!(local.run("BITPOS a 0"), "24");
    assert_eq!(local.run("BITPOS a 0 1"), "24");
    assert_eq!(local.run("BITPOS a 0 0 -1"), "-1");
    assert_eq!(local.run("BITPOS x 0"), "0");
    assert_eq!(local.run("BITPOS x 1"), "-1");
    assert_eq!(local.run("BITPOS a 2"), "(error) ERR The bit argument must be 1 or 0.");
    assert_eq!(local.run("BITCOUNT a"), "24");
    assert_eq!(local.run("BITCOUNT a 0"), "(error) ERR syntax error");
    assert_eq!(local.run("BITCOUNT a 0 1 x"), "(error) ERR syntax error");
    assert_eq!(local.run("BITCOUNT a -2 -1"), "16");
    assert_eq!(local.run("BITCOUNT a -1 -2"), "0");
}

#[test]
fn strings_are_combined_as_if_zeros_followed() {
    let mut local = Local::new(3);
    local.words(&[b"MSET", b"a", b"\xf0\xff", b"b", b"\x3c"]);
    assert_eq!(local.run("BITOP AND d a b"), "2");
    assert_eq!(local.run("GET d"), "\"0\\x00\"");
    assert_eq!(local.run("BITOP or d a b x"), "2");
    assert_eq!(local.run("GET d"), "\"\\xfc\\xff\"");
    assert_eq!(local.run("BITOP XOR d a b"), "2");
    assert_eq!(local.run("GET d"), "\"\\xcc\\xff\"");
    assert_eq!(local.run("BITOP NOT d a"), "2");
    assert_eq!(local.run("GET d"), "\"\\x0f\\x00\"");
    assert_eq!(local.run("BITOP AND d a x"), "2");
    assert_eq!(local.run("GET d"), "\"\\x00\\x00\"");
    assert_eq!(local.run("BITOP AND d x y"), "0");
    assert_eq!(local.event_names(), ["keymiss", "keymiss", "del"]);
    assert_eq!(
        local.run("BITOP NOT d a b"),
        "(error) ERR BITOP NOT must be called with a single source key."
    );
    assert_eq!(local.run("BITOP NAND d a"), "(error) ERR syntax error");
}

#[test]
fn integers_of_any_width_wrap_saturate_or_fail() {
    let mut local = Local::default();
    assert_eq!(local.run("BITFIELD a SET i8 0 -100 SET u8 #1 255 GET u16 0"), "[0, 0, 40191]");
    assert_eq!(local.run("BITFIELD a INCRBY u8 #1 2"), "[1]");
    assert_eq!(local.run("BITFIELD a OVERFLOW SAT INCRBY i8 0 -100"), "[-128]");
    assert_eq!(local.run("BITFIELD a OVERFLOW FAIL INCRBY i8 0 -1 GET i8 0"), "[(nil), -128]");
    assert_eq!(local.run("BITFIELD a SET i64 3 -9223372036854775808"), "[2251799813685248]");
    assert_eq!(local.run("BITFIELD a GET i64 3 GET u63 4"), "[-9223372036854775808, 0]");
    assert_eq!(local.run("BITFIELD a INCRBY i64 3 -1"), "[9223372036854775807]");
    assert_eq!(local.run("BITFIELD a OVERFLOW SAT SET u4 0 -1 GET u4 0"), "[8, 15]");
    assert_eq!(local.run("BITFIELD_RO a GET u4 0"), "[15]");
    assert_eq!(local.run("BITFIELD_RO x GET u4 0"), "[0]");
    assert_eq!(
        local.run("BITFIELD_RO a SET u4 0 1"),
        "(error) ERR BITFIELD_RO only supports the GET subcommand"
    );
    assert!(local.run("BITFIELD a GET u64 0").starts_with("(error) ERR Invalid bitfield type."));
    assert_eq!(local.run("BITFIELD a SET u8 0"), "(error) ERR syntax error");
    assert_eq!(local.run("BITFIELD a OVERFLOW x"), "(error) ERR Invalid OVERFLOW type specified");
}
