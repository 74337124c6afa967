//! The rivals that omniring is compared with, and the comparison itself.
//!
//! One file per rival, each with the same two programs: a TCP echo server on one
//! core (`echo`) and random reads of a file (`random_read`). `compare` runs them
//! side by side with omniring's examples. `tasks` compares what tasks cost by
//! themselves.

mod aligned;
mod claims;
mod compare;
mod compio_peer;
mod cores;
mod fio;
mod glommio_peer;
mod hello;
mod hyper_peer;
mod load;
mod monoio_peer;
mod process;
mod reads;
mod rusage;
mod statistics;
mod task_work;
mod tasks;
mod tokio_peer;
mod tokio_uring_peer;

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::compare::CompareOptions;
use crate::cores::CoresOptions;
use crate::hello::HelloOptions;
use crate::reads::ReadJob;
use crate::task_work::TaskJob;
use crate::tasks::TasksOptions;

/// Benchmarks of the runtimes that omniring is compared with
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Echo what TCP connections send, on one core, until killed
    Echo {
        #[arg(long)]
        runtime: EchoRuntime,
        /// Address to listen on; port 0 picks a free one
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Random reads; prints `IOPS CPU_US_PER_OP CONTEXT_SWITCHES`
    #[command(name = "random_read")]
    RandomRead {
        #[arg(long)]
        runtime: ReadRuntime,
        #[command(flatten)]
        job: ReadJob,
    },
    /// Run omniring and all rivals side by side and print medians
    Compare(CompareOptions),
    /// Compare hyper on omniring with hyper on tokio, loaded by wrk
    Hello(HelloOptions),
    /// Compare omniring's echo on one core with that on several
    Cores(CoresOptions),
    /// Say hello over HTTP with hyper on tokio, on one core, until killed
    HelloServer {
        /// Address to listen on; port 0 picks a free one
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Speak HTTP/2 (with prior knowledge) instead of HTTP/1
        #[arg(long)]
        http2: bool,
    },
    /// Spawn, wake and arm timers; prints nanoseconds for each, or bytes for each idle task
    Task(TaskJob),
    /// Count the instructions of tasks on omniring and its rivals, and print a table
    Tasks(TasksOptions),
}

#[derive(Clone, Copy, ValueEnum)]
enum EchoRuntime {
    Tokio,
    Monoio,
    Compio,
    Glommio,
}

#[derive(Clone, Copy, ValueEnum)]
enum ReadRuntime {
    Tokio,
    TokioUring,
    TokioUringPlain,
    Monoio,
    Compio,
    Glommio,
}

/// Bytes of a connection's buffer in every echo server.
const ECHO_BUFFER_LEN: usize = 16 * 1024;

/// Submission queue entries of every ring.
const RING_ENTRIES: u32 = 1024;

/// Where a server runs, and where its load.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Tells whoever started the server where it listens.
fn announce(address: SocketAddr) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on {address}")?;
    Ok(stdout.flush()?)
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Echo { runtime, listen } => match runtime {
            EchoRuntime::Tokio => tokio_peer::echo(listen),
            EchoRuntime::Monoio => monoio_peer::echo(listen),
            EchoRuntime::Compio => compio_peer::echo(listen),
            EchoRuntime::Glommio => glommio_peer::echo(listen),
        },
        Command::RandomRead { runtime, job } => {
            job.check()?;
            let report = match runtime {
                ReadRuntime::Tokio => tokio_peer::random_read(&job),
                ReadRuntime::TokioUring => tokio_uring_peer::random_read_fixed(&job),
                ReadRuntime::TokioUringPlain => tokio_uring_peer::random_read_plain(&job),
                ReadRuntime::Monoio => monoio_peer::random_read(&job),
                ReadRuntime::Compio => compio_peer::random_read(&job),
                ReadRuntime::Glommio => glommio_peer::random_read(&job),
            }?;
            println!("{report}");
            Ok(())
        }
        Command::Compare(options) => compare::run(&options),
        Command::Cores(options) => cores::run(&options),
        Command::Hello(options) => hello::run(&options),
        Command::HelloServer { listen, http2 } => hyper_peer::hello(listen, http2),
        Command::Task(job) => {
            println!("{:.2}", task_work::run(&job)?);
            Ok(())
        }
        Command::Tasks(options) => tasks::run(&options),
    }
}
