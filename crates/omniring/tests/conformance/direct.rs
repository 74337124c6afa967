//! Direct descriptors: what a ring opens without a descriptor of the process. On other engines the
//! option changes nothing, and neither does it change what a program sees.

use std::future::{Future, poll_fn};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;
use std::task::Poll;

use omniring::fs::File;
use omniring::net::{TcpListener, TcpStream, UnixStream};
use omniring::{Runtime, yield_now};

use crate::harness::{conformance, fd_count};

conformance!(
    beyond_the_table_descriptors_are_the_process_s,
    asking_for_a_descriptor_keeps_the_order_of_what_has_arrived;
    isolated:
    a_direct_descriptor_takes_none_of_the_process,
    a_descriptor_is_made_when_it_is_asked_for,
    handing_out_makes_a_descriptor,
    direct_descriptors_are_closed_with_their_handles,
);

fn direct(runtime: &Runtime, count: u32) -> Runtime {
    Runtime::builder().engine(runtime.engine()).direct_descriptors(count).build().expect("it runs")
}

async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

fn beyond_the_table_descriptors_are_the_process_s(runtime: &Runtime) {
    let small = direct(runtime, 3);
    small.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut pairs = Vec::new();
        for _ in 0..10 {
            let client = TcpStream::connect(addr).await.unwrap();
            pairs.push((client, listener.accept().await.unwrap().0));
        }
        for (client, server) in &pairs {
            client.send_all("hello").await.0.unwrap();
            assert_eq!(&server.recv().await.unwrap()[..], b"hello");
        }
        let mut incoming = listener.incoming();
        for _ in 0..10 {
            let client = TcpStream::connect(addr).await.unwrap();
            let server = incoming.next().await.unwrap();
            server.send_all("there").await.0.unwrap();
            assert_eq!(&client.recv().await.unwrap()[..], b"there");
        }
    });
}

fn asking_for_a_descriptor_keeps_the_order_of_what_has_arrived(runtime: &Runtime) {
    let direct = direct(runtime, 100);
    direct.block_on(async {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        let near = UnixStream::from_std(near);
        far.write_all(b"first ").unwrap();
        assert_eq!(&near.recv().await.unwrap()[..], b"first ");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        // The second part is received while the making of a descriptor waits for its own result,
        // the third and the end of the stream come after that.
        let mut arrived = Vec::new();
        {
            let mut recv = pin!(near.recv());
            let _ = poll_fn(|cx| Poll::Ready(recv.as_mut().poll(cx))).await;
        }
        far.write_all(b"second ").unwrap();
        other.local_addr().unwrap();
        far.write_all(b"third").unwrap();
        drop(far);
        loop {
            let lease = near.recv().await.unwrap();
            if lease.is_empty() {
                break;
            }
            arrived.extend_from_slice(&lease);
        }
        assert_eq!(arrived, b"second third");
    });
}

/// Descriptors that appear with an open file and a pair of sockets in the given runtime.
async fn open_some() -> (File, TcpListener, TcpStream, TcpStream) {
    let file = File::open("/proc/self/exe").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let server = listener.incoming().next().await.unwrap();
    (file, listener, client, server)
}

fn a_direct_descriptor_takes_none_of_the_process(runtime: &Runtime) {
    let direct = direct(runtime, 100);
    direct.block_on(async {
        let before = fd_count();
        let (file, _listener, client, server) = open_some().await;
        let (result, _) = file.read_at(vec![0; 100], 0).await;
        assert_eq!(result.unwrap(), 100);
        client.send_all("x").await.0.unwrap();
        assert_eq!(&server.recv().await.unwrap()[..], b"x");
        settle().await;
        // The listener was asked for its address, and so for a descriptor.
        let expected = if is_ring(&direct) { 1 } else { 4 };
        assert_eq!(fd_count() - before, expected);
    });
}

/// Whether this runtime's engine has direct descriptors.
fn is_ring(runtime: &Runtime) -> bool {
    runtime.engine().name().starts_with("uring")
}

fn a_descriptor_is_made_when_it_is_asked_for(runtime: &Runtime) {
    let direct = direct(runtime, 100);
    direct.block_on(async {
        let (file, listener, client, server) = open_some().await;
        assert_eq!(client.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
        client.set_nodelay(true).unwrap();
        assert!(client.nodelay().unwrap());
        let fd = file.as_raw_fd();
        assert_eq!(file.as_fd().as_raw_fd(), fd, "it stays the same");
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        assert_eq!(link, std::fs::read_link("/proc/self/exe").unwrap());
        let before = fd_count();
        drop((file, listener, client, server));
        settle().await;
        let gone = before - fd_count();
        assert!(gone >= 3, "{gone}: those of the file, the listener and the client");
    });
}

fn handing_out_makes_a_descriptor(runtime: &Runtime) {
    use std::io::Read;
    let direct = direct(runtime, 100);
    direct.block_on(async {
        let (file, _listener, client, server) = open_some().await;
        let mut head = [0; 4];
        file.into_std().unwrap().read_exact(&mut head).unwrap();
        assert_eq!(&head, b"\x7fELF");
        let mut client = client.into_std().unwrap();
        server.send_all("std").await.0.unwrap();
        let mut received = [0; 3];
        client.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"std");
    });
}

fn direct_descriptors_are_closed_with_their_handles(runtime: &Runtime) {
    let direct = direct(runtime, 100);
    direct.block_on(async {
        // More in all than the table has room for.
        for round in 0..100 {
            let (file, listener, client, server) = open_some().await;
            drop(server);
            assert!(client.recv().await.unwrap().is_empty(), "the peer is closed");
            if round % 2 == 0 {
                file.close().await.unwrap();
                client.close().await.unwrap();
                drop(listener);
            }
        }
        settle().await;
        let before = fd_count();
        let some = open_some().await;
        let expected = if is_ring(&direct) { 1 } else { 4 };
        assert_eq!(fd_count() - before, expected, "there is room in the table");
        drop(some);
    });
}
