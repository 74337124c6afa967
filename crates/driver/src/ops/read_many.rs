//! Many reads of one file, submitted together.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use libc::iovec;

use super::direct::{Transfer, explain};
use super::file::{IOV_MAX, filled, fixed_index, iovec_mut};
use super::{LEN_MAX, count, op_len};
use crate::buf::IoBufMut;
use crate::driver::Driver;
use crate::future::{OpFuture, Operation};
use crate::handle::SharedHandle;
use crate::op::{Completion, Op, Position};
use crate::op_set::OpSet;

/// A request of the user's.
struct Request<B> {
    /// Its place in the order they were given.
    index: usize,
    offset: u64,
    buf: B,
}

/// What one op reads.
enum Run<B> {
    One(Request<B>),
    /// Neighbours, in order, at least one.
    Several(VecDeque<Request<B>>),
}

/// One op of a [`ReadMany`].
struct ReadRun<B> {
    handle: SharedHandle,
    run: Run<B>,
    /// Whether of several only the first is to be read.
    alone: bool,
    iov: Vec<iovec>,
}

// SAFETY: the buffers' memory is where IoBufMut promises, the iovecs are on the heap, and the
// operation owns both.
unsafe impl<B: IoBufMut> Operation for ReadRun<B> {
    type Output = (io::Result<usize>, Self);

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        match &mut self.run {
            Run::Several(requests) if !self.alone => {
                self.iov = requests.iter_mut().map(|request| iovec_mut(&mut request.buf)).collect();
                Op::ReadVectored {
                    handle: self.handle.handle(),
                    iov: self.iov.as_ptr(),
                    count: self.iov.len() as u32,
                    position: Position::At(requests[0].offset),
                }
            }
            Run::One(request) => request.read(&self.handle),
            Run::Several(requests) => requests[0].read(&self.handle),
        }
    }

    fn complete(mut self, completion: Completion) -> Self::Output {
        let result = count(completion).map_err(|error| {
            let request = match &mut self.run {
                Run::One(request) => request,
                Run::Several(requests) => &mut requests[0],
            };
            // What is wrong with several shows when each is read by itself.
            let iov = [iovec_mut(&mut request.buf)];
            explain(error, Transfer::Read, &self.handle, Position::At(request.offset), &iov)
        });
        (result, self)
    }
}

impl<B: IoBufMut> Request<B> {
    fn read(&mut self, handle: &SharedHandle) -> Op {
        Op::Read {
            handle: handle.handle(),
            buf: self.buf.as_mut_ptr(),
            len: op_len(self.buf.capacity()),
            position: Position::At(self.offset),
            fixed: fixed_index(&self.buf, handle),
        }
    }
}

/// Reads of one file that are submitted together and yield their results as they finish: see
/// [`read_many`].
///
/// Nothing is submitted before [`next`](ReadMany::next) or [`collect`](ReadMany::collect) is first
/// polled; then everything is, at once. Dropping it cancels what is left, and each buffer goes when
/// the kernel is done with it.
pub struct ReadMany<B: IoBufMut> {
    handle: SharedHandle,
    /// Until they are submitted.
    requests: Vec<Request<B>>,
    merged_len_max: usize,
    set: OpSet<ReadRun<B>>,
    /// Finished and not yet yielded.
    done: VecDeque<Done<B>>,
    left_count: usize,
    cancelled: bool,
}

/// The index of a request, its result and its buffer.
type Done<B> = (usize, io::Result<usize>, B);

/// Reads for each offset in bytes into its buffer, up to its capacity: the bytes read, 0 at the end
/// of the file. All reads are submitted together and yield their results as they finish.
pub fn read_many<B: IoBufMut>(
    handle: &SharedHandle,
    requests: impl IntoIterator<Item = (u64, B)>,
) -> ReadMany<B> {
    let requests: Vec<_> = requests
        .into_iter()
        .enumerate()
        .map(|(index, (offset, buf))| Request { index, offset, buf })
        .collect();
    ReadMany {
        handle: handle.clone(),
        merged_len_max: 0,
        set: OpSet::new([]),
        done: VecDeque::new(),
        left_count: requests.len(),
        cancelled: false,
        requests,
    }
}

impl<B: IoBufMut> ReadMany<B> {
    /// Reads neighbours, each of which starts where the one before it ends, with one call, as long
    /// as that call reads no more than `len_max` bytes (and 1,024 requests). Requests that overlap
    /// or leave a gap are not merged, and the order they are given in does not matter.
    ///
    /// The results are those of separate reads: after a merged read that fails or ends early, what
    /// it did not get is read again.
    ///
    /// # Panics
    /// If the reads were submitted already.
    pub fn merge_neighbours(mut self, len_max: usize) -> ReadMany<B> {
        assert!(self.requests.len() == self.left_count, "the reads were submitted already");
        self.merged_len_max = len_max.min(LEN_MAX);
        self
    }

    /// How many requests have not yielded their result.
    pub fn left_count(&self) -> usize {
        self.left_count
    }

    /// The next request that has finished: its place in the order they were given, the bytes read,
    /// and its buffer. `None` when there is none left. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<(usize, io::Result<usize>, B)> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](ReadMany::next), for futures that are written by hand.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(usize, io::Result<usize>, B)>> {
        if !self.requests.is_empty() {
            self.make_runs();
        }
        loop {
            if let Some(done) = self.done.pop_front() {
                self.left_count -= 1;
                return Poll::Ready(Some(done));
            }
            match self.set.poll_next(cx) {
                Poll::Ready(Some((place, (result, run)))) => self.settle(place, result, run),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Waits for all that are left, and yields their results and buffers in the order the requests
    /// were given.
    pub async fn collect(mut self) -> Vec<(io::Result<usize>, B)> {
        let mut all = Vec::with_capacity(self.left_count);
        while let Some(done) = self.next().await {
            all.push(done);
        }
        all.sort_unstable_by_key(|&(index, ..)| index);
        all.into_iter().map(|(_, result, buf)| (result, buf)).collect()
    }

    /// Asks for what is left to end early: those requests yield `ECANCELED`, or their own result if
    /// they were faster. What was not submitted yet never is.
    pub fn cancel(&mut self) {
        self.cancelled = true;
        if self.requests.is_empty() {
            self.set.cancel();
        }
        self.done.extend(self.requests.drain(..).map(cancelled));
    }

    /// Groups the requests into ops.
    fn make_runs(&mut self) {
        let requests = &mut self.requests;
        if self.merged_len_max > 0 {
            requests.sort_by_key(|request| request.offset);
        }
        let mut runs: Vec<Run<B>> = Vec::with_capacity(requests.len());
        // Of the last run: where it ends, and its length.
        let (mut end, mut len) = (None, 0usize);
        for request in requests.drain(..) {
            let request_len = request.buf.capacity();
            let request_end = if request_len == 0 {
                None
            } else {
                request.offset.checked_add(request_len as u64)
            };
            len = len.saturating_add(request_len);
            let is_neighbour = end == Some(request.offset) && request_end.is_some();
            match runs.last_mut() {
                Some(run) if is_neighbour && len <= self.merged_len_max && run.has_room() => {
                    run.push(request);
                }
                _ => {
                    runs.push(Run::One(request));
                    len = request_len;
                }
            }
            end = request_end;
        }
        let handle = &self.handle;
        self.set = OpSet::new(runs.into_iter().map(|run| ReadRun::new(handle, run, false)));
    }

    /// Takes in how an op ended: its requests are done, or have to be read again.
    fn settle(&mut self, place: usize, result: io::Result<usize>, op: ReadRun<B>) {
        let (mut requests, alone) = match op.run {
            Run::One(request) => return self.done.push_back(request.finish(result)),
            Run::Several(requests) => (requests, op.alone),
        };
        let alone = match result {
            result if alone => {
                self.done.extend(requests.pop_front().map(|request| request.finish(result)));
                true
            }
            Ok(0) => {
                // The end lies before the first of them.
                self.done.extend(requests.drain(..).map(|request| request.finish(Ok(0))));
                false
            }
            Ok(mut left) => {
                while left > 0
                    && let Some(request) = requests.pop_front()
                {
                    let len = request.buf.capacity().min(left);
                    left -= len;
                    self.done.push_back(request.finish(Ok(len)));
                }
                // What is behind a short read may be the end of the file or an error: to be asked.
                false
            }
            // Which of them is to blame shows when each is read by itself.
            Err(_) => true,
        };
        if self.cancelled {
            self.done.extend(requests.drain(..).map(cancelled));
        }
        if !requests.is_empty() {
            let run = Run::Several(requests);
            self.set.put(place, ReadRun::new(&self.handle, run, alone));
        }
    }
}

impl<B> Run<B> {
    fn has_room(&self) -> bool {
        !matches!(self, Run::Several(requests) if requests.len() == IOV_MAX)
    }

    fn push(&mut self, request: Request<B>) {
        match self {
            Run::Several(requests) => requests.push_back(request),
            Run::One(_) => {
                let one = std::mem::replace(self, Run::Several(VecDeque::new()));
                let (Run::One(first), Run::Several(requests)) = (one, self) else {
                    unreachable!("just matched and replaced")
                };
                requests.extend([first, request]);
            }
        }
    }
}

impl<B: IoBufMut> ReadRun<B> {
    fn new(handle: &SharedHandle, run: Run<B>, alone: bool) -> OpFuture<ReadRun<B>> {
        OpFuture::new(ReadRun { handle: handle.clone(), run, alone, iov: Vec::new() })
    }
}

impl<B: IoBufMut> Request<B> {
    fn finish(self, result: io::Result<usize>) -> Done<B> {
        let (result, buf) = filled(result, self.buf);
        (self.index, result, buf)
    }
}

fn cancelled<B>(request: Request<B>) -> Done<B> {
    (request.index, Err(io::Error::from_raw_os_error(libc::ECANCELED)), request.buf)
}

impl<B: IoBufMut> fmt::Debug for ReadMany<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadMany").field("left_count", &self.left_count).finish_non_exhaustive()
    }
}
