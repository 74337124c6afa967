//! Reads without a read: copies out of a mapping of the file, which is what the
//! page cache is at its nearest.
//!
//! A copy into a buffer, so that the op delivers what a read delivers. There is
//! nothing to be in flight: the depth of the row means nothing here, and where a
//! page is not in memory the whole thread waits for it.

use std::fs::File;
use std::io;
use std::time::Duration;

use memmap2::{Advice, Mmap};

use super::Page;
use crate::clock;
use crate::measure::Latency;
use crate::subject::{SetupError, Spec, Subject};
use crate::workload::{ALIGNMENT, Shape, Source};

struct MappingSubject {
    mapping: Mmap,
    buffers: Vec<Vec<Page>>,
    random: fastrand::Rng,
    block: usize,
    blocks: u64,
}

/// Sets a row up that reads from the page cache.
pub fn set_up(spec: &Spec) -> Result<Box<dyn Subject>, SetupError> {
    let Shape::Read { source: Source::PageCache, block, depth } = spec.workload.shape else {
        return Err(SetupError::Refused("a mapping reads from the page cache only".to_owned()));
    };
    let file = File::open(spec.file_path()?)?;
    // SAFETY: the file is the bench's own, or one that is only ever read while the
    // bench runs; were it cut short meanwhile, the subject would die of SIGBUS,
    // which ends this row alone.
    let mapping = unsafe { Mmap::map(&file) }?;
    mapping.advise(Advice::Random)?;
    let blocks = spec.span / block as u64;
    if (mapping.len() as u64) < blocks * block as u64 {
        return Err(SetupError::Failed("the file is shorter than what is to be read".to_owned()));
    }
    // As many as the other rows have, so that the cache of the processor is as full.
    let buffers = vec![vec![Page([0; ALIGNMENT]); block.div_ceil(ALIGNMENT)]; depth];
    let random = fastrand::Rng::with_seed(1);
    Ok(Box::new(MappingSubject { mapping, buffers, random, block, blocks }))
}

impl Subject for MappingSubject {
    fn run(&mut self, length: Duration, latency: &mut Latency) -> io::Result<u64> {
        let mut start = clock::now();
        let deadline = start + length;
        let mut ops = 0;
        loop {
            for buffer in &mut self.buffers {
                let offset = self.random.u64(0..self.blocks) as usize * self.block;
                let from = &self.mapping[offset..offset + self.block];
                for (page, part) in buffer.iter_mut().zip(from.chunks(ALIGNMENT)) {
                    page.0[..part.len()].copy_from_slice(part);
                }
                std::hint::black_box(buffer);
                let now = clock::now();
                latency.record(now - start);
                start = now;
                ops += 1;
            }
            if start >= deadline {
                return Ok(ops);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    fn spec(workload: &str, file: std::path::PathBuf) -> Spec {
        Spec {
            engine: crate::subject::MAPPING.to_owned(),
            workload: Workload::named(workload).unwrap(),
            file: Some(file),
            span: 1 << 20,
            core: None,
        }
    }

    #[test]
    fn copies_are_counted_and_a_short_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        for workload in ["read-hot-1k-d32", "read-hot-4k-d32"] {
            let mut subject = set_up(&spec(workload, path.clone())).unwrap();
            let mut latency = Latency::new();
            let ops = subject.run(Duration::from_millis(10), &mut latency).unwrap();
            assert!(ops >= 32 && latency.count() == ops);
        }
        std::fs::write(&path, vec![7; 1 << 19]).unwrap();
        assert!(set_up(&spec("read-hot-4k-d32", path)).is_err());
    }
}
