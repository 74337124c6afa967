//! The server is killed at random moments under load, started again, and compared with what its clients know.
//!
//! Each writer has keys of its own and a model of them. A connection's requests are carried out in order, so
//! after a crash its keys have to be as after the first so many requests: at least those that were answered, at
//! most those that were sent. That says at once that nothing acknowledged is lost, that nothing is half there
//! (a transaction is one request, and so is an MSET), and that nothing was made up. A read, of a key or of several
//! at one moment, has to fit into what survived: what it showed was there after some request that was not
//! superseded when the read began, and that has survived.
//! Between writers, units are moved from one account to another by transactions: their sum is 0, always.
// A test of a process from outside: real time, and what it did is shown with its seed.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

mod kv_support;

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kv_support::ledger::{Model, Op, Random};
use kv_support::{Answer, Client, Server, encode};

const WRITERS: usize = 3;
const READERS: usize = 4;

/// Servers at the same time: they wait for the disk, mostly.
const LANES: u64 = 2;

const ACCOUNTS: usize = 4;

/// The longest life of a server, where it does not come to as many requests as it was to.
const LIFE_MAX: Duration = Duration::from_millis(150);

/// What is known of a writer, for its readers also: requests sent and answered in this life of the server.
#[derive(Default)]
struct Progress {
    sent: AtomicUsize,
    answered: AtomicUsize,
}

/// Sends requests, `depth` at most without an answer, until the server goes. How many were sent.
fn write(mut client: Client, seed: u64, writer: usize, base: &Model, at: &Progress) -> usize {
    let mut random = Random::new(seed ^ writer as u64);
    let depth = if writer == 0 { 1 } else { 1 + random.below(30) as usize };
    let mut model = base.clone();
    let (mut sent, mut waiting) = (0, VecDeque::new());
    loop {
        let mut request = Vec::new();
        while waiting.len() < depth {
            let op = Op::nth(seed, writer, sent);
            op.encode(&mut request);
            let expected = model.apply(&op);
            waiting.push_back((op, expected));
            sent += 1;
        }
        at.sent.store(sent, Ordering::SeqCst);
        if client.stream.write_all(&request).is_err() {
            return sent;
        }
        for _ in 0..1 + random.below(waiting.len() as u64) {
            let (op, expected) = waiting.pop_front().expect("something was sent");
            match op.answers(&mut client) {
                Ok(answers) => assert_eq!(answers, expected, "writer {writer}, {op:?}"),
                Err(_) => return sent,
            }
            at.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A read: of whom, what and the answers, and which requests were answered before it, and sent until after it.
struct Seen {
    writer: usize,
    op: Op,
    answers: Vec<Answer>,
    from: usize,
    to: usize,
}

fn read(mut client: Client, seed: u64, progress: &[Progress]) -> Vec<Seen> {
    let mut random = Random::new(seed);
    let mut seen = Vec::new();
    loop {
        let writer = random.below(WRITERS as u64) as usize;
        let op = Op::read_some(&mut random, writer);
        let from = progress[writer].answered.load(Ordering::SeqCst);
        let Ok(answers) = op.call(&mut client) else {
            return seen;
        };
        let to = progress[writer].sent.load(Ordering::SeqCst);
        seen.push(Seen { writer, op, answers, from, to });
        let accounts: Vec<String> = (0..ACCOUNTS).map(account).collect();
        let mut words = vec!["MGET"];
        words.extend(accounts.iter().map(String::as_str));
        match client.call(&words) {
            Ok(balances) => {
                assert_eq!(sum(&balances), 0, "half of a transaction shows: {balances:?}")
            }
            Err(_) => return seen,
        }
    }
}

fn account(index: usize) -> String {
    format!("account{index}")
}

fn number(bytes: &[u8]) -> i64 {
    let number = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    number.expect("a number")
}

fn sum(balances: &Answer) -> i64 {
    let Answer::Array(balances) = balances else { panic!("{balances:?}") };
    let of = |balance: &Answer| match balance {
        Answer::Nil => 0,
        Answer::Bulk(balance) => number(balance),
        other => panic!("{other:?}"),
    };
    balances.iter().map(of).sum::<i64>()
}

/// Moves units between accounts, and counts how often. Transactions sent and answered.
fn bank(mut client: Client, seed: u64, name: &str) -> (i64, i64) {
    let mut random = Random::new(seed);
    let mut answered = 0;
    loop {
        let from = random.below(ACCOUNTS as u64) as usize;
        let to = (from + 1 + random.below(ACCOUNTS as u64 - 1) as usize) % ACCOUNTS;
        let mut request = Vec::new();
        encode(&mut request, &["MULTI"]);
        encode(&mut request, &["INCRBY", &account(from), "-3"]);
        encode(&mut request, &["INCR", name]);
        encode(&mut request, &["INCRBY", &account(to), "3"]);
        encode(&mut request, &["EXEC"]);
        if client.stream.write_all(&request).is_err() {
            return (answered + 1, answered);
        }
        for _ in 0..5 {
            if client.answer().is_err() {
                return (answered + 1, answered);
            }
        }
        answered += 1;
    }
}

/// What survived, by everybody's models.
struct World {
    models: Vec<Model>,
    moves: [i64; 2],
    requests: usize,
    reads: usize,
}

/// One life of the server under load, its end, and what is there afterwards.
fn cycle(server: &mut Server, world: &mut World, start: impl Fn() -> Server, seed: u64) {
    let mut random = Random::new(seed);
    let progress: Vec<Progress> = (0..WRITERS).map(|_| Progress::default()).collect();
    let saves = random.below(3) == 0;
    // A new server is busy with making room for its log: some ends come then, others when it is at full speed.
    let life = Duration::from_micros(5_000 + random.below(60_000));
    let requests = if random.below(2) == 0 { 0 } else { random.below(400) as usize };
    let clients: Vec<Client> = (0..WRITERS + READERS + 2).map(|_| server.connect()).collect();
    let mut saver = server.connect();
    let mut clients = clients.into_iter();
    let mut client = || clients.next().expect("there are as many as are asked for");
    let (written, seen, moved) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, base) = (client(), &world.models[writer]);
                let at = &progress[writer];
                scope.spawn(move || write(client, seed, writer, base, at))
            })
            .collect();
        let bankers = ["moves0", "moves1"].map(|name| {
            let client = client();
            scope.spawn(move || bank(client, seed ^ u64::from(name.as_bytes()[5]), name))
        });
        let progress = &progress;
        let readers: Vec<_> = (0..READERS as u64)
            .map(|reader| {
                let client = client();
                scope.spawn(move || read(client, seed ^ (0x5555 + reader), progress))
            })
            .collect();
        // How long the load lasts is what is tried out, not what anything waits for.
        let began = Instant::now();
        let answered =
            || progress.iter().map(|at| at.answered.load(Ordering::SeqCst)).sum::<usize>();
        std::thread::sleep(life);
        while answered() < requests && began.elapsed() < LIFE_MAX {
            std::thread::sleep(Duration::from_micros(random.below(2_000)));
        }
        if saves {
            let _ = saver.call(&["BGSAVE"]);
            std::thread::sleep(Duration::from_micros(random.below(4_000)));
        }
        server.kill();
        let written: Vec<usize> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        let seen: Vec<Seen> = readers.into_iter().flat_map(|r| r.join().unwrap()).collect();
        (written, seen, bankers.map(|banker| banker.join().unwrap()))
    });

    *server = start();
    let mut client = server.connect();
    for (writer, &sent) in written.iter().enumerate() {
        let all = Op::read_all(writer);
        let found = all.call(&mut client).expect("the server answers");
        let answered = progress[writer].answered.load(Ordering::SeqCst);
        world.requests += answered;
        let mut states = vec![world.models[writer].clone()];
        for n in 0..sent {
            let mut next = states[n].clone();
            next.apply(&Op::nth(seed, writer, n));
            states.push(next);
        }
        let survived = (0..=sent).rev().find(|&n| states[n].apply(&all) == found);
        let Some(survived) = survived.filter(|&survived| survived >= answered) else {
            let expected = &states[answered];
            panic!(
                "writer {writer}: {answered} of {sent} requests were answered, and what is there is that after \
                 {survived:?}: {found:?}\ninstead of {expected:?}"
            );
        };
        for seen in seen.iter().filter(|seen| seen.writer == writer) {
            let to = seen.to.min(survived);
            let fits = (seen.from..=to).any(|n| states[n].apply(&seen.op) == seen.answers);
            assert!(
                fits,
                "a read showed {:?} = {:?}, which is lost or was never there between requests {} and {}, of which \
                 {survived} survived",
                seen.op, seen.answers, seen.from, seen.to
            );
        }
        world.models[writer] = states.swap_remove(survived);
    }
    world.reads += seen.len();
    for (index, (sent, answered)) in moved.into_iter().enumerate() {
        let found = match client.call(&["GET", &format!("moves{index}")]).unwrap() {
            Answer::Bulk(found) => number(&found),
            _ => 0,
        };
        let before = world.moves[index];
        assert!(
            (before + answered..=before + sent).contains(&found),
            "banker {index}: {found} transactions, of {answered} answered and {sent} sent after {before}"
        );
        world.moves[index] = found;
        world.requests += answered as usize;
    }
    let accounts: Vec<String> = (0..ACCOUNTS).map(account).collect();
    let mut words = vec!["MGET"];
    words.extend(accounts.iter().map(String::as_str));
    assert_eq!(sum(&client.call(&words).unwrap()), 0, "a transaction is half there");
}

/// Cycles on one engine: OMNIRING_KILLS of them, or a third of 200.
fn run(engine: &str, appendonly: &str) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cycles = number("OMNIRING_KILLS").unwrap_or(67);
    let clock = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    let seed = number("OMNIRING_KILL_SEED").unwrap_or(clock) | 1;
    println!("{engine}: OMNIRING_KILL_SEED={seed}");
    let began = Instant::now();
    let (requests, reads) = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let cycles = (cycles + lane) / LANES;
                scope.spawn(move || run_lane(lane, engine, appendonly, cycles, seed ^ (lane << 60)))
            })
            .collect();
        lanes.into_iter().fold((0, 0), |(requests, reads), lane| match lane.join() {
            Ok(world) => (requests + world.requests, reads + world.reads),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    });
    assert!(requests > 0 && reads > 0, "there was no load");
    println!(
        "{engine}: {cycles} kills, {requests} requests acknowledged and {reads} reads, all there, in {:.1} s",
        began.elapsed().as_secs_f64()
    );
}

/// One server after the other, in a directory of their own: on the disk, or in memory.
fn run_lane(lane: u64, engine: &str, appendonly: &str, cycles: u64, seed: u64) -> World {
    // What a process leaves behind does not depend on the disk; without one it gets further in the same time.
    let memory = Path::new("/dev/shm");
    let dir = match lane {
        1 if memory.is_dir() => tempfile::tempdir_in(memory),
        _ => tempfile::tempdir(),
    };
    let dir = dir.expect("a scratch directory");
    let mut world =
        World { models: vec![Model::default(); WRITERS], moves: [0; 2], requests: 0, reads: 0 };
    let options = |cycle: u64| {
        let cores = if cycle.is_multiple_of(2) { "2" } else { "1" };
        ["--engine", engine, "--cores", cores, "--appendonly", appendonly]
    };
    // In half of the lives syncs are slow and several are under way at once.
    let slow = [("OMNIRING_KV_SYNC_DELAY_US", "500"), ("OMNIRING_KV_SYNCS_AT_ONCE", "4")];
    let start = |cycle: u64| {
        let variables = if cycle % 4 < 2 { &slow[..] } else { &[] };
        Server::start_in(dir.path(), &options(cycle), variables)
    };
    let mut server = start(0);
    for index in 0..cycles {
        let seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(index << 1) | 1;
        cycle(&mut server, &mut world, || start(index + 1), seed);
    }
    world
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_nine_on_uring() {
    run("uring", "yes");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_nine_on_aio() {
    run("aio", "yes");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_nine_on_epoll() {
    run("epoll", "yes");
}

/// What the others prove, they could not miss.
#[test]
#[should_panic(expected = "requests were answered")]
fn what_is_lost_without_a_log_is_noticed() {
    run("epoll", "no");
}
