use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Peer;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use omniring::net::UnixStream;
use omniring::{Engine, Runtime};

use super::super::{Core, Journal, Logged, Server, run};
use super::{ClientInfo, Conn, Socket};
use crate::config::Config;
use crate::error::Error;
use crate::store::{Lsn, Shard};

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request whose reply is small enough to be sent by the reader.
const GET: &str = "GETRANGE k 0 12287\r\n";

/// A log whose disk is where the test says.
#[derive(Clone, Default)]
struct Log {
    last: Arc<AtomicU64>,
    synced: Arc<AtomicU64>,
    hurried: Arc<AtomicU64>,
}

impl Log {
    /// The disk is up to this record.
    fn sync(&self, core: &Core, lsn: Lsn) {
        self.synced.store(lsn, Ordering::Relaxed);
        core.synced(lsn);
    }
}

impl Journal for Log {
    fn append(&self, _: &[Logged<'_>]) -> Lsn {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_awaited(&self) -> bool {
        true
    }

    fn synced(&self) -> Lsn {
        self.synced.load(Ordering::Relaxed)
    }

    fn hurry(&self, lsn: Lsn) {
        self.hurried.fetch_max(lsn, Ordering::Relaxed);
    }

    fn refusal(&self) -> Option<Error> {
        None
    }
}

/// A server with a connection's end of this length, for `body` on its only core.
fn with_core(engine: Engine, farewell: Duration, body: impl AsyncFnOnce(Rc<Core>)) {
    let mut server = Server::new(Config::default(), None, 1);
    server.farewell = farewell;
    run_on_core(engine, server, body);
}

/// A server with a log.
fn with_log(engine: Engine, body: impl AsyncFnOnce(Rc<Core>, Log)) {
    let log = Log::default();
    let server = Server::new(Config::default(), Some(Box::new(log.clone())), 1);
    run_on_core(engine, server, async |core| body(core, log).await);
}

fn run_on_core(engine: Engine, server: Server, body: impl AsyncFnOnce(Rc<Core>)) {
    let runtime = Runtime::builder().engine(engine).build().expect("the engine runs");
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

/// Has the core look as if others had kept it busy since the server began.
fn crowd(core: &Core) {
    (0..1000).for_each(|_| core.release.sent());
    let later = omniring::time::now() + Duration::from_secs(1);
    core.release.spacing(later, || Duration::from_secs(60));
    assert!(core.release.is_crowded());
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

/// Sends more than a socket may take at once.
async fn send_all(peer: &mut Peer, mut bytes: &[u8]) {
    peer.set_nonblocking(true).expect("it may be");
    while !bytes.is_empty() {
        match peer.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                omniring::yield_now().await
            }
            Err(error) => panic!("with {} bytes to go: {error}", bytes.len()),
        }
    }
}

/// So many clients, of whom each has written one key: `k0` and so on.
async fn write_once_each(core: &Rc<Core>, count: usize) -> Vec<(Peer, Rc<Conn>)> {
    let mut writers = Vec::new();
    for at in 0..count {
        let (mut peer, conn) = connect(core).await;
        request(core, &mut peer, &format!("SET k{at} v\r\n")).await;
        writers.push((peer, conn));
    }
    writers
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

#[test]
fn who_has_only_read_goes_before_those_whose_writes_the_disk_has_held_up() {
    for engine in [Engine::Auto, Engine::Epoll] {
        with_log(engine, async |core, log| {
            let mut writers = write_once_each(&core, 20).await;
            let (mut reader, reader_conn) = connect(&core).await;
            request(&core, &mut reader, "GET k3\r\n").await;
            let (mut late, late_conn) = connect(&core).await;
            request(&core, &mut late, "SET k v\r\n").await;
            let waits = |conn: &Rc<Conn>| conn.is_in_gated.get();
            until(|| waits(&reader_conn) && waits(&late_conn)).await;
            assert!(writers.iter().all(|(_, conn)| waits(conn)), "{engine}");
            assert_eq!(
                log.hurried.load(Ordering::Relaxed),
                4,
                "{engine}: the record that was read"
            );

            log.sync(&core, 20);
            let waiting = writers.iter().filter(|(_, conn)| waits(conn)).count();
            assert_eq!((waiting, waits(&reader_conn)), (4, false), "{engine}");
            request(&core, &mut reader, "QUIT\r\n").await;
            assert_eq!(rest(&mut reader).await, b"$1\r\nv\r\n+OK\r\n", "{engine}");
            for (peer, _) in &mut writers {
                request(&core, peer, "QUIT\r\n").await;
                assert_eq!(rest(peer).await, b"+OK\r\n+OK\r\n", "{engine}");
            }
            assert!(waits(&late_conn), "{engine}: its record is not durable");
            log.sync(&core, 21);
            request(&core, &mut late, "QUIT\r\n").await;
            assert_eq!(rest(&mut late).await, b"+OK\r\n+OK\r\n", "{engine}");
        });
    }
}

#[test]
fn a_writer_is_one_as_long_as_a_write_of_its_own_waits() {
    for engine in [Engine::Auto, Engine::Epoll] {
        with_log(engine, async |core, log| {
            let (mut peer, conn) = write_once_each(&core, 1).await.pop().expect("there is one");
            until(|| conn.is_in_gated.get()).await;
            request(&core, &mut peer, "SET k1 v\r\n").await;
            log.sync(&core, 1);
            let writes = &core.server.stats.core(0).writes;
            until(|| writes.get() == 1 && conn.is_in_gated.get()).await;
            assert_eq!(log.hurried.load(Ordering::Relaxed), 0, "{engine}: it has read nothing");
            request(&core, &mut peer, "GET k1\r\nQUIT\r\n").await;
            log.sync(&core, 2);
            assert_eq!(rest(&mut peer).await, b"+OK\r\n+OK\r\n$1\r\nv\r\n+OK\r\n", "{engine}");
        });
    }
}

#[test]
fn writers_take_turns_where_others_keep_the_core_busy() {
    for engine in [Engine::Auto, Engine::Epoll] {
        with_log(engine, async |core, log| {
            let mut writers = write_once_each(&core, 4).await;
            log.sync(&core, 4);
            until(|| writers.iter().all(|(_, conn)| conn.is_writer.get())).await;
            crowd(&core);
            let processed = &core.server.stats.core(0).processed;
            let before = processed.get();
            for (peer, _) in &mut writers {
                peer.write_all(b"SET k v\r\n").expect("the server reads");
            }
            // One who waits for its turn may leave.
            let (gone, gone_conn) = writers.pop().expect("there are four");
            drop(gone);
            until(|| processed.get() >= before + 3).await;
            assert!(core.release.is_crowded(), "{engine}: there was no sync");
            log.sync(&core, log.last.load(Ordering::Relaxed));
            for (peer, _) in &mut writers {
                request(&core, peer, "QUIT\r\n").await;
                assert_eq!(rest(peer).await, b"+OK\r\n+OK\r\n+OK\r\n", "{engine}");
            }
            until(|| core.connection(gone_conn.info.id).is_none()).await;
        });
    }
}

#[test]
fn a_long_word_that_is_on_its_way_takes_no_turns() {
    for engine in [Engine::Auto, Engine::Epoll] {
        with_log(engine, async |core, log| {
            let (mut peer, conn) = connect(&core).await;
            let word: Vec<u8> = (0..150_000_u32).map(|at| (at % 251) as u8).collect();
            let mut requests = b"SET k v\r\n*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$150000\r\n".to_vec();
            requests.extend_from_slice(&word);
            requests.extend_from_slice(b"\r\nGET b\r\nQUIT\r\n");
            // What comes last has the end of the word and more.
            let (first, last) = requests.split_at(requests.len() - 100);
            send_all(&mut peer, first).await;
            until(|| conn.is_in_gated.get()).await;
            log.sync(&core, 1);
            assert!(conn.is_writer.get(), "{engine}");
            crowd(&core);
            send_all(&mut peer, last).await;
            until(|| log.last.load(Ordering::Relaxed) == 2).await;
            log.sync(&core, 2);
            let received = rest(&mut peer).await;
            let head = b"+OK\r\n+OK\r\n$150000\r\n";
            assert!(received.starts_with(head), "{engine}: {} bytes", received.len());
            assert!(received[head.len()..].starts_with(&word), "{engine}: it is what was sent");
        });
    }
}
