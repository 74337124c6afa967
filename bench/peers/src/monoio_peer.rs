//! monoio on its io_uring driver.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Result, ensure};
use monoio::buf::IoBufMut;
use monoio::fs::File;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

use crate::aligned::AlignedBuf;
use crate::reads::{Meter, ReadJob, Report};
use crate::{ECHO_BUFFER_LEN, RING_ENTRIES, announce};

/// The ring flags that measured best for it: no interrupts for task work.
fn builder() -> RuntimeBuilder<IoUringDriver> {
    let mut ring = monoio_io_uring::IoUring::builder();
    ring.setup_coop_taskrun().setup_taskrun_flag();
    let builder = RuntimeBuilder::<IoUringDriver>::new();
    builder.uring_builder(ring).with_entries(RING_ENTRIES)
}

fn runtime() -> Result<Runtime<IoUringDriver>> {
    Ok(builder().build()?)
}

/// The same with timers.
pub fn runtime_with_time() -> Result<Runtime<TimeDriver<IoUringDriver>>> {
    Ok(builder().enable_timer().build()?)
}

/// Echoes on the current thread until killed.
pub fn echo(listen: SocketAddr) -> Result<()> {
    runtime()?.block_on(async {
        let listener = TcpListener::bind(listen)?;
        announce(listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(ECHO_BUFFER_LEN);
    loop {
        let (result, back) = stream.read(buffer).await;
        if result? == 0 {
            return Ok(());
        }
        let (result, back) = stream.write_all(back).await;
        result?;
        buffer = back;
    }
}

/// Reads into one owned buffer per task.
pub fn random_read(job: &ReadJob) -> Result<Report> {
    runtime()?.block_on(async {
        let file = Rc::new(File::from_std(job.open()?)?);
        let meter = Rc::new(Meter::new(job));
        let tasks: Vec<_> = (0..job.depth)
            .map(|task| {
                let mut offsets = job.offsets(task);
                let mut buffer = AlignedBuf::new(job.block_size);
                let (file, meter) = (file.clone(), meter.clone());
                monoio::spawn(async move {
                    loop {
                        let (result, back) = file.read_at(buffer, offsets.next_offset()).await;
                        buffer = back;
                        ensure!(result? == buffer.bytes_total(), "short read");
                        if !meter.count_op() {
                            return anyhow::Ok(());
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        meter.report()
    })
}
