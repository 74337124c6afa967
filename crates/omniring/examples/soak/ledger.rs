//! What the process holds: descriptors, threads, heap, memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use omniring::time::now;

static HEAP: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which knows how many bytes are allocated.
pub struct Allocator;

// SAFETY: hands every call on to the system's allocator.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        HEAP.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        HEAP.fetch_add(len, Relaxed);
        HEAP.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.realloc(start, layout, len) }
    }
}

/// What the process holds at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Holdings {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads, a ring's submission thread among them.
    pub threads: usize,
    /// Threads of the kernel's that carry ops out for this process's rings. The kernel keeps them
    /// for any further ring, for some seconds, and the last of each of two kinds for ever.
    pub kernel_workers: usize,
    /// Allocated bytes.
    pub heap: usize,
    /// Resident bytes.
    pub resident: usize,
}

impl Holdings {
    /// Looks.
    pub fn now() -> Holdings {
        let list = |directory| std::fs::read_dir(directory).expect("procfs is mounted").flatten();
        // Less the one with which the directory is read.
        let descriptors = list("/proc/self/fd").count() - 1;
        // One that has no name any more has just ended.
        let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm"));
        let names: Vec<String> = list("/proc/self/task").flat_map(name).collect();
        let kernel_workers = names.iter().filter(|name| name.starts_with("iou-wrk")).count();
        let threads = names.len() - kernel_workers;
        drop(names);
        // Last: a thread that was not seen any more holds nothing.
        let (resident, heap) = (resident(), HEAP.load(Relaxed));
        Holdings { descriptors, threads, kernel_workers, heap, resident }
    }

    /// Looks again and again until `is_enough` says so, or until the time is over.
    pub fn once(time: Duration, is_enough: impl Fn(&Holdings) -> bool) -> Holdings {
        let limit = now() + time;
        loop {
            let held = Holdings::now();
            if is_enough(&held) || now() >= limit {
                return held;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// An error if there is more of something than there was, by more than `slack`.
    pub fn compare(&self, what: &str, then: usize, now: usize, slack: usize) -> Result<(), String> {
        if now <= then + slack {
            return Ok(());
        }
        Err(format!("{now} {what}, {then} before; all in all {self}"))
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs is mounted");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it is there");
    let kib = line.split_whitespace().nth(1).expect("it has a number");
    kib.parse::<usize>().expect("of KiB") * 1024
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptors, {} threads, {} kernel workers, {} bytes of heap, {:.1} MiB resident",
            self.descriptors,
            self.threads,
            self.kernel_workers,
            self.heap,
            self.resident as f64 / f64::from(1 << 20)
        )
    }
}

/// Holds memory that the allocator does not count.
pub fn map_and_forget(bytes: usize) {
    let layout = Layout::from_size_align(bytes, 4096).expect("a size in pages");
    // SAFETY: the layout has a size, and the memory is never given back.
    let start = unsafe { System.alloc(layout) };
    assert!(!start.is_null(), "there is memory");
    // SAFETY: it is ours.
    unsafe { start.write_bytes(1, bytes) };
}
