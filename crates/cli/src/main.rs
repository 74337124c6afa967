//! The `omniring` command.
//!
//! It reads the command line, prints what the libraries found, and turns every
//! error into one line on standard error and exit code 2.
#![forbid(unsafe_code)]

mod bench;
mod doctor;
mod kv;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use omniring_bench::error::Error;

/// Exit code of anything that the user can put right.
const MISTAKE: u8 = 2;

/// Asynchronous I/O for Linux: measure every engine on this machine, and see which ones work.
#[derive(Parser)]
#[command(name = "omniring", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Bench),
    #[command(hide = true)]
    BenchSubject(bench::BenchSubject),
    Doctor(doctor::Doctor),
    Kv(kv::Kv),
    #[command(hide = true)]
    DoctorSubject(doctor::DoctorSubject),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let outcome = match arguments.command {
        Command::Bench(bench) => bench.run().map(|()| ExitCode::SUCCESS),
        Command::BenchSubject(subject) => return subject.run(),
        Command::Doctor(doctor) => doctor.run().map_err(Error::Output),
        Command::DoctorSubject(subject) => return subject.run(),
        Command::Kv(kv) => match kv.run() {
            Ok(code) => return code,
            Err(error) => {
                complain(&error);
                return ExitCode::from(MISTAKE);
            }
        },
    };
    match outcome {
        Ok(code) => code,
        // The reader of our output has seen enough.
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(MISTAKE)
        }
    }
}

/// One line on standard error; if that is closed there is nobody to tell.
fn complain(what: &str) {
    let _ = writeln!(std::io::stderr(), "omniring: {what}");
}

/// Prints the help or version that was asked for, or what is wrong with the
/// command line, in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = write!(std::io::stdout(), "{error}");
        return ExitCode::SUCCESS;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = write!(std::io::stderr(), "{error}");
        return ExitCode::from(MISTAKE);
    }
    complain(&format!("{}; see omniring --help", in_one_line(&error.to_string())));
    ExitCode::from(MISTAKE)
}

/// What clap says before its usage, on one line.
fn in_one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let said = message.split("\n\nUsage:").next().unwrap_or(message);
    let said = said.split("\n\nFor more information").next().unwrap_or(said);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_clap_says_fits_on_one_line() {
        let error = Arguments::try_parse_from(["omniring", "bench", "--nope"]).err().unwrap();
        let line = in_one_line(&error.to_string());
        assert!(line.starts_with("unexpected argument '--nope' found"), "{line}");
        assert!(!line.contains('\n') && !line.contains("Usage"));
    }
}
