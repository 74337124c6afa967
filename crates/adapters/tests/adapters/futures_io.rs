//! Streams in the traits of futures-io, and what has these as omniring's reader and writer.

use std::io::{Read, Write};
use std::net::Shutdown;

use futures_util::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, Cursor, copy};
use omniring::net::{TcpStream, UnixStream};
use omniring::{AsyncRead as _, AsyncWrite as _, Runtime, spawn_blocking};
use omniring_adapters::{FromFutures, StreamIo};

use crate::harness::conformance;
use crate::site::{listener, pattern};

conformance!(
    foreign_code_echoes_over_a_stream,
    a_stream_is_closed_for_writing_only,
    lines_are_read_from_the_lease,
    a_foreign_reader_and_writer_are_omnirings,
);

fn foreign_code_echoes_over_a_stream(runtime: &Runtime) {
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let client = spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            let mut reader = stream.try_clone().unwrap();
            let reading = std::thread::spawn(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).unwrap();
                all
            });
            stream.write_all(&pattern(1 << 20)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            reading.join().unwrap()
        });
        let (stream, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = StreamIo::<TcpStream>::new(stream).split();
        assert_eq!(copy(reader, &mut writer).await.unwrap(), 1 << 20);
        writer.close().await.unwrap();
        assert!(client.await.unwrap() == pattern(1 << 20));
    });
}

fn a_stream_is_closed_for_writing_only(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (StreamIo::new(one), StreamIo::new(other));
        one.write_all(b"last").await.unwrap();
        one.close().await.unwrap();
        let mut all = Vec::new();
        other.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last");
        other.write_all(b"still").await.unwrap();
        other.close().await.unwrap();
        let mut all = String::new();
        one.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "still");
    });
}

fn lines_are_read_from_the_lease(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (StreamIo::new(one), StreamIo::new(other));
        one.write_all(b"first\nsecond\n").await.unwrap();
        let mut line = String::new();
        other.read_line(&mut line).await.unwrap();
        other.read_line(&mut line).await.unwrap();
        assert_eq!(line, "first\nsecond\n");
    });
}

fn a_foreign_reader_and_writer_are_omnirings(runtime: &Runtime) {
    runtime.block_on(async {
        let mut reader = FromFutures::new(Cursor::new(pattern(50_000)));
        let (result, all) = reader.read_exact(Vec::with_capacity(50_000)).await;
        result.unwrap();
        assert!(all == pattern(50_000));
        let mut writer = FromFutures::new(Cursor::new(Vec::new()));
        writer.write_all(pattern(50_000)).await.0.unwrap();
        writer.flush().await.unwrap();
        writer.close().await.unwrap();
        assert!(writer.into_inner().into_inner() == pattern(50_000));
    });
}
