//! Receiving into leases: the one receive that is in flight for a socket, for whoever asks next.
//!
//! A receiver belongs to a handle and comes into being when a lease is first asked for. On a ring
//! its receive is multishot: it stays armed, and each arrival takes a buffer of the pool. What has
//! arrived and was not asked for yet waits in the table; when that becomes much, the receive ends
//! until the next lease is asked for, and the peer is held up by the socket's own buffer.
//!
//! Receives into memory of the user's come after what the receiver already has (see
//! [`Receiver::poll_stop`]), so that both kinds can be mixed.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use std::ptr::null_mut;

use libc::{c_int, iovec, msghdr};
use linux_raw_sys::io_uring::io_uring_recvmsg_out;

use crate::addr::RawAddr;
use crate::buf::IoBuf;
use crate::driver::Driver;
use crate::engine::Support;
use crate::future::{OpFuture, Operation};
use crate::lease::{Lease, LeasePool};
use crate::multishot::{Multishot, OpStream};
use crate::op::{Completion, Handle, Op, Opcode};

/// How often a receive that found no buffer is started again before memory of the heap is used.
const STARVED_MAX: u32 = 3;

/// The receive in flight. It does not share the handle, which owns it, but takes the descriptor
/// over if the handle goes first: see [`Receiver::outlive`].
struct ReceiveMulti {
    driver: Rc<Driver>,
    handle: Handle,
    pool: Rc<LeasePool>,
    /// The shape of a message, for a socket of datagrams.
    message: Option<Box<Message>>,
    /// Closed when the last op on it has ended.
    fd: Option<OwnedFd>,
}

/// How a datagram and its sender lie in a lease, as the ring lays them out
/// (`io_uring_prep_recvmsg_multishot(3)`): a header, the address, the payload.
struct Message {
    header: msghdr,
    iov: iovec,
}

/// Bytes of the header, `struct io_uring_recvmsg_out`: the lengths of address and control data, the
/// payload's, and the flags, 4 bytes each.
const HEADER_LEN: usize = size_of::<io_uring_recvmsg_out>();
/// Room for an address of any family.
const NAME_LEN: usize = size_of::<libc::sockaddr_storage>();
/// Where the payload begins.
const PAYLOAD: usize = HEADER_LEN + NAME_LEN;

impl Message {
    fn new() -> Box<Message> {
        // SAFETY: an all-zero header is an empty message.
        let mut header: msghdr = unsafe { std::mem::zeroed() };
        header.msg_namelen = NAME_LEN as u32;
        Box::new(Message { header, iov: iovec { iov_base: null_mut(), iov_len: 0 } })
    }

    /// Points at a whole lease.
    fn link(&mut self, lease: &mut Lease) -> *mut msghdr {
        let (name, payload) = lease[HEADER_LEN..].split_at_mut(NAME_LEN);
        self.iov = iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
        self.header.msg_name = name.as_mut_ptr().cast();
        self.header.msg_iov = &raw mut self.iov;
        self.header.msg_iovlen = 1;
        &raw mut self.header
    }

    /// Writes the header that the ring would have written.
    fn seal(&self, lease: &mut Lease, payload_len: u32) {
        let fields = [self.header.msg_namelen, 0, payload_len, self.header.msg_flags as u32];
        for (field, at) in fields.into_iter().zip((0..HEADER_LEN).step_by(4)) {
            lease[at..at + 4].copy_from_slice(&field.to_ne_bytes());
        }
    }
}

/// The payload, the sender and the flags (`MSG_TRUNC`) of a datagram as it lies in a lease.
fn open(mut lease: Lease) -> (Lease, RawAddr, c_int) {
    let field = |at: usize| {
        let bytes = lease[at..at + 4].try_into().expect("four bytes");
        u32::from_ne_bytes(bytes)
    };
    let (name_len, flags) = (field(0), field(12) as c_int);
    let mut from = RawAddr::none();
    from.set_bytes(&lease[HEADER_LEN..PAYLOAD], name_len);
    lease.advance(PAYLOAD);
    (lease, from, flags)
}

// SAFETY: the message is on the heap and the operation owns it; the buffers are the pool's, which
// lives as long as the ring.
unsafe impl Multishot for ReceiveMulti {
    const READY_MAX: u32 = 8;

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        match &mut self.message {
            None => Op::RecvMulti { handle: self.handle },
            Some(message) => Op::RecvMsgMulti { handle: self.handle, msg: &raw mut message.header },
        }
    }

    fn discard(&mut self, completion: Completion) {
        if let Some(buffer) = completion.buffer() {
            self.pool.discard(buffer);
        }
    }
}

/// A receive that does not wait, into a whole lease.
struct ReceiveOnce {
    driver: Rc<Driver>,
    handle: Handle,
    lease: Lease,
    message: Option<Box<Message>>,
    fd: Option<OwnedFd>,
}

// SAFETY: a lease's memory stays where it is, the message is on the heap, and the operation owns
// both.
unsafe impl Operation for ReceiveOnce {
    type Output = (Completion, Lease);

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        let (handle, flags) = (self.handle, libc::MSG_DONTWAIT);
        if let Some(message) = &mut self.message {
            return Op::RecvMsg { handle, msg: message.link(&mut self.lease), flags };
        }
        let len = IoBuf::len(&self.lease) as u32;
        Op::Recv { handle, buf: self.lease.as_mut_ptr(), len, flags }
    }

    fn complete(mut self, completion: Completion) -> (Completion, Lease) {
        match &self.message {
            Some(message) if completion.result >= 0 => {
                let payload_len = completion.result as u32;
                message.seal(&mut self.lease, payload_len);
                (Completion::new((PAYLOAD as u32 + payload_len) as i32), self.lease)
            }
            _ => (completion, self.lease),
        }
    }
}

/// Waits until there is something to receive.
struct Readable {
    driver: Rc<Driver>,
    handle: Handle,
    fd: Option<OwnedFd>,
}

// SAFETY: no pointers.
unsafe impl Operation for Readable {
    type Output = Completion;

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        Op::Poll { handle: self.handle, events: libc::POLLIN }
    }

    fn complete(self, completion: Completion) -> Completion {
        completion
    }
}

/// Where a receive without a buffer of the kernel's choice stands: it looks whether there is data,
/// and waits without a buffer if there is none.
enum Step {
    Idle,
    Receive(OpFuture<ReceiveOnce>),
    Wait(OpFuture<Readable>),
}

/// What every receive looks at comes first and is small; the rest lies elsewhere, or is nothing.
#[repr(C)]
pub(crate) struct Receiver {
    multi: OpStream<ReceiveMulti>,
    /// Made with the first step, and kept.
    step: Option<Box<Step>>,
    /// Received, and not or only partly taken.
    front: Option<Box<Lease>>,
    account: u32,
    starved_count: u32,
    /// Whether the engine takes buffers from the pool by itself.
    is_native: bool,
    /// Those who wait for the step that is in flight.
    waiting: Vec<Waker>,
}

/// What a receiver has for a receive of another kind.
pub(crate) enum Stopped<'a> {
    /// Bytes that come first.
    Received(Received<'a>),
    /// A failure that comes first.
    Failed(c_int),
    /// Nothing, and nothing is in flight.
    Nothing,
}

/// Bytes, or a datagram, that were received in advance.
pub(crate) struct Received<'a> {
    front: &'a mut Option<Box<Lease>>,
    is_datagram: bool,
}

impl Received<'_> {
    /// Copies them to where `iov` points: how many, and the sender and flags of a datagram. What
    /// was copied is gone from here, and so is what a datagram has more; with `MSG_PEEK` in
    /// `flags` nothing is.
    ///
    /// # Safety
    /// Each of `iov` points at so many bytes that may be written.
    pub(crate) unsafe fn copy_to(
        self,
        iov: &[iovec],
        flags: c_int,
    ) -> (usize, Option<(RawAddr, c_int)>) {
        let lease = self.front.as_mut().expect("handed over because it is there");
        let start = if self.is_datagram { PAYLOAD } else { 0 };
        let mut rest = &lease[start..];
        for part in iov {
            let count = rest.len().min(part.iov_len);
            // SAFETY: the caller's contract; a lease's memory is its own.
            unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), part.iov_base.cast(), count) };
            rest = &rest[count..];
        }
        let (left_count, copied) = (rest.len(), lease.len() - start - rest.len());
        if flags & libc::MSG_PEEK != 0 {
            return (copied, None);
        }
        if self.is_datagram {
            let (_, from, flags) = open(*self.front.take().expect("as above"));
            let cut = if left_count > 0 { libc::MSG_TRUNC } else { 0 };
            return (copied, Some((from, flags | cut)));
        }
        lease.advance(copied);
        if left_count == 0 {
            *self.front = None;
        }
        (copied, None)
    }
}

impl Receiver {
    /// For a stream, or for a socket of datagrams, whose boundaries and senders are kept.
    pub(crate) fn new(driver: &Rc<Driver>, handle: Handle, of_datagrams: bool) -> Receiver {
        let pool = driver.leases().clone();
        let account = pool.open_account();
        let opcode = if of_datagrams { Opcode::RecvMsgMulti } else { Opcode::RecvMulti };
        let is_native = driver.support(opcode) != Some(Support::Unsupported);
        let message = of_datagrams.then(Message::new);
        let multi = ReceiveMulti { driver: driver.clone(), handle, pool, message, fd: None };
        Receiver {
            multi: OpStream::new(multi),
            step: None,
            front: None,
            account,
            starved_count: 0,
            is_native,
            waiting: Vec::new(),
        }
    }

    /// The next datagram, its sender and its flags.
    pub(crate) fn poll_recv_from(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Lease, RawAddr, c_int)>> {
        self.poll_recv(cx).map_ok(|lease| match lease.is_empty() {
            // A Unix socket that was shut down.
            true => (lease, RawAddr::none(), 0),
            false => open(lease),
        })
    }

    /// The next bytes; an empty lease at the end of a stream.
    #[inline]
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Lease>> {
        if let Some(lease) = self.front.take() {
            return Poll::Ready(Ok(*lease));
        }
        loop {
            if self.is_stepping() {
                return self.poll_step_for_all(cx);
            }
            let was_armed = self.multi.is_armed();
            if !was_armed && !self.may_arm() {
                self.start_step();
                continue;
            }
            let completion = ready!(self.multi.poll_next(cx));
            match completion.result {
                0.. => return Poll::Ready(Ok(self.lease_of(completion))),
                error if error == -libc::ENOBUFS => {
                    self.starved_count += 1;
                    let has_provided = self.multi.operation().pool.has_provided();
                    if self.starved_count > STARVED_MAX || !has_provided {
                        self.starved_count = 0;
                        self.start_step();
                    }
                }
                // It was told to end, because what came was not taken.
                error if error == -libc::ECANCELED && was_armed => {}
                error if error == -libc::EINTR => {}
                // Sockets of a kind that the kernel has no multishot form for.
                error if error == -libc::EINVAL || error == -libc::EOPNOTSUPP => {
                    self.is_native = false;
                }
                error => return Poll::Ready(Err(io::Error::from_raw_os_error(-error))),
            }
        }
    }

    /// Whether the receive may take buffers of the pool by itself.
    fn may_arm(&mut self) -> bool {
        let account = self.account;
        self.is_native && !self.multi.operation().pool.is_over_share(account)
    }

    #[inline]
    fn lease_of(&mut self, completion: Completion) -> Lease {
        self.starved_count = 0;
        let account = self.account;
        let pool = &self.multi.operation().pool;
        let Some(buffer) = completion.buffer() else {
            return Lease::empty();
        };
        let (lease, has_share) = pool.lease_filled(buffer, completion.result as u32, account);
        if has_share && completion.has_more() {
            // Whoever hoards leases gets the next ones from the heap.
            self.multi.cancel();
        }
        lease
    }

    #[inline]
    fn is_stepping(&self) -> bool {
        self.step.as_ref().is_some_and(|step| !matches!(**step, Step::Idle))
    }

    fn set_step(&mut self, step: Step) {
        match &mut self.step {
            Some(place) => **place = step,
            None => self.step = Some(Box::new(step)),
        }
    }

    fn start_step(&mut self) {
        let account = self.account;
        let operation = self.multi.operation();
        let receive = ReceiveOnce {
            driver: operation.driver.clone(),
            handle: operation.handle,
            lease: operation.pool.lease(account),
            message: operation.message.is_some().then(Message::new),
            fd: None,
        };
        self.set_step(Step::Receive(OpFuture::new(receive)));
    }

    /// The op of a step knows one waker only.
    fn poll_step_for_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Lease>> {
        let polled = self.poll_step(cx);
        if polled.is_ready() {
            self.waiting.drain(..).for_each(Waker::wake);
        } else if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
        polled
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Lease>> {
        loop {
            match self.step.as_deref_mut() {
                None | Some(Step::Idle) => unreachable!("asked before"),
                Some(Step::Receive(receive)) => {
                    let (completion, mut lease) = ready!(std::pin::Pin::new(receive).poll(cx));
                    self.set_step(Step::Idle);
                    match completion.result {
                        0 => return Poll::Ready(Ok(Lease::empty())),
                        count @ 1.. => {
                            lease.truncate(count as usize);
                            return Poll::Ready(Ok(lease));
                        }
                        error if error == -libc::EAGAIN => {
                            // The lease goes back: who waits holds none.
                            let operation = self.multi.operation();
                            let wait = Readable {
                                driver: operation.driver.clone(),
                                handle: operation.handle,
                                fd: None,
                            };
                            self.set_step(Step::Wait(OpFuture::new(wait)));
                        }
                        error => return Poll::Ready(Err(io::Error::from_raw_os_error(-error))),
                    }
                }
                Some(Step::Wait(wait)) => {
                    let completion = ready!(std::pin::Pin::new(wait).poll(cx));
                    self.set_step(Step::Idle);
                    if completion.result < 0 {
                        let error = io::Error::from_raw_os_error(-completion.result);
                        return Poll::Ready(Err(error));
                    }
                    self.start_step();
                }
            }
        }
    }

    /// For a receive of another kind: what comes first, once nothing is in flight here.
    pub(crate) fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<Stopped<'_>> {
        loop {
            if self.front.is_some() {
                let is_datagram = self.multi.operation().message.is_some();
                let front = &mut self.front;
                return Poll::Ready(Stopped::Received(Received { front, is_datagram }));
            }
            let result = match self.step.as_deref_mut() {
                None | Some(Step::Idle) if !self.multi.is_armed() => {
                    return Poll::Ready(Stopped::Nothing);
                }
                None | Some(Step::Idle) => {
                    self.multi.cancel();
                    let completion = ready!(self.multi.poll_next(cx));
                    if completion.result > 0 {
                        self.front = Some(Box::new(self.lease_of(completion)));
                    } else {
                        self.multi.operation().discard(completion);
                    }
                    completion.result
                }
                Some(Step::Receive(receive)) => {
                    let (completion, mut lease) = ready!(std::pin::Pin::new(receive).poll(cx));
                    self.set_step(Step::Idle);
                    if completion.result > 0 {
                        lease.truncate(completion.result as usize);
                        self.front = Some(Box::new(lease));
                    }
                    completion.result
                }
                Some(Step::Wait(_)) => {
                    // Dropping it is all that it takes: it consumes nothing.
                    self.set_step(Step::Idle);
                    0
                }
            };
            match -result {
                // The end of a stream comes again; the others are this receiver's own affair.
                ..=0 | libc::ECANCELED | libc::EINTR => {}
                libc::EAGAIN | libc::ENOBUFS | libc::EINVAL => {}
                errno => return Poll::Ready(Stopped::Failed(errno)),
            }
        }
    }

    /// Ends what is in flight, if that is possible at once. False if there are bytes, or an op
    /// that does not end.
    pub(crate) fn try_stop(&mut self) -> bool {
        /// A cancel ends a receive that waits with the submission of the cancel.
        const TURNS_MAX: u32 = 8;
        let driver = self.multi.operation().driver.clone();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..TURNS_MAX {
            match self.poll_stop(&mut cx) {
                Poll::Ready(Stopped::Nothing) => return true,
                Poll::Ready(_) => return false,
                Poll::Pending => {
                    let _ = driver.turn(false, None, || false);
                }
            }
        }
        false
    }

    /// The handle goes: its descriptor is closed when the last op here has ended. Whoever calls
    /// this drops the receiver next.
    pub(crate) fn outlive(&mut self, fd: OwnedFd) {
        // An op that was never submitted closes it at once.
        let fd = Some(fd);
        match self.step.as_deref_mut() {
            Some(Step::Receive(receive)) => receive.operation().expect("not finished").fd = fd,
            Some(Step::Wait(wait)) => wait.operation().expect("not finished").fd = fd,
            None | Some(Step::Idle) => self.multi.operation().fd = fd,
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let account = self.account;
        self.multi.operation().pool.close_account(account);
    }
}
