//! A soak: random work with random cancels on each engine for a while, and after every bit of it
//! the question whether something is left behind.
//!
//! `tests/soak.sh`, or `cargo run --release --example soak -- --engine uring,epoll --seconds 60`
//!
//! Each engine has a process of its own, this program again. In it runtimes come and go; in a
//! runtime there are phases; in a phase tasks do what [`work`] has, and cancel or drop much of it.
//! After a phase the runtime has to be as it was before: no op in flight, no task, no buffer
//! lent, no descriptor more. After a runtime the process has to be: no thread more, no heap, and in
//! the long run no resident memory. Every third runtime or so is dropped in the midst of it all.
//!
//! What is done follows from the seed, which is printed; when it happens does not.

#[path = "../arguments/mod.rs"]
mod arguments;
mod ledger;
mod work;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use omniring::time::{now, sleep};
use omniring::{ENGINE_VARIABLE, Engine, Runtime, Stats, spawn};

use ledger::{Allocator, Holdings};
use work::{Phase, Tally};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Works at random on each engine and looks whether anything is left behind.
#[derive(Parser)]
#[command(name = "soak")]
struct Arguments {
    /// Engines, comma separated; all of them if left out
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    engine: Vec<Engine>,
    /// Seconds for each engine; without it the engines share ten minutes
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Repeats the choices of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// Where files are made, and removed again
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// Leave something behind on purpose, to see that it is found
    #[arg(long, value_name = "WHAT")]
    plant: Option<Plant>,
    /// Runs one engine in this process
    #[arg(long, hide = true)]
    alone: bool,
}

/// What can be left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Plant {
    /// A descriptor after each phase.
    Descriptor,
    /// A task that never ends.
    Task,
    /// An op that never ends.
    Op,
    /// A thread.
    Thread,
    /// A buffer of a fixed pool.
    Fixed,
    /// A leased buffer.
    Lease,
    /// A few bytes of heap for each op.
    Heap,
    /// Memory that the allocator does not see.
    Mapping,
}

/// Seconds that all engines share unless told otherwise.
const SECONDS_IN_ALL: u64 = 600;
/// Longest that a process may take beyond its time.
const GRACE: Duration = Duration::from_secs(90);
/// Longest that anything takes that has to go away.
const SOON: Duration = Duration::from_secs(15);
/// How many idle workers the kernel keeps as long as the process lives.
const KERNEL_WORKERS_KEPT: usize = 2;
/// Runtimes before what the process holds has to stay the same.
const WARM_UP_RUNTIMES: u32 = 6;
/// Heap that may be held beyond what was after the warm-up, in bytes: lazily made tables of the
/// standard library, and nothing that grows.
const HEAP_SLACK: usize = 1 << 10;
/// The same for resident memory, which the allocator and the kernel round up.
const RESIDENT_SLACK: usize = 8 << 20;

fn main() -> ExitCode {
    arguments::main(|arguments: &Arguments| {
        let outcome = if arguments.alone { soak_alone(arguments) } else { soak(arguments) };
        outcome.map(|passed| ExitCode::from(u8::from(!passed)))
    })
}

/// Has a process of its own for each engine, one after the other: whether nothing was left behind.
#[expect(clippy::print_stdout, reason = "the result")]
fn soak(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let engines = match arguments.engine.as_slice() {
        [] => Engine::ALL,
        engines => engines,
    };
    let seconds = arguments.seconds.unwrap_or(SECONDS_IN_ALL / engines.len() as u64).max(1);
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}, {seconds} s for each engine");
    let (mut failed, mut ran) = (Vec::new(), 0);
    for &engine in engines {
        if let Err(error) = Runtime::builder().engine(engine).build() {
            println!("{engine}: skipped: {error}");
            continue;
        }
        ran += 1;
        match run_process(arguments, engine, seconds, seed)? {
            Ok(told) => println!("{engine}: {told}"),
            Err(told) => {
                println!("{engine}: FAILED: {told}");
                failed.push(engine.to_string());
            }
        }
    }
    if ran == 0 {
        return Err("no engine ran; omniring doctor says why".into());
    }
    if !failed.is_empty() {
        println!("failed: {}; repeat with --seed {seed}", failed.join(","));
    }
    Ok(failed.is_empty())
}

/// Runs this program again for one engine: the last line that it says.
fn run_process(
    arguments: &Arguments,
    engine: Engine,
    seconds: u64,
    seed: u64,
) -> Result<Result<String, String>, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--alone").args(["--engine", engine.name()]);
    command.args(["--seconds", &seconds.to_string(), "--seed", &seed.to_string()]);
    command.arg("--directory").arg(&arguments.directory);
    if let Some(plant) = arguments.plant.and_then(|plant| plant.to_possible_value()) {
        command.args(["--plant", plant.get_name()]);
    }
    command.env_remove(ENGINE_VARIABLE); // the process has its engine from the command line
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let last_line = |pipe: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let lines = BufReader::new(pipe).lines().map_while(Result::ok);
            let told = |line: &String| !line.is_empty() && !line.starts_with("note:");
            let line = lines.filter(told).last().unwrap_or_default();
            line.trim_start_matches("soak: ").to_owned()
        })
    };
    let said = last_line(Box::new(child.stdout.take().expect("it is piped")));
    let complained = last_line(Box::new(child.stderr.take().expect("it is piped")));
    let limit = now() + Duration::from_secs(seconds) + GRACE;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if now() < limit => std::thread::sleep(Duration::from_millis(50)),
            None => {
                child.kill()?;
                child.wait()?;
                break None;
            }
        }
    };
    let (said, complained) = (said.join(), complained.join());
    let complained = complained.unwrap_or_default();
    Ok(match status {
        Some(status) if status.success() => Ok(said.unwrap_or_default()),
        Some(status) if complained.is_empty() => Err(status.to_string()),
        Some(_) => Err(complained),
        None => Err(format!("it did not end within {} s of its time", GRACE.as_secs())),
    })
}

/// One engine, until its time is over.
#[expect(clippy::print_stdout, reason = "the result")]
fn soak_alone(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let &[engine] = arguments.engine.as_slice() else { return Err("give one --engine".into()) };
    let deadline = now() + Duration::from_secs(arguments.seconds.unwrap_or(1));
    let mut random = fastrand::Rng::with_seed(arguments.seed.unwrap_or_default());
    let scratch = Scratch::new(&arguments.directory)?;
    let tally = Rc::new(Tally::default());
    let at_first = Holdings::now();
    let mut after_warm_up: Option<Holdings> = None;
    let mut runtimes = 0;
    while now() < deadline {
        runtimes += 1;
        let context = |error: String| format!("runtime {runtimes}: {error}");
        run_runtime(engine, arguments.plant, &mut random, &scratch.0, &tally).map_err(context)?;
        // What a ring holds the kernel gives up a moment after it is closed.
        let held = Holdings::once(SOON, |held| {
            held.descriptors <= at_first.descriptors && held.threads <= at_first.threads
        });
        held.compare("descriptors", at_first.descriptors, held.descriptors, 0).map_err(context)?;
        held.compare("threads", at_first.threads, held.threads, 0).map_err(context)?;
        match &after_warm_up {
            None if runtimes >= WARM_UP_RUNTIMES => after_warm_up = Some(held),
            None => {}
            Some(then) => {
                let growth = [
                    ("bytes of heap", then.heap, held.heap, HEAP_SLACK),
                    ("resident bytes", then.resident, held.resident, RESIDENT_SLACK),
                ];
                for (what, then, now, slack) in growth {
                    held.compare(what, then, now, slack).map_err(context)?;
                }
            }
        }
    }
    if after_warm_up.is_none() {
        return Err("the time was over before the warm-up was; give more --seconds".into());
    }
    let held = Holdings::once(SOON, |held| held.kernel_workers <= KERNEL_WORKERS_KEPT);
    held.compare("kernel workers", KERNEL_WORKERS_KEPT, held.kernel_workers, 0)?;
    tally.check()?;
    println!("{runtimes} runtimes, {tally}; at the end {held}");
    Ok(true)
}

/// A directory of our own.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> std::io::Result<Scratch> {
        let path = parent.join(format!("omniring-soak-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One runtime from its beginning to its end.
fn run_runtime(
    engine: Engine,
    plant: Option<Plant>,
    random: &mut fastrand::Rng,
    scratch: &Path,
    tally: &Rc<Tally>,
) -> Result<(), String> {
    let runtime = Runtime::builder()
        .engine(engine)
        // Few machines have a device with polled queues.
        .allow_unpolled(true)
        .queue_entries(*random.choice(&[8, 64, 256]).expect("there are some"))
        .threads_max(random.usize(1..6))
        .direct_descriptors(*random.choice(&[0, 8, 1024]).expect("there are some"))
        .leases(random.u32(8..64), *random.choice(&[256, 2048, 8192]).expect("there are some"))
        .build()
        .map_err(|error| error.to_string())?;
    let pool = runtime.block_on(async { work::pool(random) })?;
    let phase = |random: &mut fastrand::Rng, length_ms: u64| Phase {
        until: now() + Duration::from_millis(length_ms),
        scratch: scratch.to_owned(),
        pool: pool.clone(),
        tally: tally.clone(),
        heap_planted: plant == Some(Plant::Heap),
        seed: random.u64(..),
    };
    // Once through everything: what a runtime makes once and keeps is there after that.
    runtime.block_on(phase(random, 50).run(random.usize(4..12)));
    let before = settle(&runtime, None)?;
    for _ in 0..random.u32(1..4) {
        let length_ms = random.u64(50..400);
        runtime.block_on(phase(random, length_ms).run(random.usize(1..24)));
        runtime.block_on(plant_in_runtime(plant, &pool));
        settle(&runtime, Some(&before))?;
        let lent = work::lent(&pool);
        if lent > 0 {
            return Err(format!("{lent} buffers of the fixed pool are not back"));
        }
    }
    if random.u32(..3) == 0 {
        // In the midst of it all.
        drop(runtime.spawn(phase(random, 60_000).run(random.usize(1..24))));
        runtime.block_on(sleep(Duration::from_micros(random.u64(..100_000))));
    }
    drop(pool);
    drop(runtime);
    plant_in_process(plant);
    Ok(())
}

/// What a runtime holds when nobody wants anything of it.
struct Rest {
    stats: Stats,
    descriptors: usize,
}

/// Waits until nothing goes on in the runtime, and until it is as it was before.
fn settle(runtime: &Runtime, before: Option<&Rest>) -> Result<Rest, String> {
    let limit = now() + SOON;
    let is_over = |limit: Instant| now() >= limit;
    loop {
        runtime.block_on(sleep(Duration::from_millis(1)));
        let rest = Rest { stats: runtime.stats(), descriptors: Holdings::now().descriptors };
        let Stats { task_count, in_flight_count, leased_count, .. } = rest.stats;
        let found = if task_count > 0 {
            format!("{task_count} tasks have not ended")
        } else if in_flight_count > before.map_or(0, |before| before.stats.in_flight_count) {
            format!("{in_flight_count} ops are in flight though nobody waits for them")
        } else if leased_count > 0 {
            format!("{leased_count} buffers are leased though nobody has them")
        } else if let Some(before) = before.filter(|before| rest.descriptors > before.descriptors) {
            format!("{} descriptors, {} before", rest.descriptors, before.descriptors)
        } else {
            return Ok(rest);
        };
        if is_over(limit) {
            return Err(found);
        }
    }
}

/// Leaves something behind in a runtime.
async fn plant_in_runtime(plant: Option<Plant>, pool: &omniring::buf::FixedPool) {
    match plant {
        Some(Plant::Descriptor) => std::mem::forget(std::fs::File::open("/dev/null")),
        Some(Plant::Task) => drop(spawn(std::future::pending::<()>())),
        Some(Plant::Op) => std::mem::forget(work::endless_op().await),
        Some(Plant::Lease) => std::mem::forget(work::lease().await),
        Some(Plant::Fixed) => std::mem::forget(pool.try_take(1)),
        _ => {}
    }
}

/// Leaves something behind in the process.
fn plant_in_process(plant: Option<Plant>) {
    match plant {
        Some(Plant::Thread) => drop(std::thread::spawn(std::thread::park)),
        Some(Plant::Mapping) => ledger::map_and_forget(2 << 20),
        _ => {}
    }
}
