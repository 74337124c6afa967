//! The proxy, with curl at its end: HTTP for connections, TFTP for datagrams.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use omniring::Runtime;

use crate::harness::skip;
use crate::program::{Program, fails};
use crate::programs::{curl, is_there};

on_some_engines!(
    curl_posts_and_gets_through_the_proxy,
    each_direction_ends_by_itself,
    an_idle_connection_is_ended,
    told_to_stop_it_lets_connections_end,
    curl_fetches_a_file_by_datagrams_and_the_session_expires,
    it_names_what_is_wrong,
);

/// Nothing here waits so long.
const SOON: Duration = Duration::from_secs(20);

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 13 + at / 255) as u8).collect()
}

/// A server behind the proxy that does this with each of so many connections, one after the other.
fn behind(count: usize, serve: impl Fn(TcpStream) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || {
        for _ in 0..count {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            serve(stream);
        }
    });
    (addr, thread)
}

/// Reads up to the empty line that ends the head of a request, and the body that it announces.
fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; len.map_or(0, |len| len.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    body
}

fn curl_posts_and_gets_through_the_proxy(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    let (addr, server) = behind(2, |mut stream| {
        let body = read_request(&mut stream);
        let body = if body.is_empty() { pattern(1_500_000) } else { body };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        stream.write_all(&body).unwrap();
    });
    let proxy = Program::start("proxy", &[&addr], runtime);
    let url = format!("http://{}/", proxy.at);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pattern(1_000_000)).unwrap();
    let data = format!("@{}", file.path().display());
    runtime.block_on(async {
        assert!(curl(&[&url]).await.out == pattern(1_500_000));
        let posted = curl(&["-H", "Expect:", "--data-binary", &data, &url]).await;
        assert!(posted.out == pattern(1_000_000), "{}", posted.err);
    });
    server.join().unwrap();
}

fn each_direction_ends_by_itself(runtime: &Runtime) {
    // It answers when everything is there, which only the end says.
    let (addr, server) = behind(1, |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let proxy = Program::start("proxy", &[&addr], runtime);
    let mut client = TcpStream::connect(&proxy.at).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(&pattern(1_000_000)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert!(all == pattern(1_000_000));
    server.join().unwrap();
}

fn an_idle_connection_is_ended(runtime: &Runtime) {
    let (addr, server) = behind(1, |mut stream| {
        stream.write_all(b"hello").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"");
    });
    let proxy = Program::start("proxy", &[&addr, "--idle", "0.2"], runtime);
    let mut client = TcpStream::connect(&proxy.at).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all, "hello");
    server.join().unwrap();
}

fn told_to_stop_it_lets_connections_end(runtime: &Runtime) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let (mut second, _) = listener.accept().unwrap();
        second.write_all(b"second").unwrap();
        drop(second);
        first.set_read_timeout(Some(SOON)).unwrap();
        let mut all = Vec::new();
        first.read_to_end(&mut all).unwrap();
        first.write_all(&all).unwrap();
    });
    let proxy = Program::start("proxy", &[&addr], runtime);
    let mut client = TcpStream::connect(&proxy.at).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(b"before").unwrap();
    // Connections are taken in order: with the second one through, the first is open.
    let mut second = TcpStream::connect(&proxy.at).unwrap();
    second.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(second.read(&mut [0; 10]).unwrap(), 6);
    drop(second);
    proxy.terminate();
    // It takes nothing new once it was told.
    while TcpStream::connect(&proxy.at).is_ok() {
        thread::yield_now();
    }
    client.write_all(b" and after").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all, "before and after");
    assert!(proxy.wait().success());
    server.join().unwrap();
}

/// Answers one request for a file by TFTP (RFC 1350), from the port that it came to.
fn serve_tftp(socket: &UdpSocket, file: &[u8]) {
    const BLOCK_LEN: usize = 512;
    let mut buf = [0; 1000];
    let (len, client) = socket.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..2], [0, 1], "a request to read: {:?}", &buf[..len]);
    for number in 1..=file.len() / BLOCK_LEN + 1 {
        let block = &file[(number - 1) * BLOCK_LEN..];
        let mut data = vec![0, 3, (number >> 8) as u8, number as u8];
        data.extend(&block[..block.len().min(BLOCK_LEN)]);
        socket.send_to(&data, client).unwrap();
        let (len, _) = socket.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..2], &buf[2..len]), (&[0, 4][..], &data[2..4]), "it is acknowledged");
    }
}

fn curl_fetches_a_file_by_datagrams_and_the_session_expires(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    let version = Command::new("curl").arg("--version").output().unwrap();
    if !String::from_utf8_lossy(&version.stdout).contains("tftp") {
        return skip("this curl has no TFTP");
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        serve_tftp(&socket, &pattern(20_000));
        socket
    });
    let proxy = Program::start("proxy", &["--udp", "--idle", "0.5", &addr], runtime);
    let url = format!("tftp://{}/file", proxy.at);
    let said = runtime.block_on(curl(&["--tftp-no-options", &url]));
    assert!(said.out == pattern(20_000), "{} bytes; {}", said.out.len(), said.err);
    let socket = server.join().unwrap();

    // Two clients at once are told apart; after the time one and the same is a new session.
    let clients = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut buf = [0; 100];
    let mut sessions = Vec::new();
    for client in &clients {
        client.set_read_timeout(Some(SOON)).unwrap();
        client.send_to(b"who?", &proxy.at).unwrap();
        sessions.push(socket.recv_from(&mut buf).unwrap().1);
    }
    for (client, session) in clients.iter().zip(&sessions).rev() {
        socket.send_to(session.to_string().as_bytes(), session).unwrap();
        let (len, from) = client.recv_from(&mut buf).unwrap();
        assert_eq!(
            (from.to_string(), &buf[..len]),
            (proxy.at.clone(), session.to_string().as_bytes())
        );
    }
    thread::sleep(Duration::from_millis(700));
    clients[0].send_to(b"again", &proxy.at).unwrap();
    let (len, session) = socket.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"again");
    assert_ne!(session, sessions[0], "the session has expired");
    // And with the longest datagram there is.
    clients[0].send_to(&pattern(65_507), &proxy.at).unwrap();
    let mut long = vec![0; 70_000];
    let (len, _) = socket.recv_from(&mut long).unwrap();
    assert!(long[..len] == pattern(65_507));
}

fn it_names_what_is_wrong(runtime: &Runtime) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let said = fails(2, "proxy", &["127.0.0.1:1", "--listen", &addr], runtime);
    assert!(said.contains(&addr) && said.contains("choose another"), "{said}");
    let said = fails(2, "proxy", &["no.such.host.invalid:80"], runtime);
    assert!(said.contains("no.such.host.invalid"), "{said}");
    let said = fails(2, "proxy", &["127.0.0.1"], runtime);
    assert!(said.contains("127.0.0.1"), "{said}");
    // Nobody listens there: the client's connection is closed.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let proxy = Program::start("proxy", &[&nobody], runtime);
    let mut client = TcpStream::connect(&proxy.at).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(client.read(&mut [0; 10]).unwrap(), 0);
}
