//! Writes blocks to a device past the page cache, reads them back and checks each byte.
//!
//! It is what `tests/qemu/run.sh` runs on a device whose interrupts it counts: with `uring-iopoll`
//! there are to be none. Prints one line. What the device holds is lost.
//!
//! `cargo run --release --example polled_read -- /dev/nvme0n1 --engine uring-iopoll`

mod arguments;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use omniring::buf::AlignedBuf;
use omniring::fs::{File, OpenOptions};
use omniring::time::{now, sleep};
use omniring::{Engine, Runtime};

/// Writes to a device and reads back, past the page cache.
#[derive(Parser)]
#[command(name = "polled_read")]
struct Arguments {
    /// Device or file to write to and to read from
    path: PathBuf,
    /// Engine that carries out the I/O
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Sleep for a part of the time before polling
    #[arg(long)]
    hybrid: bool,
    /// Have a thread of the kernel's submit and poll
    #[arg(long)]
    thread: bool,
    /// Blocks of 4096 bytes to write and to read
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..))]
    blocks: u64,
    /// Reads and writes in flight
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    depth: u64,
}

const BLOCK: usize = 4096;

fn main() -> ExitCode {
    arguments::main(|arguments: &Arguments| {
        run(arguments).map_err(|error| format!("{}: {error}", arguments.path.display()))
    })
}

#[expect(clippy::print_stdout, reason = "the result")]
fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder()
        .engine(arguments.engine)
        .hybrid_polling(arguments.hybrid)
        .polling_thread(arguments.thread)
        .build()?;
    runtime.block_on(async {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).direct(true).open(&arguments.path).await?;
        // A timer that goes off again and again shows that polling holds up nothing else.
        let ticks = omniring::spawn(async {
            let (start, mut count) = (now(), 0);
            loop {
                sleep(Duration::from_millis(1)).await;
                count += 1;
                if start.elapsed() > Duration::from_millis(100) {
                    return count;
                }
            }
        });
        let tasks: Vec<_> = (0..arguments.depth)
            .map(|first| {
                let (file, depth, blocks) = (file.clone(), arguments.depth, arguments.blocks);
                omniring::spawn(write_and_read(file, first, depth, blocks))
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        let ticks = ticks.await?;
        let engine = runtime.engine_choice();
        println!("verified {} blocks; {ticks} ticks in 100 ms; {engine}", arguments.blocks);
        Ok(())
    })
}

/// What a block holds.
fn pattern(block: u64) -> impl Iterator<Item = u8> {
    let mut state = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..BLOCK).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
}

async fn write_and_read(
    file: File,
    first: u64,
    depth: u64,
    blocks: u64,
) -> Result<(), std::io::Error> {
    let mut buf = AlignedBuf::new(BLOCK, BLOCK);
    for block in (first..blocks).step_by(depth as usize) {
        buf.iter_mut().zip(pattern(block)).for_each(|(byte, value)| *byte = value);
        let (result, written) = file.write_at(buf, block * BLOCK as u64).await;
        if result? != BLOCK {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        buf = written;
    }
    for block in (first..blocks).step_by(depth as usize) {
        buf.fill(0);
        let (result, read) = file.read_at(buf, block * BLOCK as u64).await;
        if result? != BLOCK {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buf = read;
        if !buf.iter().copied().eq(pattern(block)) {
            return Err(std::io::Error::other(format!("block {block} is not what was written")));
        }
    }
    Ok(())
}
