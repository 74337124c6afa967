//! UDP: whole datagrams, where they come from, and errors that come back.

use std::io::ErrorKind;
use std::time::Duration;

use omniring::net::UdpSocket;
use omniring::time::timeout;
use omniring::{Runtime, spawn};

use crate::harness::{conformance, errno, skip};
use crate::loopback::start;

conformance!(
    a_datagram_names_its_sender,
    a_receive_waits_for_a_datagram,
    a_connected_socket_receives_from_its_peer_only,
    what_the_buffer_has_no_room_for_is_lost,
    an_empty_datagram_is_a_datagram,
    a_receive_without_room_takes_one_datagram,
    datagrams_that_queued_up_are_all_received,
    a_short_datagram_does_not_hide_the_next,
    receives_in_flight_take_one_datagram_each,
    a_refusal_ends_a_receive_in_flight,
    a_refusal_that_came_before_is_reported,
    a_datagram_that_is_too_long_is_refused,
    a_dropped_receive_takes_no_datagram,
    an_address_in_use_is_named,
    a_name_that_does_not_resolve_is_named,
    ipv6_datagrams_arrive,
    sockets_come_from_std_and_go_back,
    readiness_can_be_waited_for,
);

const SOON: Duration = Duration::from_secs(20);
const WHILE: Duration = Duration::from_millis(20);

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// Two sockets connected to each other.
async fn pair() -> (UdpSocket, UdpSocket) {
    let (one, other) = (socket().await, socket().await);
    one.connect(other.local_addr().unwrap()).await.unwrap();
    other.connect(one.local_addr().unwrap()).await.unwrap();
    (one, other)
}

fn a_datagram_names_its_sender(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = (socket().await, socket().await);
        let to = other.local_addr().unwrap();
        let (result, buf) = one.send_to(b"ping".to_vec(), to).await;
        assert_eq!((result.unwrap(), &buf[..]), (4, &b"ping"[..]));
        let (result, buf) = other.recv_from_into(Vec::with_capacity(16)).await;
        let (count, from) = result.unwrap();
        assert_eq!((count, from, &buf[..]), (4, one.local_addr().unwrap(), &b"ping"[..]));
        other.send_to("pong", ("localhost", from.port())).await.0.unwrap();
        assert_eq!(one.recv_from_into(Vec::with_capacity(16)).await.0.unwrap(), (4, to));
    });
}

fn a_receive_waits_for_a_datagram(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = (socket().await, socket().await);
        let to = other.local_addr().unwrap();
        let receiver = other.clone();
        for round in 0..200u32 {
            let receiver = receiver.clone();
            let received = spawn(async move {
                let (result, buf) = receiver.recv_from_into(Vec::with_capacity(16)).await;
                (result.unwrap(), buf)
            });
            if round % 2 == 0 {
                omniring::yield_now().await;
            }
            one.send_to(round.to_le_bytes().to_vec(), to).await.0.unwrap();
            let ((count, from), buf) = timeout(SOON, received).await.unwrap().unwrap();
            assert_eq!((count, from), (4, one.local_addr().unwrap()));
            assert_eq!(buf, round.to_le_bytes());
        }
    });
}

fn a_connected_socket_receives_from_its_peer_only(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        assert_eq!(one.peer_addr().unwrap(), other.local_addr().unwrap());
        let stranger = socket().await;
        stranger.send_to("no", one.local_addr().unwrap()).await.0.unwrap();
        other.send("yes").await.0.unwrap();
        let (result, buf) = one.recv_into(Vec::with_capacity(16)).await;
        assert_eq!((result.unwrap(), &buf[..]), (3, &b"yes"[..]));
        assert!(timeout(WHILE, one.recv_into(buf)).await.is_err());
        let (result, _) = stranger.send("to whom?").await;
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EDESTADDRREQ));
        assert_eq!(stranger.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

fn what_the_buffer_has_no_room_for_is_lost(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        for text in ["a long one", "b"] {
            one.send(text).await.0.unwrap();
        }
        let (result, buf) = other.recv_into(Vec::with_capacity(6)).await;
        assert_eq!((result.unwrap(), &buf[..]), (6, &b"a long"[..]));
        let (result, buf) =
            timeout(SOON, other.recv_from_into(Vec::with_capacity(6))).await.unwrap();
        assert_eq!((result.unwrap().0, &buf[..]), (1, &b"b"[..]));
    });
}

fn an_empty_datagram_is_a_datagram(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        let mut recv = other.recv_into(Vec::with_capacity(8));
        assert!(start(&mut recv).await.is_none());
        assert_eq!(one.send(Vec::new()).await.0.unwrap(), 0);
        let (result, buf) = timeout(SOON, recv).await.unwrap();
        assert_eq!((result.unwrap(), buf.len()), (0, 0));
        one.send_to(Vec::new(), other.local_addr().unwrap()).await.0.unwrap();
        let (result, _) = timeout(SOON, other.recv_from_into(buf)).await.unwrap();
        assert_eq!(result.unwrap(), (0, one.local_addr().unwrap()));
        // It was no end: the socket goes on.
        one.send("more").await.0.unwrap();
        assert_eq!(timeout(SOON, other.recv_into(vec![0; 8])).await.unwrap().0.unwrap(), 4);
    });
}

fn a_receive_without_room_takes_one_datagram(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        for text in ["first", "second"] {
            one.send(text).await.0.unwrap();
        }
        assert_eq!(timeout(SOON, other.recv_into(Vec::new())).await.unwrap().0.unwrap(), 0);
        let (result, buf) = other.recv_into(Vec::with_capacity(16)).await;
        assert_eq!((result.unwrap(), &buf[..]), (6, &b"second"[..]));
    });
}

fn datagrams_that_queued_up_are_all_received(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        // First with a socket that never waited, then with one that did.
        for in_flight in [false, true, true] {
            let mut recv = other.recv_into(Vec::with_capacity(16));
            if in_flight {
                assert!(start(&mut recv).await.is_none());
            }
            for number in 0..50u8 {
                one.send(vec![number; 1 + usize::from(number) % 16]).await.0.unwrap();
            }
            let (result, buf) = timeout(SOON, recv).await.unwrap();
            assert_eq!((result.unwrap(), buf[0]), (1, 0));
            for number in 1..50u8 {
                let (result, buf) =
                    timeout(SOON, other.recv_into(Vec::with_capacity(16))).await.unwrap();
                assert_eq!((result.unwrap(), buf[0]), (1 + usize::from(number) % 16, number));
            }
        }
    });
}

/// What is true of streams, that a short receive took all there was, is not true of datagrams.
fn a_short_datagram_does_not_hide_the_next(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        for _ in 0..200 {
            let mut recv = other.recv_into(Vec::with_capacity(1000));
            assert!(start(&mut recv).await.is_none());
            one.send("short").await.0.unwrap();
            one.send("short too").await.0.unwrap();
            assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 5);
            assert_eq!(timeout(SOON, other.recv_into(vec![0; 1000])).await.unwrap().0.unwrap(), 9);
        }
    });
}

fn receives_in_flight_take_one_datagram_each(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let other = other.clone();
                spawn(async move {
                    let (result, buf) = other.recv_from_into(Vec::with_capacity(8)).await;
                    assert_eq!(result.unwrap().0, 1);
                    buf[0]
                })
            })
            .collect();
        omniring::yield_now().await;
        omniring::yield_now().await;
        for number in 0..20u8 {
            one.send(vec![number]).await.0.unwrap();
        }
        let mut numbers = Vec::new();
        for task in tasks {
            numbers.push(timeout(SOON, task).await.unwrap().unwrap());
        }
        numbers.sort_unstable();
        assert_eq!(numbers, Vec::from_iter(0..20u8));
    });
}

/// A socket connected to a port that nobody has.
async fn connected_to_nobody() -> UdpSocket {
    let (one, nobody) = (socket().await, socket().await);
    one.connect(nobody.local_addr().unwrap()).await.unwrap();
    nobody.into_std().map(drop).unwrap();
    one
}

fn a_refusal_ends_a_receive_in_flight(runtime: &Runtime) {
    runtime.block_on(async {
        let one = connected_to_nobody().await;
        for _ in 0..20 {
            let mut recv = one.recv_into(Vec::with_capacity(8));
            assert!(start(&mut recv).await.is_none());
            one.send("anyone?").await.0.unwrap();
            let (result, buf) = timeout(SOON, recv).await.unwrap();
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
            assert_eq!(buf.capacity(), 8);
        }
    });
}

fn a_refusal_that_came_before_is_reported(runtime: &Runtime) {
    runtime.block_on(async {
        let one = connected_to_nobody().await;
        for _ in 0..20 {
            one.send("anyone?").await.0.unwrap();
            let (result, _) = timeout(SOON, one.recv_into(vec![0; 8])).await.unwrap();
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
        }
        assert!(timeout(WHILE, one.recv_into(vec![0; 8])).await.is_err(), "it was reported");
    });
}

fn a_datagram_that_is_too_long_is_refused(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, _other) = pair().await;
        let (result, buf) = one.send(vec![0; 70_000]).await;
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(buf.len(), 70_000);
    });
}

fn a_dropped_receive_takes_no_datagram(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        for round in 0..100u32 {
            let mut recv = other.recv_into(Vec::with_capacity(8));
            assert!(start(&mut recv).await.is_none());
            drop(recv);
            timeout(SOON, async {
                while runtime.stats().in_flight_count > 0 {
                    omniring::yield_now().await;
                }
            })
            .await
            .unwrap();
            one.send(round.to_le_bytes().to_vec()).await.0.unwrap();
            let (result, buf) =
                timeout(SOON, other.recv_into(Vec::with_capacity(8))).await.unwrap();
            assert_eq!((result.unwrap(), &buf[..]), (4, &round.to_le_bytes()[..]));
        }
    });
}

fn an_address_in_use_is_named(runtime: &Runtime) {
    runtime.block_on(async {
        let one = socket().await;
        let addr = one.local_addr().unwrap();
        let error = UdpSocket::bind(addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
        assert_eq!(errno(Err::<(), _>(error)), libc::EADDRINUSE);
    });
}

fn a_name_that_does_not_resolve_is_named(runtime: &Runtime) {
    runtime.block_on(async {
        let one = socket().await;
        let (result, buf) = timeout(SOON, one.send_to("x", "no such host:1")).await.unwrap();
        let error = result.unwrap_err();
        assert!(error.to_string().contains("no such host:1"), "{error}");
        assert_eq!(buf, "x");
    });
}

fn ipv6_datagrams_arrive(runtime: &Runtime) {
    runtime.block_on(async {
        let one = match UdpSocket::bind("[::1]:0").await {
            Ok(socket) => socket,
            Err(error) => return skip(&format!("no IPv6 here: {error}")),
        };
        let other = UdpSocket::bind("[::1]:0").await.unwrap();
        one.send_to("six", other.local_addr().unwrap()).await.0.unwrap();
        let (result, buf) = other.recv_from_into(Vec::with_capacity(8)).await;
        assert_eq!((result.unwrap(), &buf[..]), ((3, one.local_addr().unwrap()), &b"six"[..]));
    });
}

fn sockets_come_from_std_and_go_back(runtime: &Runtime) {
    for nonblocking in [false, true] {
        runtime.block_on(async {
            let std_socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            std_socket.set_nonblocking(nonblocking).unwrap();
            let other = UdpSocket::from_std(std_socket);
            let one = socket().await;
            let mut recv = other.recv_into(Vec::with_capacity(8));
            assert!(start(&mut recv).await.is_none());
            one.send_to("in", other.local_addr().unwrap()).await.0.unwrap();
            assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 2);
            let std_socket = other.into_std().unwrap();
            let to = std_socket.local_addr().unwrap();
            let reader = std::thread::spawn(move || std_socket.recv(&mut [0; 8]));
            one.send_to("out", to).await.0.unwrap();
            assert_eq!(reader.join().unwrap().expect("a blocking receive waits"), 3);
        });
    }
}

fn readiness_can_be_waited_for(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = (socket().await, socket().await);
        let writable = timeout(SOON, one.poll(libc::POLLOUT)).await.unwrap().unwrap();
        assert_ne!(writable & libc::POLLOUT as u32, 0);
        let mut readable = other.poll(libc::POLLIN);
        assert!(timeout(WHILE, &mut readable).await.is_err());
        one.send_to("x", other.local_addr().unwrap()).await.0.unwrap();
        let events = timeout(SOON, readable).await.unwrap().unwrap();
        assert_ne!(events & libc::POLLIN as u32, 0);
        // Nothing was taken by that.
        let (result, _) = timeout(SOON, other.recv_into(vec![0; 8])).await.unwrap();
        assert_eq!(result.unwrap(), 1);
    });
}
