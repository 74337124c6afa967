use crate::server::local::Local;

/// Runs commands and compares their replies.
fn check(local: &mut Local, cases: &[(&str, &str)]) {
    for (command, reply) in cases {
        assert_eq!(local.run(command), *reply, "{command}");
    }
}

#[test]
fn how_a_client_follows_keys_is_shown() {
    let mut local = Local::default();
    check(
        &mut local,
        &[
            ("CLIENT TRACKINGINFO", r#"["flags", ["off"], "redirect", -1, "prefixes", []]"#),
            ("CLIENT GETREDIR", "-1"),
            ("CLIENT TRACKING on NOLOOP OPTIN", "OK"),
            ("CLIENT CACHING yes", "OK"),
            (
                "CLIENT TRACKINGINFO",
                r#"["flags", ["on", "optin", "caching-yes", "noloop"], "redirect", 0, "prefixes", []]"#,
            ),
            ("CLIENT TRACKING off BCAST", "OK"),
            ("CLIENT TRACKING on BCAST PREFIX b PREFIX a", "OK"),
            ("CLIENT TRACKING on BCAST PREFIX c", "OK"),
            (
                "CLIENT TRACKINGINFO",
                r#"["flags", ["on", "bcast"], "redirect", 0, "prefixes", ["a", "b", "c"]]"#,
            ),
            ("CLIENT GETREDIR", "0"),
        ],
    );
    assert!(local.run("INFO stats").contains("tracking_total_prefixes:3"));
    assert!(local.run("INFO clients").contains("tracking_clients:1"));
    assert!(local.run("CLIENT INFO").contains("tB db=0 "));
    assert_eq!(local.run("RESET"), "RESET");
    assert!(local.run("INFO stats").contains("tracking_total_prefixes:0"));
    assert!(local.run("INFO clients").contains("tracking_clients:0"));
}

#[test]
fn ways_to_follow_keys_that_do_not_go_together_are_errors() {
    let mut local = Local::default();
    let switch =
        "before disabling tracking for this client, and then re-enabling it with a different mode.";
    let overlap = "Prefixes for a single client must not overlap.";
    for (command, error) in [
        ("CLIENT CACHING yes", "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled".to_owned()),
        ("CLIENT TRACKING maybe", "syntax error".to_owned()),
        ("CLIENT TRACKING on PREFIX", "syntax error".to_owned()),
        ("CLIENT TRACKING on REDIRECT 7", "The client ID you want redirect to does not exist".to_owned()),
        ("CLIENT TRACKING on PREFIX a", "PREFIX option requires BCAST mode to be enabled".to_owned()),
        ("CLIENT TRACKING on OPTIN OPTOUT", "You can't specify both OPTIN mode and OPTOUT mode".to_owned()),
        ("CLIENT TRACKING on BCAST OPTIN", "OPTIN and OPTOUT are not compatible with BCAST".to_owned()),
        ("CLIENT TRACKING on BCAST PREFIX ab PREFIX a", format!("Prefix 'ab' overlaps with another provided prefix 'a'. {overlap}")),
        ("CLIENT TRACKING on OPTIN", String::new()),
        ("CLIENT TRACKING on BCAST", format!("You can't switch BCAST mode on/off {switch}")),
        ("CLIENT TRACKING on OPTOUT", format!("You can't switch OPTIN/OPTOUT mode {switch}")),
        ("CLIENT CACHING no", "CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.".to_owned()),
        ("CLIENT CACHING maybe", "syntax error".to_owned()),
        ("CLIENT TRACKING off", String::new()),
        ("CLIENT TRACKING on BCAST PREFIX ab", String::new()),
        ("CLIENT TRACKING on BCAST PREFIX a", format!("Prefix 'a' overlaps with an existing prefix 'ab'. {overlap}")),
    ] {
        let reply = if error.is_empty() { "OK".to_owned() } else { format!("(error) ERR {error}") };
        assert_eq!(local.run(command), reply, "{command}");
    }
}
