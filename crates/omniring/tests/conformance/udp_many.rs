//! UDP at scale: datagrams cut and joined by the kernel, batches, multicast, and options.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use omniring::Runtime;
use omniring::net::UdpSocket;
use omniring::time::timeout;

use crate::harness::{conformance, errno, skip};
use crate::loopback::start;

conformance!(
    a_buffer_is_cut_into_datagrams,
    what_cannot_be_cut_is_refused_by_name,
    datagrams_come_joined_and_are_told_apart,
    a_lone_datagram_is_its_own_segment,
    a_batch_is_sent_in_order,
    a_batch_to_several_goes_to_each,
    what_fails_in_a_batch_fails_alone,
    a_batch_takes_what_is_there,
    a_batch_waits_for_the_first,
    a_batch_of_nothing_waits_for_nothing,
    a_dropped_batch_leaves_the_socket_usable,
    a_group_is_joined_and_left,
    multicast_options_are_set_and_read,
    broadcast_has_to_be_allowed,
    sockets_share_a_port,
    the_traffic_class_arrives,
);

const SOON: Duration = Duration::from_secs(20);
const WHILE: Duration = Duration::from_millis(20);

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// Two sockets, the first of which is connected to the second.
async fn pair() -> (UdpSocket, UdpSocket) {
    let (one, other) = (socket().await, socket().await);
    one.connect(other.local_addr().unwrap()).await.unwrap();
    (one, other)
}

/// So many buffers.
fn rooms(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| Vec::with_capacity(10)).collect()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn a_buffer_is_cut_into_datagrams(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        let sent = pattern(10_500);
        let (result, sent) = one.send_segments(sent, 1000).await;
        assert_eq!(result.unwrap(), 10_500);
        for part in sent.chunks(1000) {
            let (result, buf) = other.recv_into(Vec::with_capacity(2000)).await;
            assert_eq!((result.unwrap(), &buf[..]), (part.len(), part));
        }
        // One, and none: as if it were no matter of cutting.
        let to = other.local_addr().unwrap();
        assert_eq!(one.send_segments_to("short", 100, to).await.0.unwrap(), 5);
        assert_eq!(&other.recv().await.unwrap()[..], b"short");
        assert_eq!(one.send_segments("", 100).await.0.unwrap(), 0);
        assert_eq!(&other.recv().await.unwrap()[..], b"");
    });
}

fn what_cannot_be_cut_is_refused_by_name(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        for (len, segment_len, what) in [
            (10, 0, "0 bytes"),
            (10, 70_000, "70000 bytes"),
            (65_508, 2000, "65508 bytes"),
            (1000, 10, "100 datagrams"),
        ] {
            let (result, buf) = one.send_segments(vec![1; len], segment_len).await;
            let error = result.unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
            assert_eq!((errno(Err::<(), _>(error)), buf.len()), (libc::EINVAL, len));
        }
        assert!(start(&mut Box::pin(other.recv())).await.is_none(), "nothing was sent");
    });
}

fn datagrams_come_joined_and_are_told_apart(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        assert!(!other.gro().unwrap());
        other.set_gro(true).unwrap();
        assert!(other.gro().unwrap());
        let sent = pattern(20_100);
        let (result, sent) = one.send_segments(sent, 1000).await;
        result.unwrap();
        let (mut parts, mut receive_count) = (Vec::new(), 0);
        while parts.len() < 21 {
            let receive = other.recv_segments(Vec::with_capacity(65_535));
            let (result, buf) = timeout(SOON, receive).await.unwrap();
            let segments = result.unwrap();
            assert_eq!(segments.from, one.local_addr().unwrap());
            assert_eq!(segments.count, buf.len());
            parts.extend(segments.split(&buf).map(<[u8]>::to_vec));
            receive_count += 1;
        }
        assert_eq!(parts, sent.chunks(1000).collect::<Vec<_>>());
        assert!(receive_count < 21, "none were joined");
    });
}

fn a_lone_datagram_is_its_own_segment(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        other.set_gro(true).unwrap();
        for text in ["alone", ""] {
            one.send(text).await.0.unwrap();
            let (result, buf) = other.recv_segments(Vec::with_capacity(100)).await;
            let segments = result.unwrap();
            assert_eq!((segments.count, segments.segment_len), (text.len(), text.len()));
            assert_eq!(segments.split(&buf).collect::<Vec<_>>(), [text.as_bytes()]);
        }
    });
}

fn a_batch_is_sent_in_order(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        let bufs = (0..50u8).map(|round| (vec![round; 10], None)).collect();
        for (place, (result, buf)) in one.send_batch(bufs).await.into_iter().enumerate() {
            assert_eq!((result.unwrap(), buf), (10, vec![place as u8; 10]));
        }
        for round in 0..50u8 {
            assert_eq!(&other.recv().await.unwrap()[..], &[round; 10]);
        }
    });
}

fn a_batch_to_several_goes_to_each(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, others) = (socket().await, [socket().await, socket().await]);
        let to = |place: usize| Some(others[place].local_addr().unwrap());
        let sent = one.send_batch(vec![("a", to(0)), ("b", to(1)), ("c", to(0))]).await;
        assert!(sent.iter().all(|(result, _)| result.is_ok()));
        assert_eq!(&others[0].recv().await.unwrap()[..], b"a");
        assert_eq!(&others[0].recv().await.unwrap()[..], b"c");
        assert_eq!(&others[1].recv().await.unwrap()[..], b"b");
    });
}

fn what_fails_in_a_batch_fails_alone(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        let bufs = vec![(vec![1; 10], None), (vec![2; 70_000], None), (vec![3; 10], None)];
        let mut sent = one.send_batch(bufs).await;
        assert_eq!(sent.pop().unwrap().0.unwrap(), 10);
        let (result, buf) = sent.pop().unwrap();
        assert_eq!((errno(result), buf.len()), (libc::EMSGSIZE, 70_000));
        assert_eq!(&other.recv().await.unwrap()[..], [1; 10]);
        assert_eq!(&other.recv().await.unwrap()[..], [3; 10]);
    });
}

fn a_batch_takes_what_is_there(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        for round in 0..5u8 {
            one.send(vec![round; 3]).await.0.unwrap();
        }
        let (result, bufs) = other.recv_batch(rooms(8)).await;
        let datagrams = result.unwrap();
        assert_eq!((datagrams.len(), bufs.len()), (5, 8));
        for (round, (datagram, buf)) in datagrams.iter().zip(&bufs).enumerate() {
            assert_eq!((datagram.count, &buf[..]), (3, &[round as u8; 3][..]));
            assert_eq!(datagram.from, one.local_addr().unwrap());
        }
        assert!(bufs[5..].iter().all(Vec::is_empty));
        // No more than there are buffers for.
        for round in 0..5u8 {
            one.send(vec![round; 3]).await.0.unwrap();
        }
        let (result, _) = other.recv_batch(rooms(2)).await;
        assert_eq!(result.unwrap().len(), 2);
        let (result, _) = other.recv_batch(rooms(9)).await;
        assert_eq!(result.unwrap().len(), 3);
    });
}

fn a_batch_waits_for_the_first(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        let mut batch = Box::pin(other.recv_batch(rooms(4)));
        assert!(start(&mut batch).await.is_none());
        one.send("first").await.0.unwrap();
        let (result, bufs) = timeout(SOON, batch).await.unwrap();
        assert_eq!((result.unwrap().len(), &bufs[0][..]), (1, &b"first"[..]));
    });
}

fn a_batch_of_nothing_waits_for_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let one = socket().await;
        assert_eq!(one.recv_batch(Vec::<Vec<u8>>::new()).await.0.unwrap(), []);
        assert!(one.send_batch(Vec::<(Vec<u8>, _)>::new()).await.is_empty());
    });
}

fn a_dropped_batch_leaves_the_socket_usable(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = pair().await;
        for _ in 0..5 {
            let mut batch = Box::pin(other.recv_batch(rooms(4)));
            assert!(start(&mut batch).await.is_none());
        }
        omniring::yield_now().await;
        let mut receive = Box::pin(other.recv_batch(rooms(4)));
        assert!(start(&mut receive).await.is_none());
        one.send("here").await.0.unwrap();
        let (result, bufs) = timeout(SOON, receive).await.unwrap();
        assert_eq!((result.unwrap().len(), &bufs[0][..]), (1, &b"here"[..]));
    });
}

/// Of those for use within a site.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 77);

fn a_group_is_joined_and_left(runtime: &Runtime) {
    runtime.block_on(async {
        let receiver =
            UdpSocket::bind_prepared((GROUP, 0), |socket| socket.set_reuse_address(true));
        let receiver = receiver.await.unwrap();
        let to = receiver.local_addr().unwrap();
        let sender = socket().await;
        sender.set_multicast_interface_v4(Ipv4Addr::LOCALHOST).unwrap();
        if let Err(error) = receiver.join_multicast_v4(GROUP, Ipv4Addr::LOCALHOST) {
            return skip(&format!("no multicast over loopback: {error}"));
        }
        sender.send_to("to all", to).await.0.unwrap();
        let (lease, from) = timeout(SOON, receiver.recv_from()).await.unwrap().unwrap();
        assert_eq!((&lease[..], from), (&b"to all"[..], sender.local_addr().unwrap()));
        receiver.leave_multicast_v4(GROUP, Ipv4Addr::LOCALHOST).unwrap();
        sender.send_to("to those who are left", to).await.0.unwrap();
        assert!(timeout(WHILE, receiver.recv()).await.is_err());
        let error = receiver.leave_multicast_v4(GROUP, Ipv4Addr::LOCALHOST).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        // What is no group is refused.
        let error = receiver.join_multicast_v4(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
        assert_eq!(errno(error), libc::EINVAL);
    });
}

fn multicast_options_are_set_and_read(runtime: &Runtime) {
    runtime.block_on(async {
        let mut sockets = vec![socket().await];
        match UdpSocket::bind("[::1]:0").await {
            Ok(socket) => sockets.push(socket),
            Err(error) => skip(&format!("no IPv6 here: {error}")),
        }
        for socket in sockets {
            assert!(socket.multicast_loop().unwrap());
            socket.set_multicast_loop(false).unwrap();
            assert!(!socket.multicast_loop().unwrap());
            socket.set_multicast_ttl(17).unwrap();
            assert_eq!(socket.multicast_ttl().unwrap(), 17);
            let error = socket.set_multicast_ttl(256).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            socket.set_ttl(9).unwrap();
            assert_eq!(socket.ttl().unwrap(), 9);
            socket.set_recv_buffer_size(50_000).unwrap();
            assert_eq!(socket.recv_buffer_size().unwrap(), 100_000);
        }
    });
}

fn broadcast_has_to_be_allowed(runtime: &Runtime) {
    runtime.block_on(async {
        let one = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        assert!(!one.broadcast().unwrap());
        // On the loopback device.
        let to: SocketAddr = "127.255.255.255:9".parse().unwrap();
        assert_eq!(errno(one.send_to("all", to).await.0), libc::EACCES);
        one.set_broadcast(true).unwrap();
        assert!(one.broadcast().unwrap());
        one.send_to("all", to).await.0.unwrap();
    });
}

fn sockets_share_a_port(runtime: &Runtime) {
    runtime.block_on(async {
        let share = |socket: &UdpSocket| socket.set_reuse_port(true);
        let one = UdpSocket::bind_prepared("127.0.0.1:0", share).await.unwrap();
        let addr = one.local_addr().unwrap();
        let _other = UdpSocket::bind_prepared(addr, share).await.unwrap();
        assert_eq!(UdpSocket::bind(addr).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        let error = UdpSocket::bind_prepared(addr, |_| Err(ErrorKind::Unsupported.into())).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
    });
}

fn the_traffic_class_arrives(runtime: &Runtime) {
    runtime.block_on(async {
        let mut pairs = vec![pair().await];
        if let (Ok(one), Ok(other)) =
            (UdpSocket::bind("[::1]:0").await, UdpSocket::bind("[::1]:0").await)
        {
            one.connect(other.local_addr().unwrap()).await.unwrap();
            pairs.push((one, other));
        }
        for (one, other) in pairs {
            one.send("plain").await.0.unwrap();
            let (result, _) = other.recv_segments(Vec::with_capacity(10)).await;
            assert_eq!(result.unwrap().traffic_class, None);
            other.set_recv_traffic_class(true).unwrap();
            // DSCP AF41, and ECT(0).
            one.set_traffic_class(34 << 2 | 2).unwrap();
            assert_eq!(one.traffic_class().unwrap(), 34 << 2 | 2);
            one.send("marked").await.0.unwrap();
            let (result, _) = other.recv_segments(Vec::with_capacity(10)).await;
            assert_eq!(result.unwrap().traffic_class, Some(34 << 2 | 2));
        }
    });
}
