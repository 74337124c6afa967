//! Descriptors and credentials over Unix sockets: who gets them, and that nobody's leak.

use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use omniring::net::{UnixDatagram, UnixListener, UnixStream};
use omniring::time::timeout;
use omniring::{Runtime, yield_now};

use crate::harness::{conformance, errno, fd_count};
use crate::loopback::start;

conformance!(
    a_file_passes_over_a_stream,
    a_file_passes_with_a_datagram,
    descriptors_are_closed_on_exec,
    messages_with_descriptors_are_not_joined,
    bytes_without_descriptors_are_received_too,
    a_socket_passes_over_itself,
    the_end_of_a_stream_is_the_end,
    no_more_than_a_message_takes_is_sent,
    a_stream_passes_descriptors_with_bytes_only,
    a_full_receiver_makes_a_sender_of_descriptors_wait,
    the_peer_of_a_stream_is_known,
    messages_say_who_sent_them;
    isolated:
    descriptors_beyond_those_asked_for_are_closed,
    descriptors_that_nobody_asks_for_are_closed,
    descriptors_that_nobody_takes_are_closed,
    a_dropped_receive_closes_what_had_arrived,
    a_dropped_send_closes_its_copies,
    a_runtime_that_ends_closes_what_had_arrived,
);

const SOON: Duration = Duration::from_secs(20);

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

fn a_file_passes_over_a_stream(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let mut recv = Box::pin(other.recv_with_fds(Vec::with_capacity(16), 4));
        assert!(start(&mut recv).await.is_none());
        let (sent, buf) = one.send_with_fds("a file", &[file.as_fd(), null().as_fd()]).await;
        assert_eq!((sent.unwrap(), buf), (6, "a file"));
        let (result, buf) = timeout(SOON, recv).await.unwrap();
        let mut passed = result.unwrap();
        assert_eq!((passed.count, &buf[..], passed.is_cut), (6, &b"a file"[..], false));
        assert_eq!((passed.fds.len(), passed.credentials), (2, None));
        let mut copy = std::fs::File::from(passed.fds.remove(0));
        copy.write_all(b"through the copy").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the copy");
    });
}

fn a_file_passes_with_a_datagram(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("to");
    runtime.block_on(async {
        let to = UnixDatagram::bind(&path).await.unwrap();
        let from = UnixDatagram::unbound().await.unwrap();
        from.connect(&path).await.unwrap();
        // A datagram may have descriptors and no bytes.
        from.send_with_fds("", &[null().as_fd()]).await.0.unwrap();
        let passed = to.recv_with_fds(vec![0; 4], 1).await.0.unwrap();
        assert_eq!((passed.count, passed.fds.len()), (0, 1));
    });
}

fn descriptors_are_closed_on_exec(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        one.send_with_fds("x", &[null().as_fd()]).await.0.unwrap();
        let passed = other.recv_with_fds(vec![0; 4], 1).await.0.unwrap();
        let flags = rustix::io::fcntl_getfd(&passed.fds[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    });
}

fn messages_with_descriptors_are_not_joined(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        for text in ["one", "two", "three"] {
            one.send_with_fds(text, &[null().as_fd()]).await.0.unwrap();
        }
        for text in ["one", "two", "three"] {
            let (result, buf) = other.recv_with_fds(Vec::with_capacity(100), 8).await;
            assert_eq!((result.unwrap().fds.len(), &buf[..]), (1, text.as_bytes()));
        }
    });
}

fn bytes_without_descriptors_are_received_too(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        one.send_all("plain").await.0.unwrap();
        let (result, buf) = other.recv_with_fds(Vec::with_capacity(100), 8).await;
        let passed = result.unwrap();
        assert_eq!((passed.count, passed.fds.len(), &buf[..]), (5, 0, &b"plain"[..]));
        // What a leased receive had in advance comes first.
        assert!(start(&mut other.recv()).await.is_none());
        one.send_all("early").await.0.unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        let (result, buf) = other.recv_with_fds(Vec::with_capacity(100), 8).await;
        assert_eq!((result.unwrap().count, &buf[..]), (5, &b"early"[..]));
        one.send_with_fds("", &[]).await.0.unwrap();
    });
}

fn a_socket_passes_over_itself(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        one.send_with_fds("me", &[one.as_fd()]).await.0.unwrap();
        let mut passed = other.recv_with_fds(vec![0; 4], 1).await.0.unwrap();
        drop(one);
        let socket = std::os::unix::net::UnixStream::from(passed.fds.remove(0));
        let one = UnixStream::from_std(socket);
        one.send_all("still here").await.0.unwrap();
        assert_eq!(&other.recv().await.unwrap()[..], b"still here");
    });
}

fn the_end_of_a_stream_is_the_end(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        drop(one);
        let passed = other.recv_with_fds(vec![0; 4], 1).await.0.unwrap();
        assert_eq!((passed.count, passed.fds.len(), passed.is_cut), (0, 0, false));
    });
}

fn no_more_than_a_message_takes_is_sent(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let null = null();
        let fds = vec![null.as_fd(); 254];
        let error = one.send_with_fds("x", &fds).await.0.unwrap_err();
        assert!(error.to_string().contains("254") && error.to_string().contains("253"), "{error}");
        assert_eq!(errno(Err::<(), _>(error)), libc::EINVAL);
        one.send_with_fds("x", &fds[1..]).await.0.unwrap();
        let passed = other.recv_with_fds(vec![0; 4], 1000).await.0.unwrap();
        assert_eq!((passed.fds.len(), passed.is_cut), (253, false));
    });
}

fn a_stream_passes_descriptors_with_bytes_only(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, _other) = UnixStream::pair().unwrap();
        let error = one.send_with_fds("", &[null().as_fd()]).await.0.unwrap_err();
        assert!(error.to_string().contains("one byte"), "{error}");
    });
}

fn a_full_receiver_makes_a_sender_of_descriptors_wait(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        let null = null();
        let mut sent = 0u32;
        loop {
            let fds = [null.as_fd()];
            let send = one.send_with_fds(sent.to_le_bytes().to_vec(), &fds);
            // The one that waits is given up.
            match timeout(Duration::from_millis(50), send).await {
                Ok((result, _)) => assert_eq!(result.unwrap(), 4),
                Err(_) => break,
            }
            sent += 1;
            assert!(sent < 100_000, "there is no end to the queue");
        }
        for expected in 0..sent {
            let (result, buf) =
                timeout(SOON, other.recv_with_fds(Vec::with_capacity(8), 1)).await.unwrap();
            assert_eq!((result.unwrap().fds.len(), &buf[..]), (1, &expected.to_le_bytes()[..]));
        }
        timeout(SOON, one.send_with_fds("room", &[null.as_fd()])).await.unwrap().0.unwrap();
    });
}

fn the_peer_of_a_stream_is_known(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let listener = UnixListener::bind(&path).await.unwrap();
        let client = UnixStream::connect(&path).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let me = (
            Some(std::process::id()),
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        for end in [&client, &server] {
            let peer = end.peer_credentials().unwrap();
            assert_eq!((peer.pid, peer.uid, peer.gid), me);
        }
    });
}

fn messages_say_who_sent_them(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        other.set_pass_credentials(true).unwrap();
        one.send_with_fds("signed", &[null().as_fd()]).await.0.unwrap();
        let passed = other.recv_with_fds(vec![0; 16], 1).await.0.unwrap();
        let sender = passed.credentials.unwrap();
        assert_eq!((sender.pid, passed.fds.len()), (Some(std::process::id()), 1));
        assert_eq!(sender, one.peer_credentials().unwrap());
        other.set_pass_credentials(false).unwrap();
        let (one, other) = UnixDatagram::pair().unwrap();
        other.set_pass_credentials(true).unwrap();
        one.send("signed").await.0.unwrap();
        let passed = other.recv_with_fds(vec![0; 16], 0).await.0.unwrap();
        assert_eq!((passed.count, passed.credentials), (6, Some(sender)));
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

fn descriptors_beyond_those_asked_for_are_closed(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let null = null();
        let before = fd_count();
        for (sent, asked) in [(2, 1), (30, 1), (200, 7), (5, 0)] {
            one.send_with_fds("x", &vec![null.as_fd(); sent]).await.0.unwrap();
            let passed = other.recv_with_fds(vec![0; 4], asked).await.0.unwrap();
            assert_eq!((passed.fds.len(), passed.is_cut), (asked, true));
            assert_eq!(fd_count(), before + asked);
        }
        settle(runtime, before).await;
    });
}

fn descriptors_that_nobody_asks_for_are_closed(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let null = null();
        let before = fd_count();
        one.send_with_fds("plain", &[null.as_fd(); 3]).await.0.unwrap();
        let (result, _) = other.recv_into(vec![0; 16]).await;
        assert_eq!((result.unwrap(), fd_count()), (5, before));
        one.send_with_fds("leased", &[null.as_fd(); 3]).await.0.unwrap();
        assert_eq!(&other.recv().await.unwrap()[..], b"leased");
        // On a ring the receive stays armed.
        assert_eq!(fd_count(), before);
    });
}

fn descriptors_that_nobody_takes_are_closed(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let null = null();
        let before = fd_count();
        one.send_with_fds("x", &[null.as_fd(); 3]).await.0.unwrap();
        drop(other.recv_with_fds(vec![0; 16], 3).await.0.unwrap());
        settle(runtime, before).await;
        // In the socket's queue.
        one.send_with_fds("x", &[null.as_fd(); 3]).await.0.unwrap();
        drop((one, other));
        settle(runtime, before - 2).await;
    });
}

fn a_dropped_receive_closes_what_had_arrived(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let null = null();
        let before = fd_count();
        for round in 0..40 {
            let mut recv = Box::pin(other.recv_with_fds(vec![0; 16], 3));
            if start(&mut recv).await.is_some() {
                // What the one before had not taken.
                continue;
            }
            one.send_with_fds("x", &[null.as_fd(); 3]).await.0.unwrap();
            // It may have arrived in the op, or be arriving, or not.
            for _ in 0..round % 4 {
                yield_now().await;
            }
            drop(recv);
        }
        // What the receives had not taken.
        one.send_with_fds("end", &[]).await.0.unwrap();
        loop {
            let (result, buf) = timeout(SOON, other.recv_with_fds(vec![0; 16], 3)).await.unwrap();
            let count = result.unwrap().count;
            if &buf[..count] == b"end" {
                break;
            }
        }
        settle(runtime, before).await;
    });
}

fn a_dropped_send_closes_its_copies(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let null = null();
        let before = fd_count();
        // Until there is no room left.
        let full = async {
            loop {
                one.send_with_fds(vec![0; 4096], &[null.as_fd(); 3]).await.0.unwrap();
            }
        };
        assert!(timeout(Duration::from_millis(200), full).await.is_err());
        settle(runtime, before).await;
        drop(other);
    });
}

fn a_runtime_that_ends_closes_what_had_arrived(runtime: &Runtime) {
    let before = fd_count();
    let inner = Runtime::builder().engine(runtime.engine()).allow_unpolled(true).build().unwrap();
    inner.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let null = null();
        let mut recv = Box::pin(other.recv_with_fds(vec![0; 16], 3));
        assert!(start(&mut recv).await.is_none());
        one.send_with_fds("x", &[null.as_fd(); 3]).await.0.unwrap();
        drop(recv);
    });
    drop(inner);
    assert_eq!(fd_count(), before);
}
