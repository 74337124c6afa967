//! Chat over WebSocket: rooms, nicknames, and a page for browsers.
//!
//! `cargo run --release -p omniring-adapters --features futures-io --example chat`, and then a browser at
//! http://127.0.0.1:7090/, or any client of WebSocket at `ws://127.0.0.1:7090/ROOM?name=NAME`.
//!
//! A text message is said in the room; everybody there, who said it too, gets `NAME: text`. Lines that
//! begin with `*` are the server's: who has come, who has gone, who is here. Who reads too slowly, does not
//! answer pings, or sends what is too large or no text, is disconnected, with the reason in the close frame.

#[path = "../../../omniring/examples/arguments/mod.rs"]
mod arguments;
mod door;
mod rooms;
mod session;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use futures_util::future::{Either, select};
use omniring::net::{TcpListener, TcpStream};
use omniring::signal::{Signal, SignalKind};
use omniring::sync::CancellationToken;
use omniring::time::{sleep, timeout};
use omniring::{Engine, Runtime, TaskGroup};

use rooms::Rooms;
use session::Settings;

/// How long the connections may take to end.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(3);

/// Chat over WebSocket, until SIGINT or SIGTERM.
#[derive(Parser)]
#[command(name = "chat")]
struct Arguments {
    /// Address to listen on; port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:7090")]
    listen: SocketAddr,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Connections at once; more are refused
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    connections_max: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    message_len_max: u32,
    /// Messages that may wait for a member; one who reads more slowly is disconnected
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    queue_len: u32,
    /// Milliseconds between pings; a member who says nothing for twice as long is disconnected
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..))]
    ping_time: u32,
    /// Say on stderr which connections have ended, and why
    #[arg(long)]
    verbose: bool,
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
        let mut interrupt = Signal::new(SignalKind::INTERRUPT)?;
        let mut terminate = Signal::new(SignalKind::TERMINATE)?;
        println!("listening on http://{}/", listener.local_addr()?);
        let stop = CancellationToken::new();
        let mut connections = TaskGroup::new();
        {
            let (interrupted, terminated) = (interrupt.recv(), terminate.recv());
            let (interrupted, terminated) = (pin!(interrupted), pin!(terminated));
            let serving = pin!(serve(&listener, arguments, &mut connections, &stop));
            let signal = select(interrupted, terminated);
            if let Either::Right((ended, _)) = select(signal, serving).await {
                ended?;
            }
        }
        drop(listener);
        stop.cancel();
        let ending = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(SHUTDOWN_TIME_MAX, ending).await;
        Ok(())
    })
}

/// Takes connections, each as a task of the group.
async fn serve(
    listener: &TcpListener,
    arguments: &Arguments,
    connections: &mut TaskGroup<()>,
    stop: &CancellationToken,
) -> io::Result<()> {
    let rooms = Rooms::new(arguments.queue_len as usize);
    let settings = Rc::new(Settings {
        message_len_max: arguments.message_len_max as usize,
        ping_time: Duration::from_millis(arguments.ping_time.into()),
        stop: stop.clone(),
    });
    let verbose = arguments.verbose;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Such as too many open files: it may pass.
            Err(error) => {
                eprintln!("chat: cannot accept: {error}");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Those that have ended.
        while let Some(ended) = futures_util::FutureExt::now_or_never(connections.join_next()) {
            if ended.is_none() {
                break;
            }
        }
        let is_full = connections.len() >= arguments.connections_max as usize;
        let (rooms, settings) = (rooms.clone(), settings.clone());
        connections.spawn(async move {
            let ended = if is_full {
                let full = door::answer(&stream, "503 Service Unavailable", "it is full").await;
                full.map(|()| "it is full".to_owned())
            } else {
                attend(stream, &rooms, &settings).await
            };
            match ended {
                Ok(what) if verbose => eprintln!("chat: {peer}: {what}"),
                Err(error) if verbose => eprintln!("chat: {peer}: {error}"),
                _ => {}
            }
        });
    }
}

/// From the request to the end; yields how that came.
async fn attend(stream: TcpStream, rooms: &Rc<Rooms>, settings: &Settings) -> io::Result<String> {
    let opened = settings.stop.run_until_cancelled(door::open(&stream, rooms)).await;
    match opened.transpose()?.flatten() {
        Some(guest) => session::talk(stream, guest, settings).await,
        None => Ok("there was a request".to_owned()),
    }
}
