//! How many system calls a process makes, counted by the kernel's tracepoint
//! `raw_syscalls:sys_enter`, which takes privileges (CAP_PERFMON, in practice root).
//!
//! While a counter exists every system call of the machine takes the slower path
//! through the tracepoint. So counters exist only during a slice of its own that
//! nobody times.

use std::fs;
use std::io::{self, Read};

use nix::errno::Errno;
use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Where the number of the tracepoint stands in a tracefs.
const ID: &str = "events/raw_syscalls/sys_enter/id";

/// Where a tracefs may be mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Counts the system calls of all threads of this process.
#[derive(Debug)]
pub struct SyscallCounter(Vec<Counter>);

impl SyscallCounter {
    /// Whether they can be counted here; the error says why not.
    pub fn available() -> Result<(), String> {
        SyscallCounter::start().map(drop).map_err(|error| error.to_string())
    }

    /// Counts from here on. Threads that start later count too.
    pub fn start() -> io::Result<SyscallCounter> {
        let tracepoint = Tracepoint::with_id(tracepoint_id()?);
        let mut counters = Vec::new();
        for entry in fs::read_dir("/proc/self/task")? {
            let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let mut builder = Builder::new(tracepoint);
            builder.observe_pid(thread).any_cpu().inherit(true).include_kernel();
            match builder.build() {
                Ok(counter) => counters.push(counter),
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {} // it has ended
                Err(error) => return Err(refusal("perf_event_open", &error)),
            }
        }
        // This thread stands first: it is the last to count, and the first to stop, so
        // that starting and stopping count for next to nothing.
        for counter in counters.iter_mut().rev() {
            counter.enable()?;
        }
        Ok(SyscallCounter(counters))
    }

    /// The system calls since the start.
    pub fn stop(mut self) -> io::Result<u64> {
        let mut sum = 0;
        for counter in &mut self.0 {
            counter.disable()?;
        }
        for counter in &mut self.0 {
            sum += counter.read()?;
        }
        Ok(sum)
    }
}

fn refusal(what: &str, error: &io::Error) -> io::Error {
    let reason = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            format!("{what} is not permitted; it takes root or CAP_PERFMON")
        }
        Some(number) => format!("{what}: {}", Errno::from_raw(number).desc().to_lowercase()),
        None => format!("{what}: {error}"),
    };
    io::Error::other(reason)
}

fn tracepoint_id() -> io::Result<u64> {
    let parse = |text: String| text.trim().parse().ok();
    let mounted = TRACEFS.iter().find_map(|root| {
        let text = fs::read_to_string(format!("{root}/{ID}")).ok()?;
        parse(text)
    });
    if let Some(id) = mounted {
        return Ok(id);
    }
    let text = read_unmounted().map_err(|error| refusal("tracefs", &error))?;
    parse(text).ok_or_else(|| io::Error::other("tracefs: the tracepoint has no number"))
}

/// Reads it from a tracefs of our own that is mounted nowhere and ends with us.
fn read_unmounted() -> io::Result<String> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let file = openat(&root, ID, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    fs::File::from(file).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn calls_of_old_and_new_threads_count() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let calls = |count: usize| {
            for _ in 0..count {
                let _ = nix::unistd::getppid();
            }
        };
        let old = std::thread::spawn(move || {
            let _ = wait.recv();
            calls(1000);
        });
        let counter = match SyscallCounter::start() {
            Ok(counter) => counter,
            Err(error) => {
                let _ = writeln!(io::stderr(), "skipped: {error}");
                drop(go);
                return old.join().unwrap();
            }
        };
        drop(go);
        old.join().unwrap();
        std::thread::spawn(move || calls(3000)).join().unwrap();
        let counted = counter.stop().unwrap();
        // Other tests run in this process at the same time.
        assert!(counted >= 4000, "{counted}");
    }
}
