//! The server is killed at random moments under load, started again, and compared with what its clients know.
//!
//! Each writer has keys of its own and a model of them. A connection's requests are carried out in order, so
//! after a crash its keys have to be as after the first so many requests: at least those that were answered, at
//! most those that were sent. That says at once that nothing acknowledged is lost, that nothing is half there
//! (a transaction is one request), and that nothing was made up. A read has to fit into what survived: its value
//! was there after some request that had not been superseded when the read began and that has survived.
//! Between writers, units are moved from one account to another by transactions: their sum is 0, always.
// A test of a process from outside: real time, and what it did is shown with its seed.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

mod kv_support;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kv_support::{Answer, Client, Server, encode};

const WRITERS: usize = 3;
const ACCOUNTS: usize = 4;

/// A number below `bound`, by xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// A writer's keys, as one client knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    strings: BTreeMap<u64, String>,
    counter: i64,
    list: Vec<String>,
    hash: BTreeMap<String, String>,
}

/// A request, or a transaction: commands that are carried out together.
#[derive(Clone, Debug)]
struct Op {
    commands: Vec<Vec<String>>,
    is_transaction: bool,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

impl Op {
    /// The `n`th request of a writer.
    fn random(random: &mut Random, writer: usize, n: usize) -> Op {
        let count = if random.below(4) == 0 { 2 + random.below(4) } else { 1 };
        let commands = (0..count).map(|_| Op::command(random, writer, n)).collect();
        Op { commands, is_transaction: count > 1 }
    }

    fn command(random: &mut Random, writer: usize, n: usize) -> Vec<String> {
        let key = |name: &str| format!("{writer}:{name}");
        let string = key(&format!("s{}", random.below(4)));
        let field = format!("f{}", random.below(8));
        let n_word = n.to_string();
        match random.below(10) {
            0 => {
                // Longer than a block of the disk, at times.
                let value = format!("{n}:{}", "x".repeat(random.below(6000) as usize));
                words(&["SET", &string, &value])
            }
            1 | 2 => words(&["SET", &string, &n_word]),
            3 | 4 => words(&["INCR", &key("c")]),
            5 => words(&["RPUSH", &key("l"), &n_word]),
            6 => words(&["LTRIM", &key("l"), "-8", "-1"]),
            7 | 8 => words(&["HSET", &key("h"), &field, &n_word]),
            _ => match random.below(3) {
                0 => words(&["HDEL", &key("h"), &field]),
                _ => words(&["DEL", &string]),
            },
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if self.is_transaction {
            encode(out, &["MULTI"]);
        }
        for command in &self.commands {
            encode(out, &command.iter().map(String::as_str).collect::<Vec<_>>());
        }
        if self.is_transaction {
            encode(out, &["EXEC"]);
        }
    }

    /// What the request does, and the answers it gets.
    fn apply(&self, model: &mut Model) -> Vec<Answer> {
        let status = |text: &str| Answer::Status(text.to_owned());
        let answers: Vec<Answer> = self.commands.iter().map(|words| model.apply(words)).collect();
        if !self.is_transaction {
            return answers;
        }
        let queued = answers.iter().map(|_| status("QUEUED"));
        let mut all: Vec<Answer> = [status("OK")].into_iter().chain(queued).collect();
        all.push(Answer::Array(answers));
        all
    }
}

impl Model {
    fn apply(&mut self, words: &[String]) -> Answer {
        let ok = Answer::Status("OK".to_owned());
        let slot = || words[1].as_bytes()[words[1].len() - 1].into();
        match words[0].as_str() {
            "SET" => {
                self.strings.insert(slot(), words[2].clone());
                ok
            }
            "DEL" => Answer::Int(self.strings.remove(&slot()).is_some().into()),
            "INCR" => {
                self.counter += 1;
                Answer::Int(self.counter)
            }
            "RPUSH" => {
                self.list.push(words[2].clone());
                Answer::Int(self.list.len() as i64)
            }
            "LTRIM" => {
                self.list.drain(..self.list.len().saturating_sub(8));
                ok
            }
            "HSET" => {
                Answer::Int(self.hash.insert(words[2].clone(), words[3].clone()).is_none().into())
            }
            "HDEL" => Answer::Int(self.hash.remove(&words[2]).is_some().into()),
            other => unreachable!("{other} is not among the commands"),
        }
    }

    /// What the server has.
    fn read(client: &mut Client, writer: usize) -> Model {
        let mut call = |words: &[&str]| client.call(words).expect("the server answers");
        let key = |name: &str| format!("{writer}:{name}");
        let mut model = Model::default();
        for slot in 0..4 {
            if let Answer::Bulk(value) = call(&["GET", &key(&format!("s{slot}"))]) {
                model.strings.insert(u64::from(b'0') + slot, text(&value));
            }
        }
        if let Answer::Bulk(value) = call(&["GET", &key("c")]) {
            model.counter = text(&value).parse().expect("a counter is a number");
        }
        let strings = |answer| match answer {
            Answer::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Answer::Bulk(item) => text(&item),
                    other => panic!("{other:?} among elements"),
                })
                .collect::<Vec<String>>(),
            other => panic!("{other:?} instead of elements"),
        };
        model.list = strings(call(&["LRANGE", &key("l"), "0", "-1"]));
        let pairs = strings(call(&["HGETALL", &key("h")]));
        model.hash = pairs.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        model
    }

    /// What a GET of one of its keys gives.
    fn get(&self, name: &str) -> Answer {
        let bulk = |text: &String| Answer::Bulk(text.clone().into_bytes());
        match name {
            "c" if self.counter == 0 => Answer::Nil,
            "c" => bulk(&self.counter.to_string()),
            _ => self.strings.get(&name.as_bytes()[1].into()).map_or(Answer::Nil, bulk),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is known of a writer, for its readers also: requests sent and answered in this life of the server.
#[derive(Default)]
struct Progress {
    sent: AtomicUsize,
    answered: AtomicUsize,
}

/// Sends requests, `depth` at most without an answer, until the server goes. What was sent.
fn write(mut client: Client, seed: u64, writer: usize, base: &Model, at: &Progress) -> Vec<Op> {
    let mut random = Random(seed);
    let depth = if writer == 0 { 1 } else { 1 + random.below(30) as usize };
    let mut model = base.clone();
    let (mut ops, mut waiting) = (Vec::new(), VecDeque::new());
    loop {
        let mut request = Vec::new();
        while waiting.len() < depth {
            let op = Op::random(&mut random, writer, ops.len());
            op.encode(&mut request);
            waiting.push_back(op.apply(&mut model));
            ops.push(op);
        }
        at.sent.store(ops.len(), Ordering::SeqCst);
        if client.stream.write_all(&request).is_err() {
            return ops;
        }
        for _ in 0..1 + random.below(waiting.len() as u64) {
            for expected in waiting.pop_front().expect("something was sent") {
                match client.answer() {
                    Ok(answer) => assert_eq!(answer, expected, "writer {writer}"),
                    Err(_) => return ops,
                }
            }
            at.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A read: which key had which value, and which requests were answered before it, and sent until after it.
struct Seen {
    writer: usize,
    name: String,
    value: Answer,
    from: usize,
    to: usize,
}

fn read(mut client: Client, seed: u64, progress: &[Progress]) -> Vec<Seen> {
    let mut random = Random(seed);
    let mut seen = Vec::new();
    loop {
        let writer = random.below(WRITERS as u64) as usize;
        let name = match random.below(5) {
            4 => "c".to_owned(),
            slot => format!("s{slot}"),
        };
        let from = progress[writer].answered.load(Ordering::SeqCst);
        let Ok(value) = client.call(&["GET", &format!("{writer}:{name}")]) else {
            return seen;
        };
        let to = progress[writer].sent.load(Ordering::SeqCst);
        seen.push(Seen { writer, name, value, from, to });
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

fn sum(balances: &Answer) -> i64 {
    let Answer::Array(balances) = balances else { panic!("{balances:?}") };
    let of = |balance: &Answer| match balance {
        Answer::Nil => 0,
        Answer::Bulk(balance) => text(balance).parse().expect("a balance is a number"),
        other => panic!("{other:?}"),
    };
    balances.iter().map(of).sum::<i64>()
}

/// Moves units between accounts, and counts how often. Transactions sent and answered.
fn bank(mut client: Client, seed: u64, name: &str) -> (i64, i64) {
    let mut random = Random(seed);
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
fn cycle(server: &mut Server, world: &mut World, dir: &Path, options: &[&str], seed: u64) {
    let mut random = Random(seed);
    let progress: Vec<Progress> = (0..WRITERS).map(|_| Progress::default()).collect();
    let saves = random.below(3) == 0;
    let life = Duration::from_micros(10_000 + random.below(40_000));
    let clients: Vec<Client> = (0..WRITERS + 3).map(|_| server.connect()).collect();
    let mut saver = server.connect();
    let mut clients = clients.into_iter();
    let mut client = || clients.next().expect("there are as many as are asked for");
    let (written, seen, moved) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, base) = (client(), &world.models[writer]);
                let (at, seed) = (&progress[writer], seed ^ (0x9e37 << (8 * writer)));
                scope.spawn(move || write(client, seed, writer, base, at))
            })
            .collect();
        let bankers = ["moves0", "moves1"].map(|name| {
            let client = client();
            scope.spawn(move || bank(client, seed ^ u64::from(name.as_bytes()[5]), name))
        });
        let reader = client();
        let progress = &progress;
        let reader = scope.spawn(move || read(reader, seed ^ 0x5555, progress));
        // How long the load lasts is what is tried out, not what anything waits for.
        if saves {
            std::thread::sleep(life / 2);
            let _ = saver.call(&["BGSAVE"]);
            std::thread::sleep(Duration::from_micros(random.below(4_000)));
        } else {
            std::thread::sleep(life);
        }
        server.kill();
        let written: Vec<Vec<Op>> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        (written, reader.join().unwrap(), bankers.map(|banker| banker.join().unwrap()))
    });

    *server = Server::start(dir, options);
    let mut client = server.connect();
    for (writer, ops) in written.iter().enumerate() {
        let found = Model::read(&mut client, writer);
        let answered = progress[writer].answered.load(Ordering::SeqCst);
        world.requests += answered;
        let mut states = vec![world.models[writer].clone()];
        for op in ops {
            let mut next = states[states.len() - 1].clone();
            op.apply(&mut next);
            states.push(next);
        }
        let survived = (answered..states.len()).rev().find(|&n| states[n] == found);
        let Some(survived) = survived else {
            let earlier = (0..answered).rev().find(|&n| states[n] == found);
            panic!(
                "writer {writer}: {answered} of {} requests were answered, and what is there is that after {earlier:?}: \
                 {found:?}\ninstead of {:?}",
                ops.len(),
                states[answered],
            );
        };
        for seen in seen.iter().filter(|seen| seen.writer == writer) {
            let to = seen.to.min(survived);
            let fits = (seen.from..=to).any(|n| states[n].get(&seen.name) == seen.value);
            assert!(
                fits,
                "a read showed {}:{} = {:?}, which is lost or was never there between requests {} and {}, of which {survived} survived",
                writer, seen.name, seen.value, seen.from, seen.to
            );
        }
        world.models[writer] = found;
    }
    world.reads += seen.len();
    for (index, (sent, answered)) in moved.into_iter().enumerate() {
        let found = match client.call(&["GET", &format!("moves{index}")]).unwrap() {
            Answer::Bulk(found) => text(&found).parse::<i64>().unwrap(),
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

/// Cycles on one engine: OMNIRING_KILLS of them, or a few.
fn run(engine: &str, appendonly: &str) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cycles = number("OMNIRING_KILLS").unwrap_or(16);
    let clock = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    let seed = number("OMNIRING_KILL_SEED").unwrap_or(clock) | 1;
    println!("{engine}: OMNIRING_KILL_SEED={seed}");
    let dir = tempfile::tempdir().expect("a scratch directory");
    let began = Instant::now();
    let mut world =
        World { models: vec![Model::default(); WRITERS], moves: [0; 2], requests: 0, reads: 0 };
    let options = |cycle: u64| {
        let cores = if cycle.is_multiple_of(2) { "2" } else { "1" };
        ["--engine", engine, "--cores", cores, "--appendonly", appendonly]
    };
    let mut server = Server::start(dir.path(), &options(0));
    for index in 0..cycles {
        let seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(index << 1) | 1;
        cycle(&mut server, &mut world, dir.path(), &options(index + 1), seed);
    }
    assert!(world.requests > 0 && world.reads > 0, "there was no load");
    println!(
        "{engine}: {cycles} kills, {} requests acknowledged and {} reads, all there, in {:.1} s",
        world.requests,
        world.reads,
        began.elapsed().as_secs_f64()
    );
}

/// The tests share the processor: one after the other their timing is less alike.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn in_turn(engine: &str) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    run(engine, "yes");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_nine_on_uring() {
    in_turn("uring");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_nine_on_aio() {
    in_turn("aio");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_nine_on_epoll() {
    in_turn("epoll");
}

/// What the others prove, they could not miss.
#[test]
#[should_panic(expected = "requests were answered")]
fn what_is_lost_without_a_log_is_noticed() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    run("epoll", "no");
}
