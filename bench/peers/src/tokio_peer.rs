//! tokio: epoll for sockets, its pool of blocking threads for files.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalRuntime};
use tokio::task::{spawn_blocking, spawn_local};

use crate::aligned::AlignedBuf;
use crate::reads::{Meter, ReadJob, Report};
use crate::{ECHO_BUFFER_LEN, announce};

fn runtime() -> Result<LocalRuntime> {
    Ok(Builder::new_current_thread()
        .enable_io()
        .build_local(Default::default())?)
}

/// The same with timers.
pub fn runtime_with_time() -> Result<LocalRuntime> {
    Ok(Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?)
}

/// Echoes on the current thread until killed.
pub fn echo(listen: SocketAddr) -> Result<()> {
    runtime()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        announce(listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            spawn_local(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; ECHO_BUFFER_LEN];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..len]).await?;
    }
}

/// One `pread` per read on the pool of blocking threads, which is what
/// `tokio::fs` does, without its seeks and its copying buffer.
pub fn random_read(job: &ReadJob) -> Result<Report> {
    runtime()?.block_on(async {
        let file = Arc::new(job.open()?);
        let meter = Rc::new(Meter::new(job));
        let tasks: Vec<_> = (0..job.depth)
            .map(|task| {
                let mut offsets = job.offsets(task);
                let mut buffer = AlignedBuf::new(job.block_size).into_slice();
                let (file, meter) = (file.clone(), meter.clone());
                spawn_local(async move {
                    loop {
                        let (file, offset) = (file.clone(), offsets.next_offset());
                        let read = move || {
                            file.read_exact_at(buffer, offset)?;
                            io::Result::Ok(buffer)
                        };
                        buffer = spawn_blocking(read).await??;
                        if !meter.count_op() {
                            return anyhow::Ok(());
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        meter.report()
    })
}
