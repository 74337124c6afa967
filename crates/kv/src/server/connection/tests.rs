use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Peer;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use omniring::net::UnixStream;
use omniring::{Engine, Runtime};

use super::super::{Core, Server, run};
use super::{ClientInfo, Conn, Socket};
use crate::config::Config;
use crate::store::Shard;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request whose reply is small enough to be sent by the reader.
const GET: &str = "GETRANGE k 0 12287\r\n";

/// A server with a connection's end of this length, for `body` on its only core.
fn with_core(engine: Engine, farewell: Duration, body: impl AsyncFnOnce(Rc<Core>)) {
    let runtime = Runtime::builder().engine(engine).build().expect("the engine runs");
    let mut server = Server::new(Config::default(), None, 1);
    server.farewell = farewell;
    let server = Arc::new(server);
    server.handle.set(runtime.handle()).unwrap_or_else(|_| unreachable!("it is set once"));
    runtime.block_on(async {
        let core = Core::start(0, server, Box::new(Shard::new(0)));
        omniring::time::timeout(PATIENCE, body(core)).await.expect("it ends in time");
        Core::stop();
    });
}

/// A client, and what the server has of it.
async fn connect(core: &Rc<Core>) -> (Peer, Rc<Conn>) {
    // A send of a few thousand bytes is taken as a whole by such a socket, or not at all.
    let (ours, peer) = Peer::pair().expect("there are descriptors left");
    let socket = Socket::Unix(UnixStream::from_std(ours));
    let before = core.connections().len();
    run::welcome(&core.server, socket, ClientInfo::default());
    until(|| core.connections().len() > before).await;
    let newest = core.connections().into_iter().max_by_key(|conn| conn.info.id);
    (peer, newest.expect("it is there"))
}

/// Waits until this is so.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        omniring::yield_now().await;
        omniring::time::sleep(Duration::from_micros(100)).await;
    }
}

/// Sends requests, and waits until they have been carried out.
async fn request(core: &Core, peer: &mut Peer, text: &str) {
    let processed = &core.server.stats.core(0).processed;
    let wanted = processed.get() + text.lines().count() as u64;
    peer.write_all(text.as_bytes()).expect("the server reads");
    until(|| processed.get() >= wanted).await;
}

/// Whether the server has begun to send, and gets no further.
async fn is_stuck(conn: &Conn) -> bool {
    for _ in 0..10 {
        if conn.sending.borrow().is_none() && !conn.is_writing.get() {
            return false;
        }
        omniring::yield_now().await;
    }
    true
}

/// What a client is sent until the connection is closed.
async fn rest(peer: &mut Peer) -> Vec<u8> {
    peer.set_nonblocking(true).expect("it may be");
    let mut bytes = Vec::new();
    loop {
        match peer.read_to_end(&mut bytes) {
            Ok(_) => return bytes,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                omniring::yield_now().await
            }
            Err(error) => panic!("after {} bytes: {error}", bytes.len()),
        }
    }
}

#[test]
fn a_client_that_does_not_receive_its_last_replies_is_closed_with_nothing_left_out() {
    for engine in [Engine::Auto, Engine::Epoll] {
        with_core(engine, Duration::from_millis(200), async |core| {
            let (mut first, first_conn) = connect(&core).await;
            request(&core, &mut first, "SETRANGE k 12287 x\r\n").await;
            let mut asked = 0;
            while !is_stuck(&first_conn).await {
                request(&core, &mut first, GET).await;
                asked += 1;
            }
            assert!(first_conn.sending.borrow().is_some(), "{engine}: the reader sends");
            // Of this one the writer has begun to send before the connection's end begins.
            let (mut second, second_conn) = connect(&core).await;
            request(&core, &mut second, &GET.repeat(60)).await;
            until(|| second_conn.is_writing.get()).await;
            assert!(is_stuck(&second_conn).await, "{engine}: 720 KB do not fit");

            request(&core, &mut first, "QUIT\r\n").await;
            request(&core, &mut second, "QUIT\r\n").await;
            until(|| core.connection(second_conn.info.id).is_none()).await;
            let received = rest(&mut first).await;
            let replies = [&b":12288\r\n"[..]].into_iter().chain(
                std::iter::repeat_n([&b"$12288\r\n"[..], &[0; 12287], b"x\r\n"], asked).flatten(),
            );
            let replies: Vec<u8> = replies.flatten().copied().collect();
            assert!(received.len() < replies.len(), "{engine}: it was closed before the end");
            assert!(replies.starts_with(&received), "{engine}: what it has received was sent");
        });
    }
}

#[test]
fn a_last_reply_of_several_pieces_is_sent_as_a_whole() {
    for engine in [Engine::Auto, Engine::Epoll] {
        with_core(engine, Duration::from_secs(60), async |core| {
            let (mut peer, conn) = connect(&core).await;
            request(&core, &mut peer, "SETRANGE k 5000000 x\r\n").await;
            peer.write_all(b"GET k\r\nQUIT\r\n").expect("the server reads");
            until(|| conn.is_closing()).await;
            let received = rest(&mut peer).await;
            assert_eq!(received.len(), ":5000001\r\n$5000001\r\n\r\n+OK\r\n".len() + 5_000_001);
            assert!(received.ends_with(b"\0x\r\n+OK\r\n"), "{engine}: it ends with the last reply");
        });
    }
}
