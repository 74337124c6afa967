use crate::protocol::Proto;
use crate::server::local::Local;

/// Runs commands and compares their replies, which are those of Redis 7.0.15.
fn check(local: &mut Local, cases: &[(&str, &str)]) {
    for (command, reply) in cases {
        assert_eq!(local.run(command), *reply, "{command}");
    }
}

fn sicily() -> Local {
    let mut local = Local::default();
    let added = local.run(
        "GEOADD k 180 10 m 13.361389 38.115556 Palermo 15.087269 37.502669 Catania 10 85.05112878 top",
    );
    assert_eq!(added, "4");
    local
}

#[test]
fn members_have_places() {
    check(
        &mut sicily(),
        &[
            (
                "ZRANGE k 0 -1 WITHSCORES",
                r#"["Palermo", "3479099956230698", "Catania", "3479447370796909", "top", "6758286363893802", "m", "10138940401276180"]"#,
            ),
            (
                "GEOPOS k m top x Palermo",
                r#"[["180", "9.99999839351156794"], ["10.00000208616256714", "85.0511287799999991"], (nil), ["13.36138933897018433", "38.11555639549629859"]]"#,
            ),
            (
                "GEOHASH k m top x Palermo",
                r#"["81b0bh2n0n0", "upp5ge1f8z0", (nil), "sqc8b49rny0"]"#,
            ),
            ("GEODIST k Palermo Catania", r#""166274.1516""#),
            ("GEODIST k Palermo Catania MI", r#""103.3182""#),
            ("GEODIST k m top km", r#""9440.2911""#),
            ("GEODIST k m m", r#""0.0000""#),
            ("GEODIST k m x", "(nil)"),
            ("GEODIST none m x", "(nil)"),
            ("GEOPOS none m", "[(nil)]"),
        ],
    );
}

#[test]
fn places_are_changed_as_options_say_and_logged_as_scores() {
    let mut local = sicily();
    local.logged();
    check(
        &mut local,
        &[
            ("GEOADD k NX CH 1 1 m 1 1 new", "1"),
            ("GEOADD k XX CH 1 1 m 1 1 other", "1"),
            ("GEOADD k 1 1 m", "0"),
        ],
    );
    let score = "3377822707026402";
    let logged = [
        format!("ZADD k NX CH {score} m {score} new"),
        format!("ZADD k XX CH {score} m {score} other"),
    ];
    assert_eq!(local.logged(), logged);
    check(
        &mut local,
        &[
            (
                "GEOADD k 200 100 m",
                "(error) ERR invalid longitude,latitude pair 200.000000,100.000000",
            ),
            ("GEOADD k 1 x m", "(error) ERR value is not a valid float"),
            ("GEOADD k XX NX 1 1 m", "(error) ERR syntax error"),
            ("GEOADD k NX CH NX", "(error) ERR syntax error"),
            ("GEOADD k FOO 1 1 m", "(error) ERR syntax error"),
        ],
    );
    assert_eq!(local.logged(), [""; 0]);
}

#[test]
fn what_lies_in_an_area_is_found() {
    let mut local = sicily();
    check(
        &mut local,
        &[
            (
                "GEOSEARCH k FROMLONLAT 15 37 BYBOX 400 400 km ASC WITHCOORD WITHDIST WITHHASH",
                r#"[["Catania", "56.4413", 3479447370796909, ["15.08726745843887329", "37.50266842333162032"]], ["Palermo", "190.4424", 3479099956230698, ["13.36138933897018433", "38.11555639549629859"]]]"#,
            ),
            ("GEORADIUS k 15 37 200 km DESC", r#"["Palermo", "Catania"]"#),
            ("GEORADIUS_RO k 15 37 200 km COUNT 1", r#"["Catania"]"#),
            ("GEORADIUSBYMEMBER k Palermo 166275 m COUNT 5 ANY", r#"["Palermo", "Catania"]"#),
            ("GEORADIUSBYMEMBER_RO k Palermo 166274 m", r#"["Palermo"]"#),
            (
                "GEOSEARCH k FROMMEMBER Palermo BYRADIUS inf km COUNT 9 DESC",
                r#"["m", "top", "Catania", "Palermo"]"#,
            ),
            // At the ends of the grid, where Redis does not look.
            ("GEORADIUS k -179.9 10 100 km", r#"["m"]"#),
            ("GEORADIUS k 10 85 100 km", r#"["top"]"#),
            ("GEORADIUSBYMEMBER none m foo bar", "[]"),
            ("GEOSEARCH none FROMMEMBER m BYBOX 1 1 km", "[]"),
        ],
    );
    local.client.proto = Proto::Resp3;
    assert_eq!(
        local.bytes(&[b"GEOPOS", b"k", b"m"]),
        b"*1\r\n*2\r\n,180\r\n,9.99999839351156794\r\n"
    );
}

#[test]
fn what_is_stored_is_logged_by_its_members() {
    let mut local = sicily();
    local.logged();
    check(
        &mut local,
        &[
            ("SET d x EX 100", "OK"),
            ("GEOSEARCHSTORE d k FROMMEMBER Palermo BYRADIUS 200 km STOREDIST", "2"),
            ("ZRANGE d 0 -1 WITHSCORES", r#"["Palermo", "0", "Catania", "166.27415156960032"]"#),
            ("TTL d", "-1"),
        ],
    );
    assert_eq!(local.logged()[1..], ["DEL d", "ZADD d 0 Palermo 166.27415156960032 Catania"]);
    assert_eq!(local.run("GEORADIUS k 15 37 100 km STORE d"), "1");
    assert_eq!(local.event_names(), ["georadiusstore"]);
    assert_eq!(local.logged(), ["DEL d", "ZADD d 3479447370796909 Catania"]);
    assert_eq!(local.run("GEOSEARCHSTORE d k FROMLONLAT 0 0 BYBOX 1 1 m"), "0");
    assert_eq!(local.event_names(), ["del"]);
    assert_eq!(local.logged(), ["DEL d"]);
    assert_eq!(local.run("GEORADIUSBYMEMBER none m 1 km STORE d"), "0");
    assert_eq!(local.logged(), [""; 0]);
}

#[test]
fn what_does_not_go_together_is_an_error() {
    let mut local = sicily();
    local.run("SET s x");
    for (command, error) in [
        ("GEOADD s 1 1 m", "WRONGTYPE Operation against a key holding the wrong kind of value"),
        (
            "GEORADIUS s 1 1 foo bar",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        ("GEORADIUSBYMEMBER k Palermo foo km", "ERR need numeric radius"),
        ("GEORADIUSBYMEMBER k Palermo -1 km", "ERR radius cannot be negative"),
        (
            "GEORADIUSBYMEMBER k Palermo 1 xx",
            "ERR unsupported unit provided. please use M, KM, FT, MI",
        ),
        ("GEORADIUSBYMEMBER k nobody 1 km", "ERR could not decode requested zset member"),
        ("GEORADIUS_RO k 1 1 1 km STORE d", "ERR syntax error"),
        ("GEORADIUS k 1 1 1 km STORE", "ERR syntax error"),
        ("GEORADIUS k 1 1 1 km COUNT 0", "ERR COUNT must be > 0"),
        ("GEORADIUS k 1 1 1 km ANY", "ERR the ANY argument requires COUNT argument"),
        (
            "GEORADIUS k 1 1 1 km STORE d WITHHASH",
            "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
        ),
        (
            "GEOSEARCHSTORE d k FROMMEMBER Palermo BYRADIUS 1 km WITHDIST",
            "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
        ),
        ("GEOSEARCH k FROMMEMBER Palermo BYBOX 1 a km", "ERR need numeric height"),
        ("GEOSEARCH k FROMMEMBER Palermo BYBOX -1 1 km", "ERR height or width cannot be negative"),
        ("GEOSEARCH k FROMMEMBER Palermo FROMLONLAT 1 1 BYBOX 1 1 km", "ERR syntax error"),
        ("GEOSEARCH k FROMLONLAT 1 1 BYBOX 1 1 km BYRADIUS 1 km", "ERR syntax error"),
        ("GEOSEARCH k FROMLONLAT 1 1 BYRADIUS 1 km STOREDIST", "ERR syntax error"),
        (
            "geoSearch k BYBOX 1 1 km ASC ASC",
            "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for geoSearch",
        ),
        (
            "GEOSEARCH k FROMLONLAT 1 1 ASC ASC",
            "ERR exactly one of BYRADIUS and BYBOX can be specified for GEOSEARCH",
        ),
        ("GEODIST k a b xx", "ERR unsupported unit provided. please use M, KM, FT, MI"),
        ("GEODIST k a b km x", "ERR syntax error"),
    ] {
        assert_eq!(local.run(command), format!("(error) {error}"), "{command}");
    }
}
