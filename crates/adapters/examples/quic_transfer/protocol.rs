//! What is said on the streams: the protocol `omniring-transfer/1`.
//!
//! The client opens a bidirectional stream for each request, and as many at once as it likes. The first
//! byte says what it wants. Numbers are big-endian.
//!
//! | request | the client sends | the server sends |
//! |---|---|---|
//! | put, `P` | text path; body | answer, offer; answer |
//! | get, `G` | text path, offer | answer, body |
//! | list, `L` | text path | answer, u32 count, and for each file text path, u64 length |
//!
//! - text: u16 length in bytes, UTF-8. A path is relative, with `/` between its parts, of which none is
//!   `.` or `..`. The empty path lists everything.
//! - answer: u8, 0 for yes; 1 for no, and a text that says why.
//! - offer, by who receives the file: u64, how many bytes of it are there already, and their SHA-256.
//! - body, by who sends the file: u64 length of the file; u64 where the bytes that follow begin: what was
//!   offered, if those bytes are the file's first ones, else 0; these bytes; SHA-256 of the whole file.
//!
//! A connection is over when nothing was heard for 5 seconds: who has nothing to say sends QUIC's pings.
//! Who cannot go on resets the stream. The server that does not want the rest of a body stops it and says
//! why in its answer.

use std::io;
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use sha2::{Digest, Sha256};

/// What both sides name in ALPN.
pub const NAME: &str = "omniring-transfer/1";

/// The server's idle timeout. It is how long the files of a client that died stay locked.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(5);

pub const PUT: u8 = b'P';
pub const GET: u8 = b'G';
pub const LIST: u8 = b'L';

/// The code with which streams are reset and stopped.
pub const FAILED: u32 = 1;

pub type Sum = [u8; 32];

/// What the receiver has of a file.
#[derive(Clone, Copy)]
pub struct Offer {
    pub have: u64,
    pub sum: Sum,
}

impl Offer {
    pub fn of(have: u64, hasher: &Sha256) -> Offer {
        Offer { have, sum: hasher.clone().finalize().into() }
    }

    pub async fn write(&self, send: &mut SendStream) -> io::Result<()> {
        send.write_all(&self.have.to_be_bytes()).await?;
        Ok(send.write_all(&self.sum).await?)
    }

    pub async fn read(recv: &mut RecvStream) -> io::Result<Offer> {
        Ok(Offer { have: read_u64(recv).await?, sum: read_array(recv).await? })
    }
}

pub async fn read_array<const LEN: usize>(recv: &mut RecvStream) -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    read_exact(recv, &mut bytes).await?;
    Ok(bytes)
}

pub async fn read_exact(recv: &mut RecvStream, bytes: &mut [u8]) -> io::Result<()> {
    recv.read_exact(bytes).await.map_err(|error| match error {
        quinn::ReadExactError::FinishedEarly(_) => {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the peer said less than it has to")
        }
        quinn::ReadExactError::ReadError(quinn::ReadError::Reset(_)) => {
            io::Error::new(io::ErrorKind::ConnectionReset, "the peer gave it up")
        }
        quinn::ReadExactError::ReadError(error) => error.into(),
    })
}

pub async fn read_u64(recv: &mut RecvStream) -> io::Result<u64> {
    Ok(u64::from_be_bytes(read_array(recv).await?))
}

pub async fn write_text(send: &mut SendStream, text: &str) -> io::Result<()> {
    let len = u16::try_from(text.len()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "a path of more than 65,535 bytes")
    })?;
    send.write_all(&len.to_be_bytes()).await?;
    Ok(send.write_all(text.as_bytes()).await?)
}

pub async fn read_text(recv: &mut RecvStream) -> io::Result<String> {
    let len = u16::from_be_bytes(read_array(recv).await?);
    let mut text = vec![0; len.into()];
    read_exact(recv, &mut text).await?;
    String::from_utf8(text)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a text that is not UTF-8"))
}

/// Says no and why, or yes.
pub async fn write_answer(send: &mut SendStream, refusal: Option<&io::Error>) -> io::Result<()> {
    match refusal {
        None => Ok(send.write_all(&[0]).await?),
        Some(why) => {
            send.write_all(&[1]).await?;
            write_text(send, &why.to_string()).await
        }
    }
}

/// The error is the peer's no, or that there was no answer.
pub async fn read_answer(recv: &mut RecvStream) -> io::Result<()> {
    match read_array(recv).await? {
        [0] => Ok(()),
        [1] => {
            let why = read_text(recv).await?;
            Err(io::Error::other(format!("the server says: {why}")))
        }
        [other] => {
            let what = format!("the server answers {other}, which is no answer");
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
    }
}
