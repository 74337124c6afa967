//! What the engine `aio` does that its kin do not: files open past the page cache, and syncs, go to
//! the kernel's own queue (`aio`), and what that does not take goes to the pool after all.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::aio::Ended;
use super::{Calls, Descriptor, Entry, Place, poller};
use crate::attempt::Attempt;
use crate::op::{Completion, Op};
use crate::table::Key;

impl Calls {
    /// Stages an op for native AIO, if that is for it.
    ///
    /// # Safety
    /// As for `submit`.
    pub(super) unsafe fn stage_aio(&mut self, key: Key, op: &Op) -> bool {
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
    pub(super) fn is_direct(&mut self, fd: RawFd) -> bool {
        match self.descriptors.get(fd as usize) {
            Some(&Descriptor { direct: Some(direct), .. }) => direct,
            _ => self.learn_direct(fd),
        }
    }

    #[cold]
    pub(super) fn learn_direct(&mut self, fd: RawFd) -> bool {
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
    pub(super) fn turn_aio(&mut self) -> io::Result<()> {
        let Some(aio) = &mut self.aio else { return Ok(()) };
        let mut refused = Vec::new();
        aio.submit(|data, errno| refused.push((data, errno)));
        for (data, errno) in refused {
            let key = Key::from_user_data(data).expect("staged with a key");
            self.on_aio_ended(Ended { key, result: -errno });
        }
        self.reap_aio()
    }

    pub(super) fn reap_aio(&mut self) -> io::Result<()> {
        let Some(aio) = &mut self.aio else { return Ok(()) };
        let mut ended = std::mem::take(&mut self.aio_ended);
        let result = aio.reap(&mut ended);
        self.take_aio_ended(ended);
        result
    }

    pub(super) fn take_aio_ended(&mut self, mut ended: Vec<Ended>) {
        for ended in ended.drain(..) {
            self.on_aio_ended(ended);
        }
        self.aio_ended = ended;
    }

    pub(super) fn on_aio_ended(&mut self, ended: Ended) {
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

    /// With requests of native AIO in flight: waits for so many of them, or for any event, or outcome
    /// of the pool. Returns how many descriptors are ready.
    pub(super) fn wait_with_aio(
        &mut self,
        batch_count: usize,
        batch_time: Duration,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let Some(aio) = &mut self.aio else { return Ok(0) };
        self.pool.want(1);
        if timeout != Some(Duration::ZERO) && self.pool.is_behind() {
            let mut ended = std::mem::take(&mut self.aio_ended);
            let result = aio.wait(batch_count, batch_time, timeout, &mut ended);
            self.take_aio_ended(ended);
            result?;
        }
        match &self.aio {
            Some(aio) if aio.is_watching() => Ok(0),
            _ => {
                self.waits.count();
                self.poller.wait(Some(Duration::ZERO))
            }
        }
    }
}
