//! What a writer asks for, and what its keys hold after the first so many of its requests.
//!
//! A writer has keys of its own: four strings, a counter, a list and a hash, which with several cores lie in
//! different shards. Its requests follow from a seed, so whoever knows the seed and how many were answered knows
//! everything.

use std::collections::{BTreeMap, VecDeque};

use super::{Answer, Client, encode};

/// A number below `bound`, by xorshift.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // Seeds that are alike begin differently.
        let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Random(mixed ^ (mixed >> 29) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

const STRINGS: u64 = 4;
const FIELDS: u64 = 8;

fn key(writer: usize, name: &str) -> String {
    format!("{writer}:{name}")
}

fn string(writer: usize, index: u64) -> String {
    key(writer, &format!("s{index}"))
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// A request, or a transaction: commands that are carried out together.
#[derive(Clone, Debug)]
pub struct Op {
    commands: Vec<Vec<String>>,
    is_transaction: bool,
}

impl Op {
    /// The `n`th request of a writer.
    pub fn nth(seed: u64, writer: usize, n: usize) -> Op {
        let mut random = Random::new(seed ^ ((writer as u64) << 56) ^ ((n as u64) << 8));
        let count = if random.below(4) == 0 { 2 + random.below(4) } else { 1 };
        let commands = (0..count).map(|_| Op::command(&mut random, writer, n)).collect();
        Op { commands, is_transaction: count > 1 }
    }

    fn command(random: &mut Random, writer: usize, n: usize) -> Vec<String> {
        let one = string(writer, random.below(STRINGS));
        let field = format!("f{}", random.below(FIELDS));
        let n_word = n.to_string();
        match random.below(11) {
            0 => {
                // Longer than a block of the disk, at times.
                let value = format!("{n}:{}", "x".repeat(random.below(6000) as usize));
                words(["SET", &one, &value])
            }
            1 | 2 => words(["SET", &one, &n_word]),
            3 | 4 => words(["INCR", &key(writer, "c")]),
            5 => words(["RPUSH", &key(writer, "l"), &n_word]),
            6 => words(["LTRIM", &key(writer, "l"), "-8", "-1"]),
            7 | 8 => words(["HSET", &key(writer, "h"), &field, &n_word]),
            9 => {
                let mut all = words(["MSET"]);
                all.extend((0..STRINGS).flat_map(|at| [string(writer, at), n_word.clone()]));
                all
            }
            _ => match random.below(3) {
                0 => words(["HDEL", &key(writer, "h"), &field]),
                _ => words(["DEL", &one]),
            },
        }
    }

    /// Reads all that a writer has, at one moment.
    pub fn read_all(writer: usize) -> Op {
        let mut strings = words(["MGET"]);
        strings.extend((0..STRINGS).map(|at| string(writer, at)));
        strings.push(key(writer, "c"));
        let list = words(["LRANGE", &key(writer, "l"), "0", "-1"]);
        let mut hash = words(["HMGET", &key(writer, "h")]);
        hash.extend((0..FIELDS).map(|at| format!("f{at}")));
        Op { commands: vec![strings, list, hash], is_transaction: true }
    }

    /// Reads something of what a writer has: a key, several at one moment, or all.
    pub fn read_some(random: &mut Random, writer: usize) -> Op {
        let mut all = Op::read_all(writer);
        let name = match random.below(STRINGS + 1) {
            STRINGS => key(writer, "c"),
            at => string(writer, at),
        };
        let one = match random.below(8) {
            0 => return all,
            kind @ 1..=3 => all.commands.swap_remove(kind as usize - 1),
            _ => words(["GET", &name]),
        };
        Op { commands: vec![one], is_transaction: false }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
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

    /// Its answers, all that were expected or as many.
    pub fn answers(&self, client: &mut Client) -> std::io::Result<Vec<Answer>> {
        let count = if self.is_transaction { self.commands.len() + 2 } else { 1 };
        (0..count).map(|_| client.answer()).collect()
    }

    /// Asks for it, and gives its answers.
    pub fn call(&self, client: &mut Client) -> std::io::Result<Vec<Answer>> {
        let mut request = Vec::new();
        self.encode(&mut request);
        std::io::Write::write_all(&mut client.stream, &request)?;
        self.answers(client)
    }
}

/// A writer's keys, as one client knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    strings: BTreeMap<String, String>,
    list: VecDeque<String>,
    hash: BTreeMap<String, String>,
}

impl Model {
    /// What a request does, and the answers it gets.
    pub fn apply(&mut self, op: &Op) -> Vec<Answer> {
        let status = |text: &str| Answer::Status(text.to_owned());
        let answers: Vec<Answer> = op.commands.iter().map(|words| self.command(words)).collect();
        if !op.is_transaction {
            return answers;
        }
        let queued = answers.iter().map(|_| status("QUEUED"));
        let mut all: Vec<Answer> = [status("OK")].into_iter().chain(queued).collect();
        all.push(Answer::Array(answers));
        all
    }

    fn command(&mut self, words: &[String]) -> Answer {
        let ok = Answer::Status("OK".to_owned());
        let bulk = |text: Option<&String>| match text {
            Some(text) => Answer::Bulk(text.clone().into_bytes()),
            None => Answer::Nil,
        };
        match words[0].as_str() {
            "SET" | "MSET" => {
                for pair in words[1..].chunks(2) {
                    self.strings.insert(pair[0].clone(), pair[1].clone());
                }
                ok
            }
            "DEL" => Answer::Int(self.strings.remove(&words[1]).is_some().into()),
            "INCR" => {
                let counter = self.counter(&words[1]) + 1;
                self.strings.insert(words[1].clone(), counter.to_string());
                Answer::Int(counter)
            }
            "RPUSH" => {
                self.list.push_back(words[2].clone());
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
            "GET" => bulk(self.strings.get(&words[1])),
            "MGET" => {
                Answer::Array(words[1..].iter().map(|name| bulk(self.strings.get(name))).collect())
            }
            "LRANGE" => Answer::Array(self.list.iter().map(|item| bulk(Some(item))).collect()),
            "HMGET" => {
                Answer::Array(words[2..].iter().map(|name| bulk(self.hash.get(name))).collect())
            }
            other => unreachable!("{other} is not among the commands"),
        }
    }

    fn counter(&self, name: &str) -> i64 {
        self.strings.get(name).map_or(0, |text| text.parse().expect("a counter is a number"))
    }
}
