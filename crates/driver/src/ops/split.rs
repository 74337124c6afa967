//! One request carried out in parts, where a device takes no more at a time.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::file::fixed_index;
use super::{LEN_MAX, count};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::Driver;
use crate::future::{OpFuture, Operation};
use crate::handle::SharedHandle;
use crate::op::{Completion, FixedIndex, Op, Position};
use crate::op_set::OpSet;

/// The most parts of one request that are in flight at a time.
const IN_FLIGHT_MAX: usize = 16;

/// How a request is split.
#[derive(Clone, Copy, Debug)]
pub struct SplitLimits {
    /// The most bytes in one op: a multiple of `align`.
    pub part_len: usize,
    /// Offsets and lengths of ops are multiples of this.
    pub align: usize,
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// One op on a part of the buffer.
struct Part<B> {
    handle: SharedHandle,
    direction: Direction,
    /// Every part has a share in the buffer, which is so the last one's to free.
    buf: Rc<B>,
    start: *mut u8,
    len: usize,
    offset: u64,
    fixed: Option<FixedIndex>,
}

// SAFETY: the buffer's memory is where IoBuf or IoBufMut promises, each part uses its own piece of
// it, and shares the ownership of the whole.
unsafe impl<B: Unpin + 'static> Operation for Part<B> {
    type Output = io::Result<usize>;

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        let (handle, len, position) =
            (self.handle.handle(), self.len as u32, Position::At(self.offset));
        let (buf, fixed) = (self.start, self.fixed);
        match self.direction {
            Direction::Read => Op::Read { handle, buf, len, position, fixed },
            Direction::Write => Op::Write { handle, buf, len, position, fixed },
        }
    }

    fn complete(self, completion: Completion) -> io::Result<usize> {
        drop(self.buf);
        count(completion)
    }
}

/// What is to be moved at one place of the set, in bytes from the start of the request.
#[derive(Clone, Copy)]
struct Range {
    /// The op in flight moves these.
    from: usize,
    to: usize,
    /// After that, what is left up to here.
    end: usize,
}

/// The future of [`read_split`] and [`write_split`].
#[must_use = "nothing is submitted before the future is polled"]
pub struct Split<B: Unpin + 'static> {
    handle: SharedHandle,
    direction: Direction,
    limits: SplitLimits,
    buf: Option<Rc<B>>,
    start: *mut u8,
    fixed: Option<FixedIndex>,
    offset: u64,
    /// Bytes that were not handed to an op yet start here.
    next: usize,
    /// The request ends here, or is known to.
    end: usize,
    /// Why it ends there, if that is an error.
    error: Option<io::Error>,
    /// Told how many bytes a read brought.
    fill: fn(&mut B, usize),
    ranges: Vec<Range>,
    set: OpSet<Part<B>>,
}

/// Reads at `offset` in bytes into `buf`, up to its capacity, in parts of which several are in
/// flight together: the bytes read, fewer only at the end. If a part fails, the error comes with the
/// offset of the first piece of `align` bytes that cannot be read; what lies before it was read.
///
/// # Panics
/// If `align` is 0 or `part_len` is no multiple of it.
pub fn read_split<B: IoBufMut>(
    handle: &SharedHandle,
    mut buf: B,
    offset: u64,
    limits: SplitLimits,
) -> Split<B> {
    let (start, len) = (buf.as_mut_ptr(), buf.capacity());
    let fill = |buf: &mut B, count| {
        // SAFETY: the parts wrote so many bytes from the start on, without a gap.
        unsafe { buf.set_filled(count) }
    };
    let memory = (start, len, fixed_index(&buf, handle));
    Split::new(handle, Direction::Read, buf, memory, offset, limits, fill)
}

/// Writes the initialised bytes of `buf` at `offset` in bytes, in parts of which several are in
/// flight together: the bytes written, which are all. If a part fails, the error comes with the
/// offset of the first piece of `align` bytes that cannot be written; what lies before it was
/// written, and some of what lies behind it may have been.
///
/// # Panics
/// If `align` is 0 or `part_len` is no multiple of it.
pub fn write_split<B: IoBuf>(
    handle: &SharedHandle,
    buf: B,
    offset: u64,
    limits: SplitLimits,
) -> Split<B> {
    let (start, len) = (buf.as_ptr().cast_mut(), buf.len());
    let memory = (start, len, fixed_index(&buf, handle));
    Split::new(handle, Direction::Write, buf, memory, offset, limits, |_, _| {})
}

impl<B: Unpin + 'static> Split<B> {
    fn new(
        handle: &SharedHandle,
        direction: Direction,
        buf: B,
        (start, len, fixed): (*mut u8, usize, Option<FixedIndex>),
        offset: u64,
        limits: SplitLimits,
        fill: fn(&mut B, usize),
    ) -> Split<B> {
        let SplitLimits { part_len, align } = limits;
        assert!(align > 0 && part_len > 0 && part_len.is_multiple_of(align), "{limits:?}");
        let limits = SplitLimits { part_len: part_len.min(LEN_MAX / align * align), align };
        let mut split = Split {
            handle: handle.clone(),
            direction,
            limits,
            buf: Some(Rc::new(buf)),
            start,
            fixed,
            offset,
            next: 0,
            end: len,
            error: None,
            fill,
            ranges: Vec::new(),
            set: OpSet::new([]),
        };
        let mut parts = Vec::new();
        while parts.len() < IN_FLIGHT_MAX
            && let Some(range) = split.next_range()
        {
            split.ranges.push(range);
            parts.push(split.part(range));
        }
        split.set = OpSet::new(parts);
        split
    }

    /// What the next op is to move, if there is something left.
    fn next_range(&mut self) -> Option<Range> {
        let from = self.next;
        let to = from.saturating_add(self.limits.part_len).min(self.end);
        // A request of nothing is carried out too: it may fail.
        (from < to || (from == 0 && to == 0 && self.ranges.is_empty())).then(|| {
            self.next = to;
            Range { from, to, end: to }
        })
    }

    fn part(&self, range: Range) -> OpFuture<Part<B>> {
        OpFuture::new(Part {
            handle: self.handle.clone(),
            direction: self.direction,
            buf: self.buf.clone().expect("there until the future is finished"),
            start: self.start.wrapping_add(range.from),
            len: range.to - range.from,
            offset: self.offset.saturating_add(range.from as u64),
            fixed: self.fixed,
        })
    }

    /// Takes in how the op at `place` ended: what is to be done there next, if anything.
    fn settle(&mut self, place: usize, result: io::Result<usize>) -> Option<Range> {
        let Range { from, to, end } = self.ranges[place];
        let len = to - from;
        match result {
            Ok(count) if count >= len => {
                if to < end {
                    return self.within_end(Range { from: to, to: end, end });
                }
                self.next_range()
            }
            Ok(count) => {
                let from = from + count;
                if count > 0 && from.is_multiple_of(self.limits.align) {
                    return self.within_end(Range { from, to, end });
                }
                // The end of the file, of which there may be one in the middle of a sector.
                let error = match self.direction {
                    Direction::Read => None,
                    Direction::Write => Some(io::ErrorKind::WriteZero.into()),
                };
                self.end_at(from, error);
                None
            }
            Err(error) => {
                // Halves, until the piece is found that is to blame.
                let half = (len / 2).next_multiple_of(self.limits.align);
                if half < len && error.raw_os_error() != Some(libc::ECANCELED) {
                    return self.within_end(Range { from, to: from + half, end });
                }
                self.end_at(from, Some(error));
                None
            }
        }
    }

    /// What lies behind the end need not be tried any more.
    fn within_end(&self, range: Range) -> Option<Range> {
        (range.from < self.end).then_some(range)
    }

    /// The request ends at this byte, if it does not end before.
    fn end_at(&mut self, at: usize, error: Option<io::Error>) {
        if at < self.end || (at == self.end && self.error.is_none() && at == 0) {
            self.end = at;
            self.error = error;
        }
    }
}

impl<B: Unpin + 'static> Future for Split<B> {
    type Output = (Result<usize, (u64, io::Error)>, B);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while let Some((place, result)) = std::task::ready!(this.set.poll_next(cx)) {
            if let Some(range) = this.settle(place, result) {
                this.ranges[place] = range;
                let part = this.part(range);
                this.set.put(place, part);
            }
        }
        let buf = this.buf.take().expect("a request's future was polled after it had finished");
        let mut buf = Rc::into_inner(buf).expect("every part gave its share back");
        let result = match this.error.take() {
            Some(error) => Err((this.offset.saturating_add(this.end as u64), error)),
            None => {
                (this.fill)(&mut buf, this.end);
                Ok(this.end)
            }
        };
        Poll::Ready((result, buf))
    }
}

impl<B: Unpin + 'static> fmt::Debug for Split<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Split").field("left_count", &self.set.left_count()).finish_non_exhaustive()
    }
}
