//! Options of TCP sockets, sockets that do not connect yet, and two peers that dial each other.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use omniring::net::{Keepalive, TcpListener, TcpSocket, TcpStream};
use omniring::time::timeout;
use omniring::{Runtime, spawn};
use socket2::{SockFilter, SockRef};

use crate::harness::{conformance, errno, skip};
use crate::loopback::{listener, start, tcp_pair};

conformance!(
    keepalive_is_set_and_read,
    what_keepalive_cannot_be_is_refused_by_name,
    linger_of_zero_resets,
    times_that_the_kernel_would_cut_are_refused,
    a_user_timeout_is_set_and_read,
    buffer_sizes_are_set_and_read,
    hops_and_traffic_class_are_set_and_read,
    what_is_set_on_a_listener_is_inherited,
    accepting_is_deferred_until_there_is_data,
    fast_open_carries_data_either_way,
    several_listeners_share_a_port,
    a_port_that_not_all_share_is_in_use,
    a_socket_connects_from_the_address_it_is_bound_to,
    a_socket_that_cannot_connect_names_the_address,
    a_socket_that_cannot_bind_names_the_address,
    a_dropped_connect_closes_the_socket,
    an_error_is_taken_once,
    two_peers_that_dial_each_other_are_one_connection,
    a_socket_that_dials_itself_is_connected,
);

const SOON: Duration = Duration::from_secs(20);
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A socket on a free port.
async fn bound() -> TcpSocket {
    let socket = TcpSocket::new_for(ANY).await.unwrap();
    socket.bind(ANY).await.unwrap();
    socket
}

fn keepalive_is_set_and_read(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, _server) = tcp_pair().await;
        assert_eq!(client.keepalive().unwrap(), None);
        let keepalive = Keepalive::new(seconds(32_767), seconds(3), 127);
        client.set_keepalive(Some(keepalive)).unwrap();
        assert_eq!(client.keepalive().unwrap(), Some(keepalive));
        client.set_keepalive(Some(Keepalive::default())).unwrap();
        assert_eq!(client.keepalive().unwrap(), Some(Keepalive::default()));
        client.set_keepalive(None).unwrap();
        assert_eq!(client.keepalive().unwrap(), None);
    });
}

fn what_keepalive_cannot_be_is_refused_by_name(runtime: &Runtime) {
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().await.unwrap();
        let wrong = [
            ("idle", Keepalive::new(Duration::from_millis(1500), seconds(1), 1)),
            ("idle", Keepalive::new(seconds(0), seconds(1), 1)),
            ("interval", Keepalive::new(seconds(1), seconds(32_768), 1)),
            ("count", Keepalive::new(seconds(1), seconds(1), 0)),
            ("count", Keepalive::new(seconds(1), seconds(1), 128)),
        ];
        for (what, keepalive) in wrong {
            let error = socket.set_keepalive(Some(keepalive)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(what), "{error}");
        }
        assert_eq!(socket.keepalive().unwrap(), None);
    });
}

fn linger_of_zero_resets(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        assert_eq!(client.linger().unwrap(), None);
        client.set_linger(Some(seconds(7))).unwrap();
        assert_eq!(client.linger().unwrap(), Some(seconds(7)));
        client.set_linger(Some(Duration::ZERO)).unwrap();
        assert_eq!(client.linger().unwrap(), Some(Duration::ZERO));
        client.close().await.unwrap();
        let (result, _) = timeout(SOON, server.recv_into(vec![0; 8])).await.unwrap();
        assert_eq!(errno(result), libc::ECONNRESET);
    });
}

fn times_that_the_kernel_would_cut_are_refused(runtime: &Runtime) {
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().await.unwrap();
        let errors = [
            ("linger", socket.set_linger(Some(Duration::from_millis(10)))),
            ("linger", socket.set_linger(Some(seconds(65_536)))),
            ("user timeout", socket.set_user_timeout(Some(Duration::from_nanos(5)))),
            ("user timeout", socket.set_user_timeout(Some(Duration::ZERO))),
            ("user timeout", socket.set_user_timeout(Some(seconds(3_000_000)))),
            ("defer accept", socket.set_defer_accept(Some(Duration::from_millis(5)))),
            ("ttl", socket.set_ttl(0)),
            ("ttl", socket.set_ttl(256)),
        ];
        for (what, result) in errors {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(what), "{error}");
        }
    });
}

fn a_user_timeout_is_set_and_read(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, _server) = tcp_pair().await;
        assert_eq!(client.user_timeout().unwrap(), None);
        client.set_user_timeout(Some(Duration::from_millis(12_345))).unwrap();
        assert_eq!(client.user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
        client.set_user_timeout(None).unwrap();
        assert_eq!(client.user_timeout().unwrap(), None);
    });
}

fn buffer_sizes_are_set_and_read(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, _server) = tcp_pair().await;
        client.set_send_buffer_size(20_000).unwrap();
        client.set_recv_buffer_size(10_000).unwrap();
        // The kernel keeps twice what it was told.
        assert_eq!(client.send_buffer_size().unwrap(), 40_000);
        assert_eq!(client.recv_buffer_size().unwrap(), 20_000);
    });
}

fn hops_and_traffic_class_are_set_and_read(runtime: &Runtime) {
    runtime.block_on(async {
        let mut sockets = vec![TcpSocket::new_v4().await.unwrap()];
        match TcpSocket::new_v6().await {
            Ok(socket) => {
                socket.set_only_v6(true).unwrap();
                assert!(socket.only_v6().unwrap());
                sockets.push(socket);
            }
            Err(error) => skip(&format!("no IPv6 here: {error}")),
        }
        for socket in sockets {
            socket.set_ttl(7).unwrap();
            assert_eq!(socket.ttl().unwrap(), 7);
            socket.set_traffic_class(0xb8).unwrap();
            assert_eq!(socket.traffic_class().unwrap(), 0xb8);
        }
    });
}

fn what_is_set_on_a_listener_is_inherited(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let keepalive = Keepalive::new(seconds(10), seconds(20), 3);
        listener.set_keepalive(Some(keepalive)).unwrap();
        listener.set_nodelay(true).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert_eq!(server.keepalive().unwrap(), Some(keepalive));
        assert!(server.nodelay().unwrap());
    });
}

fn accepting_is_deferred_until_there_is_data(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        assert_eq!(listener.defer_accept().unwrap(), None);
        listener.set_defer_accept(Some(seconds(20))).unwrap();
        assert!(listener.defer_accept().unwrap() >= Some(seconds(20)));
        // The first one says nothing, and stands for its client all the same.
        let addr = listener.local_addr().unwrap();
        let _silent = TcpStream::connect(addr).await.unwrap();
        let client = TcpStream::connect(addr).await.unwrap();
        client.send_all("here").await.0.unwrap();
        let (server, from) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        // The data is there.
        let (result, buf) = server.recv_into(Vec::with_capacity(8)).await;
        assert_eq!((result.unwrap(), &buf[..]), (4, &b"here"[..]));
    });
}

fn fast_open_carries_data_either_way(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        listener.set_fast_open(16).unwrap();
        assert_eq!(listener.fast_open().unwrap(), 16);
        // With the second connection there may be a cookie.
        for _ in 0..3 {
            let socket = TcpSocket::new_v4().await.unwrap();
            if let Err(error) = socket.set_fast_open_connect(true) {
                return skip(&format!("no TCP_FASTOPEN_CONNECT: {error}"));
            }
            assert!(socket.fast_open_connect().unwrap());
            let client = socket.connect(listener.local_addr().unwrap()).await.unwrap();
            client.send_all("early").await.0.unwrap();
            let (server, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
            let (result, buf) = server.recv_into(Vec::with_capacity(8)).await;
            assert_eq!((result.unwrap(), &buf[..]), (5, &b"early"[..]));
            server.send_all("late").await.0.unwrap();
            assert_eq!(&client.recv().await.unwrap()[..], b"late");
        }
    });
}

fn several_listeners_share_a_port(runtime: &Runtime) {
    runtime.block_on(async {
        let mut listeners = Vec::<TcpListener>::new();
        for _ in 0..3 {
            let socket = TcpSocket::new_v4().await.unwrap();
            socket.set_reuse_port(true).unwrap();
            assert!(socket.reuse_port().unwrap());
            let addr = listeners.first().map_or(ANY, |first| first.local_addr().unwrap());
            socket.bind(addr).await.unwrap();
            listeners.push(socket.listen(64).await.unwrap());
        }
        let addr = listeners[0].local_addr().unwrap();
        const COUNT: usize = 30;
        let mut clients = Vec::new();
        for _ in 0..COUNT {
            clients.push(TcpStream::connect(addr).await.unwrap());
        }
        // Each connection is with one of them.
        let (sender, mut accepted) = omniring::sync::mpsc::unbounded_channel();
        let tasks: Vec<_> = listeners
            .into_iter()
            .map(|listener| {
                let sender = sender.clone();
                spawn(async move {
                    while let Ok((stream, from)) = listener.accept().await {
                        let _ = sender.send((stream, from));
                    }
                })
            })
            .collect();
        for _ in 0..COUNT {
            let (_, from) = timeout(SOON, accepted.recv()).await.unwrap().unwrap();
            assert!(clients.iter().any(|client| client.local_addr().unwrap() == from));
        }
        for task in tasks {
            task.abort();
            assert!(task.await.unwrap_err().is_aborted());
        }
    });
}

fn a_port_that_not_all_share_is_in_use(runtime: &Runtime) {
    runtime.block_on(async {
        let first = listener().await;
        let socket = TcpSocket::new_v4().await.unwrap();
        socket.set_reuse_port(true).unwrap();
        let error = socket.bind(first.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(errno(Err::<(), _>(error)), libc::EADDRINUSE);
    });
}

fn a_socket_connects_from_the_address_it_is_bound_to(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = listener().await;
        let socket = TcpSocket::new_v4().await.unwrap();
        assert_eq!(socket.local_addr().unwrap().port(), 0);
        socket.bind("127.0.0.9:0".parse().unwrap()).await.unwrap();
        let local = socket.local_addr().unwrap();
        assert!(local.ip().to_string() == "127.0.0.9" && local.port() != 0);
        let client = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (_server, from) = listener.accept().await.unwrap();
        assert_eq!((client.local_addr().unwrap(), from), (local, local));
    });
}

fn a_socket_that_cannot_connect_names_the_address(runtime: &Runtime) {
    runtime.block_on(async {
        let gone = listener().await.local_addr().unwrap();
        let socket = TcpSocket::new_v4().await.unwrap();
        let error = socket.connect(gone).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&gone.to_string()), "{error}");
        assert_eq!(errno(Err::<(), _>(error)), libc::ECONNREFUSED);
    });
}

fn a_socket_that_cannot_bind_names_the_address(runtime: &Runtime) {
    runtime.block_on(async {
        let taken = listener().await;
        let addr = taken.local_addr().unwrap();
        let socket = TcpSocket::new_v4().await.unwrap();
        let error = socket.bind(addr).await.unwrap_err();
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
        // Two that reuse the address may both bind, and only one may listen.
        let mut sockets = Vec::new();
        let mut addr = ANY;
        for _ in 0..2 {
            let socket = TcpSocket::new_v4().await.unwrap();
            socket.set_reuse_address(true).unwrap();
            assert!(socket.reuse_address().unwrap());
            socket.bind(addr).await.unwrap();
            addr = socket.local_addr().unwrap();
            sockets.push(socket);
        }
        let _first = sockets.pop().unwrap().listen(1).await.unwrap();
        let error = sockets.pop().unwrap().listen(1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    });
}

fn a_dropped_connect_closes_the_socket(runtime: &Runtime) {
    runtime.block_on(async {
        let socket = bound().await;
        let addr = socket.local_addr().unwrap();
        if !deafen(&socket) {
            return;
        }
        let mut connect = Box::pin(socket.connect(listener().await.local_addr().unwrap()));
        assert!(start(&mut connect).await.is_none(), "its answers are dropped");
        drop(connect);
        let again = async {
            loop {
                // The op in flight holds the socket until it has ended.
                let socket = TcpSocket::new_v4().await.unwrap();
                match socket.bind(addr).await {
                    Ok(()) => return,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse),
                }
                omniring::yield_now().await;
            }
        };
        timeout(SOON, again).await.unwrap();
    });
}

fn an_error_is_taken_once(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        assert!(client.take_error().unwrap().is_none());
        server.set_linger(Some(Duration::ZERO)).unwrap();
        server.close().await.unwrap();
        let events = timeout(SOON, client.poll(libc::POLLIN)).await.unwrap().unwrap();
        assert_ne!(events & libc::POLLERR as u32, 0);
        let error = client.take_error().unwrap().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        assert!(client.take_error().unwrap().is_none());
    });
}

/// Has the kernel drop every packet that comes for the socket. False, said aloud, where only the
/// superuser may.
#[must_use]
fn deafen(socket: &TcpSocket) -> bool {
    let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    match SockRef::from(socket).attach_filter(&[drop_all]) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            skip("no socket filter");
            false
        }
    }
}

/// The first packet finds nobody who dials, and the refusal is dropped on its way: as if both had
/// been on their way at once. The second packet comes to one that dials.
fn two_peers_that_dial_each_other_are_one_connection(runtime: &Runtime) {
    runtime.block_on(async {
        let (one, other) = (bound().await, bound().await);
        let addrs = [one.local_addr().unwrap(), other.local_addr().unwrap()];
        if !deafen(&one) {
            return;
        }
        let ear = one_ear(&one);
        let mut first = Box::pin(one.connect(addrs[1]));
        assert!(start(&mut first).await.is_none(), "nobody has answered");
        // Whoever submits by a thread of the kernel's is on its way when its address is known.
        let dials = async {
            while ear.state() != SYN_SENT {
                omniring::yield_now().await;
            }
        };
        timeout(SOON, dials).await.unwrap();
        ear.listen();
        let second = timeout(SOON, other.connect(addrs[0])).await.unwrap().unwrap();
        let first = timeout(SOON, first).await.unwrap().unwrap();
        assert_eq!([first.local_addr().unwrap(), first.peer_addr().unwrap()], addrs);
        assert_eq!([second.peer_addr().unwrap(), second.local_addr().unwrap()], addrs);
        first.send_all("from one").await.0.unwrap();
        second.send_all("from the other").await.0.unwrap();
        assert_eq!(&second.recv().await.unwrap()[..], b"from one");
        assert_eq!(&first.recv().await.unwrap()[..], b"from the other");
        drop((first, ear));
        assert!(timeout(SOON, second.recv()).await.unwrap().unwrap().is_empty());
    });
}

/// Of `tcp(7)`'s states.
const SYN_SENT: u8 = 2;

/// A second descriptor of a socket, to look at it while it is in use.
struct Ear(std::os::fd::OwnedFd);

fn one_ear(socket: &TcpSocket) -> Ear {
    use std::os::fd::AsFd;
    Ear(socket.as_fd().try_clone_to_owned().unwrap())
}

impl Ear {
    /// The state of the connection: the first byte of `TCP_INFO`.
    fn state(&self) -> u8 {
        use std::os::fd::AsFd;
        let info =
            omniring_driver::socket_option::get(self.0.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO);
        info.unwrap().to_ne_bytes()[0]
    }

    fn listen(&self) {
        SockRef::from(&self.0).detach_filter().unwrap();
    }
}

fn a_socket_that_dials_itself_is_connected(runtime: &Runtime) {
    runtime.block_on(async {
        let socket = bound().await;
        let addr = socket.local_addr().unwrap();
        let stream = timeout(SOON, socket.connect(addr)).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), stream.local_addr().unwrap());
        stream.send_all("echo").await.0.unwrap();
        assert_eq!(&stream.recv().await.unwrap()[..], b"echo");
    });
}
