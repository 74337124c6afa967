//! A server on omniring, and curl and the standard library as its clients.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use omniring::time::{sleep, timeout};
use omniring::{Runtime, spawn, spawn_blocking};
use omniring_adapters::http::Server;

use crate::harness::fd_count;
use crate::programs::{curl, is_there};
use crate::site::{Site, listener, pattern, serve, settle};

on_some_engines!(
    curl_is_answered_over_http1_and_http2,
    curl_gets_and_sends_large_bodies,
    a_connection_is_kept_for_the_next_request,
    a_half_closed_client_is_answered,
    a_client_that_goes_away_ends_its_request,
    a_slow_reader_gets_all_of_it,
    nonsense_is_refused_and_the_server_goes_on,
    a_server_that_is_told_to_end_finishes_what_is_in_work,
    a_server_that_is_told_to_end_does_not_wait_for_ever;
    isolated:
    nothing_is_left_of_a_server,
);

fn curl_is_answered_over_http1_and_http2(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    runtime.block_on(async {
        let served = serve().await;
        let format = "%{stderr}%{http_version} %{http_code}";
        for (version, option) in [("1.1", "--http1.1"), ("2", "--http2-prior-knowledge")] {
            let said = curl(&[option, "-w", format, &served.url("/")]).await;
            assert_eq!(said.err, format!("{version} 200"));
            assert_eq!(said.text(), "hello");
            let said = curl(&[option, "-w", format, &served.url("/nowhere")]).await;
            assert_eq!(said.err, format!("{version} 404"));
        }
        served.end(runtime).await;
    });
}

fn curl_gets_and_sends_large_bodies(runtime: &Runtime) {
    if !is_there("curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("body");
    std::fs::write(&path, pattern(3 << 20)).unwrap();
    let upload = format!("@{}", path.display());
    runtime.block_on(async {
        let served = serve().await;
        for option in ["--http1.1", "--http2-prior-knowledge"] {
            let said = curl(&[option, &served.url("/large/5000000")]).await;
            assert!(said.success, "{}", said.err);
            assert!(said.out == pattern(5_000_000));
            let said = curl(&[option, "--data-binary", &upload, &served.url("/echo")]).await;
            assert!(said.success, "{}", said.err);
            assert!(said.out == pattern(3 << 20));
        }
        served.end(runtime).await;
    });
}

/// Sends a request in one piece: in several, Nagle's algorithm would wait with the second.
fn send_get(stream: &mut std::net::TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

/// Sends a request by hand: head and body of the answer.
fn ask(stream: &mut std::net::TcpStream, path: &str) -> (String, Vec<u8>) {
    send_get(stream, path);
    read_answer(stream)
}

fn read_answer(stream: &mut std::net::TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; len.expect("a length").parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

fn a_connection_is_kept_for_the_next_request(runtime: &Runtime) {
    runtime.block_on(async {
        let served = serve().await;
        let addr = served.addr;
        let asks = spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            for _ in 0..100 {
                let (head, body) = ask(&mut stream, "/");
                assert!(head.starts_with("http/1.1 200"), "{head}");
                assert_eq!(body, b"hello");
            }
            // Several at once are answered in order.
            for len in [1, 2, 3] {
                send_get(&mut stream, &format!("/large/{len}"));
            }
            for len in [1, 2, 3] {
                assert_eq!(read_answer(&mut stream).1, pattern(len));
            }
        });
        asks.await.unwrap();
        assert_eq!(served.site.answered_count.get(), 103);
        served.end(runtime).await;
    });
}

fn a_half_closed_client_is_answered(runtime: &Runtime) {
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        // hyper takes the end of the requests for the client's going, unless told otherwise.
        let mut server = Server::new().http1_only();
        server.options().http1().half_close(true);
        let serving = spawn(async move { server.serve(&listener, Site::default()).await });
        let asks = spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            send_get(&mut stream, "/large/300000");
            stream.shutdown(Shutdown::Write).unwrap();
            let answer = read_answer(&mut stream).1;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty());
            answer
        });
        assert!(asks.await.unwrap() == pattern(300_000));
        serving.abort();
        assert!(serving.await.is_err());
        settle(runtime).await;
    });
}

/// Waits until this holds.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("not so: {what}"));
}

fn a_client_that_goes_away_ends_its_request(runtime: &Runtime) {
    runtime.block_on(async {
        let served = serve().await;
        let addr = served.addr;
        let clients = spawn_blocking(move || {
            let asks = |_| {
                let mut stream = std::net::TcpStream::connect(addr).unwrap();
                send_get(&mut stream, "/never");
                stream
            };
            (0..10).map(asks).collect::<Vec<_>>()
        });
        let clients = clients.await.unwrap();
        let answering = &served.site.answering_count;
        eventually("ten requests are in work", || answering.get() == 10).await;
        drop(clients);
        eventually("no request is in work", || answering.get() == 0).await;
        served.end(runtime).await;
    });
}

fn a_slow_reader_gets_all_of_it(runtime: &Runtime) {
    runtime.block_on(async {
        let served = serve().await;
        let addr = served.addr;
        let (asked, is_asked) = omniring::sync::oneshot::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel();
        let reads = spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            send_get(&mut stream, "/large/12000000");
            asked.send(()).unwrap();
            may_go_on.recv().unwrap();
            read_answer(&mut stream).1
        });
        is_asked.await.unwrap();
        // Others are served meanwhile.
        let other = spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            for _ in 0..50 {
                assert_eq!(ask(&mut stream, "/").1, b"hello");
            }
        });
        other.await.unwrap();
        go_on.send(()).unwrap();
        assert!(reads.await.unwrap() == pattern(12_000_000));
        served.end(runtime).await;
    });
}

fn nonsense_is_refused_and_the_server_goes_on(runtime: &Runtime) {
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let errors = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let kept = errors.clone();
        let server = Server::new().on_error(move |error| kept.borrow_mut().push(error.to_string()));
        let serving = spawn(async move { server.serve(&listener, Site::default()).await });
        let asks = spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            stream.write_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            assert_eq!(ask(&mut stream, "/").1, b"hello");
        });
        asks.await.unwrap();
        assert_eq!(errors.borrow().len(), 1, "{errors:?}");
        assert!(errors.borrow()[0].contains("invalid HTTP"), "{errors:?}");
        serving.abort();
        assert!(serving.await.is_err());
        settle(runtime).await;
    });
}

fn a_server_that_is_told_to_end_finishes_what_is_in_work(runtime: &Runtime) {
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let site = Site::default();
        let (end, ended) = omniring::sync::oneshot::channel();
        let service = site.clone();
        let serving = spawn(async move {
            let signal = async { drop(ended.await) };
            Server::new().serve_until(&listener, service, signal).await
        });
        let (sent, is_sent) = omniring::sync::oneshot::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel();
        let asks = spawn_blocking(move || {
            let mut idle = std::net::TcpStream::connect(addr).unwrap();
            assert_eq!(ask(&mut idle, "/").1, b"hello");
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            stream
                .write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab")
                .unwrap();
            sent.send(()).unwrap();
            may_go_on.recv().unwrap();
            // The idle one is closed, the other is answered before it is.
            assert_eq!(idle.read(&mut [0]).unwrap(), 0);
            stream.write_all(b"cd").unwrap();
            let (head, body) = read_answer(&mut stream);
            assert!(head.contains("connection: close"), "{head}");
            assert_eq!(body, b"abcd");
        });
        is_sent.await.unwrap();
        eventually("a request is in work", || site.answering_count.get() == 1).await;
        end.send(()).unwrap();
        go_on.send(()).unwrap();
        asks.await.unwrap();
        timeout(Duration::from_secs(10), serving).await.unwrap().unwrap().unwrap();
        settle(runtime).await;
    });
}

fn a_server_that_is_told_to_end_does_not_wait_for_ever(runtime: &Runtime) {
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let site = Site::default();
        let (end, ended) = omniring::sync::oneshot::channel::<()>();
        let service = site.clone();
        let serving = spawn(async move {
            let server = Server::new().shutdown_time_max(Duration::from_millis(20));
            server.serve_until(&listener, service, async { drop(ended.await) }).await
        });
        let client = spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            send_get(&mut stream, "/never");
            stream.read(&mut [0]).unwrap()
        });
        eventually("a request is in work", || site.answering_count.get() == 1).await;
        end.send(()).unwrap();
        serving.await.unwrap().unwrap();
        assert_eq!(client.await.unwrap(), 0, "the connection is closed");
        assert_eq!(site.answering_count.get(), 0);
        settle(runtime).await;
    });
}

fn nothing_is_left_of_a_server(runtime: &Runtime) {
    let before = fd_count();
    runtime.block_on(async {
        for _ in 0..3 {
            let served = serve().await;
            let addr = served.addr;
            let clients = spawn_blocking(move || {
                (0..20)
                    .map(|at| {
                        let mut stream = std::net::TcpStream::connect(addr).unwrap();
                        match at % 4 {
                            0 => drop(ask(&mut stream, "/")),
                            1 => send_get(&mut stream, "/large/9000000"),
                            2 => send_get(&mut stream, "/never"),
                            _ => write!(stream, "GET / HT").unwrap(),
                        }
                        stream
                    })
                    .collect::<Vec<_>>()
            });
            let clients = clients.await.unwrap();
            let (half, other_half): (Vec<_>, Vec<_>) =
                clients.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
            drop(half);
            served.server.abort();
            assert!(served.server.await.is_err());
            drop(other_half);
            settle(runtime).await;
        }
    });
    // A thread may end a little after what it did.
    assert_eq!(fd_count(), before);
}
