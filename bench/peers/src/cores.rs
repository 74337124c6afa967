//! Echo on one core and on several: omniring's example with a listener for each core, under the same load.
//!
//! The servers are all up at once and are loaded in turn, for a tenth of a second at a time. A server has
//! the first CPUs, the load the last ones: on a machine with too few the load shares CPUs with the server
//! of several cores, whose rate then says nothing, while CPU per op still tells what several cores cost.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use crate::SERVER_CORE;
use crate::load::{Load, Window};
use crate::process::{Pinned, RunningChild};
use crate::rusage::Usage;
use crate::statistics::{median, paired_ratio};

/// Options of `cores`.
#[derive(Args)]
pub struct CoresOptions {
    /// Times that every server has its turn of 0.1 s
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Connections, each with one message on the way
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Cores of the server that is compared with one of one core
    #[arg(long, default_value_t = 2)]
    cores: usize,
    /// Engines, comma separated
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "uring,epoll"
    )]
    engines: Vec<String>,
    /// Where omniring's built examples are. Default: the root's release build.
    #[arg(long, hide_default_value = true)]
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/examples"))]
    examples: PathBuf,
}

const WARM_UP: Duration = Duration::from_millis(200);
const SLICE: Duration = Duration::from_millis(100);
/// Load before a slice, which is not counted.
const LEAD_IN: Duration = Duration::from_millis(10);
/// Time for a server to start, and for a slice to end beyond its length.
const PATIENCE: Duration = Duration::from_secs(10);

/// A thread of load on a CPU of its own.
struct LoadThread {
    orders: Sender<Duration>,
    windows: Receiver<Result<Window>>,
    _thread: JoinHandle<()>,
}

impl LoadThread {
    fn start(cpu: usize, server: SocketAddr, connections: usize) -> Result<LoadThread> {
        let (orders, ordered) = channel();
        let (results, windows) = channel();
        let thread = spawn(move || {
            let load = Pinned::to(cpu).and_then(|pinned| {
                let mut load = Load::start(server, connections)?;
                let window = load.run(WARM_UP)?;
                Ok((load, window, pinned))
            });
            let (mut load, window, _pinned) = match load {
                Ok(load) => load,
                Err(error) => return drop(results.send(Err(error))),
            };
            let mut result = Ok(window);
            // Until nobody orders or listens any more.
            while results.send(result).is_ok() {
                let Ok(duration) = ordered.recv() else { return };
                result = load.run(duration);
            }
        });
        Ok(LoadThread {
            orders,
            windows,
            _thread: thread,
        })
    }

    fn order(&self, duration: Duration) -> Result<()> {
        self.orders
            .send(duration)
            .map_err(|_| anyhow!("the load has ended"))
    }

    fn window(&self) -> Result<Window> {
        self.windows
            .recv_timeout(PATIENCE)
            .context("waiting for the load")?
    }
}

/// A server under load.
struct Contender {
    name: String,
    server: RunningChild,
    loads: Vec<LoadThread>,
    cpu_us_per_op: Vec<f64>,
    rates: Vec<f64>,
}

impl Contender {
    fn start(options: &CoresOptions, engine: &str, cores: usize, cpus: usize) -> Result<Contender> {
        let name = format!("{engine}, cores {cores}");
        let mut command = Command::new(options.examples.join("echo"));
        command.args(["--engine", engine, "--cores", &cores.to_string()]);
        command.args(["--listen", "127.0.0.1:0"]);
        // Several cores pin themselves, to the first CPUs.
        let mut server = RunningChild::start(command, (cores == 1).then_some(SERVER_CORE))?;
        let line = server.line(PATIENCE).with_context(|| name.clone())?;
        let address = line
            .strip_prefix("listening on ")
            .and_then(|address| address.trim().parse().ok())
            .with_context(|| format!("{name} printed {line:?} in place of its address"))?;
        // The same threads of load for one core and for several.
        let load_count = cpus.saturating_sub(options.cores).clamp(1, options.cores);
        let loads = (0..load_count)
            .map(|load| {
                let share = options.connections / load_count;
                LoadThread::start(cpus - 1 - load, address, share)
            })
            .collect::<Result<Vec<_>>>()?;
        for load in &loads {
            load.window().with_context(|| name.clone())?;
        }
        Ok(Contender {
            name,
            server,
            loads,
            cpu_us_per_op: Vec::new(),
            rates: Vec::new(),
        })
    }

    /// Operations a second of all loads together.
    fn run(&self, duration: Duration) -> Result<(f64, f64)> {
        self.loads
            .iter()
            .try_for_each(|load| load.order(duration))?;
        let (mut ops, mut rate) = (0.0, 0.0);
        for load in &self.loads {
            let window = load.window()?;
            ops += window.ops as f64;
            rate += window.ops as f64 / window.elapsed.as_secs_f64();
        }
        Ok((ops, rate))
    }

    fn slice(&mut self) -> Result<()> {
        self.run(LEAD_IN)?;
        let before = Usage::of_process(self.server.id())?;
        let (ops, rate) = self.run(SLICE)?;
        let used = Usage::of_process(self.server.id())?.since(before);
        ensure!(ops > 0.0, "{}: no message came back", self.name);
        self.cpu_us_per_op.push(used.cpu.as_secs_f64() * 1e6 / ops);
        self.rates.push(rate);
        Ok(())
    }
}

/// Measures and prints.
pub fn run(options: &CoresOptions) -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(options.cores > 1, "--cores must be above 1");
    ensure!(
        cpus > 1,
        "this needs two CPUs: one for the server, one for the load"
    );
    let mut contenders = Vec::new();
    for engine in &options.engines {
        for cores in [1, options.cores] {
            contenders.push(Contender::start(options, engine, cores, cpus)?);
        }
    }
    for round in 0..options.rounds as usize {
        for turn in 0..contenders.len() {
            let index = (turn + round) % contenders.len();
            contenders[index].slice()?;
        }
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "server",
        "CPU us/op",
        "ops/s",
        "CPU to one core",
        "rate to one core",
    ]);
    for pair in contenders.chunks(2) {
        for contender in pair {
            let of = |figures: &[f64]| median(figures.iter().copied()).unwrap_or(f64::NAN);
            let to_one = |figures: fn(&Contender) -> &Vec<f64>| {
                paired_ratio(figures(contender), figures(&pair[0]))
                    .map_or("-".into(), |ratio| format!("{ratio:.3}"))
            };
            table.add_row([
                contender.name.clone(),
                format!("{:.2}", of(&contender.cpu_us_per_op)),
                format!("{:.0}", of(&contender.rates)),
                to_one(|contender| &contender.cpu_us_per_op),
                to_one(|contender| &contender.rates),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let (connections, rounds) = (options.connections, options.rounds);
    println!(
        "echo 64 B, connections {connections}, medians of {rounds} turns of 0.1 s, {cpus} CPUs\n\n{table}"
    );
    if cpus < 2 * options.cores {
        let cores = options.cores;
        println!(
            "\n{cores} cores and as many threads of load need {} CPUs: the rate says nothing here.",
            2 * cores
        );
    }
    Ok(())
}
