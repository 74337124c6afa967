//! `program.py` on redis-py.

use std::process::Command;

/// A Python that has redis-py: the one found first, or Debian's.
fn python() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let output = Command::new(python).args(["-c", "import redis"]).output();
        output.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn a_program_on_redis_py_runs() {
    let Some(python) = python() else {
        return crate::skip("no Python with redis-py: Debian has it in python3-redis");
    };
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kv_clients/program.py");
    crate::on_servers(|server| {
        let output = Command::new(python).args([program, &server.port.to_string()]).output();
        let output = output.expect("Python runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(output.stdout.ends_with(b"is content\n"), "{said}");
    });
}
