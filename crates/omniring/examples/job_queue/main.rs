//! A job queue over several cores, for clients of beanstalkd: tubes are spread over the cores by name, and each
//! core serves connections of its own.
//!
//! `cargo run --release -p omniring --example job_queue -- --cores 2` listens on 127.0.0.1:11300. Jobs are in
//! memory and go with the program. Commands: put, use, reserve, reserve-with-timeout, delete, release, touch,
//! watch, ignore, stats, stats-tube, list-tubes, list-tube-used, list-tubes-watched, quit.

#[path = "../arguments/mod.rs"]
mod arguments;
mod connection;
mod protocol;
#[path = "../racing/mod.rs"]
mod racing;
mod shard;
#[path = "../stopping/mod.rs"]
#[allow(dead_code, reason = "the proxy needs more of it")]
mod stopping;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use omniring::net::{TcpListener, TcpSocket};
use omniring::time::sleep;
use omniring::{CoreHandle, Engine, Runtime, Sharded, spawn, spawn_on};

use shard::Shard;
use stopping::StopSignals;

/// Keeps jobs until somebody has done them.
#[derive(Parser)]
#[command(name = "job_queue")]
struct Arguments {
    /// Address to listen on; port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:11300")]
    listen: SocketAddr,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Cores to run on, 0 for all there are
    #[arg(long, default_value_t = 1)]
    cores: usize,
    /// The most bytes of a job
    #[arg(long, default_value_t = 65_535, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    job_len_max: u32,
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Before the next accept where there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    arguments::main(run)
}

#[expect(clippy::print_stdout, reason = "it says where it listens")]
fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::builder().engine(arguments.engine).cores(arguments.cores).build()?;
    runtime.block_on(async {
        let signals = StopSignals::new()?;
        let core_count = omniring::core_count();
        let shards = Sharded::new(move |core| Shard::new(core, core_count)).await?;
        for core in 0..core_count {
            drop(spawn_on(core, {
                let shards = shards.clone();
                move || async move {
                    let expiring =
                        shards.with_async(core, |shard| async move { shard.expire().await });
                    expiring.await
                }
            }));
        }
        // With the option each core has a listener of its own at the same port, and the kernel
        // spreads connections over them.
        let choose = |error| format!("{error}; choose another address with --listen");
        let first = listen(arguments.listen).await.map_err(choose)?;
        let local = first.local_addr()?;
        let job_len_max = arguments.job_len_max as usize;
        drop(spawn(serve(first, shards.clone(), job_len_max)));
        for core in 1..core_count {
            let shards = shards.clone();
            let listening: CoreHandle<Result<(), String>> = spawn_on(core, move || async move {
                let listener = listen(local).await.map_err(|error| error.to_string())?;
                drop(spawn(serve(listener, shards, job_len_max)));
                Ok(())
            });
            listening.await??;
        }
        println!("listening on {local} ({})", runtime.engine());
        signals.recv().await;
        let left: usize = shards
            .with_all(|_, shard| shard.job_count())
            .await
            .into_iter()
            .map(|count| count.unwrap_or_default())
            .sum();
        if left > 0 {
            eprintln!("job_queue: stopping; {left} jobs were in memory and go");
        }
        Ok(())
    })
}

async fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_for(addr).await?;
    socket.set_reuse_address(true)?;
    // The first one finds out whether another program has the port: without the option it would not
    // be told, and get a part of its connections.
    if addr.port() != 0 && omniring::core() == 0 {
        drop(TcpListener::bind(addr).await?);
    }
    socket.set_reuse_port(true)?;
    socket.bind(addr).await?;
    socket.listen(BACKLOG).await
}

/// Takes this core's connections for ever.
async fn serve(listener: TcpListener, shards: Sharded<Shard>, job_len_max: usize) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                drop(spawn(connection::serve(stream, shards.clone(), job_len_max)));
            }
            Err(error) => {
                eprintln!("job_queue: no connection taken: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
