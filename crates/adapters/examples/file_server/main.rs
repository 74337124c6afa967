//! A server of static files over HTTP/1 and HTTP/2, with TLS if it is given a certificate.
//!
//! `cargo run --release -p omniring-adapters --features hyper,rustls --example file_server -- DIRECTORY`
//! serves on 127.0.0.1:8080; with `--cert cert.pem --key key.pem` it is https. `openssl req -x509 -newkey
//! ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost -addext
//! subjectAltName=DNS:localhost -keyout key.pem -out cert.pem` makes both for a trial.

#[path = "../../../omniring/examples/arguments/mod.rs"]
mod arguments;
mod files;
mod range;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Parser;
use hyper::service::service_fn;
use omniring::net::TcpListener;
use omniring::{Engine, Runtime};
use omniring_adapters::http::Server;
use omniring_adapters::tls;

use files::Files;

/// Serves the files of a directory.
#[derive(Parser)]
#[command(name = "file_server")]
struct Arguments {
    /// Directory whose files are served; links that lead out of it are not followed
    directory: PathBuf,
    /// Address to listen on; port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Certificate, followed by those that lead to a root, in PEM form
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM form
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Say on stderr which connections failed, and why
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    arguments::main(run)
}

#[expect(clippy::print_stdout, reason = "it says where it listens")]
fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = match (&arguments.cert, &arguments.key) {
        (Some(cert), Some(key)) => {
            Some(tls::server_config_from_pem(cert, key, &["h2", "http/1.1"])?)
        }
        _ => None,
    };
    let files = Rc::new(Files::of(&arguments.directory)?);
    let service = service_fn(move |request| {
        let files = files.clone();
        async move { files.answer(request).await }
    });
    let mut server = Server::new();
    if arguments.verbose {
        server = server.on_error(|error| eprintln!("file_server: {error}"));
    }
    let runtime = Runtime::builder().engine(arguments.engine).build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen)
            .await
            .map_err(|error| format!("{error}; choose another address with --listen"))?;
        let addr = listener.local_addr()?;
        match config {
            Some(config) => {
                println!("listening on https://{addr}");
                server.serve(&tls::TlsListener::new(listener, config), service).await?;
            }
            None => {
                println!("listening on http://{addr}");
                server.serve(&listener, service).await?;
            }
        }
        Ok(())
    })
}
