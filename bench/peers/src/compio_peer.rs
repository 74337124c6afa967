//! compio on its io_uring driver.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Result, anyhow, ensure};
use compio::driver::ProactorBuilder;
use compio::fs::{File, OpenOptions};
use compio::io::{AsyncRead, AsyncReadAt, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::{Runtime, RuntimeBuilder, spawn};

use crate::aligned::AlignedBuf;
use crate::reads::{Meter, ReadJob, Report};
use crate::{ECHO_BUFFER_LEN, RING_ENTRIES, announce};

/// With the ring flags that compio's documentation advises for most uses.
pub fn runtime() -> Result<Runtime> {
    let mut proactor = ProactorBuilder::new();
    proactor
        .capacity(RING_ENTRIES)
        .coop_taskrun(true)
        .taskrun_flag(true);
    let runtime = RuntimeBuilder::new().with_proactor(proactor).build()?;
    ensure!(
        runtime.driver_type().is_iouring(),
        "compio did not choose io_uring"
    );
    Ok(runtime)
}

/// Echoes on the current thread until killed.
pub fn echo(listen: SocketAddr) -> Result<()> {
    runtime()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        announce(listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            spawn(serve(stream)).detach();
        }
    })
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(ECHO_BUFFER_LEN);
    loop {
        let (len, back) = stream.read(buffer).await.into();
        if len? == 0 {
            return Ok(());
        }
        let (result, back) = stream.write_all(back).await.into();
        result?;
        buffer = back;
    }
}

async fn open(job: &ReadJob) -> io::Result<File> {
    let flags = if job.direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(&job.file)
        .await
}

/// Reads into one owned buffer per task.
pub fn random_read(job: &ReadJob) -> Result<Report> {
    runtime()?.block_on(async {
        let file = Rc::new(open(job).await?);
        let meter = Rc::new(Meter::new(job));
        let tasks: Vec<_> = (0..job.depth)
            .map(|task| {
                let mut offsets = job.offsets(task);
                let mut buffer = AlignedBuf::new(job.block_size).into_slice();
                let (file, meter) = (file.clone(), meter.clone());
                spawn(async move {
                    loop {
                        let offset = offsets.next_offset();
                        let (result, back) = file.read_at(buffer, offset).await.into();
                        buffer = back;
                        ensure!(result? == buffer.len(), "short read");
                        if !meter.count_op() {
                            return anyhow::Ok(());
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.map_err(|_| anyhow!("a task panicked"))??;
        }
        meter.report()
    })
}
