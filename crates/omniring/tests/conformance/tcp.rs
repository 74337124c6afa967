//! TCP: connections, streams of bytes, their ends and their errors.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown};
use std::pin::pin;
use std::time::Duration;

use omniring::net::{TcpListener, TcpStream};
use omniring::time::timeout;
use omniring::{AsyncRead, Engine, Runtime, spawn, yield_now};
use socket2::SockRef;

use crate::harness::{conformance, errno, fd_count, skip};
use crate::loopback::{listener, recv_to_end, start, tcp_pair, tcp_pair_with_std};

conformance!(
    both_ends_know_both_addresses,
    data_before_the_end_of_the_stream_is_not_lost,
    closing_is_the_end_of_the_stream,
    a_receive_in_flight_ends_with_the_stream,
    each_direction_ends_by_itself,
    connecting_to_nobody_is_refused,
    a_reset_is_reported_once_by_a_receive_in_flight,
    a_reset_that_came_before_the_receive_is_reported,
    sending_to_a_peer_that_is_gone_is_a_broken_pipe,
    an_address_in_use_is_named,
    a_name_that_does_not_resolve_is_named,
    an_address_that_is_not_here_is_refused_by_bind,
    a_name_is_connected_to,
    the_second_address_is_tried_after_the_first,
    ipv6_connects,
    peek_leaves_the_data,
    data_behind_urgent_data_is_received,
    vectored_io_keeps_the_order,
    what_a_socket_takes_at_once_arrives,
    much_data_arrives_unchanged_through_small_buffers,
    much_data_arrives_unchanged_through_large_buffers,
    full_buffers_make_a_send_wait,
    a_cancelled_send_that_waits_leaves_the_stream_usable,
    both_directions_are_in_flight_together,
    receives_in_flight_together_lose_nothing,
    data_and_end_that_arrive_together_are_both_seen,
    data_and_end_after_a_receive_was_in_flight_are_both_seen,
    the_end_after_a_short_receive_is_seen,
    every_round_trip_of_many_is_seen,
    zero_length_sends_and_receives_take_nothing,
    connections_that_came_before_accept_are_all_taken,
    accepts_in_flight_together_take_one_connection_each,
    accepted_sockets_do_not_block,
    a_dropped_receive_takes_no_data,
    a_receive_times_out_and_works_again,
    a_cancelled_receive_gives_the_buffer_back,
    clones_share_the_connection,
    a_shared_stream_is_not_handed_out,
    sockets_come_from_std_in_either_mode,
    sockets_go_to_std_in_blocking_mode,
    poll_says_what_is_ready,
    options_are_set_and_read;
    isolated:
    dropped_accepts_leak_no_connection,
    a_connect_dropped_in_flight_closes_its_socket,
    closed_connections_leave_nothing_behind,
);

/// What any case may wait for something that has to come soon.
const SOON: Duration = Duration::from_secs(20);
/// How long something is watched that must not come.
const WHILE: Duration = Duration::from_millis(20);

fn both_ends_know_both_addresses(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        assert_ne!(addr.port(), 0);
        let client = TcpStream::connect(addr).await.unwrap();
        let (server, from) = listener.accept().await.unwrap();
        assert_eq!(client.peer_addr().unwrap(), addr);
        assert_eq!(client.local_addr().unwrap(), from);
        assert_eq!(server.peer_addr().unwrap(), from);
        assert_eq!(server.local_addr().unwrap(), addr);
    });
}

fn data_before_the_end_of_the_stream_is_not_lost(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        client.send_all("last words").await.0.unwrap();
        client.shutdown(Shutdown::Write).await.unwrap();
        assert_eq!(recv_to_end(&server).await, b"last words");
        // The end stays the end.
        for _ in 0..3 {
            let (result, buf) = server.recv_into(Vec::with_capacity(8)).await;
            assert_eq!((result.unwrap(), buf.len()), (0, 0));
        }
    });
}

fn closing_is_the_end_of_the_stream(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        client.send_all("bye").await.0.unwrap();
        client.close().await.unwrap();
        assert_eq!(recv_to_end(&server).await, b"bye");

        let (client, server) = tcp_pair().await;
        drop(client);
        assert_eq!(recv_to_end(&server).await, b"");
    });
}

fn a_receive_in_flight_ends_with_the_stream(runtime: &Runtime) {
    runtime.block_on(async {
        for closes in [false, true] {
            let (client, server) = tcp_pair().await;
            let mut recv = server.recv_into(Vec::with_capacity(16));
            assert!(start(&mut recv).await.is_none());
            if closes {
                drop(client);
                assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 0);
            } else {
                client.shutdown(Shutdown::Write).await.unwrap();
                assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 0);
            }
        }
    });
}

fn each_direction_ends_by_itself(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        client.send_all("question").await.0.unwrap();
        client.shutdown(Shutdown::Write).await.unwrap();
        assert_eq!(recv_to_end(&server).await, b"question");
        server.send_all("answer").await.0.unwrap();
        server.shutdown(Shutdown::Write).await.unwrap();
        assert_eq!(recv_to_end(&client).await, b"answer");
        let (result, _) = client.send("too late").await;
        assert_eq!(errno(result), libc::EPIPE);

        // This end wants no more: what it would receive is the end at once.
        let (client, server) = tcp_pair().await;
        client.shutdown(Shutdown::Read).await.unwrap();
        assert_eq!(timeout(SOON, client.recv_into(vec![0; 8])).await.unwrap().0.unwrap(), 0);
        client.send_all("still here").await.0.unwrap();
        let (result, buf) = server.recv_into(Vec::with_capacity(64)).await;
        assert_eq!((result.unwrap(), &buf[..]), (10, &b"still here"[..]));
    });
}

fn connecting_to_nobody_is_refused(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let error = timeout(SOON, TcpStream::connect(addr)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        // There is no address at all in an empty list.
        let error = TcpStream::connect(&[][..]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

/// Closes with a reset instead of an orderly end.
fn reset(stream: std::net::TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

fn a_reset_is_reported_once_by_a_receive_in_flight(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair_with_std().await;
        let mut recv = client.recv_into(Vec::with_capacity(16));
        assert!(start(&mut recv).await.is_none());
        reset(server);
        let (result, buf) = timeout(SOON, recv).await.unwrap();
        assert_eq!((errno(result), buf.capacity()), (libc::ECONNRESET, 16));
        assert_eq!(timeout(SOON, client.recv_into(buf)).await.unwrap().0.unwrap(), 0);
    });
}

fn a_reset_that_came_before_the_receive_is_reported(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair_with_std().await;
        reset(server);
        let (result, _) = timeout(SOON, client.recv_into(vec![0; 16])).await.unwrap();
        assert_eq!(errno(result), libc::ECONNRESET);
    });
}

fn sending_to_a_peer_that_is_gone_is_a_broken_pipe(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        drop(server);
        assert_eq!(recv_to_end(&client).await, b"");
        // The first send is answered with a reset, those after it fail; none raises SIGPIPE.
        let (mut result, _) = client.send("anyone?").await;
        for _ in 0..10_000 {
            if result.is_err() {
                break;
            }
            result = client.send("anyone?").await.0;
        }
        assert_eq!(errno(result), libc::EPIPE);
    });
}

fn an_address_in_use_is_named(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let error = TcpListener::bind(addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
        assert_eq!(errno(Err::<(), _>(error)), libc::EADDRINUSE);
        drop(listener);
        TcpListener::bind(addr).await.unwrap();
    });
}

fn a_name_that_does_not_resolve_is_named(runtime: &Runtime) {
    runtime.block_on(async {
        for name in ["no such host:80", "127.0.0.1", "localhost:99999"] {
            let error = timeout(SOON, TcpStream::connect(name)).await.unwrap().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            let error = timeout(SOON, TcpListener::bind(name)).await.unwrap().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    });
}

fn an_address_that_is_not_here_is_refused_by_bind(runtime: &Runtime) {
    runtime.block_on(async {
        // Reserved for documentation: on no machine.
        let error = TcpListener::bind("192.0.2.1:0").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert!(error.to_string().contains("192.0.2.1:0"), "{error}");
    });
}

fn a_name_is_connected_to(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("localhost", port)).await.unwrap();
        TcpStream::connect(format!("localhost:{port}")).await.unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        for _ in 0..3 {
            listener.accept().await.unwrap();
        }
    });
}

fn the_second_address_is_tried_after_the_first(runtime: &Runtime) {
    runtime.block_on(async {
        let (gone, here) = (listener().await, listener().await);
        let addrs = [gone.local_addr().unwrap(), here.local_addr().unwrap()];
        drop(gone);
        let client = TcpStream::connect(&addrs[..]).await.unwrap();
        assert_eq!(client.peer_addr().unwrap(), addrs[1]);
    });
}

fn ipv6_connects(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await {
            Ok(listener) => listener,
            Err(error) => return skip(&format!("no IPv6 here: {error}")),
        };
        let addr = listener.local_addr().unwrap();
        assert!(addr.is_ipv6());
        let client = TcpStream::connect(addr).await.unwrap();
        let (server, from) = listener.accept().await.unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        client.send_all("six").await.0.unwrap();
        let (result, buf) = server.recv_into(Vec::with_capacity(8)).await;
        assert_eq!((result.unwrap(), &buf[..]), (3, &b"six"[..]));
    });
}

fn peek_leaves_the_data(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let mut peek = server.peek(Vec::with_capacity(4));
        assert!(start(&mut peek).await.is_none());
        client.send_all("look twice").await.0.unwrap();
        let (result, buf) = timeout(SOON, peek).await.unwrap();
        assert_eq!((result.unwrap(), &buf[..]), (4, &b"look"[..]));
        // Also a peek that was shorter than its buffer leaves the data.
        for _ in 0..3 {
            let (result, buf) = server.peek(Vec::with_capacity(64)).await;
            assert_eq!((result.unwrap(), &buf[..]), (10, &b"look twice"[..]));
        }
        let (result, buf) = server.recv_into(Vec::with_capacity(64)).await;
        assert_eq!((result.unwrap(), &buf[..]), (10, &b"look twice"[..]));
        assert!(timeout(WHILE, server.peek(Vec::with_capacity(4))).await.is_err());
    });
}

fn data_behind_urgent_data_is_received(runtime: &Runtime) {
    runtime.block_on(async {
        for in_flight in [false, true] {
            let (client, server) = tcp_pair_with_std().await;
            let mut recv = client.recv_into(Vec::with_capacity(64));
            assert!(start(&mut recv).await.is_none());
            SockRef::from(&server).send(b"a").unwrap();
            timeout(SOON, recv).await.unwrap().0.unwrap();
            let mut recv = client.recv_into(Vec::with_capacity(64));
            if in_flight {
                assert!(start(&mut recv).await.is_none());
            }
            // A receive stops in front of the urgent byte, and the next one skips it.
            SockRef::from(&server).send(b"bc").unwrap();
            SockRef::from(&server).send_out_of_band(b"!").unwrap();
            SockRef::from(&server).send(b"de").unwrap();
            let mut received = timeout(SOON, recv).await.unwrap().1;
            while !received.ends_with(b"e") {
                let recv = client.recv_into(Vec::with_capacity(64));
                received.extend(timeout(SOON, recv).await.unwrap().1);
            }
            assert_eq!(received, b"bcde");
        }
    });
}

fn what_a_socket_takes_at_once_arrives(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let mut sent = Vec::new();
        let block: Vec<u8> = (0..=250).cycle().take(50_000).collect();
        let parts = [IoSlice::new(b"head "), IoSlice::new(b""), IoSlice::new(&block)];
        // Until the socket takes no more; on some engines it is never asked.
        let mut futile_count = 0;
        while futile_count < 3 {
            match client.try_send(&parts) {
                Some(count) => {
                    let whole = [b"head ", &block[..]].concat();
                    sent.extend_from_slice(&whole[..count.unwrap()]);
                }
                None => futile_count += 1,
            }
            yield_now().await;
        }
        assert!(!sent.is_empty() || runtime.engine() != Engine::Epoll);
        let rest = spawn(async move {
            client.send_all("the end").await.0.unwrap();
        });
        let received = timeout(SOON, recv_to_end(&server)).await.unwrap();
        rest.await.unwrap();
        sent.extend_from_slice(b"the end");
        assert!(received == sent);
    });
}

fn vectored_io_keeps_the_order(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let bufs = vec![b"one ".to_vec(), Vec::new(), b"two ".to_vec(), b"three".to_vec()];
        let (result, bufs) = client.send_vectored(bufs).await;
        assert_eq!((result.unwrap(), bufs.len()), (13, 4));
        client.shutdown(Shutdown::Write).await.unwrap();
        let room = vec![Vec::with_capacity(3), Vec::new(), Vec::with_capacity(7), vec![0; 100]];
        let (result, bufs) = server.recv_vectored(room).await;
        assert_eq!(result.unwrap(), 13);
        let parts: Vec<&[u8]> = bufs.iter().map(Vec::as_slice).collect();
        assert_eq!(parts, [&b"one"[..], b"", b" two th", b"ree"]);
        let (result, bufs) = server.recv_vectored(vec![Vec::with_capacity(3)]).await;
        assert_eq!((result.unwrap(), bufs[0].len()), (0, 0));
    });
}

/// The bytes of a long stream, which differ wherever it is shifted.
fn pattern(start: usize, len: usize) -> Vec<u8> {
    (start..start + len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

fn transfer(runtime: &Runtime, total: usize, send_len: usize, recv_len: usize) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let sender = spawn(async move {
            let mut sent = 0;
            while sent < total {
                let part = pattern(sent, send_len.min(total - sent));
                sent += part.len();
                client.send_all(part).await.0.unwrap();
            }
        });
        let mut received = 0;
        let mut buf = Vec::with_capacity(recv_len);
        loop {
            let (result, filled) = server.recv_into(buf).await;
            let count = result.unwrap();
            if count == 0 {
                break;
            }
            assert!(filled == pattern(received, count), "differs at {received} + {count}");
            received += count;
            buf = filled;
        }
        assert_eq!(received, total);
        sender.await.unwrap();
    });
}

const MIB: usize = 1 << 20;

fn much_data_arrives_unchanged_through_small_buffers(runtime: &Runtime) {
    transfer(runtime, 8 * MIB, 1000, 777);
    transfer(runtime, 8 * MIB, 4096, 100_000);
}

fn much_data_arrives_unchanged_through_large_buffers(runtime: &Runtime) {
    transfer(runtime, 12 * MIB, MIB, MIB / 2);
    transfer(runtime, 12 * MIB, 8 * MIB, 16_384);
}

fn full_buffers_make_a_send_wait(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, mut server) = tcp_pair_with_std().await;
        const LEN: usize = 20 * MIB;
        let sender = spawn(async move { client.send_all(pattern(0, LEN)).await.0 });
        // More than any socket buffer: it cannot complete with nobody reading.
        omniring::time::sleep(WHILE).await;
        assert!(!sender.is_finished());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).map(|_| all)
        });
        timeout(SOON, sender).await.unwrap().unwrap().unwrap();
        assert!(reader.join().unwrap().unwrap() == pattern(0, LEN));
    });
}

/// Sends until the socket takes no more: how much it took.
async fn fill(stream: &TcpStream) -> usize {
    let mut filled = 0;
    while let Ok((result, _)) = timeout(WHILE, stream.send(vec![7; 100_000])).await {
        filled += result.unwrap();
    }
    filled
}

fn a_cancelled_send_that_waits_leaves_the_stream_usable(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, mut server) = tcp_pair_with_std().await;
        let mut filled = fill(&client).await;
        loop {
            let mut send = client.send(vec![7; 1000]);
            let (result, buf) = match start(&mut send).await {
                Some(sent) => sent,
                None => {
                    send.cancel();
                    timeout(SOON, send).await.unwrap()
                }
            };
            match result {
                // What was on its way to the peer has made room once more.
                Ok(count) => filled += count,
                Err(_) => {
                    assert_eq!((errno(result), buf.len()), (libc::ECANCELED, 1000));
                    break;
                }
            }
        }
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).map(|_| all)
        });
        timeout(SOON, client.send_all("end")).await.unwrap().0.unwrap();
        drop(client);
        let all = reader.join().unwrap().unwrap();
        // What the cancelled sends took of their buffers on the way is part of the stream.
        assert!(all.len() >= filled + 3 && all.ends_with(b"end"), "{} {filled}", all.len());
    });
}

fn both_directions_are_in_flight_together(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, mut server) = tcp_pair_with_std().await;
        let receiver = client.clone();
        // The receive waits, and the send waits too: neither holds up the other.
        let received = spawn(async move { recv_to_end(&receiver).await });
        let sent = spawn(async move {
            let result = client.send_all(pattern(0, 16 * MIB)).await.0;
            result.unwrap();
            client.shutdown(Shutdown::Write).await.unwrap();
        });
        let peer = std::thread::spawn(move || {
            server.write_all(b"first").unwrap();
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            assert!(all == pattern(0, 16 * MIB));
            server.write_all(b", second").unwrap();
        });
        timeout(SOON, sent).await.unwrap().unwrap();
        assert_eq!(timeout(SOON, received).await.unwrap().unwrap(), b"first, second");
        peer.join().unwrap();
    });
}

fn receives_in_flight_together_lose_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let server = server.clone();
                spawn(async move {
                    let (result, buf) = server.recv_into(Vec::with_capacity(4)).await;
                    assert_eq!(result.unwrap(), 4);
                    u32::from_le_bytes(buf.try_into().unwrap())
                })
            })
            .collect();
        yield_now().await;
        yield_now().await;
        for number in 0..8u32 {
            client.send_all(number.to_le_bytes().to_vec()).await.0.unwrap();
        }
        let mut numbers = Vec::new();
        for task in tasks {
            numbers.push(timeout(SOON, task).await.unwrap().unwrap());
        }
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
    });
}

fn data_and_end_that_arrive_together_are_both_seen(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        for round in 0..300u32 {
            let mut peer = std::net::TcpStream::connect(addr).unwrap();
            let (server, _) = listener.accept().await.unwrap();
            peer.write_all(&round.to_le_bytes()).unwrap();
            drop(peer);
            let (result, buf) =
                timeout(SOON, server.recv_into(Vec::with_capacity(64))).await.unwrap();
            assert_eq!((result.unwrap(), &buf[..]), (4, &round.to_le_bytes()[..]));
            let (result, _) = timeout(SOON, server.recv_into(buf)).await.unwrap();
            assert_eq!(result.unwrap(), 0);
        }
    });
}

fn data_and_end_after_a_receive_was_in_flight_are_both_seen(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        for round in 0..300u32 {
            let mut peer = std::net::TcpStream::connect(addr).unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let mut recv = server.recv_into(Vec::with_capacity(64));
            assert!(start(&mut recv).await.is_none());
            peer.write_all(&round.to_le_bytes()).unwrap();
            if round % 2 == 0 {
                peer.shutdown(Shutdown::Write).unwrap();
            } else {
                drop(peer);
            }
            let (result, buf) = timeout(SOON, recv).await.unwrap();
            assert_eq!((result.unwrap(), &buf[..]), (4, &round.to_le_bytes()[..]));
            let (result, _) = timeout(SOON, server.recv_into(buf)).await.unwrap();
            assert_eq!(result.unwrap(), 0);
        }
    });
}

fn the_end_after_a_short_receive_is_seen(runtime: &Runtime) {
    runtime.block_on(async {
        for round in 0..300u32 {
            let (client, server) = tcp_pair().await;
            // A receive that waited registers the socket; the next one is short.
            let mut recv = server.recv_into(Vec::with_capacity(64));
            assert!(start(&mut recv).await.is_none());
            client.send_all("a").await.0.unwrap();
            timeout(SOON, recv).await.unwrap().0.unwrap();
            client.send_all("b").await.0.unwrap();
            timeout(SOON, server.recv_into(Vec::with_capacity(64))).await.unwrap().0.unwrap();
            if round % 2 == 0 {
                drop(client);
                let (result, _) = timeout(SOON, server.recv_into(vec![0; 64])).await.unwrap();
                assert_eq!(result.unwrap(), 0);
            } else {
                let mut recv = server.recv_into(vec![0; 64]);
                assert!(start(&mut recv).await.is_none());
                drop(client);
                assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 0);
            }
        }
    });
}

fn every_round_trip_of_many_is_seen(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, mut server) = tcp_pair_with_std().await;
        // The peer runs by itself: its answer comes at any moment of the loop.
        let peer = std::thread::spawn(move || {
            let mut buf = [0; 64];
            loop {
                match server.read(&mut buf).unwrap() {
                    0 => return,
                    count => server.write_all(&buf[..count]).unwrap(),
                }
            }
        });
        let client = &client;
        let rounds = async move {
            let mut buf = Vec::with_capacity(64);
            for round in 0..5000u32 {
                // Sometimes the answer is exactly as long as the buffer, sometimes shorter.
                let len = if round % 3 == 0 { 64 } else { 1 + round as usize % 63 };
                client.send_all(pattern(round as usize, len)).await.0.unwrap();
                let mut received = 0;
                while received < len {
                    let (result, filled) = client.recv_into(buf).await;
                    received += result.unwrap();
                    buf = filled;
                }
                assert_eq!(received, len);
            }
        };
        timeout(SOON, rounds).await.unwrap();
        client.shutdown(Shutdown::Write).await.unwrap();
        peer.join().unwrap();
    });
}

fn zero_length_sends_and_receives_take_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        assert_eq!(client.send(Vec::new()).await.0.unwrap(), 0);
        client.send_all(Vec::new()).await.0.unwrap();
        assert_eq!(client.send_vectored(Vec::<Vec<u8>>::new()).await.0.unwrap(), 0);
        client.send_all("data").await.0.unwrap();
        let (result, buf) = timeout(SOON, server.recv_into(Vec::new())).await.unwrap();
        assert_eq!((result.unwrap(), buf.len()), (0, 0));
        let (result, buf) = server.recv_into(Vec::with_capacity(8)).await;
        assert_eq!((result.unwrap(), &buf[..]), (4, &b"data"[..]));
        // The kernel has a receive without room wait for data all the same, as `recv(2)` does.
        assert!(timeout(WHILE, server.recv_into(Vec::new())).await.is_err());
    });
}

fn connections_that_came_before_accept_are_all_taken(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        for round in 0..2 {
            let peers: Vec<_> =
                (0..300).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
            for peer in &peers {
                let (_, from) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
                assert_eq!(from, peer.local_addr().unwrap(), "in order, round {round}");
            }
            assert!(timeout(WHILE, listener.accept()).await.is_err());
        }
    });
}

fn accepts_in_flight_together_take_one_connection_each(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let listener = listener.clone();
                spawn(async move { listener.accept().await.unwrap().1 })
            })
            .collect();
        yield_now().await;
        yield_now().await;
        let peers: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        let mut accepted = Vec::new();
        for task in tasks {
            accepted.push(timeout(SOON, task).await.unwrap().unwrap());
        }
        let mut connected: Vec<_> = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
        accepted.sort_unstable();
        connected.sort_unstable();
        assert_eq!(accepted, connected);
    });
}

/// Whatever the engine does with `O_NONBLOCK`, a receive that waits holds up nobody.
fn accepted_sockets_do_not_block(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let both = [client, server];
        let mut recvs = both.each_ref().map(|end| end.recv_into(Vec::with_capacity(4)));
        for recv in &mut recvs {
            assert!(start(recv).await.is_none());
        }
        assert!(timeout(WHILE, std::future::pending::<()>()).await.is_err());
        for end in &both {
            end.send_all("ping").await.0.unwrap();
        }
        for recv in recvs {
            assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 4);
        }
    });
}

fn dropped_accepts_leak_no_connection(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        drop(std::net::TcpStream::connect(addr).unwrap());
        listener.accept().await.unwrap();
        let before = fd_count();
        for round in 0..200 {
            {
                let mut accept = pin!(listener.accept());
                // A connection may be there that an earlier accept did not take.
                let waits = start(&mut accept).await.is_none();
                if waits && round % 4 == 3 {
                    // The accept takes the connection, and is dropped without being asked.
                    let peer = std::net::TcpStream::connect(addr).unwrap();
                    for _ in 0..round % 7 {
                        yield_now().await;
                    }
                    drop(peer);
                }
            }
            yield_now().await;
        }
        // Connections that no accept has taken wait in the listener; take them out.
        while let Ok(accepted) = timeout(WHILE, listener.accept()).await {
            drop(accepted.unwrap());
        }
        timeout(SOON, async {
            while fd_count() > before {
                yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{} descriptors, before {before}", fd_count()));
    });
}

fn a_connect_dropped_in_flight_closes_its_socket(runtime: &Runtime) {
    runtime.block_on(async {
        // A listener that has no more room drops what comes: connecting takes for ever.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any: std::net::SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = timeout(4 * WHILE, TcpStream::connect(addr)).await {
            waiting.push(stream.unwrap());
            assert!(waiting.len() < 100, "the backlog has an end");
        }
        let settle = async |count: usize| {
            timeout(SOON, async {
                while fd_count() > count {
                    yield_now().await;
                }
            })
            .await
            .unwrap_or_else(|_| panic!("{} descriptors, before {count}", fd_count()));
        };
        let deadline = omniring::time::now() + WHILE;
        while runtime.stats().in_flight_count > 0 && omniring::time::now() < deadline {
            yield_now().await;
        }
        let before = fd_count();
        for _ in 0..20 {
            assert!(timeout(WHILE, TcpStream::connect(addr)).await.is_err());
            settle(before).await;
        }
    });
}

fn closed_connections_leave_nothing_behind(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let round = async || {
            let client = TcpStream::connect(addr).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let mut recv = server.recv_into(Vec::with_capacity(8));
            assert!(start(&mut recv).await.is_none());
            client.send_all("x").await.0.unwrap();
            recv.await.0.unwrap();
            client.close().await.unwrap();
            drop(server);
        };
        round().await;
        let before = fd_count();
        for _ in 0..500 {
            round().await;
        }
        assert_eq!(fd_count(), before);
        assert_eq!(runtime.stats().in_flight_count, 0);
    });
}

fn a_dropped_receive_takes_no_data(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        for round in 0..200u32 {
            let mut recv = server.recv_into(Vec::with_capacity(64));
            assert!(start(&mut recv).await.is_none());
            drop(recv);
            // The cancel reaches the kernel before data can: after that nothing is lost.
            yield_now().await;
            timeout(SOON, async {
                while runtime.stats().in_flight_count > 0 {
                    yield_now().await;
                }
            })
            .await
            .unwrap();
            client.send_all(round.to_le_bytes().to_vec()).await.0.unwrap();
            let (result, buf) = timeout(SOON, server.recv_into(vec![0; 64])).await.unwrap();
            assert_eq!((result.unwrap(), &buf[..]), (4, &round.to_le_bytes()[..]));
        }
    });
}

fn a_receive_times_out_and_works_again(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        for _ in 0..5 {
            let limit = Duration::from_millis(3);
            assert!(timeout(limit, server.recv_into(Vec::with_capacity(8))).await.is_err());
        }
        timeout(SOON, async {
            while runtime.stats().in_flight_count > 0 {
                yield_now().await;
            }
        })
        .await
        .unwrap();
        client.send_all("now").await.0.unwrap();
        let (result, buf) = timeout(SOON, server.recv_into(Vec::with_capacity(8))).await.unwrap();
        assert_eq!((result.unwrap(), &buf[..]), (3, &b"now"[..]));
    });
}

fn a_cancelled_receive_gives_the_buffer_back(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let mut recv = server.recv_into(vec![7; 64]);
        recv.cancel();
        let (result, buf) = timeout(SOON, recv).await.unwrap();
        assert_eq!((errno(result), buf), (libc::ECANCELED, vec![7; 64]));
        let mut recv = server.recv_into(vec![7; 64]);
        assert!(start(&mut recv).await.is_none());
        recv.cancel();
        recv.cancel();
        let (result, buf) = timeout(SOON, recv).await.unwrap();
        assert_eq!((errno(result), buf.len()), (libc::ECANCELED, 64));
        client.send_all("after").await.0.unwrap();
        let mut recv = server.recv_into(vec![0; 64]);
        let early = start(&mut recv).await;
        let (result, mut buf) = match early {
            Some(output) => output,
            None => timeout(SOON, recv).await.unwrap(),
        };
        buf.truncate(result.unwrap());
        assert_eq!(buf, b"after");
    });
}

fn clones_share_the_connection(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let other = client.clone();
        drop(client);
        other.send_all("still open").await.0.unwrap();
        let (result, buf) = server.recv_into(Vec::with_capacity(64)).await;
        assert_eq!((result.unwrap(), &buf[..]), (10, &b"still open"[..]));
        drop(other);
        assert_eq!(recv_to_end(&server).await, b"");
    });
}

fn a_shared_stream_is_not_handed_out(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, _server) = tcp_pair().await;
        let clone = client.clone();
        let client = client.into_std().unwrap_err();
        drop(clone);
        let mut recv = client.recv_into(vec![0; 8]);
        assert!(start(&mut recv).await.is_none());
        let client = client.into_std().unwrap_err();
        drop(recv);
        timeout(SOON, async {
            while runtime.stats().in_flight_count > 0 {
                yield_now().await;
            }
        })
        .await
        .unwrap();
        client.into_std().unwrap();
    });
}

fn sockets_come_from_std_in_either_mode(runtime: &Runtime) {
    for nonblocking in [false, true] {
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(nonblocking).unwrap();
            let listener = TcpListener::from_std(listener);
            let addr = listener.local_addr().unwrap();
            let mut accept = pin!(listener.accept());
            assert!(start(&mut accept).await.is_none());
            let peer = std::net::TcpStream::connect(addr).unwrap();
            peer.set_nonblocking(nonblocking).unwrap();
            let (server, _) = timeout(SOON, accept).await.unwrap().unwrap();
            let client = TcpStream::from_std(peer);
            let mut recv = client.recv_into(Vec::with_capacity(8));
            assert!(start(&mut recv).await.is_none(), "it waits, whatever mode it was in");
            server.send_all("hello").await.0.unwrap();
            let (result, buf) = timeout(SOON, recv).await.unwrap();
            assert_eq!((result.unwrap(), &buf[..]), (5, &b"hello"[..]));
        });
    }
}

fn sockets_go_to_std_in_blocking_mode(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        // One that was registered, with a receive that waited.
        let mut recv = client.recv_into(Vec::with_capacity(8));
        assert!(start(&mut recv).await.is_none());
        server.send_all("one").await.0.unwrap();
        timeout(SOON, recv).await.unwrap().0.unwrap();
        let mut client = client.into_std().unwrap();
        let reader = std::thread::spawn(move || {
            let mut buf = [0; 3];
            client.read_exact(&mut buf).map(|()| (client, buf))
        });
        server.send_all("two").await.0.unwrap();
        let (client, buf) = reader.join().unwrap().expect("a blocking read waits");
        assert_eq!(&buf, b"two");
        // And back in.
        let client = TcpStream::from_std(client);
        let mut recv = client.recv_into(Vec::with_capacity(8));
        assert!(start(&mut recv).await.is_none());
        server.send_all("three").await.0.unwrap();
        let (result, buf) = timeout(SOON, recv).await.unwrap();
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"three"[..]));

        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let listener = listener.into_std().unwrap();
        let accepter = std::thread::spawn(move || listener.accept().map(drop));
        drop(TcpStream::connect(addr).await.unwrap());
        accepter.join().unwrap().unwrap();
    });
}

fn poll_says_what_is_ready(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let ready = timeout(SOON, client.poll(libc::POLLOUT)).await.unwrap().unwrap();
        assert_eq!(ready as i16, libc::POLLOUT);
        let mut poll = server.poll(libc::POLLIN);
        assert!(start(&mut poll).await.is_none());
        client.send_all("x").await.0.unwrap();
        let ready = timeout(SOON, poll).await.unwrap().unwrap();
        assert_eq!(ready as i16, libc::POLLIN);
        assert_eq!(server.recv_into(vec![0; 8]).await.0.unwrap(), 1);
        assert!(timeout(WHILE, server.poll(libc::POLLIN)).await.is_err());
    });
}

fn options_are_set_and_read(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, mut server) = tcp_pair().await;
        for nodelay in [true, false] {
            client.set_nodelay(nodelay).unwrap();
            assert_eq!(client.nodelay().unwrap(), nodelay);
        }
        // The traits and the methods are the same thing.
        client.send_all("exactly").await.0.unwrap();
        let (result, buf) = server.read_exact(vec![0; 7]).await;
        result.unwrap();
        assert_eq!(buf, b"exactly");
        drop(client);
        let (result, _) = server.read_exact(vec![0; 7]).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}
