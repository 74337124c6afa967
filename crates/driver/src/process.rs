//! What the process has from the system: memory, and time of processors.

use std::mem::MaybeUninit;
use std::time::Duration;

/// The processor time that the calling thread has used, kernel and user: what it worked, without the time in which
/// others had the processor. `CLOCK_THREAD_CPUTIME_ID` of clock_gettime(2), a system call.
pub fn thread_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes a timespec where it is told to, and the place is one.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    assert_eq!(result, 0, "every Linux has this clock");
    // SAFETY: it was written, as the result says.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

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

#[cfg(test)]
mod tests {
    use super::thread_time;

    #[test]
    fn a_thread_that_works_uses_time() {
        let before = thread_time();
        let work = (0..1_000_000_u64).fold(1, |sum, number| std::hint::black_box(sum ^ number));
        assert_ne!(std::hint::black_box(work), u64::MAX);
        assert!(thread_time() > before);
        let other = std::thread::spawn(thread_time).join().expect("it ends");
        assert!(other < thread_time(), "each thread has its own");
    }
}
