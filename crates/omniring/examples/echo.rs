//! A TCP echo server on one core, and a tool for measuring one.
//!
//! `cargo run --release --example echo -- --listen 127.0.0.1:7000 --engine epoll`

mod arguments;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use omniring::net::{TcpListener, TcpStream};
use omniring::{Engine, Runtime};

/// Sends back whatever it receives.
#[derive(Parser)]
#[command(name = "echo")]
struct Arguments {
    /// Address to listen on; port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:7000")]
    listen: SocketAddr,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Receive into memory that the runtime lends, with direct descriptors where there are such
    #[arg(long)]
    leased: bool,
}

/// Direct descriptors for as many connections.
const DIRECT_DESCRIPTORS: u32 = 4096;

/// Room for the bytes of one connection.
const BUFFER_LEN: usize = 16 * 1024;

fn main() -> ExitCode {
    let arguments = arguments::parse::<Arguments>();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "it says where it listens")]
fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = if arguments.leased { DIRECT_DESCRIPTORS } else { 0 };
    let builder = Runtime::builder().engine(arguments.engine).direct_descriptors(descriptors);
    let runtime = builder.build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen)
            .await
            .map_err(|error| format!("{error}; choose another address with --listen"))?;
        println!("listening on {}", listener.local_addr()?);
        if arguments.leased {
            let mut incoming = listener.incoming();
            loop {
                drop(omniring::spawn(serve_leased(incoming.next().await?)));
            }
        }
        loop {
            let (stream, _) = listener.accept().await?;
            drop(omniring::spawn(serve(stream)));
        }
    })
}

async fn serve_leased(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let lease = stream.recv().await?;
        if lease.is_empty() {
            return Ok(());
        }
        stream.send_all(lease).await.0?;
    }
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = Vec::with_capacity(BUFFER_LEN);
    loop {
        let (result, received) = stream.recv_into(buf).await;
        if result? == 0 {
            return Ok(());
        }
        let (result, sent) = stream.send_all(received).await;
        result?;
        buf = sent;
    }
}
