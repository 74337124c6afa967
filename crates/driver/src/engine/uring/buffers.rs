//! The ring's table of registered buffers.
//!
//! It is made empty with the first buffer, so that rings without any pay nothing, and its entries
//! come and go one by one. Deliberately not here: whose memory it is (`buf::fixed`).

use std::num::NonZero;

use linux_raw_sys::io_uring as sys;
use sys::io_uring_register_op as operation;

use super::ring::Ring;
use crate::engine::Refused;
use crate::op::FixedIndex;

/// Entries of the table, each for up to 1 GiB. The first is not used.
const LEN: u16 = 256;

pub(super) struct BufferTable {
    free: Vec<NonZero<u16>>,
}

impl BufferTable {
    /// Gives the ring an empty table (5.19).
    pub(super) fn new(ring: &Ring) -> Result<BufferTable, Refused> {
        let mut table = sys::io_uring_rsrc_register {
            nr: LEN.into(),
            flags: sys::IORING_RSRC_REGISTER_SPARSE,
            resv2: 0,
            data: 0,
            tags: 0,
        };
        // SAFETY: a local, and its size; it points at nothing.
        let result = unsafe {
            ring.register(
                operation::IORING_REGISTER_BUFFERS2,
                (&raw mut table).cast(),
                size_of_val(&table) as u32,
            )
        };
        match result {
            Ok(_) => Ok(BufferTable { free: (1..LEN).rev().filter_map(NonZero::new).collect() }),
            Err(libc::EINVAL) => Err(Refused::OldKernel),
            Err(errno) => Err(Refused::Errno(errno)),
        }
    }

    /// Puts memory in the table: the kernel pins it and charges it as locked memory.
    ///
    /// # Safety
    /// The memory is mapped, for reading and writing.
    pub(super) unsafe fn register(
        &mut self,
        ring: &Ring,
        start: *mut u8,
        len: usize,
    ) -> Result<FixedIndex, Refused> {
        let &index = self.free.last().ok_or(Refused::TableFull)?;
        let memory = libc::iovec { iov_base: start.cast(), iov_len: len };
        // SAFETY: the caller's contract.
        unsafe { update(ring, index, memory) }.map_err(Refused::Errno)?;
        self.free.pop();
        Ok(FixedIndex(index))
    }

    /// Empties an entry. The kernel lets go of the memory when no op uses it any more.
    pub(super) fn unregister(&mut self, ring: &Ring, FixedIndex(index): FixedIndex) {
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: no memory.
        if unsafe { update(ring, index, nothing) }.is_ok() {
            self.free.push(index);
        }
    }
}

/// Replaces an entry of the table.
///
/// # Safety
/// The memory is mapped, for reading and writing.
unsafe fn update(ring: &Ring, index: NonZero<u16>, memory: libc::iovec) -> Result<(), i32> {
    let mut update = sys::io_uring_rsrc_update2 {
        offset: index.get().into(),
        resv: 0,
        data: (&raw const memory) as u64,
        tags: 0,
        nr: 1,
        resv2: 0,
    };
    // SAFETY: locals, and the update's size; the caller's contract for the memory.
    unsafe {
        ring.register(
            operation::IORING_REGISTER_BUFFERS_UPDATE,
            (&raw mut update).cast(),
            size_of_val(&update) as u32,
        )
    }
    .map(drop)
}
