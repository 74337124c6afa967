//! A proxy for TCP connections, whose bytes never come to user memory, or for UDP datagrams.
//!
//! `cargo run --release -p omniring --example proxy -- example.org:80` passes what connects to 127.0.0.1:7300 on to
//! there; with `--udp` it is datagrams. SIGINT and SIGTERM end it: it takes nothing new; connections have
//! `--grace` seconds to end by themselves, or until the second signal, and sessions of datagrams end at once.

#[path = "../arguments/mod.rs"]
mod arguments;
#[path = "../stopping/mod.rs"]
mod stopping;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use omniring::net::{TcpListener, UdpSocket, lookup_host};
use omniring::{Engine, Runtime};

use stopping::{Open, StopSignals};

/// Passes connections or datagrams on to another address, and the answers back.
#[derive(Parser)]
#[command(name = "proxy")]
struct Arguments {
    /// Where to, as HOST:PORT
    target: String,
    /// Address to listen on; port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:7300")]
    listen: SocketAddr,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Datagrams instead of connections: a session for each address that sends some
    #[arg(long)]
    udp: bool,
    /// Seconds without a byte in either direction after which a connection or session is ended
    #[arg(long, default_value = "300", value_parser = seconds)]
    idle: Duration,
    /// Seconds that connections have to end after SIGINT or SIGTERM
    #[arg(long, default_value = "10", value_parser = seconds)]
    grace: Duration,
    /// The most UDP sessions at once; each takes a descriptor
    #[arg(long, default_value_t = 1000)]
    sessions_max: usize,
    /// Say on stderr which connections or sessions failed, and why
    #[arg(long)]
    verbose: bool,
}

/// A number of seconds, which may have a fraction, up to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it has to be a number of seconds between 0 and 86400".to_owned()),
    }
}

/// What both kinds of proxy have to know.
struct Settings {
    target: String,
    idle: Duration,
    sessions_max: usize,
    verbose: bool,
}

impl Settings {
    /// Something went wrong for one client.
    fn complain(&self, client: SocketAddr, error: impl std::fmt::Display) {
        if self.verbose {
            eprintln!("proxy: {client}: {error}");
        }
    }
}

/// Room for the longest datagram with what the system puts before it, so that none is cut off.
const LEASE_LEN: u32 = 66 * 1024;

fn main() -> ExitCode {
    arguments::main(run)
}

#[expect(clippy::print_stdout, reason = "it says where it listens")]
fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let &Arguments { listen, engine, udp, idle, grace, sessions_max, verbose, .. } = arguments;
    let settings = Settings { target: arguments.target.clone(), idle, sessions_max, verbose };
    let runtime = Runtime::builder().engine(engine).leases(1024, LEASE_LEN).build()?;
    runtime.block_on(async {
        let targets = lookup_host(&settings.target[..]).await?;
        let choose = |error| format!("{error}; choose another address with --listen");
        let (signals, open) = (StopSignals::new()?, Open::default());
        let (local, serving) = if udp {
            let socket = UdpSocket::bind(listen).await.map_err(choose)?;
            let local = socket.local_addr()?;
            (local, omniring::spawn(udp::serve(socket, targets[0], settings)))
        } else {
            let listener = TcpListener::bind(listen).await.map_err(choose)?;
            let local = listener.local_addr()?;
            (local, omniring::spawn(tcp::serve(listener, settings, open.clone())))
        };
        println!("listening on {local} ({})", runtime.engine());
        signals.recv().await;
        serving.abort();
        if open.count() > 0 {
            eprintln!("proxy: stopping; {} open, {grace:?} to end by themselves", open.count());
            open.drained(grace, &signals).await;
        }
        Ok(())
    })
}
