//! The suite where something is taken away: io_uring, by a seccomp filter, or the superuser's
//! privileges and locked memory. This binary runs itself so.
//!
//! A part of the suite runs so with the rest; all of it, which takes a few times as long, with
//! `cargo test --test conformance restricted:: -- --ignored --test-threads=1`.

use std::io::Read;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use omniring::ENGINE_VARIABLE;

use crate::denial::{Denial, denied};
use crate::harness::{DISK_VARIABLE, ISOLATED_VARIABLE, SKIPPED, in_own_process, skip};

/// The cases of a part of the suite: one of everything, files, sockets, cancels.
const PART: &[&str] = &["basics::", "files::", "udp::", "cancel::dropping"];
/// The cases of all of it.
const ALL: &[&str] = &["::"];
/// The cases of all of it on the rings, and on each kind of engine that does without: the other ones that wait
/// for readiness differ from `epoll` by nothing that a ring has to do with.
const ALL_KINDS: &[&str] = &["::uring", "::aio::", "::epoll::", "::threads::"];
/// A run that takes longer hangs.
const TIME_MAX: Duration = Duration::from_secs(600);

/// `nobody`, who owns nothing.
const NOBODY: u32 = 65534;
/// Reasons of skips that hold for nobody: what only the superuser may make.
const FOR_ROOT: &[&str] = &["no loop device", "no socket filter"];
/// What a user may lock by default, in bytes.
const LOCKED_MEMORY: u64 = 8 << 20;

#[test]
fn a_part_of_the_suite_runs_without_io_uring() {
    for denial in Denial::ALL {
        run_denied(denial, PART);
    }
}

#[test]
#[ignore = "takes half as long as the suite; .ci/run runs it"]
fn the_suite_runs_where_io_uring_is_denied_with_eperm() {
    run_denied(Denial::Eperm, ALL_KINDS);
}

#[test]
#[ignore = "takes as long as the suite"]
fn the_suite_runs_where_io_uring_is_denied_with_enosys() {
    run_denied(Denial::Enosys, ALL);
}

#[test]
#[ignore = "takes as long as the suite"]
fn the_suite_runs_where_only_io_uring_enter_is_denied() {
    run_denied(Denial::EnterOnly, ALL);
}

#[test]
fn a_part_of_the_suite_runs_as_nobody_with_little_locked_memory() {
    let name =
        concat!(module_path!(), "::a_part_of_the_suite_runs_as_nobody_with_little_locked_memory");
    run_as_nobody(name, PART);
}

#[test]
#[ignore = "takes half as long as the suite; .ci/run runs it"]
fn the_suite_runs_as_nobody_with_little_locked_memory() {
    let name = concat!(module_path!(), "::the_suite_runs_as_nobody_with_little_locked_memory");
    // What locks memory or is limited otherwise.
    run_as_nobody(name, &["::uring::", "::aio::"]);
}

/// On the rings nothing starts and everything says so; every other engine passes; and `auto`
/// passes what the rings cannot run.
fn run_denied(denial: Denial, filters: &'static [&'static str]) {
    let names = names(filters);
    let on_ring = names.iter().filter(|name| name.contains("::uring")).count();
    assert!(on_ring > 0 && on_ring < names.len(), "{names:?}");

    let run = denied(denial, move || within(suite(filters).env_remove("OMNIRING_REQUIRE")));
    run.assert_passed(names.len());
    let skips: Vec<&str> = run.errors.lines().filter(|line| line.starts_with(SKIPPED)).collect();
    let (expected, others): (Vec<&str>, Vec<&str>) =
        skips.iter().partition(|line| line.contains(denial.reason()));
    assert_eq!(expected.len(), on_ring, "{denial:?}: {skips:?}");
    if std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all") {
        assert!(others.is_empty(), "{denial:?}: {others:?}");
    }

    let strict = ["basics::uring::a_file_is_written_and_read"];
    let run = denied(denial, move || within(suite(&strict).env("OMNIRING_REQUIRE", "all")));
    assert_eq!(run.status.code(), Some(101), "{denial:?}: {}", run.errors);
    assert!(run.errors.contains("engine 'uring' does not start: "), "{denial:?}: {}", run.errors);
    assert!(run.errors.contains(denial.reason()), "{denial:?}: {}", run.errors);

    // What names `uring` gets what `auto` finds: the next rung.
    let on_uring: Vec<String> =
        names.into_iter().filter(|name| name.contains("::uring::")).collect();
    let count = on_uring.len();
    let run = denied(denial, move || {
        let on_uring: Vec<&str> = on_uring.iter().map(String::as_str).collect();
        within(suite(&on_uring).arg("--exact").env(ENGINE_VARIABLE, "auto"))
    });
    run.assert_passed(count);
}

/// In a directory of nobody's, with a copy of this binary.
fn run_as_nobody(name: &str, filters: &[&str]) {
    if !nix::unistd::geteuid().is_root() {
        return skip("only the superuser becomes somebody else");
    }
    in_own_process(name, || {
        let dir = tempfile::tempdir().unwrap();
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let binary = dir.path().join("conformance");
        copy(&std::env::current_exe().unwrap(), &binary);
        // A case reads it, relative to the current directory.
        copy(Path::new("Cargo.toml"), &dir.path().join("Cargo.toml"));
        setrlimit(Resource::RLIMIT_MEMLOCK, LOCKED_MEMORY, LOCKED_MEMORY).unwrap();
        let mut command = Command::new(&binary);
        suite_arguments(&mut command, filters);
        command.uid(NOBODY).gid(NOBODY).current_dir(dir.path()).env(DISK_VARIABLE, dir.path());
        let run = within(command.env_remove("OMNIRING_REQUIRE"));
        run.assert_passed(names(filters).len());
        let skips = run.errors.lines().filter(|line| line.starts_with(SKIPPED));
        let unexpected: Vec<&str> =
            skips.filter(|line| !FOR_ROOT.iter().any(|reason| line.contains(reason))).collect();
        if std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all") {
            assert!(unexpected.is_empty(), "{unexpected:?}");
        }
    });
}

/// A copy that is nobody's.
fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    chown(to, Some(NOBODY), Some(NOBODY)).unwrap();
}

/// This binary, to run the cases with these names, or with these in them.
fn suite(filters: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    suite_arguments(&mut command, filters);
    command
}

fn suite_arguments(command: &mut Command, filters: &[&str]) {
    command.args(filters).args(["--nocapture", "--skip", "restricted::"]);
    command.env_remove(ENGINE_VARIABLE).env_remove(ISOLATED_VARIABLE);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// The names of those cases.
fn names(filters: &[&str]) -> Vec<String> {
    let output = suite(filters).arg("--list").output().expect("the test binary starts");
    let text = String::from_utf8(output.stdout).expect("names are text");
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// What a run said, and how it ended.
struct Run {
    status: ExitStatus,
    output: String,
    errors: String,
}

impl Run {
    fn assert_passed(&self, count: usize) {
        let said = || {
            let failed = self.output.lines().filter(|line| line.ends_with("FAILED"));
            format!("{}\n{}", failed.collect::<Vec<_>>().join("\n"), self.errors)
        };
        assert!(self.status.success(), "{}: {}", self.status, said());
        let passed = format!("test result: ok. {count} passed; 0 failed; 0 ignored");
        assert!(self.output.contains(&passed), "not '{passed}': {}", said());
    }
}

/// Runs this, in bounded time.
fn within(command: &mut Command) -> Run {
    let mut child = command.spawn().expect("the test binary starts");
    let (mut output, mut errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (done, finished) = mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        let rest = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            errors.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut bytes = Vec::new();
        let read = output.read_to_end(&mut bytes);
        let errors = rest.join().expect("reading does not panic");
        drop(done);
        (read.map(|_| bytes), errors)
    });
    let in_time = finished.recv_timeout(TIME_MAX) == Err(mpsc::RecvTimeoutError::Disconnected);
    if !in_time {
        child.kill().expect("our own child");
    }
    let status = child.wait().expect("our own child");
    let (output, errors) = reader.join().expect("reading does not panic");
    let text = |bytes: std::io::Result<Vec<u8>>| {
        String::from_utf8_lossy(&bytes.expect("pipes are read")).into_owned()
    };
    let run = Run { status, output: text(output), errors: text(errors) };
    assert!(in_time, "still running after {TIME_MAX:?}: {}", run.output);
    run
}
