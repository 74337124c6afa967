//! Unix sockets of sequenced packets: boundaries are kept, in order, until the end.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::Duration;

use omniring::net::{UnixSeqpacket, UnixSeqpacketListener, UnixStream};
use omniring::time::timeout;
use omniring::{Runtime, spawn};

use crate::harness::{conformance, errno};
use crate::loopback::start;

conformance!(
    messages_keep_their_boundaries,
    a_connection_is_made_by_path,
    connections_come_one_after_the_other,
    the_end_comes_after_the_messages,
    what_a_buffer_has_no_room_for_is_lost,
    a_full_receiver_makes_a_sender_wait,
    sending_to_a_peer_that_is_gone_is_a_broken_pipe,
    descriptors_pass_with_a_message,
    a_stream_does_not_connect,
    an_address_in_use_is_named,
);

const SOON: Duration = Duration::from_secs(20);

fn messages_keep_their_boundaries(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixSeqpacket::pair().unwrap();
        assert!(start(&mut other.recv()).await.is_none());
        for len in [1usize, 1000, 2, 7000, 3] {
            assert_eq!(one.send(vec![len as u8; len]).await.0.unwrap(), len);
        }
        for len in [1usize, 1000, 2, 7000, 3] {
            if len > 100 {
                let (result, buf) = other.recv_into(Vec::with_capacity(8000)).await;
                assert_eq!((result.unwrap(), buf), (len, vec![len as u8; len]));
            } else {
                assert_eq!(&other.recv().await.unwrap()[..], &vec![len as u8; len]);
            }
        }
        other.send("back").await.0.unwrap();
        assert_eq!(&one.recv().await.unwrap()[..], b"back");
        assert_eq!(one.peer_credentials().unwrap().pid, Some(std::process::id()));
    });
}

fn a_connection_is_made_by_path(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let listener = UnixSeqpacketListener::bind(&path).await.unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(addr.as_pathname(), Some(&*path));
        let client = UnixSeqpacket::connect_addr(&addr).await.unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*path));
        assert!(client.local_addr().unwrap().is_unnamed());
        let (server, from) = listener.accept().await.unwrap();
        assert!(from.is_unnamed());
        server.send("hello").await.0.unwrap();
        assert_eq!(&client.recv().await.unwrap()[..], b"hello");
    });
}

fn connections_come_one_after_the_other(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let listener = UnixSeqpacketListener::bind(&path).await.unwrap();
        let mut incoming = listener.incoming();
        for _ in 0..5 {
            let client = UnixSeqpacket::connect(&path).await.unwrap();
            let server = timeout(SOON, incoming.next()).await.unwrap().unwrap();
            client.send("me").await.0.unwrap();
            assert_eq!(&server.recv().await.unwrap()[..], b"me");
        }
    });
}

fn the_end_comes_after_the_messages(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixSeqpacket::pair().unwrap();
        one.send("last words").await.0.unwrap();
        one.shutdown(Shutdown::Write).await.unwrap();
        assert_eq!(&other.recv().await.unwrap()[..], b"last words");
        assert!(timeout(SOON, other.recv()).await.unwrap().unwrap().is_empty());
        other.send("still").await.0.unwrap();
        assert_eq!(one.recv_into(vec![0; 8]).await.0.unwrap(), 5);
        drop(other);
        assert_eq!(timeout(SOON, one.recv_into(vec![0; 8])).await.unwrap().0.unwrap(), 0);
    });
}

fn what_a_buffer_has_no_room_for_is_lost(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixSeqpacket::pair().unwrap();
        one.send("long one").await.0.unwrap();
        one.send("next").await.0.unwrap();
        let (result, buf) = other.recv_into(Vec::with_capacity(4)).await;
        assert_eq!((result.unwrap(), &buf[..]), (4, &b"long"[..]));
        assert_eq!(&other.recv().await.unwrap()[..], b"next");
    });
}

fn a_full_receiver_makes_a_sender_wait(runtime: &Runtime) {
    runtime.block_on(async {
        const COUNT: u32 = 3000;
        let (one, other) = UnixSeqpacket::pair().unwrap();
        let sender = spawn(async move {
            for number in 0..COUNT {
                let mut message = vec![0; 1000];
                message[..4].copy_from_slice(&number.to_le_bytes());
                assert_eq!(one.send(message).await.0.unwrap(), 1000);
            }
        });
        let receive = async {
            for number in 0..COUNT {
                let (result, buf) = other.recv_into(Vec::with_capacity(2000)).await;
                assert_eq!((result.unwrap(), &buf[..4]), (1000, &number.to_le_bytes()[..]));
            }
        };
        timeout(SOON, receive).await.unwrap();
        sender.await.unwrap();
        assert_eq!(other.recv_into(vec![0; 4]).await.0.unwrap(), 0);
    });
}

fn sending_to_a_peer_that_is_gone_is_a_broken_pipe(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixSeqpacket::pair().unwrap();
        drop(other);
        assert_eq!(errno(one.send("anyone?").await.0), libc::EPIPE);
    });
}

fn descriptors_pass_with_a_message(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixSeqpacket::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for text in ["one", "two"] {
            one.send_with_fds(text, &[null.as_fd()]).await.0.unwrap();
        }
        for text in ["one", "two"] {
            let (result, buf) = other.recv_with_fds(Vec::with_capacity(16), 1).await;
            assert_eq!((result.unwrap().fds.len(), &buf[..]), (1, text.as_bytes()));
        }
    });
}

fn a_stream_does_not_connect(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let _listener = UnixSeqpacketListener::bind(&path).await.unwrap();
        assert_eq!(errno(UnixStream::connect(&path).await), libc::EPROTOTYPE);
    });
}

fn an_address_in_use_is_named(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    runtime.block_on(async {
        let _listener = UnixSeqpacketListener::bind(&path).await.unwrap();
        let error = UnixSeqpacketListener::bind(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(errno(Err::<(), _>(error)), libc::EADDRINUSE);
    });
}
