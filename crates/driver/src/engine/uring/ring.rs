//! The ring itself: set-up, the shared queues, and the one system call.
//!
//! Deliberately not here: what a submission means (`encode`) and whose it is (`uring`).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use libc::{c_long, c_void};
use linux_raw_sys::io_uring as sys;

use crate::attempt::errno;
use crate::meter::Counter;
use crate::table::Key;

/// A submission queue entry, as the kernel lays it out, with one name for each field of unions.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Sqe {
    pub(crate) opcode: u8,
    pub(crate) flags: u8,
    pub(crate) ioprio: u16,
    pub(crate) fd: i32,
    pub(crate) off: u64,
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) op_flags: u32,
    pub(crate) user_data: u64,
    pub(crate) buf_index: u16,
    pub(crate) personality: u16,
    pub(crate) file_index: i32,
    pub(crate) addr3: u64,
    pub(crate) pad: u64,
}

const _: () = assert!(size_of::<Sqe>() == 64);

/// A completion queue entry.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Cqe {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

/// The flag of an entry that the next one is linked to (`IOSQE_IO_LINK`).
pub(crate) const LINK: u8 = 1 << (sys::io_uring_sqe_flags_bit::IOSQE_IO_LINK_BIT as u8);
/// User data of what stands in the place of an entry that was cut off.
const CUT: u64 = Key::internal(u32::MAX);

/// Set-up flags to try, the best first. Kernels before the one named refuse them with EINVAL.
const FLAG_LADDER: [u32; 4] = [
    // 6.6
    sys::IORING_SETUP_SUBMIT_ALL
        | sys::IORING_SETUP_SINGLE_ISSUER
        | sys::IORING_SETUP_DEFER_TASKRUN
        | sys::IORING_SETUP_TASKRUN_FLAG
        | sys::IORING_SETUP_NO_SQARRAY,
    // 6.1
    sys::IORING_SETUP_SUBMIT_ALL
        | sys::IORING_SETUP_SINGLE_ISSUER
        | sys::IORING_SETUP_DEFER_TASKRUN
        | sys::IORING_SETUP_TASKRUN_FLAG,
    // 5.19
    sys::IORING_SETUP_SUBMIT_ALL | sys::IORING_SETUP_COOP_TASKRUN | sys::IORING_SETUP_TASKRUN_FLAG,
    0,
];

/// Runs deferred work on the submitter's own entries: not for a ring that a kernel thread submits.
const TASKRUN_FLAGS: u32 = sys::IORING_SETUP_DEFER_TASKRUN
    | sys::IORING_SETUP_COOP_TASKRUN
    | sys::IORING_SETUP_TASKRUN_FLAG;

/// Who submits to a ring, and how completions are found.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mode {
    /// A thread of the kernel's takes the submissions (5.11 for everyone and any descriptor).
    pub(crate) thread: Option<SubmissionThread>,
    /// The device is polled; there are no interrupts.
    pub(crate) polls_device: bool,
    /// It sleeps for a part of the time that a request takes as a rule (6.13).
    pub(crate) is_hybrid: bool,
}

/// The kernel thread that takes a ring's submissions.
#[derive(Clone, Copy)]
pub(crate) struct SubmissionThread {
    /// Without submissions for so long, it naps until it is woken.
    pub(crate) idle_ms: u32,
    pub(crate) cpu: Option<u32>,
}

impl Mode {
    /// The set-up flags of this mode, for one rung of the ladder.
    fn flags(&self, rung: u32) -> u32 {
        let mut flags = rung;
        if let Some(thread) = &self.thread {
            flags = (flags & !TASKRUN_FLAGS) | sys::IORING_SETUP_SQPOLL;
            if thread.cpu.is_some() {
                flags |= sys::IORING_SETUP_SQ_AFF;
            }
        }
        if self.polls_device {
            flags |= sys::IORING_SETUP_IOPOLL;
        }
        if self.is_hybrid {
            flags |= sys::IORING_SETUP_HYBRID_IOPOLL;
        }
        flags
    }
}

/// A mapping of memory shared with the kernel.
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

impl Mapping {
    fn new(fd: RawFd, len: usize, offset: u32) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(null_mut(), len, protection, flags, fd, offset.into()) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Mapping { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A pointer to a `T` at `offset` bytes from the start.
    fn at<T>(&self, offset: u32) -> *mut T {
        debug_assert!(offset as usize + size_of::<T>() <= self.len);
        // SAFETY: the kernel's offsets lie in the mapping.
        unsafe { self.start.as_ptr().byte_add(offset as usize).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; the ring that uses it goes with it.
        unsafe { libc::munmap(self.start.as_ptr(), self.len) };
    }
}

/// How long an entry waits.
pub(crate) struct RingWait {
    /// For so many completions.
    pub(crate) count: u32,
    /// With fewer than that, but one, no longer than this; 0 is for ever.
    pub(crate) batch_time: Duration,
    /// With none at all no longer than this.
    pub(crate) timeout: Option<Duration>,
}

/// One io_uring.
pub(crate) struct Ring {
    fd: OwnedFd,
    /// What the system call takes: the descriptor, or its registered index.
    enter_fd: RawFd,
    enter_flags: u32,
    features: u32,
    /// A kernel thread consumes the submissions, at its own time.
    has_thread: bool,
    /// Calls of `io_uring_enter`.
    pub(super) entries: Counter,
    _rings: Mapping,
    _sqes: Mapping,
    sq_head: *const AtomicU32,
    sq_tail: *const AtomicU32,
    sq_flags: *const AtomicU32,
    sq_entries: *mut Sqe,
    sq_mask: u32,
    sq_len: u32,
    /// What we have filled in, ahead of what the kernel was shown.
    sq_tail_local: u32,
    cq_head: *const AtomicU32,
    cq_tail: *const AtomicU32,
    cq_entries: *const Cqe,
    cq_flags: *const AtomicU32,
    cq_mask: u32,
    cq_head_local: u32,
    /// User data of entries that were to be the second of a link and were kept from being carried
    /// out without it.
    cut: Vec<u64>,
}

impl Ring {
    /// Sets up a ring with room for `entry_count` submissions and `completion_count` completions,
    /// each rounded up to a power of two.
    pub(crate) fn new(entry_count: u32, completion_count: u32, mode: Mode) -> io::Result<Ring> {
        let mut last_error = io::Error::from_raw_os_error(libc::EINVAL);
        for rung in FLAG_LADDER {
            match Ring::on_rung(entry_count, completion_count, rung, mode) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last_error = error,
                result => return result,
            }
        }
        Err(last_error)
    }

    fn on_rung(entry_count: u32, completion_count: u32, rung: u32, mode: Mode) -> io::Result<Ring> {
        Ring::set_up(entry_count, completion_count, mode.flags(rung), mode.thread)
    }

    /// A ring with exactly these set-up flags.
    pub(crate) fn with_flags(
        entry_count: u32,
        completion_count: u32,
        flags: u32,
    ) -> io::Result<Ring> {
        Ring::set_up(entry_count, completion_count, flags, None)
    }

    fn set_up(
        entry_count: u32,
        completion_count: u32,
        flags: u32,
        thread: Option<SubmissionThread>,
    ) -> io::Result<Ring> {
        // SAFETY: the all-zero parameters are the defaults.
        let mut params: sys::io_uring_params = unsafe { std::mem::zeroed() };
        params.flags = flags | sys::IORING_SETUP_CLAMP | sys::IORING_SETUP_CQSIZE;
        params.cq_entries = completion_count;
        if let Some(thread) = thread {
            params.sq_thread_idle = thread.idle_ms;
            params.sq_thread_cpu = thread.cpu.unwrap_or(0);
        }
        // SAFETY: the parameters are a local.
        let fd = unsafe {
            libc::syscall(libc::SYS_io_uring_setup, entry_count as c_long, &raw mut params)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        let needed = sys::IORING_FEAT_SINGLE_MMAP
            | sys::IORING_FEAT_NODROP
            | sys::IORING_FEAT_SUBMIT_STABLE
            | sys::IORING_FEAT_EXT_ARG;
        if params.features & needed != needed {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }

        let has_array = flags & sys::IORING_SETUP_NO_SQARRAY == 0;
        let array_len = if has_array { params.sq_entries as usize * 4 } else { 0 };
        let sq_len = params.sq_off.array as usize + array_len;
        let cq_len = params.cq_off.cqes as usize + params.cq_entries as usize * size_of::<Cqe>();
        let rings = Mapping::new(fd.as_raw_fd(), sq_len.max(cq_len), sys::IORING_OFF_SQ_RING)?;
        let sqes_len = params.sq_entries as usize * size_of::<Sqe>();
        let sqes = Mapping::new(fd.as_raw_fd(), sqes_len, sys::IORING_OFF_SQES)?;
        if has_array {
            // Entries are used in order: the indirection is set once and stays.
            let array: *mut u32 = rings.at(params.sq_off.array);
            for index in 0..params.sq_entries {
                // SAFETY: the array has `sq_entries` entries.
                unsafe { array.add(index as usize).write(index) };
            }
        }
        // SAFETY: the kernel's constant masks, written before set-up returned.
        let (sq_mask, cq_mask) = unsafe {
            (*rings.at::<u32>(params.sq_off.ring_mask), *rings.at::<u32>(params.cq_off.ring_mask))
        };
        let mut ring = Ring {
            enter_fd: fd.as_raw_fd(),
            enter_flags: 0,
            fd,
            features: params.features,
            has_thread: flags & sys::IORING_SETUP_SQPOLL != 0,
            entries: Counter::default(),
            sq_head: rings.at(params.sq_off.head),
            sq_tail: rings.at(params.sq_off.tail),
            sq_flags: rings.at(params.sq_off.flags),
            sq_entries: sqes.at(0),
            sq_mask,
            sq_len: params.sq_entries,
            sq_tail_local: 0,
            cq_head: rings.at(params.cq_off.head),
            cq_tail: rings.at(params.cq_off.tail),
            cq_entries: rings.at(params.cq_off.cqes),
            cq_flags: rings.at(params.cq_off.flags),
            cq_mask,
            cq_head_local: 0,
            cut: Vec::new(),
            _rings: rings,
            _sqes: sqes,
        };
        if params.features & sys::IORING_FEAT_NO_IOWAIT != 0 {
            // A thread that waits for its ring is idle, not waiting for a disk.
            ring.enter_flags |= sys::IORING_ENTER_NO_IOWAIT;
        }
        ring.register_own_fd();
        Ok(ring)
    }

    /// Gives the registered index back, which else holds the ring until the thread ends.
    fn unregister_own_fd(&mut self) {
        let mut update =
            sys::io_uring_rsrc_update { offset: self.enter_fd as u32, resv: 0, data: 0 };
        let operation = sys::io_uring_register_op::IORING_UNREGISTER_RING_FDS;
        // SAFETY: one update, a local.
        let _ = unsafe { self.register(operation, (&raw mut update).cast(), 1) };
    }

    /// Spares the kernel looking the descriptor up at each entry (5.18).
    fn register_own_fd(&mut self) {
        let mut update = sys::io_uring_rsrc_update {
            offset: u32::MAX,
            resv: 0,
            data: self.fd.as_raw_fd() as u64,
        };
        // SAFETY: one update, a local.
        let result = unsafe {
            self.register(
                sys::io_uring_register_op::IORING_REGISTER_RING_FDS,
                (&raw mut update).cast(),
                1,
            )
        };
        if result == Ok(1) {
            self.enter_fd = update.offset as RawFd;
            self.enter_flags |= sys::IORING_ENTER_REGISTERED_RING;
        }
    }

    /// `io_uring_register(2)`.
    ///
    /// # Safety
    /// `arg` points at what `operation` takes, and `count` is what goes with it.
    pub(crate) unsafe fn register(
        &self,
        operation: sys::io_uring_register_op,
        arg: *mut c_void,
        count: u32,
    ) -> Result<i32, i32> {
        // SAFETY: the caller's contract.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                c_long::from(self.fd.as_raw_fd()),
                operation as c_long,
                arg,
                c_long::from(count),
            )
        };
        if result < 0 { Err(errno()) } else { Ok(result as i32) }
    }

    /// Makes room for direct descriptors (sparse: 5.19).
    pub(crate) fn register_direct(&mut self, count: u32) -> io::Result<()> {
        let mut files = sys::io_uring_rsrc_register {
            nr: count,
            flags: sys::IORING_RSRC_REGISTER_SPARSE,
            resv2: 0,
            data: 0,
            tags: 0,
        };
        // SAFETY: a sparse registration points at nothing; its size stands in for a count.
        let result = unsafe {
            self.register(
                sys::io_uring_register_op::IORING_REGISTER_FILES2,
                (&raw mut files).cast(),
                size_of_val(&files) as u32,
            )
        };
        result.map(drop).map_err(io::Error::from_raw_os_error)
    }

    /// Shares a ring of buffers, which ops of the group take from (5.19).
    ///
    /// # Safety
    /// `entries` points at so many entries of 16 bytes, zeroed and aligned to a page, which stay
    /// as long as the ring; and so do the buffers that are put there.
    pub(crate) unsafe fn register_buffer_ring(
        &mut self,
        group: u16,
        entries: *mut c_void,
        entry_count: u32,
    ) -> io::Result<()> {
        let mut buffers = sys::io_uring_buf_reg {
            ring_addr: entries as u64,
            ring_entries: entry_count,
            bgid: group,
            flags: 0,
            resv: [0; 3],
        };
        // SAFETY: one registration, a local; the caller's contract for the rest.
        let result = unsafe {
            self.register(
                sys::io_uring_register_op::IORING_REGISTER_PBUF_RING,
                (&raw mut buffers).cast(),
                1,
            )
        };
        result.map(drop).map_err(io::Error::from_raw_os_error)
    }

    /// Which opcodes the kernel has, by number (5.6).
    pub(crate) fn probe(&self) -> io::Result<Vec<bool>> {
        const OPS_MAX: usize = 256;
        #[repr(C)]
        struct Probe {
            last_op: u8,
            ops_len: u8,
            reserved: [u16; 7],
            ops: [sys::io_uring_probe_op; OPS_MAX],
        }
        // SAFETY: all-zero is what the kernel wants to be handed.
        let mut probe: Probe = unsafe { std::mem::zeroed() };
        // SAFETY: the structure has room for the number of ops given.
        let result = unsafe {
            self.register(
                sys::io_uring_register_op::IORING_REGISTER_PROBE,
                (&raw mut probe).cast(),
                OPS_MAX as u32,
            )
        };
        const SUPPORTED: u16 = 1;
        result.map_err(io::Error::from_raw_os_error)?;
        let ops = &probe.ops[..usize::from(probe.ops_len)];
        Ok(ops.iter().map(|op| op.flags & SUPPORTED != 0).collect())
    }

    /// Whether the kernel can wait for several completions with a bound in time (6.12).
    pub(crate) fn has_min_wait(&self) -> bool {
        self.features & sys::IORING_FEAT_MIN_TIMEOUT != 0
    }

    /// Whether the ring is entered by an index instead of a descriptor (5.18).
    pub(crate) fn has_registered_fd(&self) -> bool {
        self.enter_flags & sys::IORING_ENTER_REGISTERED_RING != 0
    }

    /// Whether waiting counts as idle (6.15).
    pub(crate) fn has_no_iowait(&self) -> bool {
        self.enter_flags & sys::IORING_ENTER_NO_IOWAIT != 0
    }

    /// Whether a submission can ask for a completion in case of failure only (5.17).
    pub(crate) fn has_skip_success(&self) -> bool {
        self.features & sys::IORING_FEAT_CQE_SKIP != 0
    }

    /// Has the kernel signal this descriptor whenever completions come.
    pub(crate) fn register_eventfd(&self, fd: RawFd) -> io::Result<()> {
        let mut fd: i32 = fd;
        let operation = sys::io_uring_register_op::IORING_REGISTER_EVENTFD;
        // SAFETY: one descriptor, a local.
        let result = unsafe { self.register(operation, (&raw mut fd).cast(), 1) };
        result.map(drop).map_err(io::Error::from_raw_os_error)
    }

    /// Whether it does so from here on (5.8).
    pub(crate) fn set_eventfd_enabled(&self, enabled: bool) {
        let flags = if enabled { 0 } else { sys::IORING_CQ_EVENTFD_DISABLED };
        // SAFETY: these flags are ours and live as long as the mapping.
        unsafe { (*self.cq_flags).store(flags, Ordering::Relaxed) };
    }

    /// Whether a thread of the kernel's takes the submissions.
    #[inline]
    pub(crate) fn has_thread(&self) -> bool {
        self.has_thread
    }

    /// Whether [`Ring::wait_for_room`] waits: a kernel thread submits, and it does so even while
    /// completions have no room. Kernels before 5.17 are not asked to, since some hold back.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.has_thread && self.has_skip_success() && !self.has_overflow()
    }

    /// Entries filled in and not yet consumed by the kernel.
    #[inline]
    pub(crate) fn staged_count(&self) -> u32 {
        // SAFETY: the kernel's head lives as long as the mapping.
        self.sq_tail_local.wrapping_sub(unsafe { (*self.sq_head).load(Ordering::Acquire) })
    }

    /// Entries that the queue has, at most.
    pub(crate) fn len(&self) -> u32 {
        self.sq_len
    }

    /// Entries that can be filled in now.
    pub(crate) fn room(&self) -> u32 {
        self.sq_len - self.staged_count()
    }

    /// The next entry that was cut off the one it was linked to: it has not been carried out.
    #[inline]
    pub(crate) fn pop_cut(&mut self) -> Option<u64> {
        self.cut.pop()
    }

    /// The kernel took only some of the entries (it was out of memory). A link lasts no longer than
    /// one system call: if it took the first of two and not the second, the second would run by
    /// itself.
    #[cold]
    fn mend_cut_link(&mut self) {
        // SAFETY: the kernel's head lives as long as the mapping.
        let head = unsafe { (*self.sq_head).load(Ordering::Acquire) };
        let entry = |at: u32| {
            // SAFETY: the index is masked. The kernel is done with what it consumed and does not
            // look at the rest before the next call.
            unsafe { &mut *self.sq_entries.add((at & self.sq_mask) as usize) }
        };
        if entry(head.wrapping_sub(1)).flags & LINK != 0 {
            self.cut.push(entry(head).user_data);
            *entry(head) = Sqe { user_data: CUT, ..Sqe::default() };
        }
    }

    /// Fills in the next entry; false if the queue is full.
    ///
    /// # Safety
    /// INV-BUF for what the entry points at, from here to its completion.
    pub(crate) unsafe fn push(&mut self, sqe: Sqe) -> bool {
        let Some(entry) = self.next_entry() else { return false };
        *entry = sqe;
        self.advance();
        true
    }

    /// The next entry to fill in; `None` if the queue is full.
    #[inline]
    pub(crate) fn next_entry(&mut self) -> Option<&mut Sqe> {
        if self.staged_count() == self.sq_len {
            return None;
        }
        let index = self.sq_tail_local & self.sq_mask;
        // SAFETY: the index is masked, the kernel is done with an entry it consumed, and any
        // bytes are a valid entry.
        Some(unsafe { &mut *self.sq_entries.add(index as usize) })
    }

    /// The next entry is filled in: it goes with the next system call.
    #[inline]
    pub(crate) fn advance(&mut self) {
        self.sq_tail_local = self.sq_tail_local.wrapping_add(1);
    }

    /// Whether the kernel has work that only an entry runs, or completions it could not store.
    #[inline]
    pub(crate) fn needs_entry(&self) -> bool {
        // SAFETY: the flags live as long as the mapping.
        let flags = unsafe { (*self.sq_flags).load(Ordering::Relaxed) };
        flags & (sys::IORING_SQ_TASKRUN | sys::IORING_SQ_CQ_OVERFLOW) != 0
    }

    /// Whether completions were lost sight of for want of room, until the next entry.
    #[inline]
    pub(crate) fn has_overflow(&self) -> bool {
        // SAFETY: as above.
        let flags = unsafe { (*self.sq_flags).load(Ordering::Relaxed) };
        flags & sys::IORING_SQ_CQ_OVERFLOW != 0
    }

    /// The next completion, if one is there.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Cqe> {
        // SAFETY: the kernel's tail lives as long as the mapping.
        let tail = unsafe { (*self.cq_tail).load(Ordering::Acquire) };
        if self.cq_head_local == tail {
            return None;
        }
        let index = self.cq_head_local & self.cq_mask;
        // SAFETY: the index is masked, and entries before the tail are filled in.
        let cqe = unsafe { *self.cq_entries.add(index as usize) };
        self.cq_head_local = self.cq_head_local.wrapping_add(1);
        Some(cqe)
    }

    /// Gives the entries that were popped back to the kernel.
    #[inline]
    pub(crate) fn release_popped(&mut self) {
        // SAFETY: our head lives as long as the mapping.
        unsafe { (*self.cq_head).store(self.cq_head_local, Ordering::Release) };
    }

    /// Whether completions are there.
    #[inline]
    pub(crate) fn has_completions(&self) -> bool {
        // SAFETY: as in `pop`.
        self.cq_head_local != unsafe { (*self.cq_tail).load(Ordering::Acquire) }
    }

    /// Hands over what is staged and runs what the kernel has deferred, without waiting.
    pub(crate) fn enter(&mut self) -> io::Result<()> {
        if self.has_thread && self.hand_over() == 0 && !self.needs_entry() {
            return Ok(());
        }
        // SAFETY: no argument.
        unsafe { self.enter_raw(0, 0, std::ptr::null(), 0) }
    }

    /// Waits until the kernel thread has taken at least one of the entries of a full queue.
    pub(crate) fn wait_for_room(&mut self) -> io::Result<()> {
        // SAFETY: no argument.
        unsafe { self.enter_raw(0, sys::IORING_ENTER_SQ_WAIT, std::ptr::null(), 0) }
    }

    /// Cancels what waits under this user data, by a call of its own (6.0). False if it was not
    /// found, or is carried out at this moment.
    pub(crate) fn cancel_now(&mut self, user_data: u64) -> bool {
        let mut cancel = sys::io_uring_sync_cancel_reg {
            addr: user_data,
            fd: -1,
            flags: 0,
            timeout: sys::__kernel_timespec { tv_sec: 0, tv_nsec: 0 },
            opcode: 0,
            pad: [0; 7],
            pad2: [0; 3],
        };
        let operation = sys::io_uring_register_op::IORING_REGISTER_SYNC_CANCEL;
        // SAFETY: one request, a local.
        unsafe { self.register(operation, (&raw mut cancel).cast(), 1) }.is_ok()
    }

    /// Shows the kernel what is staged. The flags say whether its thread naps and has to be woken.
    fn hand_over(&mut self) -> u32 {
        // SAFETY: our tail lives as long as the mapping; the release makes the entries visible.
        unsafe { (*self.sq_tail).store(self.sq_tail_local, Ordering::Release) };
        if !self.has_thread {
            return 0;
        }
        // The thread announces its nap and then looks at the tail once more; we write the tail and
        // then look at the announcement. With a full fence between, one of us sees the other.
        fence(Ordering::SeqCst);
        // SAFETY: the flags live as long as the mapping.
        let flags = unsafe { (*self.sq_flags).load(Ordering::Relaxed) };
        if flags & sys::IORING_SQ_NEED_WAKEUP != 0 { sys::IORING_ENTER_SQ_WAKEUP } else { 0 }
    }

    /// Hands over what is staged and waits. That the time is over is no error.
    pub(crate) fn enter_and_wait(&mut self, wait: &RingWait) -> io::Result<()> {
        let timespec = wait.timeout.map(|timeout| sys::__kernel_timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let arg = sys::io_uring_getevents_arg {
            sigmask: 0,
            sigmask_sz: 8,
            min_wait_usec: u32::try_from(wait.batch_time.as_micros()).unwrap_or(u32::MAX),
            ts: timespec.as_ref().map_or(0, |timespec| std::ptr::from_ref(timespec) as u64),
        };
        // SAFETY: the argument and what it points at are locals.
        let result = unsafe {
            self.enter_raw(
                wait.count,
                sys::IORING_ENTER_EXT_ARG,
                (&raw const arg).cast(),
                size_of_val(&arg),
            )
        };
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(()),
            result => result,
        }
    }

    /// # Safety
    /// `arg` is what the flags say.
    unsafe fn enter_raw(
        &mut self,
        wait_count: u32,
        flags: u32,
        arg: *const c_void,
        arg_len: usize,
    ) -> io::Result<()> {
        let flags = flags | self.hand_over();
        let submit_count = self.staged_count();
        self.entries.count();
        // SAFETY: the caller's contract; the entries' own memory is INV-BUF's.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                c_long::from(self.enter_fd),
                c_long::from(submit_count),
                c_long::from(wait_count),
                c_long::from(flags | self.enter_flags | sys::IORING_ENTER_GETEVENTS),
                arg,
                arg_len,
            )
        };
        if result >= 0 {
            // A kernel thread's call always says that it took all; what it takes at one time is what
            // it was shown at one time.
            if (result as u32) < submit_count && !self.has_thread {
                self.mend_cut_link();
            }
            return Ok(());
        }
        match errno() {
            libc::EINTR => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.has_registered_fd() {
            self.unregister_own_fd();
        }
    }
}

#[cfg(test)]
impl Ring {
    /// Hands over one entry only, as a kernel that is out of memory may take no more.
    pub(super) fn enter_with_one_entry(&mut self) {
        // SAFETY: our tail lives as long as the mapping; no argument.
        let result = unsafe {
            (*self.sq_tail).store(self.sq_tail_local, Ordering::Release);
            let flags = c_long::from(self.enter_flags | sys::IORING_ENTER_GETEVENTS);
            let fd = c_long::from(self.enter_fd);
            libc::syscall(libc::SYS_io_uring_enter, fd, 1 as c_long, 0 as c_long, flags, 0, 0)
        };
        assert_eq!(result, 1);
        self.mend_cut_link();
    }
}
