//! Handles that ops share: the descriptor stays open until the last op on it has ended, so that
//! no op ever acts on a number that belongs to somebody else by then.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use libc::c_int;

use crate::addr::RawAddr;
use crate::driver::Driver;
use crate::engine::Support;
use crate::lease::Lease;
use crate::op::{Handle, Opcode};
use crate::receiver::{Received, Receiver, Stopped};

/// A handle and the driver that carries out its ops. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct SharedHandle(Rc<Inner>);

struct Inner {
    held: Held,
    /// There once a lease was asked for.
    receiver: RefCell<Option<Box<Receiver>>>,
    driver: Rc<Driver>,
}

/// What has to be closed.
pub(crate) enum Held {
    Fd(OwnedFd),
    /// An index in the ring's table, and the file descriptor that was made for it where one was
    /// needed.
    Direct(u32, OnceCell<OwnedFd>),
    /// Taken by `into_fd` or `into_held`.
    Nothing,
}

impl Held {
    /// Takes in what an op has made.
    pub(crate) fn from_result(result: u32, direct: bool) -> Held {
        if direct { Held::Direct(result, OnceCell::new()) } else { Held::Fd(owned_fd(result)) }
    }

    /// Closes it without asking how that went.
    pub(crate) fn close(self, driver: &Driver) {
        if let Held::Direct(index, _) = self {
            driver.close_direct(index);
        }
    }
}

impl SharedHandle {
    /// Takes in what an op of this driver has made.
    pub(crate) fn from_op(driver: Rc<Driver>, held: Held) -> SharedHandle {
        SharedHandle(Rc::new(Inner { held, receiver: RefCell::new(None), driver }))
    }

    /// Takes a foreign descriptor in. Sockets are put in the mode that the driver's engine needs:
    /// whether `O_NONBLOCK` is set is the engine's business from here on.
    pub fn adopt(driver: &Rc<Driver>, fd: OwnedFd) -> SharedHandle {
        set_nonblocking(fd.as_raw_fd(), driver.wants_nonblocking());
        SharedHandle::from_op(driver.clone(), Held::Fd(fd))
    }

    /// Takes in a descriptor whose mode is somebody else's business, because they make calls on it too:
    /// `O_NONBLOCK` stays as it is. For ops that do not depend on it, such as a poll.
    pub fn adopt_as_is(driver: &Rc<Driver>, fd: OwnedFd) -> SharedHandle {
        SharedHandle::from_op(driver.clone(), Held::Fd(fd))
    }

    /// What ops act on.
    #[inline]
    pub fn handle(&self) -> Handle {
        match &self.0.held {
            Held::Fd(fd) => Handle::from_fd(fd.as_raw_fd()),
            Held::Direct(index, _) => Handle::from_direct(*index),
            Held::Nothing => unreachable!("taken only when nobody else has the handle"),
        }
    }

    /// The descriptor, for calls that only the process can make. A direct descriptor is given one
    /// of the process when that is first asked for (`IORING_OP_FIXED_FD_INSTALL`, 6.8), which
    /// fails with `EMFILE` if there are too many, and stays until the handle is closed.
    pub fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.0.held {
            Held::Fd(fd) => Ok(fd.as_fd()),
            Held::Direct(index, installed) => {
                if let Some(fd) = installed.get() {
                    return Ok(fd.as_fd());
                }
                let fd = self.0.driver.install(*index)?;
                Ok(installed.get_or_init(|| fd).as_fd())
            }
            Held::Nothing => unreachable!("taken only when nobody else has the handle"),
        }
    }

    /// What ops act on that the ring has no form of.
    pub(crate) fn fd_handle(&self) -> Handle {
        // The op says EBADF if there is none.
        self.fd().map_or(Handle::from_fd(-1), |fd| Handle::from_fd(fd.as_raw_fd()))
    }

    /// Whether ops of this kind can act on the handle itself: on a direct descriptor only those
    /// that the ring carries out can.
    pub(crate) fn is_reachable(&self, opcode: Opcode) -> bool {
        matches!(self.0.held, Held::Fd(_)) || self.0.driver.support(opcode) == Some(Support::Native)
    }

    /// The driver that carries out the handle's ops.
    pub fn driver(&self) -> &Rc<Driver> {
        &self.0.driver
    }

    /// Whether an op in flight, or a clone, still holds the handle.
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// The descriptor, out of the driver's care and in blocking mode. Fails with the handle if an
    /// op in flight still holds it, or if bytes were received that nobody has taken.
    pub fn into_fd(self) -> Result<OwnedFd, SharedHandle> {
        if self.is_shared() || !self.try_stop() || self.fd().is_err() {
            return Err(self);
        }
        let mut inner = Rc::try_unwrap(self.0).map_err(SharedHandle)?;
        let fd = match std::mem::replace(&mut inner.held, Held::Nothing) {
            Held::Fd(fd) => fd,
            Held::Direct(index, mut installed) => {
                inner.driver.close_direct(index);
                installed.take().expect("asked for above")
            }
            Held::Nothing => unreachable!("taken only here"),
        };
        inner.driver.forget(Handle::from_fd(fd.as_raw_fd()));
        set_nonblocking(fd.as_raw_fd(), false);
        Ok(fd)
    }

    /// What has to be closed, for an op that does it. Fails with the handle if an op in flight
    /// still holds it.
    pub(crate) fn into_held(self) -> Result<Held, SharedHandle> {
        if self.is_shared() {
            return Err(self);
        }
        if let Some(receiver) = &mut *self.0.receiver.borrow_mut() {
            receiver.try_stop();
        }
        let mut inner = Rc::try_unwrap(self.0).map_err(SharedHandle)?;
        // A receive that has not ended was told to, and both come before the close in the order of
        // submissions.
        *inner.receiver.get_mut() = None;
        let held = std::mem::replace(&mut inner.held, Held::Nothing);
        if let Held::Fd(fd) = &held {
            inner.driver.forget(Handle::from_fd(fd.as_raw_fd()));
        }
        Ok(held)
    }

    /// Ends a receive in flight. False if there are bytes that nobody has taken.
    fn try_stop(&self) -> bool {
        match &mut *self.0.receiver.borrow_mut() {
            Some(receiver) => receiver.try_stop(),
            None => true,
        }
    }

    /// Whether leases were asked for: bytes may have been received in advance.
    pub fn has_receiver(&self) -> bool {
        self.0.receiver.borrow().is_some()
    }

    /// The next bytes of a socket, in a lease; an empty one at the end of a stream.
    #[inline]
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Lease>> {
        let receiver = &mut *self.0.receiver.borrow_mut();
        let make = || Box::new(Receiver::new(&self.0.driver, self.handle(), false));
        receiver.get_or_insert_with(make).poll_recv(cx)
    }

    /// The next datagram of a socket in a lease, its sender, and its flags (`MSG_TRUNC`).
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Lease, RawAddr, c_int)>> {
        let receiver = &mut *self.0.receiver.borrow_mut();
        let make = || Box::new(Receiver::new(&self.0.driver, self.handle(), true));
        receiver.get_or_insert_with(make).poll_recv_from(cx)
    }

    /// For a receive of another kind: what was received before it and has to come first, if
    /// anything. `take` is handed it.
    #[inline]
    pub(crate) fn poll_received<R>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(Received<'_>) -> R,
    ) -> Poll<Result<Option<R>, i32>> {
        match &mut *self.0.receiver.borrow_mut() {
            None => Poll::Ready(Ok(None)),
            Some(receiver) => receiver.poll_stop(cx).map(|stopped| match stopped {
                Stopped::Nothing => Ok(None),
                Stopped::Failed(errno) => Err(errno),
                Stopped::Received(received) => Ok(Some(take(received))),
            }),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Fd(fd) => {
                self.driver.forget(Handle::from_fd(fd.as_raw_fd()));
                // An op that is in flight, or still to be submitted, names it by number.
                if let Some(receiver) = self.receiver.get_mut() {
                    receiver.outlive(fd);
                }
            }
            // It is closed by an op, after those that name it.
            Held::Direct(index, _) => {
                *self.receiver.get_mut() = None;
                self.driver.close_direct(index);
            }
            Held::Nothing => {}
        }
    }
}

impl AsRawFd for SharedHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// # Panics
/// If the process has no descriptor left to give to a direct one: see [`SharedHandle::fd`].
impl AsFd for SharedHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd().expect("a descriptor of the process for a direct one")
    }
}

impl std::fmt::Debug for SharedHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.held {
            Held::Fd(fd) => write!(f, "SharedHandle({})", fd.as_raw_fd()),
            Held::Direct(index, _) => write!(f, "SharedHandle(direct {index})"),
            Held::Nothing => f.write_str("SharedHandle(closed)"),
        }
    }
}

/// Sets or clears `O_NONBLOCK`.
pub(crate) fn set_nonblocking(fd: RawFd, nonblocking: bool) {
    // SAFETY: no pointers; a bad descriptor fails.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        let wanted = if nonblocking { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
        if flags >= 0 && wanted != flags {
            libc::fcntl(fd, libc::F_SETFL, wanted);
        }
    }
}

/// The result of an op that makes a descriptor.
pub(crate) fn owned_fd(result: u32) -> OwnedFd {
    // SAFETY: the kernel has just made it for this op, and the op's result is taken once.
    unsafe { OwnedFd::from_raw_fd(result as RawFd) }
}
