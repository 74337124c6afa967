//! Vectored reads and writes that are complete, however often they end early.

use std::io;

use omniring_driver::op::Position;
use omniring_driver::ops;

use super::File;
use crate::buf::{IoBuf, IoBufExt, IoBufMut, Slice};

/// Buffers of a transfer: those it is done with, and those that are left, of the first of which so
/// many bytes are done.
struct Progress<B> {
    done: Vec<B>,
    left: Vec<B>,
    first_done: usize,
    moved: u64,
}

impl<B: IoBuf> Progress<B> {
    fn new(bufs: Vec<B>) -> Progress<B> {
        Progress { done: Vec::with_capacity(bufs.len()), left: bufs, first_done: 0, moved: 0 }
    }

    /// What is left, for the next call; nothing when all is done. `len_of` says how long a buffer
    /// is in the direction of the transfer.
    fn next(&mut self, len_of: impl Fn(&B) -> usize) -> Option<Vec<Slice<B>>> {
        let mut finished_count = 0;
        for buf in &self.left {
            let Some(beyond) = self.first_done.checked_sub(len_of(buf)) else { break };
            self.first_done = beyond;
            finished_count += 1;
        }
        self.done.extend(self.left.drain(..finished_count));
        let first_done = self.first_done;
        let mut starts = std::iter::once(first_done).chain(std::iter::repeat(0));
        let slice = |buf: B| buf.slice(starts.next().expect("it repeats")..);
        let slices: Vec<_> = std::mem::take(&mut self.left).into_iter().map(slice).collect();
        (!slices.is_empty()).then_some(slices)
    }

    fn advance(&mut self, slices: Vec<Slice<B>>, count: usize) {
        self.left = slices.into_iter().map(Slice::into_inner).collect();
        self.first_done += count;
        self.moved += count as u64;
    }

    fn into_bufs(mut self) -> Vec<B> {
        self.done.append(&mut self.left);
        self.done
    }
}

impl File {
    /// Reads at `offset` until all buffers, in order and any number of them, are full to their
    /// capacity. At an early end the error is `UnexpectedEof`.
    ///
    /// If the future is dropped, the buffers are, too.
    pub async fn read_exact_vectored_at<B: IoBufMut>(
        &self,
        bufs: Vec<B>,
        offset: u64,
    ) -> (io::Result<()>, Vec<B>) {
        let mut progress = Progress::new(bufs);
        while let Some(slices) = progress.next(B::capacity) {
            let at = Position::At(offset.saturating_add(progress.moved));
            let (result, slices) = ops::read_vectored(&self.handle, slices, at).await;
            progress.advance(slices, *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), progress.into_bufs()),
                Ok(_) => {}
                Err(error) => return (Err(error), progress.into_bufs()),
            }
        }
        (Ok(()), progress.into_bufs())
    }

    /// Writes all initialised bytes of the buffers, in order and any number of them, at `offset`.
    /// After an error, or if the future is dropped, part of them may have been written.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("omniring-vectored-{}", std::process::id()));
    /// # omniring::Runtime::new()?.block_on(async {
    /// let file = omniring::fs::File::create(&path).await?;
    /// file.write_all_vectored_at(vec!["head", "er, ", "body"], 0).await.0?;
    /// assert_eq!(omniring::fs::read(&path).await?, b"header, body");
    /// # omniring::fs::remove_file(&path).await
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn write_all_vectored_at<B: IoBuf>(
        &self,
        bufs: Vec<B>,
        offset: u64,
    ) -> (io::Result<()>, Vec<B>) {
        let mut progress = Progress::new(bufs);
        while let Some(slices) = progress.next(B::len) {
            let at = Position::At(offset.saturating_add(progress.moved));
            let (result, slices) = ops::write_vectored(&self.handle, slices, at).await;
            progress.advance(slices, *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), progress.into_bufs()),
                Ok(_) => {}
                Err(error) => return (Err(error), progress.into_bufs()),
            }
        }
        (Ok(()), progress.into_bufs())
    }
}
