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

    /// The op as plain data. Called once.
    fn prepare(&mut self) -> Op;

    /// Makes the output of a completion.
    fn complete(self, driver: &Rc<Driver>, completion: Completion) -> Self::Output;

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
    fn finish(self: Box<Self>, completion: Completion) {
        self.0.discard(completion);
    }
}

enum State<O> {
    /// Not submitted.
    Idle(O),
    /// Cancelled before it was submitted, which it never will be.
    Cancelled(O),
    /// Submitted; the operation's memory is in use.
    InFlight(Key, O),
    /// The output was handed out, or is being made.
    Finished,
}

/// The future of one op.
///
/// The op is submitted when the future is first polled. Dropping the future cancels the op: an op
/// that was faster has happened all the same, and what it yielded is disposed of.
#[must_use = "an op is submitted when its future is polled"]
pub struct OpFuture<O: Operation> {
    driver: Rc<Driver>,
    state: State<O>,
}

impl<O: Operation> OpFuture<O> {
    /// The future of `operation`, carried out by `driver`.
    pub fn new(driver: &Rc<Driver>, operation: O) -> OpFuture<O> {
        OpFuture { driver: driver.clone(), state: State::Idle(operation) }
    }

    /// Asks for the op to end early. The future then yields `ECANCELED` and the buffer, or the
    /// op's own result if it was faster; an op that was not submitted yet never is.
    pub fn cancel(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Finished) {
            State::Idle(operation) => State::Cancelled(operation),
            State::InFlight(key, operation) => {
                self.driver.cancel(key);
                State::InFlight(key, operation)
            }
            state @ (State::Cancelled(_) | State::Finished) => state,
        }
    }
}

impl<O: Operation> Future for OpFuture<O> {
    type Output = O::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O::Output> {
        let this = &mut *self;
        let completion = match &mut this.state {
            State::Idle(operation) => {
                let op = operation.prepare();
                // SAFETY: INV-BUF: the operation keeps what the op points at (its contract), and
                // it stays in this future, or in the slot, until the completion.
                match unsafe { this.driver.start(op, cx.waker()) } {
                    Started::Done(completion) => completion,
                    Started::Pending(key) => {
                        let State::Idle(operation) =
                            std::mem::replace(&mut this.state, State::Finished)
                        else {
                            unreachable!("matched above")
                        };
                        this.state = State::InFlight(key, operation);
                        return Poll::Pending;
                    }
                }
            }
            State::Cancelled(_) => Completion::error(libc::ECANCELED),
            State::InFlight(key, _) => match this.driver.take(*key, cx.waker()) {
                Some(completion) => completion,
                None => return Poll::Pending,
            },
            State::Finished => panic!("an op's future was polled after it had finished"),
        };
        match std::mem::replace(&mut this.state, State::Finished) {
            State::Idle(operation) | State::Cancelled(operation) | State::InFlight(_, operation) => {
                Poll::Ready(operation.complete(&this.driver, completion))
            }
            State::Finished => unreachable!("matched above"),
        }
    }
}

impl<O: Operation> Drop for OpFuture<O> {
    fn drop(&mut self) {
        if let State::InFlight(key, operation) = std::mem::replace(&mut self.state, State::Finished)
        {
            self.driver.abandon(key, Box::new(Abandoned(operation)));
        }
    }
}

impl<O: Operation> fmt::Debug for OpFuture<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Idle(_) => "not submitted",
            State::Cancelled(_) => "cancelled",
            State::InFlight(..) => "in flight",
            State::Finished => "finished",
        };
        write!(f, "OpFuture({state})")
    }
}
