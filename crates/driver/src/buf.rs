//! Owned buffers: memory that an op may use while it is in flight.
//!
//! An op owns its buffer from submission to completion and gives it back with the result. The
//! traits are unsafe to implement because the kernel writes through the pointers after the value
//! moved: the memory must not move with it (INV-BUF). Deliberately not here: leased buffers, which
//! are a pool of the driver's. Registered ones are in [`fixed`].

pub mod fixed;

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;

use self::fixed::Registration;

/// Memory that an op can read from.
///
/// # Safety
/// `as_ptr` points at `len` initialised bytes, which stay where they are and unchanged when the
/// value is moved, for as long as it lives and nobody has a mutable reference to it.
pub unsafe trait IoBuf: Unpin + 'static {
    /// Where the bytes start.
    fn as_ptr(&self) -> *const u8;

    /// How many bytes from there on are initialised.
    fn len(&self) -> usize;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the memory is registered, if it is: [`fixed::FixedBuf`] knows, and what wraps a
    /// buffer passes it on.
    #[inline]
    fn registration(&self) -> Option<Registration> {
        None
    }

    /// The initialised bytes.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the trait's contract.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }
}

/// Memory that an op can write to.
///
/// # Safety
/// As for [`IoBuf`], and `as_mut_ptr` points at `capacity` bytes that may be written, of which the
/// first `len` are initialised.
pub unsafe trait IoBufMut: IoBuf {
    /// Where the bytes start.
    fn as_mut_ptr(&mut self) -> *mut u8;

    /// How many bytes from there on may be written.
    fn capacity(&self) -> usize;

    /// Told after an op wrote the first `len` bytes. A `Vec` takes it as its new length; a buffer
    /// whose length is fixed ignores it.
    ///
    /// # Safety
    /// The first `len` bytes are initialised, and `len` is at most `capacity`.
    unsafe fn set_filled(&mut self, len: usize);
}

// SAFETY: the bytes of a Vec are on the heap; moving the Vec does not move them.
unsafe impl IoBuf for Vec<u8> {
    fn as_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

// SAFETY: as above; `capacity` bytes are allocated.
unsafe impl IoBufMut for Vec<u8> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn capacity(&self) -> usize {
        self.capacity()
    }

    unsafe fn set_filled(&mut self, len: usize) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.set_len(len) }
    }
}

// SAFETY: the bytes of a boxed slice are on the heap.
unsafe impl IoBuf for Box<[u8]> {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

// SAFETY: as above; all of them are initialised.
unsafe impl IoBufMut for Box<[u8]> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        (**self).as_mut_ptr()
    }

    fn capacity(&self) -> usize {
        (**self).len()
    }

    unsafe fn set_filled(&mut self, _len: usize) {}
}

// SAFETY: static memory does not move.
unsafe impl IoBuf for &'static [u8] {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

// SAFETY: static memory does not move.
unsafe impl IoBuf for &'static str {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

// SAFETY: the bytes of a String are on the heap.
unsafe impl IoBuf for String {
    fn as_ptr(&self) -> *const u8 {
        self.as_str().as_ptr()
    }

    fn len(&self) -> usize {
        self.as_str().len()
    }
}

// SAFETY: the bytes of an Arc are on the heap, and shared ones are not written.
unsafe impl IoBuf for std::sync::Arc<[u8]> {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

// SAFETY: the Vec of an Arc is on the heap, and its bytes too; neither is written while the op has a share:
// the op gives no access to it, and others' `Arc::get_mut` fails meanwhile.
unsafe impl IoBuf for std::sync::Arc<Vec<u8>> {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

/// Memory of a fixed length and alignment, zeroed when made: what `O_DIRECT` needs.
///
/// ```
/// let buf = omniring_driver::buf::AlignedBuf::new(4096, 4096);
/// assert_eq!(buf.as_ptr() as usize % 4096, 0);
/// assert!(buf.iter().all(|&byte| byte == 0));
/// ```
pub struct AlignedBuf {
    start: NonNull<u8>,
    layout: Layout,
}

impl AlignedBuf {
    /// `len` bytes whose address is a multiple of `align`.
    ///
    /// # Panics
    /// If `align` is not a power of two, or the size overflows the address space.
    pub fn new(len: usize, align: usize) -> AlignedBuf {
        let layout = Layout::from_size_align(len, align).expect("align is a power of two");
        if len == 0 {
            return AlignedBuf { start: NonNull::dangling(), layout };
        }
        // SAFETY: the layout's size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        AlignedBuf { start, layout }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.start.as_ptr(), self.layout) }
        }
    }
}

// SAFETY: it owns its memory as a Box does.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared references only read.
unsafe impl Sync for AlignedBuf {}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `layout.size()` bytes are allocated and initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes, align {})", self.layout.size(), self.layout.align())
    }
}

// SAFETY: the bytes are on the heap.
unsafe impl IoBuf for AlignedBuf {
    fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    fn len(&self) -> usize {
        self.layout.size()
    }
}

// SAFETY: as above; all of them are initialised.
unsafe impl IoBufMut for AlignedBuf {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn capacity(&self) -> usize {
        self.layout.size()
    }

    unsafe fn set_filled(&mut self, _len: usize) {}
}

/// A part of a buffer, for an op that should not use all of it.
///
/// ```
/// use omniring_driver::buf::{IoBuf, IoBufExt};
/// let part = b"header body".to_vec().slice(7..);
/// assert_eq!(part.as_bytes(), b"body");
/// assert_eq!(part.into_inner(), b"header body");
/// ```
#[derive(Debug)]
pub struct Slice<B> {
    inner: B,
    start: usize,
    end: usize,
}

impl<B> Slice<B> {
    /// The whole buffer back.
    pub fn into_inner(self) -> B {
        self.inner
    }

    /// The whole buffer.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// Where the part starts, in bytes.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Where the part ends, in bytes.
    pub fn end(&self) -> usize {
        self.end
    }
}

// SAFETY: a part of memory that keeps the contract keeps it too; `len` stays within it.
unsafe impl<B: IoBuf> IoBuf for Slice<B> {
    fn as_ptr(&self) -> *const u8 {
        // SAFETY: `start` is within the buffer, checked when the slice was made; a buffer's
        // initialised part may have shrunk since, but not its allocation.
        unsafe { self.inner.as_ptr().add(self.start) }
    }

    fn len(&self) -> usize {
        self.inner.len().min(self.end).saturating_sub(self.start)
    }

    #[inline]
    fn registration(&self) -> Option<Registration> {
        self.inner.registration()
    }
}

// SAFETY: as above; `capacity` stays within the inner buffer's.
unsafe impl<B: IoBufMut> IoBufMut for Slice<B> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        // SAFETY: as in `as_ptr`.
        unsafe { self.inner.as_mut_ptr().add(self.start) }
    }

    fn capacity(&self) -> usize {
        self.inner.capacity().min(self.end).saturating_sub(self.start)
    }

    unsafe fn set_filled(&mut self, len: usize) {
        // What lies before the part is initialised: `slice` saw to that.
        // SAFETY: by the caller's contract, so is what the op wrote.
        unsafe { self.inner.set_filled(self.start + len) }
    }
}

/// Making a [`Slice`] of a buffer.
pub trait IoBufExt: IoBuf + Sized {
    /// The part of the buffer that an op should use. Without an end it goes as far as the buffer
    /// does: to the initialised length for a write, to the capacity for a read.
    ///
    /// # Panics
    /// If the range starts after it ends, or after the initialised part of the buffer.
    fn slice(self, range: impl RangeBounds<usize>) -> Slice<Self> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => usize::MAX,
        };
        assert!(start <= end, "slice starts at {start} and ends at {end}");
        assert!(start <= self.len(), "slice starts at {start} of {} bytes", self.len());
        Slice { inner: self, start, end }
    }
}

impl<B: IoBuf> IoBufExt for B {}

/// Filling a buffer with bytes that are somewhere else already.
pub trait IoBufMutExt: IoBufMut {
    /// Copies as much of `bytes` as there is room for to the start of the buffer, as if an op had
    /// read it: how many bytes.
    ///
    /// ```
    /// use omniring_driver::buf::IoBufMutExt;
    /// let mut buf = Vec::with_capacity(100);
    /// assert_eq!(buf.fill_from(b"hello"), 5);
    /// assert_eq!(buf, b"hello");
    /// ```
    fn fill_from(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.capacity());
        // SAFETY: the trait's contract: so many bytes may be written. They are initialised by that.
        unsafe {
            std::ptr::copy(bytes.as_ptr(), self.as_mut_ptr(), count);
            self.set_filled(count);
        }
        count
    }
}

impl<B: IoBufMut> IoBufMutExt for B {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_a_vec_for_reading_reaches_to_its_capacity() {
        let mut buf = Vec::with_capacity(100);
        buf.extend_from_slice(b"abc");
        let capacity = buf.capacity();
        let mut slice = buf.slice(3..);
        assert_eq!(IoBuf::len(&slice), 0);
        assert_eq!(slice.capacity(), capacity - 3);
        // SAFETY: the byte at 3 is written just before it is declared filled.
        unsafe {
            *slice.as_mut_ptr() = b'd';
            slice.set_filled(1);
        }
        assert_eq!(slice.into_inner(), b"abcd");
    }

    #[test]
    #[should_panic(expected = "slice starts at 4 of 3 bytes")]
    fn a_slice_cannot_start_in_uninitialised_memory() {
        let mut buf = Vec::with_capacity(100);
        buf.extend_from_slice(b"abc");
        let _ = buf.slice(4..);
    }

    #[test]
    fn an_empty_aligned_buffer_allocates_nothing() {
        assert!(AlignedBuf::new(0, 4096).is_empty());
    }
}
