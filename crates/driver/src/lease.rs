//! Leased buffers: memory that the driver's pool gives when data has arrived, so that a connection
//! that waits pins none.
//!
//! The pool reserves addresses for all its buffers and touches them only as they are needed. Where
//! the engine is a ring, some of the free buffers are provided to the kernel, in a ring of their
//! own that both sides share (`io_uring_register_buf_ring(3)`, 5.19): the kernel takes the next
//! one for each arrival. It starts with a few and is given more when it ran out, so that a quiet
//! server touches little memory; the rest is kept here, last in first out.
//!
//! Nobody ever waits for a lease: a receiver that holds more than its share, or finds the pool
//! empty, is given memory from the heap instead, which costs it more. So a task that hoards leases
//! slows itself only.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use libc::c_void;

use crate::buf::IoBuf;

/// The buffers that the kernel is given at first.
const PROVIDED_MIN: u32 = 64;

/// Buffers lie further apart than they are long, by a cache line: the first bytes of buffers whose
/// addresses differ by a power of two would contend for the same few places in the cache.
const GAP: usize = 64;

/// An entry of the ring of buffers, as the kernel lays it out. The tail of the ring lies in the
/// last field of its first entry.
#[repr(C)]
struct RingEntry {
    address: u64,
    len: u32,
    buffer: u16,
    tail: AtomicU16,
}

const _: () = assert!(size_of::<RingEntry>() == 16);

/// A private mapping of zeroed memory.
struct Memory {
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    fn reserve(len: usize) -> io::Result<Memory> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Memory { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `reserve`; whoever points into it keeps the pool alive.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The buffers that the kernel takes from.
struct Provided {
    entries: Memory,
    mask: u16,
    /// Our side of the ring.
    tail: Cell<u16>,
    /// Buffers that the kernel has not taken yet, as far as we know.
    count: Cell<u32>,
    /// As many as it is to have.
    wanted: Cell<u32>,
}

/// What one receiver holds.
#[derive(Clone, Copy, Default)]
struct Account {
    leased_count: u32,
    /// The receiver is gone: its number is free once its leases are back.
    closed: bool,
}

#[derive(Default)]
struct State {
    /// Buffers that are neither leased nor provided.
    free: Vec<u16>,
    /// Buffers from here on have never been used.
    fresh: u32,
    accounts: Vec<Account>,
    free_accounts: Vec<u32>,
}

/// The lease buffers of one driver.
pub(crate) struct LeasePool {
    memory: Option<Memory>,
    buffer_len: u32,
    count_max: u32,
    /// Buffers that one receiver may hold.
    share: u32,
    provided: RefCell<Option<Provided>>,
    state: RefCell<State>,
}

impl LeasePool {
    /// At most `count_max` buffers of `buffer_len` bytes. Without the addresses for them, all
    /// leases are from the heap.
    pub(crate) fn new(buffer_len: u32, count_max: u32) -> LeasePool {
        let count_max = count_max.min(1 << 15);
        LeasePool {
            memory: Memory::reserve((buffer_len as usize + GAP) * count_max as usize).ok(),
            buffer_len,
            count_max,
            share: (count_max / 8).max(1),
            provided: RefCell::new(None),
            state: RefCell::default(),
        }
    }

    /// Makes the ring of buffers. `register` is given its address and its number of entries, and
    /// tells the kernel; that the kernel uses it no more is known when its io_uring is gone, which
    /// therefore keeps the pool alive.
    pub(crate) fn provide(
        &self,
        register: impl FnOnce(*mut c_void, u32) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.memory.is_none() || self.count_max == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let entry_count = self.count_max.next_power_of_two();
        let entries = Memory::reserve(entry_count as usize * size_of::<RingEntry>())?;
        register(entries.start.as_ptr().cast(), entry_count)?;
        *self.provided.borrow_mut() = Some(Provided {
            entries,
            mask: (entry_count - 1) as u16,
            tail: Cell::new(0),
            count: Cell::new(0),
            wanted: Cell::new(PROVIDED_MIN.min(self.count_max)),
        });
        self.top_up();
        Ok(())
    }

    /// A buffer that nobody uses: one used lately first.
    pub(crate) fn take_free(&self) -> Option<u16> {
        let state = &mut *self.state.borrow_mut();
        state.free.pop().or_else(|| {
            let fresh = state.fresh;
            (fresh < self.count_max && self.memory.is_some()).then(|| {
                state.fresh += 1;
                fresh as u16
            })
        })
    }

    /// Provides free buffers to the kernel until it has as many as it is to have.
    fn top_up(&self) {
        let provided = self.provided.borrow();
        let Some(provided) = &*provided else { return };
        let mut tail = provided.tail.get();
        while provided.count.get() < provided.wanted.get() {
            let Some(buffer) = self.take_free() else { break };
            provided.count.set(provided.count.get() + 1);
            let at = usize::from(tail & provided.mask);
            // SAFETY: the index is masked. The fields are written one by one, as the last one of
            // the first entry is the tail, which the kernel reads at any time.
            unsafe {
                let entry = provided.entries.start.as_ptr().cast::<RingEntry>().add(at);
                (&raw mut (*entry).address).write(self.address(buffer) as u64);
                (&raw mut (*entry).len).write(self.buffer_len);
                (&raw mut (*entry).buffer).write(buffer);
            }
            tail = tail.wrapping_add(1);
        }
        provided.tail.set(tail);
        // SAFETY: the first entry's last field is the tail, which only we write. The release
        // makes the entries visible before it.
        unsafe {
            let first = provided.entries.start.as_ptr().cast::<RingEntry>();
            (*first).tail.store(tail, Ordering::Release);
        }
    }

    /// Bytes in one buffer.
    pub(crate) fn buffer_len(&self) -> u32 {
        self.buffer_len
    }

    /// Where the buffer is and how many bytes it has.
    pub(crate) fn memory(&self, buffer: u16) -> (*mut u8, u32) {
        (self.address(buffer), self.buffer_len)
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        let memory = self.memory.as_ref().expect("there is a buffer");
        // SAFETY: the mapping has room for `count_max` buffers, and this is one of them.
        unsafe { memory.start.as_ptr().add(usize::from(buffer) * (self.buffer_len as usize + GAP)) }
    }

    /// The kernel has taken so many buffers since the last call, and for `starved` arrivals it
    /// found none: it is given others, and more of them if it ran out.
    pub(crate) fn replenish(&self, taken_count: u32, starved: bool) {
        if let Some(provided) = &*self.provided.borrow() {
            provided.count.set(provided.count.get().saturating_sub(taken_count));
            if starved {
                provided.wanted.set((provided.wanted.get() * 2).min(self.count_max));
            }
        }
        self.top_up();
    }

    /// Whether the kernel has buffers to take.
    pub(crate) fn has_provided(&self) -> bool {
        self.provided.borrow().as_ref().is_some_and(|provided| provided.count.get() > 0)
    }

    /// The lease on a buffer that an op has taken and filled with `len` bytes; and whether the
    /// account has its share with it.
    #[inline]
    pub(crate) fn lease_filled(
        self: &Rc<LeasePool>,
        buffer: u16,
        len: u32,
        account: u32,
    ) -> (Lease, bool) {
        let leased_count = {
            let entry = &mut self.state.borrow_mut().accounts[account as usize];
            entry.leased_count += 1;
            entry.leased_count
        };
        let start = NonNull::new(self.address(buffer)).expect("mapped");
        let memory = LeaseMemory::Pool { pool: self.clone(), buffer, account };
        let lease = Lease { start, len: len.min(self.buffer_len) as usize, memory };
        (lease, leased_count >= self.share)
    }

    /// A whole buffer for whoever holds the account: of the pool if there is one and the account
    /// has not more than its share, else of the heap.
    pub(crate) fn lease(self: &Rc<LeasePool>, account: u32) -> Lease {
        if !self.is_over_share(account)
            && let Some(buffer) = self.take_free()
        {
            return self.lease_filled(buffer, self.buffer_len, account).0;
        }
        Lease::from_heap(self.buffer_len as usize)
    }

    /// Whether the account holds more than its share of the pool.
    pub(crate) fn is_over_share(&self, account: u32) -> bool {
        self.state.borrow().accounts[account as usize].leased_count >= self.share
    }

    /// A number for a receiver to be accounted under.
    pub(crate) fn open_account(&self) -> u32 {
        let state = &mut *self.state.borrow_mut();
        if let Some(account) = state.free_accounts.pop() {
            state.accounts[account as usize] = Account::default();
            return account;
        }
        state.accounts.push(Account::default());
        (state.accounts.len() - 1) as u32
    }

    /// The receiver is gone.
    pub(crate) fn close_account(&self, account: u32) {
        let state = &mut *self.state.borrow_mut();
        let entry = &mut state.accounts[account as usize];
        entry.closed = true;
        if entry.leased_count == 0 {
            state.free_accounts.push(account);
        }
    }

    /// A buffer that the kernel has taken, with nothing of interest in it.
    pub(crate) fn discard(&self, buffer: u16) {
        self.state.borrow_mut().free.push(buffer);
    }

    fn give_back(&self, buffer: u16, account: u32) {
        let state = &mut *self.state.borrow_mut();
        state.free.push(buffer);
        let entry = &mut state.accounts[account as usize];
        entry.leased_count -= 1;
        if entry.closed && entry.leased_count == 0 {
            state.free_accounts.push(account);
        }
    }

    /// Buffers of the pool that are leased.
    pub(crate) fn leased_count(&self) -> usize {
        self.state.borrow().accounts.iter().map(|account| account.leased_count as usize).sum()
    }
}

enum LeaseMemory {
    Pool { pool: Rc<LeasePool>, buffer: u16, account: u32 },
    Heap { _bytes: Box<[u8]> },
    Empty,
}

/// Bytes that have arrived, in memory of the runtime's pool. Dropping the lease gives it back.
///
/// A lease belongs to its thread, and can be kept for as long as one likes, even longer than the
/// runtime. It is a buffer that ops can send from.
pub struct Lease {
    start: NonNull<u8>,
    len: usize,
    memory: LeaseMemory,
}

impl Lease {
    /// A lease on nothing, as at the end of a stream.
    pub(crate) fn empty() -> Lease {
        Lease { start: NonNull::dangling(), len: 0, memory: LeaseMemory::Empty }
    }

    fn from_heap(len: usize) -> Lease {
        let mut bytes = vec![0; len].into_boxed_slice();
        let start = NonNull::new(bytes.as_mut_ptr()).expect("a box has an address");
        Lease { start, len, memory: LeaseMemory::Heap { _bytes: bytes } }
    }

    /// Leaves the first `count` bytes out.
    ///
    /// # Panics
    /// If the lease has fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len, "advanced by {count} of {} bytes", self.len);
        // SAFETY: within the lease's memory, checked above.
        self.start = unsafe { self.start.add(count) };
        self.len -= count;
    }

    /// Leaves what comes after the first `len` bytes out.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Whether the memory is of the pool. Otherwise it is of the heap, because the pool was empty
    /// or its receiver held more than its share.
    pub fn is_pooled(&self) -> bool {
        matches!(self.memory, LeaseMemory::Pool { .. })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let LeaseMemory::Pool { pool, buffer, account } = &self.memory {
            pool.give_back(*buffer, *account);
        }
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is the lease's own, and initialised: mapped or allocated zeroed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

// SAFETY: the pool's memory stays mapped and a box's bytes stay where they are as long as the
// lease lives.
unsafe impl IoBuf for Lease {
    fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_is_used_again() {
        let pool = Rc::new(LeasePool::new(4096, 8));
        let account = pool.open_account();
        let first = pool.lease(account);
        let address = first.as_ptr();
        assert!(first.is_pooled() && first.len() == 4096);
        assert_eq!(pool.leased_count(), 1);
        drop(first);
        assert_eq!(pool.leased_count(), 0);
        assert_eq!(pool.lease(account).as_ptr(), address);
    }

    #[test]
    fn a_hoarder_gets_memory_from_the_heap_and_others_are_served() {
        let pool = Rc::new(LeasePool::new(4096, 16));
        let (hoarder, other) = (pool.open_account(), pool.open_account());
        let hoard: Vec<Lease> = (0..10).map(|_| pool.lease(hoarder)).collect();
        assert_eq!(hoard.iter().filter(|lease| lease.is_pooled()).count(), 2);
        assert!(pool.lease(other).is_pooled());
    }

    #[test]
    fn an_account_is_free_when_its_last_lease_is_back() {
        let pool = Rc::new(LeasePool::new(4096, 16));
        let account = pool.open_account();
        let lease = pool.lease(account);
        pool.close_account(account);
        assert_ne!(pool.open_account(), account);
        drop(lease);
        assert_eq!(pool.open_account(), account);
    }

    #[test]
    fn a_lease_outlives_its_pool() {
        let pool = Rc::new(LeasePool::new(4096, 1));
        let account = pool.open_account();
        let mut lease = pool.lease(account);
        drop(pool);
        lease.fill(7);
        lease.advance(1000);
        lease.truncate(10);
        assert_eq!(&lease[..], &[7; 10]);
    }

    #[test]
    fn the_kernel_is_given_more_only_when_it_ran_out() {
        let pool = Rc::new(LeasePool::new(4096, 100));
        pool.provide(|_, entry_count| {
            assert_eq!(entry_count, 128);
            Ok(())
        })
        .unwrap();
        assert_eq!(pool.state.borrow().fresh, PROVIDED_MIN);
        pool.replenish(1, false);
        assert_eq!(pool.state.borrow().fresh, PROVIDED_MIN + 1);
        pool.replenish(PROVIDED_MIN, true);
        assert_eq!(pool.state.borrow().fresh, 100);
        let account = pool.open_account();
        let (lease, _) = pool.lease_filled(3, 5, account);
        assert_eq!((lease.as_ptr(), lease.len()), (pool.address(3).cast_const(), 5));
        drop(lease);
        assert_eq!(pool.state.borrow().free, [3]);
    }
}
