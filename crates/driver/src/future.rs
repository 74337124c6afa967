//! The future of one op: it submits on first poll, and takes the result when it is there.
//!
//! An [`Operation`] owns what the op points at. It lives in the future while that exists and moves
//! to the op's slot when the future is dropped early (INV-BUF, INV-ORPHAN).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::driver::{Driver, Started};
use crate::op::{Completion, Op};
use crate::table::{Key, Orphan};

/// An op together with the memory it uses.
///
/// # Safety
/// The pointers in the op that `prepare` returns stay valid until the operation is dropped or
/// completed, even if it is moved meanwhile, and nobody else uses what they point at.
pub unsafe trait Operation: Unpin + 'static {
    /// What the user gets: the result, and the buffer back.
    type Output;

    /// Whether the op is carried out again where it was interrupted (`EINTR`) by what was not meant for
    /// it, as the calls of the other engines are: it has done nothing by then. Only a close has.
    const REPEATS: bool = true;

    /// The driver that carries the op out.
    fn driver(&self) -> &Rc<Driver>;

    /// Asked before the op is submitted: whether its result is there already, without the engine.
    /// A socket whose data was received in advance has such results.
    #[inline]
    fn before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Completion>> {
        let _ = cx;
        Poll::Ready(None)
    }

    /// The op as plain data. Called again if the op has to be carried out again, after it has ended:
    /// see [`Operation::REPEATS`].
    fn prepare(&mut self) -> Op;

    /// Makes the output of a completion.
    fn complete(self, completion: Completion) -> Self::Output;

    /// Makes the output of an op that was cancelled because its time limit had passed: see
    /// [`OpFuture::with_timeout`].
    fn complete_late(self) -> Self::Output
    where
        Self: Sized,
    {
        self.complete(Completion::error(libc::ETIMEDOUT))
    }

    /// Nobody waits any more: disposes of what the completion yields, such as an open descriptor.
    fn discard(self, completion: Completion)
    where
        Self: Sized,
    {
        let _ = completion;
    }
}

/// An operation whose future was dropped.
struct Abandoned<O>(O);

impl<O: Operation> Orphan for Abandoned<O> {
    fn keep(&mut self, _completion: Completion) {
        debug_assert!(false, "these ops complete once");
    }

    fn finish(self: Box<Self>, completion: Completion) {
        self.0.discard(completion);
    }
}

#[derive(Clone, Copy)]
enum Stage {
    /// Not submitted.
    Idle,
    /// Cancelled before it was submitted, which it never will be.
    Cancelled,
    /// Submitted; the operation's memory is in use.
    InFlight(Key),
    /// The output was handed out.
    Finished,
}

/// The future of one op.
///
/// The op is submitted when the future is first polled. Dropping the future cancels the op: an op
/// that was faster has happened all the same, and what it yielded is disposed of.
#[must_use = "an op is submitted when its future is polled"]
pub struct OpFuture<O: Operation> {
    /// There until the future is finished.
    operation: Option<O>,
    stage: Stage,
    /// In flight, and told to end early.
    is_cancelled: bool,
}

impl<O: Operation> OpFuture<O> {
    /// The future of `operation`.
    #[inline]
    pub fn new(operation: O) -> OpFuture<O> {
        OpFuture { operation: Some(operation), stage: Stage::Idle, is_cancelled: false }
    }

    /// The operation, until the future has finished.
    pub(crate) fn operation(&mut self) -> Option<&mut O> {
        self.operation.as_mut()
    }

    /// As a poll by somebody who goes on without the op: one in flight that ends with exactly this
    /// result (of a send: that many bytes) wakes nobody. Whatever else it ends with wakes. The next
    /// poll waits for it as usual.
    #[inline]
    pub fn poll_quietly(&mut self, cx: &mut Context<'_>, expected: i32) -> Poll<O::Output> {
        let (Stage::InFlight(key), Some(operation)) = (self.stage, &self.operation) else {
            return Pin::new(self).poll(cx);
        };
        let taken = operation.driver().take_quietly(key, cx.waker(), expected);
        let Some(completion) = taken else { return Poll::Pending };
        self.stage = Stage::Finished;
        if completion.result < 0 {
            return self.poll_failed(completion, cx);
        }
        Poll::Ready(self.finish(completion))
    }

    /// Asks for the op to end early. The future then yields `ECANCELED` and the buffer, or the
    /// op's own result if it was faster; an op that was not submitted yet never is.
    pub fn cancel(&mut self) {
        match (self.stage, &self.operation) {
            (Stage::Idle, _) => self.stage = Stage::Cancelled,
            (Stage::InFlight(key), Some(operation)) => {
                self.is_cancelled = true;
                operation.driver().cancel(key);
            }
            _ => {}
        }
    }
}

impl<O: Operation> Future for OpFuture<O> {
    type Output = O::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O::Output> {
        match self.poll_completion(cx) {
            Poll::Ready(completion) if completion.result < 0 => self.poll_failed(completion, cx),
            Poll::Ready(completion) => Poll::Ready(self.finish(completion)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The parts of a poll, for futures that look at the completion before they make the output.
impl<O: Operation> OpFuture<O> {
    /// The rest of a poll that has found the op failed, out of the way: the fast path is then the
    /// shorter by all that an operation does about errors.
    #[cold]
    #[inline(never)]
    fn poll_failed(&mut self, mut completion: Completion, cx: &mut Context<'_>) -> Poll<O::Output> {
        while self.goes_again(completion) {
            completion = std::task::ready!(self.poll_completion(cx));
        }
        Poll::Ready(self.finish(completion))
    }

    /// Whether the op has to be carried out again, since something interrupted it that was not meant
    /// for it. If so, it is as it was before it was submitted, and has to be polled.
    ///
    /// A worker thread of the kernel's that waits in a call for an op is interrupted to cancel that
    /// op; it may happen that the op which the worker takes up next finds the interruption.
    pub(crate) fn goes_again(&mut self, completion: Completion) -> bool {
        let again = O::REPEATS && !self.is_cancelled && completion.result == -libc::EINTR;
        if again {
            self.stage = Stage::Idle;
        }
        again
    }

    /// Whether it is in flight, or was, and was told to end early.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    /// Starts the op if it was not, and says how it ended. One of [`OpFuture::goes_again`], if that is
    /// true, [`OpFuture::finish`], [`OpFuture::finish_late`] and [`OpFuture::discard`] has to follow.
    #[inline]
    pub(crate) fn poll_completion(&mut self, cx: &mut Context<'_>) -> Poll<Completion> {
        let Some(operation) = &mut self.operation else {
            panic!("an op's future was polled after it had finished")
        };
        let completion = match self.stage {
            Stage::Idle => match operation.before(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(completion)) => completion,
                Poll::Ready(None) => {
                    let op = operation.prepare();
                    // SAFETY: INV-BUF: the operation keeps what the op points at (its contract),
                    // and it stays in this future, or in the slot, until the completion.
                    match unsafe { operation.driver().start(op, cx.waker()) } {
                        Started::Done(completion) => completion,
                        Started::Pending(key) => {
                            self.stage = Stage::InFlight(key);
                            return Poll::Pending;
                        }
                    }
                }
            },
            Stage::InFlight(key) => match operation.driver().take(key, cx.waker()) {
                Some(completion) => completion,
                None => return Poll::Pending,
            },
            Stage::Cancelled | Stage::Finished => Completion::error(libc::ECANCELED),
        };
        self.stage = Stage::Finished;
        Poll::Ready(completion)
    }

    /// The output of an op that has ended.
    #[inline]
    pub(crate) fn finish(&mut self, mut completion: Completion) -> O::Output {
        if O::REPEATS && completion.result == -libc::EINTR {
            // A cancel of ours interrupts some calls, and then says so in this way.
            completion.result = -libc::ECANCELED;
        }
        let operation = self.operation.take().expect("it was there a moment ago");
        operation.complete(completion)
    }

    /// The output of an op that was cancelled because its time was over.
    pub(crate) fn finish_late(&mut self) -> O::Output {
        let operation = self.operation.take().expect("there until the output is made");
        operation.complete_late()
    }

    /// Nobody wants the output of an op that has ended, unless it was made already.
    pub(crate) fn discard(&mut self, completion: Completion) {
        if let Some(operation) = self.operation.take() {
            operation.discard(completion);
        }
    }

    /// The driver that carries the op out, until the output is made.
    pub(crate) fn driver(&self) -> Rc<Driver> {
        let operation = self.operation.as_ref().expect("there until the output is made");
        operation.driver().clone()
    }
}

impl<O: Operation> OpFuture<O> {
    /// In place of the first poll: starts the op, and `second` with it as one submission if the
    /// engine links these two (see `Engine::submit_linked`), which the second value says. If not,
    /// `second` is as it was; its operation must be one that can be prepared once more.
    pub(crate) fn start_with<S: Operation>(
        &mut self,
        second: &mut OpFuture<S>,
        cx: &mut Context<'_>,
    ) -> (Poll<O::Output>, bool) {
        let (Stage::Idle, Stage::Idle, Some(operation), Some(second_operation)) =
            (self.stage, second.stage, &mut self.operation, &mut second.operation)
        else {
            return (Pin::new(self).poll(cx), false);
        };
        match operation.before(cx) {
            Poll::Pending => return (Poll::Pending, false),
            Poll::Ready(None) => {}
            Poll::Ready(Some(completion)) => {
                self.stage = Stage::Finished;
                return (Poll::Ready(self.finish(completion)), false);
            }
        }
        let op = operation.prepare();
        let second_op = second_operation.prepare();
        let driver = operation.driver();
        // SAFETY: as in `poll`, for each of the two futures.
        if let Some(keys) = unsafe { driver.start_linked([&op, &second_op], cx.waker()) } {
            (self.stage, second.stage) = (Stage::InFlight(keys[0]), Stage::InFlight(keys[1]));
            return (Poll::Pending, true);
        }
        // SAFETY: as in `poll`.
        let completion = match unsafe { driver.start(op, cx.waker()) } {
            Started::Done(completion) => completion,
            Started::Pending(key) => {
                self.stage = Stage::InFlight(key);
                return (Poll::Pending, false);
            }
        };
        self.stage = Stage::Finished;
        (Poll::Ready(self.finish(completion)), false)
    }
}

impl<O: Operation> Drop for OpFuture<O> {
    #[inline]
    fn drop(&mut self) {
        if let Stage::InFlight(key) = self.stage
            && let Some(operation) = self.operation.take()
        {
            abandon(key, operation);
        }
    }
}

/// The future goes, its op is still in flight: the slot takes the operation over.
#[cold]
fn abandon<O: Operation>(key: Key, operation: O) {
    let driver = operation.driver().clone();
    driver.abandon(key, Box::new(Abandoned(operation)));
}

impl<O: Operation> fmt::Debug for OpFuture<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::Idle => "OpFuture(not submitted)",
            Stage::Cancelled => "OpFuture(cancelled)",
            Stage::InFlight(_) => "OpFuture(in flight)",
            Stage::Finished => "OpFuture(finished)",
        })
    }
}
