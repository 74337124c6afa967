//! `omniring bench`: its options, and where its findings go.
//!
//! JSON and CSV go to standard output alone; whatever else there is to say goes
//! to standard error.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use omniring_bench::contender;
use omniring_bench::error::Error;
use omniring_bench::report::{html, rows, table};
use omniring_bench::subject::{self, Spec};
use omniring_bench::workload::{WORKLOADS, Workload};
use omniring_bench::{Options, Outcome};

/// Name of the page unless told otherwise.
const REPORT: &str = "omniring-report.html";

/// Measure every I/O engine on this machine, on a real file and real sockets.
///
/// Prints a table and writes a page, omniring-report.html. Beside the engines run
/// a bare io_uring loop (the floor) and, if it is installed, fio. Takes under 4
/// minutes, with --quick under one.
///
/// Unless --engine names others, the engines uring, aio, epoll, threads and
/// blocking run all workloads, and the remaining ones read-direct-4k-d32,
/// read-hot-4k-d32 and echo-64. A named engine runs every workload asked for.
#[derive(Args)]
pub struct Bench {
    /// Engines to run, comma separated, e.g. floor,uring,epoll,fio; a * stands for any ending
    #[arg(long, value_name = "LIST")]
    engine: Option<String>,

    /// Workloads to run, comma separated, e.g. echo-64,read-hot-*
    #[arg(long, value_name = "LIST")]
    workload: Option<String>,

    /// Seconds to measure each row [default: 1, with --quick 0.25]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    seconds: Option<f64>,

    /// File to read; one that exists is only ever read, one that does not is made and removed again
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,

    /// Size of the file if it has to be made, e.g. 512M [default: 1G, with --quick 256M]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    size: Option<String>,

    /// Less of everything, in under a minute: the five engines above, fio on a few rows
    #[arg(long)]
    quick: bool,

    /// What goes to standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Where the page goes
    #[arg(long, value_name = "FILE.html", default_value = REPORT)]
    report: PathBuf,

    /// List the workloads and engines and do nothing
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

impl Bench {
    /// Runs it.
    pub fn run(self) -> Result<(), Error> {
        if self.list {
            return print(|output| output.write_all(list().as_bytes()));
        }
        html::check_destination(&self.report)?;
        let options = Options {
            engines: self.engine,
            workloads: self.workload,
            seconds: self.seconds,
            file: self.file,
            size: self.size,
            quick: self.quick,
        };
        let outcome = omniring_bench::run(&options)?;
        // First the page: it is there even if nobody reads the output.
        fs::write(&self.report, html::render(&outcome))
            .map_err(|source| Error::Report { path: self.report.clone(), source })?;
        print(|output| match self.format {
            Format::Table => output.write_all(table::render(&outcome).as_bytes()),
            Format::Json => rows::json(&outcome.rows, output),
            Format::Csv => rows::csv(&outcome.rows, output),
        })?;
        remark(&outcome, &self.report);
        Ok(())
    }
}

fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let mut output = BufWriter::new(io::stdout().lock());
    write(&mut output).and_then(|()| output.flush()).map_err(Error::Output)
}

/// Says what may mislead and where the page is.
fn remark(outcome: &Outcome, report: &Path) {
    let mut stderr = io::stderr().lock();
    for warning in &outcome.warnings {
        let _ = writeln!(stderr, "warning: {warning}");
    }
    let seconds = outcome.elapsed.as_secs();
    let _ = writeln!(stderr, "{}", outcome.settings);
    let _ = writeln!(stderr, "{seconds} s; the report is in {}", report.display());
}

fn list() -> String {
    let mut text = String::from("workloads:\n");
    for workload in WORKLOADS {
        text += &format!("  {:26}{}\n", workload.name, workload.about);
    }
    text += "engines:\n";
    for contender in contender::all() {
        let about = contender.about();
        text += &format!("  {:26}{about}\n", contender.name());
    }
    text
}

/// The process that runs one workload on one engine, spoken to in lines of JSON.
#[derive(Args)]
pub struct BenchSubject {
    #[arg(long)]
    engine: String,
    #[arg(long)]
    workload: String,
    #[arg(long)]
    file: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    span: u64,
    #[arg(long)]
    core: Option<usize>,
}

impl BenchSubject {
    /// Runs it until its input ends.
    pub fn run(self) -> ExitCode {
        let Some(workload) = Workload::named(&self.workload) else {
            crate::complain("no such workload; this command is for the bench itself");
            return ExitCode::from(crate::MISTAKE);
        };
        let spec = Spec {
            engine: self.engine,
            workload,
            file: self.file,
            span: self.span,
            core: self.core,
        };
        if subject::serve(&spec, io::stdin().lock(), io::stdout().lock()) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
