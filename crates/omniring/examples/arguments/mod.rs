//! Programs whose mistakes are one line.

use std::fmt::Display;
use std::process::{ExitCode, Termination, exit};

use clap::Parser;

/// Runs a program with its arguments. A mistake in them, or an error, is a line and exit code 2.
pub fn main<T: Parser, R: Termination, E: Display>(
    run: impl FnOnce(&T) -> Result<R, E>,
) -> ExitCode {
    match run(&parse::<T>()) {
        Ok(outcome) => outcome.report(),
        Err(error) => {
            eprintln!("{}: {error}", T::command().get_name());
            ExitCode::from(2)
        }
    }
}

fn parse<T: Parser>() -> T {
    T::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            error.exit(); // --help
        }
        let text = error.to_string();
        let what = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        eprintln!("{}: {what}; see --help", T::command().get_name());
        exit(2)
    })
}
