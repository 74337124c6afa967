//! Child processes.
//!
//! ```
//! # omniring::Runtime::new()?.block_on(async {
//! use omniring::process::{Command, Stdio};
//! let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//! let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
//! stdin.send_all("hello").await.0?;
//! drop(stdin);
//! let (result, buf) = stdout.recv_into(Vec::with_capacity(100)).await;
//! assert_eq!((result?, &buf[..]), (5, &b"hello"[..]));
//! assert!(child.wait().await?.success());
//! # Ok::<(), std::io::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The end of a child
//! A child that has ended stays in the kernel's table, as a zombie, until its parent asks how it
//! ended. [`Child::wait`] does, on a descriptor of the process (`pidfd_open(2)`, 5.3); where there is
//! none, it listens to `SIGCHLD`, by [`signal`](crate::signal), with what that says about the
//! signal's disposition.
//!
//! A [`Child`] that is dropped is asked by a task of its runtime, which counts among
//! [`Stats::task_count`](crate::Stats) as long as the child runs. If the runtime ends before the
//! child, the child goes to a list of the process's, which is gone through whenever any runtime of the
//! process starts a child or drops one. So the zombies of a process that starts children are
//! bounded by those that were running when it last did; all of them go when it ends.

mod child;

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;

use omniring_driver::Explained;

pub use child::Child;
pub use std::process::{ExitStatus, Output, Stdio};

/// A program to be started, with its arguments and surroundings.
///
/// It wraps [`std::process::Command`], and whatever that can do can be done through
/// [`as_std_mut`](Command::as_std_mut).
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// let output = omniring::process::Command::new("echo").arg("hello").output().await?;
/// assert!(output.status.success());
/// assert_eq!(output.stdout, b"hello\n");
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Command {
    std: std::process::Command,
    /// Whether the user said what standard input, output and error are to be.
    is_set: [bool; 3],
    kill_on_drop: bool,
}

impl Command {
    /// A program by its path, or by its name, which is then looked for in the directories of `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command::from(std::process::Command::new(program))
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Command {
        self.std.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> &mut Command {
        self.std.args(arguments);
        self
    }

    /// Sets a variable of the child's environment, which else is that of this process.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.std.env(name, value);
        self
    }

    /// Removes a variable from the child's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Command {
        self.std.env_remove(name);
        self
    }

    /// Empties the child's environment.
    pub fn env_clear(&mut self) -> &mut Command {
        self.std.env_clear();
        self
    }

    /// The child's working directory (default: this process's).
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Command {
        self.std.current_dir(dir);
        self
    }

    /// The child's standard input: inherited (the default), null, a pipe to [`Child::stdin`], or a
    /// descriptor, such as [`pipe::Receiver::into_std`](crate::pipe::Receiver::into_std).
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Command {
        self.is_set[0] = true;
        self.std.stdin(stdin);
        self
    }

    /// The child's standard output: inherited (the default, but for [`output`](Command::output)),
    /// null, a pipe to [`Child::stdout`], or a descriptor.
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Command {
        self.is_set[1] = true;
        self.std.stdout(stdout);
        self
    }

    /// The child's standard error: as [`stdout`](Command::stdout).
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Command {
        self.is_set[2] = true;
        self.std.stderr(stderr);
        self
    }

    /// The user that the child runs as.
    pub fn uid(&mut self, id: u32) -> &mut Command {
        self.std.uid(id);
        self
    }

    /// The group that the child runs as.
    pub fn gid(&mut self, id: u32) -> &mut Command {
        self.std.gid(id);
        self
    }

    /// The child's process group; 0 is a new one, so that the terminal's signals do not reach it.
    pub fn process_group(&mut self, id: i32) -> &mut Command {
        self.std.process_group(id);
        self
    }

    /// Whether dropping the [`Child`] kills it (default: it runs on). That includes the futures of
    /// [`status`](Command::status) and [`output`](Command::output).
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Command {
        self.kill_on_drop = kill;
        self
    }

    /// The standard library's command.
    pub fn as_std(&self) -> &std::process::Command {
        &self.std
    }

    /// The standard library's command, for what this one has no method for.
    pub fn as_std_mut(&mut self) -> &mut std::process::Command {
        &mut self.std
    }

    /// Starts the program. This blocks until the kernel runs it, a millisecond as a rule: the thread
    /// that starts a child is its parent in some respects (`prctl(2)`, `PR_SET_PDEATHSIG`), so
    /// that no other may do it.
    ///
    /// The error names the program, and says what is not there: the program, its interpreter, or
    /// the working directory.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn spawn(&mut self) -> io::Result<Child> {
        child::spawn(&mut self.std, self.kill_on_drop).map_err(|error| self.explain(error))
    }

    /// Starts the program and waits for its end: how it ended.
    ///
    /// If the future is dropped, the program runs on, unless told otherwise by
    /// [`kill_on_drop`](Command::kill_on_drop).
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn status(&mut self) -> io::Result<ExitStatus> {
        let mut child = self.spawn()?;
        child.wait().await
    }

    /// Starts the program and waits for its end: how it ended, and what it wrote to standard output
    /// and standard error. Standard input is null, unless set.
    ///
    /// It also waits for whoever has inherited these from the program. If the future is dropped,
    /// the program runs on, unless told otherwise by [`kill_on_drop`](Command::kill_on_drop).
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn output(&mut self) -> io::Result<Output> {
        let [stdin, stdout, stderr] = self.is_set;
        if !stdin {
            self.std.stdin(Stdio::null());
        }
        if !stdout {
            self.std.stdout(Stdio::piped());
        }
        if !stderr {
            self.std.stderr(Stdio::piped());
        }
        let spawned = self.spawn();
        // For the next time.
        if !stdin {
            self.std.stdin(Stdio::inherit());
        }
        if !stdout {
            self.std.stdout(Stdio::inherit());
        }
        if !stderr {
            self.std.stderr(Stdio::inherit());
        }
        spawned?.wait_with_output().await
    }

    #[cold]
    fn explain(&self, error: io::Error) -> io::Error {
        let program = self.std.get_program();
        let Some(errno) = error.raw_os_error() else {
            let what = format!("cannot start {program:?}: {error}");
            return io::Error::new(error.kind(), what);
        };
        let is_path = program.as_encoded_bytes().contains(&b'/');
        let missing_dir = self.std.get_current_dir().filter(|dir| !dir.is_dir());
        let why = match (errno, missing_dir) {
            (libc::ENOENT | libc::ENOTDIR, Some(dir)) => {
                format!(": the working directory {dir:?} is not there")
            }
            (libc::ENOENT, _) if !is_path => ": no directory of PATH has it".to_owned(),
            (libc::ENOENT, _) if Path::new(program).exists() => {
                ": the interpreter that it names is not there".to_owned()
            }
            (libc::ENOENT, _) => ": it is not there".to_owned(),
            (libc::EACCES, _) if !is_path => {
                ": a directory of PATH may not be searched, or what it has may not be executed"
                    .to_owned()
            }
            (libc::EACCES, _) => ": it may not be executed".to_owned(),
            (libc::ENOEXEC, _) => ": it is no program that this machine knows".to_owned(),
            _ => String::new(),
        };
        Explained::new(errno, format!("cannot start {program:?}{why}")).into()
    }
}

/// What its standard input, output and error are counts as not set.
impl From<std::process::Command> for Command {
    fn from(std: std::process::Command) -> Command {
        Command { std, is_set: [false; 3], kill_on_drop: false }
    }
}
