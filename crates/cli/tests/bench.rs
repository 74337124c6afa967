//! `omniring bench` as a user runs it: its mistakes, its output, and what it
//! leaves behind, which is only the report.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a scratch directory")
}

fn omniring(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omniring"));
    command.current_dir(directory).args(arguments).stdin(Stdio::null());
    command.env_remove("OMNIRING_ENGINE");
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    omniring(directory, arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is UTF-8")
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the scratch directory is there");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
        .collect();
    names.sort();
    names
}

/// The mistake is told in one line that contains `expected`, with exit code 2.
fn assert_mistake(directory: &Path, arguments: &[&str], expected: &str) {
    let output = run(directory, arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("omniring: ") && stderr.contains("; "), "{arguments:?}: {stderr}");
    assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

#[test]
fn mistakes_are_one_line_and_exit_code_2() {
    let scratch = scratch();
    let directory = scratch.path();
    let small = directory.join("small");
    fs::write(&small, b"x").unwrap();
    for (arguments, expected) in [
        (
            &["bench", "--engine", "bogus"][..],
            "unknown engine 'bogus'; choose from: floor, floor-plain",
        ),
        (&["bench", "--workload", "bogus"], "unknown workload 'bogus'; choose from: read-direct"),
        (&["bench", "--engine", "fio-bogus"], "unknown engine"),
        (&["bench", "--seconds", "0"], "--seconds 0"),
        (&["bench", "--seconds", "-1"], "--seconds -1"),
        (&["bench", "--seconds", "soon"], "invalid value 'soon'"),
        (&["bench", "--size", "0"], "size '0'"),
        (&["bench", "--size", "1Q"], "size '1Q'"),
        (&["bench", "--size", "99999999T"], "size '99999999T'"),
        (&["bench", "--file", "."], ". is a directory"),
        (&["bench", "--file", "/dev/null"], "/dev/null is not a regular file"),
        (&["bench", "--file", "small"], "small holds 1 bytes"),
        (&["bench", "--file", "no/such/file"], "cannot make no/such/file"),
        (&["bench", "--size", "1000T"], "no room for"),
        (&["bench", "--report", "no/such/report.html"], "cannot write the report"),
        (&["bench", "--report", "."], "cannot write the report"),
        (&["bench", "--format", "xml"], "invalid value 'xml'"),
        (&["bench", "--nope"], "unexpected argument '--nope'"),
        (&["nope"], "unrecognized subcommand 'nope'"),
    ] {
        assert_mistake(directory, arguments, expected);
    }
    assert_eq!(names_in(directory), ["small"]);
}

#[test]
fn a_file_that_may_not_be_read_is_a_mistake() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch();
    let path = scratch.path().join("secret");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        return; // root may read everything
    }
    assert_mistake(scratch.path(), &["bench", "--file", "secret"], "permission denied");
}

#[test]
fn the_list_names_workloads_and_engines() {
    let scratch = scratch();
    let output = run(scratch.path(), &["bench", "--list"]);
    assert!(output.status.success());
    for name in ["read-direct-4k-d32", "echo-256", "floor", "uring", "blocking", "fio libaio"] {
        assert!(text(&output.stdout).contains(name), "{name}");
    }
    assert!(names_in(scratch.path()).is_empty());
}

const TINY: [&str; 9] = [
    "bench",
    "--engine",
    "floor,uring,epoll",
    "--workload",
    "read-hot-4k-d32,echo-64",
    "--seconds",
    "0.2",
    "--size",
    "8M",
];

#[test]
fn json_goes_to_standard_output_alone_and_only_the_report_stays() {
    let scratch = scratch();
    let output = omniring(scratch.path(), &TINY).args(["--format", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.len(), 6);
    for row in &rows {
        if row["skipped"].is_string() {
            continue; // a container may forbid io_uring
        }
        assert!(row["error"].is_null(), "{row}");
        for field in
            ["ops_per_s", "mb_per_s", "cpu_us_per_op", "p50_us", "p99_us", "p999_us", "max_us"]
        {
            assert!(row[field].as_f64().is_some_and(|value| value > 0.0), "{field} of {row}");
        }
        assert!(row["context_switches_per_op"].is_f64(), "{row}");
    }
    assert_eq!(names_in(scratch.path()), ["omniring-report.html"]);
    let page = fs::read_to_string(scratch.path().join("omniring-report.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("id=\"echo-64\""));
}

#[test]
fn the_table_and_csv_have_a_row_for_each_engine() {
    let scratch = scratch();
    let arguments = ["bench", "--engine", "epoll,blocking", "--workload", "read-hot-1k-d32"];
    let more = ["--seconds", "0.1", "--size", "4M", "--report", "page.html"];
    let table = omniring(scratch.path(), &arguments).args(more).output().unwrap();
    assert!(table.status.success(), "{}", text(&table.stderr));
    assert!(text(&table.stdout).contains("\n  epoll ") && text(&table.stdout).contains("ops/s"));
    assert!(text(&table.stderr).contains("page.html"));
    let csv =
        omniring(scratch.path(), &arguments).args(more).args(["--format", "csv"]).output().unwrap();
    let lines: Vec<&str> = text(&csv.stdout).lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("engine,workload,ops_per_s"));
    assert!(lines[1].starts_with("epoll,read-hot-1k-d32,"));
}

#[test]
fn a_file_of_the_users_is_neither_changed_nor_removed() {
    let scratch = scratch();
    let contents: Vec<u8> = (0..4 << 20).map(|index| (index % 251) as u8).collect();
    fs::write(scratch.path().join("mine"), &contents).unwrap();
    let output = run(
        scratch.path(),
        &[
            "bench",
            "--engine",
            "floor,epoll",
            "--workload",
            "read-direct-4k-d32,write-sync-4k-d8",
            "--seconds",
            "0.1",
            "--file",
            "mine",
            "--size",
            "8M",
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("the file has 4 MiB, less than the 8 MiB asked for"));
    assert!(fs::read(scratch.path().join("mine")).unwrap() == contents);
    assert_eq!(names_in(scratch.path()), ["mine", "omniring-report.html"]);
}

#[test]
fn a_signal_ends_the_run_and_cleans_up() {
    let scratch = scratch();
    let arguments = ["bench", "--engine", "floor", "--workload", "read-hot-4k-d32"];
    let mut child = omniring(scratch.path(), &arguments)
        .args(["--seconds", "60", "--size", "8M"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let made = || names_in(scratch.path()).iter().any(|name| name.ends_with(".tmp"));
    for _ in 0..500 {
        if made() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(made(), "the file appears");
    let subjects = || children_of(child.id());
    for _ in 0..500 {
        if !subjects().is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let subjects = subjects();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(names_in(scratch.path()).is_empty());
    for subject in subjects {
        for _ in 0..300 {
            if !runs(subject) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!runs(subject), "the subject {subject} has ended");
    }
}

/// Process ids of the children, as far as /proc tells.
fn children_of(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let listed = fs::read_to_string(path).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Whether it still runs; one that has ended and is not awaited does not.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn a_reader_that_leaves_is_no_fault() {
    let scratch = scratch();
    let mut child = omniring(scratch.path(), &["bench", "--list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success(), "{stderr}");
    assert_eq!(stderr, "");
}

#[test]
fn a_closed_or_full_standard_output_is_told_in_one_line() {
    let scratch = scratch();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = omniring(scratch.path(), &["bench", "--list"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("omniring: cannot write to standard output"));
    assert_eq!(text(&output.stderr).lines().count(), 1);
}
