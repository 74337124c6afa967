//! The engines made of system calls: `aio`, `epoll`, `epoll-level`, `poll`, `select`, `threads`
//! and `blocking`.
//!
//! They differ in two things, and `aio` in a third, a way to files of its own (`aio`): the [`Policy`], which ops are attempted on the driver's thread and
//! which on the pool, and the [`Readiness`], by which call readiness is waited for (`poller`).
//! Whatever has to wait for a peer waits by readiness, in the one wait that is the turn of the
//! loop, so that a receiver that waits holds no thread.
//!
//! Registrations are kept between ops: a descriptor is registered when an op first has to wait
//! for it, and what it is known to be ready for is remembered, so that neither a system call for
//! waiting nor a failing attempt is made where the answer is known. Edge-triggered, that memory
//! and the events are all there is. Level-triggered, a descriptor is armed when an op begins to
//! wait and stays so until it is reported with nobody waiting: an op that follows another finds
//! it armed, and a descriptor that nobody reads does not keep the loop awake.

mod aio;
mod lender;
mod poller;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use libc::c_int;

use self::aio::{Aio, Ended};
use self::lender::{Lender, Loan};
pub(crate) use self::poller::Readiness;
use self::poller::{ALWAYS, Events, Poller, Ready};
use super::{Engine, Submitted, Support, Wait};
use crate::attempt::{Attempt, Class, Interest, Outcome};
use crate::clock::Instant;
use crate::diagnosis::{Failure, Step};
use crate::lease::LeasePool;
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

/// Level-triggered: a descriptor that was reported so often, one time after the other, while the
/// ops that waited for it had to wait on, is not asked about for a while. It has something that
/// they do not take, such as an error queue, and would keep the loop busy.
const FUTILE_MAX: u8 = 16;
const FUTILE_PAUSE: Duration = Duration::from_millis(10);
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
    pub(crate) fn new(
        policy: Policy,
        readiness: Readiness,
        threads_max: usize,
        thread_name: &str,
    ) -> io::Result<Calls> {
        let mut poller = Poller::new(readiness)?;
        let notifier = Arc::new(Notifier::new()?);
        let clears_notifier = poller.add_own(notifier.fd())?;
        Ok(Calls {
            policy,
            poller,
            edge: readiness == Readiness::EpollEdge,
            has_fd_limit: readiness == Readiness::Select,
            pool: Pool::new(threads_max, thread_name.to_owned(), notifier.clone()),
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

    /// The engine `aio`: as `epoll`, with so many requests of native AIO in flight at most.
    pub(crate) fn with_aio(
        in_flight_max: u32,
        threads_max: usize,
        thread_name: &str,
    ) -> Result<Calls, Failure> {
        let (policy, readiness) = (Policy::DevicesOnPool, Readiness::EpollEdge);
        let mut calls = Calls::new(policy, readiness, threads_max, thread_name)
            .map_err(Failure::at(Step::Register))?;
        let aio = Aio::new(in_flight_max)?;
        calls.poller.add_own(aio.eventfd()).map_err(Failure::at(Step::Register))?;
        calls.aio = Some(Box::new(aio));
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

    /// Stages an op for native AIO, if that is for it.
    ///
    /// # Safety
    /// As for `submit`.
    unsafe fn stage_aio(&mut self, key: Key, op: &Op) -> bool {
        let fits = match *op {
            Op::Read { handle, .. }
            | Op::Write { handle, .. }
            | Op::ReadVectored { handle, .. }
            | Op::WriteVectored { handle, .. } => self.is_direct(handle.fd()),
            _ => true,
        };
        let Some(aio) = self.aio.as_mut().filter(|_| fits) else {
            return false;
        };
        // SAFETY: the caller's contract.
        let is_staged = unsafe { aio.stage(key, op) };
        if is_staged {
            self.remember(key, *op, Place::Aio);
        }
        is_staged
    }

    /// Whether reads and writes of `fd` go past the page cache.
    #[inline]
    fn is_direct(&mut self, fd: RawFd) -> bool {
        match self.descriptors.get(fd as usize) {
            Some(&Descriptor { direct: Some(direct), .. }) => direct,
            _ => self.learn_direct(fd),
        }
    }

    #[cold]
    fn learn_direct(&mut self, fd: RawFd) -> bool {
        // SAFETY: no pointers.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        if flags < 0 {
            return false;
        }
        let direct = flags & libc::O_DIRECT != 0 && poller::is_file(fd);
        self.descriptor(fd).direct = Some(direct);
        direct
    }

    /// Hands over what is staged for native AIO, and takes what it has ended.
    fn turn_aio(&mut self) -> io::Result<()> {
        let Some(aio) = &mut self.aio else { return Ok(()) };
        let mut refused = Vec::new();
        aio.submit(|data, errno| refused.push((data, errno)));
        for (data, errno) in refused {
            let key = Key::from_user_data(data).expect("staged with a key");
            self.on_aio_ended(Ended { key, result: -errno });
        }
        self.reap_aio()
    }

    fn reap_aio(&mut self) -> io::Result<()> {
        let Some(aio) = &mut self.aio else { return Ok(()) };
        let mut ended = std::mem::take(&mut self.aio_ended);
        let result = aio.reap(&mut ended);
        self.take_aio_ended(ended);
        result.map(drop)
    }

    fn take_aio_ended(&mut self, mut ended: Vec<Ended>) {
        for ended in ended.drain(..) {
            self.on_aio_ended(ended);
        }
        self.aio_ended = ended;
    }

    fn on_aio_ended(&mut self, ended: Ended) {
        let Ended { key, result } = ended;
        let Some(&mut Entry { op, cancelled, .. }) = self.entry(key) else {
            return;
        };
        match -result {
            // It would have waited while it was handed over, or the file system does not know how
            // not to: for a thread.
            libc::EAGAIN | libc::EOPNOTSUPP if cancelled => {
                self.end(key, Completion::error(libc::ECANCELED));
            }
            errno @ (libc::EAGAIN | libc::EOPNOTSUPP) => {
                if let Op::Read { handle, .. }
                | Op::Write { handle, .. }
                | Op::ReadVectored { handle, .. }
                | Op::WriteVectored { handle, .. } = op
                    && errno == libc::EOPNOTSUPP
                {
                    self.descriptor(handle.fd()).direct = Some(false);
                }
                self.entries[key.index()].place = Place::Pool;
                self.hand_to_pool(key, op, Attempt::First);
            }
            _ => self.end(key, Completion::new(result)),
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

    /// Whether every descriptor that `op` may have to wait for can be waited for.
    #[cold]
    fn takes(&self, op: &Op) -> bool {
        let taken = |handle: Handle| self.poller.takes(handle.fd());
        match (op.class(), *op) {
            (Class::Device | Class::Instant | Class::Clock, _) => true,
            (_, Op::Poll { handle, .. }) => taken(handle),
            (_, Op::Splice { from, to, .. }) => taken(from) && taken(to),
            _ => direction(op).is_none_or(|(fd, _)| self.poller.takes(fd)),
        }
    }

    /// Registers `fd`: edge-triggered, for whatever may happen to it.
    fn register(&mut self, fd: RawFd) -> io::Result<()> {
        if self.edge {
            self.poller.watch(fd)?;
        } else {
            self.poller.admit(fd)?;
        }
        let stream = is_stream(fd);
        let edge = self.edge;
        let descriptor = self.descriptor(fd);
        *descriptor = Descriptor {
            registered: true,
            stream,
            // Edge-triggered, what it is ready for now comes as the first event.
            readable: !edge,
            writable: !edge,
            ..*descriptor
        };
        Ok(())
    }

    /// Level-triggered: has the poller report `fd` when the ops that wait for it can go on.
    fn arm(&mut self, fd: RawFd) -> io::Result<()> {
        let was = self.descriptors[fd as usize].armed;
        let wanted = self.wanted_events(fd).map(|wanted| wanted | was.unwrap_or(0));
        if wanted == was || wanted.is_none() {
            return Ok(());
        }
        self.poller.arm(fd, was, wanted)?;
        self.descriptors[fd as usize].armed = wanted;
        Ok(())
    }

    /// Level-triggered: takes back what no op waits for.
    fn disarm(&mut self, fd: RawFd, wanted: Option<Events>) {
        let was = std::mem::replace(&mut self.descriptors[fd as usize].armed, wanted);
        if was != wanted && self.poller.arm(fd, was, wanted).is_err() {
            // The kernel forgot it: closed behind the driver's back. The ops find out.
            self.descriptors[fd as usize].armed = None;
        }
    }

    /// What the ops that wait for `fd` wait for, but for those whose turn has not come. `None`
    /// without any.
    fn wanted_events(&self, fd: RawFd) -> Option<Events> {
        let Descriptor { queues: [read, write, any], with_pool, .. } =
            self.descriptors[fd as usize];
        let mut wanted = None::<Events>;
        let mut want = |events| wanted = Some(wanted.unwrap_or(0) | events);
        if read.first != NONE && !with_pool[Interest::Read as usize] {
            want(libc::POLLIN | libc::POLLRDHUP);
            // Urgent data stays reported until it is taken: only for who waits for it.
            if let Op::Recv { flags, .. } | Op::RecvMsg { flags, .. } =
                self.entries[read.first as usize].op
                && flags & libc::MSG_OOB != 0
            {
                want(libc::POLLPRI);
            }
        }
        if write.first != NONE && !with_pool[Interest::Write as usize] {
            want(libc::POLLOUT);
        }
        let mut at = any.first;
        while at != NONE {
            let Entry { op, next, .. } = self.entries[at as usize];
            // The ring reports this one unasked.
            want(libc::POLLRDHUP);
            if let Op::Poll { events, .. } = op {
                want(events);
            }
            at = next;
        }
        wanted
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
                return self.refuse_wait(key, fd, &error);
            }
            if !self.edge {
                self.descriptor(fd).set_ready(interest, false);
            }
        } else {
            let was_ready = self.descriptor(fd).set_ready(interest, false);
            // The attempt was made on another thread: it may have been before the event. (What is
            // level-triggered says so again.)
            if self.edge && was_ready && !known {
                return Some(Attempt::Again);
            }
        }
        self.enqueue(key, fd, interest);
        if !self.edge
            && let Err(error) = self.arm(fd)
        {
            self.unlink(key);
            return self.refuse_wait(key, fd, &error);
        }
        // An event may have been taken while a poll was attempted elsewhere.
        (self.edge && interest == Interest::Any && !known && self.is_polled_ready(key)).then(|| {
            self.unlink(key);
            Attempt::Again
        })
    }

    /// `fd` cannot be waited for.
    #[cold]
    fn refuse_wait(&mut self, key: Key, fd: RawFd, error: &io::Error) -> Option<Attempt> {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        if errno == libc::EPERM {
            let descriptor = self.descriptor(fd);
            descriptor.registered = false;
            descriptor.unpollable = true;
            return Some(Attempt::MayBlock);
        }
        self.end(key, Completion::error(errno));
        None
    }

    /// Whether the poll of `key` is due by now.
    fn is_polled_ready(&self, key: Key) -> bool {
        let op = self.entries[key.index()].op;
        // SAFETY: a poll has no pointers.
        matches!(op, Op::Poll { .. })
            && matches!(unsafe { self.lender.attempt(&op, Attempt::Again) }, Outcome::Done(_))
    }

    /// Puts an op in the queue of those that wait for `fd`.
    #[inline]
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
        self.queued_count += 1;
    }

    /// The same for an op whose descriptor is registered.
    #[inline]
    fn enqueue_armed(&mut self, key: Key, fd: RawFd, interest: Interest) {
        self.enqueue(key, fd, interest);
        if !self.edge
            && let Err(error) = self.arm(fd)
        {
            self.unlink(key);
            self.end(key, Completion::error(error.raw_os_error().unwrap_or(libc::EIO)));
        }
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
        self.queued_count -= 1;
    }

    /// Whether it is known that an attempt at `op` would have to wait.
    fn would_wait(&self, op: &Op) -> Option<(RawFd, Interest)> {
        let (Op::Recv { flags, .. }
        | Op::RecvMsg { flags, .. }
        | Op::Send { flags, .. }
        | Op::SendMsg { flags, .. }) = *op
        else {
            // A connect has to be attempted once in any case, and streams may not be pollable.
            return matches!(op, Op::Accept { .. } | Op::AcceptMulti { .. } | Op::RecvMulti { .. })
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
        let (handle, len, flags) = match *op {
            Op::Recv { handle, len, flags, .. } => (handle, len, flags),
            Op::RecvMulti { handle } => (handle, self.lender.buffer_len(), 0),
            _ => return false,
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
            && let Op::Recv { handle, .. } | Op::RecvMulti { handle } = *op
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
        for (fd, interest) in sides(op).into_iter().flatten() {
            if let Some(descriptor) = self.registered(fd) {
                descriptor.set_ready(interest, true);
                self.advance(fd, interest);
            }
        }
    }

    /// Level-triggered: an op is no longer with the pool, so that those behind it may be told of.
    fn rearm_sides(&mut self, op: &Op) {
        for (fd, interest) in sides(op).into_iter().flatten() {
            let Some(descriptor) = self.registered(fd) else { continue };
            descriptor.with_pool[interest as usize] = false;
            if let Err(error) = self.arm(fd) {
                self.end_queued(fd, error.raw_os_error().unwrap_or(libc::EIO));
            }
        }
    }

    /// Ends the ops that wait for `fd`.
    fn end_queued(&mut self, fd: RawFd, errno: c_int) {
        for queue in self.descriptors[fd as usize].queues {
            let mut at = queue.first;
            while at != NONE {
                let Entry { key, next, .. } = self.entries[at as usize];
                self.unlink(key);
                self.end(key, Completion::error(errno));
                at = next;
            }
        }
    }

    /// What an event says about a descriptor; then its queues move on.
    fn on_ready(&mut self, ready: Ready) {
        let Ready { fd, events } = ready;
        let Some(descriptor) = self.descriptors.get_mut(fd as usize) else {
            return;
        };
        let gone = events & ALWAYS != 0;
        let end = gone || events & libc::POLLRDHUP != 0;
        descriptor.readable |= end || events & (libc::POLLIN | libc::POLLPRI) != 0;
        descriptor.writable |= gone || events & libc::POLLOUT != 0;
        // Level-triggered, the next wait tells.
        descriptor.never_drained |= self.edge && (end || events & libc::POLLPRI != 0);
        if self.edge {
            self.advance_ready(fd);
            return;
        }
        let wanted = self.wanted_events(fd);
        let went_on = self.advance_ready(fd);
        let is_wanted = wanted.is_some_and(|wanted| events & !(wanted | ALWAYS) == 0);
        if !is_wanted {
            let wanted = self.wanted_events(fd);
            self.disarm(fd, wanted);
        }
        let descriptor = &mut self.descriptors[fd as usize];
        descriptor.futile_count = match went_on || descriptor.armed.is_none() {
            true => 0,
            false => descriptor.futile_count + 1,
        };
        if descriptor.futile_count > FUTILE_MAX {
            self.pause(fd);
        }
    }

    /// Moves on what waits for something that `fd` is ready for. Whether an op went on.
    #[inline]
    fn advance_ready(&mut self, fd: RawFd) -> bool {
        let Descriptor { readable, writable, queues: [read, write, any], .. } =
            self.descriptors[fd as usize];
        let mut went_on = false;
        if readable && read.first != NONE {
            went_on |= self.advance(fd, Interest::Read);
        }
        if writable && write.first != NONE {
            went_on |= self.advance(fd, Interest::Write);
        }
        if any.first != NONE {
            went_on |= self.advance(fd, Interest::Any);
        }
        went_on
    }

    /// Does not ask about `fd` for a while.
    #[cold]
    fn pause(&mut self, fd: RawFd) {
        self.descriptors[fd as usize].futile_count = 0;
        self.disarm(fd, None);
        self.paused.push(fd);
        self.paused_until.get_or_insert_with(|| crate::clock::now() + FUTILE_PAUSE);
    }

    #[cold]
    fn resume_paused(&mut self) {
        self.paused_until = None;
        for fd in std::mem::take(&mut self.paused) {
            // It was armed before, and was not closed since: the driver would have forgotten it.
            let _ = self.arm(fd);
        }
    }

    /// Attempts the ops that wait for `fd`, in order, until one has to wait on. Whether one did
    /// not.
    fn advance(&mut self, fd: RawFd, interest: Interest) -> bool {
        let mut went_on = false;
        let mut at = self.descriptors[fd as usize].queues[interest as usize].first;
        while at != NONE {
            let Entry { key, op, next, .. } = self.entries[at as usize];
            if self.policy != Policy::DevicesOnPool || op.class() != Class::Peer {
                // What is known to be ready may take a thread's time now: one at a time in each
                // direction, in order.
                self.unlink(key);
                self.hand_to_pool(key, op, Attempt::Again);
                if !self.edge && interest != Interest::Any {
                    self.descriptors[fd as usize].with_pool[interest as usize] = true;
                    let wanted = self.wanted_events(fd);
                    self.disarm(fd, wanted);
                }
                went_on = true;
                if interest != Interest::Any {
                    return true;
                }
            } else {
                // SAFETY: INV-BUF, promised to `submit`: the op has not completed.
                match unsafe { self.lender.attempt(&op, Attempt::Again) } {
                    Outcome::Done(completion) => {
                        self.unlink(key);
                        self.after_inline(&op, completion);
                        self.end(key, completion);
                        went_on = true;
                    }
                    // Polls for different events wait for each other's no more than this.
                    Outcome::Wait { .. } if interest == Interest::Any => {}
                    Outcome::Wait { .. } => {
                        self.descriptors[fd as usize].set_ready(interest, false);
                        return went_on;
                    }
                }
            }
            at = next;
        }
        went_on
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

    /// Waits until so many requests of native AIO have ended, but no longer than `batch_time`.
    /// Returns what is left of the timeout.
    fn wait_aio(
        &mut self,
        batch_count: usize,
        batch_time: Duration,
        timeout: Option<Duration>,
    ) -> io::Result<Option<Duration>> {
        let Some(aio) = &mut self.aio else { return Ok(timeout) };
        let batch_time = timeout.map_or(batch_time, |timeout| timeout.min(batch_time));
        let mut ended = std::mem::take(&mut self.aio_ended);
        let result = aio.wait(batch_count, batch_time, &mut ended);
        self.take_aio_ended(ended);
        result?;
        Ok(match self.ended.is_empty() {
            true => timeout.map(|timeout| timeout - batch_time),
            false => Some(Duration::ZERO),
        })
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
                self.remember(key, op, Place::Pool);
                if let Some((fd, interest)) = self.would_wait(&op) {
                    self.enqueue_armed(key, fd, interest);
                    return Submitted::Pending;
                }
                let mut which = Attempt::First;
                loop {
                    // SAFETY: the caller's contract.
                    match unsafe { self.lender.attempt(&op, which) } {
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
        if let Some(aio) = &self.aio {
            if aio.is_stalled() {
                timeout = Some(timeout.map_or(STALL_PAUSE, |timeout| timeout.min(STALL_PAUSE)));
            }
            if batch_count > 1 && aio.in_flight_count() >= batch_count {
                timeout = self.wait_aio(batch_count, batch_time, timeout)?;
            }
        }
        let batched = batch_count > 1 && self.pool.outstanding_count() >= batch_count;
        self.pool.want(if batched { batch_count } else { 1 });
        let mut count = 0;
        if batched && self.pool.is_behind() {
            let batch_time = timeout.map_or(batch_time, |timeout| timeout.min(batch_time));
            count = self.poller.wait(Some(batch_time))?;
            timeout = timeout.map(|timeout| timeout - batch_time);
            self.pool.want(1);
        }
        // No event yet: either nothing has happened, or the pool's outcomes are fewer than asked.
        if count == 0 {
            let timeout = if self.pool.is_behind() { timeout } else { Some(Duration::ZERO) };
            // A look at what nobody waits for is not worth a system call.
            if timeout != Some(Duration::ZERO) || self.queued_count > 0 {
                count = self.poller.wait(timeout)?;
            }
        }
        let notifier = self.notifier.fd();
        for at in 0..count {
            let ready = self.poller.ready(at);
            if ready.fd != notifier {
                // That native AIO has something to say is no descriptor's affair.
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

    fn thread_count(&self) -> usize {
        self.pool.thread_count()
    }

    fn stop(&mut self, deadline: Instant) -> bool {
        self.pool.stop(deadline)
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
        | Op::RecvMulti { handle }
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

/// All that an op may wait for.
fn sides(op: &Op) -> [Option<(RawFd, Interest)>; 2] {
    match *op {
        // It may wait for either side.
        Op::Splice { from, to, .. } => {
            [Some((from.fd(), Interest::Read)), Some((to.fd(), Interest::Write))]
        }
        _ => [direction(op), None],
    }
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
