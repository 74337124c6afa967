//! An op with a time limit.
//!
//! On a ring the limit is linked to the op, so that both take one submission and nobody is woken for
//! a timer that was not needed; elsewhere a timeout of the engine's runs beside the op and cancels
//! it. Either way the op alone decides how it ended: only an op that was cancelled, by a limit that
//! has passed, is late.
//!
//! An op that was interrupted by chance goes again, under the limit that it had, or if that was linked to
//! it, and so ended with it, under a new one: the op has that much longer, which is as long as it took a
//! thread of the kernel's to take it up. Whether it was chance, a linked limit has to say first.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::future::{OpFuture, Operation};
use crate::op::Completion;
use crate::ops::{Timeout, timeout};

/// The future of one op that has a time limit: see [`OpFuture::with_timeout`].
#[must_use = "an op is submitted when its future is polled"]
pub struct Timed<O: Operation> {
    op: OpFuture<O>,
    limit: Duration,
    timer: Timer,
    /// The op has ended, cancelled, and it is not known yet whether by the limit.
    is_cancelled: bool,
    /// It was interrupted, which may have been a cancel.
    is_interrupted: bool,
    /// By the user, so that it is not the limit's doing.
    is_cancelled_by_user: bool,
}

const INTERRUPTED: Completion = Completion::error(libc::EINTR);

enum Timer {
    /// The op was not submitted.
    Idle,
    /// Submitted with the op, linked to it.
    Linked(OpFuture<Timeout>),
    /// Beside the op.
    Beside(OpFuture<Timeout>),
    /// The time is over: the op is cancelled, or will be by the kernel.
    Over,
    /// There is none any more: it was cancelled.
    Gone,
}

impl<O: Operation> OpFuture<O> {
    /// Gives the op so much time from its submission on. One that is late is cancelled, and the
    /// future yields `ETIMEDOUT` ([`TimedOut`](std::io::ErrorKind::TimedOut)) with the buffer; one
    /// that was faster has its result, however close it was.
    ///
    /// The limit ends waiting for a peer. What a device or a thread is at already ends by itself, and
    /// the future with it.
    pub fn with_timeout(self, limit: Duration) -> Timed<O> {
        let timer = Timer::Idle;
        Timed {
            op: self,
            limit,
            timer,
            is_cancelled: false,
            is_interrupted: false,
            is_cancelled_by_user: false,
        }
    }
}

impl<O: Operation> Timed<O> {
    /// Asks for the op to end early: see [`OpFuture::cancel`].
    pub fn cancel(&mut self) {
        self.is_cancelled_by_user = true;
        self.op.cancel();
    }

    /// Whether the op that failed may have been cancelled: by the user, or by the limit.
    fn is_cancel(&self, completion: Completion) -> bool {
        let by_limit = matches!(self.timer, Timer::Linked(_) | Timer::Over);
        let interrupts = O::REPEATS && (by_limit || self.op.is_cancelled());
        match -completion.result {
            libc::ECANCELED => true,
            libc::EINTR => interrupts,
            _ => false,
        }
    }

    /// Looks at the timer, which may start it: whether it has cancelled the op just now.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let (timer, is_linked) = match &mut self.timer {
                Timer::Linked(timer) => (timer, true),
                Timer::Beside(timer) => (timer, false),
                Timer::Idle | Timer::Over | Timer::Gone => return false,
            };
            let Poll::Ready(result) = Pin::new(timer).poll(cx) else { return false };
            let is_cancelled = |error: &io::Error| error.raw_os_error() == Some(libc::ECANCELED);
            self.timer = match result {
                // A linked one that has passed may say instead how its cancel went.
                Err(error) if is_linked && !is_cancelled(&error) => Timer::Over,
                Ok(()) if is_linked => Timer::Over,
                Ok(()) => {
                    self.timer = Timer::Over;
                    self.op.cancel();
                    return true;
                }
                // The op has ended, and it is about to be seen; or the link was cut.
                Err(_) if is_linked && !self.is_cancelled => {
                    Timer::Beside(timeout(&self.op.driver(), self.limit))
                }
                Err(_) => Timer::Gone,
            };
        }
    }
}

impl<O: Operation> Future for Timed<O> {
    type Output = O::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O::Output> {
        let this = &mut *self;
        if let Timer::Idle = this.timer {
            let mut timer = timeout(&this.op.driver(), this.limit);
            let (polled, is_linked) = this.op.start_with(&mut timer, cx);
            this.timer = if is_linked { Timer::Linked(timer) } else { Timer::Beside(timer) };
            if polled.is_ready() {
                return polled;
            }
        }
        loop {
            if !this.is_cancelled {
                match this.op.poll_completion(cx) {
                    Poll::Ready(completion) if completion.result >= 0 => {
                        return Poll::Ready(this.op.finish(completion));
                    }
                    Poll::Ready(completion) if this.is_cancel(completion) => {
                        this.is_cancelled = true;
                        this.is_interrupted = completion.result == -libc::EINTR;
                    }
                    Poll::Ready(completion) if this.op.goes_again(completion) => continue,
                    Poll::Ready(completion) => return Poll::Ready(this.op.finish(completion)),
                    Poll::Pending => {}
                }
            }
            // An op that waits without having been submitted ends as soon as it is cancelled.
            if !this.is_cancelled_by_user && this.poll_timer(cx) {
                continue;
            }
            match this.timer {
                _ if !this.is_cancelled => return Poll::Pending,
                // The kernel is about to say whether it was the limit.
                Timer::Linked(_) if !this.is_cancelled_by_user => return Poll::Pending,
                Timer::Over if !this.is_cancelled_by_user => {
                    return Poll::Ready(this.op.finish_late());
                }
                Timer::Gone
                    if this.is_interrupted
                        && !this.is_cancelled_by_user
                        && this.op.goes_again(INTERRUPTED) =>
                {
                    this.is_cancelled = false;
                    this.timer = Timer::Beside(timeout(&this.op.driver(), this.limit));
                }
                _ => return Poll::Ready(this.op.finish(Completion::error(libc::ECANCELED))),
            }
        }
    }
}

impl<O: Operation> Drop for Timed<O> {
    fn drop(&mut self) {
        if self.is_cancelled {
            self.op.discard(Completion::error(libc::ECANCELED));
        }
    }
}

impl<O: Operation> fmt::Debug for Timed<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed").field("op", &self.op).field("limit", &self.limit).finish()
    }
}
