//! Compares `omniring kv` with its rivals: servers on core 0, the load on core 1.

mod load;
mod server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    /// Microseconds by which syncs of the durable part are made slower, each in turn
    #[arg(long, value_delimiter = ',', default_value = "0,2000")]
    sync_delays: Vec<u64>,
    /// What makes rivals' syncs slower: slow_sync.c, compiled
    #[arg(long)]
    slow_sync: Option<PathBuf>,
    /// Where servers keep their files
    #[arg(long, default_value = ".")]
    files: PathBuf,
    /// The same while syncs are made slower: in memory, so that they take that long and no longer
    #[arg(long, default_value = "/dev/shm")]
    slow_files: PathBuf,
    /// redis-benchmark, for a second load of durable writes
    #[arg(long)]
    redis_benchmark: Option<PathBuf>,
}

const CLIENTS: usize = 50;
/// How many times in a round reads are measured alone and beside writes.
const PAIRS: usize = 3;
const NONE: [&str; 2] = ["--appendonly", "no"];
const EVERY_SECOND: [&str; 6] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "everysec",
    "--auto-aof-rewrite-percentage",
    "0",
];
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
    // Servers inherit it: the delays of syncs may be late by 50 us otherwise.
    nix::sys::prctl::set_timerslack(1)?;
    let mut kinds = Vec::new();
    for engine in &options.engines {
        kinds.push(Kind {
            name: format!("omniring {engine}"),
            program: options.omniring.clone(),
            args: vec!["kv".into(), "--engine".into(), engine.clone()],
            is_ours: true,
            env: Vec::new(),
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
            env: Vec::new(),
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

/// The same servers with slower syncs: ours are told to, others have a library preloaded.
fn slowed(options: &Options, kinds: &[Kind], delay_us: u64) -> Vec<Kind> {
    let slow = |kind: &Kind| {
        let mut env = Vec::new();
        if delay_us > 0 && kind.is_ours {
            env.push(("OMNIRING_KV_SYNC_DELAY_US".to_owned(), delay_us.to_string()));
        } else if delay_us > 0 {
            let library = options.slow_sync.as_ref()?;
            env.push(("LD_PRELOAD".to_owned(), library.display().to_string()));
            env.push(("SLOW_SYNC_US".to_owned(), delay_us.to_string()));
        }
        Some(Kind {
            env,
            ..kind.clone()
        })
    };
    kinds.iter().filter_map(slow).collect()
}

/// Durable writes alone, reads alone, and both at once. Readers have a thread of their own that goes before the
/// writers' on the load's core.
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
    let names = [
        ("SET alone", "k/s", false),
        ("  by redis-benchmark", "k/s", false),
        ("SET beside GET", "k/s", false),
        ("GET alone", "k/s", false),
        ("GET beside SET", "k/s", false),
        ("GET alone p50", "ms", true),
        ("GET alone p99", "ms", true),
        ("GET beside p50", "ms", true),
        ("GET beside p99", "ms", true),
        ("  p50 to alone", "x", true),
        ("  p99 to alone", "x", true),
        ("GET beside max", "ms", true),
    ];
    let by_delay: Vec<(u64, Vec<Kind>)> = options
        .sync_delays
        .iter()
        .map(|&delay_us| (delay_us, slowed(options, kinds, delay_us)))
        .collect();
    let mut figures: Vec<_> = by_delay
        .iter()
        .map(|(_, kinds)| vec![vec![Vec::new(); kinds.len()]; names.len()])
        .collect();
    let time = Duration::from_millis(options.ms);
    let warm = Duration::from_millis(200);
    for _ in 0..options.rounds {
        for ((delay_us, kinds), figures) in by_delay.iter().zip(&mut figures) {
            for (index, kind) in kinds.iter().enumerate() {
                let files = match delay_us {
                    0 => &options.files,
                    _ => &options.slow_files,
                };
                let server = Server::start(kind, &ALWAYS, files)?;
                load::fill(server.addr, keys, false)?;
                let run = |groups: &[Group]| load::run_apart(server.addr, keys, groups, warm, time);
                let set = run(&[writers])?;
                let rate = |done: &load::Done| done.ops as f64 / time.as_secs_f64() / 1000.0;
                figures[0][index].push(rate(&set[0]));
                if let Some(program) = &options.redis_benchmark {
                    let ops = set[0].ops;
                    figures[1][index].push(load::redis_benchmark(program, server.addr, keys, writers, ops)?);
                }
                // In turn and more than once, so that neither has the machine's better moments to itself.
                for _ in 0..PAIRS {
                    let alone = run(&[readers])?;
                    let both = run(&[writers, readers])?;
                    let (before, beside) = (&alone[0], &both[1]);
                    let all = [
                        rate(&both[0]),
                        rate(before),
                        rate(beside),
                        before.ms(50.0),
                        before.ms(99.0),
                        beside.ms(50.0),
                        beside.ms(99.0),
                        beside.ms(50.0) / before.ms(50.0),
                        beside.ms(99.0) / before.ms(99.0),
                        beside.ms(100.0),
                    ];
                    for (figure, value) in figures[2..].iter_mut().zip(all) {
                        figure[index].push(value);
                    }
                }
                if kind.is_ours {
                    let sync_us = server.info("persistence", "aof_sync_us")?;
                    let at_once = server.info("persistence", "aof_syncs_at_once")?;
                    println!(
                        "{} +{delay_us} us: a sync took {sync_us} us of late, {at_once} at once",
                        kind.name
                    );
                }
                drop(server);
                // Disks of virtual machines give so many syncs a second only for a while.
                std::thread::sleep(Duration::from_secs(if options.quick { 1 } else { 5 }));
            }
        }
    }
    for ((delay_us, kinds), figures) in by_delay.iter().zip(figures) {
        match delay_us {
            0 => println!("## the disk as it is"),
            _ => println!(
                "## syncs {delay_us} us slower: omniring by its own OMNIRING_KV_SYNC_DELAY_US, others by slow_sync.c"
            ),
        }
        for ((name, unit, less), values) in names.into_iter().zip(figures) {
            let values: Vec<f64> = values.into_iter().map(median).collect();
            row(name, unit, kinds, &values, less);
        }
    }
    Ok(())
}

/// Reads and writes while a snapshot of all keys is written: 2 GB of values, unless it is to be quick.
fn snapshot(options: &Options, kinds: &[Kind]) -> Result<()> {
    let keys = Keys {
        count: options.keys * 2,
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
    let names = [
        ("GET p50 quiet", "ms"),
        ("GET p50 saving", "ms"),
        ("GET p99 quiet", "ms"),
        ("GET p99 saving", "ms"),
        ("  p99 to quiet", "x"),
        ("GET max quiet", "ms"),
        ("GET max saving", "ms"),
        ("longest slice", "ms"),
        ("memory", "MiB"),
        ("more while saving", "%"),
        ("snapshot took", "s"),
    ];
    let mut figures = vec![vec![f64::NAN; kinds.len()]; names.len()];
    for (index, kind) in kinds.iter().enumerate() {
        let server = Server::start(kind, &EVERY_SECOND, &options.files)?;
        load::fill(server.addr, keys, false)?;
        // A log that has grown has begun a snapshot by itself.
        wait_for_snapshot(&server)?;
        let time = Duration::from_millis(options.ms);
        let groups = [writers, readers];
        let warm = Duration::from_millis(200);
        let mut quiet = load::Done::default();
        for _ in 0..options.rounds {
            let mut done = load::run_apart(server.addr, keys, &groups, warm, time)?;
            quiet.add(done.swap_remove(1));
        }
        let before = server.rss()?;
        let asked = server.ask("BGSAVE")?;
        if asked.starts_with('-') {
            println!("{}: {}", kind.name, asked.trim());
            continue;
        }
        let begun = Instant::now();
        let (mut during, mut most, mut is_running) = (load::Done::default(), before, true);
        while is_running && begun.elapsed() < Duration::from_secs(60) {
            let mut done = load::run_apart(server.addr, keys, &groups, Duration::ZERO, time / 2)?;
            during.add(done.swap_remove(1));
            most = most.max(server.rss()?);
            is_running = is_saving(&server)?;
        }
        let took = begun.elapsed();
        // What a fork has copied is the child's.
        let copied = server.info("persistence", "rdb_last_cow_size")?;
        let slice_us = server.info("persistence", "snapshot_longest_slice_us")?;
        let extra = most.saturating_sub(before) + copied;
        let all = [
            quiet.ms(50.0),
            during.ms(50.0),
            quiet.ms(99.0),
            during.ms(99.0),
            during.ms(99.0) / quiet.ms(99.0),
            quiet.ms(100.0),
            during.ms(100.0),
            slice_us as f64 / 1000.0,
            before as f64 / 1048576.0,
            100.0 * extra as f64 / before as f64,
            took.as_secs_f64(),
        ];
        for (figure, value) in figures.iter_mut().zip(all) {
            figure[index] = value;
        }
    }
    for ((name, unit), values) in names.into_iter().zip(figures) {
        row(name, unit, kinds, &values, true);
    }
    Ok(())
}

fn is_saving(server: &Server) -> Result<bool> {
    let fields = ["rdb_bgsave_in_progress", "aof_rewrite_in_progress"];
    let states = fields.map(|field| server.info("persistence", field));
    Ok(states
        .into_iter()
        .collect::<Result<Vec<u64>>>()?
        .iter()
        .any(|&state| state != 0))
}

fn wait_for_snapshot(server: &Server) -> Result<()> {
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(300));
    while is_saving(server)? {
        anyhow::ensure!(
            begun.elapsed() < Duration::from_secs(120),
            "a snapshot does not end"
        );
        std::thread::sleep(Duration::from_millis(100));
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
