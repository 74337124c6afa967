//! Datagrams in leases: their boundaries, their senders, and what mixes with them.

use std::time::Duration;

use omniring::net::{UdpSocket, UnixDatagram};
use omniring::time::timeout;
use omniring::{Runtime, spawn, yield_now};

use crate::harness::{conformance, errno};
use crate::loopback::start;

conformance!(
    a_datagram_comes_with_its_sender,
    a_datagram_of_ipv6_comes_with_its_sender,
    boundaries_are_kept,
    an_empty_datagram_is_a_lease_of_nothing,
    what_the_lease_has_no_room_for_is_lost,
    both_kinds_of_receives_keep_order_and_senders,
    dropping_the_future_loses_no_datagram,
    a_refusal_is_reported_to_a_leased_receive,
    unix_datagrams_come_with_their_path,
    a_sender_without_a_name_has_none,
    many_datagrams_while_leases_are_hoarded,
);

async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

async fn udp_pair() -> (UdpSocket, UdpSocket) {
    let one = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    (one, other)
}

fn a_datagram_comes_with_its_sender(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = udp_pair().await;
        for text in ["first", "second"] {
            one.send_to(text, other.local_addr().unwrap()).await.0.unwrap();
            let (lease, from) = other.recv_from().await.unwrap();
            assert_eq!((&lease[..], from), (text.as_bytes(), one.local_addr().unwrap()));
            assert!(lease.is_pooled());
        }
    });
}

fn a_datagram_of_ipv6_comes_with_its_sender(runtime: &Runtime) {
    runtime.block_on(async {
        let one = UdpSocket::bind("[::1]:0").await.unwrap();
        let other = UdpSocket::bind("[::1]:0").await.unwrap();
        one.send_to("six", other.local_addr().unwrap()).await.0.unwrap();
        let (lease, from) = other.recv_from().await.unwrap();
        assert_eq!((&lease[..], from), (&b"six"[..], one.local_addr().unwrap()));
    });
}

fn boundaries_are_kept(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = udp_pair().await;
        one.connect(other.local_addr().unwrap()).await.unwrap();
        for len in [1usize, 1000, 2, 0, 7000, 3] {
            one.send(vec![len as u8; len]).await.0.unwrap();
        }
        for len in [1usize, 1000, 2, 0, 7000, 3] {
            let lease = other.recv().await.unwrap();
            assert_eq!(&lease[..], &vec![len as u8; len]);
        }
    });
}

fn an_empty_datagram_is_a_lease_of_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = udp_pair().await;
        assert!(start(&mut Box::pin(other.recv_from())).await.is_none());
        for _ in 0..3 {
            one.send_to("", other.local_addr().unwrap()).await.0.unwrap();
            let (lease, from) = other.recv_from().await.unwrap();
            assert_eq!((lease.len(), from), (0, one.local_addr().unwrap()));
        }
    });
}

fn what_the_lease_has_no_room_for_is_lost(runtime: &Runtime) {
    let small =
        Runtime::builder().engine(runtime.engine()).leases(16, 1024).build().expect("it runs");
    small.block_on(async {
        let (one, other) = udp_pair().await;
        let to = other.local_addr().unwrap();
        one.send_to(vec![1; 2000], to).await.0.unwrap();
        one.send_to("next", to).await.0.unwrap();
        let lease = other.recv().await.unwrap();
        assert_eq!(&lease[..], &vec![1; 1024 - 144]);
        assert_eq!(&other.recv().await.unwrap()[..], b"next");
    });
}

fn both_kinds_of_receives_keep_order_and_senders(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = udp_pair().await;
        let to = other.local_addr().unwrap();
        for round in 0..60u8 {
            one.send_to(vec![round; 100], to).await.0.unwrap();
            if round % 4 == 0 {
                settle().await;
            }
        }
        for round in 0..60u8 {
            let (bytes, from) = if round % 3 == 0 {
                let (lease, from) = other.recv_from().await.unwrap();
                (lease.to_vec(), from)
            } else {
                let (result, bytes) = other.recv_from_into(Vec::with_capacity(200)).await;
                (bytes, result.unwrap().1)
            };
            assert_eq!((bytes, from), (vec![round; 100], one.local_addr().unwrap()));
        }
        // A short buffer takes one datagram, and the rest of it is lost, wherever it was.
        assert!(start(&mut Box::pin(other.recv())).await.is_none());
        one.send_to("long one", to).await.0.unwrap();
        one.send_to("next", to).await.0.unwrap();
        settle().await;
        let (result, bytes) = other.recv_into(Vec::with_capacity(4)).await;
        assert_eq!((result.unwrap(), &bytes[..]), (4, &b"long"[..]));
        assert_eq!(&other.recv().await.unwrap()[..], b"next");
    });
}

fn dropping_the_future_loses_no_datagram(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = udp_pair().await;
        let to = other.local_addr().unwrap();
        for round in 0..20u8 {
            assert!(start(&mut Box::pin(other.recv_from())).await.is_none());
            one.send_to(vec![round], to).await.0.unwrap();
            settle().await;
            assert_eq!(&other.recv().await.unwrap()[..], [round]);
        }
    });
}

fn a_refusal_is_reported_to_a_leased_receive(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = udp_pair().await;
        one.connect(other.local_addr().unwrap()).await.unwrap();
        drop(other);
        one.send("anyone?").await.0.unwrap();
        let result = timeout(Duration::from_secs(10), one.recv()).await.unwrap();
        assert_eq!(errno(result), libc::ECONNREFUSED);
    });
}

fn unix_datagrams_come_with_their_path(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    runtime.block_on(async {
        let one = UnixDatagram::bind(&from).await.unwrap();
        let other = UnixDatagram::bind(&to).await.unwrap();
        one.send_to("hello", &to).await.0.unwrap();
        let (lease, sender) = other.recv_from().await.unwrap();
        assert_eq!((&lease[..], sender.as_pathname()), (&b"hello"[..], Some(from.as_path())));
    });
}

fn a_sender_without_a_name_has_none(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        one.send("who").await.0.unwrap();
        let (lease, sender) = other.recv_from().await.unwrap();
        assert_eq!(&lease[..], b"who");
        assert!(sender.is_unnamed());
    });
}

fn many_datagrams_while_leases_are_hoarded(runtime: &Runtime) {
    let small =
        Runtime::builder().engine(runtime.engine()).leases(16, 1024).build().expect("it runs");
    small.block_on(async {
        let (one, other) = udp_pair().await;
        let to = other.local_addr().unwrap();
        let receiver = spawn(async move {
            let mut hoard = Vec::new();
            for round in 0..200u8 {
                let (lease, _) = other.recv_from().await.unwrap();
                assert_eq!(&lease[..], [round; 3]);
                hoard.push(lease);
            }
        });
        for round in 0..200u8 {
            one.send_to(vec![round; 3], to).await.0.unwrap();
            settle().await;
        }
        receiver.await.unwrap();
        assert_eq!(small.stats().leased_count, 0);
    });
}
