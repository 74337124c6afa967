//! What comes over the network and was not meant well: the server answers with an error or closes the connection, its
//! memory stays bounded, and meanwhile another client is served as ever; on uring with two cores, on epoll with one.
// How much has come in how long is shown.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

mod kv_support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kv_support::ledger::Random;
use kv_support::{Answer, Client, PATIENCE, Server, encode};

const MIB: usize = 1 << 20;

/// How long the other client may wait for an answer, on a machine that has other things to do: far less than what a
/// server needs that works off first what somebody else has sent.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Does something bad to a server on either engine, while another client works; memory may grow by so many bytes.
fn beside_a_client(grows_max: usize, bad: impl Fn(&Server)) {
    for (engine, cores) in [("uring", "2"), ("epoll", "1")] {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let options = ["--engine", engine, "--cores", cores, "--appendfsync", "everysec"];
        let server = Server::start(dir.path(), &options);
        // What a server takes once, for its first clients.
        serve(&mut server.connect(), 0);
        let before = server.resident();
        let is_over = AtomicBool::new(false);
        let highest = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut client = server.connect();
                let (mut n, mut highest) = (1, 0);
                while !is_over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    serve(&mut client, n);
                    assert!(
                        began.elapsed() < WAIT_MAX,
                        "{engine}: served in {:?}",
                        began.elapsed()
                    );
                    highest = highest.max(server.resident());
                    n += 1;
                    // It is a client, no load.
                    std::thread::sleep(Duration::from_millis(1));
                }
                (n, highest)
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bad(&server)));
            is_over.store(true, Ordering::Relaxed);
            let (n, highest) = other.join().expect("the other client is served");
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            assert!(n > 2, "{engine}: the other client had no time");
            highest
        });
        serve(&mut server.connect(), 1_000_000);
        let grew = highest.saturating_sub(before);
        assert!(grew <= grows_max, "{engine}: memory grew by {grew} bytes, from {before}");
        println!("{engine}: memory grew by {grew} bytes at most");
    }
}

/// What the other client does all the time.
fn serve(client: &mut Client, n: usize) {
    let n = n.to_string();
    let answer = client.call(&["SET", "other", &n]).expect("it is answered");
    assert_eq!(answer, Answer::Status("OK".into()));
    let answer = client.call(&["GET", "other"]).expect("it is answered");
    assert_eq!(answer, Answer::Bulk(n.into_bytes()));
}

fn ping(client: &mut Client) {
    assert_eq!(client.call(&["PING"]).expect("it is answered"), Answer::Status("PONG".into()));
}

fn connect(server: &Server) -> TcpStream {
    Client::connect(server.port).stream
}

/// Sends these bytes and nothing more, and gives what comes until the server closes.
fn answers_to(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(server);
    let mut reader = stream.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It may close before it has read everything.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(Shutdown::Write);
        });
        let mut answers = Vec::new();
        match reader.read_to_end(&mut answers) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                panic!("the connection is not closed: {error}")
            }
            _ => answers,
        }
    })
}

/// Waits until only so many clients are there as the server itself says.
fn wait_for_clients(server: &Server, count: usize) {
    let mut client = server.connect();
    let until = Instant::now() + PATIENCE;
    loop {
        let Ok(Answer::Bulk(info)) = client.call(&["INFO", "clients"]) else { panic!("no INFO") };
        let info = String::from_utf8(info).expect("text");
        let found = info.lines().find_map(|line| line.strip_prefix("connected_clients:"));
        let found: usize = found.expect("a line").trim().parse().expect("a number");
        // This one, and the other client.
        if found <= count + 2 {
            return;
        }
        assert!(Instant::now() < until, "{found} clients are there");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn random_bytes_end_in_an_error_or_a_disconnect() {
    let clock = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    println!("seed {clock}");
    beside_a_client(32 * MIB, |server| {
        let mut random = Random::new(clock);
        let mut valid = Vec::new();
        for n in 0..20 {
            encode(&mut valid, &["SET", &format!("k{n}"), "value"]);
            encode(&mut valid, &["MGET", "k1", "k2"]);
            valid.extend_from_slice(b"GET k3\r\n");
        }
        for round in 0..100 {
            let len = 1 + random.below(if round % 10 == 0 { 200_000 } else { 3_000 }) as usize;
            let mut bytes: Vec<u8> = match random.below(3) {
                0 => (0..len).map(|_| random.below(256) as u8).collect(),
                // What looks like requests.
                1 => (0..len)
                    .map(|_| b"*$\r\n0123456789-+ab\"'"[random.below(20) as usize])
                    .collect(),
                _ => valid.clone(),
            };
            for _ in 0..random.below(6) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.below(256) as u8;
            }
            answers_to(server, &bytes);
        }
        wait_for_clients(server, 0);
    });
}

#[test]
fn lengths_that_cannot_be_are_refused_and_those_that_can_cost_nothing_until_bytes_come() {
    let long = |begin: &str| [begin.as_bytes(), &vec![b'1'; 70_000][..]].concat();
    let refused: Vec<(Vec<u8>, &str)> = vec![
        (b"*1\r\n$536870913\r\n".into(), "invalid bulk length"),
        (b"*1\r\n$99999999999999999999\r\n".into(), "invalid bulk length"),
        (b"*1\r\n$-5\r\n".into(), "invalid bulk length"),
        (b"*1\r\n$five\r\n".into(), "invalid bulk length"),
        (b"*2147483648\r\n".into(), "invalid multibulk length"),
        (b"*99999999999999999999\r\n".into(), "invalid multibulk length"),
        (b"*x\r\n".into(), "invalid multibulk length"),
        (b"*1\r\nGET\r\n".into(), "expected '$', got 'G'"),
        (b"SET a \"b\r\n".into(), "unbalanced quotes in request"),
        (long("*"), "too big mbulk count string"),
        (long("*1\r\n$"), "too big bulk count string"),
        (long("GET "), "too big inline request"),
    ];
    beside_a_client(48 * MIB, |server| {
        for (bytes, why) in &refused {
            let answers = String::from_utf8(answers_to(server, bytes)).expect("text");
            assert_eq!(answers, format!("-ERR Protocol error: {why}\r\n"), "{why}");
        }
        // Announced, and not sent.
        let open: Vec<TcpStream> = (0..60)
            .map(|n| {
                let mut stream = connect(server);
                let announced: &[u8] = match n % 3 {
                    0 => b"*1\r\n$536870912\r\nabc",
                    1 => b"*2147483647\r\n$3\r\nSET\r\n",
                    _ => b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$500000000\r\n",
                };
                stream.write_all(announced).expect("it is taken");
                stream
            })
            .collect();
        // Once they are answered, the server has seen what came before.
        for _ in 0..4 {
            ping(&mut server.connect());
        }
        drop(open);
        wait_for_clients(server, 0);
    });
}

#[test]
fn half_requests_wait_and_go_with_their_connections() {
    beside_a_client(48 * MIB, |server| {
        let mut request = Vec::new();
        encode(&mut request, &["SET", "half", &"v".repeat(20_000)]);
        let mut random = Random::new(3);
        let mut half: Vec<(TcpStream, usize)> = (0..300)
            .map(|_| {
                let mut stream = connect(server);
                let len = random.below(request.len() as u64) as usize;
                stream.write_all(&request[..len]).expect("it is taken");
                (stream, len)
            })
            .collect();
        // A third goes on, a third is half-closed, a third goes.
        for (index, (stream, len)) in half.iter_mut().enumerate() {
            match index % 3 {
                0 => {
                    stream.write_all(&request[*len..]).expect("it is taken");
                    let mut answer = [0; 5];
                    stream.read_exact(&mut answer).expect("it is answered");
                    assert_eq!(&answer, b"+OK\r\n");
                }
                1 => {
                    stream.shutdown(Shutdown::Write).expect("it is open");
                    // At most a reset instead of an end.
                    let answer = stream.read(&mut [0; 16]);
                    assert!(
                        matches!(answer, Ok(0))
                            || answer.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
                    );
                }
                _ => (),
            }
        }
        drop(half);
        wait_for_clients(server, 0);
    });
}

#[test]
fn who_never_reads_is_waited_for_and_costs_little() {
    // One value's replies, and what is under way: not the gigabytes that were asked for.
    beside_a_client(64 * MIB, |server| {
        let mut client = server.connect();
        let value = "v".repeat(MIB);
        client.call(&["SET", "big", &value]).expect("it is answered");
        let mut readers: Vec<TcpStream> = (0..4).map(|_| connect(server)).collect();
        let mut gets = Vec::new();
        (0..500).for_each(|_| encode(&mut gets, &["GET", "big"]));
        for reader in &mut readers {
            reader.set_write_timeout(Some(Duration::from_millis(50))).expect("it is set");
            // 500 MiB are asked for; perhaps not everything is taken.
            let _ = reader.write_all(&gets);
        }
        for _ in 0..100 {
            ping(&mut client);
        }
        // Who reads after all gets what he has asked for, from the first byte on.
        let reader = &mut readers[0];
        let mut reply = vec![0; 10 + 2 * MIB];
        reader.read_exact(&mut reply).expect("it is answered");
        assert!(reply.starts_with(b"$1048576\r\nvvv"));
        drop(readers);
        wait_for_clients(server, 1);
    });
}

#[test]
fn a_subscriber_who_never_reads_is_disconnected_at_its_limit() {
    beside_a_client(64 * MIB, |server| {
        let mut client = server.connect();
        let limit = ["CONFIG", "SET", "client-output-buffer-limit", "pubsub 8mb 0 0"];
        assert_eq!(client.call(&limit).expect("it is answered"), Answer::Status("OK".into()));
        let mut subscriber = server.connect();
        subscriber.call(&["SUBSCRIBE", "news"]).expect("it is answered");
        let message = "m".repeat(MIB / 4);
        let mut sent = 0;
        // Until nobody hears it any more. What sockets hold comes to the limit.
        while client.call(&["PUBLISH", "news", &message]).expect("it is answered") == Answer::Int(1)
        {
            sent += message.len();
            assert!(sent < 64 * MIB, "{sent} bytes are kept for it");
        }
        assert!(sent >= 8 * MIB, "{sent} bytes were too many");
        wait_for_clients(server, 1);
    });
}

#[test]
fn thousands_who_come_and_go_leave_nothing_behind() {
    beside_a_client(48 * MIB, |server| {
        let descriptors = || {
            let path = format!("/proc/{}/fd", server.pid());
            std::fs::read_dir(path).expect("the server runs").count()
        };
        wait_for_clients(server, 0);
        let before = descriptors();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for n in 0..500 {
                        let mut stream = connect(server);
                        match (n + thread) % 5 {
                            0 => (),
                            1 => stream.write_all(b"PING\r\n").expect("it is taken"),
                            2 => stream.write_all(b"*2\r\n$5\r\nBLPOP").expect("it is taken"),
                            3 => stream.write_all(b"BLPOP none 0\r\n").expect("it is taken"),
                            _ => assert_eq!(
                                answers_to(server, b"SUBSCRIBE a\r\nQUIT\r\n").last(),
                                Some(&b'\n')
                            ),
                        }
                    }
                });
            }
        });
        wait_for_clients(server, 0);
        let until = Instant::now() + PATIENCE;
        while descriptors() > before + 4 {
            assert!(Instant::now() < until, "{} descriptors instead of {before}", descriptors());
            std::thread::sleep(Duration::from_millis(2));
        }
    });
}
