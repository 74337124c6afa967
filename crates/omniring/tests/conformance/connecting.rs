//! Connecting by name: what resolves and what does not, and addresses tried side by side.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use omniring::net::{Connector, Resolver, TcpListener, TcpSocket, TcpStream, lookup_host};
use omniring::time::{now, timeout};
use omniring::{Runtime, yield_now};

use crate::harness::{conformance, errno, fd_count, skip};
use crate::loopback::{listener, start};

conformance!(
    localhost_is_looked_up,
    addresses_are_not_looked_up,
    a_name_that_does_not_resolve_is_named,
    a_name_without_addresses_is_named,
    a_resolver_that_panics_takes_its_task_along,
    names_come_from_the_resolver_that_was_given,
    the_same_address_is_tried_once,
    an_address_that_does_not_answer_is_passed_by,
    an_address_that_refuses_is_passed_by_at_once,
    an_address_that_answers_late_can_still_win,
    the_other_family_comes_second,
    all_addresses_that_fail_are_named,
    every_socket_is_prepared,
    what_preparing_says_is_the_error,
    a_connection_comes_from_the_source_address,
    a_source_of_another_family_is_refused;
    isolated:
    the_attempts_that_lose_are_closed,
    attempts_that_are_dropped_are_closed,
    a_look_up_that_is_dropped_leaves_nothing,
);

const SOON: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(3600);
const SILENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OPEN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Always these addresses.
fn resolver(addrs: &[Ipv4Addr]) -> Resolver {
    let addrs: Vec<IpAddr> = addrs.iter().copied().map(IpAddr::from).collect();
    Resolver::from_fn(move |_| Ok(addrs.clone()))
}

/// A listener that does not answer, because those who wait fill its backlog, and one at the same
/// port of another address that does.
struct Pair {
    silent: TcpListener,
    open: TcpListener,
    port: u16,
    waiting: Vec<TcpStream>,
}

async fn silent_and_open() -> Pair {
    loop {
        let open = TcpListener::bind((OPEN, 0)).await.unwrap();
        let port = open.local_addr().unwrap().port();
        let socket = TcpSocket::new_v4().await.unwrap();
        // Somebody else may have the port at the other address.
        if socket.bind((SILENT, port).into()).await.is_err() {
            continue;
        }
        let silent = socket.listen(0).await.unwrap();
        let waiting = vec![TcpStream::connect(silent.local_addr().unwrap()).await.unwrap()];
        return Pair { silent, open, port, waiting };
    }
}

fn localhost_is_looked_up(runtime: &Runtime) {
    runtime.block_on(async {
        let addrs = lookup_host("localhost:80").await.unwrap();
        assert!(!addrs.is_empty());
        assert!(addrs.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
        assert_eq!(lookup_host(("localhost".to_owned(), 80)).await.unwrap(), addrs);
    });
}

fn addresses_are_not_looked_up(runtime: &Runtime) {
    runtime.block_on(async {
        let resolver = Resolver::from_fn(|name| panic!("asked for {name}"));
        let wanted: SocketAddr = "[::1]:80".parse().unwrap();
        for text in ["[::1]:80", "1.2.3.4:5"] {
            assert_eq!(resolver.lookup_host(text).await.unwrap(), [text.parse().unwrap()]);
        }
        assert_eq!(resolver.lookup_host(("::1", 80)).await.unwrap(), [wanted]);
        assert_eq!(resolver.lookup_host(vec![wanted, wanted]).await.unwrap(), [wanted, wanted]);
    });
}

fn a_name_that_does_not_resolve_is_named(runtime: &Runtime) {
    runtime.block_on(async {
        let resolver = Resolver::from_fn(|name| {
            assert_eq!(name, "nowhere.test");
            Err(io::Error::new(ErrorKind::TimedOut, "the name server is asleep"))
        });
        let connect = Connector::new().resolver(resolver).connect("nowhere.test:80").await;
        let error = connect.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let text = error.to_string();
        assert!(text.contains("nowhere.test:80") && text.contains("asleep"), "{text}");
        for name in ["no port", "name:", ":80", "name:65536", "a\0b:80", "no such host:80"] {
            let error = timeout(SOON, lookup_host(name)).await.unwrap().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    });
}

fn a_name_without_addresses_is_named(runtime: &Runtime) {
    runtime.block_on(async {
        let error = resolver(&[]).lookup_host("empty.test:80").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("empty.test:80"), "{error}");
        let error = TcpStream::connect(Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

fn a_resolver_that_panics_takes_its_task_along(runtime: &Runtime) {
    runtime.block_on(async {
        let task = omniring::spawn(async {
            let resolver = Resolver::from_fn(|_| panic!("no resolver today"));
            resolver.lookup_host("name:80").await
        });
        let error = task.await.unwrap_err();
        assert!(error.to_string().contains("no resolver today"), "{error}");
    });
}

fn names_come_from_the_resolver_that_was_given(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let port = listener.local_addr().unwrap().port();
        let connector = Connector::new().resolver(resolver(&[Ipv4Addr::LOCALHOST]));
        let stream = connector.connect(format!("store.test:{port}")).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
    });
}

fn the_same_address_is_tried_once(runtime: &Runtime) {
    runtime.block_on(async {
        let addrs = resolver(&[OPEN, SILENT, OPEN, OPEN]).lookup_host("name:1").await.unwrap();
        assert_eq!(addrs, [(OPEN, 1).into(), (SILENT, 1).into()]);
    });
}

fn an_address_that_does_not_answer_is_passed_by(runtime: &Runtime) {
    runtime.block_on(async {
        let pair = silent_and_open().await;
        let delay = Duration::from_millis(30);
        let connector = Connector::new().resolver(resolver(&[SILENT, OPEN])).attempt_delay(delay);
        let begin = now();
        let connect = connector.connect(("both.test", pair.port));
        let stream = timeout(SOON, connect).await.unwrap().unwrap();
        assert!(begin.elapsed() >= delay, "the first one has its time");
        assert_eq!(stream.peer_addr().unwrap(), pair.open.local_addr().unwrap());
        assert_eq!(pair.waiting.len(), 1);
    });
}

fn an_address_that_refuses_is_passed_by_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        let open = TcpListener::bind((OPEN, 0)).await.unwrap();
        let port = open.local_addr().unwrap().port();
        let nobody = Ipv4Addr::new(127, 0, 0, 77);
        let connector = Connector::new().resolver(resolver(&[nobody, OPEN])).attempt_delay(LONG);
        let stream = timeout(SOON, connector.connect(("both.test", port))).await.unwrap();
        assert_eq!(stream.unwrap().peer_addr().unwrap(), open.local_addr().unwrap());
    });
}

/// The second address never answers, and the first one does when there is room for it again.
fn an_address_that_answers_late_can_still_win(runtime: &Runtime) {
    runtime.block_on(async {
        let pair = silent_and_open().await;
        let connector = Connector::new()
            .resolver(resolver(&[SILENT, Ipv4Addr::new(127, 0, 0, 77)]))
            .attempt_delay(Duration::ZERO);
        let mut connect = Box::pin(connector.connect(("late.test", pair.port)));
        // The second one is refused; the first is not given up for that.
        for _ in 0..100 {
            assert!(start(&mut connect).await.is_none());
        }
        pair.silent.accept().await.unwrap();
        let stream = timeout(SOON, connect).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), pair.silent.local_addr().unwrap());
    });
}

/// Of four addresses of one family that do not answer and one of the other that does, no more than
/// one has to be waited for.
fn the_other_family_comes_second(runtime: &Runtime) {
    runtime.block_on(async {
        let open = match TcpListener::bind("[::1]:0").await {
            Ok(open) => open,
            Err(error) => return skip(&format!("no IPv6 here: {error}")),
        };
        let pair = silent_and_open().await;
        let silent = pair.silent.local_addr().unwrap();
        let addrs = vec![silent, silent, silent, silent, open.local_addr().unwrap()];
        let delay = Duration::from_millis(300);
        let connector = Connector::new().attempt_delay(delay);
        let begin = now();
        let stream = timeout(SOON, connector.connect(addrs)).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open.local_addr().unwrap());
        let elapsed = begin.elapsed();
        assert!(elapsed >= delay && elapsed < 4 * delay, "{elapsed:?}");
    });
}

fn all_addresses_that_fail_are_named(runtime: &Runtime) {
    runtime.block_on(async {
        let port = listener().await.local_addr().unwrap().port();
        let addrs = [Ipv4Addr::new(127, 0, 0, 77), Ipv4Addr::new(127, 0, 0, 78)];
        let connector = Connector::new().resolver(resolver(&addrs));
        let error = connector.connect(("none.test", port)).await.unwrap_err();
        for addr in addrs {
            assert!(error.to_string().contains(&format!("{addr}:{port}")), "{error}");
        }
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(errno(Err::<(), _>(error)), libc::ECONNREFUSED);
    });
}

fn every_socket_is_prepared(runtime: &Runtime) {
    runtime.block_on(async {
        let open = TcpListener::bind((OPEN, 0)).await.unwrap();
        let port = open.local_addr().unwrap().port();
        let count = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = count.clone();
        let connector = Connector::new()
            .resolver(resolver(&[Ipv4Addr::new(127, 0, 0, 77), OPEN]))
            .prepare(move |socket| {
                counted.set(counted.get() + 1);
                socket.set_nodelay(true)
            });
        assert!(connector.connect(("name", port)).await.unwrap().nodelay().unwrap());
        assert_eq!(count.get(), 2);
    });
}

fn what_preparing_says_is_the_error(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let connector = Connector::new().prepare(|_| Err(ErrorKind::PermissionDenied.into()));
        let error = connector.connect(listener.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    });
}

fn a_connection_comes_from_the_source_address(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let source = SocketAddr::from(([127, 0, 0, 5], 0));
        let addrs = vec!["[::1]:9".parse().unwrap(), listener.local_addr().unwrap()];
        let connector = Connector::new().source(source).attempt_delay(LONG);
        let stream = timeout(SOON, connector.connect(addrs)).await.unwrap().unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), source.ip());
    });
}

fn a_source_of_another_family_is_refused(runtime: &Runtime) {
    runtime.block_on(async {
        let connector = Connector::new().source("[::1]:0".parse().unwrap());
        let error = connector.connect("127.0.0.1:80").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("127.0.0.1:80"), "{error}");
    });
}

/// Until no op is in flight, and there are so many descriptors.
async fn settle(runtime: &Runtime, count: usize) {
    let settled = async {
        while fd_count() != count || runtime.stats().in_flight_count != 0 {
            yield_now().await;
        }
    };
    let ended = timeout(SOON, settled).await;
    ended.unwrap_or_else(|_| panic!("{} and not {count}; {:?}", fd_count(), runtime.stats()));
}

fn the_attempts_that_lose_are_closed(runtime: &Runtime) {
    runtime.block_on(async {
        let pair = silent_and_open().await;
        let connector = Connector::new()
            .resolver(resolver(&[SILENT, OPEN]))
            .attempt_delay(Duration::from_millis(5));
        // The pool has its threads, and the ring what it makes when it is first needed.
        drop(connector.connect(("both.test", pair.port)).await.unwrap());
        drop(pair.open.accept().await.unwrap());
        yield_now().await;
        let before = fd_count();
        for _ in 0..5 {
            let stream = connector.connect(("both.test", pair.port)).await.unwrap();
            drop(pair.open.accept().await.unwrap());
            drop(stream);
        }
        settle(runtime, before).await;
    });
}

fn attempts_that_are_dropped_are_closed(runtime: &Runtime) {
    runtime.block_on(async {
        let pair = silent_and_open().await;
        let connector = Connector::new().attempt_delay(Duration::ZERO);
        let silent = pair.silent.local_addr().unwrap();
        let addrs = vec![silent, silent, silent];
        let before = fd_count();
        for _ in 0..5 {
            let mut connect = Box::pin(connector.connect(addrs.clone()));
            for _ in 0..10 {
                assert!(start(&mut connect).await.is_none());
            }
            drop(connect);
        }
        settle(runtime, before).await;
    });
}

fn a_look_up_that_is_dropped_leaves_nothing(runtime: &Runtime) {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = std::sync::Mutex::new(receiver);
    let resolver = Resolver::from_fn(move |_| {
        let _ = receiver.lock().unwrap().recv();
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    });
    runtime.block_on(async {
        let connector = Connector::new().resolver(resolver);
        let mut connect = Box::pin(connector.connect("slow.test:80"));
        assert!(start(&mut connect).await.is_none());
        drop(connect);
    });
    drop(sender);
    assert_eq!(runtime.stats().in_flight_count, 0);
}
