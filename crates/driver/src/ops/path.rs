//! Operations on paths: opening, asking, and changing directories.

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::rc::Rc;

use super::unit;
use crate::choice::EngineName;
use crate::driver::Driver;
use crate::future::{OpFuture, Operation};
use crate::handle::{Held, SharedHandle};
use crate::op::{Completion, Handle, Op};

/// See [`open`].
pub struct Open {
    driver: Rc<Driver>,
    path: CString,
    flags: c_int,
    mode: u32,
    direct: bool,
}

// SAFETY: the path is on the heap and the operation owns it.
unsafe impl Operation for Open {
    type Output = io::Result<SharedHandle>;

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        // Another ring than the one that would know the descriptor polls for its ops.
        let is_polled =
            self.flags & libc::O_DIRECT != 0 && self.driver.engine() == EngineName::UringIopoll;
        self.direct = self.direct || !is_polled && self.driver.reserve_direct();
        Op::Open {
            dir: Handle::CURRENT_DIR,
            path: self.path.as_ptr(),
            flags: self.flags,
            mode: self.mode,
            direct: self.direct,
        }
    }

    fn complete(self, completion: Completion) -> Self::Output {
        let handle = handle_of(&self.driver, completion, self.direct)?;
        if self.flags & libc::O_DIRECT != 0 {
            self.driver.admit(handle.handle())?;
        }
        Ok(handle)
    }

    fn discard(self, completion: Completion) {
        close_unwanted(&self.driver, completion, self.direct);
    }
}

/// The handle that an op has made, which is a direct descriptor if it was asked for one.
pub(super) fn handle_of(
    driver: &Rc<Driver>,
    completion: Completion,
    direct: bool,
) -> io::Result<SharedHandle> {
    match completion.into_result() {
        Ok(result) => Ok(SharedHandle::from_op(driver.clone(), Held::from_result(result, direct))),
        Err(error) => {
            if direct {
                driver.release_direct();
            }
            Err(error)
        }
    }
}

/// INV-ORPHAN: nobody will take the handle that an op has made.
pub(super) fn close_unwanted(driver: &Rc<Driver>, completion: Completion, direct: bool) {
    drop(handle_of(driver, completion, direct));
}

/// Opens `path`, with the flags and mode of `openat(2)`.
pub fn open(driver: &Rc<Driver>, path: CString, flags: c_int, mode: u32) -> OpFuture<Open> {
    OpFuture::new(Open { driver: driver.clone(), path, flags, mode, direct: false })
}

/// See [`stat`] and [`stat_path`].
pub struct Stat {
    driver: Rc<Driver>,
    handle: Option<SharedHandle>,
    path: CString,
    flags: c_int,
    out: Box<MaybeUninit<libc::statx>>,
}

// SAFETY: path and result are on the heap and the operation owns them.
unsafe impl Operation for Stat {
    type Output = io::Result<Box<libc::statx>>;

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        Op::Stat {
            // The ring has no form of it for direct descriptors.
            dir: self.handle.as_ref().map_or(Handle::CURRENT_DIR, SharedHandle::fd_handle),
            path: self.path.as_ptr(),
            flags: self.flags,
            mask: libc::STATX_BASIC_STATS
                | libc::STATX_BTIME
                | libc::STATX_MNT_ID
                | libc::STATX_DIOALIGN,
            out: self.out.as_mut_ptr(),
        }
    }

    fn complete(self, completion: Completion) -> Self::Output {
        unit(completion)?;
        // SAFETY: the kernel fills the structure when the call succeeds.
        Ok(unsafe { self.out.assume_init() })
    }
}

/// What `statx(2)` knows of an open file.
pub fn stat(handle: &SharedHandle) -> OpFuture<Stat> {
    let operation = Stat {
        driver: handle.driver().clone(),
        handle: Some(handle.clone()),
        path: CString::default(),
        flags: libc::AT_EMPTY_PATH,
        out: Box::new(MaybeUninit::uninit()),
    };
    OpFuture::new(operation)
}

/// What `statx(2)` knows of a path; with `AT_SYMLINK_NOFOLLOW` in `flags`, of the link itself.
pub fn stat_path(driver: &Rc<Driver>, path: CString, flags: c_int) -> OpFuture<Stat> {
    let out = Box::new(MaybeUninit::uninit());
    OpFuture::new(Stat { driver: driver.clone(), handle: None, path, flags, out })
}

/// An operation on one or two paths: see the functions that return it.
pub struct OnPath {
    driver: Rc<Driver>,
    first: CString,
    second: CString,
    argument: u32,
    op: fn(&CStr, &CStr, u32) -> Op,
}

// SAFETY: the paths are on the heap and the operation owns them.
unsafe impl Operation for OnPath {
    type Output = io::Result<()>;

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        (self.op)(&self.first, &self.second, self.argument)
    }

    fn complete(self, completion: Completion) -> Self::Output {
        unit(completion)
    }
}

const HERE: Handle = Handle::CURRENT_DIR;

/// Gives `from` the name `to`, with the flags of `renameat2(2)`.
pub fn rename(driver: &Rc<Driver>, from: CString, to: CString, flags: u32) -> OpFuture<OnPath> {
    let op = |from: &CStr, to: &CStr, flags| Op::Rename {
        from_dir: HERE,
        from: from.as_ptr(),
        to_dir: HERE,
        to: to.as_ptr(),
        flags,
    };
    OpFuture::new(OnPath { driver: driver.clone(), first: from, second: to, argument: flags, op })
}

/// Removes a file's name, or with `AT_REMOVEDIR` in `flags` an empty directory.
pub fn unlink(driver: &Rc<Driver>, path: CString, flags: c_int) -> OpFuture<OnPath> {
    let op = |path: &CStr, _: &CStr, flags| Op::Unlink {
        dir: HERE,
        path: path.as_ptr(),
        flags: flags as c_int,
    };
    let second = CString::default();
    OpFuture::new(OnPath {
        driver: driver.clone(),
        first: path,
        second,
        argument: flags as u32,
        op,
    })
}

/// Makes a directory with these permissions, less the process's umask.
pub fn make_dir(driver: &Rc<Driver>, path: CString, mode: u32) -> OpFuture<OnPath> {
    let op = |path: &CStr, _: &CStr, mode| Op::MakeDir { dir: HERE, path: path.as_ptr(), mode };
    let second = CString::default();
    OpFuture::new(OnPath { driver: driver.clone(), first: path, second, argument: mode, op })
}

/// Gives the file at `from` the further name `to`.
pub fn link(driver: &Rc<Driver>, from: CString, to: CString) -> OpFuture<OnPath> {
    let op = |from: &CStr, to: &CStr, _| Op::Link {
        from_dir: HERE,
        from: from.as_ptr(),
        to_dir: HERE,
        to: to.as_ptr(),
        flags: 0,
    };
    OpFuture::new(OnPath { driver: driver.clone(), first: from, second: to, argument: 0, op })
}

/// Makes `path` a symbolic link to `target`.
pub fn symlink(driver: &Rc<Driver>, target: CString, path: CString) -> OpFuture<OnPath> {
    let op = |target: &CStr, path: &CStr, _| Op::Symlink {
        target: target.as_ptr(),
        dir: HERE,
        path: path.as_ptr(),
    };
    OpFuture::new(OnPath { driver: driver.clone(), first: target, second: path, argument: 0, op })
}
