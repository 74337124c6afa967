//! Streams in tokio's traits, and what has tokio's traits as omniring's reader and writer.

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use omniring::net::{TcpStream, UnixStream};
use omniring::time::timeout;
use omniring::{AsyncRead as _, AsyncWrite as _, Runtime, spawn, spawn_blocking};
use omniring_adapters::{FromTokio, StreamIo};
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, duplex, split,
};

use crate::harness::{conformance, fd_count};
use crate::site::{listener, pattern, settle};

conformance!(
    bytes_go_both_ways_at_once,
    a_read_that_was_given_up_loses_nothing,
    a_small_buffer_gets_the_rest_later,
    lines_are_read_from_the_lease,
    a_half_closed_connection_can_still_be_answered,
    a_write_error_comes_from_the_next_call,
    what_was_accepted_is_sent_though_the_stream_is_dropped,
    a_slow_reader_holds_the_writer_up,
    unix_streams_are_adapted_too,
    foreign_code_copies_between_streams,
    a_foreign_reader_and_writer_are_omnirings,
    a_waiting_reader_holds_no_lease;
    isolated:
    nothing_is_left_of_many_connections,
);

/// A pair of connected streams: ours, and the standard library's.
async fn pair_with_std() -> (StreamIo<TcpStream>, std::net::TcpStream) {
    let (listener, addr) = listener().await;
    let stream = TcpStream::connect(addr).await.unwrap();
    let (peer, _) = listener.accept().await.unwrap();
    (StreamIo::new(stream), peer.into_std().unwrap())
}

fn unix_pair() -> (StreamIo<UnixStream>, StreamIo<UnixStream>) {
    let (one, other) = UnixStream::pair().unwrap();
    (StreamIo::new(one), StreamIo::new(other))
}

fn bytes_go_both_ways_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        let (stream, mut peer) = pair_with_std().await;
        let len = 3 << 20;
        let echo = spawn_blocking(move || {
            let mut buf = vec![0; 50_000];
            loop {
                match peer.read(&mut buf).unwrap() {
                    0 => return,
                    count => peer.write_all(&buf[..count]).unwrap(),
                }
            }
        });
        let (mut reader, mut writer) = split(stream);
        let writing = spawn(async move {
            writer.write_all(&pattern(len)).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert!(all == pattern(len));
        writing.await.unwrap();
        echo.await.unwrap();
    });
}

fn a_read_that_was_given_up_loses_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut one, mut other) = unix_pair();
        let mut buf = [0; 8];
        for _ in 0..5 {
            assert!(timeout(Duration::from_micros(100), other.read(&mut buf)).await.is_err());
        }
        one.write_all(b"kept").await.unwrap();
        assert!(timeout(Duration::ZERO, std::future::pending::<()>()).await.is_err());
        assert_eq!(other.read(&mut buf).await.unwrap(), 4);
        assert_eq!(&buf[..4], b"kept");
    });
}

fn a_small_buffer_gets_the_rest_later(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut one, mut other) = unix_pair();
        one.write_all(b"abcdefg").await.unwrap();
        one.flush().await.unwrap();
        let mut buf = [0; 3];
        other.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"abc");
        assert_eq!(other.read(&mut []).await.unwrap(), 0);
        let other = other.into_socket().expect_err("there are bytes that nobody has taken");
        let mut other = other;
        other.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"def");
        assert_eq!(other.read_u8().await.unwrap(), b'g');
        let other = other.into_socket().expect("all were taken");
        drop(one);
        assert!(other.recv().await.unwrap().is_empty());
    });
}

fn lines_are_read_from_the_lease(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut one, other) = unix_pair();
        one.write_all(b"first\nsecond\nlast").await.unwrap();
        one.shutdown().await.unwrap();
        let mut lines = other.lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("first"));
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("second"));
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("last"));
        assert_eq!(lines.next_line().await.unwrap(), None);
    });
}

fn a_half_closed_connection_can_still_be_answered(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut stream, mut peer) = pair_with_std().await;
        let asks = spawn_blocking(move || {
            peer.write_all(b"question").unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            peer.read_to_string(&mut answer).unwrap();
            answer
        });
        let mut question = String::new();
        stream.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        stream.write_all(b"answer").await.unwrap();
        stream.shutdown().await.unwrap();
        // Once more says the same.
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 4]).await.unwrap(), 0);
        assert_eq!(asks.await.unwrap(), "answer");
    });
}

fn a_write_error_comes_from_the_next_call(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut stream, peer) = pair_with_std().await;
        drop(peer);
        let written = async {
            loop {
                // The first may succeed: the peer's reset comes in answer to it.
                stream.write_all(b"to nobody").await?;
                stream.flush().await?;
            }
        };
        let error: std::io::Result<()> = timeout(Duration::from_secs(10), written).await.unwrap();
        let kind = error.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{kind:?}");
        let again = stream.write_all(b"x").await.and(stream.flush().await);
        assert!(again.is_err(), "it stays so");
    });
}

fn what_was_accepted_is_sent_though_the_stream_is_dropped(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut stream, mut peer) = pair_with_std().await;
        // As much as is accepted without anybody reading.
        let data = pattern(100_000);
        let mut accepted = 0;
        loop {
            let write = poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_write(cx, &data)));
            match write.await {
                Poll::Ready(count) => accepted += count.unwrap(),
                Poll::Pending => {
                    // A ring needs a turn to say that it took some.
                    omniring::time::sleep(Duration::from_millis(5)).await;
                    let write =
                        poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_write(cx, &data)));
                    match write.await {
                        Poll::Ready(count) => accepted += count.unwrap(),
                        Poll::Pending => break,
                    }
                }
            }
        }
        drop(stream);
        let read = spawn_blocking(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all.len()
        });
        assert_eq!(read.await.unwrap(), accepted);
        settle(runtime).await;
    });
}

fn a_slow_reader_holds_the_writer_up(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut stream, mut peer) = pair_with_std().await;
        let len = 20 << 20;
        let mut writing = spawn(async move {
            stream.write_all(&pattern(len)).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let early = timeout(Duration::from_millis(100), &mut writing).await;
        assert!(early.is_err(), "20 MiB went somewhere");
        let read = spawn_blocking(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        assert!(read.await.unwrap() == pattern(len));
        writing.await.unwrap();
    });
}

fn unix_streams_are_adapted_too(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut one, mut other) = unix_pair();
        let echo = spawn(async move {
            let mut buf = [0; 4];
            other.read_exact(&mut buf).await.unwrap();
            other.write_all(&buf).await.unwrap();
            other.flush().await.unwrap();
        });
        let mut buf = [0; 4];
        one.write_all(b"ping").await.unwrap();
        one.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"ping");
        echo.await.unwrap();
    });
}

fn foreign_code_copies_between_streams(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut client, mut a) = unix_pair();
        let (mut b, mut server) = unix_pair();
        let proxy = spawn(async move { copy_bidirectional(&mut a, &mut b).await.unwrap() });
        let serving = spawn(async move {
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.unwrap();
            server.write_all(&all).await.unwrap();
            server.shutdown().await.unwrap();
        });
        client.write_all(&pattern(300_000)).await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert!(all == pattern(300_000));
        assert_eq!(proxy.await.unwrap(), (300_000, 300_000));
        serving.await.unwrap();
    });
}

fn a_foreign_reader_and_writer_are_omnirings(runtime: &Runtime) {
    runtime.block_on(async {
        let (near, far) = duplex(1000);
        let mut near = FromTokio::new(near);
        let mut far = FromTokio::new(far);
        let len = 100_000;
        let writing = spawn(async move {
            near.write_all(pattern(len)).await.0.unwrap();
            near.shutdown().await.unwrap();
        });
        let (result, none) = far.read(Vec::new()).await;
        assert_eq!((result.unwrap(), none.len()), (0, 0));
        let (result, all) = far.read_exact(Vec::with_capacity(len)).await;
        result.unwrap();
        assert!(all == pattern(len));
        let (result, rest) = far.read(vec![1, 2, 3]).await;
        assert_eq!((result.unwrap(), rest.len()), (0, 0), "the end");
        writing.await.unwrap();
    });
}

fn a_waiting_reader_holds_no_lease(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut one, mut other) = unix_pair();
        one.write_all(b"x").await.unwrap();
        assert_eq!(other.read_u8().await.unwrap(), b'x');
        assert!(timeout(Duration::from_millis(2), other.read_u8()).await.is_err());
        let at_rest = async {
            while runtime.stats().leased_count > 0 {
                // A thread of the pool may still be looking whether there is anything.
                omniring::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), at_rest).await.expect("no lease while it waits");
    });
}

fn nothing_is_left_of_many_connections(runtime: &Runtime) {
    let before = fd_count();
    runtime.block_on(async {
        for round in 0..50 {
            let (mut one, mut other) = unix_pair();
            one.write_all(&pattern(1000 * round)).await.unwrap();
            if round % 2 == 0 {
                let _ = timeout(Duration::from_micros(50), other.read(&mut [0; 10])).await;
            }
        }
        settle(runtime).await;
    });
    assert_eq!(fd_count(), before);
}
