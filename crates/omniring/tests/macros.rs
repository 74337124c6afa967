//! `#[omniring::main]` and `#[omniring::test]`: what runs, what it is called, and what is said when
//! it fails. Tests of tests run this binary again.

#![cfg(feature = "macros")]

use std::process::{Command, Output, Stdio};
use std::rc::Rc;

use omniring::{Engine, spawn, yield_now};

/// Runs tests of this binary again: those whose names begin so, ignored ones too.
fn again(names: &str, variables: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().expect("the test binary has a path"))
        .args([names, "--include-ignored", "--nocapture", "--test-threads=1"])
        .env_remove("OMNIRING_REQUIRE")
        .env_remove("OMNIRING_ENGINE")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the test binary starts")
}

fn text(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(stdout).into_owned() + &String::from_utf8_lossy(stderr)
}

/// Not `Send`, and with an error that `?` converts.
#[omniring::test]
async fn a_test_runs_on_each_engine() -> Result<(), Box<dyn std::error::Error>> {
    let shared = Rc::new(std::cell::Cell::new(0));
    let task = spawn({
        let shared = shared.clone();
        async move {
            yield_now().await;
            shared.set(1);
        }
    });
    task.await?;
    assert_eq!(shared.get(), 1);
    let (one, other) = omniring::net::UnixStream::pair()?;
    one.send_all("x").await.0?;
    assert_eq!(&other.recv().await?[..], b"x");
    Ok(())
}

#[test]
fn there_is_a_test_for_each_engine_by_name() {
    let output = Command::new(std::env::current_exe().expect("the test binary has a path"))
        .arg("--list")
        .output()
        .expect("the test binary starts");
    let listed = text(&output);
    let mut named: Vec<_> = listed
        .lines()
        .filter_map(|line| {
            line.strip_prefix("a_test_runs_on_each_engine::")?.strip_suffix(": test")
        })
        .map(|name| name.replace('_', "-"))
        .collect();
    named.sort();
    let mut engines: Vec<_> = Engine::ALL.iter().map(|engine| engine.name().to_owned()).collect();
    engines.sort();
    assert_eq!(named, engines);
}

#[test]
fn an_engine_that_does_not_run_is_skipped_with_the_reason() {
    let chosen = [("OMNIRING_ENGINE", "poll")];
    let output = again("a_test_runs_on_each_engine::", &chosen);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let reason = "skipped: engine 'epoll' is not the one that OMNIRING_ENGINE chose, 'poll'";
    assert!(said.contains(reason), "{said}");
    assert!(!said.contains("skipped: engine 'poll' "), "{said}");

    let unknown = [("OMNIRING_ENGINE", "iocp")];
    let said = text(&again("a_test_runs_on_each_engine::threads", &unknown));
    assert!(said.contains("skipped: OMNIRING_ENGINE: unknown engine 'iocp'"), "{said}");
}

#[test]
fn a_skip_is_a_failure_where_everything_is_required() {
    let required = [("OMNIRING_ENGINE", "poll"), ("OMNIRING_REQUIRE", "all")];
    for test in ["a_test_runs_on_each_engine::epoll", "what_panics_as_expected::epoll"] {
        let output = again(test, &required);
        let said = text(&output);
        assert!(!output.status.success(), "{test}: {said}");
        let reason = "skipped, and OMNIRING_REQUIRE=all: engine 'epoll' is not the one";
        assert!(said.contains(reason), "{test}: {said}");
    }
}

#[omniring::test(engines = ["epoll", "poll"])]
#[should_panic(expected = "as asked")]
async fn what_panics_as_expected() {
    yield_now().await;
    panic!("as asked");
}

#[test]
fn a_skip_is_none_of_the_panics_that_are_expected() {
    let output = again("what_panics_as_expected::", &[("OMNIRING_ENGINE", "poll")]);
    let said = text(&output);
    assert!(output.status.success() && said.contains("2 passed"), "{said}");
    assert!(said.contains("skipped: engine 'epoll'"), "{said}");
}

#[omniring::test(engine = "poll")]
#[ignore = "fails: for the test below"]
async fn what_fails() -> Result<(), String> {
    Err("as asked".to_owned())
}

#[test]
fn an_error_fails_the_test_and_is_printed() {
    let output = again("what_fails::", &[]);
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("Error: \"as asked\""), "{said}");
    assert!(said.contains("what_fails::poll"), "{said}");
}

/// On no engine in particular.
#[omniring::test(engine = "auto")]
async fn auto_is_a_test_of_its_own() {
    yield_now().await;
}

#[omniring::main]
async fn sum() -> Result<u32, std::num::ParseIntError> {
    let task = spawn(async { "20".parse::<u32>() });
    Ok(task.await.expect("it does not panic")? + 22)
}

#[omniring::main(engine = "poll")]
async fn on_poll() -> &'static str {
    yield_now().await;
    "on poll"
}

#[test]
fn main_runs_its_function_and_returns_what_it_returns() {
    assert_eq!(sum(), Ok(42));
    assert_eq!(on_poll(), "on poll");
}

#[test]
#[ignore = "ends the process: for the test below"]
fn main_without_a_runtime() {
    on_poll();
}

#[test]
fn a_program_without_a_runtime_ends_with_one_line() {
    let output = again("main_without_a_runtime", &[("OMNIRING_ENGINE", "iocp")]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("error: OMNIRING_ENGINE: unknown engine 'iocp'; the engines are"),
        "{said}"
    );
}
