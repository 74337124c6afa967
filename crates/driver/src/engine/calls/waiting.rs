//! Ops that wait for a descriptor: its queues, what it is known to be ready for, and what the poller
//! is asked about it.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::c_int;

use super::poller::{ALWAYS, Events, Ready};
use super::{Calls, Descriptor, Entry, NONE, Place, Policy};
use crate::attempt::{Attempt, Class, Interest, Outcome};
use crate::op::{Completion, Handle, Op};
use crate::table::Key;

/// Level-triggered: a descriptor that was reported so often, one time after the other, while the
/// ops that waited for it had to wait on, is not asked about for a while. It has something that
/// they do not take, such as an error queue, and would keep the loop busy.
const FUTILE_MAX: u8 = 16;
const FUTILE_PAUSE: Duration = Duration::from_millis(10);

impl Calls {
    /// Whether every descriptor that `op` may have to wait for can be waited for.
    #[cold]
    pub(super) fn takes(&self, op: &Op) -> bool {
        let taken = |handle: Handle| self.poller.takes(handle.fd());
        match (op.class(), *op) {
            (Class::Device | Class::Instant | Class::Clock, _) => true,
            (_, Op::Poll { handle, .. }) => taken(handle),
            (_, Op::Splice { from, to, .. }) => taken(from) && taken(to),
            _ => direction(op).is_none_or(|(fd, _)| self.poller.takes(fd)),
        }
    }

    /// Registers `fd`: edge-triggered, for whatever may happen to it.
    pub(super) fn register(&mut self, fd: RawFd) -> io::Result<()> {
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
    pub(super) fn arm(&mut self, fd: RawFd) -> io::Result<()> {
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
    pub(super) fn disarm(&mut self, fd: RawFd, wanted: Option<Events>) {
        let was = std::mem::replace(&mut self.descriptors[fd as usize].armed, wanted);
        if was != wanted && self.poller.arm(fd, was, wanted).is_err() {
            // The kernel forgot it: closed behind the driver's back. The ops find out.
            self.descriptors[fd as usize].armed = None;
        }
    }

    /// What the ops that wait for `fd` wait for, but for those whose turn has not come. `None`
    /// without any.
    pub(super) fn wanted_events(&self, fd: RawFd) -> Option<Events> {
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
    pub(super) fn wait_for(
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
    pub(super) fn refuse_wait(
        &mut self,
        key: Key,
        fd: RawFd,
        error: &io::Error,
    ) -> Option<Attempt> {
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
    pub(super) fn is_polled_ready(&self, key: Key) -> bool {
        let op = self.entries[key.index()].op;
        // SAFETY: a poll has no pointers.
        matches!(op, Op::Poll { .. })
            && matches!(unsafe { self.lender.attempt(&op, Attempt::Again) }, Outcome::Done(_))
    }

    /// Puts an op in the queue of those that wait for `fd`.
    #[inline]
    pub(super) fn enqueue(&mut self, key: Key, fd: RawFd, interest: Interest) {
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
    pub(super) fn enqueue_armed(&mut self, key: Key, fd: RawFd, interest: Interest) {
        self.enqueue(key, fd, interest);
        if !self.edge
            && let Err(error) = self.arm(fd)
        {
            self.unlink(key);
            self.end(key, Completion::error(error.raw_os_error().unwrap_or(libc::EIO)));
        }
    }

    /// Takes an op out of the queue it waits in.
    pub(super) fn unlink(&mut self, key: Key) {
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
    pub(super) fn would_wait(&self, op: &Op) -> Option<(RawFd, Interest)> {
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

    pub(super) fn known_to_wait(&self, op: &Op) -> Option<(RawFd, Interest)> {
        let (fd, interest) = direction(op)?;
        let descriptor = self.descriptors.get(fd as usize)?;
        (descriptor.registered && !descriptor.is_ready(interest)).then_some((fd, interest))
    }

    /// A short read of a stream took all there was: the next one has to wait for an event.
    pub(super) fn has_drained(&self, op: &Op, completion: Completion) -> bool {
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
    pub(super) fn after_inline(&mut self, op: &Op, completion: Completion) {
        if self.has_drained(op, completion)
            && let Op::Recv { handle, .. } | Op::RecvMulti { handle } = *op
        {
            self.descriptors[handle.fd() as usize].readable = false;
        }
    }

    /// An op completed on the pool, or came back from it unattempted: its descriptor may be ready
    /// for the next one.
    pub(super) fn after_pool(&mut self, op: &Op, completion: Option<Completion>) {
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
    pub(super) fn rearm_sides(&mut self, op: &Op) {
        for (fd, interest) in sides(op).into_iter().flatten() {
            let Some(descriptor) = self.registered(fd) else { continue };
            descriptor.with_pool[interest as usize] = false;
            if let Err(error) = self.arm(fd) {
                self.end_queued(fd, error.raw_os_error().unwrap_or(libc::EIO));
            }
        }
    }

    /// Ends the ops that wait for `fd`.
    pub(super) fn end_queued(&mut self, fd: RawFd, errno: c_int) {
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
    pub(super) fn on_ready(&mut self, ready: Ready) {
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
    pub(super) fn advance_ready(&mut self, fd: RawFd) -> bool {
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
    pub(super) fn pause(&mut self, fd: RawFd) {
        self.descriptors[fd as usize].futile_count = 0;
        self.disarm(fd, None);
        self.paused.push(fd);
        self.paused_until.get_or_insert_with(|| crate::clock::now() + FUTILE_PAUSE);
    }

    #[cold]
    pub(super) fn resume_paused(&mut self) {
        self.paused_until = None;
        for fd in std::mem::take(&mut self.paused) {
            // It was armed before, and was not closed since: the driver would have forgotten it.
            let _ = self.arm(fd);
        }
    }

    /// Attempts the ops that wait for `fd`, in order, until one has to wait on. Whether one did
    /// not.
    pub(super) fn advance(&mut self, fd: RawFd, interest: Interest) -> bool {
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
}

/// The descriptor and direction whose readiness decides when an op goes on, where that is one. A
/// position does not matter here: pipes ignore it.
pub(super) fn direction(op: &Op) -> Option<(RawFd, Interest)> {
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
