//! A server of its own for each test, ended by its pid, and a client that speaks just enough of the protocol.
#![allow(dead_code)] // Each test takes what it needs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts a server on this directory, with further options, and waits until it answers.
    pub fn start(dir: &Path, options: &[&str]) -> Server {
        let dir_word = dir.to_str().expect("a plain path");
        let until = Instant::now() + PATIENCE;
        loop {
            // Somebody else may take the port before the server has it: then there is another.
            let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
            let port = free.expect("a free port").port();
            let says = dir.join("stderr");
            let stderr = std::fs::File::create(&says).expect("the directory is there");
            let mut child = Command::new(env!("CARGO_BIN_EXE_omniring"))
                .args(["kv", "--bind", "127.0.0.1", "--port", &port.to_string(), "--dir", dir_word])
                .args(options)
                .env_remove("OMNIRING_ENGINE")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(stderr)
                .spawn()
                .expect("the binary runs");
            let ended = loop {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Server { child, port };
                }
                if let Some(status) = child.try_wait().expect("its status can be had") {
                    break status;
                }
                assert!(Instant::now() < until, "the server does not start");
                std::thread::sleep(Duration::from_millis(1));
            };
            let said = std::fs::read_to_string(&says).unwrap_or_default();
            assert!(said.contains("cannot listen"), "the server ended, {ended}: {said}");
        }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that the server has at hand.
    pub fn resident(&self) -> usize {
        let path = format!("/proc/{}/statm", self.pid());
        let text = std::fs::read_to_string(path).expect("the server runs");
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        pages.expect("a number of pages") * 4096
    }

    /// Ends the server as kill -9 does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    Nil,
    Status(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Array(Vec<Answer>),
}

pub struct Client {
    pub stream: TcpStream,
    buf: Vec<u8>,
    at: usize,
}

impl Client {
    pub fn connect(port: u16) -> Client {
        Client::try_connect(port).expect("the server listens")
    }

    pub fn try_connect(port: u16) -> std::io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream, buf: Vec::new(), at: 0 })
    }

    /// Sends a request and waits for its answer.
    pub fn call(&mut self, words: &[&str]) -> std::io::Result<Answer> {
        let mut request = Vec::new();
        encode(&mut request, words);
        self.stream.write_all(&request)?;
        self.answer()
    }

    /// The next answer.
    pub fn answer(&mut self) -> std::io::Result<Answer> {
        let line = self.line()?;
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().map_err(|_| std::io::Error::other(line.clone()));
        Ok(match kind {
            "+" => Answer::Status(rest.to_owned()),
            "-" => Answer::Error(rest.to_owned()),
            ":" => Answer::Int(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Answer::Nil,
                Ok(len) => {
                    while self.buf.len() - self.at < len + 2 {
                        self.more()?;
                    }
                    let bulk = self.buf[self.at..self.at + len].to_vec();
                    self.at += len + 2;
                    Answer::Bulk(bulk)
                }
            },
            "_" => Answer::Nil,
            "%" => {
                let words = number()? * 2;
                Answer::Array((0..words).map(|_| self.answer()).collect::<Result<_, _>>()?)
            }
            // Messages that answer no request are arrays also.
            "*" | ">" => match number()? {
                -1 => Answer::Nil,
                count => {
                    Answer::Array((0..count).map(|_| self.answer()).collect::<Result<_, _>>()?)
                }
            },
            _ => {
                return Err(std::io::Error::other(format!("an answer of no known kind: {line:?}")));
            }
        })
    }

    fn line(&mut self) -> std::io::Result<String> {
        loop {
            let found = self.buf[self.at..].windows(2).position(|pair| pair == b"\r\n");
            if let Some(len) = found {
                let line = String::from_utf8_lossy(&self.buf[self.at..self.at + len]).into_owned();
                self.at += len + 2;
                return if line.is_empty() {
                    Err(std::io::Error::other("an empty line"))
                } else {
                    Ok(line)
                };
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> std::io::Result<()> {
        self.buf.drain(..std::mem::take(&mut self.at));
        let len = self.buf.len();
        self.buf.resize(len + 16 * 1024, 0);
        let read = self.stream.read(&mut self.buf[len..]);
        self.buf.truncate(len + *read.as_ref().unwrap_or(&0));
        if read? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// A request's bytes.
pub fn encode(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}
