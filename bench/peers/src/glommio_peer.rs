//! glommio: one executor with its three rings.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Result, anyhow, ensure};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::io::{BufferedFile, DmaFile};
use glommio::net::{TcpListener, TcpStream};
use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement, spawn_local};

use crate::reads::{Meter, ReadJob, Report};
use crate::{ECHO_BUFFER_LEN, RING_ENTRIES, announce};

/// glommio's errors may hold what another thread must not see.
fn failed(error: GlommioError<()>) -> anyhow::Error {
    anyhow!("{error}")
}

fn executor() -> Result<LocalExecutor> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(RING_ENTRIES as usize)
        .make()
        .map_err(failed)
}

/// Echoes on the current thread until killed.
pub fn echo(listen: SocketAddr) -> Result<()> {
    executor()?.run(async {
        let listener = TcpListener::bind(listen).map_err(failed)?;
        announce(listener.local_addr().map_err(failed)?)?;
        loop {
            let stream = listener.accept().await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            spawn_local(serve(stream)).detach();
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

/// A file as glommio opens it; its buffers are its own.
enum Source {
    Direct(DmaFile),
    Cached(BufferedFile),
}

impl Source {
    async fn open(job: &ReadJob) -> Result<Source> {
        if job.direct {
            DmaFile::open(&job.file)
                .await
                .map(Source::Direct)
                .map_err(failed)
        } else {
            BufferedFile::open(&job.file)
                .await
                .map(Source::Cached)
                .map_err(failed)
        }
    }

    async fn read(&self, offset: u64, len: usize) -> Result<usize> {
        let read = match self {
            Source::Direct(file) => file.read_at_aligned(offset, len).await,
            Source::Cached(file) => file.read_at(offset, len).await,
        };
        Ok(read.map_err(failed)?.len())
    }
}

/// Reads into the executor's registered buffers (O_DIRECT) or into buffers that
/// glommio allocates (page cache): its interface takes none of ours.
pub fn random_read(job: &ReadJob) -> Result<Report> {
    executor()?.run(async {
        let source = Rc::new(Source::open(job).await?);
        let meter = Rc::new(Meter::new(job));
        let tasks: Vec<_> = (0..job.depth)
            .map(|task| {
                let mut offsets = job.offsets(task);
                let (source, meter, block_size) = (source.clone(), meter.clone(), job.block_size);
                spawn_local(async move {
                    loop {
                        let len = source.read(offsets.next_offset(), block_size).await?;
                        ensure!(len == block_size, "short read");
                        if !meter.count_op() {
                            return anyhow::Ok(());
                        }
                    }
                })
                .detach()
            })
            .collect();
        for task in tasks {
            task.await
                .ok_or_else(|| anyhow!("a task was cancelled"))??;
        }
        meter.report()
    })
}
