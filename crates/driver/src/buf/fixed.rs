//! Fixed buffers: aligned memory from a pool that is registered with the engine where it can be.
//!
//! On `uring` the kernel pins the pool's memory once, and reads and writes of it spare the kernel
//! finding and pinning the pages each time. Elsewhere, and where registration fails, the same
//! buffers are plain memory. Each region of a pool, up to 1 GiB, is one registered buffer: the
//! kernel finds a place within one in constant time, and one entry stays in its caches.
//!
//! The pool's memory lives until the pool and every buffer of it are gone (INV-BUF): an op in
//! flight owns its buffer, which holds the pool. Deliberately not here: which ops use the
//! registered form (`engine/uring/encode`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::ptr::{NonNull, null_mut};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{IoBuf, IoBufMut};
use crate::choice::EngineName;
use crate::driver::Driver;
use crate::engine::Refused;
use crate::op::FixedIndex;
use crate::system::{self, Limit};
use crate::trace;

/// The most that the kernel registers as one buffer.
const REGION_LEN_MAX: usize = 1 << 30;
/// Buffers of one pool.
const COUNT_MAX: u128 = 1 << 24;
/// The charge for memory of a ring that was closed comes back only some time later: so long a
/// registration that finds too little locked memory is tried again.
const CHARGE_TIME_MAX: Duration = Duration::from_millis(100);

/// Where memory is registered: with which driver, and as which entry of its table.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    /// Only to be compared. The pool holds the driver, so that no other has its address.
    driver: *const Driver,
    index: FixedIndex,
}

impl Registration {
    /// The entry, for an op of this driver; to any other the memory is plain.
    #[inline]
    pub fn index_on(self, driver: &Rc<Driver>) -> Option<FixedIndex> {
        std::ptr::eq(self.driver, Rc::as_ptr(driver)).then_some(self.index)
    }
}

/// Whether a pool's memory is on huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HugePages {
    /// Ordinary pages.
    #[default]
    No,
    /// Reserved huge pages (`MAP_HUGETLB`) where there are enough, else ordinary pages that the
    /// kernel is asked to make huge ones of (`MADV_HUGEPAGE`).
    IfAvailable,
    /// Reserved huge pages, or the pool is not made.
    Required,
}

/// What a pool is made of.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Length in bytes and number of the buffers of each size class, in any order.
    pub classes: Vec<(usize, usize)>,
    /// Alignment in bytes of every buffer, a power of two.
    pub alignment: usize,
    /// Huge pages or not.
    pub huge_pages: HugePages,
    /// Whether memory that cannot be registered is an error.
    pub require_registered: bool,
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions {
            classes: Vec::new(),
            alignment: 4096,
            huge_pages: HugePages::No,
            require_registered: false,
        }
    }
}

/// Why a pool was not made, and what to do.
#[derive(Debug)]
pub struct PoolError(Cause);

#[derive(Debug)]
enum Cause {
    Argument(String),
    Memory { len: usize, error: io::Error },
    HugePages { len: usize, page_len: usize, error: io::Error },
    NotRegistered(NotRegistered),
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Argument(what) => f.write_str(what),
            Cause::Memory { len, error } => write!(f, "no {len} bytes for a pool: {error}"),
            Cause::HugePages { len, page_len, error } => write!(
                f,
                "no huge pages for a pool: {error}; reserve {} more of {} KiB with `sysctl \
                 vm.nr_hugepages`, or do not require them",
                len / page_len,
                page_len / 1024
            ),
            Cause::NotRegistered(why) => write!(f, "the pool's memory is not registered: {why}"),
        }
    }
}

impl std::error::Error for PoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Cause::Argument(_) => None,
            Cause::Memory { error, .. } | Cause::HugePages { error, .. } => Some(error),
            Cause::NotRegistered(why) => Some(why),
        }
    }
}

impl From<PoolError> for io::Error {
    fn from(error: PoolError) -> io::Error {
        let kind = match &error.0 {
            Cause::Argument(_) => io::ErrorKind::InvalidInput,
            Cause::Memory { error, .. } | Cause::HugePages { error, .. } => error.kind(),
            Cause::NotRegistered(_) => io::ErrorKind::Unsupported,
        };
        io::Error::new(kind, error)
    }
}

/// Why a pool's memory is not registered, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRegistered {
    engine: EngineName,
    refused: Refused,
    /// In bytes.
    pool_len: usize,
    /// `RLIMIT_MEMLOCK` in bytes; `None` if there is none.
    locked_len_max: Option<u64>,
}

impl fmt::Display for NotRegistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotRegistered { engine, refused, pool_len, locked_len_max } = self;
        match (refused, locked_len_max) {
            (Refused::Unsupported, _) => {
                write!(f, "engine '{engine}' has no registered buffers; use engine 'uring'")
            }
            (Refused::OldKernel, _) => f.write_str("this needs Linux 5.19 or later"),
            (Refused::TableFull, _) => f.write_str("too many pools; drop some of them"),
            (Refused::Errno(libc::ENOMEM), Some(max)) => write!(
                f,
                "too little locked memory: the pool needs {} KiB of the {} KiB that this user may \
                 lock; raise `ulimit -l` or make the pool smaller",
                pool_len.div_ceil(1024),
                max / 1024
            ),
            (Refused::Errno(libc::EPERM | libc::ENOSYS), _) => f.write_str(
                "io_uring_register(2) is forbidden; check the container's seccomp profile",
            ),
            (Refused::Errno(errno), _) => {
                write!(f, "the kernel refused it: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl std::error::Error for NotRegistered {}

/// Why there is no buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakeError {
    /// No size class has buffers that long.
    TooLong {
        /// What was asked for, in bytes.
        len: usize,
        /// Of the buffers of the pool's longest class, in bytes.
        len_max: usize,
    },
    /// Every buffer of the smallest class that fits is in use.
    Exhausted {
        /// Of the class's buffers, in bytes.
        class_len: usize,
        /// Buffers of the class.
        total_count: usize,
    },
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeError::TooLong { len, len_max } => write!(
                f,
                "a buffer of {len} bytes was asked for, and the pool's longest have {len_max}; \
                 give the pool a larger class"
            ),
            TakeError::Exhausted { class_len, total_count } => write!(
                f,
                "all {total_count} buffers of {class_len} bytes are in use; wait for one, or give \
                 the pool more"
            ),
        }
    }
}

impl std::error::Error for TakeError {}

impl From<TakeError> for io::Error {
    fn from(error: TakeError) -> io::Error {
        let kind = match error {
            TakeError::TooLong { .. } => io::ErrorKind::InvalidInput,
            TakeError::Exhausted { .. } => io::ErrorKind::WouldBlock,
        };
        io::Error::new(kind, error)
    }
}

/// A size class of a pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// The most that one of its buffers holds, in bytes.
    pub len: usize,
    /// Its buffers.
    pub total_count: usize,
    /// Of these, those in the pool.
    pub free_count: usize,
    /// Tasks that wait for one.
    pub waiting_count: usize,
}

/// A pool of fixed buffers on one driver. Clones share it.
#[derive(Clone)]
pub struct Pool(Rc<Inner>);

struct Inner {
    /// Buffers by class, in the order of `classes`.
    slots: Box<[Slot]>,
    /// By length, the shortest first.
    classes: Box<[Class]>,
    /// The buffers' memory.
    _regions: Vec<Region>,
    /// Of each region, if they are registered.
    indexes: Vec<FixedIndex>,
    not_registered: Option<NotRegistered>,
    huge_pages: bool,
    driver: Rc<Driver>,
}

/// A buffer's place in the pool.
struct Slot {
    start: NonNull<u8>,
    /// Bytes that hold something, as the buffer's holder has it.
    len: Cell<u32>,
    /// Bytes that whoever took it asked for.
    capacity: Cell<u32>,
    registration: Option<Registration>,
    class: u32,
    /// Its own place in `Inner::slots`.
    index: u32,
}

struct Class {
    /// In bytes.
    len: usize,
    total_count: usize,
    queue: RefCell<Queue>,
}

/// The free buffers of a class, or those who wait for one. Who came first gets the next.
struct Queue {
    /// The last one given back is taken first: it is in the caches.
    free: Vec<u32>,
    waiting: BTreeMap<u64, Waker>,
    /// Given back, and meant for who has that ticket.
    handed: BTreeMap<u64, u32>,
    next_ticket: u64,
}

/// Memory from the kernel, registered as one buffer.
struct Region {
    start: NonNull<u8>,
    len: usize,
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped in `Region::new`; nothing uses it any more (INV-BUF, at `Inner`).
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Length in bytes of the kernel's huge pages.
fn huge_page_len() -> usize {
    let known = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()
    });
    known.map_or(2 << 20, |kib| kib * 1024)
}

fn page_len() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The machine's memory in bytes.
fn machine_len() -> u128 {
    // SAFETY: no pointers.
    let page_count = u128::try_from(unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) });
    page_count.map_or(u128::MAX, |count| count * page_len() as u128)
}

impl Region {
    /// `len` bytes, zeroed, whose address is a multiple of `alignment`; and whether they are on
    /// reserved huge pages.
    fn new(len: usize, alignment: usize, huge: HugePages) -> Result<(Region, bool), PoolError> {
        if huge == HugePages::No {
            let mapped = Region::map(len.next_multiple_of(page_len()), alignment, 0);
            let cause = |error| PoolError(Cause::Memory { len, error });
            return mapped.map(|region| (region, false)).map_err(cause);
        }
        let page_len = huge_page_len();
        let len = len.next_multiple_of(page_len);
        match Region::map(len, alignment, libc::MAP_HUGETLB) {
            Ok(region) => Ok((region, true)),
            Err(error) if huge == HugePages::Required => {
                Err(PoolError(Cause::HugePages { len, page_len, error }))
            }
            Err(_) => {
                let region = Region::map(len, alignment.max(page_len), 0)
                    .map_err(|error| PoolError(Cause::Memory { len, error }))?;
                // SAFETY: the region is mapped. It is advice: that it is not taken is no error.
                unsafe { libc::madvise(region.start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
                Ok((region, false))
            }
        }
    }

    fn map(len: usize, alignment: usize, flags: libc::c_int) -> io::Result<Region> {
        let page_len = if flags & libc::MAP_HUGETLB == 0 { page_len() } else { huge_page_len() };
        let alignment = alignment.max(page_len);
        // The kernel aligns to a page by itself. What is too much on either side is unmapped.
        let extra_len = alignment - page_len;
        let mapped_len = len.checked_add(extra_len).ok_or(io::ErrorKind::OutOfMemory)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let mapped = unsafe { libc::mmap(null_mut(), mapped_len, protection, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let before_len = mapped.addr().next_multiple_of(alignment) - mapped.addr();
        // SAFETY: all within the mapping just made, of which nobody uses anything yet.
        let start = unsafe {
            let start = mapped.byte_add(before_len);
            if before_len > 0 {
                libc::munmap(mapped, before_len);
            }
            if extra_len > before_len {
                libc::munmap(start.byte_add(len), extra_len - before_len);
            }
            start
        };
        let start = NonNull::new(start.cast()).expect("the kernel does not map the null page");
        Ok(Region { start, len })
    }
}

/// The regions and the places of the buffers in them.
struct Layout {
    /// Lengths in bytes.
    regions: Vec<usize>,
    /// Of each buffer the class, the region and the offset there.
    slots: Vec<(u32, usize, usize)>,
}

impl Layout {
    /// Places the buffers one after the other, none across the end of a region.
    fn new(classes: &[(usize, usize)], alignment: usize) -> Result<Layout, PoolError> {
        let argument = |what| Err(PoolError(Cause::Argument(what)));
        if classes.is_empty() {
            return argument("a pool needs a size class: its length in bytes and a count".into());
        }
        if !alignment.is_power_of_two() || alignment > REGION_LEN_MAX {
            return argument(format!(
                "an alignment is a power of two up to {REGION_LEN_MAX} bytes, not {alignment}"
            ));
        }
        let (mut total_len, mut total_count) = (0_u128, 0_u128);
        for &(len, count) in classes {
            if len == 0 || len > REGION_LEN_MAX || count == 0 {
                return argument(format!(
                    "a size class has at least one buffer of 1 to {REGION_LEN_MAX} bytes, not \
                     {count} of {len}"
                ));
            }
            total_count += count as u128;
            total_len += count as u128 * len.next_multiple_of(alignment) as u128;
        }
        if total_count > COUNT_MAX {
            return argument(format!(
                "{total_count} buffers are more than the {COUNT_MAX} that a pool takes"
            ));
        }
        // What is registered is there at once, and too much of it ends the process.
        let machine_len = machine_len();
        if total_len > machine_len {
            return argument(format!(
                "a pool of {total_len} bytes is more than the machine's {machine_len}"
            ));
        }
        let mut layout = Layout { regions: Vec::new(), slots: Vec::new() };
        for (class, &(len, count)) in (0..).zip(classes) {
            let stride = len.next_multiple_of(alignment);
            for _ in 0..count {
                match layout.regions.last_mut() {
                    Some(region) if *region + stride <= REGION_LEN_MAX => *region += stride,
                    _ => layout.regions.push(stride),
                }
                let region = layout.regions.len() - 1;
                layout.slots.push((class, region, layout.regions[region] - stride));
            }
        }
        Ok(layout)
    }
}

impl Pool {
    /// Makes a pool on a driver.
    pub fn new(driver: &Rc<Driver>, options: &PoolOptions) -> Result<Pool, PoolError> {
        let mut classes: Vec<(usize, usize)> = Vec::new();
        let mut given = options.classes.clone();
        given.sort_unstable();
        for (len, count) in given {
            match classes.last_mut() {
                Some(class) if class.0 == len => class.1 = class.1.saturating_add(count),
                _ => classes.push((len, count)),
            }
        }
        let layout = Layout::new(&classes, options.alignment)?;
        let mut regions = Vec::new();
        let mut huge_pages = true;
        for &len in &layout.regions {
            let (region, is_huge) = Region::new(len, options.alignment, options.huge_pages)?;
            huge_pages &= is_huge;
            regions.push(region);
        }
        let registered = register(driver, &regions);
        let (indexes, not_registered) = match registered {
            Ok(indexes) => (indexes, None),
            Err(why) if options.require_registered => {
                return Err(PoolError(Cause::NotRegistered(why)));
            }
            Err(why) => {
                trace::fell_back(driver.engine(), format_args!("a pool as plain memory: {why}"));
                (Vec::new(), Some(why))
            }
        };
        let slots = (0..).zip(&layout.slots).map(|(index, &(class, region, offset))| {
            let driver = Rc::as_ptr(driver);
            // SAFETY: the layout keeps within the region.
            let start = unsafe { regions[region].start.add(offset) };
            let registration = indexes.get(region).map(|&index| Registration { driver, index });
            let (len, capacity) = (Cell::new(0), Cell::new(0));
            Slot { start, len, capacity, registration, class, index }
        });
        let slots: Box<[Slot]> = slots.collect();
        let classes = (0..).zip(&classes).map(|(class, &(len, total_count))| {
            let own = slots.iter().filter(|slot| slot.class == class);
            let queue = Queue {
                free: own.rev().map(|slot| slot.index).collect(),
                waiting: BTreeMap::new(),
                handed: BTreeMap::new(),
                next_ticket: 0,
            };
            Class { len, total_count, queue: RefCell::new(queue) }
        });
        Ok(Pool(Rc::new(Inner {
            classes: classes.collect(),
            slots,
            _regions: regions,
            indexes,
            not_registered,
            huge_pages,
            driver: driver.clone(),
        })))
    }

    /// A buffer of `len` bytes, if one is free.
    pub fn try_take(&self, len: usize) -> Result<FixedBuf, TakeError> {
        let class = self.0.class_for(len)?;
        let slot = class.queue.borrow_mut().free.pop();
        match slot {
            Some(index) => Ok(self.0.hand_out(index, len)),
            None => {
                Err(TakeError::Exhausted { class_len: class.len, total_count: class.total_count })
            }
        }
    }

    /// A buffer of `len` bytes, as soon as one is free. Who asked first gets the first; dropping
    /// the future gives the place in the queue up.
    pub fn take(&self, len: usize) -> Take {
        Take { pool: self.clone(), len, ticket: None }
    }

    /// The size classes, the shortest first.
    pub fn stats(&self) -> Vec<ClassStats> {
        let classes = self.0.classes.iter().map(|class| {
            let queue = class.queue.borrow();
            ClassStats {
                len: class.len,
                total_count: class.total_count,
                free_count: queue.free.len(),
                waiting_count: queue.waiting.len(),
            }
        });
        classes.collect()
    }

    /// Why the memory is not registered; `None` if it is.
    pub fn not_registered(&self) -> Option<&NotRegistered> {
        self.0.not_registered.as_ref()
    }

    /// Whether all of the memory is on reserved huge pages.
    pub fn is_on_huge_pages(&self) -> bool {
        self.0.huge_pages
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("classes", &self.stats())
            .field("registered", &self.0.not_registered.is_none())
            .finish()
    }
}

/// Registers every region, or none.
fn register(driver: &Driver, regions: &[Region]) -> Result<Vec<FixedIndex>, NotRegistered> {
    let pool_len = regions.iter().map(|region| region.len).sum();
    let locked_len_max = locked_len_max();
    let mut indexes = Vec::new();
    for region in regions {
        let deadline = crate::clock::now() + CHARGE_TIME_MAX;
        let refused = loop {
            // SAFETY: the region is mapped, and unmapped only after it is unregistered.
            match unsafe { driver.register_buffer(region.start.as_ptr(), region.len) } {
                Ok(index) => {
                    indexes.push(index);
                    break None;
                }
                Err(Refused::Errno(libc::ENOMEM))
                    if locked_len_max.is_some_and(|max| pool_len as u64 <= max)
                        && crate::clock::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(refused) => break Some(refused),
            }
        };
        if let Some(refused) = refused {
            indexes.into_iter().for_each(|index| driver.unregister_buffer(index));
            return Err(NotRegistered {
                engine: driver.engine(),
                refused,
                pool_len,
                locked_len_max,
            });
        }
    }
    Ok(indexes)
}

/// `RLIMIT_MEMLOCK` in bytes; `None` if there is none.
fn locked_len_max() -> Option<u64> {
    match system::locked_memory_limit()? {
        Limit::Unlimited => None,
        Limit::Value(bytes) => Some(bytes),
    }
}

impl Inner {
    /// The smallest class with buffers that long.
    fn class_for(&self, len: usize) -> Result<&Class, TakeError> {
        self.classes.iter().find(|class| class.len >= len).ok_or_else(|| TakeError::TooLong {
            len,
            len_max: self.classes.last().map_or(0, |class| class.len),
        })
    }

    fn hand_out(self: &Rc<Inner>, index: u32, len: usize) -> FixedBuf {
        let slot = &self.slots[index as usize];
        // A class's length, and so this one, is at most REGION_LEN_MAX.
        slot.len.set(len as u32);
        slot.capacity.set(len as u32);
        FixedBuf { slot: NonNull::from(slot), pool: self.clone() }
    }
}

impl Class {
    /// A buffer comes back: the first who waits gets it, and is to be woken.
    fn give_back(&self, index: u32) -> Option<Waker> {
        let mut queue = self.queue.borrow_mut();
        match queue.waiting.pop_first() {
            Some((ticket, waker)) => {
                queue.handed.insert(ticket, index);
                Some(waker)
            }
            None => {
                queue.free.push(index);
                None
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for index in self.indexes.drain(..) {
            self.driver.unregister_buffer(index);
        }
    }
}

/// Waits for a buffer of a [`Pool`].
#[must_use = "a buffer is waited for when this is polled"]
pub struct Take {
    pool: Pool,
    len: usize,
    /// While it waits.
    ticket: Option<u64>,
}

impl Future for Take {
    type Output = Result<FixedBuf, TakeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let class = this.pool.0.class_for(this.len)?;
        // Cloning and dropping a waker may run the user's code: not while the queue is borrowed.
        let waker = cx.waker().clone();
        let mut queue = class.queue.borrow_mut();
        let taken = match this.ticket {
            None => queue.free.pop(),
            Some(ticket) => queue.handed.remove(&ticket),
        };
        if let Some(index) = taken {
            this.ticket = None;
            drop(queue);
            return Poll::Ready(Ok(this.pool.0.hand_out(index, this.len)));
        }
        let ticket = *this.ticket.get_or_insert_with(|| {
            queue.next_ticket += 1;
            queue.next_ticket
        });
        let replaced = queue.waiting.insert(ticket, waker);
        drop(queue);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let Ok(class) = self.pool.0.class_for(self.len) else { return };
        let mut queue = class.queue.borrow_mut();
        let waker = queue.waiting.remove(&ticket);
        let handed = queue.handed.remove(&ticket);
        drop(queue);
        drop(waker);
        if let Some(index) = handed {
            // It was given a buffer and did not come for it.
            drop(self.pool.0.hand_out(index, 0));
        }
    }
}

impl fmt::Debug for Take {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Take({} bytes)", self.len)
    }
}

/// A buffer of a [`Pool`]: aligned, registered where that is possible, and given back when it is
/// dropped, also by an op whose future was dropped.
///
/// It holds as many bytes as were asked for, which is its capacity: a read fills it up to there,
/// and its length is then what was read. A write takes its length, which
/// [`set_len`](FixedBuf::set_len) sets. What it holds at first is what its last user left there.
///
/// It belongs to its driver's thread: what it goes back to is the pool's list, which has no lock,
/// and the last one takes the registration back, which only that thread may do.
pub struct FixedBuf {
    /// Of the pool, which outlives the buffer.
    slot: NonNull<Slot>,
    pool: Rc<Inner>,
}

impl FixedBuf {
    #[inline]
    fn slot(&self) -> &Slot {
        // SAFETY: the pool is held, and its slots stay where they are.
        unsafe { self.slot.as_ref() }
    }

    /// The bytes that the buffer can hold: as many as were asked for.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.slot().capacity.get() as usize
    }

    /// Says how many bytes the buffer holds: those that a write takes, and that it derefs to. They
    /// are what was there before.
    ///
    /// # Panics
    /// If that is more than the capacity.
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        let capacity = self.capacity();
        assert!(len <= capacity, "a length of {len} bytes, and the buffer holds {capacity}");
        self.slot().len.set(len as u32);
    }
}

impl Drop for FixedBuf {
    fn drop(&mut self) {
        let slot = self.slot();
        let class = &self.pool.classes[slot.class as usize];
        if let Some(waker) = class.give_back(slot.index) {
            waker.wake();
        }
    }
}

impl Deref for FixedBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let slot = self.slot();
        // SAFETY: the slot has so many bytes, initialised by the kernel, and they are this
        // buffer's alone.
        unsafe { std::slice::from_raw_parts(slot.start.as_ptr(), slot.len.get() as usize) }
    }
}

impl DerefMut for FixedBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let slot = self.slot();
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(slot.start.as_ptr(), slot.len.get() as usize) }
    }
}

impl fmt::Debug for FixedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedBuf({} of {} bytes)", self.len(), self.capacity())
    }
}

// SAFETY: the bytes are in the pool's memory, which stays until the buffer is gone (INV-BUF), and
// nobody else has them meanwhile.
unsafe impl IoBuf for FixedBuf {
    #[inline]
    fn as_ptr(&self) -> *const u8 {
        self.slot().start.as_ptr()
    }

    #[inline]
    fn len(&self) -> usize {
        self.slot().len.get() as usize
    }

    #[inline]
    fn registration(&self) -> Option<Registration> {
        self.slot().registration
    }
}

// SAFETY: as above; the whole capacity is initialised.
unsafe impl IoBufMut for FixedBuf {
    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.slot().start.as_ptr()
    }

    #[inline]
    fn capacity(&self) -> usize {
        self.capacity()
    }

    #[inline]
    unsafe fn set_filled(&mut self, len: usize) {
        self.slot().len.set(len as u32);
    }
}
