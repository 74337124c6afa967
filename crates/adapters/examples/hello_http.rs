//! "Hello, world!" over HTTP with hyper, on one core, to be measured.
//!
//! `cargo run --release -p omniring-adapters --features hyper --example hello_http -- --engine epoll`,
//! and then `wrk -c 64 http://127.0.0.1:7080/`, or with `--http2`, `h2load -c 64 -m 10 http://127.0.0.1:7080/`.

#[path = "../../omniring/examples/arguments/mod.rs"]
mod arguments;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use omniring::net::TcpListener;
use omniring::{Engine, Runtime};
use omniring_adapters::http::Server;

/// Says hello to every request.
#[derive(Parser)]
#[command(name = "hello_http")]
struct Arguments {
    /// Address to listen on; port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:7080")]
    listen: SocketAddr,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Speak HTTP/2 (with prior knowledge) instead of HTTP/1
    #[arg(long)]
    http2: bool,
}

fn main() -> ExitCode {
    arguments::main(run)
}

#[expect(clippy::print_stdout, reason = "it says where it listens")]
fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::builder().engine(arguments.engine).build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen)
            .await
            .map_err(|error| format!("{error}; choose another address with --listen"))?;
        println!("listening on {} ({})", listener.local_addr()?, runtime.engine());
        let hello = service_fn(async |_| {
            let mut response = Response::new(Full::new(Bytes::from_static(b"Hello, world!")));
            let text = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(CONTENT_TYPE, text);
            Ok::<_, Infallible>(response)
        });
        let server = match arguments.http2 {
            false => Server::new().http1_only(),
            true => Server::new().http2_only(),
        };
        Ok(server.serve(&listener, hello).await?)
    })
}
