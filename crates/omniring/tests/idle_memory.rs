//! What an idle TCP connection costs: at most 2 KiB of the process's memory beyond the buffer
//! that the user receives into, and at most 700 bytes where the buffer is leased when data comes.
//!
//! The server's ends of the connections are in one process and the other ends in another, both
//! this test binary again: so a process needs one descriptor for a connection, and what is
//! measured is one engine's alone.

use std::cell::Cell;
use std::io::Read;
use std::net::TcpStream as StdStream;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use omniring::net::TcpListener;
use omniring::time::{sleep, timeout};
use omniring::{Engine, Runtime, spawn, yield_now};

const CONNECTIONS_WANTED: usize = 10_000;
/// Fewer would measure noise.
const CONNECTIONS_MIN: usize = 500;
const BUF_LEN: usize = 16;
const BYTES_MAX: usize = 2048;
const BYTES_LEASED_MAX: usize = 700;
const SOON: Duration = Duration::from_secs(60);
/// Tells this binary, run again, what it is to be: `server ENGINE BUFFERS` or `client ADDR COUNT`.
const ROLE_VARIABLE: &str = "OMNIRING_TEST_IDLE_ROLE";

#[test]
fn an_idle_connection_costs_at_most_2_kib_on_uring() {
    measure_in_a_process("an_idle_connection_costs_at_most_2_kib_on_uring", "uring", "owned");
}

#[test]
fn an_idle_connection_costs_at_most_2_kib_on_epoll() {
    measure_in_a_process("an_idle_connection_costs_at_most_2_kib_on_epoll", "epoll", "owned");
}

#[test]
fn an_idle_connection_with_leases_costs_at_most_700_bytes_on_uring() {
    let name = "an_idle_connection_with_leases_costs_at_most_700_bytes_on_uring";
    measure_in_a_process(name, "uring", "leased");
}

#[test]
fn an_idle_connection_with_leases_costs_at_most_700_bytes_on_epoll() {
    let name = "an_idle_connection_with_leases_costs_at_most_700_bytes_on_epoll";
    measure_in_a_process(name, "epoll", "leased");
}

/// This test binary again, in a role.
fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE_VARIABLE, role);
    command
}

fn measure_in_a_process(test: &str, engine: &str, buffers: &str) {
    let Ok(role) = std::env::var(ROLE_VARIABLE) else {
        let output = again(test, &format!("server {engine} {buffers}"))
            .stdin(Stdio::null())
            .output()
            .expect("the test binary starts");
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        for line in text.lines().filter(|line| line.contains("for an idle connection")) {
            eprintln!("{line}");
        }
        assert!(output.status.success(), "in a process of its own:\n{text}");
        return;
    };
    match *role.split(' ').collect::<Vec<_>>() {
        ["server", engine, buffers] => {
            serve(test, engine.parse().expect("an engine's name"), buffers == "leased");
        }
        ["client", addr, count] => connect(addr, count.parse().expect("a count")),
        _ => panic!("no such role: {role}"),
    }
}

/// The most connections this process can have open, up to those wanted.
fn connections_max() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    CONNECTIONS_WANTED.min((limit as usize).saturating_sub(100))
}

/// The other end: connects, and holds the connections until its input ends.
fn connect(addr: &str, count: usize) {
    connections_max();
    let streams: Vec<_> =
        (0..count).map(|_| StdStream::connect(addr).expect("the server accepts")).collect();
    let _ = std::io::stdin().read(&mut [0]);
    drop(streams);
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs is mounted");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it is there");
    let kib = line.split_whitespace().nth(1).expect("it has a number");
    kib.parse::<usize>().expect("of KiB") * 1024
}

fn serve(test: &str, engine: Engine, leased: bool) {
    let count = connections_max();
    if count < CONNECTIONS_MIN {
        let reason = format!("only {count} open files are allowed");
        assert!(std::env::var_os("OMNIRING_REQUIRE").is_none(), "{reason}");
        return eprintln!("skipped: {reason}");
    }
    let runtime = match Runtime::builder().engine(engine).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            assert!(std::env::var_os("OMNIRING_REQUIRE").is_none(), "{error}");
            return eprintln!("skipped: {error}");
        }
    };
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let addr = listener.local_addr().expect("it has an address");
        // One connection has been through everything before the count begins.
        let warm_up = StdStream::connect(addr).expect("it listens");
        let (stream, _) = listener.accept().await.expect("it is there");
        let waiting = Rc::new(Cell::new(0));
        drop(warm_up);
        if leased {
            let _ = stream.recv().await;
        }
        let _ = stream.recv_into(vec![0; BUF_LEN]).await;
        let before = resident_bytes();
        let mut client = again(test, &format!("client {addr} {count}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the test binary starts");
        for _ in 0..count {
            let accepted = timeout(SOON, listener.accept()).await.expect("they connect");
            let (stream, _) = accepted.expect("it is a connection");
            let waiting = waiting.clone();
            if leased {
                drop(spawn(async move {
                    waiting.set(waiting.get() + 1);
                    let lease = stream.recv().await.expect("an orderly end");
                    assert!(lease.is_empty());
                }));
            } else {
                drop(spawn(async move {
                    waiting.set(waiting.get() + 1);
                    let (result, _) = stream.recv_into(vec![0u8; BUF_LEN]).await;
                    assert_eq!(result.expect("an orderly end"), 0);
                }));
            }
        }
        let all_wait = async {
            while waiting.get() < count {
                yield_now().await;
            }
        };
        timeout(SOON, all_wait).await.expect("each connection waits");
        sleep(Duration::from_millis(1)).await; // what is staged is submitted
        assert!(runtime.stats().in_flight_count >= count, "{:?}", runtime.stats());
        let each = resident_bytes().saturating_sub(before) / count;
        let buffers = if leased { "leased" } else { "owned" };
        eprintln!("{engine}, {buffers}: {each} bytes for an idle connection, of {count}");
        let (least, most) =
            if leased { (1, BYTES_LEASED_MAX) } else { (BUF_LEN, BYTES_MAX + BUF_LEN) };
        assert!(each <= most, "{each} bytes for a connection, of {count}");
        assert!(each >= least, "{each} bytes: this does not measure what it should");
        drop(client.stdin.take());
        let all_end = async {
            while runtime.stats().task_count > 0 {
                yield_now().await;
            }
        };
        timeout(SOON, all_end).await.expect("each connection sees its end");
        assert!(client.wait().expect("it was started").success());
    });
}
