//! Ops that complete more than once: multishot accepts and receives, and sends without a copy,
//! whose memory is free only at the second completion.
//!
//! Where the engine has no multishot form of an op, the op ends with its first completion, and is
//! started again when the next one is asked for: whoever uses an [`OpStream`] sees no difference.
//! The kernel, too, may end a multishot op at any time.

use std::rc::Rc;
use std::task::{Context, Poll};

use crate::driver::{Driver, Started};
use crate::op::{Completion, Op};
use crate::table::{Key, Orphan};

/// An op that may complete again and again, together with the memory it uses.
///
/// # Safety
/// As for [`Operation`](crate::Operation), from each `prepare` to the last completion of the op.
pub(crate) unsafe trait Multishot: Unpin + 'static {
    /// With so many completions that nobody has taken, the op is told to end.
    const READY_MAX: u32;

    /// The driver that carries the op out.
    fn driver(&self) -> &Rc<Driver>;

    /// The op as plain data. Called each time it is started.
    fn prepare(&mut self) -> Op;

    /// Nobody will take what this completion yields: disposes of it.
    fn discard(&mut self, completion: Completion);
}

/// A multishot operation whose stream was dropped.
struct Abandoned<M> {
    operation: M,
    kept: Vec<Completion>,
}

impl<M: Multishot> Orphan for Abandoned<M> {
    fn keep(&mut self, completion: Completion) {
        self.kept.push(completion);
    }

    fn finish(mut self: Box<Self>, completion: Completion) {
        for kept in std::mem::take(&mut self.kept) {
            self.operation.discard(kept);
        }
        self.operation.discard(completion);
    }
}

/// The completions of a multishot op, which is started when the first is asked for, and again
/// whenever it has ended.
pub(crate) struct OpStream<M: Multishot> {
    /// There until the stream is dropped.
    operation: Option<M>,
    /// The op in flight.
    key: Option<Key>,
    /// It was told to end.
    cancelled: bool,
}

impl<M: Multishot> OpStream<M> {
    pub(crate) fn new(operation: M) -> OpStream<M> {
        OpStream { operation: Some(operation), key: None, cancelled: false }
    }

    pub(crate) fn operation(&mut self) -> &mut M {
        self.operation.as_mut().expect("there until the drop")
    }

    /// Whether the op has been started and its last completion was not taken.
    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.key.is_some()
    }

    /// The next completion. If there is no op in flight this starts one.
    #[inline]
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Completion> {
        let operation = self.operation.as_mut().expect("there until the drop");
        let Some(key) = self.key else {
            let op = operation.prepare();
            self.cancelled = false;
            // SAFETY: INV-BUF: the operation keeps what the op points at (its contract), and it
            // stays here, or in the slot, until the last completion.
            return match unsafe { operation.driver().start_multi(op, cx.waker(), M::READY_MAX) } {
                Started::Done(completion) => Poll::Ready(completion),
                Started::Pending(key) => {
                    self.key = Some(key);
                    Poll::Pending
                }
            };
        };
        match operation.driver().take_next(key, cx.waker()) {
            Some(completion) => {
                if !completion.has_more() {
                    self.key = None;
                }
                Poll::Ready(completion)
            }
            None => Poll::Pending,
        }
    }

    /// Tells the op in flight to end; what it has yielded is still to be taken.
    pub(crate) fn cancel(&mut self) {
        if let Some(key) = self.key
            && !std::mem::replace(&mut self.cancelled, true)
        {
            self.operation().driver().cancel(key);
        }
    }
}

impl<M: Multishot> Drop for OpStream<M> {
    fn drop(&mut self) {
        let (Some(key), Some(operation)) = (self.key.take(), self.operation.take()) else {
            return;
        };
        let driver = operation.driver().clone();
        driver.abandon_multi(key, Box::new(Abandoned { operation, kept: Vec::new() }));
    }
}
