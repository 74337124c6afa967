//! Runs omniring and its rivals in alternating rounds and prints medians.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::Serialize;

use crate::claims::{self, Field, Measure, Verdict};
use crate::fio::{self, FioEngine};
use crate::load::Load;
use crate::process::{Pinned, RunningChild};
use crate::reads::ReadJob;
use crate::rusage::Usage;
use crate::statistics::{median, paired_ratio};
use crate::{LOAD_CORE, SERVER_CORE};

/// An engine of omniring, and the option that puts it on another tier of buffers.
type OnTier = (&'static str, Option<&'static str>);

/// How omniring reads and echoes; ratios are to the first.
const READERS: [OnTier; 5] = [
    ("uring", None),
    ("uring", Some("fixed")),
    ("aio", None),
    ("epoll", None),
    ("threads", None),
];
const ECHOERS: [OnTier; 4] = [
    ("uring", None),
    ("uring", Some("leased")),
    ("epoll", None),
    ("threads", None),
];
const ECHO_RIVALS: [&str; 4] = ["tokio", "monoio", "compio", "glommio"];
const READ_RIVALS: [&str; 6] = [
    "tokio",
    "tokio-uring",
    "tokio-uring-plain",
    "monoio",
    "compio",
    "glommio",
];

/// MiB of the file that is read.
const SPAN_MIB: u64 = 256;
const BLOCK_SIZE: usize = 4096;

const ECHO_WARM_UP: Duration = Duration::from_millis(200);
/// Echo servers are all up at once, and are loaded in turn for so long at a time:
/// short against the time in which a shared machine changes its speed.
const ECHO_SLICE: Duration = Duration::from_millis(100);
/// Load before a slice, which is not counted: the server's caches are another's by then.
const ECHO_LEAD_IN: Duration = Duration::from_millis(10);

/// From this share of the wall clock on, the server's core counts as saturated.
const SATURATED: f64 = 0.95;

/// Time for a server to start, and for a read run to end beyond its seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options of `compare`.
#[derive(Args)]
pub struct CompareOptions {
    /// Only these workloads
    #[arg(long)]
    only: Option<Only>,
    /// Times that every subject runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measured seconds of one run; echo servers are measured in slices of 0.1 s
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// File to read, on the disk to be measured; made there if it is missing
    /// (256 MiB). Default: beside this program.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Where omniring's built examples are. Default: the root's release build.
    #[arg(long, hide_default_value = true)]
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/examples"))]
    examples: PathBuf,
    /// Examples of an earlier build of omniring, to be measured beside this one's
    #[arg(long, value_name = "DIRECTORY")]
    before: Option<PathBuf>,
    /// Only these subjects, comma separated, and `omniring uring`, which ratios are to
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    subjects: Vec<String>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Echo,
    Read,
}

/// What one run of one subject measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Ops a second.
    pub rate: f64,
    /// User and system time per op in microseconds.
    pub cpu_us_per_op: f64,
    /// Voluntary and involuntary context switches per op.
    pub context_switches_per_op: f64,
    /// CPU time of an echo server over wall time: 1 is a saturated core.
    pub server_busy: Option<f64>,
}

/// Something that a workload is run on.
#[derive(Clone, Copy)]
enum Subject {
    Omniring(OnTier),
    /// The same from an earlier build.
    Before(OnTier),
    Rival(&'static str),
    Fio(FioEngine),
}

impl Subject {
    fn name(self) -> String {
        match self {
            Subject::Omniring((engine, None)) => format!("omniring {engine}"),
            Subject::Omniring((engine, Some(tier))) => format!("omniring {engine} {tier}"),
            Subject::Before(on_tier) => format!("{} before", Subject::Omniring(on_tier).name()),
            Subject::Rival(runtime) => runtime.to_owned(),
            Subject::Fio(engine) => format!("fio {}", engine.name()),
        }
    }

    /// The command that runs `program`, up to the program's own arguments.
    fn command(self, program: &str, options: &CompareOptions) -> Result<Command> {
        let examples = match (self, &options.before) {
            (Subject::Before(_), Some(before)) => before,
            _ => &options.examples,
        };
        match self {
            Subject::Omniring((engine, tier)) | Subject::Before((engine, tier)) => {
                let mut command = Command::new(examples.join(program));
                command.args(["--engine", engine]);
                command.args(tier.map(|tier| format!("--{tier}")));
                Ok(command)
            }
            Subject::Rival(runtime) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([program, "--runtime", runtime]);
                Ok(command)
            }
            Subject::Fio(_) => bail!("fio has no {program}"),
        }
    }
}

enum Workload {
    Read(ReadJob),
    Echo { connections: usize },
}

impl Workload {
    fn name(&self) -> String {
        match self {
            Workload::Read(job) => {
                let cache = if job.direct {
                    "O_DIRECT"
                } else {
                    "hot page cache"
                };
                format!("read {} B, {cache}, depth {}", job.block_size, job.depth)
            }
            Workload::Echo { connections } => format!("echo 64 B, connections {connections}"),
        }
    }

    /// What is claimed about it, if anything.
    fn field(&self) -> Option<Field> {
        match self {
            Workload::Read(job) if job.depth == 1 => None,
            Workload::Read(job) if job.direct => Some(Field::DirectReads),
            Workload::Read(_) => Some(Field::CachedReads),
            Workload::Echo { connections: 1 } => None,
            Workload::Echo { .. } => Some(Field::Echo),
        }
    }

    fn program(&self) -> &'static str {
        match self {
            Workload::Read(_) => "random_read",
            Workload::Echo { .. } => "echo",
        }
    }

    fn subjects(&self, skips: &mut Vec<Skip>, options: &CompareOptions) -> Vec<Subject> {
        let mut subjects = Vec::new();
        let example = options.examples.join(self.program());
        let tiers: &[OnTier] = match self {
            Workload::Read(_) => &READERS,
            Workload::Echo { .. } => &ECHOERS,
        };
        if example.is_file() {
            subjects.extend(tiers.iter().copied().map(Subject::Omniring));
            if options.before.is_some() {
                subjects.extend(tiers.iter().copied().map(Subject::Before));
            }
        } else {
            let reason = format!(
                "{} is not there; build it with `cargo build --release -p omniring --examples`",
                example.display()
            );
            skips.push(Skip::new(self, "omniring".into(), reason));
        }
        match self {
            Workload::Read(_) => {
                subjects.extend(READ_RIVALS.map(Subject::Rival));
                if fio::is_installed() {
                    subjects.extend(FioEngine::ALL.map(Subject::Fio));
                } else {
                    skips.push(Skip::new(self, "fio".into(), "not found in PATH".into()));
                }
            }
            Workload::Echo { .. } => subjects.extend(ECHO_RIVALS.map(Subject::Rival)),
        }
        if !options.subjects.is_empty() {
            let is_base = |subject: &Subject| matches!(subject, Subject::Omniring(("uring", None)));
            subjects
                .retain(|subject| is_base(subject) || options.subjects.contains(&subject.name()));
        }
        subjects
    }

    /// Brings the page cache into the state that the workload is about.
    fn prepare(&self) -> Result<()> {
        let Workload::Read(job) = self else {
            return Ok(());
        };
        let mut file = File::open(&job.file)?;
        if job.direct {
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        } else {
            let mut chunk = vec![0; 1 << 20];
            while file.read(&mut chunk)? > 0 {}
        }
        Ok(())
    }

    /// How often every subject has its turn.
    fn round_count(&self, options: &CompareOptions) -> u32 {
        match self {
            Workload::Read(_) => options.rounds,
            Workload::Echo { .. } => {
                let seconds = options.seconds * f64::from(options.rounds);
                (seconds / ECHO_SLICE.as_secs_f64()).ceil() as u32
            }
        }
    }

    fn run(&self, contender: &mut Contender, options: &CompareOptions) -> Result<Sample> {
        self.prepare()?;
        let subject = contender.subject;
        match (self, subject) {
            (Workload::Read(job), Subject::Fio(engine)) => {
                fio::random_read(engine, job, read_patience(job))
            }
            (Workload::Read(job), _) => random_read(subject.command(self.program(), options)?, job),
            (Workload::Echo { connections }, _) => {
                let server = match &mut contender.server {
                    Some(server) => server,
                    None => {
                        let command = subject.command(self.program(), options)?;
                        let server = EchoServer::start(command, *connections)?;
                        contender.server.insert(server)
                    }
                };
                server.slice()
            }
        }
    }
}

/// A subject in a workload.
struct Contender {
    subject: Subject,
    samples: Vec<Sample>,
    /// From its first turn on, in the echo workloads.
    server: Option<EchoServer>,
}

fn read_patience(job: &ReadJob) -> Duration {
    Duration::from_secs_f64(job.seconds) + PATIENCE
}

/// Runs a program that prints `IOPS CPU_US_PER_OP CONTEXT_SWITCHES`.
fn random_read(mut command: Command, job: &ReadJob) -> Result<Sample> {
    command
        .arg(&job.file)
        .args(["--block-size", &job.block_size.to_string()])
        .args(["--depth", &job.depth.to_string()])
        .args(["--seconds", &job.seconds.to_string()])
        .args(["--span", &job.span.to_string()]);
    if job.direct {
        command.arg("--direct");
    }
    let output = RunningChild::start(command, None)?.output(read_patience(job))?;
    let figures: Vec<f64> = output
        .lines()
        .last()
        .unwrap_or_default()
        .split_whitespace()
        .map_while(|figure| figure.parse().ok())
        .collect();
    let &[rate, cpu_us_per_op, context_switches_per_op] = figures.as_slice() else {
        bail!("printed {output:?} in place of three figures");
    };
    Ok(Sample {
        rate,
        cpu_us_per_op,
        context_switches_per_op,
        server_busy: None,
    })
}

/// An echo server on its core, and its load on the other.
struct EchoServer {
    server: RunningChild,
    load: Load,
}

impl EchoServer {
    fn start(mut command: Command, connections: usize) -> Result<EchoServer> {
        command.args(["--listen", "127.0.0.1:0"]);
        let mut server = RunningChild::start(command, Some(SERVER_CORE))?;
        let line = server.line(PATIENCE)?;
        let address: SocketAddr = line
            .strip_prefix("listening on ")
            .and_then(|address| address.trim().parse().ok())
            .with_context(|| format!("printed {line:?} in place of its address"))?;
        let _pinned = Pinned::to(LOAD_CORE)?;
        let mut load = Load::start(address, connections)?;
        load.run(ECHO_WARM_UP)?;
        Ok(EchoServer { server, load })
    }

    /// Divides what the server uses in a slice by the messages that come back in it.
    fn slice(&mut self) -> Result<Sample> {
        let _pinned = Pinned::to(LOAD_CORE)?;
        self.load.run(ECHO_LEAD_IN)?;
        let before = Usage::of_process(self.server.id())?;
        let seen = self.load.run(ECHO_SLICE)?;
        let used = Usage::of_process(self.server.id())?.since(before);
        ensure!(seen.ops > 0, "no message came back");
        let ops = seen.ops as f64;
        Ok(Sample {
            rate: ops / seen.elapsed.as_secs_f64(),
            cpu_us_per_op: used.cpu.as_secs_f64() * 1e6 / ops,
            context_switches_per_op: used.context_switches as f64 / ops,
            server_busy: Some(used.cpu.as_secs_f64() / seen.elapsed.as_secs_f64()),
        })
    }
}

/// A subject left out, and why.
#[derive(Serialize)]
struct Skip {
    workload: String,
    subject: String,
    reason: String,
}

impl Skip {
    /// Notes the skip and says it at once.
    fn new(workload: &Workload, subject: String, reason: String) -> Skip {
        let workload = workload.name();
        eprintln!("skipped: {subject} in {workload}: {reason}");
        Skip {
            workload,
            subject,
            reason,
        }
    }
}

/// All samples of one subject in one workload, and their medians.
#[derive(Serialize)]
pub struct Row {
    /// Who it is.
    pub subject: String,
    cpu_us_per_op: f64,
    rate: f64,
    context_switches_per_op: f64,
    /// Median over the rounds of this subject's CPU per op to that of
    /// `omniring uring` in the same round.
    cpu_ratio_to_uring: Option<f64>,
    server_busy: Option<f64>,
    samples: Vec<Sample>,
}

impl Row {
    /// The figures of all rounds.
    pub fn figures(&self, measure: Measure) -> Vec<f64> {
        let figure = |sample: &Sample| match measure {
            Measure::Cpu => sample.cpu_us_per_op,
            Measure::Rate => sample.rate,
        };
        self.samples.iter().map(figure).collect()
    }

    fn new(subject: Subject, samples: Vec<Sample>, uring: Option<&[Sample]>) -> Option<Row> {
        let cpu = |samples: &[Sample]| -> Vec<f64> {
            samples.iter().map(|sample| sample.cpu_us_per_op).collect()
        };
        Some(Row {
            subject: subject.name(),
            cpu_us_per_op: median(cpu(&samples))?,
            rate: median(samples.iter().map(|sample| sample.rate))?,
            context_switches_per_op: median(
                samples.iter().map(|sample| sample.context_switches_per_op),
            )?,
            cpu_ratio_to_uring: uring.and_then(|uring| paired_ratio(&cpu(&samples), &cpu(uring))),
            server_busy: median(samples.iter().filter_map(|sample| sample.server_busy)),
            samples,
        })
    }

    /// A row made by hand, of CPU per op and rate of each round.
    #[cfg(test)]
    pub fn of_figures(subject: &'static str, rounds: &[(f64, f64)]) -> Row {
        let sample = |&(cpu_us_per_op, rate): &(f64, f64)| Sample {
            rate,
            cpu_us_per_op,
            context_switches_per_op: 0.0,
            server_busy: None,
        };
        let samples = rounds.iter().map(sample).collect();
        Row::new(Subject::Rival(subject), samples, None).expect("there are rounds")
    }

    fn cells(&self) -> Vec<String> {
        let cpu = self.samples.iter().map(|sample| sample.cpu_us_per_op);
        let (least, most) = cpu.fold((f64::MAX, 0.0), |(least, most), cpu| {
            (f64::min(least, cpu), f64::max(most, cpu))
        });
        let mut cells = vec![
            self.subject.clone(),
            format!("{:.2}", self.cpu_us_per_op),
            format!("{least:.2}-{most:.2}"),
            format!("{:.0}", self.rate),
            format!("{:.3}", self.context_switches_per_op),
            self.cpu_ratio_to_uring
                .map_or("-".into(), |ratio| format!("{ratio:.2}")),
        ];
        if let Some(busy) = self.server_busy {
            let note = if busy >= SATURATED {
                "saturated"
            } else {
                "not saturated"
            };
            cells.push(format!("{:.0}% {note}", busy * 100.0));
        }
        cells
    }
}

#[derive(Serialize)]
struct Comparison {
    workload: String,
    rows: Vec<Row>,
    claims: Vec<Verdict>,
}

impl Comparison {
    /// Runs every subject once a round, the first one of a round rotating, and
    /// leaves out of the rest whatever fails.
    fn measure(workload: &Workload, options: &CompareOptions, skips: &mut Vec<Skip>) -> Comparison {
        let mut contenders: Vec<Contender> = workload
            .subjects(skips, options)
            .into_iter()
            .map(|subject| Contender {
                subject,
                samples: Vec::new(),
                server: None,
            })
            .collect();
        let rounds = workload.round_count(options);
        for round in 0..rounds {
            if rounds <= options.rounds || round.is_multiple_of(10) {
                eprintln!("{}: round {} of {rounds}", workload.name(), round + 1);
            }
            let mut failed = Vec::new();
            for turn in 0..contenders.len() {
                let index = (turn + round as usize) % contenders.len();
                let contender = &mut contenders[index];
                match workload.run(contender, options) {
                    Ok(sample) => contender.samples.push(sample),
                    Err(error) => {
                        let (name, reason) = (contender.subject.name(), format!("{error:#}"));
                        skips.push(Skip::new(workload, name, reason));
                        failed.push(index);
                    }
                }
            }
            failed.sort_unstable();
            for index in failed.into_iter().rev() {
                contenders.remove(index);
            }
        }
        let is_uring = |contender: &&Contender| {
            matches!(contender.subject, Subject::Omniring(("uring", None)))
        };
        let uring = contenders.iter().find(is_uring);
        let uring = uring.map(|contender| contender.samples.clone());
        let rows: Vec<Row> = contenders
            .into_iter()
            .filter_map(
                |Contender {
                     subject, samples, ..
                 }| { Row::new(subject, samples, uring.as_deref()) },
            )
            .collect();
        let claims = workload
            .field()
            .map_or_else(Vec::new, |field| claims::judge(field, &rows));
        Comparison {
            workload: workload.name(),
            rows,
            claims,
        }
    }

    fn print(&self, out: &mut impl Write) -> Result<()> {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let mut header = vec![
            "subject",
            "CPU us/op",
            "min-max",
            "ops/s",
            "switches/op",
            "CPU to uring",
        ];
        if self.rows.iter().any(|row| row.server_busy.is_some()) {
            header.push("server core");
        }
        table.set_header(header);
        table.add_rows(self.rows.iter().map(Row::cells));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(out, "\n{}\n\n{table}", self.workload)?;
        if !self.claims.is_empty() {
            writeln!(out)?;
        }
        for claim in &self.claims {
            writeln!(out, "- {claim}")?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Report {
    kernel: String,
    cores: usize,
    rounds: u32,
    seconds: f64,
    comparisons: Vec<Comparison>,
    skipped: Vec<Skip>,
}

/// Runs `compare`.
pub fn run(options: &CompareOptions) -> Result<()> {
    ensure!(options.seconds > 0.0, "--seconds must be above 0");
    let cores = std::thread::available_parallelism()?.get();
    let mut workloads = Vec::new();
    if options.only != Some(Only::Echo) {
        let file = options.file.clone().map_or_else(default_file, Ok)?;
        create_if_missing(&file)?;
        workloads.extend([(false, 32), (true, 32), (true, 1)].map(|(direct, depth)| {
            Workload::Read(ReadJob {
                file: file.clone(),
                block_size: BLOCK_SIZE,
                depth,
                seconds: options.seconds,
                span: SPAN_MIB,
                direct,
            })
        }));
    }
    if options.only != Some(Only::Read) {
        ensure!(
            cores > LOAD_CORE,
            "echo needs two cores: one for the server, one for the load"
        );
        workloads.extend([1, 64, 256].map(|connections| Workload::Echo { connections }));
    }
    let mut skipped = Vec::new();
    let mut comparisons = Vec::new();
    let mut out = std::io::stdout().lock();
    for workload in &workloads {
        let comparison = Comparison::measure(workload, options, &mut skipped);
        if !options.json {
            comparison.print(&mut out)?;
        }
        comparisons.push(comparison);
    }
    if options.json {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned();
        let (rounds, seconds) = (options.rounds, options.seconds);
        let report = Report {
            kernel,
            cores,
            rounds,
            seconds,
            comparisons,
            skipped,
        };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else if !skipped.is_empty() {
        writeln!(out, "\nskipped:")?;
        for Skip {
            workload,
            subject,
            reason,
        } in &skipped
        {
            writeln!(out, "- {subject} in {workload}: {reason}")?;
        }
    }
    Ok(())
}

/// Beside the program, which is on a disk, as a temporary directory may not be.
fn default_file() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("random_read.data"))
}

/// Writes the file with random bytes, unless it is there and long enough.
fn create_if_missing(path: &Path) -> Result<()> {
    if let Ok(metadata) = path.metadata() {
        ensure!(
            metadata.len() >= SPAN_MIB << 20,
            "{} is shorter than {SPAN_MIB} MiB and is not touched",
            path.display()
        );
        return Ok(());
    }
    // Under another name until complete, so that a cut run leaves no short file.
    let partial = path.with_extension("partial");
    let mut out = BufWriter::new(File::create(&partial).context(partial.display().to_string())?);
    let mut random = fastrand::Rng::with_seed(1);
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..SPAN_MIB {
        random.fill(&mut chunk);
        out.write_all(&chunk)?;
    }
    out.into_inner()
        .map_err(|error| error.into_error())?
        .sync_all()?;
    Ok(fs::rename(&partial, path)?)
}
