//! Sets of CPUs that threads may run on (`sched_setaffinity(2)`).

use std::fmt;
use std::io;

/// A set of CPUs.
#[derive(Clone, Copy)]
pub struct Cpus(libc::cpu_set_t);

impl Cpus {
    /// Those that the calling thread may run on.
    pub fn of_this_thread() -> io::Result<Cpus> {
        // SAFETY: a set of nothing is all zero; the kernel fills in so many bytes of it.
        let (result, set) = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set), set)
        };
        if result == 0 { Ok(Cpus(set)) } else { Err(io::Error::last_os_error()) }
    }

    /// One CPU, from 0.
    ///
    /// # Panics
    /// From 1,024 on, which the set has no room for.
    pub fn one(cpu: usize) -> Cpus {
        assert!(cpu < libc::CPU_SETSIZE as usize, "CPU {cpu} is beyond what a set has room for");
        // SAFETY: as above; the number is in range.
        Cpus(unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            set
        })
    }

    /// Their numbers, in order.
    pub fn numbers(&self) -> Vec<usize> {
        // SAFETY: the numbers are in range.
        (0..libc::CPU_SETSIZE as usize)
            .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &self.0) })
            .collect()
    }

    /// Keeps the calling thread, and those that it starts from now on, on these.
    pub fn keep_this_thread(&self) -> io::Result<()> {
        // SAFETY: so many bytes of a set are read.
        let result =
            unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl fmt::Debug for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cpus({:?})", self.numbers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_is_kept() {
        std::thread::spawn(|| {
            let before = Cpus::of_this_thread().unwrap().numbers();
            let one = Cpus::one(before[0]);
            one.keep_this_thread().unwrap();
            assert_eq!(Cpus::of_this_thread().unwrap().numbers(), [before[0]]);
        })
        .join()
        .unwrap();
    }
}
