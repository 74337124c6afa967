//! Leased buffers: what is received in memory of the runtime's pool, mixed with receives into
//! memory of one's own, and who pays when somebody hoards.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use omniring::net::{Lease, TcpStream, UnixStream};
use omniring::time::timeout;
use omniring::{Runtime, spawn, yield_now};
use socket2::SockRef;

use crate::harness::{conformance, errno, fd_count};
use crate::loopback::{start, tcp_pair, tcp_pair_with_std};

conformance!(
    a_lease_has_what_arrived,
    an_empty_lease_is_the_end_and_stays_it,
    much_data_arrives_unchanged,
    dropping_the_future_loses_nothing,
    receives_of_both_kinds_keep_the_order,
    a_receive_takes_what_it_has_room_for_and_leaves_the_rest,
    peek_sees_what_was_received_in_advance,
    a_vectored_receive_takes_what_was_received_in_advance,
    poll_knows_of_what_was_received_in_advance,
    the_end_after_leases_is_seen_by_other_receives,
    a_reset_is_reported_once,
    two_tasks_take_turns,
    a_waiting_receiver_holds_no_lease,
    a_hoarder_slows_itself_only,
    more_receivers_than_leases_are_all_served,
    a_peer_that_is_not_read_from_is_held_up,
    a_lease_outlives_its_runtime,
    a_lease_can_be_sent_on,
    a_closed_stream_with_a_receive_in_flight_is_closed,
    a_stream_goes_to_std_after_a_lease,
    a_stream_with_untaken_bytes_does_not_go_to_std,
    unix_streams_lease_too,
    a_receive_times_out_and_goes_on,
    a_runtime_ends_with_receives_in_flight;
    isolated:
    streams_dropped_with_untaken_bytes_leak_nothing,
);

async fn send(stream: &TcpStream, text: &'static str) {
    stream.send_all(text).await.0.unwrap();
}

/// Receives leases until so many bytes are there.
async fn recv_bytes(stream: &TcpStream, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let lease = stream.recv().await.unwrap();
        assert!(!lease.is_empty(), "the end after {} of {count} bytes", all.len());
        all.extend_from_slice(&lease);
    }
    all
}

/// Lets the loop go round until `stream` has received in advance whatever it does, as seen from
/// outside: bytes that the kernel still has are as good.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

fn a_lease_has_what_arrived(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        send(&client, "ping").await;
        let lease = server.recv().await.unwrap();
        assert_eq!(&lease[..], b"ping");
        assert!(lease.is_pooled());
        send(&client, "pong").await;
        assert_eq!(&server.recv().await.unwrap()[..], b"pong");
        assert_eq!(&lease[..], b"ping", "the first is still ours");
    });
}

fn an_empty_lease_is_the_end_and_stays_it(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        send(&client, "last").await;
        client.shutdown(Shutdown::Write).await.unwrap();
        assert_eq!(&server.recv().await.unwrap()[..], b"last");
        for _ in 0..3 {
            assert!(server.recv().await.unwrap().is_empty());
        }
        send(&server, "answer").await;
        assert_eq!(&client.recv().await.unwrap()[..], b"answer");
    });
}

/// Bytes that differ wherever one looks.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at >> 12) as u8).collect()
}

fn much_data_arrives_unchanged(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let sender = spawn(async move { client.send_all(pattern(8 << 20)).await.0.unwrap() });
        let all = recv_bytes(&server, 8 << 20).await;
        assert!(all == pattern(8 << 20));
        sender.await.unwrap();
    });
}

fn dropping_the_future_loses_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        for _ in 0..10 {
            assert!(start(&mut server.recv()).await.is_none());
        }
        send(&client, "kept").await;
        settle().await;
        // One that is dropped without having been polled, and one that was.
        drop(server.recv());
        assert_eq!(recv_bytes(&server, 4).await, b"kept");
    });
}

fn receives_of_both_kinds_keep_the_order(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let mut all = Vec::new();
        for round in 0..50u8 {
            client.send_all(vec![round; 10]).await.0.unwrap();
            if round % 3 == 0 {
                settle().await;
            }
            if round % 2 == 0 {
                all.extend_from_slice(&server.recv().await.unwrap());
            } else {
                let (result, buf) = server.recv_into(Vec::with_capacity(7)).await;
                assert_eq!(result.unwrap(), buf.len());
                all.extend(buf);
            }
        }
        client.shutdown(Shutdown::Write).await.unwrap();
        loop {
            let lease = server.recv().await.unwrap();
            if lease.is_empty() {
                break;
            }
            all.extend_from_slice(&lease);
        }
        let expected: Vec<u8> = (0..50u8).flat_map(|round| [round; 10]).collect();
        assert_eq!(all, expected);
    });
}

fn a_receive_takes_what_it_has_room_for_and_leaves_the_rest(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        assert!(start(&mut server.recv()).await.is_none());
        send(&client, "head and body").await;
        settle().await;
        let (result, head) = server.recv_into(Vec::with_capacity(5)).await;
        assert_eq!((result.unwrap(), &head[..]), (5, &b"head "[..]));
        assert_eq!(recv_bytes(&server, 8).await, b"and body");
    });
}

fn peek_sees_what_was_received_in_advance(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        assert!(start(&mut server.recv()).await.is_none());
        send(&client, "look").await;
        settle().await;
        for _ in 0..2 {
            let (result, seen) = server.peek(Vec::with_capacity(16)).await;
            assert_eq!((result.unwrap(), &seen[..]), (4, &b"look"[..]));
        }
        assert_eq!(recv_bytes(&server, 4).await, b"look");
    });
}

fn a_vectored_receive_takes_what_was_received_in_advance(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        assert!(start(&mut server.recv()).await.is_none());
        send(&client, "abcdefg").await;
        settle().await;
        let bufs = vec![Vec::with_capacity(2), Vec::with_capacity(3)];
        let (result, bufs) = server.recv_vectored(bufs).await;
        assert_eq!(result.unwrap(), 5);
        assert_eq!(bufs, [&b"ab"[..], &b"cde"[..]]);
        assert_eq!(recv_bytes(&server, 2).await, b"fg");
    });
}

fn poll_knows_of_what_was_received_in_advance(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        assert!(start(&mut server.recv()).await.is_none());
        let mut poll = server.poll(libc::POLLIN);
        assert!(start(&mut poll).await.is_none());
        send(&client, "x").await;
        assert_ne!(poll.await.unwrap() & libc::POLLIN as u32, 0);
        assert_ne!(server.poll(libc::POLLIN).await.unwrap() & libc::POLLIN as u32, 0);
        assert_eq!(recv_bytes(&server, 1).await, b"x");
    });
}

fn the_end_after_leases_is_seen_by_other_receives(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        send(&client, "a").await;
        assert_eq!(recv_bytes(&server, 1).await, b"a");
        assert!(start(&mut server.recv()).await.is_none());
        client.shutdown(Shutdown::Write).await.unwrap();
        settle().await;
        let (result, _) = server.recv_into(Vec::with_capacity(8)).await;
        assert_eq!(result.unwrap(), 0);
        assert!(server.recv().await.unwrap().is_empty());
    });
}

fn a_reset_is_reported_once(runtime: &Runtime) {
    runtime.block_on(async {
        let (server, client) = tcp_pair_with_std().await;
        assert!(start(&mut server.recv()).await.is_none());
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(errno(server.recv().await), libc::ECONNRESET);
        assert!(server.recv().await.unwrap().is_empty());
    });
}

fn two_tasks_take_turns(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let receivers: Vec<_> = (0..4)
            .map(|_| {
                let server = server.clone();
                spawn(async move { server.recv().await.unwrap().to_vec() })
            })
            .collect();
        // One byte at a time, of which one receive may find several.
        let mut sent = 0u8;
        while !receivers.iter().all(|receiver| receiver.is_finished()) {
            client.send_all(vec![sent]).await.0.unwrap();
            sent += 1;
            settle().await;
        }
        let mut all = Vec::new();
        for receiver in receivers {
            let bytes = receiver.await.unwrap();
            assert!(bytes.is_sorted());
            all.extend(bytes);
        }
        all.sort_unstable();
        let count = all.len() as u8;
        assert!(all.into_iter().eq(0..count), "none is lost, none comes twice");
    });
}

fn a_waiting_receiver_holds_no_lease(runtime: &Runtime) {
    runtime.block_on(async {
        let mut clients = Vec::new();
        let mut tasks = Vec::new();
        for _ in 0..50 {
            let (client, server) = tcp_pair().await;
            send(&client, "hello").await;
            tasks.push(spawn(async move {
                drop(recv_bytes(&server, 5).await);
                server.recv().await.unwrap().len()
            }));
            clients.push(client);
        }
        settle().await;
        // A thread of the pool may still be looking whether there is anything.
        while runtime.stats().leased_count > 0 {
            yield_now().await;
        }
        drop(clients);
        for task in tasks {
            assert_eq!(task.await.unwrap(), 0);
        }
    });
}

fn a_hoarder_slows_itself_only(runtime: &Runtime) {
    let small =
        Runtime::builder().engine(runtime.engine()).leases(16, 1024).build().expect("it runs");
    small.block_on(async {
        let (client, server) = tcp_pair().await;
        let mut hoard: Vec<Lease> = Vec::new();
        for round in 0..100u8 {
            client.send_all(vec![round; 100]).await.0.unwrap();
            let lease = server.recv().await.unwrap();
            assert_eq!(&lease[..], &[round; 100]);
            hoard.push(lease);
        }
        assert!(small.stats().leased_count <= 16);
        let (other_client, other_server) = tcp_pair().await;
        for _ in 0..10 {
            send(&other_client, "quick").await;
            let lease = other_server.recv().await.unwrap();
            assert_eq!(&lease[..], b"quick");
            assert!(lease.is_pooled(), "the hoarder has left buffers to others");
        }
        drop(hoard);
        assert_eq!(small.stats().leased_count, 0);
        // With its leases back, it is served from the pool again.
        let mut pooled = false;
        for _ in 0..10 {
            send(&client, "again").await;
            pooled |= server.recv().await.unwrap().is_pooled();
        }
        assert!(pooled);
    });
}

fn more_receivers_than_leases_are_all_served(runtime: &Runtime) {
    let small =
        Runtime::builder().engine(runtime.engine()).leases(4, 1024).build().expect("it runs");
    small.block_on(async {
        let mut tasks = Vec::new();
        let mut clients = Vec::new();
        for at in 0..40u8 {
            let (client, server) = tcp_pair().await;
            clients.push(client);
            tasks.push(spawn(async move {
                let mut kept = Vec::new();
                let mut count = 0;
                while count < 5 * 1000 {
                    let lease = server.recv().await.unwrap();
                    assert!(lease.iter().all(|&byte| byte == at));
                    count += lease.len();
                    kept.push(lease);
                }
                count
            }));
        }
        for _ in 0..5 {
            for (at, client) in clients.iter().enumerate() {
                client.send_all(vec![at as u8; 1000]).await.0.unwrap();
            }
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), 5000);
        }
        assert_eq!(small.stats().leased_count, 0);
    });
}

fn a_peer_that_is_not_read_from_is_held_up(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        assert!(start(&mut server.recv()).await.is_none());
        let len = 20 << 20;
        let sender = spawn(async move { client.send_all(pattern(len)).await.0.unwrap() });
        assert!(
            timeout(Duration::from_millis(300), pin!(std::future::pending::<()>())).await.is_err()
        );
        assert!(!sender.is_finished(), "20 MiB went somewhere");
        assert!(recv_bytes(&server, len).await == pattern(len));
        sender.await.unwrap();
    });
}

fn a_lease_outlives_its_runtime(runtime: &Runtime) {
    let short = Runtime::builder().engine(runtime.engine()).build().expect("it runs");
    let lease = short.block_on(async {
        let (client, server) = tcp_pair().await;
        send(&client, "still here").await;
        server.recv().await.unwrap()
    });
    drop(short);
    assert_eq!(&lease[..], b"still here");
}

fn a_lease_can_be_sent_on(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let echo = spawn(async move {
            loop {
                let lease = server.recv().await.unwrap();
                if lease.is_empty() {
                    return;
                }
                server.send_all(lease).await.0.unwrap();
            }
        });
        for round in 0..200u32 {
            client.send_all(round.to_le_bytes().to_vec()).await.0.unwrap();
            assert_eq!(recv_bytes(&client, 4).await, round.to_le_bytes());
        }
        client.shutdown(Shutdown::Write).await.unwrap();
        echo.await.unwrap();
        assert_eq!(runtime.stats().leased_count, 0);
    });
}

fn a_closed_stream_with_a_receive_in_flight_is_closed(runtime: &Runtime) {
    runtime.block_on(async {
        for close in [false, true] {
            let (server, mut client) = tcp_pair_with_std().await;
            assert!(start(&mut server.recv()).await.is_none());
            if close {
                server.close().await.unwrap();
            } else {
                drop(server);
            }
            settle().await;
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let read = omniring::spawn_blocking(move || client.read(&mut [0; 8]));
            assert_eq!(read.await.unwrap().unwrap(), 0, "the peer sees the end");
        }
    });
}

fn a_stream_goes_to_std_after_a_lease(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        send(&client, "lease").await;
        assert_eq!(recv_bytes(&server, 5).await, b"lease");
        assert!(start(&mut server.recv()).await.is_none());
        // A thread of the pool may still be looking whether there is anything.
        let mut server = Err(server);
        let mut server = loop {
            match server {
                Ok(server) => break server,
                Err(stream) => {
                    yield_now().await;
                    server = TcpStream::into_std(stream);
                }
            }
        };
        send(&client, "std").await;
        let mut buf = [0; 3];
        server.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"std");
        server.write_all(b"back").unwrap();
        assert_eq!(recv_bytes(&client, 4).await, b"back");
    });
}

fn a_stream_with_untaken_bytes_does_not_go_to_std(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        assert!(start(&mut server.recv()).await.is_none());
        send(&client, "abcd").await;
        settle().await;
        // What was received in advance must not be lost: either it stays here, or it is there.
        match server.into_std() {
            Ok(mut std) => {
                let mut buf = [0; 4];
                std.read_exact(&mut buf).unwrap();
                assert_eq!(&buf, b"abcd");
            }
            Err(server) => assert_eq!(recv_bytes(&server, 4).await, b"abcd"),
        }
    });
}

fn unix_streams_lease_too(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        one.send_all("unix").await.0.unwrap();
        assert_eq!(&other.recv().await.unwrap()[..], b"unix");
        drop(one);
        assert!(other.recv().await.unwrap().is_empty());
    });
}

fn a_receive_times_out_and_goes_on(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        assert!(timeout(Duration::from_millis(5), server.recv()).await.is_err());
        send(&client, "late").await;
        assert_eq!(recv_bytes(&server, 4).await, b"late");
    });
}

fn a_runtime_ends_with_receives_in_flight(runtime: &Runtime) {
    let short = Runtime::builder().engine(runtime.engine()).build().expect("it runs");
    let kept = Rc::new(std::cell::RefCell::new(Vec::new()));
    short.block_on(async {
        for _ in 0..20 {
            let (client, server) = tcp_pair().await;
            let kept = kept.clone();
            send(&client, "unread").await;
            drop(spawn(async move {
                let lease = server.recv().await.unwrap();
                kept.borrow_mut().push(lease);
                let _ = server.recv().await;
            }));
            drop(spawn(async move { client.recv().await }));
        }
        settle().await;
    });
    drop(short);
    assert!(kept.borrow().iter().all(|lease| &lease[..] == b"unread"));
}

fn streams_dropped_with_untaken_bytes_leak_nothing(runtime: &Runtime) {
    let before = fd_count();
    for _ in 0..20 {
        let short = Runtime::builder().engine(runtime.engine()).build().expect("it runs");
        short.block_on(async {
            for _ in 0..20 {
                let (client, server) = tcp_pair().await;
                assert!(start(&mut server.recv()).await.is_none());
                client.send_all(vec![1; 100]).await.0.unwrap();
                settle().await;
                drop(server);
                // A peer that closes with unread data resets, one that has read it ends.
                match client.recv().await {
                    Ok(lease) => assert!(lease.is_empty()),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
            }
            settle().await;
        });
        assert_eq!(short.stats().leased_count, 0);
        assert_eq!(short.stats().in_flight_count, 0);
    }
    runtime.block_on(async { settle().await });
    assert_eq!(fd_count(), before);
}
