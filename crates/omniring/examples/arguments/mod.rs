//! Command lines whose mistakes are one line.

use std::process::exit;

use clap::Parser;

/// The arguments; a mistake in them ends the program with exit code 2.
pub fn parse<T: Parser>() -> T {
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
