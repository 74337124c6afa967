//! The memory that the process has from the system.

/// Gives what was freed, and what the allocator keeps for later, back to the system.
///
/// Takes a time that grows with what there is to give back, about 0.1 ms for each MiB, and other threads that
/// allocate may wait for as long. Does nothing where the C library is not glibc;
/// a program whose allocator is another one has no use for it.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function may be called at any time, from any thread, and touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
