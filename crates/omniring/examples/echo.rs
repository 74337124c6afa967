//! A TCP echo server on one core or several, and a tool for measuring one.
//!
//! `cargo run --release --example echo -- --listen 127.0.0.1:7000 --engine epoll`

mod arguments;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use omniring::net::{TcpListener, TcpSocket, TcpStream};
use omniring::{Engine, Runtime, spawn_on};

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
    /// Cores to serve on, each with a listener of its own, among which the kernel hands connections
    /// out; 0 is as many as there are CPUs
    #[arg(long, default_value_t = 1)]
    cores: usize,
}

/// Direct descriptors for as many connections.
const DIRECT_DESCRIPTORS: u32 = 4096;

/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 1024;

/// Room for the bytes of one connection.
const BUFFER_LEN: usize = 16 * 1024;

fn main() -> ExitCode {
    arguments::main(run)
}

#[expect(clippy::print_stdout, reason = "it says where it listens")]
fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = if arguments.leased { DIRECT_DESCRIPTORS } else { 0 };
    let builder = Runtime::builder()
        .engine(arguments.engine)
        .direct_descriptors(descriptors)
        .cores(arguments.cores);
    let runtime = builder.build()?;
    let is_leased = arguments.leased;
    runtime.block_on(async {
        let core_count = omniring::core_count();
        let listener = listen(arguments.listen, core_count > 1)
            .await
            .map_err(|error| format!("{error}; choose another address with --listen"))?;
        let addr = listener.local_addr()?;
        let mut others = Vec::new();
        for core in 1..core_count {
            let listener = spawn_on(core, move || async move {
                let listener = listen(addr, true).await?;
                drop(omniring::spawn(accept(listener, is_leased)));
                Ok::<_, io::Error>(())
            });
            others.push(listener);
        }
        for listening in others {
            listening.await??;
        }
        println!("listening on {addr}");
        Ok(accept(listener, is_leased).await?)
    })
}

/// A listener, if it `is_shared` one of several at the address.
async fn listen(addr: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    if !is_shared {
        return TcpListener::bind(addr).await;
    }
    let socket = TcpSocket::new_for(addr).await?;
    socket.set_reuse_port(true)?;
    socket.bind(addr).await?;
    socket.listen(BACKLOG).await
}

/// Serves what comes, on this core.
async fn accept(listener: TcpListener, is_leased: bool) -> io::Result<()> {
    if is_leased {
        let mut incoming = listener.incoming();
        loop {
            drop(omniring::spawn(serve_leased(incoming.next().await?)));
        }
    }
    loop {
        let (stream, _) = listener.accept().await?;
        drop(omniring::spawn(serve(stream)));
    }
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
