//! `omniring doctor` as a user runs it, also where io_uring is denied.

#[path = "../../omniring/tests/denial/mod.rs"]
mod denial;

use std::process::{Command, Output, Stdio};

use denial::{Denial, denied};
use serde_json::Value;

fn doctor(arguments: &'static [&'static str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omniring"));
    command.arg("doctor").args(arguments).stdin(Stdio::null()).env_remove("OMNIRING_ENGINE");
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is UTF-8")
}

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn finding<'a>(report: &'a Value, group: &str, name: &str) -> &'a Value {
    let findings = report[group].as_array().unwrap_or_else(|| panic!("no {group}: {report}"));
    let finding = findings.iter().find(|finding| finding["name"] == name);
    finding.unwrap_or_else(|| panic!("no {name} in {group}: {report}"))
}

fn assert_said(finding: &Value, key: &str, what: &str) {
    let said = finding[key].as_str().unwrap_or_default();
    assert!(said.contains(what), "not '{what}' in the {key} of {finding}");
}

#[test]
fn json_has_the_keys_that_are_promised() {
    let report = json(&doctor(&["--format", "json"]));
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["engines", "features", "machine", "version"]);
    assert_eq!(report["version"], 1);
    for group in ["engines", "features", "machine"] {
        for finding in report[group].as_array().unwrap() {
            let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["name", "reason", "remedy", "status", "value"], "{finding}");
            let status = finding["status"].as_str().unwrap();
            assert!(["works", "falls back", "missing"].contains(&status), "{finding}");
            assert!(!finding["reason"].as_str().unwrap().is_empty(), "{finding}");
            assert!(finding["remedy"].is_string(), "{finding}");
            assert!(finding["value"].is_string() || finding["value"].is_null(), "{finding}");
        }
    }
    let machine = ["kernel", "container", "seccomp", "io_uring_disabled", "io_uring_group"];
    let limits = ["locked-memory", "open-files", "aio-nr", "huge-pages", "polled-devices"];
    for name in machine.iter().chain(&limits) {
        assert!(finding(&report, "machine", name)["value"].is_string(), "{name}");
    }
    for name in ["direct-io", "device"] {
        finding(&report, "machine", name);
    }
    for engine in omniring::Engine::ALL {
        finding(&report, "engines", engine.name());
    }
    assert_eq!(finding(&report, "engines", "epoll")["status"], "works");
}

#[test]
fn what_is_tried_here_works() {
    let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
    if !required {
        eprintln!("skipped: only where OMNIRING_REQUIRE=all says that this machine has everything");
        return;
    }
    let report = json(&doctor(&["--format", "json"]));
    for group in ["engines", "features"] {
        for finding in report[group].as_array().unwrap() {
            assert_eq!(finding["status"], "works", "{finding}");
        }
    }
}

#[test]
fn the_table_names_everything_and_is_all_there_is() {
    let output = doctor(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty());
    let table = text(&output.stdout);
    for name in ["auto", "uring", "epoll", "multishot-recv", "sqpoll", "locked-memory", "kernel"] {
        assert!(table.lines().any(|line| line.starts_with(&format!("  {name} "))), "{table}");
    }
    assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");
}

#[test]
fn where_io_uring_is_denied_the_reason_and_the_remedy_are_told() {
    for denial in Denial::ALL {
        let report = json(&denied(denial, || doctor(&["--format", "json"])));
        let uring = finding(&report, "engines", "uring");
        assert_eq!(uring["status"], "missing", "{denial:?}: {uring}");
        assert_eq!(uring["reason"], denial.reason(), "{denial:?}");
        let remedy = "docker run --security-opt seccomp=";
        assert_said(uring, "remedy", remedy);
        assert_said(uring, "remedy", "io_uring_setup, io_uring_enter and io_uring_register");

        let auto = finding(&report, "engines", "auto");
        assert_eq!(auto["status"], "falls back", "{denial:?}: {auto}");
        assert_ne!(auto["value"], "uring", "{denial:?}: {auto}");
        assert_said(auto, "remedy", remedy);
        let value = auto["value"].as_str().unwrap();
        for engine in [value, "epoll", "threads", "blocking"] {
            let engine = finding(&report, "engines", engine);
            assert_eq!(engine["status"], "works", "{denial:?}: {engine}");
        }

        for feature in report["features"].as_array().unwrap() {
            assert_ne!(feature["status"], "works", "{denial:?}: {feature}");
            assert_said(feature, "reason", "only with io_uring, which does not work here");
            assert_said(feature, "remedy", "as for the engine uring");
        }
        assert_eq!(finding(&report, "features", "multishot-recv")["status"], "falls back");
        assert_eq!(finding(&report, "features", "sqpoll")["status"], "missing");

        let seccomp = finding(&report, "machine", "seccomp");
        assert_eq!(
            (&seccomp["status"], &seccomp["value"]),
            (&"falls back".into(), &"filter".into())
        );
    }
}

#[test]
fn a_filter_that_kills_is_found_out_and_the_rest_is_told() {
    let report = json(&denied(Denial::Kill, || doctor(&["--format", "json"])));
    let uring = finding(&report, "engines", "uring");
    assert_eq!(uring["status"], "missing", "{uring}");
    assert_eq!(uring["reason"], Denial::Kill.reason());
    assert_said(uring, "remedy", "OMNIRING_ENGINE");
    assert_eq!(finding(&report, "engines", "epoll")["status"], "works");
    assert_eq!(finding(&report, "machine", "kernel")["status"], "works");
    let names = |report: &Value, group: &str| -> Vec<Value> {
        report[group].as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
    };
    let whole = json(&doctor(&["--format", "json"]));
    for group in ["engines", "features", "machine"] {
        assert_eq!(names(&report, group), names(&whole, group));
    }
}

#[test]
fn where_not_even_epoll_works_the_exit_code_is_1() {
    let output = denied(Denial::Epoll, || doctor(&["--format", "json"]));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let epoll = finding(&report, "engines", "epoll");
    assert_eq!(epoll["status"], "missing", "{epoll}");
    assert_said(epoll, "remedy", "seccomp");
    let auto = finding(&report, "engines", "auto");
    assert_eq!((&auto["status"], &auto["value"]), (&"falls back".into(), &"poll".into()));
}

#[test]
fn mistakes_are_one_line_and_exit_code_2() {
    for (arguments, expected) in [
        (&["--format", "xml"][..], "invalid value 'xml'"),
        (&["--nope"], "unexpected argument '--nope'"),
        (&["more"], "unexpected argument 'more'"),
    ] {
        let output = doctor(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("omniring: ") && stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

/// The report of an ordinary user who may lock so many bytes; `None`, said aloud, if this test
/// cannot become one.
fn as_nobody(locked_memory: u64) -> Option<Value> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let binary = scratch.path().join("omniring");
    std::fs::copy(env!("CARGO_BIN_EXE_omniring"), &binary).expect("the binary can be copied");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(scratch.path(), open).expect("our own directory");
    if chown(scratch.path(), Some(65534), Some(65534)).is_err() {
        return skip("only the superuser becomes somebody else");
    }
    let mut command = Command::new("prlimit");
    command.arg(format!("--memlock={locked_memory}"));
    command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(&binary).args(["doctor", "--format", "json"]).current_dir(scratch.path());
    command.stdin(Stdio::null()).env_remove("OMNIRING_ENGINE");
    match command.output() {
        Ok(output) => Some(json(&output)),
        Err(error) => skip(&format!("prlimit of util-linux: {error}")),
    }
}

fn skip<T>(reason: &str) -> Option<T> {
    let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {reason}");
    eprintln!("skipped: {reason}");
    None
}

#[test]
fn an_ordinary_user_is_told_the_same_and_how_little_memory_may_be_locked() {
    let Some(report) = as_nobody(8 << 20) else { return };
    let memory = finding(&report, "machine", "locked-memory");
    assert_eq!((&memory["status"], &memory["value"]), (&"works".into(), &"8192 KiB".into()));
    assert_eq!(finding(&report, "engines", "auto")["value"], "uring");
    for feature in report["features"].as_array().unwrap() {
        assert_eq!(feature["status"], "works", "{feature}");
    }

    // Enough for a small ring.
    let Some(report) = as_nobody(16 << 10) else { return };
    let uring = finding(&report, "engines", "uring");
    assert_eq!(uring["status"], "works", "{uring}");
    assert_said(uring, "reason", "queue entries instead of 256, for want of locked memory");
    let memory = finding(&report, "machine", "locked-memory");
    assert_eq!(memory["status"], "falls back", "{memory}");
    assert_said(memory, "remedy", "ulimit -l");

    // Enough for none.
    let Some(report) = as_nobody(4 << 10) else { return };
    let uring = finding(&report, "engines", "uring");
    assert_eq!(uring["status"], "missing", "{uring}");
    assert_said(uring, "reason", "too little locked memory (ENOMEM): the limit is 4 KiB");
    assert_said(uring, "remedy", "ulimit -l");
    let auto = finding(&report, "engines", "auto");
    assert_eq!(auto["status"], "falls back", "{auto}");
    assert_ne!(auto["value"], "uring");
}
