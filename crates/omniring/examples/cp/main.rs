//! Copies files and directories: several files, and several parts of a file, at once.
//!
//! `cargo run --release -p omniring --example cp -- FROM TO`. Modes and times are kept, holes stay holes, symbolic
//! links are copied as such. A new file that could not be copied to its end is removed.
//! The exit code is 0, 1 if something was not copied, 2 for a mistake in the command line, 130 after SIGINT.

#[path = "../arguments/mod.rs"]
mod arguments;
mod file;
#[path = "../racing/mod.rs"]
mod racing;
#[path = "../stopping/mod.rs"]
#[allow(dead_code, reason = "servers need more of it")]
mod stopping;
mod tree;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use omniring::{Engine, Runtime};

use file::Parts;
use racing::{Either, race};
use stopping::StopSignals;
use tree::{Copy, Counts};

/// Copies files and directories.
#[derive(Parser)]
#[command(name = "cp")]
struct Arguments {
    /// What to copy, and at the end where to: a new name for one, or a directory for any number
    #[arg(required = true, num_args = 2.., value_names = ["FROM", "TO"])]
    paths: Vec<PathBuf>,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Files that are copied at once
    #[arg(long, default_value = "8")]
    files: NonZero<usize>,
    /// Parts of one file that are copied at once
    #[arg(long, default_value = "4")]
    parts: NonZero<usize>,
    /// Bytes of a part, at most 1 GiB
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(512..=1 << 30))]
    part_len: u32,
    /// Say on stdout what was copied
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    arguments::main(run)
}

/// What shells say of a program that SIGINT has ended.
const INTERRUPTED: u8 = 130;

#[expect(clippy::print_stdout, reason = "it says what it has done")]
fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Some((to, from)) = arguments.paths.split_last() else { unreachable!("clap sees to that") };
    let runtime = Runtime::builder().engine(arguments.engine).build()?;
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}",
    )?);
    let copy = Copy {
        files_max: arguments.files.get(),
        parts: Parts { count_max: arguments.parts.get(), len: arguments.part_len as usize },
        bar: bar.clone(),
    };
    let ended = runtime.block_on(async {
        let is_dir = omniring::fs::metadata(to).await.is_ok_and(|known| known.is_dir());
        if from.len() > 1 && !is_dir {
            return Err(format!(
                "{}: not a directory, and there are several to copy",
                to.display()
            ));
        }
        let signals = StopSignals::new().map_err(|error| format!("signals: {error}"))?;
        let from: Vec<_> =
            from.iter().map(|from| (from.clone(), place(from, to, is_dir))).collect();
        // Dropped, it drops what it has begun, and with it halves of files.
        Ok(match race(copy.all(from), signals.recv()).await {
            Either::First(counts) => Some(counts),
            Either::Second(()) => None,
        })
    })?;
    bar.finish_and_clear();
    let Some(Counts { files, dirs, links, bytes, failures }) = ended else {
        eprintln!("cp: interrupted");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if arguments.verbose {
        println!("{files} files ({bytes} bytes), {dirs} directories, {links} links");
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Where a thing is copied to: into a directory that is there, by its own name.
fn place(from: &Path, to: &Path, is_dir: bool) -> PathBuf {
    match from.file_name() {
        Some(name) if is_dir => to.join(name),
        // `.` and `..` have no name: their contents go.
        _ => to.to_owned(),
    }
}
