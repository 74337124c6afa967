//! What one op yields more than once: connections one after the other, and sends whose buffer
//! comes back later than their result.

use std::net::Shutdown;

use omniring::net::{TcpStream, UnixListener, UnixStream};
use omniring::{Runtime, spawn, yield_now};

use crate::harness::{conformance, errno, fd_count};
use crate::loopback::{listener, recv_to_end, start, tcp_pair};

conformance!(
    connections_come_one_after_the_other,
    connections_that_came_before_are_all_taken,
    a_dropped_wait_for_a_connection_loses_none,
    accepting_in_both_ways_takes_each_connection_once,
    unix_connections_come_too,
    a_socket_that_does_not_listen_says_so,
    a_send_without_a_copy_arrives_and_gives_its_buffer_back,
    a_small_send_without_a_copy_too,
    a_buffer_whose_return_nobody_awaits_is_freed,
    a_dropped_send_without_a_copy_leaves_the_stream_usable,
    a_send_without_a_copy_to_nobody_is_a_broken_pipe;
    isolated:
    connections_that_nobody_takes_are_closed,
);

async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

fn connections_come_one_after_the_other(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let mut incoming = listener.incoming();
        for round in 0..20u8 {
            let client = TcpStream::connect(addr).await.unwrap();
            let server = incoming.next().await.unwrap();
            assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
            client.send_all(vec![round]).await.0.unwrap();
            assert_eq!(&server.recv().await.unwrap()[..], [round]);
        }
    });
}

fn connections_that_came_before_are_all_taken(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        // More than are accepted in advance.
        let mut clients = Vec::new();
        for _ in 0..200 {
            clients.push(TcpStream::connect(addr).await.unwrap());
        }
        let mut incoming = listener.incoming();
        let mut servers = Vec::new();
        for _ in 0..200 {
            servers.push(incoming.next().await.unwrap());
            if servers.len() == 10 {
                settle().await;
            }
        }
        for (at, client) in clients.iter().enumerate() {
            client.send_all((at as u32).to_le_bytes().to_vec()).await.0.unwrap();
            client.shutdown(Shutdown::Write).await.unwrap();
        }
        let mut seen = Vec::new();
        for server in servers {
            let bytes = recv_to_end(server).await;
            seen.push(u32::from_le_bytes(bytes.try_into().unwrap()));
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..200));
    });
}

fn a_dropped_wait_for_a_connection_loses_none(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let mut incoming = listener.incoming();
        for _ in 0..10 {
            let mut next = Box::pin(incoming.next());
            assert!(start(&mut next).await.is_none());
            drop(next);
            let client = TcpStream::connect(addr).await.unwrap();
            settle().await;
            let server = incoming.next().await.unwrap();
            assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
        }
    });
}

fn accepting_in_both_ways_takes_each_connection_once(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let mut incoming = listener.incoming();
        let single = listener.clone();
        let accepts = spawn(async move {
            let mut peers = Vec::new();
            for _ in 0..10 {
                peers.push(single.accept().await.unwrap().1);
            }
            peers
        });
        let streams = spawn(async move {
            let mut peers = Vec::new();
            for _ in 0..10 {
                peers.push(incoming.next().await.unwrap().peer_addr().unwrap());
            }
            peers
        });
        let mut clients = Vec::new();
        // More than both take together: an accept in advance may take some that nobody asks for.
        while !(accepts.is_finished() && streams.is_finished()) {
            clients.push(TcpStream::connect(addr).await.unwrap());
            settle().await;
            assert!(clients.len() < 500);
        }
        let mut peers = accepts.await.unwrap();
        peers.extend(streams.await.unwrap());
        peers.sort_unstable();
        peers.dedup();
        assert_eq!(peers.len(), 20);
    });
}

fn unix_connections_come_too(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let listener = UnixListener::bind(&path).await.unwrap();
        let mut incoming = listener.incoming();
        for _ in 0..3 {
            let client = UnixStream::connect(&path).await.unwrap();
            let server = incoming.next().await.unwrap();
            server.send_all("hello").await.0.unwrap();
            assert_eq!(&client.recv().await.unwrap()[..], b"hello");
        }
    });
}

fn a_socket_that_does_not_listen_says_so(runtime: &Runtime) {
    runtime.block_on(async {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY-free way to a socket that does not listen: shut it down.
        socket2::SockRef::from(&socket).shutdown(Shutdown::Both).unwrap();
        let listener = omniring::net::TcpListener::from_std(socket);
        let mut incoming = listener.incoming();
        assert_eq!(errno(incoming.next().await), libc::EINVAL);
        assert_eq!(errno(incoming.next().await), libc::EINVAL);
    });
}

fn connections_that_nobody_takes_are_closed(runtime: &Runtime) {
    let before = fd_count();
    runtime.block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let mut incoming = listener.incoming();
        let mut next = Box::pin(incoming.next());
        assert!(start(&mut next).await.is_none());
        drop(next);
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(TcpStream::connect(addr).await.unwrap());
        }
        settle().await;
        drop(incoming);
        drop(listener);
        settle().await;
        for client in clients {
            match client.recv().await {
                Ok(lease) => assert!(lease.is_empty()),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            }
        }
        settle().await;
    });
    assert_eq!(fd_count(), before);
}

fn a_send_without_a_copy_arrives_and_gives_its_buffer_back(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let sent: Vec<u8> = (0..300_000u32).map(|at| (at % 253) as u8).collect();
        let expected = sent.clone();
        let reader = spawn(async move { recv_to_end(server).await });
        let mut at = 0;
        while at < sent.len() {
            let part = sent[at..].to_vec();
            let (result, in_use) = client.send_zero_copy(part).await;
            let count = result.unwrap();
            let part = in_use.await;
            assert_eq!(part, &sent[at..]);
            at += count;
        }
        client.shutdown(Shutdown::Write).await.unwrap();
        assert!(reader.await.unwrap() == expected);
    });
}

fn a_small_send_without_a_copy_too(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let (result, in_use) = client.send_zero_copy("tiny").await;
        assert_eq!(result.unwrap(), 4);
        assert_eq!(&server.recv().await.unwrap()[..], b"tiny");
        assert_eq!(in_use.await, "tiny");
    });
}

fn a_buffer_whose_return_nobody_awaits_is_freed(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let buf: std::sync::Arc<[u8]> = vec![7; 100_000].into();
        let (result, in_use) = client.send_zero_copy(buf.clone()).await;
        let count = result.unwrap();
        drop(in_use);
        let mut received = 0;
        while received < count {
            received += server.recv().await.unwrap().len();
        }
        while std::sync::Arc::strong_count(&buf) > 1 {
            yield_now().await;
        }
    });
}

fn a_dropped_send_without_a_copy_leaves_the_stream_usable(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        // Until the socket is full and a send has to wait.
        let mut sent = 0;
        loop {
            let mut send = client.send_zero_copy(vec![1; 1 << 20]);
            match start(&mut send).await {
                Some((result, in_use)) => {
                    sent += result.unwrap();
                    drop(in_use);
                }
                None => break,
            }
        }
        let mut received = 0;
        while received < sent {
            received += server.recv().await.unwrap().len();
        }
        settle().await;
        assert_eq!(runtime.stats().leased_count, 0);
        client.shutdown(Shutdown::Write).await.unwrap();
        loop {
            let lease = server.recv().await.unwrap();
            if lease.is_empty() {
                break;
            }
            assert!(lease.iter().all(|&byte| byte == 1));
        }
    });
}

fn a_send_without_a_copy_to_nobody_is_a_broken_pipe(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, _server) = tcp_pair().await;
        client.shutdown(Shutdown::Write).await.unwrap();
        let (result, in_use) = client.send_zero_copy(vec![1; 100_000]).await;
        assert_eq!(errno(result), libc::EPIPE);
        assert_eq!(in_use.await.len(), 100_000);
    });
}
