//! An example as a program that runs.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use omniring::Runtime;
use rustix::process::{Pid, Signal, kill_process};

/// An example that runs until this is dropped.
pub struct Program {
    child: Child,
    /// Where it says that it listens.
    pub at: String,
}

/// Where cargo has put the examples: beside the directory of the tests.
fn path(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join("examples").join(name)
}

/// The program, to be started.
pub fn command(name: &str, arguments: &[&str], runtime: &Runtime) -> Command {
    let mut command = Command::new(path(name));
    command.args(arguments).args(["--engine", &runtime.engine().to_string()]);
    command.env_remove(omniring::ENGINE_VARIABLE).stdin(Stdio::null());
    command
}

impl Program {
    /// Starts a server, on a free port.
    pub fn start(name: &str, arguments: &[&str], runtime: &Runtime) -> Program {
        let mut command = command(name, arguments, runtime);
        command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{name}: {error}; `cargo build -p omniring --examples` makes it")
        });
        let mut program = Program { child, at: String::new() };
        let mut line = String::new();
        let out = program.child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let at = line.trim().strip_prefix("listening on ").expect("it says where");
        let (addr, engine) = at.split_once(' ').expect("it says on which engine");
        assert_eq!(engine, format!("({})", runtime.engine()));
        program.at = addr.to_owned();
        program
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that has to fail with this exit code and one line, which it returns.
pub fn fails(code: i32, name: &str, arguments: &[&str], runtime: &Runtime) -> String {
    let mut child = command(name, arguments, runtime).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}
