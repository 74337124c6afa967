//! tokio-uring: io_uring below a tokio runtime, for files.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use tokio_uring::buf::fixed::FixedBufRegistry;
use tokio_uring::fs::File;

use crate::RING_ENTRIES;
use crate::aligned::AlignedBuf;
use crate::reads::{Meter, ReadJob, Report};

/// Runs `reads` on the runtime, set up as cheaply as it can be.
fn run(reads: impl Future<Output = Result<Report>>) -> Result<Report> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun().setup_taskrun_flag();
    tokio_uring::builder()
        .uring_builder(&ring)
        .entries(RING_ENTRIES)
        .start(reads)
}

/// Reads into registered buffers, one per task.
pub fn random_read_fixed(job: &ReadJob) -> Result<Report> {
    run(async {
        let registry =
            FixedBufRegistry::new((0..job.depth).map(|_| AlignedBuf::new(job.block_size)));
        registry.register()?;
        let file = Rc::new(File::from_std(job.open()?));
        let meter = Rc::new(Meter::new(job));
        let mut tasks = Vec::new();
        for task in 0..job.depth {
            let mut offsets = job.offsets(task);
            let mut buffer = registry
                .check_out(task)
                .context("a registered buffer is missing")?;
            let (file, meter, block_size) = (file.clone(), meter.clone(), job.block_size);
            tasks.push(tokio_uring::spawn(async move {
                loop {
                    let (result, back) = file.read_fixed_at(buffer, offsets.next_offset()).await;
                    ensure!(result? == block_size, "short read");
                    buffer = back;
                    if !meter.count_op() {
                        return anyhow::Ok(());
                    }
                }
            }));
        }
        for task in tasks {
            task.await??;
        }
        meter.report()
    })
}

/// Reads into owned buffers, one per task.
pub fn random_read_plain(job: &ReadJob) -> Result<Report> {
    run(async {
        let file = Rc::new(File::from_std(job.open()?));
        let meter = Rc::new(Meter::new(job));
        let mut tasks = Vec::new();
        for task in 0..job.depth {
            let mut offsets = job.offsets(task);
            let mut buffer = AlignedBuf::new(job.block_size);
            let (file, meter, block_size) = (file.clone(), meter.clone(), job.block_size);
            tasks.push(tokio_uring::spawn(async move {
                loop {
                    let (result, back) = file.read_at(buffer, offsets.next_offset()).await;
                    ensure!(result? == block_size, "short read");
                    buffer = back;
                    if !meter.count_op() {
                        return anyhow::Ok(());
                    }
                }
            }));
        }
        for task in tasks {
            task.await??;
        }
        meter.report()
    })
}
