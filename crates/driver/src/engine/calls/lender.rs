//! Lends receives a buffer of the lease pool for the length of one attempt, so that a receive that
//! waits holds none.

use std::rc::Rc;

use crate::attempt::{Attempt, Outcome, attempt};
use crate::lease::LeasePool;
use crate::op::{Completion, Op};

/// A buffer that an attempt has been lent.
pub(super) type Loan = Option<u16>;

/// The pool, once somebody has asked for a lease.
#[derive(Default)]
pub(super) struct Lender(Option<Rc<LeasePool>>);

impl Lender {
    pub(super) fn provide(&mut self, pool: &Rc<LeasePool>) {
        self.0 = Some(pool.clone());
    }

    /// What to attempt for `op`. A receive that leases is lent a buffer for it, which comes back
    /// with [`Lender::settle`]; without one it completes with `ENOBUFS`.
    #[inline]
    pub(super) fn lend(&self, op: Op) -> Result<(Op, Loan), Outcome> {
        let Op::RecvMulti { handle } = op else {
            return Ok((op, None));
        };
        let lent = self.0.as_ref().and_then(|pool| Some((pool, pool.take_free()?)));
        let Some((pool, buffer)) = lent else {
            return Err(Outcome::Done(Completion::error(libc::ENOBUFS)));
        };
        let (buf, len) = pool.memory(buffer);
        Ok((Op::Recv { handle, buf, len, flags: 0 }, Some(buffer)))
    }

    /// Takes the buffer back, unless the attempt has filled it: then it goes with the completion.
    #[inline]
    pub(super) fn settle(&self, loan: Loan, outcome: Outcome) -> Outcome {
        let (Some(buffer), Some(pool)) = (loan, &self.0) else {
            return outcome;
        };
        match outcome {
            Outcome::Done(completion) if completion.result > 0 => {
                Outcome::Done(Completion::with_buffer(completion.result, buffer))
            }
            outcome => {
                pool.discard(buffer);
                outcome
            }
        }
    }

    /// Attempts `op` here and now.
    ///
    /// # Safety
    /// As for [`attempt`].
    #[inline]
    pub(super) unsafe fn attempt(&self, op: &Op, which: Attempt) -> Outcome {
        if !matches!(op, Op::RecvMulti { .. }) {
            // SAFETY: the caller's contract.
            return unsafe { attempt(op, which) };
        }
        match self.lend(*op) {
            // SAFETY: the caller's contract; a buffer that is lent is the pool's own.
            Ok((op, loan)) => self.settle(loan, unsafe { attempt(&op, which) }),
            Err(outcome) => outcome,
        }
    }

    /// Bytes that a receive is offered.
    pub(super) fn buffer_len(&self) -> u32 {
        self.0.as_ref().map_or(0, |pool| pool.buffer_len())
    }
}
