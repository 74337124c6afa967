//! What tasks cost on each runtime: instructions, counted by callgrind as the difference between two
//! lengths of the same run, so that what comes once is left out; nanoseconds; bytes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::process::RunningChild;
use crate::statistics::median;
use crate::task_work::{TaskRuntime, Work};

/// Options of `tasks`.
#[derive(Args)]
pub struct TasksOptions {
    /// Only these kinds of work, comma separated
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    only: Vec<Work>,
    /// Times that nanoseconds are measured, of which the table has the median
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Instructions and bytes only
    #[arg(long)]
    no_time: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// The two lengths of a counted run.
const COUNTS: [u64; 2] = [20_000, 120_000];
/// Times in a run that is timed.
const TIMED_COUNT: u64 = 1_000_000;
/// Idle tasks that are weighed.
const IDLE_COUNT: u64 = 200_000;
/// Time for one run; callgrind slows it down fiftyfold.
const PATIENCE: Duration = Duration::from_secs(300);

/// One row: a figure for each runtime, in the order of [`TaskRuntime::ALL`].
#[derive(Serialize)]
struct Row {
    work: Work,
    unit: &'static str,
    figures: Vec<f64>,
}

impl Row {
    /// Omniring's figure over that of the best rival.
    fn ratio(&self) -> f64 {
        let rivals = &self.figures[1..];
        self.figures[0] / rivals.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Measures and prints.
pub fn run(options: &TasksOptions) -> Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let is_wanted = |work: Work| options.only.is_empty() || options.only.contains(&work);
    let mut rows = Vec::new();
    for work in Work::COUNTED.into_iter().filter(|work| is_wanted(*work)) {
        let figures = of_each(|runtime| instructions(&program, runtime, work))?;
        rows.push(Row {
            work,
            unit: "instructions",
            figures,
        });
    }
    if is_wanted(Work::Idle) {
        let figures = of_each(|runtime| plain(&program, runtime, Work::Idle, IDLE_COUNT))?;
        rows.push(Row {
            work: Work::Idle,
            unit: "bytes",
            figures,
        });
    }
    for work in Work::COUNTED
        .into_iter()
        .filter(|work| is_wanted(*work) && !options.no_time)
    {
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            rounds.push(of_each(|runtime| {
                plain(&program, runtime, work, TIMED_COUNT)
            })?);
        }
        let of_runtime = |at: usize| median(rounds.iter().map(|round| round[at]));
        let figures = (0..TaskRuntime::ALL.len()).map(of_runtime);
        let figures = figures
            .map(|figure| figure.expect("there is a round"))
            .collect();
        rows.push(Row {
            work,
            unit: "ns",
            figures,
        });
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!("{}", table(&rows));
    }
    Ok(())
}

fn of_each(figure: impl Fn(TaskRuntime) -> Result<f64>) -> Result<Vec<f64>> {
    let of_one = |runtime: TaskRuntime| figure(runtime).with_context(|| runtime.name());
    TaskRuntime::ALL.into_iter().map(of_one).collect()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let names = TaskRuntime::ALL.map(TaskRuntime::name);
    let header = ["for each", "unit"]
        .into_iter()
        .chain(names)
        .chain(["to the best rival"]);
    table.set_header(header);
    for row in rows {
        let digits = if row.unit == "ns" { 1 } else { 0 };
        let figures = row
            .figures
            .iter()
            .map(|figure| format!("{figure:.digits$}"));
        let cells = [row.work.title().to_owned(), row.unit.to_owned()].into_iter();
        table.add_row(cells.chain(figures).chain([format!("{:.2}", row.ratio())]));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The command line that carries out so much work.
fn arguments(runtime: TaskRuntime, work: Work, count: u64) -> Vec<String> {
    [
        "task",
        "--runtime",
        runtime.name(),
        "--work",
        work.name(),
        "--count",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([count.to_string()])
    .collect()
}

/// What the run itself says: nanoseconds or bytes.
fn plain(program: &Path, runtime: TaskRuntime, work: Work, count: u64) -> Result<f64> {
    let mut command = Command::new(program);
    command.args(arguments(runtime, work, count));
    let output = RunningChild::start(command, None)?.output(PATIENCE)?;
    output
        .trim()
        .parse()
        .with_context(|| format!("no figure: {output}"))
}

/// Instructions for each time.
fn instructions(program: &Path, runtime: TaskRuntime, work: Work) -> Result<f64> {
    let [short, long] = COUNTS;
    let difference = count_instructions(program, runtime, work, long)?
        .checked_sub(count_instructions(program, runtime, work, short)?)
        .context("the longer run took fewer instructions")?;
    Ok(difference as f64 / (long - short) as f64)
}

/// Instructions of a whole run, in user mode, on all of its threads.
fn count_instructions(program: &Path, runtime: TaskRuntime, work: Work, count: u64) -> Result<u64> {
    let log: PathBuf = std::env::temp_dir().join(format!("peers-tasks-{}", std::process::id()));
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--log-file={}", log.display()))
        .arg(program)
        .args(arguments(runtime, work, count))
        .stdin(Stdio::null());
    let ran = RunningChild::start(command, None)
        .context("counting instructions needs valgrind")
        .and_then(|child| child.output(PATIENCE));
    let report = std::fs::read_to_string(&log);
    // Nobody else looks for it.
    let _ = std::fs::remove_file(&log);
    ran?;
    let report = report.context("valgrind's report")?;
    let collected = report
        .lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    ensure!(collected.is_some(), "valgrind counted nothing: {report}");
    Ok(collected.expect("just checked"))
}
