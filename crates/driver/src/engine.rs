//! The engine contract: what a mechanism has to do to carry ops out.
//!
//! The methods stand in the same order in every engine's file, so that two engines can be read
//! side by side. Deliberately not here: who waits for an op (`table`) and who owns its memory
//! (`future`).

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::clock::Instant;
use crate::lease::LeasePool;
use crate::notify::Notifier;
use crate::op::{Completion, FixedIndex, Handle, Op, Opcode};
use crate::table::{Key, Table};

pub(crate) mod calls;
#[cfg(test)]
mod scripted;
pub(crate) mod uring;

/// How an engine carries out an opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// By the engine's own mechanism.
    Native,
    /// Past the page cache (files open with `O_DIRECT`, at a position) by the engine's own
    /// mechanism, else by a call on a thread of the pool.
    Direct,
    /// By a call on the driver's thread that waits for nothing.
    Inline,
    /// By a call on a thread of the pool.
    Offloaded,
    /// Not at all: it completes with `EOPNOTSUPP` as it is submitted.
    Unsupported,
}

impl Support {
    /// The word that the table of ops and engines has for it.
    pub fn name(self) -> &'static str {
        match self {
            Support::Native => "native",
            Support::Direct => "direct",
            Support::Inline => "inline",
            Support::Offloaded => "offloaded",
            Support::Unsupported => "unsupported",
        }
    }
}

/// Why memory was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The engine has no registered buffers.
    Unsupported,
    /// The kernel has no table of them that can be changed (before 5.19).
    OldKernel,
    /// The engine's table has no room.
    TableFull,
    /// The kernel's answer, an errno.
    Errno(i32),
}

/// How a submission went.
pub(crate) enum Submitted {
    /// The completion will come out of a turn.
    Pending,
    /// The op has completed already.
    Done(Completion),
}

/// How long a turn may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Not at all: there is other work.
    No,
    /// Until something completes, somebody notifies, or the deadline passes. As long as only
    /// fewer than `batch_count` completions are there it waits on for them, but no longer than
    /// `batch_time`.
    Until { deadline: Option<Instant>, batch_count: usize, batch_time: Duration },
}

/// A mechanism that carries ops out. One thread uses it.
pub(crate) trait Engine {
    /// How this engine carries out `opcode` on this machine.
    fn support(&self, opcode: Opcode) -> Support;

    /// Takes an op in. It may complete at once, wait to be submitted with others in the next
    /// turn, or find the queue full, in which case the engine keeps it until there is room.
    ///
    /// # Safety
    /// INV-BUF: what the op points at stays in place and untouched until the completion.
    unsafe fn submit(&mut self, key: Key, op: &Op) -> Submitted;

    /// Takes two ops in as one submission, the second linked to the first: it starts when the first
    /// has done all that it was asked to do, and ends with `-ECANCELED` where the first fails or is
    /// short. A second op that is a timeout starts with the first instead, and cancels it when the
    /// time is over (`-ETIME`); it ends with `-ECANCELED` where the first was faster.
    ///
    /// False, with nothing taken in, if the engine does not link these two. If it does, neither
    /// completes at once.
    ///
    /// # Safety
    /// As for `submit`, of both.
    unsafe fn submit_linked(&mut self, keys: [Key; 2], ops: [&Op; 2]) -> bool {
        let _ = (keys, ops);
        false
    }

    /// Carries `op` out here and now, if that is how this engine attempts it and it need not wait.
    /// `None` if nothing was done.
    ///
    /// # Safety
    /// What the op points at is valid for the time of the call.
    unsafe fn attempt(&mut self, op: &Op) -> Option<Completion> {
        let _ = op;
        None
    }

    /// Asks for `key` to end early. Its completion comes out of a later turn all the same:
    /// `-ECANCELED`, or `-EINTR` where a call was interrupted, or the op's own result if it was
    /// faster. An op that nobody has cancelled may end with `-EINTR` too, without having done
    /// anything.
    fn cancel(&mut self, key: Key);

    /// Submits what was taken in, waits as told, and records what has completed.
    fn turn(&mut self, wait: Wait, table: &mut Table) -> io::Result<()>;

    /// Whether work waits that was queued by other threads. Asked between the announcement of a
    /// sleep and the sleep.
    fn has_outcomes(&self) -> bool;

    /// Runs a call of the user's on a thread of the pool.
    fn spawn_call(&mut self, call: Box<dyn FnOnce() + Send>) -> io::Result<()>;

    /// Whether sockets are to be in non-blocking mode (`O_NONBLOCK`) for this engine.
    fn wants_nonblocking(&self) -> bool;

    /// `handle` is about to leave the driver's care: what the engine keeps for it goes.
    fn forget(&mut self, handle: Handle);

    /// Whether ops on a file that was opened past the page cache can be carried out; the error
    /// names what refuses them.
    fn admit(&mut self, handle: Handle) -> io::Result<()> {
        let _ = handle;
        Ok(())
    }

    /// Registers `len` bytes from `start` on, which ops may then name by the index.
    ///
    /// # Safety
    /// The memory is mapped, for reading and writing.
    unsafe fn register_buffer(
        &mut self,
        start: *mut u8,
        len: usize,
    ) -> Result<FixedIndex, Refused> {
        let _ = (start, len);
        Err(Refused::Unsupported)
    }

    /// Takes a registration back. No op in flight names it.
    fn unregister_buffer(&mut self, index: FixedIndex) {
        let _ = index;
    }

    /// How many direct descriptors there may be.
    fn direct_max(&self) -> u32 {
        0
    }

    /// Closes a direct descriptor of the engine's, after what was submitted on it so far.
    fn close_direct(&mut self, index: u32) {
        unreachable!("direct descriptor {index} of an engine that makes none")
    }

    /// A file descriptor of the process for a direct one.
    fn install(&mut self, index: u32) -> io::Result<OwnedFd> {
        unreachable!("direct descriptor {index} of an engine that makes none")
    }

    /// Hands over the pool that ops take lease buffers from. Called at most once.
    fn provide(&mut self, pool: &Rc<LeasePool>);

    /// What wakes a turn from another thread.
    fn notifier(&self) -> &Arc<Notifier>;

    /// System calls by which it submitted, waited or reaped.
    #[cfg(feature = "metrics")]
    fn entry_count(&self) -> u64;

    /// Threads that the engine started.
    fn thread_count(&self) -> usize;

    /// Ends the engine's threads. False if one is still using an op's memory at the deadline.
    fn stop(&mut self, deadline: Instant) -> bool;
}

/// How long an engine has for the proof that it works. What a kernel or a filter does not support
/// can look like waiting for ever.
pub(crate) const PROOF_TIME_MAX: Duration = Duration::from_secs(5);

/// Proves a fresh engine: an op goes in and its completion comes out, and a notification ends a
/// wait. Where making an engine succeeds, using it may still be forbidden.
pub(crate) fn prove(engine: &mut dyn Engine) -> io::Result<()> {
    let deadline = crate::clock::now() + PROOF_TIME_MAX;
    let wait =
        || Wait::Until { deadline: Some(deadline), batch_count: 1, batch_time: Duration::ZERO };
    let is_late = || crate::clock::now() >= deadline;
    let mut table = Table::new();
    let key = table.insert(false);
    // SAFETY: it points at nothing.
    match unsafe { engine.submit(key, &Op::Nop {}) } {
        Submitted::Done(completion) => table.complete(key, completion),
        Submitted::Pending => {}
    }
    while table.in_flight_count() > 0 {
        if is_late() {
            return Err(io::Error::from_raw_os_error(libc::ETIME));
        }
        engine.turn(wait(), &mut table)?;
    }
    table.take(key, Waker::noop()).expect("just completed").into_result()?;
    let notifier = engine.notifier().clone();
    notifier.announce_sleep();
    notifier.notify();
    let result = engine.turn(wait(), &mut table);
    notifier.announce_awake();
    result?;
    if is_late() { Err(io::Error::from_raw_os_error(libc::ETIME)) } else { Ok(()) }
}
