//! Compares `omniring kv` with its rivals: servers on core 0, the load on core 1.

mod load;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use load::{Group, Keys, Op};
use server::{Kind, Server};

/// omniring kv beside its rivals
#[derive(Parser)]
struct Options {
    /// The omniring program
    #[arg(long)]
    omniring: PathBuf,
    /// Rivals, as NAME=PROGRAM
    #[arg(long = "rival")]
    rivals: Vec<String>,
    /// Which parts: cpu, durable, snapshot, memory, clients
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "cpu,durable,snapshot,memory,clients"
    )]
    only: Vec<String>,
    /// Engines of ours
    #[arg(long, value_delimiter = ',', default_value = "uring,epoll")]
    engines: Vec<String>,
    /// Commands of a batch
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    pipelines: Vec<usize>,
    /// Rounds, whose median is shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds of a round
    #[arg(long, default_value_t = 1000)]
    ms: u64,
    /// Keys that are there
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Fewer keys and shorter rounds
    #[arg(long)]
    quick: bool,
    /// Where servers keep their files
    #[arg(long, default_value = ".")]
    files: PathBuf,
}

const CLIENTS: usize = 50;
const NONE: [&str; 2] = ["--appendonly", "no"];
const ALWAYS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        options.keys = options.keys.min(100_000);
        options.rounds = options.rounds.min(3);
        options.ms = options.ms.min(300);
    }
    let mut cpus = CpuSet::new();
    cpus.set(1)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("this needs two cores")?;
    let mut kinds = Vec::new();
    for engine in &options.engines {
        kinds.push(Kind {
            name: format!("omniring {engine}"),
            program: options.omniring.clone(),
            args: vec!["kv".into(), "--engine".into(), engine.clone()],
            is_ours: true,
        });
    }
    for rival in &options.rivals {
        let (name, program) = rival.split_once('=').context("--rival NAME=PROGRAM")?;
        let (name, program) = (name.to_owned(), program.into());
        kinds.push(Kind {
            name,
            program,
            args: Vec::new(),
            is_ours: false,
        });
    }
    for part in &options.only {
        println!("\n# {part} (steal {} ticks so far)", steal());
        match &part[..] {
            "cpu" => cpu(&options, &kinds)?,
            "durable" => durable(&options, &kinds)?,
            "snapshot" => snapshot(&options, &kinds)?,
            "memory" => memory(&options, &kinds)?,
            "clients" => clients(&options, &kinds)?,
            other => anyhow::bail!("{other}: no such part"),
        }
    }
    Ok(())
}

/// Processor time that the machine's host took from it: figures with much of it say little.
fn steal() -> String {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.split_whitespace().nth(8).unwrap_or("?").to_owned()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints a figure of each server, and ours over the best of the rivals'.
fn row(what: &str, unit: &str, kinds: &[Kind], values: &[f64], less_is_better: bool) {
    let better = |a: f64, b: f64| if less_is_better { a.min(b) } else { a.max(b) };
    let rivals = kinds.iter().zip(values).filter(|(kind, _)| !kind.is_ours);
    let best = rivals.map(|(_, &value)| value).reduce(better);
    print!("{what:<24}");
    for (kind, value) in kinds.iter().zip(values) {
        print!("  {} {value:.3} {unit}", kind.name);
        if let Some(best) = best.filter(|_| kind.is_ours) {
            print!(" ({:.2})", value / best);
        }
    }
    println!();
}

fn cpu(options: &Options, kinds: &[Kind]) -> Result<()> {
    let keys = Keys {
        count: options.keys,
        value: 64,
    };
    let mut servers = Vec::new();
    for kind in kinds {
        let server = Server::start(kind, &NONE, &options.files)?;
        load::fill(server.addr, keys, false)?;
        servers.push(server);
    }
    for &pipeline in &options.pipelines {
        for op in [Op::Get, Op::Set] {
            let mut micros = vec![Vec::new(); kinds.len()];
            let mut rates = vec![Vec::new(); kinds.len()];
            for _ in 0..options.rounds {
                for (index, server) in servers.iter().enumerate() {
                    let group = Group {
                        op,
                        clients: CLIENTS,
                        pipeline,
                    };
                    let mut before = Duration::ZERO;
                    let (warm, time) = (
                        Duration::from_millis(100),
                        Duration::from_millis(options.ms),
                    );
                    let done = load::run(server.addr, keys, &[group], warm, time, || {
                        before = server.cpu().unwrap_or_default();
                    })?;
                    let used = server.cpu()?.saturating_sub(before);
                    micros[index].push(used.as_secs_f64() * 1e6 / done[0].ops as f64);
                    rates[index].push(done[0].ops as f64 / time.as_secs_f64() / 1000.0);
                }
            }
            let name = format!("{} -P {pipeline}", op.name());
            let micros: Vec<f64> = micros.into_iter().map(median).collect();
            let rates: Vec<f64> = rates.into_iter().map(median).collect();
            row(&format!("{name} CPU"), "us", kinds, &micros, true);
            row(&format!("{name} rate"), "k/s", kinds, &rates, false);
        }
    }
    Ok(())
}

fn durable(options: &Options, kinds: &[Kind]) -> Result<()> {
    let keys = Keys {
        count: options.keys.min(100_000),
        value: 64,
    };
    let writers = Group {
        op: Op::Set,
        clients: CLIENTS,
        pipeline: 1,
    };
    let readers = Group {
        op: Op::Get,
        clients: 10,
        pipeline: 1,
    };
    let mut figures = vec![vec![Vec::new(); kinds.len()]; 5];
    for _ in 0..options.rounds {
        for (index, kind) in kinds.iter().enumerate() {
            let server = Server::start(kind, &ALWAYS, &options.files)?;
            load::fill(server.addr, keys, false)?;
            let (warm, time) = (
                Duration::from_millis(200),
                Duration::from_millis(options.ms),
            );
            let alone = load::run(server.addr, keys, &[readers], warm, time, || ())?;
            let both = load::run(server.addr, keys, &[writers, readers], warm, time, || ())?;
            let rate = both[0].ops as f64 / time.as_secs_f64() / 1000.0;
            let all = [
                rate,
                alone[0].ms(50.0),
                alone[0].ms(99.0),
                both[1].ms(50.0),
                both[1].ms(99.0),
            ];
            for (figure, value) in figures.iter_mut().zip(all) {
                figure[index].push(value);
            }
            drop(server);
            // Disks of virtual machines give so many syncs a second only for a while.
            std::thread::sleep(Duration::from_secs(if options.quick { 1 } else { 5 }));
        }
    }
    let names = [
        ("SET always", "k/s"),
        ("GET alone p50", "ms"),
        ("GET alone p99", "ms"),
        ("GET beside p50", "ms"),
        ("GET beside p99", "ms"),
    ];
    for ((name, unit), values) in names.into_iter().zip(figures) {
        let values: Vec<f64> = values.into_iter().map(median).collect();
        row(name, unit, kinds, &values, unit == "ms");
    }
    Ok(())
}

/// Reads and writes while a snapshot of all keys is written.
fn snapshot(options: &Options, kinds: &[Kind]) -> Result<()> {
    let keys = Keys {
        count: options.keys,
        value: 1024,
    };
    let writers = Group {
        op: Op::Set,
        clients: 10,
        pipeline: 1,
    };
    let readers = Group {
        op: Op::Get,
        clients: 10,
        pipeline: 1,
    };
    let mut figures = vec![vec![f64::NAN; kinds.len()]; 6];
    for (index, kind) in kinds.iter().enumerate() {
        let server = Server::start(kind, &NONE, &options.files)?;
        load::fill(server.addr, keys, false)?;
        let (warm, time) = (
            Duration::from_millis(200),
            Duration::from_millis(options.ms),
        );
        let quiet = load::run(server.addr, keys, &[writers, readers], warm, time, || ())?;
        let rss = server.rss()?;
        let asked = server.ask("BGSAVE")?;
        if asked.starts_with('-') {
            println!("{}: {}", kind.name, asked.trim());
            continue;
        }
        let during = load::run(
            server.addr,
            keys,
            &[writers, readers],
            Duration::ZERO,
            time,
            || (),
        )?;
        let is_running = server
            .ask("INFO persistence")?
            .contains("rdb_bgsave_in_progress:1");
        if !is_running {
            println!(
                "{}: the snapshot was done before the round was over",
                kind.name
            );
        }
        let extra = server.rss()?.saturating_sub(rss);
        let all = [
            quiet[1].ms(99.0),
            during[1].ms(99.0),
            quiet[1].ms(100.0),
            during[1].ms(100.0),
            rss as f64 / 1048576.0,
            extra as f64 / 1048576.0,
        ];
        for (figure, value) in figures.iter_mut().zip(all) {
            figure[index] = value;
        }
    }
    let names = [
        ("GET p99 quiet", "ms"),
        ("GET p99 saving", "ms"),
        ("GET max quiet", "ms"),
        ("GET max saving", "ms"),
        ("memory", "MiB"),
        ("more while saving", "MiB"),
    ];
    for ((name, unit), values) in names.into_iter().zip(figures) {
        row(name, unit, kinds, &values, true);
    }
    Ok(())
}

/// Resident bytes for each key, the server itself included, and what is left after FLUSHALL.
fn memory(options: &Options, kinds: &[Kind]) -> Result<()> {
    let mut counts = vec![options.keys];
    if !options.quick {
        counts.push(options.keys * 10);
    }
    for count in counts {
        for (value, ttl) in [(8, false), (64, false), (64, true)] {
            let keys = Keys { count, value };
            let (mut bytes, mut left) = (Vec::new(), Vec::new());
            for kind in kinds {
                let server = Server::start(kind, &NONE, &options.files)?;
                load::fill(server.addr, keys, ttl)?;
                bytes.push(server.rss()? as f64 / count as f64);
                server.ask("FLUSHALL")?;
                std::thread::sleep(Duration::from_millis(300));
                left.push(server.rss()? as f64 / 1048576.0);
            }
            let name = format!("{count} x {value}{}", if ttl { " TTL" } else { "" });
            row(&name, "B/key", kinds, &bytes, true);
            row("  after FLUSHALL", "MiB", kinds, &left, true);
        }
    }
    Ok(())
}

/// Resident bytes for each client that has sent one command and does nothing.
fn clients(options: &Options, kinds: &[Kind]) -> Result<()> {
    let (count, wide) = if options.quick {
        (400, false)
    } else {
        (10_000, true)
    };
    if wide {
        let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
        nix::sys::resource::setrlimit(
            nix::sys::resource::Resource::RLIMIT_NOFILE,
            hard.min(40_000),
            hard,
        )?;
    }
    let mut bytes = Vec::new();
    for kind in kinds {
        let server = Server::start(kind, &["--maxclients", "20000"], &options.files)?;
        let before = server.rss()?;
        let mut streams = Vec::new();
        for _ in 0..count {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(server.addr)?;
            stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
            let mut reply = [0; 7];
            stream.read_exact(&mut reply)?;
            anyhow::ensure!(&reply == b"+PONG\r\n", "PING of {}", kind.name);
            streams.push(stream);
        }
        bytes.push((server.rss()?.saturating_sub(before)) as f64 / f64::from(count));
    }
    row(&format!("{count} idle clients"), "B", kinds, &bytes, true);
    Ok(())
}
