//! Runs a program to which io_uring is denied, as a container's seccomp profile does.
//!
//!     cargo run --example deny -- eperm target/debug/omniring doctor

#[path = "../tests/denial/mod.rs"]
mod denial;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::{Parser, ValueEnum};

use denial::Denial;

/// Run a program to which io_uring is denied.
#[derive(Parser)]
struct Arguments {
    /// What is denied, and how
    how: How,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    /// All of io_uring, with EPERM
    Eperm,
    /// All of io_uring, with ENOSYS
    Enosys,
    /// Only io_uring_enter, with EPERM
    EnterOnly,
    /// All of io_uring and epoll_create1, with EPERM
    Epoll,
    /// All of io_uring, by killing the process
    Kill,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let denial = match arguments.how {
        How::Eperm => Denial::Eperm,
        How::Enosys => Denial::Enosys,
        How::EnterOnly => Denial::EnterOnly,
        How::Epoll => Denial::Epoll,
        How::Kill => Denial::Kill,
    };
    denial.apply();
    let (name, rest) = arguments.program.split_first().expect("clap requires one");
    let error = Command::new(name).args(rest).exec();
    eprintln!("deny: cannot run {}: {error}", name.to_string_lossy());
    ExitCode::from(2)
}
