//! Clients that nobody here wrote run real programs against `omniring kv`: redis-cli, redis-benchmark, redis-py and
//! the crate `redis`; on uring with two cores and on epoll with one.

mod kv_clients {
    mod benchmark;
    mod crate_redis;
    mod python;
    mod redis_cli;
}
mod kv_support;

use std::path::Path;

use kv_support::Server;

/// Runs a program against a server on either engine. It syncs what it writes, to memory where that can be: it is not
/// the disk's speed that is tested.
fn on_servers(program: impl Fn(&Server)) {
    for (engine, cores) in [("uring", "2"), ("epoll", "1")] {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a scratch directory");
        program(&Server::start(dir.path(), &["--engine", engine, "--cores", cores]));
    }
}

/// Whether a program is there; where it is not, the test is skipped with this reason.
fn has(program: &str, package: &str) -> bool {
    let found = std::process::Command::new(program).arg("--version").output().is_ok();
    if !found {
        skip(&format!("no {program}: Debian has it in {package}"));
    }
    found
}

fn skip(reason: &str) {
    let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {reason}");
    eprintln!("skipped: {reason}");
}
