//! A buffer for O_DIRECT that the runtimes with owned buffers all accept.

/// Strictest alignment that a disk asks for.
const ALIGNMENT: usize = 4096;

/// A page-aligned buffer, valid to the end of the process: the run allocates
/// one per task and none afterwards, and leaking it spares each runtime's
/// buffer trait the question of who frees it.
pub struct AlignedBuf(&'static mut [u8]);

impl AlignedBuf {
    /// A zeroed buffer of `len` bytes.
    pub fn new(len: usize) -> AlignedBuf {
        let memory = vec![0; len + ALIGNMENT].leak();
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        AlignedBuf(&mut memory[start..start + len])
    }

    /// The bytes themselves, for runtimes that take any static slice.
    pub fn into_slice(self) -> &'static mut [u8] {
        self.0
    }
}

// SAFETY: the memory is leaked, so that its address is stable and it stays
// valid whatever happens to the value; all of its bytes are initialised.
unsafe impl monoio::buf::IoBufMut for AlignedBuf {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.len()
    }

    unsafe fn set_init(&mut self, _pos: usize) {}
}

// SAFETY: as above.
unsafe impl tokio_uring::buf::IoBuf for AlignedBuf {
    fn stable_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }

    fn bytes_total(&self) -> usize {
        self.0.len()
    }
}

// SAFETY: as above.
unsafe impl tokio_uring::buf::IoBufMut for AlignedBuf {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _pos: usize) {}
}
