//! The `uring` engine: io_uring, interrupt-driven; `uring-sqpoll`, the same with a thread of the
//! kernel's that takes the submissions; and `uring-iopoll`, with a second ring that polls (`polled`).
//!
//! Ops are staged in the submission queue as they come; a turn of the loop makes one system call
//! that submits them, runs what the kernel deferred and waits. What the kernel at hand has no
//! opcode for is carried out inline or on the pool.
//!
//! A full queue costs an entry, never an op: when even that makes no room, ops and cancels wait in
//! the backlog, in order.
//!
//! Two ops that are linked go to the kernel in one system call, or the link would be none: both
//! entries are staged side by side or wait side by side in the backlog, and leave it together.

mod buffers;
mod encode;
pub(crate) mod features;
mod polled;
mod ring;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use linux_raw_sys::io_uring as sys;

use self::buffers::BufferTable;
use self::encode::{
    encode, encode_cancel, encode_close_direct, encode_install, encode_poll_always, ring_opcode,
};
use self::polled::{Polled, Way, may_be_polled};
use self::ring::{Cqe, LINK, Ring, RingWait, Sqe};
pub(crate) use self::ring::{Mode, SubmissionThread};
use super::{Engine, Refused, Submitted, Support, Wait};
use crate::attempt::{Attempt, Class, Outcome, attempt};
use crate::choice::Config;
use crate::clock::Instant;
use crate::diagnosis::{Failure, Step};
use crate::handle::owned_fd;
use crate::lease::LeasePool;
use crate::notify::Notifier;
use crate::op::{Completion, FixedIndex, Handle, Op, Opcode};
use crate::pool::Pool;
use crate::table::{Key, Table};

/// User data of the poll of the notifier.
const NOTIFIER: u64 = Key::internal(0);
/// User data of cancels, whose own results say nothing that the op's does not.
const CANCEL: u64 = Key::internal(1);
/// User data of the ops that close direct descriptors nobody uses any more.
const CLOSE: u64 = Key::internal(3);
/// User data of the op that makes a file descriptor of a direct one.
const INSTALL: u64 = Key::internal(4);

/// Asks for a completion only if the submission fails.
const SKIP_SUCCESS: u8 = 1 << (sys::io_uring_sqe_flags_bit::IOSQE_CQE_SKIP_SUCCESS_BIT as u8);

/// The ring's number for the buffers that receives take.
const LEASE_GROUP: u16 = 0;

/// What acts on direct descriptors. Unless the ring has all of them it makes none, since no call
/// of the process could stand in.
const DIRECT_OPS: [Opcode; 15] = [
    Opcode::Read,
    Opcode::Write,
    Opcode::Fsync,
    Opcode::Allocate,
    Opcode::Truncate,
    Opcode::Bind,
    Opcode::Listen,
    Opcode::Accept,
    Opcode::Connect,
    Opcode::Recv,
    Opcode::Send,
    Opcode::Shutdown,
    Opcode::Poll,
    Opcode::Splice,
    Opcode::Close,
];

pub(crate) struct Uring {
    ring: Ring,
    notifier: Arc<Notifier>,
    pool: Pool,
    support: [Support; Opcode::ALL.len()],
    /// What goes to the ring whatever it acts on.
    is_plain: [bool; Opcode::ALL.len()],
    /// The ring that polls the device, in `uring-iopoll`.
    polled: Option<Box<Polled>>,
    /// Asked for, and got.
    entry_counts: (u32, u32),
    /// Whether the notifier's poll is armed.
    is_notifiable: bool,
    /// Registered buffers, from the first on.
    buffers: Option<BufferTable>,
    /// What found the submission queue full.
    backlog: VecDeque<Sqe>,
    /// Ended outside of a turn; the next one hands them out.
    ended: Vec<(Key, Completion)>,
    outcomes: Vec<(Key, Outcome)>,
    direct_max: u32,
    /// Its buffers are the kernel's to write to as long as the ring exists (INV-BUF).
    leases: Option<Rc<LeasePool>>,
    /// What was cancelled on a ring with a thread of the kernel's, and when to repeat it.
    cancels: Vec<Key>,
    repeat_at: Option<Instant>,
}

/// An op is out of reach for a cancel for moments only.
const REPEAT_AFTER: Duration = Duration::from_millis(1);

impl Uring {
    /// Sets up a ring, if it must be with fewer entries than asked for.
    pub(crate) fn new(
        config: &Config,
        mode: Mode,
        polled_mode: Option<Mode>,
    ) -> Result<Uring, Failure> {
        let entry_count = config.queue_entries;
        let make = |entries, completions| Ring::new(entries, completions, mode);
        let (mut ring, entry_count_got) =
            within_memory(entry_count, make).map_err(Failure::at(Step::SetUp))?;
        let notifier = Arc::new(Notifier::new().map_err(Failure::at(Step::SetUp))?);
        let in_kernel = ring.probe().map_err(Failure::at(Step::Register))?;
        let has = |code: sys::io_uring_op| in_kernel.get(code as usize) == Some(&true);
        // Multishot receives came with 6.0, and with this op, which there is a probe for.
        let has_multishot = has(sys::io_uring_op::IORING_OP_SEND_ZC);
        let has_form = |opcode: Opcode| match opcode {
            Opcode::AcceptMulti | Opcode::RecvMulti | Opcode::RecvMsgMulti => has_multishot,
            _ => true,
        };
        let support: [Support; _] = std::array::from_fn(|at| {
            let opcode = Opcode::ALL[at];
            match (ring_opcode(opcode), opcode.class()) {
                (Some(code), _) if has(code) && has_form(opcode) => Support::Native,
                // What needs it has another way.
                _ if matches!(opcode, Opcode::RecvMulti | Opcode::RecvMsgMulti) => {
                    Support::Unsupported
                }
                (_, Class::Instant) => Support::Inline,
                _ => Support::Offloaded,
            }
        });
        let has_all = DIRECT_OPS.iter().all(|&op| support[op as usize] == Support::Native)
            && has(sys::io_uring_op::IORING_OP_FIXED_FD_INSTALL);
        let direct_max = if has_all {
            make_room_for_direct(&mut ring, config).map_err(Failure::at(Step::Register))?
        } else {
            0
        };
        let polled = match polled_mode {
            Some(mode) => {
                let make = |entries, completions| Ring::new(entries, completions, mode);
                let (ring, _) =
                    within_memory(entry_count, make).map_err(Failure::at(Step::SetUp))?;
                let mut polled = Polled::new(ring, config.allow_unpolled);
                polled.prove().map_err(Failure::at(Step::Prove))?;
                if mode.thread.is_some() {
                    polled.notify(&notifier).map_err(Failure::at(Step::Register))?;
                }
                Some(Box::new(polled))
            }
            None => None,
        };
        Ok(Uring {
            ring,
            is_plain: std::array::from_fn(|at| {
                let may_be_polled = polled.is_some() && may_be_polled(Opcode::ALL[at]);
                support[at] == Support::Native && !may_be_polled
            }),
            polled,
            direct_max,
            leases: None,
            pool: Pool::new(config, notifier.clone()),
            notifier,
            support,
            entry_counts: (entry_count, entry_count_got),
            is_notifiable: false,
            buffers: None,
            backlog: VecDeque::new(),
            ended: Vec::new(),
            outcomes: Vec::new(),
            cancels: Vec::new(),
            repeat_at: None,
        })
    }

    /// What is not as it was asked for.
    pub(crate) fn remark(&self) -> Option<String> {
        let (wanted, got) = self.entry_counts;
        (got < wanted).then(|| {
            format!("with {got} queue entries instead of {wanted}, for want of locked memory")
        })
    }

    /// Stages an entry, or keeps it if there is no room even after an entry into the kernel.
    ///
    /// # Safety
    /// INV-BUF for what the entry points at.
    #[inline]
    unsafe fn stage(&mut self, sqe: Sqe) {
        // SAFETY: the caller's contract.
        if !self.backlog.is_empty() || !unsafe { self.ring.push(sqe) } {
            self.stage_full(sqe);
        }
    }

    #[cold]
    fn stage_full(&mut self, sqe: Sqe) {
        self.backlog.push_back(sqe);
        // An error here (EBUSY: completions first) leaves the backlog to the next turn.
        if self.ring.enter().is_ok() {
            self.move_backlog();
        }
    }

    fn move_backlog(&mut self) {
        while let Some(&sqe) = self.backlog.front() {
            let count = if sqe.flags & LINK != 0 { 2 } else { 1 };
            if self.ring.room() < count {
                return;
            }
            for sqe in self.backlog.drain(..count as usize) {
                // SAFETY: INV-BUF, promised to `stage`.
                unsafe { self.ring.push(sqe) };
            }
        }
    }

    /// Takes what waits in the backlog at this place out of it, and what is linked to it.
    #[cold]
    fn cancel_in_backlog(&mut self, at: usize) {
        if at > 0 {
            // Nothing follows the one before it any more, if it was the first of two.
            self.backlog[at - 1].flags &= !LINK;
        }
        let count = if self.backlog[at].flags & LINK != 0 { 2 } else { 1 };
        for sqe in self.backlog.drain(at..at + count) {
            if let Some(key) = Key::from_user_data(sqe.user_data) {
                self.ended.push((key, Completion::error(libc::ECANCELED)));
            }
        }
    }

    /// Carries out what the ring has no opcode for.
    ///
    /// # Safety
    /// As for `submit`.
    #[cold]
    unsafe fn submit_aside(&mut self, key: Key, op: Op) -> Submitted {
        match self.support[op.opcode() as usize] {
            // SAFETY: the caller's contract.
            Support::Native => return unsafe { self.submit_sorted(key, op) },
            Support::Offloaded => {
                // SAFETY: the caller's contract.
                unsafe { self.pool.stage(key, op, Attempt::MayBlock) };
                return Submitted::Pending;
            }
            Support::Unsupported => return Submitted::Done(Completion::error(libc::EOPNOTSUPP)),
            Support::Inline | Support::Direct => {}
        }
        // SAFETY: the caller's contract.
        let Outcome::Done(completion) = (unsafe { attempt(&op, Attempt::MayBlock) }) else {
            unreachable!("instant ops do not wait")
        };
        if matches!(op, Op::Socket { .. }) && completion.result >= 0 {
            // The ring waits by itself; with O_NONBLOCK it would not.
            crate::handle::set_nonblocking(completion.result, false);
        }
        Submitted::Done(completion)
    }

    fn stage_cancel(&mut self, user_data: u64) {
        let mut sqe = encode_cancel(user_data);
        sqe.user_data = CANCEL;
        if self.ring.has_skip_success() {
            sqe.flags = SKIP_SUCCESS;
        }
        // SAFETY: a cancel points at nothing.
        unsafe { self.stage(sqe) };
    }

    /// Cancels an op that the kernel's thread carries out. On a ring without one nothing goes on
    /// before the next entry, which the cancel takes part in; the thread, before it comes to a
    /// cancel in the queue, would still take a connection, or data. What is not found may be in
    /// the queue, where the cancel that is staged follows it.
    #[cold]
    fn cancel_at_once(&mut self, user_data: u64) {
        if !self.ring.cancel_now(user_data) {
            self.stage_cancel(user_data);
            // An error here comes back with the turn's entry.
            let _ = self.ring.enter();
        }
    }

    /// Repeats the cancels of ops that are still in flight: on its way from the kernel's thread to
    /// a worker, or back, an op is where no cancel finds it. Bounds the wait by the next time.
    #[cold]
    fn repeat_cancels(&mut self, wait: Wait, table: &mut Table) -> Wait {
        self.cancels.retain(|&key| table.is_in_flight(key));
        if self.cancels.is_empty() {
            self.repeat_at = None;
            return wait;
        }
        let now = crate::clock::now();
        if self.repeat_at.is_some_and(|at| at <= now) {
            self.repeat_at = None;
            for at in 0..self.cancels.len() {
                self.cancel_at_once(self.cancels[at].to_user_data());
            }
        }
        let repeat_at = *self.repeat_at.get_or_insert(now + REPEAT_AFTER);
        let Wait::Until { deadline, .. } = wait else { return wait };
        let deadline = Some(deadline.map_or(repeat_at, |deadline| deadline.min(repeat_at)));
        Wait::Until { deadline, batch_count: 1, batch_time: Duration::ZERO }
    }

    /// Sorts what may be polled for by what it acts on.
    ///
    /// # Safety
    /// As for `submit`.
    unsafe fn submit_sorted(&mut self, key: Key, op: Op) -> Submitted {
        match self.polled.as_mut().map(|polled| (polled.way(&op), polled)) {
            Some((Way::Polled, polled)) => {
                // SAFETY: the caller's contract.
                unsafe { polled.submit(key, &op) };
            }
            Some((Way::Refused, _)) => {
                return Submitted::Done(Completion::error(libc::EOPNOTSUPP));
            }
            _ => self.submit_to_ring(key, &op),
        }
        Submitted::Pending
    }

    #[inline]
    fn submit_to_ring(&mut self, key: Key, op: &Op) {
        let user_data = key.to_user_data();
        if self.backlog.is_empty()
            && let Some(sqe) = self.ring.next_entry()
        {
            // Written in place: the caller's contract is INV-BUF for what it points at.
            encode(op, user_data, sqe);
            self.ring.advance();
        } else {
            let mut sqe = Sqe::default();
            encode(op, user_data, &mut sqe);
            self.stage_full(sqe);
        }
    }

    /// Asks the device, as long as it has requests to be asked for and nothing else calls: the
    /// first ring, another thread, the deadline. A wait is left for the first ring only where the
    /// device has none, or a thread of the kernel's does the asking.
    #[cold]
    fn poll_device(&mut self, wait: Wait, table: &mut Table) -> io::Result<Wait> {
        let Some(polled) = &mut self.polled else { return Ok(wait) };
        polled.enter()?;
        let found = polled.reap(table) > 0;
        let Wait::Until { deadline, .. } = wait else { return Ok(wait) };
        if found {
            return Ok(Wait::No);
        }
        if polled.in_flight_count() == 0 {
            return Ok(wait);
        }
        if polled.has_thread() {
            polled.announce_sleep();
            return Ok(if polled.has_completions() { Wait::No } else { wait });
        }
        // What waits for an entry into the first ring is not to wait for the device.
        self.enter_now()?;
        while !self.ring.has_completions() && !self.ring.needs_entry() && self.ended.is_empty() {
            if deadline.is_some_and(|deadline| deadline <= crate::clock::now()) {
                break;
            }
            let Some(polled) = &mut self.polled else { break };
            polled.enter()?;
            if polled.reap(table) > 0 {
                break;
            }
        }
        Ok(Wait::No)
    }

    /// Keeps a poll of the notifier armed while the driver waits.
    fn arm_notifier(&mut self) {
        if !self.is_notifiable {
            self.is_notifiable = true;
            let mut sqe = encode_poll_always(self.notifier.fd());
            sqe.user_data = NOTIFIER;
            // SAFETY: a poll points at nothing.
            unsafe { self.stage(sqe) };
        }
    }

    /// Takes the completions out of the queue.
    fn reap(&mut self, table: &mut Table) {
        let mut leased = Leased::default();
        while let Some(cqe) = self.ring.pop() {
            if let Some((key, completion)) = self.completion_of(cqe, &mut leased) {
                table.complete(key, completion);
            }
        }
        self.ring.release_popped();
        self.replenish(leased);
    }

    /// Whose completion it is, unless it is one of the engine's own.
    #[inline]
    fn completion_of(&mut self, cqe: Cqe, leased: &mut Leased) -> Option<(Key, Completion)> {
        let Some(key) = Key::from_user_data(cqe.user_data) else {
            if cqe.user_data == NOTIFIER && cqe.flags & sys::IORING_CQE_F_MORE == 0 {
                self.notifier.clear();
                self.is_notifiable = false;
            }
            return None;
        };
        let result = if cqe.result < 0 { named_error(cqe.result) } else { cqe.result };
        leased.count += cqe.flags & sys::IORING_CQE_F_BUFFER;
        leased.starved |= result == -libc::ENOBUFS;
        Some((key, Completion::with_flags(result, cqe.flags)))
    }

    /// Gives the kernel others for the lease buffers that it has taken.
    fn replenish(&self, leased: Leased) {
        if (leased.count > 0 || leased.starved)
            && let Some(leases) = &self.leases
        {
            leases.replenish(leased.count, leased.starved);
        }
    }

    fn take_outcomes(&mut self) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.pool.take_outcomes(&mut outcomes);
        for (key, outcome) in outcomes.drain(..) {
            let Outcome::Done(completion) = outcome else {
                unreachable!("what is offloaded may block")
            };
            self.ended.push((key, completion));
        }
        self.outcomes = outcomes;
    }

    /// Enters the kernel, for as long as `wait` says.
    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let idle = self.ended.is_empty() && !self.ring.has_completions();
        let Wait::Until { deadline, batch_count, batch_time } = wait else {
            return self.enter_now();
        };
        let timeout = deadline.map(|at| at.saturating_duration_since(crate::clock::now()));
        if !idle || timeout == Some(Duration::ZERO) || !self.backlog.is_empty() {
            if idle && !self.backlog.is_empty() && self.ring.waits_for_room() {
                return self.ring.wait_for_room();
            }
            return self.enter_now();
        }
        let one = RingWait { count: 1, batch_time: Duration::ZERO, timeout };
        if batch_count <= 1 {
            return self.ring.enter_and_wait(&one);
        }
        let count = u32::try_from(batch_count).unwrap_or(u32::MAX);
        if timeout.is_some_and(|timeout| timeout <= batch_time) {
            let short = RingWait { count, batch_time: Duration::ZERO, timeout };
            return self.ring.enter_and_wait(&short);
        }
        if self.ring.has_min_wait() {
            return self.ring.enter_and_wait(&RingWait { count, batch_time, timeout });
        }
        let short = RingWait { count, batch_time: Duration::ZERO, timeout: Some(batch_time) };
        self.ring.enter_and_wait(&short)?;
        if self.ring.has_completions() {
            return Ok(());
        }
        self.ring.enter_and_wait(&one)
    }

    /// Enters only if there is something to hand over or to run.
    fn enter_now(&mut self) -> io::Result<()> {
        if self.ring.staged_count() > 0 || self.ring.needs_entry() {
            self.ring.enter()?;
        }
        Ok(())
    }
}

/// What completions say of the lease buffers.
#[derive(Default)]
struct Leased {
    /// Buffers taken.
    count: u32,
    /// None was left for an arrival.
    starved: bool,
}

const _: () = assert!(sys::IORING_CQE_F_BUFFER == 1, "it is counted by adding it up");

/// Registers a table for as many direct descriptors as were asked for, and as the process may have
/// files: how many that are.
fn make_room_for_direct(ring: &mut Ring, config: &Config) -> io::Result<u32> {
    // SAFETY: the limit is a local.
    let files_max = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX)
    };
    let count = config.direct_descriptors.min(files_max);
    if count > 0 {
        ring.register_direct(count)?;
    }
    Ok(count)
}

/// A kernel thread that waits in a call on behalf of the ring is interrupted by a cancel, of the op or
/// of the one that it carried out before: whoever waits for the op knows which. The call says so in one
/// of several ways, some of which are the kernel's own (`ERESTARTSYS`).
fn named_error(result: i32) -> i32 {
    match -result {
        512..=516 => -libc::EINTR,
        _ => result,
    }
}

/// The fewest submission queue entries that a ring is made with where memory is short.
const ENTRIES_MIN: u32 = 8;
/// How long the start waits for locked memory: the charge of a ring that was closed goes back only
/// some time later.
const MEMORY_TIME_MAX: Duration = Duration::from_secs(1);

/// Makes a ring of so many entries, or of fewer where the memory that this user may lock does not
/// suffice, and says how many they are. It waits only where not even the smallest fits.
fn within_memory(
    entry_count: u32,
    make: impl Fn(u32, u32) -> io::Result<Ring>,
) -> io::Result<(Ring, u32)> {
    let deadline = crate::clock::now() + MEMORY_TIME_MAX;
    let mut pause = Duration::from_millis(1);
    loop {
        let mut got = entry_count;
        let mut result = make(got, (got * 4).max(4096));
        if is_memory_short(&result) {
            // Room for completions takes most of the memory.
            result = make(got, got * 2);
        }
        while is_memory_short(&result) && got > ENTRIES_MIN {
            got = (got / 2).max(ENTRIES_MIN);
            result = make(got, got * 2);
        }
        if !is_memory_short(&result) || crate::clock::now() >= deadline {
            return result.map(|ring| (ring, got));
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
}

fn is_memory_short(result: &io::Result<Ring>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::ENOMEM))
}

impl Engine for Uring {
    fn support(&self, opcode: Opcode) -> Support {
        self.support[opcode as usize]
    }

    #[inline]
    unsafe fn submit(&mut self, key: Key, op: &Op) -> Submitted {
        if !self.is_plain[op.opcode() as usize] {
            // SAFETY: the caller's contract.
            return unsafe { self.submit_aside(key, *op) };
        }
        self.submit_to_ring(key, op);
        Submitted::Pending
    }

    unsafe fn submit_linked(&mut self, keys: [Key; 2], ops: [&Op; 2]) -> bool {
        let is_plain = |op: &&Op| self.is_plain[op.opcode() as usize];
        if self.ring.len() < 2 || !ops.iter().all(is_plain) {
            return false;
        }
        let mut sqes = [Sqe::default(); 2];
        for ((sqe, op), key) in sqes.iter_mut().zip(ops).zip(keys) {
            encode(op, key.to_user_data(), sqe);
        }
        sqes[0].flags |= LINK;
        if let Op::Timeout { .. } = ops[1] {
            sqes[1].opcode = sys::io_uring_op::IORING_OP_LINK_TIMEOUT as u8;
        }
        self.backlog.extend(sqes);
        self.move_backlog();
        if !self.backlog.is_empty() && self.ring.enter().is_ok() {
            self.move_backlog();
        }
        true
    }

    fn cancel(&mut self, key: Key) {
        let user_data = key.to_user_data();
        if let Some(at) = self.backlog.iter().position(|sqe| sqe.user_data == user_data) {
            return self.cancel_in_backlog(at);
        }
        if let Some(polled) = &mut self.polled
            && polled.cancel(key)
        {
            self.ended.push((key, Completion::error(libc::ECANCELED)));
            return;
        }
        if self.pool.outstanding_count() > 0 && self.pool.cancel(key) {
            self.ended.push((key, Completion::error(libc::ECANCELED)));
            return;
        }
        if self.ring.has_thread() {
            self.cancel_at_once(user_data);
            self.cancels.push(key);
        } else {
            self.stage_cancel(user_data);
        }
    }

    fn turn(&mut self, wait: Wait, table: &mut Table) -> io::Result<()> {
        self.pool.flush()?;
        self.take_outcomes();
        self.move_backlog();
        let wait = if self.cancels.is_empty() { wait } else { self.repeat_cancels(wait, table) };
        if matches!(wait, Wait::Until { .. }) {
            self.arm_notifier();
        }
        let entered = if self.polled.is_none() {
            self.enter(wait)
        } else {
            self.poll_device(wait, table).and_then(|wait| self.enter(wait))
        };
        match entered {
            Ok(()) => {}
            // No room for completions, or no memory for a request just now: what is there has
            // to be taken first, and the rest is submitted next turn.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {}
            Err(error) => return Err(error),
        }
        // What came out of the queue between two turns (`install`) came before what is in it: the
        // completions of a multishot op stay in order, and the last of them comes last.
        for (key, completion) in self.ended.drain(..) {
            table.complete(key, completion);
        }
        self.reap(table);
        while self.ring.has_overflow() {
            self.ring.enter()?;
            self.reap(table);
        }
        if let Some(polled) = &mut self.polled {
            polled.announce_awake();
            polled.reap(table);
        }
        self.take_outcomes();
        while let Some(user_data) = self.ring.pop_cut() {
            let key = Key::from_user_data(user_data).expect("only ops are linked");
            self.ended.push((key, Completion::error(libc::ECANCELED)));
        }
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
        false
    }

    fn forget(&mut self, handle: Handle) {
        if let Some(polled) = &mut self.polled {
            polled.forget(handle);
        }
    }

    fn admit(&mut self, handle: Handle) -> io::Result<()> {
        match &mut self.polled {
            Some(polled) => polled.admit(handle),
            None => Ok(()),
        }
    }

    unsafe fn register_buffer(
        &mut self,
        start: *mut u8,
        len: usize,
    ) -> Result<FixedIndex, Refused> {
        let buffers = match &mut self.buffers {
            Some(buffers) => buffers,
            None => self.buffers.insert(BufferTable::new(&self.ring)?),
        };
        // SAFETY: the caller's contract.
        unsafe { buffers.register(&self.ring, start, len) }
    }

    fn unregister_buffer(&mut self, index: FixedIndex) {
        if let Some(buffers) = &mut self.buffers {
            buffers.unregister(&self.ring, index);
        }
    }

    fn direct_max(&self) -> u32 {
        self.direct_max
    }

    fn close_direct(&mut self, index: u32) {
        let mut sqe = encode_close_direct(index);
        sqe.user_data = CLOSE;
        if self.ring.has_skip_success() {
            sqe.flags = SKIP_SUCCESS;
        }
        // SAFETY: a close points at nothing.
        unsafe { self.stage(sqe) };
        // At once, as a descriptor of the process would be: the peer is to see it. An error leaves
        // it to the next turn.
        let _ = self.ring.enter();
    }

    fn install(&mut self, index: u32) -> io::Result<OwnedFd> {
        let mut sqe = encode_install(index);
        sqe.user_data = INSTALL;
        // SAFETY: this op points at nothing.
        unsafe { self.stage(sqe) };
        // It never waits, so that its completion is there when what was submitted before it is
        // out of the way. Others that are there already come out of the next turn.
        let mut leased = Leased::default();
        let mut installed = None;
        while installed.is_none() {
            self.move_backlog();
            match self.ring.enter() {
                Err(error) if !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {
                    return Err(error);
                }
                _ => {}
            }
            while let Some(cqe) = self.ring.pop() {
                if cqe.user_data == INSTALL {
                    installed = Some(cqe.result);
                } else if let Some(ended) = self.completion_of(cqe, &mut leased) {
                    self.ended.push(ended);
                }
            }
            self.ring.release_popped();
        }
        self.replenish(leased);
        match installed {
            Some(fd @ 0..) => Ok(owned_fd(fd as u32)),
            error => Err(io::Error::from_raw_os_error(-error.unwrap_or(-libc::EIO))),
        }
    }

    fn provide(&mut self, pool: &Rc<LeasePool>) {
        let provided = pool.provide(|entries, entry_count| {
            // SAFETY: the pool's memory stays until the pool goes, and this engine keeps it as
            // long as the ring, which is declared first and so dropped first.
            unsafe { self.ring.register_buffer_ring(LEASE_GROUP, entries, entry_count) }
        });
        match provided {
            Ok(()) => self.leases = Some(pool.clone()),
            Err(_) => {
                for opcode in [Opcode::RecvMulti, Opcode::RecvMsgMulti] {
                    self.support[opcode as usize] = Support::Unsupported;
                    self.is_plain[opcode as usize] = false;
                }
            }
        }
    }

    fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    #[cfg(feature = "metrics")]
    fn entry_count(&self) -> u64 {
        self.ring.entries.value() + self.polled.as_ref().map_or(0, |polled| polled.entry_count())
    }

    fn thread_count(&self) -> usize {
        self.pool.thread_count()
    }

    fn stop(&mut self, deadline: Instant) -> bool {
        self.pool.stop(deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::op::Position;

    const ENTRIES: u32 = 4;

    fn uring() -> Option<Uring> {
        let config = Config { queue_entries: ENTRIES, threads_max: 1, ..Config::default() };
        match Uring::new(&config, Mode::default(), None) {
            Ok(uring) => Some(uring),
            Err(error) => {
                let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
                assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {error:?}");
                eprintln!("skipped: {error:?}");
                None
            }
        }
    }

    /// Turns until nothing is in flight.
    fn drain(uring: &mut Uring, table: &mut Table) {
        while table.in_flight_count() > 0 {
            let wait = Wait::Until { deadline: None, batch_count: 1, batch_time: Duration::ZERO };
            uring.turn(wait, table).unwrap();
        }
    }

    fn result(table: &mut Table, key: Key) -> i32 {
        table.take(key, std::task::Waker::noop()).expect("it has completed").result
    }

    /// A read of more than there is, and an op linked to it.
    struct Chain {
        reader: io::PipeReader,
        _writer: io::PipeWriter,
        buf: Box<[u8; 100]>,
    }

    impl Chain {
        fn new(there: &[u8]) -> Chain {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(there).unwrap();
            Chain { reader, _writer: writer, buf: Box::new([0; 100]) }
        }

        fn submit(&mut self, uring: &mut Uring, table: &mut Table) -> [Key; 2] {
            let handle = Handle::from_fd(self.reader.as_raw_fd());
            let position = Position::Cursor;
            let buf = self.buf.as_mut_ptr();
            let read = Op::Read { handle, buf, len: 100, position, fixed: None };
            let keys = [table.insert(false), table.insert(false)];
            // SAFETY: the buffer lives until the ring is drained.
            assert!(unsafe { uring.submit_linked(keys, [&read, &Op::Nop {}]) });
            keys
        }
    }

    #[test]
    fn a_link_holds_however_full_the_queue_is() {
        for staged in 0..3 * ENTRIES {
            let (Some(mut uring), mut table) = (uring(), Table::new()) else { return };
            let mut chains: Vec<Chain> = (0..5).map(|_| Chain::new(b"short")).collect();
            for _ in 0..staged {
                let key = table.insert(false);
                // SAFETY: a nop points at nothing.
                let _ = unsafe { uring.submit(key, &Op::Nop {}) };
            }
            let keys: Vec<_> =
                chains.iter_mut().map(|chain| chain.submit(&mut uring, &mut table)).collect();
            drain(&mut uring, &mut table);
            for [first, second] in keys {
                assert_eq!(result(&mut table, first), 5, "after {staged} others");
                assert_eq!(result(&mut table, second), -libc::ECANCELED, "after {staged} others");
            }
        }
    }

    #[test]
    fn a_link_in_the_backlog_is_cancelled_from_either_end() {
        for cancelled in 0..2 {
            let (Some(mut uring), mut table) = (uring(), Table::new()) else { return };
            let (later, mut chain) = (table.insert(false), Chain::new(b"short"));
            let mut nop = Sqe::default();
            encode(&Op::Nop {}, later.to_user_data(), &mut nop);
            let mut linked = Sqe::default();
            let pair = [table.insert(false), table.insert(false)];
            let read = Op::Read {
                handle: Handle::from_fd(chain.reader.as_raw_fd()),
                buf: chain.buf.as_mut_ptr(),
                len: 100,
                position: Position::Cursor,
                fixed: None,
            };
            encode(&read, pair[0].to_user_data(), &mut linked);
            linked.flags |= LINK;
            let mut second = Sqe::default();
            encode(&Op::Nop {}, pair[1].to_user_data(), &mut second);
            uring.backlog.extend([linked, second, nop]);
            uring.cancel(pair[cancelled]);
            drain(&mut uring, &mut table);
            let first = if cancelled == 0 { -libc::ECANCELED } else { 5 };
            assert_eq!(result(&mut table, pair[0]), first);
            assert_eq!(result(&mut table, pair[1]), -libc::ECANCELED);
            assert_eq!(result(&mut table, later), 0, "linked to nothing");
        }
    }

    #[test]
    fn what_is_cut_off_its_link_is_not_carried_out() {
        let (Some(mut uring), mut table) = (uring(), Table::new()) else { return };
        let mut chain = Chain::new(b"short");
        let [first, second] = chain.submit(&mut uring, &mut table);
        uring.ring.enter_with_one_entry();
        drain(&mut uring, &mut table);
        assert_eq!(result(&mut table, first), 5);
        assert_eq!(result(&mut table, second), -libc::ECANCELED);
    }
}
