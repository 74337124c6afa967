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

use libc::c_int;

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
    /// Closed when the last op on it has ended.
    fd: Option<OwnedFd>,
}

// SAFETY: no pointers; the buffers are the pool's, which lives as long as the ring.
unsafe impl Multishot for ReceiveMulti {
    const READY_MAX: usize = 8;

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        Op::RecvMulti { handle: self.handle }
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
    fd: Option<OwnedFd>,
}

// SAFETY: a lease's memory stays where it is, and the operation owns it.
unsafe impl Operation for ReceiveOnce {
    type Output = (Completion, Lease);

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        Op::Recv {
            handle: self.handle,
            buf: self.lease.as_mut_ptr(),
            len: IoBuf::len(&self.lease) as u32,
            flags: libc::MSG_DONTWAIT,
        }
    }

    fn complete(self, completion: Completion) -> (Completion, Lease) {
        (completion, self.lease)
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

pub(crate) struct Receiver {
    multi: OpStream<ReceiveMulti>,
    step: Step,
    /// Whether the engine takes buffers from the pool by itself.
    is_native: bool,
    /// Received, and not or only partly taken.
    front: Option<Lease>,
    account: u32,
    starved_count: u32,
    /// Those who wait for the step that is in flight.
    waiting: Vec<Waker>,
}

/// What a receiver has for a receive of another kind.
pub(crate) enum Stopped<'a> {
    /// Bytes that come first.
    Lease(&'a mut Option<Lease>),
    /// A failure that comes first.
    Failed(c_int),
    /// Nothing, and nothing is in flight.
    Nothing,
}

impl Receiver {
    pub(crate) fn new(driver: &Rc<Driver>, handle: Handle) -> Receiver {
        let pool = driver.leases().clone();
        let account = pool.open_account();
        let is_native = driver.support(Opcode::RecvMulti) != Some(Support::Unsupported);
        let multi = ReceiveMulti { driver: driver.clone(), handle, pool, fd: None };
        Receiver {
            multi: OpStream::new(multi),
            step: Step::Idle,
            is_native,
            front: None,
            account,
            starved_count: 0,
            waiting: Vec::new(),
        }
    }

    /// The next bytes; an empty lease at the end of a stream.
    #[inline]
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Lease>> {
        if let Some(lease) = self.front.take() {
            return Poll::Ready(Ok(lease));
        }
        loop {
            if !matches!(self.step, Step::Idle) {
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
        let lease = pool.lease_provided(buffer, 0, completion.result as u32, account);
        if completion.has_more() && pool.is_over_share(account) {
            // Whoever hoards leases gets the next ones from the heap.
            self.multi.cancel();
        }
        lease
    }

    fn start_step(&mut self) {
        let account = self.account;
        let operation = self.multi.operation();
        let receive = ReceiveOnce {
            driver: operation.driver.clone(),
            handle: operation.handle,
            lease: operation.pool.lease(account),
            fd: None,
        };
        self.step = Step::Receive(OpFuture::new(receive));
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
            match &mut self.step {
                Step::Idle => unreachable!("asked before"),
                Step::Receive(receive) => {
                    let (completion, mut lease) = ready!(std::pin::Pin::new(receive).poll(cx));
                    self.step = Step::Idle;
                    match completion.result {
                        0 => return Poll::Ready(Ok(Lease::empty())),
                        count @ 1.. => {
                            lease.truncate(count as usize);
                            return Poll::Ready(Ok(lease));
                        }
                        error if error == -libc::EAGAIN => {
                            // The lease goes back: who waits holds none.
                            let operation = self.multi.operation();
                            self.step = Step::Wait(OpFuture::new(Readable {
                                driver: operation.driver.clone(),
                                handle: operation.handle,
                                fd: None,
                            }));
                        }
                        error => return Poll::Ready(Err(io::Error::from_raw_os_error(-error))),
                    }
                }
                Step::Wait(wait) => {
                    let completion = ready!(std::pin::Pin::new(wait).poll(cx));
                    self.step = Step::Idle;
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
                return Poll::Ready(Stopped::Lease(&mut self.front));
            }
            let result = match &mut self.step {
                Step::Idle if !self.multi.is_armed() => return Poll::Ready(Stopped::Nothing),
                Step::Idle => {
                    self.multi.cancel();
                    let completion = ready!(self.multi.poll_next(cx));
                    if completion.result > 0 {
                        self.front = Some(self.lease_of(completion));
                    } else {
                        self.multi.operation().discard(completion);
                    }
                    completion.result
                }
                Step::Receive(receive) => {
                    let (completion, mut lease) = ready!(std::pin::Pin::new(receive).poll(cx));
                    self.step = Step::Idle;
                    if completion.result > 0 {
                        lease.truncate(completion.result as usize);
                        self.front = Some(lease);
                    }
                    completion.result
                }
                Step::Wait(_) => {
                    // Dropping it is all that it takes: it consumes nothing.
                    self.step = Step::Idle;
                    0
                }
            };
            match -result {
                // The end of a stream comes again; the others are this receiver's own affair.
                ..=0 | libc::ECANCELED | libc::EAGAIN | libc::ENOBUFS | libc::EINVAL => {}
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
        match &mut self.step {
            Step::Receive(receive) => receive.operation().expect("not finished").fd = fd,
            Step::Wait(wait) => wait.operation().expect("not finished").fd = fd,
            Step::Idle => self.multi.operation().fd = fd,
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let account = self.account;
        self.multi.operation().pool.close_account(account);
    }
}
