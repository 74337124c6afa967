//! Three engines made of system calls: `epoll`, `threads` and `blocking`.
//!
//! They differ in one thing, the [`Policy`]: which ops are attempted on the driver's thread and
//! which on the pool. Whatever has to wait for a peer waits by readiness, in the one `epoll_wait`
//! that is the turn of the loop, so that a receiver that waits holds no thread.
//!
//! Registrations are kept between ops and edge-triggered: a descriptor is registered when an op
//! first has to wait for it, and what it is known to be ready for is remembered, so that neither
//! a system call for waiting nor a failing attempt is made where the answer is known.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use libc::c_int;

use super::{Engine, Submitted, Support, Wait};
use crate::attempt::{Attempt, Class, Interest, Outcome, attempt, errno};
use crate::clock::Instant;
use crate::lease::LeasePool;
use crate::notify::Notifier;
use crate::op::{Completion, Handle, Op, Opcode};
use crate::pool::Pool;
use crate::table::{Key, Table};

/// Where ops are attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// `epoll`: what waits for peers on the driver's thread, what waits for devices on the pool.
    Epoll,
    /// `threads`: everything on the pool, as POSIX AIO and libeio do.
    Threads,
    /// `blocking`: what waits for devices on the driver's thread, at submit; the rest as
    /// `threads`. The baseline.
    Blocking,
}

impl Policy {
    fn support(self, class: Class) -> Support {
        match (self, class) {
            (_, Class::Instant) => Support::Inline,
            (_, Class::Clock) => Support::Native,
            (Policy::Epoll, Class::Peer) => Support::Native,
            (Policy::Blocking, Class::Device) => Support::Inline,
            _ => Support::Offloaded,
        }
    }
}

/// Events taken out of one wait: bounded, so that the completions of a turn are handled before
/// more are taken.
const EVENTS_MAX: usize = 256;
/// The user data of the notifier's descriptor, which is no op's.
const NOTIFIER: u64 = u64::MAX;

/// The end of a list of entries.
const NONE: u32 = u32::MAX;

/// An op that was taken in and did not complete at once, at the index of its slot.
#[derive(Clone, Copy)]
struct Entry {
    key: Key,
    op: Op,
    place: Place,
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
    readable: bool,
    writable: bool,
    /// A short read need not have taken all there was: the other side is gone, and reads will not
    /// wait any more, or it has sent urgent data, where a read stops.
    never_drained: bool,
    /// Ops that wait, by [`Interest`].
    queues: [Queue; 3],
}

const EMPTY: Queue = Queue { first: NONE, last: NONE };
const UNKNOWN: Descriptor = Descriptor {
    registered: false,
    unpollable: false,
    stream: false,
    readable: true,
    writable: true,
    never_drained: false,
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
    epoll: OwnedFd,
    notifier: Arc<Notifier>,
    pool: Pool,
    /// By slot index.
    entries: Vec<Entry>,
    /// By descriptor number.
    descriptors: Vec<Descriptor>,
    /// By deadline and slot index.
    timeouts: BTreeMap<(Instant, u32), Key>,
    /// Ended outside of a turn; the next one hands them out.
    ended: Vec<(Key, Completion)>,
    events: Vec<libc::epoll_event>,
    outcomes: Vec<(Key, Outcome)>,
    /// Whether the kernel has `epoll_pwait2` (5.11).
    has_pwait2: bool,
}

impl Calls {
    pub(crate) fn new(policy: Policy, threads_max: usize, thread_name: &str) -> io::Result<Calls> {
        // SAFETY: no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let notifier = Arc::new(Notifier::new()?);
        // Edge-triggered: each notification is a new event, and the counter is never read.
        let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
        epoll_control(&epoll, libc::EPOLL_CTL_ADD, notifier.fd(), events, NOTIFIER)?;
        Ok(Calls {
            policy,
            epoll,
            pool: Pool::new(threads_max, thread_name.to_owned(), notifier.clone()),
            notifier,
            entries: Vec::new(),
            descriptors: Vec::new(),
            timeouts: BTreeMap::new(),
            ended: Vec::new(),
            events: Vec::with_capacity(EVENTS_MAX),
            outcomes: Vec::new(),
            has_pwait2: true,
        })
    }

    fn remember(&mut self, key: Key, op: Op, place: Place) {
        let entry = Entry { key, op, place, cancelled: false, previous: NONE, next: NONE };
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
        // SAFETY: INV-BUF, promised to `submit`: the op has not completed.
        unsafe { self.pool.stage(key, op, which) };
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

    /// Registers `fd` for whatever may happen to it.
    fn register(&mut self, fd: RawFd) -> io::Result<()> {
        if self.descriptor(fd).registered {
            return Ok(());
        }
        let events =
            libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET;
        epoll_control(&self.epoll, libc::EPOLL_CTL_ADD, fd, events as u32, fd as u64)?;
        let stream = is_stream(fd);
        let descriptor = self.descriptor(fd);
        // What it is ready for now comes as the first event.
        *descriptor = Descriptor {
            registered: true,
            stream,
            readable: false,
            writable: false,
            ..*descriptor
        };
        Ok(())
    }

    /// The op of `key` was attempted and has to wait. Says how to go on if it need not.
    fn wait_for(
        &mut self,
        key: Key,
        fd: RawFd,
        interest: Interest,
        known: bool,
    ) -> Option<Attempt> {
        if self.descriptor(fd).unpollable {
            return Some(Attempt::MayBlock);
        }
        if !self.descriptor(fd).registered {
            if let Err(error) = self.register(fd) {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                if errno == libc::EPERM {
                    self.descriptor(fd).unpollable = true;
                    return Some(Attempt::MayBlock);
                }
                self.end(key, Completion::error(errno));
                return None;
            }
        } else {
            let was_ready = self.descriptor(fd).set_ready(interest, false);
            // The attempt was made on another thread: it may have been before the event.
            if was_ready && !known {
                return Some(Attempt::Again);
            }
        }
        self.enqueue(key, fd, interest);
        // An event may have been taken while a poll was attempted elsewhere.
        (interest == Interest::Any && !known && self.is_polled_ready(key)).then(|| {
            self.unlink(key);
            Attempt::Again
        })
    }

    /// Whether the poll of `key` is due by now.
    fn is_polled_ready(&self, key: Key) -> bool {
        let op = self.entries[key.index()].op;
        // SAFETY: a poll has no pointers.
        matches!(op, Op::Poll { .. })
            && matches!(unsafe { attempt(&op, Attempt::Again) }, Outcome::Done(_))
    }

    fn enqueue(&mut self, key: Key, fd: RawFd, interest: Interest) {
        let index = key.index() as u32;
        let queue = &mut self.descriptors[fd as usize].queues[interest as usize];
        let previous = std::mem::replace(&mut queue.last, index);
        match previous {
            NONE => queue.first = index,
            _ => self.entries[previous as usize].next = index,
        }
        let entry = &mut self.entries[key.index()];
        entry.place = Place::Queue { fd, interest };
        entry.previous = previous;
        entry.next = NONE;
    }

    /// Takes an op out of the queue it waits in.
    fn unlink(&mut self, key: Key) {
        let entry = self.entries[key.index()];
        let Place::Queue { fd, interest } = entry.place else {
            unreachable!("only queued ops are unlinked")
        };
        let queue = &mut self.descriptors[fd as usize].queues[interest as usize];
        match entry.previous {
            NONE => queue.first = entry.next,
            previous => self.entries[previous as usize].next = entry.next,
        }
        match entry.next {
            NONE => queue.last = entry.previous,
            next => self.entries[next as usize].previous = entry.previous,
        }
        self.entries[key.index()].place = Place::Pool;
    }

    /// Whether it is known that an attempt at `op` would have to wait.
    fn would_wait(&self, op: &Op) -> Option<(RawFd, Interest)> {
        let (Op::Recv { flags, .. }
        | Op::RecvMsg { flags, .. }
        | Op::Send { flags, .. }
        | Op::SendMsg { flags, .. }) = *op
        else {
            // A connect has to be attempted once in any case, and streams may not be pollable.
            return matches!(op, Op::Accept { .. } | Op::AcceptMulti { .. })
                .then(|| self.known_to_wait(op))?;
        };
        if flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB) != 0 {
            return None;
        }
        self.known_to_wait(op)
    }

    fn known_to_wait(&self, op: &Op) -> Option<(RawFd, Interest)> {
        let (fd, interest) = direction(op)?;
        let descriptor = self.descriptors.get(fd as usize)?;
        (descriptor.registered && !descriptor.is_ready(interest)).then_some((fd, interest))
    }

    /// A short read of a stream took all there was: the next one has to wait for an event.
    fn has_drained(&self, op: &Op, completion: Completion) -> bool {
        let Op::Recv { handle, len, flags, .. } = *op else {
            return false;
        };
        // A look at the data, or the urgent byte, leaves the rest where it is.
        flags & (libc::MSG_PEEK | libc::MSG_OOB) == 0
            && (1..len as i32).contains(&completion.result)
            && self
                .descriptors
                .get(handle.fd() as usize)
                .is_some_and(|descriptor| descriptor.stream && !descriptor.never_drained)
    }

    /// An op completed on the driver's thread.
    fn after_inline(&mut self, op: &Op, completion: Completion) {
        if self.has_drained(op, completion)
            && let Op::Recv { handle, .. } = *op
        {
            self.descriptors[handle.fd() as usize].readable = false;
        }
    }

    /// An op completed on the pool, or came back from it unattempted: its descriptor may be ready
    /// for the next one.
    fn after_pool(&mut self, op: &Op, completion: Option<Completion>) {
        if completion.is_some_and(|completion| self.has_drained(op, completion)) {
            return;
        }
        let waited_for = match *op {
            // It may have waited for either side.
            Op::Splice { from, to, .. } => {
                [Some((from.fd(), Interest::Read)), Some((to.fd(), Interest::Write))]
            }
            _ => [direction(op), None],
        };
        for (fd, interest) in waited_for.into_iter().flatten() {
            if let Some(descriptor) = self.registered(fd) {
                descriptor.set_ready(interest, true);
                self.advance(fd, interest);
            }
        }
    }

    /// What an event says about a descriptor; then its queues move on.
    fn on_event(&mut self, event: libc::epoll_event) {
        let fd = event.u64 as RawFd;
        let events = event.events as c_int;
        let Some(descriptor) = self.descriptors.get_mut(fd as usize) else {
            return;
        };
        let gone = events & (libc::EPOLLHUP | libc::EPOLLERR) != 0;
        let end = gone || events & libc::EPOLLRDHUP != 0;
        descriptor.readable |= end || events & (libc::EPOLLIN | libc::EPOLLPRI) != 0;
        descriptor.writable |= gone || events & libc::EPOLLOUT != 0;
        descriptor.never_drained |= end || events & libc::EPOLLPRI != 0;
        let (readable, writable) = (descriptor.readable, descriptor.writable);
        if readable {
            self.advance(fd, Interest::Read);
        }
        if writable {
            self.advance(fd, Interest::Write);
        }
        self.advance(fd, Interest::Any);
    }

    /// Attempts the ops that wait for `fd`, in order, until one has to wait on.
    fn advance(&mut self, fd: RawFd, interest: Interest) {
        let mut at = self.descriptors[fd as usize].queues[interest as usize].first;
        while at != NONE {
            let Entry { key, op, next, .. } = self.entries[at as usize];
            if self.policy != Policy::Epoll || op.class() != Class::Peer {
                // What is known to be ready may take a thread's time now: one at a time in each
                // direction, in order.
                self.unlink(key);
                self.hand_to_pool(key, op, Attempt::Again);
                if interest != Interest::Any {
                    return;
                }
            } else {
                // SAFETY: INV-BUF, promised to `submit`: the op has not completed.
                match unsafe { attempt(&op, Attempt::Again) } {
                    Outcome::Done(completion) => {
                        self.unlink(key);
                        self.after_inline(&op, completion);
                        self.end(key, completion);
                    }
                    // Polls for different events wait for each other's no more than this.
                    Outcome::Wait { .. } if interest == Interest::Any => {}
                    Outcome::Wait { .. } => {
                        self.descriptors[fd as usize].set_ready(interest, false);
                        return;
                    }
                }
            }
            at = next;
        }
    }

    /// What came back from the pool.
    fn on_outcome(&mut self, key: Key, outcome: Outcome) {
        let Some(&mut Entry { op, cancelled, .. }) = self.entry(key) else {
            return;
        };
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

    /// One `epoll_wait`. Returns how many events came.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.events.clear();
        let epoll = self.epoll.as_raw_fd();
        let events = self.events.as_mut_ptr();
        let count = EVENTS_MAX as c_int;
        let seconds = |timeout: Duration| libc::timespec {
            tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let timespec = timeout.map(seconds);
        let result = if self.has_pwait2 && timeout.is_some_and(|timeout| !timeout.is_zero()) {
            let timespec = timespec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: the events' capacity is `count`; the timespec is null or a local.
            unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    epoll,
                    events,
                    count,
                    timespec,
                    std::ptr::null::<libc::sigset_t>(),
                    0usize,
                ) as c_int
            }
        } else {
            let milliseconds = timeout.map_or(-1, |timeout| {
                let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
                c_int::try_from(rounded_up).unwrap_or(c_int::MAX)
            });
            // SAFETY: the events' capacity is `count`.
            unsafe { libc::epoll_wait(epoll, events, count, milliseconds) }
        };
        if result >= 0 {
            // SAFETY: the kernel wrote so many.
            unsafe { self.events.set_len(result as usize) };
            return Ok(result as usize);
        }
        match errno() {
            libc::EINTR => Ok(0),
            libc::ENOSYS if self.has_pwait2 => {
                self.has_pwait2 = false;
                self.wait(timeout)
            }
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Engine for Calls {
    fn support(&self, opcode: Opcode) -> Support {
        if matches!(opcode, Opcode::RecvMulti | Opcode::RecvMsgMulti) {
            return Support::Unsupported;
        }
        self.policy.support(opcode.class())
    }

    unsafe fn submit(&mut self, key: Key, op: &Op) -> Submitted {
        let op = *op;
        if let Op::Close { handle } = op {
            self.forget(handle);
        }
        match (op.class(), self.policy) {
            (Class::Instant, _) | (Class::Device, Policy::Blocking) => {
                // SAFETY: the caller's contract.
                match unsafe { attempt(&op, Attempt::First) } {
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
            (Class::Peer, Policy::Epoll) => {
                self.remember(key, op, Place::Pool);
                if let Some((fd, interest)) = self.would_wait(&op) {
                    self.enqueue(key, fd, interest);
                    return Submitted::Pending;
                }
                let mut which = Attempt::First;
                loop {
                    // SAFETY: the caller's contract.
                    match unsafe { attempt(&op, which) } {
                        Outcome::Done(completion) => {
                            self.after_inline(&op, completion);
                            self.entries[key.index()].place = Place::Nowhere;
                            return Submitted::Done(completion);
                        }
                        Outcome::Wait { fd, interest } => {
                            match self.wait_for(key, fd, interest, true) {
                                Some(again) => which = again,
                                None => return Submitted::Pending,
                            }
                            if which == Attempt::MayBlock {
                                // Not pollable, and yet it has to wait: no socket does that.
                                return Submitted::Done(Completion::error(libc::EAGAIN));
                            }
                        }
                    }
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
            _ => {
                self.remember(key, op, Place::Pool);
                match self.would_wait(&op) {
                    Some((fd, interest)) => self.enqueue(key, fd, interest),
                    None => self.hand_to_pool(key, op, Attempt::First),
                }
                Submitted::Pending
            }
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
            Place::Pool => {
                entry.cancelled = true;
                let op = entry.op;
                if !self.pool.cancel(key) {
                    return;
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
        let (timeout, batch_count, batch_time) = match wait {
            Wait::Until { deadline, batch_count, batch_time } if self.ended.is_empty() => {
                let first_timeout = self.timeouts.first_key_value().map(|(&(at, _), _)| at);
                let next = [deadline, first_timeout].into_iter().flatten().min();
                let left = |next: Instant| next.saturating_duration_since(crate::clock::now());
                (next.map(left), batch_count, batch_time)
            }
            _ => (Some(Duration::ZERO), 1, Duration::ZERO),
        };
        let batched = batch_count > 1 && self.pool.outstanding_count() >= batch_count;
        self.pool.want(if batched { batch_count } else { 1 });
        let mut count = 0;
        if batched && self.pool.is_behind() {
            let batch_time = timeout.map_or(batch_time, |timeout| timeout.min(batch_time));
            count = self.wait(Some(batch_time))?;
            self.pool.want(1);
        }
        // No event yet: either nothing has happened, or the pool's outcomes are fewer than asked.
        if count == 0 {
            let timeout = if self.pool.is_behind() { timeout } else { Some(Duration::ZERO) };
            count = self.wait(timeout)?;
        }
        for at in 0..count {
            let event = self.events[at];
            if event.u64 != NOTIFIER {
                self.on_event(event);
            }
        }
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
        for queue in descriptor.queues {
            let mut at = queue.first;
            while at != NONE {
                let Entry { key, next, .. } = self.entries[at as usize];
                self.unlink(key);
                self.end(key, Completion::error(libc::ECANCELED));
                at = next;
            }
        }
        if descriptor.registered {
            // It fails if the descriptor was closed already, which did the same.
            let _ = epoll_control(&self.epoll, libc::EPOLL_CTL_DEL, fd, 0, 0);
        }
        self.descriptors[fd as usize] = UNKNOWN;
    }

    fn provide(&mut self, _pool: &Rc<LeasePool>) {}

    fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    fn thread_count(&self) -> usize {
        self.pool.thread_count()
    }

    fn stop(&mut self, deadline: Instant) -> bool {
        self.pool.stop(deadline)
    }
}

fn epoll_control(
    epoll: &OwnedFd,
    operation: c_int,
    fd: RawFd,
    events: u32,
    data: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the event is a local.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &raw mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The descriptor and direction whose readiness decides when an op goes on, where that is one. A
/// position does not matter here: pipes ignore it.
fn direction(op: &Op) -> Option<(RawFd, Interest)> {
    let (handle, interest) = match *op {
        Op::Read { handle, .. }
        | Op::ReadVectored { handle, .. }
        | Op::Accept { handle, .. }
        | Op::AcceptMulti { handle, .. }
        | Op::Recv { handle, .. }
        | Op::RecvMsg { handle, .. } => (handle, Interest::Read),
        Op::Write { handle, .. }
        | Op::WriteVectored { handle, .. }
        | Op::Connect { handle, .. }
        | Op::Send { handle, .. }
        | Op::SendZeroCopy { handle, .. }
        | Op::SendMsg { handle, .. } => (handle, Interest::Write),
        _ => return None,
    };
    Some((handle.fd(), interest))
}

/// Whether `fd` is a stream socket.
fn is_stream(fd: RawFd) -> bool {
    let mut kind: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: value and length are locals of the option's type.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut len)
    };
    result == 0 && kind == libc::SOCK_STREAM
}
