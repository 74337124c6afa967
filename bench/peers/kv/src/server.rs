//! A server under test: started on core 0 with files of its own, and ended with its handle.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;

/// A server that can be started.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its name in tables.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
    /// Its arguments before the settings.
    pub args: Vec<String>,
    /// Whether it is one of ours.
    pub is_ours: bool,
    /// Its environment.
    pub env: Vec<(String, String)>,
}

/// A server that runs.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Holds its files.
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts one and waits until it answers. `files` is where it may keep files.
    pub fn start(kind: &Kind, settings: &[&str], files: &std::path::Path) -> Result<Server> {
        let dir = tempfile::tempdir_in(files)?;
        // The port is free now; nobody else is likely to take it at once.
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(&kind.program)
            .args(&kind.args)
            .args(["--port", &addr.port().to_string(), "--save", ""])
            .args(["--loglevel", "warning"])
            .arg("--dir")
            .arg(dir.path())
            .args(settings)
            .envs(kind.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("starting {}", kind.name))?;
        let mut server = Server {
            child,
            addr,
            _dir: dir,
        };
        let begun = Instant::now();
        while server.ask("PING").is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{} has ended: {status}", kind.name);
            }
            if begun.elapsed() > Duration::from_secs(10) {
                bail!("{} does not answer", kind.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Sends an inline command and reads the first bytes of its reply.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut reply = vec![0; 64 * 1024];
        let len = stream.read(&mut reply)?;
        reply.truncate(len);
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }

    /// The number of a field of `INFO`, 0 where there is none.
    pub fn info(&self, section: &str, field: &str) -> Result<u64> {
        let text = self.ask(&format!("INFO {section}"))?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0))
    }

    /// The processor time of all its threads, kernel and user.
    pub fn cpu(&self) -> Result<Duration> {
        let clock = ClockId::pid_cpu_clock_id(self.pid())?;
        Ok(clock.now()?.into())
    }

    /// The resident memory in bytes.
    pub fn rss(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("VmRSS")?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
