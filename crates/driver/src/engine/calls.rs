//! The engines made of system calls: `aio`, `epoll`, `epoll-level`, `poll`, `select`, `threads`
//! and `blocking`.
//!
//! They differ in two things: the [`Policy`], which ops are attempted on the driver's thread and
//! which on the pool, and the [`Readiness`], by which call readiness is waited for (`poller`);
//! `aio` also in a third, a way to files of its own (`disk`, `aio`). Whatever has to wait for a peer
//! waits by readiness (`waiting`), in the one wait that is the turn of the loop, so that a receiver
//! that waits holds no thread.
//!
//! Registrations are kept between ops: a descriptor is registered when an op first has to wait
//! for it, and what it is known to be ready for is remembered, so that neither a system call for
//! waiting nor a failing attempt is made where the answer is known. Edge-triggered, that memory
//! and the events are all there is. Level-triggered, a descriptor is armed when an op begins to
//! wait and stays so until it is reported with nobody waiting: an op that follows another finds
//! it armed, and a descriptor that nobody reads does not keep the loop awake.

mod aio;
mod disk;
mod lender;
mod poller;
mod waiting;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use self::aio::{Aio, Ended};
use self::lender::{Lender, Loan};
pub(crate) use self::poller::Readiness;
use self::poller::{Events, Poller};
use self::waiting::direction;
use super::{Engine, Submitted, Support, Wait};
use crate::attempt::{Attempt, Class, Interest, Outcome};
use crate::choice::Config;
use crate::clock::Instant;
use crate::diagnosis::{Failure, Step};
use crate::lease::LeasePool;
use crate::meter::Counter;
use crate::notify::Notifier;
use crate::op::{Completion, Handle, Op, Opcode};
use crate::pool::Pool;
use crate::table::{Key, Table};

/// Where ops are attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// What waits for peers on the driver's thread, what waits for devices on the pool: `epoll`
    /// and its kin.
    DevicesOnPool,
    /// Everything on the pool, as POSIX AIO and libeio do: `threads`.
    AllOnPool,
    /// What waits for devices on the driver's thread, at submit; the rest on the pool: `blocking`,
    /// the baseline.
    DevicesInline,
}

impl Policy {
    fn support(self, class: Class) -> Support {
        match (self, class) {
            (_, Class::Instant) => Support::Inline,
            (_, Class::Clock) => Support::Native,
            (Policy::DevicesOnPool, Class::Peer) => Support::Native,
            (Policy::DevicesInline, Class::Device) => Support::Inline,
            _ => Support::Offloaded,
        }
    }
}

/// Native AIO: how long to wait where the kernel has no room for a request although none is in
/// flight, so that nothing tells when it has.
const STALL_PAUSE: Duration = Duration::from_millis(1);

/// The end of a list of entries.
const NONE: u32 = u32::MAX;

/// An op that was taken in and did not complete at once, at the index of its slot.
#[derive(Clone, Copy)]
struct Entry {
    key: Key,
    op: Op,
    place: Place,
    /// What the attempt on the pool has been lent.
    loan: Loan,
    /// Whether it should end instead of waiting (again).
    cancelled: bool,
    /// Neighbours in the queue of its descriptor.
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere: completed.
    Nowhere,
    /// With the pool: an outcome will come.
    Pool,
    /// With native AIO, staged or in flight.
    Aio,
    /// In a queue of this descriptor.
    Queue { fd: RawFd, interest: Interest },
    /// Among the timeouts.
    Clock { deadline: Instant },
}

#[derive(Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
}

/// What is known of a descriptor.
#[derive(Clone, Copy)]
struct Descriptor {
    registered: bool,
    /// Readiness is not defined for it: a regular file.
    unpollable: bool,
    /// A stream socket: a short read took all there was.
    stream: bool,
    /// Whether reads and writes go past the page cache, which is what native AIO is for. `None`
    /// until asked.
    direct: Option<bool>,
    readable: bool,
    writable: bool,
    /// A short read need not have taken all there was: the other side is gone, and reads will not
    /// wait any more, or it has sent urgent data, where a read stops.
    never_drained: bool,
    /// Level-triggered: what the poller is armed for. More than ops wait for, at times.
    armed: Option<Events>,
    /// Level-triggered: whether the first of those that wait to read, or to write, is with the
    /// pool now. The next one is not to overtake it.
    with_pool: [bool; 2],
    /// Level-triggered: reports in a row that let no op go on.
    futile_count: u8,
    /// Ops that wait, by [`Interest`].
    queues: [Queue; 3],
}

const EMPTY: Queue = Queue { first: NONE, last: NONE };
const UNKNOWN: Descriptor = Descriptor {
    registered: false,
    unpollable: false,
    stream: false,
    direct: None,
    readable: true,
    writable: true,
    never_drained: false,
    armed: None,
    with_pool: [false; 2],
    futile_count: 0,
    queues: [EMPTY; 3],
};

impl Descriptor {
    fn is_ready(&self, interest: Interest) -> bool {
        match interest {
            Interest::Read => self.readable,
            Interest::Write => self.writable,
            Interest::Any => true,
        }
    }

    /// Returns what it was before.
    fn set_ready(&mut self, interest: Interest, ready: bool) -> bool {
        match interest {
            Interest::Read => std::mem::replace(&mut self.readable, ready),
            Interest::Write => std::mem::replace(&mut self.writable, ready),
            Interest::Any => false,
        }
    }
}

pub(crate) struct Calls {
    policy: Policy,
    poller: Poller,
    /// How often it waited.
    waits: Counter,
    /// Whether the poller is edge-triggered.
    edge: bool,
    /// Whether it refuses great descriptor numbers.
    has_fd_limit: bool,
    /// Native AIO: where reads and writes past the page cache go, and syncs.
    aio: Option<Box<Aio>>,
    notifier: Arc<Notifier>,
    /// Whether a notification has to be cleared, or it would be reported again.
    clears_notifier: bool,
    pool: Pool,
    lender: Lender,
    /// By slot index.
    entries: Vec<Entry>,
    /// By descriptor number.
    descriptors: Vec<Descriptor>,
    /// By deadline and slot index.
    timeouts: BTreeMap<(Instant, u32), Key>,
    /// Ops that wait for a descriptor.
    queued_count: usize,
    /// Descriptors that are not asked about until the given time: [`FUTILE_MAX`].
    paused: Vec<RawFd>,
    paused_until: Option<Instant>,
    /// Ended outside of a turn; the next one hands them out.
    ended: Vec<(Key, Completion)>,
    outcomes: Vec<(Key, Outcome)>,
    /// Room for what native AIO has ended.
    aio_ended: Vec<Ended>,
}

impl Calls {
    pub(crate) fn new(policy: Policy, readiness: Readiness, config: &Config) -> io::Result<Calls> {
        let mut poller = Poller::new(readiness)?;
        let notifier = Arc::new(Notifier::new()?);
        let clears_notifier = poller.add_own(notifier.fd())?;
        Ok(Calls {
            policy,
            poller,
            waits: Counter::default(),
            edge: readiness == Readiness::EpollEdge,
            has_fd_limit: readiness == Readiness::Select,
            pool: Pool::new(config, notifier.clone()),
            lender: Lender::default(),
            aio: None,
            aio_ended: Vec::new(),
            notifier,
            clears_notifier,
            entries: Vec::new(),
            descriptors: Vec::new(),
            timeouts: BTreeMap::new(),
            queued_count: 0,
            paused: Vec::new(),
            paused_until: None,
            ended: Vec::new(),
            outcomes: Vec::new(),
        })
    }

    /// The engine `aio`: as `epoll`, with as many requests of native AIO in flight at most as a ring
    /// would have queue entries.
    pub(crate) fn with_aio(config: &Config) -> Result<Calls, Failure> {
        let (policy, readiness) = (Policy::DevicesOnPool, Readiness::EpollEdge);
        let mut calls =
            Calls::new(policy, readiness, config).map_err(Failure::at(Step::Register))?;
        let Poller::Epoll(epoll) = &calls.poller else { unreachable!("asked for above") };
        calls.aio = Some(Box::new(Aio::new(config.queue_entries, epoll.fd())?));
        Ok(calls)
    }

    fn remember(&mut self, key: Key, op: Op, place: Place) {
        let entry =
            Entry { key, op, place, loan: None, cancelled: false, previous: NONE, next: NONE };
        let index = key.index();
        if index >= self.entries.len() {
            let nothing = Entry { op: Op::Nop {}, place: Place::Nowhere, ..entry };
            self.entries.resize(index + 1, nothing);
        }
        self.entries[index] = entry;
    }

    /// The entry of `key`, if it did not complete.
    fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries
            .get_mut(key.index())
            .filter(|entry| entry.key == key && entry.place != Place::Nowhere)
    }

    fn end(&mut self, key: Key, completion: Completion) {
        self.entries[key.index()].place = Place::Nowhere;
        self.ended.push((key, completion));
    }

    /// Has the pool attempt an op. What its descriptor is ready for counts as used up until the
    /// outcome: an event that comes meanwhile then tells an attempt before it from one after it.
    fn hand_to_pool(&mut self, key: Key, op: Op, which: Attempt) {
        if let Some((fd, interest)) = direction(&op)
            && let Some(descriptor) = self.registered(fd)
        {
            descriptor.set_ready(interest, false);
        }
        match self.lender.lend(op) {
            Ok((op, loan)) => {
                self.entries[key.index()].loan = loan;
                // SAFETY: INV-BUF, promised to `submit`: the op has not completed. A buffer that
                // is lent is the pool's, which the engine keeps.
                unsafe { self.pool.stage(key, op, which) };
            }
            Err(outcome) => self.on_outcome(key, outcome),
        }
    }

    fn descriptor(&mut self, fd: RawFd) -> &mut Descriptor {
        let index = fd as usize;
        if index >= self.descriptors.len() {
            self.descriptors.resize(index + 1, UNKNOWN);
        }
        &mut self.descriptors[index]
    }

    fn registered(&mut self, fd: RawFd) -> Option<&mut Descriptor> {
        self.descriptors.get_mut(fd as usize).filter(|descriptor| descriptor.registered)
    }

    /// What came back from the pool.
    fn on_outcome(&mut self, key: Key, outcome: Outcome) {
        let Some(entry) = self.entry(key) else { return };
        let (op, cancelled, loan) = (entry.op, entry.cancelled, entry.loan.take());
        let outcome = self.lender.settle(loan, outcome);
        if !self.edge {
            self.rearm_sides(&op);
        }
        match outcome {
            Outcome::Done(completion) => {
                self.end(key, completion);
                self.after_pool(&op, Some(completion));
            }
            Outcome::Wait { .. } if cancelled => self.end(key, Completion::error(libc::ECANCELED)),
            Outcome::Wait { fd, interest } => {
                if let Some(which) = self.wait_for(key, fd, interest, false) {
                    self.hand_to_pool(key, op, which);
                }
            }
        }
    }

    /// Takes in what the pool has done. What it gave back to wait for may be due by now, so that
    /// it goes out again at once.
    fn take_outcomes(&mut self) -> io::Result<()> {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.pool.take_outcomes(&mut outcomes);
        for (key, outcome) in outcomes.drain(..) {
            self.on_outcome(key, outcome);
        }
        self.outcomes = outcomes;
        self.pool.flush()
    }

    /// Waits until a descriptor is ready or so many outcomes of the pool are there. Returns how many
    /// descriptors are.
    fn wait_for_events(
        &mut self,
        batch_count: usize,
        batch_time: Duration,
        mut timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let batched = batch_count > 1 && self.pool.outstanding_count() >= batch_count;
        self.pool.want(if batched { batch_count } else { 1 });
        if batched && self.pool.is_behind() {
            let batch_time = timeout.map_or(batch_time, |timeout| timeout.min(batch_time));
            self.waits.count();
            let count = self.poller.wait(Some(batch_time))?;
            timeout = timeout.map(|timeout| timeout - batch_time);
            self.pool.want(1);
            if count > 0 {
                return Ok(count);
            }
        }
        // No event yet: either nothing has happened, or the pool's outcomes are fewer than asked.
        let timeout = if self.pool.is_behind() { timeout } else { Some(Duration::ZERO) };
        // A look at what nobody waits for is not worth a system call.
        if timeout == Some(Duration::ZERO) && self.queued_count == 0 {
            return Ok(0);
        }
        self.waits.count();
        self.poller.wait(timeout)
    }

    fn expire_timeouts(&mut self) {
        if self.timeouts.is_empty() {
            return;
        }
        let now = crate::clock::now();
        while let Some(first) = self.timeouts.first_entry()
            && first.key().0 <= now
        {
            let key = first.remove();
            self.end(key, Completion::error(libc::ETIME));
        }
    }
}

impl Engine for Calls {
    fn support(&self, opcode: Opcode) -> Support {
        match opcode {
            // A receiver without it looks for itself whether there is a datagram.
            Opcode::RecvMsgMulti => Support::Unsupported,
            Opcode::Read | Opcode::Write | Opcode::ReadVectored | Opcode::WriteVectored
                if self.aio.is_some() =>
            {
                Support::Direct
            }
            Opcode::Fsync if self.aio.is_some() => Support::Native,
            _ => self.policy.support(opcode.class()),
        }
    }

    unsafe fn submit(&mut self, key: Key, op: &Op) -> Submitted {
        let op = *op;
        if let Op::Close { handle } = op {
            self.forget(handle);
        }
        if self.has_fd_limit && !self.takes(&op) {
            return Submitted::Done(Completion::error(libc::EMFILE));
        }
        match (op.class(), self.policy) {
            (Class::Instant, _) | (Class::Device, Policy::DevicesInline) => {
                // SAFETY: the caller's contract.
                match unsafe { self.lender.attempt(&op, Attempt::First) } {
                    Outcome::Done(completion) => Submitted::Done(completion),
                    // A position that a pipe or a terminal ignores.
                    Outcome::Wait { fd, interest } => {
                        self.remember(key, op, Place::Pool);
                        if let Some(which) = self.wait_for(key, fd, interest, true) {
                            self.hand_to_pool(key, op, which);
                        }
                        Submitted::Pending
                    }
                }
            }
            (Class::Peer, Policy::DevicesOnPool) => {
                if let Some((fd, interest)) = self.would_wait(&op) {
                    self.remember(key, op, Place::Pool);
                    self.enqueue_armed(key, fd, interest);
                    return Submitted::Pending;
                }
                // SAFETY: the caller's contract.
                let mut outcome = unsafe { self.lender.attempt(&op, Attempt::First) };
                if let Outcome::Wait { .. } = outcome {
                    self.remember(key, op, Place::Pool);
                }
                loop {
                    let (fd, interest) = match outcome {
                        Outcome::Done(completion) => {
                            self.after_inline(&op, completion);
                            if let Some(entry) = self.entry(key) {
                                entry.place = Place::Nowhere;
                            }
                            return Submitted::Done(completion);
                        }
                        Outcome::Wait { fd, interest } => (fd, interest),
                    };
                    let Some(which) = self.wait_for(key, fd, interest, true) else {
                        return Submitted::Pending;
                    };
                    if which == Attempt::MayBlock {
                        // Not pollable, and yet it has to wait: no socket does that.
                        return Submitted::Done(Completion::error(libc::EAGAIN));
                    }
                    // SAFETY: the caller's contract.
                    outcome = unsafe { self.lender.attempt(&op, which) };
                }
            }
            (Class::Clock, _) => {
                let Op::Timeout { after } = op else { unreachable!("the only op of its class") };
                // SAFETY: the caller's contract: it points at a timespec.
                let after = unsafe { *after };
                let (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) =
                    (u64::try_from(after.tv_sec), u32::try_from(after.tv_nsec))
                else {
                    return Submitted::Done(Completion::error(libc::EINVAL));
                };
                let now = crate::clock::now();
                // A deadline past what the clock can say never comes within a century.
                let deadline = now
                    .checked_add(Duration::new(seconds, nanos))
                    .unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 86_400));
                self.remember(key, op, Place::Clock { deadline });
                self.timeouts.insert((deadline, key.index() as u32), key);
                Submitted::Pending
            }
            // SAFETY: the caller's contract.
            (Class::Device, _) if self.aio.is_some() && unsafe { self.stage_aio(key, &op) } => {
                Submitted::Pending
            }
            _ => {
                self.remember(key, op, Place::Pool);
                match self.would_wait(&op) {
                    Some((fd, interest)) => self.enqueue_armed(key, fd, interest),
                    None => self.hand_to_pool(key, op, Attempt::First),
                }
                Submitted::Pending
            }
        }
    }

    unsafe fn attempt(&mut self, op: &Op) -> Option<Completion> {
        let is_inline = self.policy == Policy::DevicesOnPool && op.class() == Class::Peer;
        if !is_inline || self.has_fd_limit || self.would_wait(op).is_some() {
            return None;
        }
        // SAFETY: the caller's contract.
        match unsafe { self.lender.attempt(op, Attempt::First) } {
            Outcome::Done(completion) => {
                self.after_inline(op, completion);
                Some(completion)
            }
            // Who starts it in earnest finds out once more, and waits.
            Outcome::Wait { .. } => None,
        }
    }

    fn cancel(&mut self, key: Key) {
        let Some(entry) = self.entry(key) else { return };
        match entry.place {
            Place::Nowhere => return,
            Place::Queue { .. } => self.unlink(key),
            Place::Clock { deadline } => {
                self.timeouts.remove(&(deadline, key.index() as u32));
            }
            Place::Aio => {
                entry.cancelled = true;
                if !self.aio.as_mut().is_some_and(|aio| aio.unstage(key)) {
                    return;
                }
            }
            Place::Pool => {
                entry.cancelled = true;
                let op = entry.op;
                if !self.pool.cancel(key) {
                    return;
                }
                let loan = self.entries[key.index()].loan.take();
                let _ = self.lender.settle(loan, Outcome::Done(Completion::new(0)));
                if !self.edge {
                    self.rearm_sides(&op);
                }
                self.after_pool(&op, None);
            }
        }
        self.end(key, Completion::error(libc::ECANCELED));
    }

    fn turn(&mut self, wait: Wait, table: &mut Table) -> io::Result<()> {
        self.pool.flush()?;
        self.take_outcomes()?;
        self.expire_timeouts();
        if self.paused_until.is_some_and(|until| until <= crate::clock::now()) {
            self.resume_paused();
        }
        self.turn_aio()?;
        // What found no room to be handed over without waiting.
        self.pool.flush()?;
        let (mut timeout, batch_count, batch_time) = match wait {
            Wait::Until { deadline, batch_count, batch_time } if self.ended.is_empty() => {
                let first_timeout = self.timeouts.first_key_value().map(|(&(at, _), _)| at);
                let next = [deadline, first_timeout, self.paused_until].into_iter().flatten().min();
                let left = |next: Instant| next.saturating_duration_since(crate::clock::now());
                (next.map(left), batch_count, batch_time)
            }
            _ => (Some(Duration::ZERO), 1, Duration::ZERO),
        };
        if self.aio.as_ref().is_some_and(|aio| aio.is_stalled()) {
            timeout = Some(timeout.map_or(STALL_PAUSE, |timeout| timeout.min(STALL_PAUSE)));
        }
        let count = if self.aio.as_ref().is_some_and(|aio| aio.in_flight_count() > 0) {
            self.wait_with_aio(batch_count, batch_time, timeout)?
        } else {
            self.wait_for_events(batch_count, batch_time, timeout)?
        };
        let notifier = self.notifier.fd();
        for at in 0..count {
            let ready = self.poller.ready(at);
            if ready.fd != notifier {
                self.on_ready(ready);
            } else if self.clears_notifier {
                self.notifier.clear();
            }
        }
        self.reap_aio()?;
        self.take_outcomes()?;
        self.expire_timeouts();
        for (key, completion) in self.ended.drain(..) {
            table.complete(key, completion);
        }
        Ok(())
    }

    fn has_outcomes(&self) -> bool {
        !self.pool.is_behind()
    }

    fn spawn_call(&mut self, call: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.pool.call(call)
    }

    fn wants_nonblocking(&self) -> bool {
        true
    }

    fn forget(&mut self, handle: Handle) {
        let fd = handle.fd();
        let Some(descriptor) = self.descriptors.get(fd as usize).copied() else {
            return;
        };
        // A handle outlives its ops; what a raw user of the driver left behind must not act on
        // the next owner of the number.
        self.end_queued(fd, libc::ECANCELED);
        if self.edge && descriptor.registered {
            self.poller.unwatch(fd);
        } else {
            self.disarm(fd, None);
        }
        self.descriptors[fd as usize] = UNKNOWN;
    }

    fn provide(&mut self, pool: &Rc<LeasePool>) {
        self.lender.provide(pool);
    }

    fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    #[cfg(feature = "metrics")]
    fn entry_count(&self) -> u64 {
        self.waits.value() + self.aio.as_ref().map_or(0, |aio| aio.entries.value())
    }

    fn thread_count(&self) -> usize {
        self.pool.thread_count()
    }

    fn stop(&mut self, deadline: Instant) -> bool {
        self.pool.stop(deadline)
    }
}
