//! hyper's client on omniring, and a server.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use omniring::net::TcpStream;
use omniring::{Runtime, spawn};
use omniring_adapters::{StreamIo, http};

use crate::harness::conformance;
use crate::site::{body, full, listener, pattern, serve, settle};

conformance!(
    a_hundred_requests_follow_each_other,
    fifty_requests_are_in_flight_at_once,
    large_bodies_go_both_ways,
    a_dropped_request_leaves_the_connection_of_http2,
    a_server_that_breaks_off_is_an_error,
);

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://localhost{path}"))
        .header("host", "localhost")
        .body(Empty::new())
        .unwrap()
}

async fn connect(addr: std::net::SocketAddr) -> StreamIo<TcpStream> {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    StreamIo::new(stream)
}

fn a_hundred_requests_follow_each_other(runtime: &Runtime) {
    runtime.block_on(async {
        let served = serve().await;
        let mut client = http::client::http1(connect(served.addr).await).await.unwrap();
        for _ in 0..100 {
            client.ready().await.unwrap();
            let answer = client.send_request(get("/")).await.unwrap();
            assert_eq!(body(answer).await, "hello");
        }
        let mut client = http::client::http2(connect(served.addr).await).await.unwrap();
        for _ in 0..100 {
            let answer = client.send_request(get("/")).await.unwrap();
            assert_eq!(body(answer).await, "hello");
        }
        drop(client);
        served.end(runtime).await;
    });
}

fn fifty_requests_are_in_flight_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        let served = serve().await;
        let addr = served.addr;
        let shared = http::client::http2(connect(addr).await).await.unwrap();
        let mut asks = Vec::new();
        for at in 0..50 {
            let mut shared = shared.clone();
            asks.push(spawn(async move {
                let path = format!("/large/{}", at * 1000);
                let answer = shared.send_request(get(&path)).await.unwrap();
                assert!(body(answer).await == pattern(at * 1000));
                // And over a connection of its own.
                let mut client = http::client::http1(connect(addr).await).await.unwrap();
                let answer = client.send_request(get(&path)).await.unwrap();
                assert!(body(answer).await == pattern(at * 1000));
            }));
        }
        for ask in asks {
            ask.await.unwrap();
        }
        drop(shared);
        assert_eq!(served.site.answered_count.get(), 100);
        served.end(runtime).await;
    });
}

fn large_bodies_go_both_ways(runtime: &Runtime) {
    runtime.block_on(async {
        let served = serve().await;
        let post = || {
            Request::post("http://localhost/echo")
                .header("host", "localhost")
                .body(full(pattern(4 << 20)))
                .unwrap()
        };
        let mut client = http::client::http1(connect(served.addr).await).await.unwrap();
        let answer = client.send_request(post()).await.unwrap();
        assert!(body(answer).await == pattern(4 << 20));
        let mut client = http::client::http2(connect(served.addr).await).await.unwrap();
        let answer = client.send_request(post()).await.unwrap();
        assert!(body(answer).await == pattern(4 << 20));
        drop(client);
        served.end(runtime).await;
    });
}

fn a_dropped_request_leaves_the_connection_of_http2(runtime: &Runtime) {
    runtime.block_on(async {
        let served = serve().await;
        let mut client = http::client::http2(connect(served.addr).await).await.unwrap();
        for _ in 0..5 {
            let mut never = Box::pin(client.clone().send_request(get("/never")));
            let early = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(never.as_mut().poll(cx).is_pending())
            });
            assert!(early.await);
            // The server has seen it when it has answered what came after.
            let answer = client.send_request(get("/")).await.unwrap();
            assert_eq!(body(answer).await, "hello");
            drop(never);
            // A body that is dropped half way.
            let answer = client.send_request(get("/large/3000000")).await.unwrap();
            let mut large = answer.into_body();
            assert!(large.frame().await.unwrap().is_ok());
        }
        let answer = client.send_request(get("/")).await.unwrap();
        assert_eq!(body(answer).await, "hello");
        while served.site.answering_count.get() > 0 {
            omniring::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        drop(client);
        served.end(runtime).await;
    });
}

fn a_server_that_breaks_off_is_an_error(runtime: &Runtime) {
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let serving = spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            stream.recv().await.unwrap();
            let part = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
            stream.send_all(part).await.0.unwrap();
        });
        let mut client = http::client::http1(connect(addr).await).await.unwrap();
        let answer = client.send_request(get("/")).await.unwrap();
        let error = answer.into_body().collect().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().downcast_ref::<std::io::Error>();
        assert_eq!(cause.unwrap().kind(), std::io::ErrorKind::UnexpectedEof);
        serving.await.unwrap();
        drop(client);
        settle(runtime).await;
    });
}
