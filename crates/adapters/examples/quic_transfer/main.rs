//! Files over QUIC: a server of a directory, and a client that sends to it and gets from it.
//!
//! ```sh
//! alias transfer='cargo run --release -p omniring-adapters --features quinn,rustls --example quic_transfer --'
//! transfer serve DIRECTORY      # says where it listens, and its certificate's fingerprint
//! transfer send 127.0.0.1:4433 FILE DIRECTORY --fingerprint sha256:...
//! transfer get 127.0.0.1:4433 NAME --into DIRECTORY --fingerprint sha256:...
//! ```
//!
//! Files go on streams of one connection, some at once. One that was cut off goes on where it ended, one
//! that is there already is not sent again, and one takes the place of an older one only when all of it has
//! come and its SHA-256 is right. Modes, times, links and empty directories are not kept. The protocol is
//! described in `protocol.rs`.
//!
//! The client knows the server by its certificate; the server knows nobody: whoever reaches it may read
//! and, without `--read-only`, write what is in its directory.

#[path = "../../../omniring/examples/arguments/mod.rs"]
mod arguments;
mod body;
mod client;
mod progress;
mod protocol;
mod serve;
mod tree;
mod trust;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use clap::{Args, Parser, Subcommand};
use omniring::signal::{Signal, SignalKind};
use omniring::{Engine, Runtime};
use omniring_adapters::quic;

use client::Session;
use serve::Service;
use tree::Tree;
use trust::Fingerprint;

/// Transfers files over QUIC.
#[derive(Parser)]
#[command(name = "quic_transfer")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Take files into a directory, and give those that are in it, until SIGINT or SIGTERM
    Serve(Server),
    /// Send files, and directories with what is in them
    Send {
        #[command(flatten)]
        client: Client,
        /// What to send; it arrives under its last name
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Get files, and directories with what is in them
    Get {
        #[command(flatten)]
        client: Client,
        /// Paths within the server's directory; '.' is all of it
        #[arg(required = true)]
        names: Vec<String>,
        /// Directory to put them in, under their paths
        #[arg(long, default_value = ".")]
        into: PathBuf,
    },
}

#[derive(Args)]
struct Server {
    /// Directory of the files; nothing outside of it is read or written
    directory: PathBuf,
    /// Address to listen on (UDP); port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:4433")]
    listen: SocketAddr,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Certificate, followed by those that lead to a root, in PEM form; without it one for 'localhost' is
    /// made at each start
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM form
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Take no files
    #[arg(long)]
    read_only: bool,
    /// Say on stderr what is done, and what failed and why
    #[arg(long)]
    verbose: bool,
}

#[derive(Args)]
struct Client {
    /// HOST:PORT of the server
    server: String,
    /// The server's certificate is the one with this fingerprint, as it says when it starts
    #[arg(long, required_unless_present = "ca", conflicts_with = "ca")]
    fingerprint: Option<Fingerprint>,
    /// The server's certificate is for its name and issued by one of those in this file, in PEM form
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The name that the certificate has to be for, if it is not HOST
    #[arg(long)]
    name: Option<String>,
    /// Files that are on their way at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    parallel: u16,
    /// Seconds without an answer after which the server is given up
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    timeout: u16,
    /// Show no progress; it is shown on terminals only
    #[arg(long)]
    quiet: bool,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
}

fn main() -> ExitCode {
    arguments::main(|arguments: &Arguments| {
        run(&arguments.action).map(|failed| ExitCode::from(u8::from(failed > 0)))
    })
}

/// How many files failed.
fn run(action: &Action) -> Result<usize, Box<dyn Error>> {
    match action {
        Action::Serve(server) => {
            let runtime = Runtime::builder().engine(server.engine).build()?;
            runtime.block_on(serve(server))
        }
        Action::Send { client, .. } | Action::Get { client, .. } => {
            let runtime = Runtime::builder().engine(client.engine).build()?;
            runtime.block_on(transfer(action, client))
        }
    }
}

#[expect(clippy::print_stdout, reason = "it says where it listens")]
async fn serve(server: &Server) -> Result<usize, Box<dyn Error>> {
    let tree = Tree::of(&server.directory)?;
    let files = server.cert.as_deref().zip(server.key.as_deref());
    let (config, fingerprint) = trust::server_config(files)?;
    let endpoint = quic::server(config, server.listen)
        .map_err(|error| format!("{error}; choose another address with --listen"))?;
    let mut interrupt = Signal::new(SignalKind::INTERRUPT)?;
    let mut terminate = Signal::new(SignalKind::TERMINATE)?;
    println!("listening on {}", endpoint.local_addr()?);
    println!("fingerprint {fingerprint}");
    let stop = async move {
        let signals = (std::pin::pin!(interrupt.recv()), std::pin::pin!(terminate.recv()));
        futures_util::future::select(signals.0, signals.1).await;
    };
    let service = Service { tree, read_only: server.read_only, verbose: server.verbose };
    serve::serve(&endpoint, service, stop).await;
    Ok(0)
}

#[expect(clippy::print_stdout, reason = "it says what it did")]
async fn transfer(action: &Action, client: &Client) -> Result<usize, Box<dyn Error>> {
    let session = Rc::new(Session::connect(client).await?);
    let outcome = match action {
        Action::Send { paths, .. } => session.send(paths, client).await,
        Action::Get { names, into, .. } => session.get(names, into, client).await,
        Action::Serve(_) => unreachable!("it is no client"),
    };
    if let Some(session) = Rc::into_inner(session) {
        session.end().await;
    }
    let outcome = outcome?;
    println!("{}", outcome.summary);
    Ok(outcome.failed)
}
