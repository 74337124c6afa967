//! Handles that ops share: the descriptor stays open until the last op on it has ended, so that
//! no op ever acts on a number that belongs to somebody else by then.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::driver::Driver;
use crate::op::Handle;

/// A handle and the driver that carries out its ops. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct SharedHandle(Rc<Inner>);

struct Inner {
    /// Taken only by `into_fd`.
    fd: Option<OwnedFd>,
    driver: Rc<Driver>,
}

impl SharedHandle {
    /// Takes a descriptor in that an op of this driver has made.
    pub(crate) fn from_op(driver: Rc<Driver>, fd: OwnedFd) -> SharedHandle {
        SharedHandle(Rc::new(Inner { fd: Some(fd), driver }))
    }

    /// Takes a foreign descriptor in. Sockets are put in the mode that the driver's engine needs:
    /// whether `O_NONBLOCK` is set is the engine's business from here on.
    pub fn adopt(driver: &Rc<Driver>, fd: OwnedFd) -> SharedHandle {
        set_nonblocking(fd.as_raw_fd(), driver.wants_nonblocking());
        SharedHandle::from_op(driver.clone(), fd)
    }

    /// What ops act on.
    pub fn handle(&self) -> Handle {
        Handle::from_fd(self.as_raw_fd())
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
    /// op in flight still holds it.
    pub fn into_fd(self) -> Result<OwnedFd, SharedHandle> {
        let mut inner = Rc::try_unwrap(self.0).map_err(SharedHandle)?;
        let fd = inner.fd.take().expect("taken only here");
        inner.driver.forget(Handle::from_fd(fd.as_raw_fd()));
        set_nonblocking(fd.as_raw_fd(), false);
        Ok(fd)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(fd) = &self.fd {
            self.driver.forget(Handle::from_fd(fd.as_raw_fd()));
        }
    }
}

impl AsRawFd for SharedHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for SharedHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_ref().expect("taken only when nobody else has the handle").as_fd()
    }
}

impl std::fmt::Debug for SharedHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedHandle({})", self.as_raw_fd())
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
