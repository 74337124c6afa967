//! `omniring bench --quick` where io_uring is denied: every other engine is measured, and the rows
//! of io_uring say why they are not.

#[path = "../../omniring/tests/denial/mod.rs"]
mod denial;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use denial::{Denial, denied};
use omniring::Engine;
use serde_json::Value;

/// Runs it under a denial.
fn run(denial: Denial, directory: &Path, arguments: &'static [&'static str]) -> Output {
    let directory = directory.to_owned();
    denied(denial, move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omniring"));
        command.current_dir(directory).stdin(Stdio::null()).env_remove("OMNIRING_ENGINE");
        command.args(["bench", "--quick", "--size", "8M", "--format", "json"]).args(arguments);
        command.output().expect("the binary runs")
    })
}

/// The rows of a run under a denial, which leaves the report only.
fn bench(denial: Denial, arguments: &'static [&'static str]) -> Vec<Value> {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let output = run(denial, scratch.path(), arguments);
    assert!(output.status.success(), "{denial:?}: {}", String::from_utf8_lossy(&output.stderr));
    let left = std::fs::read_dir(scratch.path()).expect("the scratch directory is there");
    let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left, ["omniring-report.html"], "{denial:?}");
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

/// Returns how many rows were measured.
fn assert_told(denial: Denial, rows: &[Value]) -> usize {
    let mut measured_count = 0;
    for row in rows {
        let engine = row["engine"].as_str().unwrap();
        let is_engine = Engine::ALL.iter().any(|known| known.name() == engine);
        if engine.starts_with("uring") {
            let reason = row["skipped"].as_str().unwrap_or_default();
            assert!(reason.contains(denial.reason()), "{denial:?}: {row}");
            assert!(reason.contains("; remedy: "), "{denial:?}: {row}");
        } else if row["workload"] == "core-round-trip" && engine == "floor" {
            // Which is no ring: two threads and an eventfd each.
            assert!(row["ops_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{denial:?}: {row}");
        } else if engine.starts_with("floor") {
            assert!(row["error"].is_string() || row["skipped"].is_string(), "{denial:?}: {row}");
        } else if is_engine {
            // Some file systems refuse O_DIRECT.
            let is_measured = row["ops_per_s"].as_f64().is_some_and(|rate| rate > 0.0);
            assert!(is_measured || row["skipped"].is_string(), "{denial:?}: {row}");
            measured_count += usize::from(is_measured);
        }
    }
    measured_count
}

#[test]
fn a_few_rows_of_the_quick_bench_run_without_io_uring() {
    for denial in Denial::ALL {
        let rows = bench(denial, &["--workload", "read-hot-4k-d32,echo-64", "--seconds", "0.1"]);
        let measured_count = assert_told(denial, &rows);
        // epoll, threads and blocking, at least.
        assert!(measured_count >= 6, "{denial:?}: {rows:?}");
    }
}

#[test]
fn naming_an_engine_that_is_denied_is_a_mistake() {
    for denial in Denial::ALL {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let output = run(denial, scratch.path(), &["--engine", "uring", "--workload", "echo-64"]);
        assert_eq!(output.status.code(), Some(2), "{denial:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(denial.reason()), "{denial:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{denial:?}: {said}");
    }
}

#[test]
#[ignore = "takes up to a minute; .ci/run runs it"]
fn the_quick_bench_runs_without_io_uring() {
    let rows = bench(Denial::Eperm, &["--seconds", "0.05"]);
    let measured_count = assert_told(Denial::Eperm, &rows);
    assert!(measured_count >= 10, "{rows:?}");
}
