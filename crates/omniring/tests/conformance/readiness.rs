//! What engines that wait by readiness may get wrong: events that nobody waits for, and more
//! descriptors than a mechanism can name.

use std::io::PipeReader;
use std::net::TcpStream as StdStream;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use omniring::fs::{File, OpenOptions};
use omniring::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use omniring::time::{now, timeout};
use omniring::{AsyncRead, AsyncWrite, Engine, Runtime, spawn};
use socket2::SockRef;

use crate::harness::{conformance, errno, skip};
use crate::loopback::{recv_to_end, start, tcp_pair, tcp_pair_with_std};
use crate::time::assert_idle;

const SOON: Duration = Duration::from_secs(20);
const WHILE: Duration = Duration::from_millis(150);

conformance!(
    a_socket_that_nobody_reads_takes_no_processor_time,
    a_peer_that_is_gone_takes_no_processor_time,
    urgent_data_that_nobody_takes_takes_no_processor_time,
    a_poll_for_something_else_takes_no_processor_time,
    a_receiver_comes_back_to_what_arrived_meanwhile,
    ops_in_both_directions_wait_at_the_same_time;
    isolated: descriptors_past_1023_work_or_are_refused,
);

/// A receive that waited, so that the engine has had to do with the socket.
async fn receive_once(client: &TcpStream, server: &StdStream) {
    let mut recv = client.recv_into(Vec::with_capacity(8));
    assert!(start(&mut recv).await.is_none());
    SockRef::from(server).send(b"a").unwrap();
    assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 1);
}

fn a_socket_that_nobody_reads_takes_no_processor_time(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair_with_std().await;
        receive_once(&client, &server).await;
        SockRef::from(&server).send(b"more").unwrap();
        assert_idle(now() + WHILE).await;
        // The same with somebody who waits for the other direction.
        let mut full = pin!(client.send_all(vec![0; 16 << 20]));
        assert!(start(&mut full).await.is_none());
        assert_idle(now() + WHILE).await;
    });
}

fn a_peer_that_is_gone_takes_no_processor_time(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair_with_std().await;
        receive_once(&client, &server).await;
        let mut full = pin!(client.send_all(vec![0; 16 << 20]));
        assert!(start(&mut full).await.is_none());
        // Data that was not read: the connection is reset.
        drop(server);
        timeout(SOON, full).await.unwrap().0.unwrap_err();
        assert_idle(now() + WHILE).await;
        let (reader, writer) = std::io::pipe().unwrap();
        let mut writer = File::from_fd(writer.into());
        let mut full = pin!(writer.write_all(vec![0; 1 << 20]));
        assert!(timeout(WHILE, &mut full).await.is_err(), "the pipe is full");
        drop(reader);
        assert_eq!(errno(timeout(SOON, full).await.unwrap().0), libc::EPIPE);
        assert_idle(now() + WHILE).await;
    });
}

fn urgent_data_that_nobody_takes_takes_no_processor_time(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair_with_std().await;
        receive_once(&client, &server).await;
        let mut recv = client.recv_into(Vec::with_capacity(8));
        assert!(start(&mut recv).await.is_none());
        SockRef::from(&server).send_out_of_band(b"!").unwrap();
        // Whether a receive that waits ends in front of it is the kernel's affair.
        let _ = timeout(Duration::from_millis(20), &mut recv).await;
        assert_idle(now() + WHILE).await;
    });
}

fn a_poll_for_something_else_takes_no_processor_time(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        server.send_all("data").await.0.unwrap();
        timeout(SOON, client.poll(libc::POLLIN)).await.unwrap().unwrap();
        let mut full = pin!(client.send_all(vec![0; 16 << 20]));
        assert!(timeout(Duration::from_millis(50), &mut full).await.is_err());
        let mut poll = client.poll(libc::POLLOUT);
        assert!(start(&mut poll).await.is_none(), "there is data, but no room");
        assert_idle(now() + WHILE).await;
        let receiver = spawn(recv_to_end(server));
        let ready = timeout(SOON, poll).await.unwrap().unwrap();
        assert_eq!(ready as i16, libc::POLLOUT);
        timeout(SOON, full).await.unwrap().0.unwrap();
        receiver.abort();
    });
}

fn a_receiver_comes_back_to_what_arrived_meanwhile(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair_with_std().await;
        for round in 0..3u8 {
            receive_once(&client, &server).await;
            // It arrives, and so do turns of the loop, while nobody waits for it.
            SockRef::from(&server).send(&[round; 4]).unwrap();
            omniring::time::sleep(Duration::from_millis(2)).await;
            let (result, buf) =
                timeout(SOON, client.recv_into(Vec::with_capacity(8))).await.unwrap();
            assert_eq!((result.unwrap(), &buf[..]), (4, &[round; 4][..]));
        }
        SockRef::from(&server).send(b"last").unwrap();
        drop(server);
        omniring::time::sleep(Duration::from_millis(2)).await;
        let (result, buf) = client.recv_into(Vec::with_capacity(8)).await;
        assert_eq!((result.unwrap(), &buf[..]), (4, &b"last"[..]));
        assert_eq!(client.recv_into(Vec::with_capacity(8)).await.0.unwrap(), 0);
    });
}

fn ops_in_both_directions_wait_at_the_same_time(runtime: &Runtime) {
    const LEN: usize = 8 << 20;
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let mut recv = client.recv_into(Vec::with_capacity(8));
        assert!(start(&mut recv).await.is_none());
        let sender = client.clone();
        let sender = spawn(async move { sender.send_all(vec![7; LEN]).await.0 });
        let mut poll = client.poll(libc::POLLIN);
        assert!(start(&mut poll).await.is_none());
        let mut received = 0;
        let mut buf = Vec::with_capacity(1 << 20);
        while received < LEN {
            let (result, filled) = timeout(SOON, server.recv_into(buf)).await.unwrap();
            received += result.unwrap();
            assert!(filled.iter().all(|&byte| byte == 7));
            buf = filled;
        }
        timeout(SOON, sender).await.unwrap().unwrap().unwrap();
        server.send_all("answer").await.0.unwrap();
        let (result, buf) = timeout(SOON, recv).await.unwrap();
        assert_eq!((result.unwrap(), &buf[..]), (6, &b"answer"[..]));
        // The receive may have been faster; the end of the stream stays readable.
        drop(server);
        let ready = timeout(SOON, poll).await.unwrap().unwrap() as i16;
        assert_ne!(ready & libc::POLLIN, 0);
    });
}

/// Takes descriptor numbers until the next one is past what `select(2)` takes.
fn use_up_small_numbers() -> Vec<PipeReader> {
    let (reader, _) = std::io::pipe().unwrap();
    let mut used = vec![reader];
    while used.last().unwrap().as_raw_fd() < libc::FD_SETSIZE as i32 {
        let next = used[0].try_clone().unwrap();
        used.push(next);
    }
    used
}

fn descriptors_past_1023_work_or_are_refused(runtime: &Runtime) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < 2_048 {
        return skip(&format!("this needs 2,048 descriptors, and {hard} are allowed"));
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(2_048), hard).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let small = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let _used = use_up_small_numbers();
    let started = Runtime::builder().engine(runtime.engine()).build();
    runtime.block_on(async {
        // Files may have any number, on all engines.
        let path = dir.path().join("file");
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).open(&path).await.unwrap();
        assert!(file.as_raw_fd() > 1_023);
        file.write_all("text").await.0.unwrap();
        file.write_at("T", 0).await.0.unwrap();
        let (result, buf) = file.read_at(Vec::with_capacity(8), 0).await;
        assert_eq!((result.unwrap(), &buf[..]), (4, &b"Text"[..]));
        assert_eq!(file.read(Vec::with_capacity(8)).await.0.unwrap(), 0);

        let (one, other) = UnixStream::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let (mut reader, mut writer) = (File::from_fd(reader.into()), File::from_fd(writer.into()));
        let addr = small.local_addr().unwrap();
        if runtime.engine() == Engine::Select {
            assert_eq!(errno(one.send("x").await.0), libc::EMFILE);
            assert_eq!(errno(other.recv_into(vec![0; 1]).await.0), libc::EMFILE);
            assert_eq!(errno(other.poll(libc::POLLOUT).await), libc::EMFILE);
            assert_eq!(errno(writer.write("x").await.0), libc::EMFILE);
            assert_eq!(errno(reader.read(vec![0; 1]).await.0), libc::EMFILE);
            assert_eq!(errno(reader.splice_to(None, &file, Some(0), 1).await), libc::EMFILE);
            assert_eq!(errno(TcpStream::connect(addr).await), libc::EMFILE);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            assert_eq!(errno(listener.accept().await), libc::EMFILE);
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            assert_eq!(errno(udp.recv_from_into(vec![0; 1]).await.0), libc::EMFILE);
            let error = started.expect_err("its notifier would have too great a number");
            let text = error.to_string();
            assert!(
                text.contains("select(2) takes none past 1023") && !text.contains('\n'),
                "{text}"
            );
            return;
        }
        let mut recv = other.recv_into(Vec::with_capacity(8));
        assert!(start(&mut recv).await.is_none());
        one.send_all("there").await.0.unwrap();
        assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 5);
        let client = TcpStream::connect(addr).await.unwrap();
        let (server, _) = small.accept().await.unwrap();
        assert!(server.as_raw_fd() > 1_023);
        client.send_all("x").await.0.unwrap();
        assert_eq!(timeout(SOON, server.recv_into(vec![0; 8])).await.unwrap().0.unwrap(), 1);
        assert_eq!(writer.write("x").await.0.unwrap(), 1);
        assert_eq!(reader.read(vec![0; 8]).await.0.unwrap(), 1);
        started.map(drop).unwrap();
    });
}
