//! Unix sockets: streams and datagrams, and the names they have or have not.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use omniring::net::{UnixDatagram, UnixListener, UnixStream};
use omniring::time::timeout;
use omniring::{Runtime, spawn, yield_now};

use crate::harness::conformance;
use crate::loopback::{recv_to_end, start};

conformance!(
    a_stream_connects_by_path,
    a_stream_connects_by_abstract_name,
    a_pair_is_connected_and_unnamed,
    the_end_of_a_stream_comes_after_its_data,
    sending_to_a_peer_that_is_gone_is_a_broken_pipe,
    a_closed_peer_with_unread_data_resets,
    full_buffers_make_a_send_wait,
    a_path_that_is_not_there_is_not_found,
    nobody_at_a_path_refuses,
    a_path_in_use_is_named,
    a_name_too_long_is_refused,
    connecting_waits_while_the_backlog_is_full,
    connecting_to_a_full_backlog_can_be_given_up,
    a_listener_that_goes_refuses_those_who_wait,
    datagrams_arrive_by_path_with_their_sender,
    datagrams_of_an_unnamed_sender_have_no_address,
    a_connected_datagram_socket_sends_to_its_peer,
    datagrams_that_queued_up_are_all_received,
    an_empty_datagram_is_a_datagram,
    a_full_receiver_makes_a_sender_wait,
    a_full_connected_receiver_makes_a_sender_wait,
    a_receiver_that_others_filled_makes_a_sender_wait,
    sockets_come_from_std_and_go_back,
);

const SOON: Duration = Duration::from_secs(20);
const WHILE: Duration = Duration::from_millis(20);

fn a_stream_connects_by_path(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let listener = UnixListener::bind(&path).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path));
        let client = UnixStream::connect(&path).await.unwrap();
        let (server, from) = listener.accept().await.unwrap();
        assert!(from.is_unnamed() && client.local_addr().unwrap().is_unnamed());
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*path));
        client.send_all("over a path").await.0.unwrap();
        let (result, buf) = server.recv_into(Vec::with_capacity(64)).await;
        assert_eq!((result.unwrap(), &buf[..]), (11, &b"over a path"[..]));
    });
}

/// An abstract name that no other test has.
fn abstract_addr(runtime: &Runtime, name: &str) -> SocketAddr {
    let name = format!("omniring-test-{}-{}-{name}", std::process::id(), runtime.engine().name());
    SocketAddr::from_abstract_name(name).unwrap()
}

fn a_stream_connects_by_abstract_name(runtime: &Runtime) {
    let addr = abstract_addr(runtime, "stream");
    runtime.block_on(async {
        let listener = UnixListener::bind_addr(&addr).await.unwrap();
        let bound = listener.local_addr().unwrap();
        assert_eq!(bound.as_abstract_name(), addr.as_abstract_name());
        let client = UnixStream::connect_addr(&addr).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        server.send_all("hello").await.0.unwrap();
        assert_eq!(client.recv_into(vec![0; 8]).await.0.unwrap(), 5);
        let error = UnixListener::bind_addr(&addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

fn a_pair_is_connected_and_unnamed(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        assert!(one.local_addr().unwrap().is_unnamed() && one.peer_addr().unwrap().is_unnamed());
        let mut recv = other.recv_into(Vec::with_capacity(8));
        assert!(start(&mut recv).await.is_none());
        one.send_all("hi").await.0.unwrap();
        let (result, buf) = timeout(SOON, recv).await.unwrap();
        assert_eq!((result.unwrap(), &buf[..]), (2, &b"hi"[..]));
    });
}

fn the_end_of_a_stream_comes_after_its_data(runtime: &Runtime) {
    runtime.block_on(async {
        for round in 0..200u32 {
            let (one, other) = UnixStream::pair().unwrap();
            let mut recv = other.recv_into(Vec::with_capacity(64));
            let waits = round % 2 == 0;
            if waits {
                assert!(start(&mut recv).await.is_none());
            }
            one.send_all(round.to_le_bytes().to_vec()).await.0.unwrap();
            if round % 3 == 0 {
                one.shutdown(Shutdown::Write).await.unwrap();
            } else {
                drop(one);
            }
            let (result, buf) = timeout(SOON, recv).await.unwrap();
            assert_eq!((result.unwrap(), &buf[..]), (4, &round.to_le_bytes()[..]));
            assert_eq!(timeout(SOON, other.recv_into(buf)).await.unwrap().0.unwrap(), 0);
        }
    });
}

fn sending_to_a_peer_that_is_gone_is_a_broken_pipe(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        drop(other);
        let (result, buf) = one.send(b"anyone?".to_vec()).await;
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPIPE));
        assert_eq!(buf, b"anyone?");
        assert_eq!(recv_to_end(&one).await, b"");
    });
}

fn a_closed_peer_with_unread_data_resets(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let mut recv = one.recv_into(vec![0; 8]);
        assert!(start(&mut recv).await.is_none());
        one.send_all("unread").await.0.unwrap();
        drop(other);
        let (result, _) = timeout(SOON, recv).await.unwrap();
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    });
}

fn full_buffers_make_a_send_wait(runtime: &Runtime) {
    runtime.block_on(async {
        const LEN: usize = 8 << 20;
        let (one, other) = UnixStream::pair().unwrap();
        let data: Vec<u8> = (0..LEN).map(|at| (at ^ (at >> 8)) as u8).collect();
        let expected = data.clone();
        let sender = spawn(async move { one.send_all(data).await.0 });
        omniring::time::sleep(WHILE).await;
        assert!(!sender.is_finished());
        let all = timeout(SOON, recv_to_end(&other)).await.unwrap();
        assert!(all == expected);
        sender.await.unwrap().unwrap();
    });
}

fn a_path_that_is_not_there_is_not_found(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nobody");
    runtime.block_on(async {
        let error = UnixStream::connect(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let unbound = UnixDatagram::unbound().await.unwrap();
        let error = unbound.send_to("x", &path).await.0.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = unbound.connect(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = UnixListener::bind(path.join("below")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("nobody"), "{error}");
    });
}

fn nobody_at_a_path_refuses(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        drop(UnixListener::bind(&path).await.unwrap());
        let error = UnixStream::connect(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    });
}

fn a_path_in_use_is_named(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let _listener = UnixListener::bind(&path).await.unwrap();
        let error = UnixListener::bind(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let error = UnixDatagram::bind(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

fn a_name_too_long_is_refused(runtime: &Runtime) {
    runtime.block_on(async {
        let long = "x".repeat(200);
        let error = UnixStream::connect(&long).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&long), "{error}");
    });
}

/// A listener with room for one connection, and connections until it is full.
async fn full_listener(
    addr: &SocketAddr,
) -> (std::os::unix::net::UnixListener, Vec<std::os::unix::net::UnixStream>) {
    let listener = std::os::unix::net::UnixListener::bind_addr(addr).unwrap();
    socket2::SockRef::from(&listener).listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut name = vec![0];
        name.extend_from_slice(addr.as_abstract_name().unwrap());
        let to = socket2::SockAddr::unix(std::str::from_utf8(&name).unwrap()).unwrap();
        match socket.connect(&to) {
            Ok(()) => waiting.push(OwnedFd::from(socket).into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(waiting.len() < 100, "the backlog has an end");
    }
    (listener, waiting)
}

fn connecting_waits_while_the_backlog_is_full(runtime: &Runtime) {
    let addr = abstract_addr(runtime, "full");
    runtime.block_on(async {
        let (listener, waiting) = full_listener(&addr).await;
        let mut connect = pin!(UnixStream::connect_addr(&addr));
        assert!(timeout(WHILE, &mut connect).await.is_err(), "there is no room");
        for _ in &waiting {
            listener.accept().unwrap();
        }
        let client = timeout(SOON, connect).await.unwrap().unwrap();
        let (server, _) = listener.accept().unwrap();
        let server = UnixStream::from_std(server);
        server.send_all("welcome").await.0.unwrap();
        assert_eq!(client.recv_into(vec![0; 8]).await.0.unwrap(), 7);
    });
}

fn connecting_to_a_full_backlog_can_be_given_up(runtime: &Runtime) {
    let addr = abstract_addr(runtime, "given-up");
    runtime.block_on(async {
        let (listener, waiting) = full_listener(&addr).await;
        for _ in 0..3 {
            assert!(timeout(WHILE, UnixStream::connect_addr(&addr)).await.is_err());
        }
        timeout(SOON, async {
            while runtime.stats().in_flight_count > 0 {
                yield_now().await;
            }
        })
        .await
        .unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut count = 0;
        while listener.accept().is_ok() {
            count += 1;
        }
        assert_eq!(count, waiting.len(), "those who gave up did not connect");
    });
}

fn a_listener_that_goes_refuses_those_who_wait(runtime: &Runtime) {
    let addr = abstract_addr(runtime, "goes");
    runtime.block_on(async {
        let (listener, _waiting) = full_listener(&addr).await;
        let mut connect = pin!(UnixStream::connect_addr(&addr));
        assert!(timeout(WHILE, &mut connect).await.is_err(), "there is no room");
        drop(listener);
        let error = timeout(SOON, connect).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

fn datagrams_arrive_by_path_with_their_sender(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let (one_path, other_path) = (dir.path().join("one"), dir.path().join("other"));
    runtime.block_on(async {
        let one = UnixDatagram::bind(&one_path).await.unwrap();
        let other = UnixDatagram::bind(&other_path).await.unwrap();
        let mut recv = pin!(other.recv_from_into(Vec::with_capacity(16)));
        assert!(start(&mut recv).await.is_none());
        assert_eq!(one.send_to("ping", &other_path).await.0.unwrap(), 4);
        let (result, buf) = timeout(SOON, recv).await.unwrap();
        let (count, from) = result.unwrap();
        assert_eq!((count, from.as_pathname(), &buf[..]), (4, Some(&*one_path), &b"ping"[..]));
    });
}

fn datagrams_of_an_unnamed_sender_have_no_address(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let named = UnixDatagram::bind(&path).await.unwrap();
        let unnamed = UnixDatagram::unbound().await.unwrap();
        assert!(unnamed.local_addr().unwrap().is_unnamed());
        unnamed.send_to("who?", &path).await.0.unwrap();
        let (result, _) = named.recv_from_into(Vec::with_capacity(16)).await;
        let (count, from) = result.unwrap();
        assert!(count == 4 && from.is_unnamed(), "{from:?}");
    });
}

fn a_connected_datagram_socket_sends_to_its_peer(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let named = UnixDatagram::bind(&path).await.unwrap();
        let unnamed = UnixDatagram::unbound().await.unwrap();
        let (result, _) = unnamed.send("nowhere").await;
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
        unnamed.connect(&path).await.unwrap();
        unnamed.send("here").await.0.unwrap();
        let (result, buf) = named.recv_into(Vec::with_capacity(2)).await;
        assert_eq!((result.unwrap(), &buf[..]), (2, &b"he"[..]), "the rest is lost");
        drop(named);
        let (result, _) = unnamed.send("gone").await;
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    });
}

fn datagrams_that_queued_up_are_all_received(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        for in_flight in [false, true, true] {
            let mut recv = other.recv_into(Vec::with_capacity(16));
            if in_flight {
                assert!(start(&mut recv).await.is_none());
            }
            for number in 0..5u8 {
                one.send(vec![number]).await.0.unwrap();
            }
            assert_eq!(timeout(SOON, recv).await.unwrap().1, [0]);
            for number in 1..5u8 {
                let (_, buf) =
                    timeout(SOON, other.recv_into(Vec::with_capacity(16))).await.unwrap();
                assert_eq!(buf, [number]);
            }
        }
    });
}

fn an_empty_datagram_is_a_datagram(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        let mut recv = other.recv_into(vec![7; 4]);
        assert!(start(&mut recv).await.is_none());
        assert_eq!(one.send(Vec::new()).await.0.unwrap(), 0);
        assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 0);
        one.send("x").await.0.unwrap();
        assert_eq!(timeout(SOON, other.recv_into(vec![7; 4])).await.unwrap().0.unwrap(), 1);
    });
}

/// Has a task send this many datagrams, more than the receiver's queue holds; then receives them.
async fn send_past_the_limit(
    send: impl AsyncFn(u32) + 'static,
    receiver: &UnixDatagram,
    count: u32,
) {
    let sender = spawn(async move {
        for number in 0..count {
            send(number).await;
        }
    });
    omniring::time::sleep(WHILE).await;
    assert!(!sender.is_finished(), "the receiver's queue has an end");
    for number in 0..count {
        let recv = receiver.recv_into(Vec::with_capacity(8));
        let (result, buf) = timeout(SOON, recv).await.unwrap();
        assert_eq!((result.unwrap(), &buf[..]), (4, &number.to_le_bytes()[..]));
    }
    timeout(SOON, sender).await.unwrap().unwrap();
}

fn a_full_receiver_makes_a_sender_wait(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let receiver = UnixDatagram::bind(&path).await.unwrap();
        let sender = UnixDatagram::unbound().await.unwrap();
        let send = async move |number: u32| {
            sender.send_to(number.to_le_bytes().to_vec(), &path).await.0.unwrap();
        };
        send_past_the_limit(send, &receiver, 2000).await;
    });
}

fn a_full_connected_receiver_makes_a_sender_wait(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let receiver = UnixDatagram::bind(&path).await.unwrap();
        let sender = UnixDatagram::unbound().await.unwrap();
        sender.connect(&path).await.unwrap();
        let send = async move |number: u32| {
            sender.send(number.to_le_bytes().to_vec()).await.0.unwrap();
        };
        send_past_the_limit(send, &receiver, 2000).await;
    });
}

/// Nothing that this sender did makes room: the queue is full of somebody else's datagrams.
fn a_receiver_that_others_filled_makes_a_sender_wait(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        for connected in [false, true] {
            let receiver = UnixDatagram::bind(&path).await.unwrap();
            let other = std::os::unix::net::UnixDatagram::unbound().unwrap();
            other.set_nonblocking(true).unwrap();
            let mut count = 0;
            while other.send_to(b"other", &path).is_ok() {
                count += 1;
            }
            let sender = UnixDatagram::unbound().await.unwrap();
            if connected {
                sender.connect(&path).await.unwrap();
            }
            let path = path.clone();
            let sent = spawn(async move {
                if connected {
                    sender.send("mine").await.0.unwrap();
                } else {
                    sender.send_to("mine", &path).await.0.unwrap();
                }
            });
            omniring::time::sleep(WHILE).await;
            assert!(!sent.is_finished(), "there is no room");
            for _ in 0..count {
                assert_eq!(receiver.recv_into(vec![0; 8]).await.0.unwrap(), 5);
            }
            timeout(SOON, sent).await.expect("there is room now").unwrap();
            assert_eq!(receiver.recv_into(vec![0; 8]).await.0.unwrap(), 4);
            std::fs::remove_file(dir.path().join("socket")).unwrap();
        }
    });
}

fn sockets_come_from_std_and_go_back(runtime: &Runtime) {
    let addr = abstract_addr(runtime, "std");
    for nonblocking in [false, true] {
        runtime.block_on(async {
            let listener = std::os::unix::net::UnixListener::bind_addr(&addr).unwrap();
            listener.set_nonblocking(nonblocking).unwrap();
            let listener = UnixListener::from_std(listener);
            let mut accept = pin!(listener.accept());
            assert!(start(&mut accept).await.is_none());
            let peer = std::os::unix::net::UnixStream::connect_addr(&addr).unwrap();
            peer.set_nonblocking(nonblocking).unwrap();
            let (server, _) = timeout(SOON, accept).await.unwrap().unwrap();
            let client = UnixStream::from_std(peer);
            let mut recv = client.recv_into(Vec::with_capacity(8));
            assert!(start(&mut recv).await.is_none());
            server.send_all("in").await.0.unwrap();
            assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 2);
            let mut client = client.into_std().unwrap();
            let reader = std::thread::spawn(move || std::io::Read::read(&mut client, &mut [0; 8]));
            server.send_all("out").await.0.unwrap();
            assert_eq!(reader.join().unwrap().expect("a blocking read waits"), 3);
        });
    }
}
