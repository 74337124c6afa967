//! The order of measuring: within a workload the subjects of all contenders are
//! up at once, and short slices of them alternate until each has had its time.
//!
//! Machines are noisy and processors change their clock, so that only figures
//! taken next to each other compare. A round is one slice of every contender,
//! in an order that is shuffled anew each round, and ratios are taken within
//! rounds. The first slice of each subject is a warm-up and is not counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::affinity;
use crate::contender::Contender;
use crate::error::plain;
use crate::fio;
use crate::load::Load;
use crate::measure::{Slice, median};
use crate::progress::Progress;
use crate::row::{Reference, References, Row};
use crate::subject::child::{Absence, SubjectProcess, command};
use crate::subject::{FLOOR, MAPPING, Spec};
use crate::target::Target;
use crate::workload::{Shape, Source, Workload};

/// Longest slice: short against the time in which the machine changes.
const SLICE_MAX: Duration = Duration::from_millis(250);

/// Shortest slice: long against its own start and end.
const SLICE_MIN: Duration = Duration::from_millis(50);

/// Rounds that are wanted before slices grow longer.
const ROUNDS_WANTED: u32 = 12;

/// Time that the load keeps on for after a slice, so that the server is never
/// without load before its slice ends.
const LOAD_MARGIN: Duration = Duration::from_millis(15);

/// Share of its core below which a server under many connections is idle enough
/// for its rate to say more about the load than about the server.
const SATURATED: f64 = 0.93;

/// The engine with a kernel thread that submits.
const SUBMISSION_THREAD_ENGINE: &str = "uring-sqpoll";

/// Up to so many cores that thread has none to itself.
const CORES_STARVED: usize = 2;

/// Share of the bytes read that may come from the device in a row that is to be
/// served by the page cache.
const COLD_SHARE_MAX: f64 = 0.01;

/// How long each row is measured for, and in what pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Length of a slice.
    pub slice: Duration,
    /// Slices for each row.
    pub rounds: u32,
    /// Length of the uncounted first slice.
    pub warm_up: Duration,
    /// Whether a last slice counts system calls.
    pub counts_syscalls: bool,
}

impl Plan {
    /// The plan for rows of so many seconds.
    pub fn for_seconds(seconds: f64) -> Plan {
        let total = Duration::from_secs_f64(seconds);
        let slice = (total / ROUNDS_WANTED).clamp(SLICE_MIN, SLICE_MAX).min(total);
        let rounds = (total.as_secs_f64() / slice.as_secs_f64()).round().max(1.0);
        let warm_up = slice.min(Duration::from_millis(100));
        Plan { slice, rounds: rounds as u32, warm_up, counts_syscalls: false }
    }

    /// Time that one row is measured for.
    pub fn row(&self) -> Duration {
        self.slice * self.rounds
    }

    /// Time for one row that runs in slices, those that do not count included.
    pub fn lane(&self) -> Duration {
        let counting = if self.counts_syscalls { SLICE_MIN } else { Duration::ZERO };
        self.warm_up + self.row() + counting
    }
}

/// One contender of a workload that runs in slices.
struct Lane {
    name: String,
    state: Result<SubjectProcess, Absence>,
    load: Option<Load>,
    slices: Vec<Slice>,
    syscalls_per_op: Option<f64>,
}

/// Measures one workload, and returns a row for each contender, in their order.
pub fn run(
    workload: &Workload,
    contenders: &[&Contender],
    plan: Plan,
    target: Option<&Target>,
    progress: &Progress,
) -> Vec<Row> {
    if let Some(Err(error)) = target.map(|target| prepare_cache(workload, target)) {
        let absence = Absence::Failed(format!("cannot prepare the file: {}", plain(&error)));
        let absent =
            |contender: &&Contender| Row::absent(&contender.name(), workload, absence.clone());
        return contenders.iter().map(absent).collect();
    }
    let sliced = contenders.iter().filter(|contender| !matches!(contender, Contender::Fio(_)));
    let mut lanes: Vec<Lane> = sliced
        .map(|contender| Lane {
            name: contender.name(),
            state: start(&contender.name(), workload, target),
            load: None,
            slices: Vec::new(),
            syscalls_per_op: None,
        })
        .collect();
    alternate(workload, &mut lanes, plan, progress);
    let references = references(&lanes);
    let mut lanes = lanes.into_iter();
    let mut rows = Vec::new();
    for contender in contenders {
        progress.at(format!("{}  {}", workload.name, contender.name()));
        let row = match (contender, target) {
            (Contender::Fio(backend), Some(target)) => {
                run_fio(*backend, workload, plan, target, &references)
            }
            (Contender::Fio(_), None) => unreachable!("fio runs only file workloads"),
            _ => finish(workload, lanes.next().expect("a lane for each"), &references),
        };
        rows.push(row);
        progress.done(1);
    }
    rows
}

/// Brings the file into, or out of, the page cache.
fn prepare_cache(workload: &Workload, target: &Target) -> std::io::Result<()> {
    match workload.shape {
        Shape::Read { source: Source::Device, .. } => target.leave_page_cache(),
        Shape::Read { source: Source::PageCache, .. } => target.enter_page_cache(),
        Shape::WriteSync { .. } | Shape::Echo { .. } | Shape::Cores(_) => Ok(()),
    }
}

fn file_and_span(workload: &Workload, target: Option<&Target>) -> (Option<PathBuf>, u64) {
    let Some(target) = target.filter(|_| workload.is_file()) else {
        return (None, 0);
    };
    match workload.shape {
        Shape::WriteSync { .. } => {
            (target.write_path().map(ToOwned::to_owned), target.write_bytes())
        }
        Shape::Read { source: Source::PageCache, .. } => {
            (Some(target.path().to_owned()), target.hot_bytes())
        }
        _ => (Some(target.path().to_owned()), target.bytes()),
    }
}

fn start(
    name: &str,
    workload: &Workload,
    target: Option<&Target>,
) -> Result<SubjectProcess, Absence> {
    let workload = Workload::named(workload.name).expect("a workload of the closed list");
    let (file, span) = file_and_span(workload, target);
    // An echo server has a core of its own; file rows may use what they can.
    let core = match workload.shape {
        Shape::Echo { .. } => affinity::cores().first().copied(),
        _ => None,
    };
    let spec = Spec { engine: name.to_owned(), workload, file, span, core };
    let command = command(&spec)
        .map_err(|error| Absence::Failed(format!("cannot find this program: {}", plain(&error))))?;
    SubjectProcess::start(command)
}

fn alternate(workload: &Workload, lanes: &mut [Lane], plan: Plan, progress: &Progress) {
    for lane in lanes.iter_mut() {
        lane.step(workload, plan.warm_up);
        lane.slices.clear();
    }
    let mut order: Vec<usize> = (0..lanes.len()).collect();
    let mut random = fastrand::Rng::with_seed(1);
    for round in 1..=plan.rounds {
        progress.at(format!("{}  round {round} of {}", workload.name, plan.rounds));
        random.shuffle(&mut order);
        for &index in &order {
            lanes[index].step(workload, plan.slice);
        }
    }
    if plan.counts_syscalls {
        for lane in lanes.iter_mut() {
            lane.count_syscalls(workload);
        }
    }
}

impl Lane {
    /// One slice, or nothing if the row has failed before.
    fn step(&mut self, workload: &Workload, length: Duration) {
        if let Some(slice) = self.slice(workload, length, false) {
            self.slices.push(slice);
        }
    }

    /// One slice that counts for nothing but its system calls.
    fn count_syscalls(&mut self, workload: &Workload) {
        let slice = self.slice(workload, SLICE_MIN, true);
        self.syscalls_per_op = slice.and_then(|slice| slice.syscalls_per_op());
    }

    fn slice(
        &mut self,
        workload: &Workload,
        length: Duration,
        count_syscalls: bool,
    ) -> Option<Slice> {
        let process = self.state.as_mut().ok()?;
        let outcome = match (workload.shape, process.port()) {
            (Shape::Echo { connections }, Some(port)) => {
                let load = &mut self.load;
                echo_slice(process, load, port, connections, length, count_syscalls)
            }
            (Shape::Echo { .. }, None) => {
                Err(Absence::Failed("the echo server has no port".to_owned()))
            }
            _ => process.run(length, count_syscalls),
        };
        match outcome {
            Ok(slice) => Some(slice),
            Err(absence) => {
                self.state = Err(absence);
                None
            }
        }
    }
}

/// A slice of an echo server, with its load on the last core meanwhile.
fn echo_slice(
    process: &mut SubjectProcess,
    load: &mut Option<Load>,
    port: u16,
    connections: usize,
    length: Duration,
    count_syscalls: bool,
) -> Result<Slice, Absence> {
    let (slice, served) = std::thread::scope(|scope| {
        let generator = scope.spawn(|| {
            let load = match load {
                Some(load) => load,
                None => {
                    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    let core = affinity::cores().last().copied();
                    load.insert(Load::connect(address, connections, core)?)
                }
            };
            load.run(length + LOAD_MARGIN)
        });
        let slice = process.run(length, count_syscalls);
        (slice, generator.join().expect("the load generator does not panic"))
    });
    let mut slice = slice?;
    let served = served.map_err(|error| match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Absence::Skipped(format!(
            "{connections} connections for each engine need more open files; raise ulimit -n"
        )),
        _ => Absence::Failed(format!("the load generator: {}", plain(&error))),
    })?;
    slice.latency = served.latency;
    Ok(slice)
}

fn references(lanes: &[Lane]) -> References {
    let of = |name| {
        let lane = lanes.iter().find(|lane| lane.name == name && lane.state.is_ok())?;
        Some(Reference::of(&lane.slices)).filter(|_| !lane.slices.is_empty())
    };
    References { uring: of("uring"), floor: of(FLOOR) }
}

fn finish(workload: &Workload, lane: Lane, references: &References) -> Row {
    let process = match lane.state {
        Ok(process) => process,
        Err(absence) => return Row::absent(&lane.name, workload, absence),
    };
    drop(lane.load);
    process.finish();
    let mut row = Row::of_slices(&lane.name, workload, &lane.slices, references);
    row.syscalls_per_op = lane.syscalls_per_op;
    row.warning = match workload.shape {
        _ if lane.name == SUBMISSION_THREAD_ENGINE => starved(affinity::cores().len()),
        Shape::Read { .. } if lane.name == MAPPING => Some(
            "copies out of the mapping one after the other on one thread: nothing is in flight, \
             whatever the depth of the row"
                .to_owned(),
        ),
        _ => None,
    }
    .or_else(|| match workload.shape {
        Shape::Echo { connections: 2.. } => unsaturated(&lane.slices),
        Shape::Read { source: Source::PageCache, block, .. } => cold(&lane.slices, block),
        _ => None,
    });
    row
}

/// What a submission thread means for the figures on so many cores.
fn starved(cores: usize) -> Option<String> {
    (cores <= CORES_STARVED).then(|| {
        format!(
            "its submission thread, whose time is in its figures, wants a core of its own: with \
             {cores} in all it takes it from the subject, the load or the disk's interrupts"
        )
    })
}

fn unsaturated(slices: &[Slice]) -> Option<String> {
    let busy = |slice: &Slice| slice.usage.cpu_us() as f64 / slice.elapsed.as_micros() as f64;
    let busy = median(slices.iter().map(busy))?;
    (busy < SATURATED).then(|| {
        format!(
            "the server used only {:.0} % of its core: the load generator or other programs \
             limit its rate, so compare the processor time per op",
            busy * 100.0
        )
    })
}

fn cold(slices: &[Slice], block: usize) -> Option<String> {
    let fetched: u64 = slices.iter().filter_map(|slice| slice.device_bytes).sum();
    let read: u64 = slices.iter().map(|slice| slice.ops * block as u64).sum();
    let share = fetched as f64 / read.max(1) as f64;
    (share > COLD_SHARE_MAX).then(|| {
        format!("{:.0} % of the bytes came from the device, not the page cache", share * 100.0)
    })
}

fn run_fio(
    backend: fio::Backend,
    workload: &Workload,
    plan: Plan,
    target: &Target,
    references: &References,
) -> Row {
    let (file, span) = file_and_span(workload, Some(target));
    let Some(file) = file else {
        let absence = Absence::Failed("there is no file to write".to_owned());
        return Row::absent(backend.name(), workload, absence);
    };
    match fio::run(backend, workload, &file, span, plan.row()) {
        Ok(result) => {
            let mut row = Row::of_fio(backend.name(), workload, &result, references);
            if let Shape::WriteSync { .. } = workload.shape {
                row.warning = Some("its latencies are those of fdatasync alone".to_owned());
            }
            row
        }
        Err(absence) => Row::absent(backend.name(), workload, absence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Usage;

    #[test]
    fn plans_fill_the_time_given() {
        for seconds in [0.05, 0.2, 0.5, 1.5, 2.0, 10.0, 60.0] {
            let plan = Plan::for_seconds(seconds);
            assert!((plan.row().as_secs_f64() / seconds - 1.0).abs() < 0.05, "{plan:?}");
            assert!(plan.slice <= SLICE_MAX && plan.rounds >= 1);
        }
        assert_eq!(Plan::for_seconds(0.2).rounds, 4);
        assert_eq!(Plan::for_seconds(3.0).slice, SLICE_MAX);
    }

    #[test]
    fn an_idle_server_and_a_cold_cache_are_told() {
        let slice = |cpu_us, device_bytes| Slice {
            ops: 10,
            elapsed: Duration::from_millis(100),
            usage: Usage { user_us: cpu_us, ..Usage::default() },
            device_bytes,
            ..Slice::default()
        };
        assert_eq!(unsaturated(&[slice(99_000, None)]), None);
        assert!(unsaturated(&[slice(50_000, None)]).unwrap().contains("50 %"));
        assert_eq!(cold(&[slice(0, Some(0))], 4096), None);
        assert!(cold(&[slice(0, Some(4096))], 4096).unwrap().contains("10 %"));
    }
}
