//! Which cores there are, and keeping a thread on one of them.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// The cores that this process may run on, in order.
pub fn cores() -> Vec<usize> {
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect(),
        Err(_) => vec![0],
    }
}

/// How many cores the machine has, whether or not this process may use them.
pub fn online() -> usize {
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    online.map_or_else(|| cores().len(), |count| count.max(1) as usize)
}

/// Keeps this thread, and the threads it will start, on one core.
pub fn pin_this_thread(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_core() {
        let all = cores();
        let last = *all.last().expect("a process has at least one core");
        std::thread::spawn(move || {
            pin_this_thread(last).unwrap();
            assert_eq!(cores(), [last]);
        })
        .join()
        .unwrap();
        assert_eq!(cores(), all);
    }
}
