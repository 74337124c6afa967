//! tokio with hyper: an HTTP server that says hello, with the settings that omniring's has.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::{announce, tokio_peer};

/// Says hello on the current thread until killed, over HTTP/1, or HTTP/2 with prior knowledge.
pub fn hello(listen: SocketAddr, http2: bool) -> Result<()> {
    tokio_peer::runtime_with_time()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        announce(listener.local_addr()?)?;
        let mut server = match http2 {
            false => auto::Builder::new(TokioExecutor::new()).http1_only(),
            true => auto::Builder::new(TokioExecutor::new()).http2_only(),
        };
        server.http1().timer(TokioTimer::new());
        server.http2().timer(TokioTimer::new());
        let hello = service_fn(async |_| {
            let mut response = Response::new(Full::new(Bytes::from_static(b"Hello, world!")));
            let text = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(CONTENT_TYPE, text);
            Ok::<_, Infallible>(response)
        });
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let server = server.clone();
            spawn_local(async move {
                // A client that goes away early is none of the server's failures.
                let _ = server.serve_connection(TokioIo::new(stream), hello).await;
            });
        }
    })
}
