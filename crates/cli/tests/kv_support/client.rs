//! A client that speaks just enough of the protocol.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

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
