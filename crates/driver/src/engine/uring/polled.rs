//! The second ring of `uring-iopoll`: the device is polled for positional reads and writes of files
//! that were opened past the page cache (`O_DIRECT`). There are no interrupts for them, and nothing
//! but asking the device finds their completions.
//!
//! Deliberately not here: when to ask, which is the turn's business (`uring`).

use std::collections::VecDeque;
use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::atomic::{Ordering, fence};
use std::task::Waker;

use super::encode::encode;
use super::named_error;
use super::ring::{Ring, Sqe};
use crate::engine::PROOF_TIME_MAX;
use crate::notify::Notifier;
use crate::op::{Completion, Handle, Op, Opcode, Position};
use crate::table::{Key, Table};

/// Where an op goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Not known yet: looked up at the first op.
    Unknown,
    /// To the first ring, as everything else.
    Interrupts,
    /// To the ring that polls.
    Polled,
    /// Nowhere: the device has no polled queues, and that was not allowed for.
    Refused,
}

const EINVAL_RESULT: i32 = -libc::EINVAL;

/// What may be polled for.
pub(super) fn may_be_polled(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::Read | Opcode::Write | Opcode::ReadVectored | Opcode::WriteVectored)
}

pub(super) struct Polled {
    ring: Ring,
    /// What found the queue full.
    backlog: VecDeque<Sqe>,
    /// Taken in and not completed.
    in_flight_count: usize,
    /// By descriptor.
    ways: Vec<Way>,
    allows_unpolled: bool,
}

impl Polled {
    pub(super) fn new(ring: Ring, allows_unpolled: bool) -> Polled {
        let (backlog, ways) = (VecDeque::new(), Vec::new());
        Polled { ring, backlog, in_flight_count: 0, ways, allows_unpolled }
    }

    /// Proves the ring by an op that goes through the kernel and back. Whether a device can be
    /// polled only its files show.
    pub(super) fn prove(&mut self) -> io::Result<()> {
        let deadline = crate::clock::now() + PROOF_TIME_MAX;
        let mut table = Table::new();
        let key = table.insert(false);
        // SAFETY: it points at nothing.
        unsafe { self.submit(key, &Op::Nop {}) };
        while self.in_flight_count > 0 {
            if crate::clock::now() >= deadline {
                return Err(io::Error::from_raw_os_error(libc::ETIME));
            }
            self.enter()?;
            self.reap(&mut table);
        }
        let completion = table.take(key, Waker::noop()).expect("nothing is in flight");
        match completion.result {
            // Old kernels refuse a no-op on a ring that polls, which is an answer too.
            0 | EINVAL_RESULT => Ok(()),
            _ => completion.into_result().map(drop),
        }
    }

    /// The way of an op.
    pub(super) fn way(&mut self, op: &Op) -> Way {
        let (Op::Read { handle, position, .. }
        | Op::Write { handle, position, .. }
        | Op::ReadVectored { handle, position, .. }
        | Op::WriteVectored { handle, position, .. }) = *op
        else {
            return Way::Interrupts;
        };
        if position == Position::Cursor || handle.direct_index().is_some() {
            return Way::Interrupts;
        }
        match self.ways.get(handle.fd() as usize) {
            Some(Way::Unknown) | None => self.look_up(handle),
            Some(&way) => way,
        }
    }

    #[cold]
    fn look_up(&mut self, handle: Handle) -> Way {
        let Ok(at) = usize::try_from(handle.fd()) else { return Way::Interrupts };
        let way = match device_of_direct(handle.fd()) {
            None => Way::Interrupts,
            Some(device) if device.has_polled_queues() => Way::Polled,
            Some(_) if self.allows_unpolled => Way::Interrupts,
            Some(_) => Way::Refused,
        };
        if self.ways.len() <= at {
            self.ways.resize(at + 1, Way::Unknown);
        }
        self.ways[at] = way;
        way
    }

    pub(super) fn forget(&mut self, handle: Handle) {
        if let Some(way) = self.ways.get_mut(handle.fd() as usize) {
            *way = Way::Unknown;
        }
    }

    /// Why reads and writes of this file would be refused, by the name of its device.
    pub(super) fn admit(&mut self, handle: Handle) -> io::Result<()> {
        if handle.direct_index().is_some() || self.look_up(handle) != Way::Refused {
            return Ok(());
        }
        let device = device_of_direct(handle.fd());
        let name = device.map_or_else(|| "its device".to_owned(), |device| device.name());
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "engine 'uring-iopoll' cannot poll {name}, which has no polled queues: give its \
                 driver some (nvme.poll_queues=N on the kernel's command line), allow interrupts \
                 where there are none (Builder::allow_unpolled), or use engine 'uring'"
            ),
        ))
    }

    /// Takes an op in.
    ///
    /// # Safety
    /// INV-BUF: what the op points at stays in place and untouched until the completion.
    pub(super) unsafe fn submit(&mut self, key: Key, op: &Op) {
        let mut op = *op;
        if let Op::Read { fixed, .. } | Op::Write { fixed, .. } = &mut op {
            // Buffers are registered with the first ring.
            *fixed = None;
        }
        let mut sqe = Sqe::default();
        encode(&op, key.to_user_data(), &mut sqe);
        self.in_flight_count += 1;
        // SAFETY: the caller's contract.
        if !self.backlog.is_empty() || !unsafe { self.ring.push(sqe) } {
            self.backlog.push_back(sqe);
        }
    }

    /// Ends an op that the kernel has not been shown; one that it has ends by itself, within the
    /// device's time. (The ring refuses cancels.)
    pub(super) fn cancel(&mut self, key: Key) -> bool {
        let user_data = key.to_user_data();
        let Some(at) = self.backlog.iter().position(|sqe| sqe.user_data == user_data) else {
            return false;
        };
        self.backlog.remove(at);
        self.in_flight_count -= 1;
        true
    }

    pub(super) fn in_flight_count(&self) -> usize {
        self.in_flight_count
    }

    /// Whether a thread of the kernel's submits and asks the device.
    pub(super) fn has_thread(&self) -> bool {
        self.ring.has_thread()
    }

    pub(super) fn has_completions(&self) -> bool {
        self.ring.has_completions()
    }

    /// Has the kernel's thread wake the driver for completions while it waits for the first ring.
    pub(super) fn notify(&self, notifier: &Notifier) -> io::Result<()> {
        self.ring.register_eventfd(notifier.fd())?;
        self.ring.set_eventfd_enabled(false);
        Ok(())
    }

    /// The driver is about to wait for the first ring. Completions that came before are seen by
    /// whoever looks after this call; those that come after wake the driver.
    pub(super) fn announce_sleep(&self) {
        self.ring.set_eventfd_enabled(true);
        fence(Ordering::SeqCst);
    }

    #[cfg(feature = "metrics")]
    pub(super) fn entry_count(&self) -> u64 {
        self.ring.entries.value()
    }

    pub(super) fn announce_awake(&self) {
        if self.has_thread() {
            self.ring.set_eventfd_enabled(false);
        }
    }

    /// Hands over what is staged and asks the device once, without waiting.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        if self.in_flight_count == 0 {
            return Ok(());
        }
        while let Some(&sqe) = self.backlog.front() {
            // SAFETY: INV-BUF, promised to `submit`.
            if !unsafe { self.ring.push(sqe) } {
                break;
            }
            self.backlog.pop_front();
        }
        match self.ring.enter() {
            // What is there has to be taken first; or no memory for a request just now.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {
                Ok(())
            }
            result => result,
        }
    }

    /// Takes the completions out of the queue: how many.
    pub(super) fn reap(&mut self, table: &mut Table) -> usize {
        let mut count = 0;
        while let Some(cqe) = self.ring.pop() {
            let key = Key::from_user_data(cqe.user_data).expect("ops only");
            let result = if cqe.result < 0 { named_error(cqe.result) } else { cqe.result };
            table.complete(key, Completion::new(result));
            count += 1;
        }
        self.ring.release_popped();
        self.in_flight_count -= count;
        count
    }
}

/// A block device, by its numbers.
struct Device {
    major: u32,
    minor: u32,
}

/// The device of a file that was opened past the page cache.
fn device_of_direct(fd: RawFd) -> Option<Device> {
    // SAFETY: no pointers; a bad descriptor fails.
    let flags: c_int = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 || flags & libc::O_DIRECT == 0 {
        return None;
    }
    // SAFETY: all-zero is a valid value of the structure, which the call fills in.
    let stat = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &raw mut stat) != 0 {
            return None;
        }
        stat
    };
    let number = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => stat.st_dev,
        libc::S_IFBLK => stat.st_rdev,
        _ => return None,
    };
    Some(Device { major: libc::major(number), minor: libc::minor(number) })
}

impl Device {
    fn dir(&self) -> PathBuf {
        PathBuf::from(format!("/sys/dev/block/{}:{}", self.major, self.minor))
    }

    /// A partition has the queues of the device that it is a part of. A file system without a
    /// device of its own (overlay, btrfs, tmpfs) has none.
    fn has_polled_queues(&self) -> bool {
        ["queue/io_poll", "../queue/io_poll"].iter().any(|queue| {
            std::fs::read_to_string(self.dir().join(queue)).is_ok_and(|text| text.trim() == "1")
        })
    }

    fn name(&self) -> String {
        let Device { major, minor } = self;
        match std::fs::read_link(self.dir()).ok().as_ref().and_then(|path| path.file_name()) {
            Some(name) => format!("the device {} ({major}:{minor})", name.to_string_lossy()),
            None => format!("the file system {major}:{minor}"),
        }
    }
}
