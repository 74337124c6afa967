//! A server of its own for each test, ended by its pid.
#![allow(clippy::disallowed_methods)] // A process is waited for in real time.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Client, PATIENCE};

pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts a server on this directory, with further options, and waits until it answers.
    pub fn start(dir: &Path, options: &[&str]) -> Server {
        Server::start_in(dir, options, &[])
    }

    /// The same in an environment that has these variables besides.
    pub fn start_in(dir: &Path, options: &[&str], variables: &[(&str, &str)]) -> Server {
        let dir_word = dir.to_str().expect("a plain path");
        let until = Instant::now() + PATIENCE;
        loop {
            // Somebody else may take the port before the server has it: then there is another.
            let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
            let port = free.expect("a free port").port();
            let says = dir.join("stderr");
            let stderr = std::fs::File::create(&says).expect("the directory is there");
            let mut child = Command::new(binary())
                .args(["kv", "--bind", "127.0.0.1", "--port", &port.to_string(), "--dir", dir_word])
                .args(options)
                .env_remove("OMNIRING_ENGINE")
                .envs(variables.iter().copied())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(stderr)
                .spawn()
                .expect("the binary runs");
            // What it says itself: whoever listens on the port may be another's server.
            let said = || std::fs::read_to_string(&says).unwrap_or_default();
            let ended = loop {
                if said().contains("Ready to accept connections") {
                    return Server { child, port };
                }
                if let Some(status) = child.try_wait().expect("its status can be had") {
                    break status;
                }
                assert!(Instant::now() < until, "the server does not start: {}", said());
                std::thread::sleep(Duration::from_millis(1));
            };
            let said = said();
            assert!(said.contains("cannot listen"), "the server ended, {ended}: {said}");
        }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that the server has at hand.
    pub fn resident(&self) -> usize {
        let path = format!("/proc/{}/statm", self.pid());
        let text = std::fs::read_to_string(path).expect("the server runs");
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        pages.expect("a number of pages") * 4096
    }

    /// Ends the server as kill -9 does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command: the one that was built with the test, or OMNIRING_BINARY.
fn binary() -> PathBuf {
    let given = std::env::var_os("OMNIRING_BINARY");
    given.map_or_else(|| env!("CARGO_BIN_EXE_omniring").into(), PathBuf::from)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
