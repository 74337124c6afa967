//! The clients in the virtual machine of `tests/redis/crash-vm.sh`, which loses its power at a random moment.
//!
//!     kv_crash_agent PORT SEED ACKED READ
//!
//! ACKED and READ have a number for each writer, separated by commas: how many of its requests were answered before
//! the power went, and the highest value of its counter that a read has shown. First it compares these with what is
//! there, and prints for each writer `FINE writer acked found`, or `LOST writer acked found why`. Then it goes on
//! from what is there, and prints `A writer count` when requests have been answered, and `R writer value` when a read
//! has shown more. It ends with an error if something is lost, and otherwise not at all.
// Its output is what it is for.
#![allow(clippy::print_stdout)]

#[path = "../tests/kv_support/client.rs"]
#[allow(dead_code)] // A part of what tests use.
mod client;
#[path = "../tests/kv_support/ledger.rs"]
#[allow(dead_code)]
mod ledger;

use std::io::Write;
use std::process::ExitCode;

use client::{Answer, Client, encode};
use ledger::{Model, Op};

/// How many requests of each writer are on their way at once.
const DEPTHS: [usize; 3] = [1, 8, 24];

/// What a writer's keys are compared with: the states after so many more requests than were reported.
const UNREPORTED_MAX: usize = 5000;

fn numbers(text: &str) -> Vec<usize> {
    text.split(',').map(|word| word.parse().expect("a number")).collect()
}

fn say(line: String) {
    // In one piece: there are several who speak.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("a console");
}

/// Where a writer is: how many of its requests are carried out, and the state of its keys.
fn find(port: u16, seed: u64, writer: usize, acked: usize, read: usize) -> Option<(usize, Model)> {
    let all = Op::read_all(writer);
    let mut client = Client::connect(port);
    let found = all.call(&mut client).expect("the server answers");
    let mut model = Model::default();
    let mut earlier = None;
    for n in 0..=acked + UNREPORTED_MAX {
        if model.apply(&all) == found {
            if n >= acked {
                let counter = counter(&mut client, writer);
                if counter < read {
                    say(format!(
                        "LOST {writer} {acked} {n} a read has shown {read}, it is {counter}"
                    ));
                    return None;
                }
                say(format!("FINE {writer} {acked} {n}"));
                return Some((n, model));
            }
            earlier = Some(n);
        }
        model.apply(&Op::nth(seed, writer, n));
    }
    match earlier {
        Some(n) => say(format!("LOST {writer} {acked} {n} requests that were answered")),
        None => say(format!("LOST {writer} {acked} 0 it was never like this: {found:?}")),
    }
    None
}

fn counter(client: &mut Client, writer: usize) -> usize {
    match client.call(&["GET", &format!("{writer}:c")]).expect("the server answers") {
        Answer::Bulk(text) => String::from_utf8_lossy(&text).parse().expect("a number"),
        _ => 0,
    }
}

fn write(port: u16, seed: u64, writer: usize, mut done: usize, mut model: Model) {
    let mut client = Client::connect(port);
    let (mut sent, depth) = (done, DEPTHS[writer]);
    let mut expected = std::collections::VecDeque::new();
    loop {
        let mut request = Vec::new();
        while sent < done + depth {
            let op = Op::nth(seed, writer, sent);
            op.encode(&mut request);
            let answers = model.apply(&op);
            expected.push_back((op, answers));
            sent += 1;
        }
        client.stream.write_all(&request).expect("the server reads");
        for _ in 0..depth.div_ceil(2) {
            let (op, answers) = expected.pop_front().expect("something was sent");
            assert_eq!(op.answers(&mut client).expect("the server answers"), answers, "{op:?}");
            done += 1;
        }
        say(format!("A {writer} {done}"));
    }
}

fn read(port: u16) {
    let mut client = Client::connect(port);
    let mut shown = vec![0; DEPTHS.len()];
    loop {
        for (writer, shown) in shown.iter_mut().enumerate() {
            let value = counter(&mut client, writer);
            if value > *shown {
                *shown = value;
                say(format!("R {writer} {value}"));
            }
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [port, seed, acked, shown] = &words[..] else {
        eprintln!("kv_crash_agent PORT SEED ACKED READ");
        return ExitCode::from(2);
    };
    let port: u16 = port.parse().expect("a port");
    let seed: u64 = seed.parse().expect("a seed");
    let (acked, shown) = (numbers(acked), numbers(shown));
    let writers = 0..DEPTHS.len();
    let found: Vec<_> =
        writers.map(|writer| find(port, seed, writer, acked[writer], shown[writer])).collect();
    let Some(found) = found.into_iter().collect::<Option<Vec<_>>>() else {
        return ExitCode::FAILURE;
    };
    say("CHECKED".to_owned());
    std::thread::scope(|scope| {
        for (writer, (done, model)) in found.into_iter().enumerate() {
            scope.spawn(move || write(port, seed, writer, done, model));
        }
        scope.spawn(move || read(port));
    });
    ExitCode::SUCCESS
}
