//! The floor of the round trips between two cores: two threads that wake each other through an eventfd
//! each, and nothing else.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::read;

use crate::affinity;
use crate::clock;
use crate::measure::Latency;
use crate::subject::Subject;

pub(super) struct PingFloor {
    there: Arc<EventFd>,
    back: Arc<EventFd>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PingFloor {
    pub(super) fn new() -> io::Result<PingFloor> {
        let cores = affinity::cores();
        let make = || Ok::<_, io::Error>(Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?));
        let (there, back) = (make()?, make()?);
        let ending = Arc::new(AtomicBool::new(false));
        let thread = {
            let (there, back, ending) = (there.clone(), back.clone(), ending.clone());
            let core = cores.get(1).copied();
            std::thread::Builder::new().name("ping".to_owned()).spawn(move || {
                let _ = core.map(affinity::pin_this_thread);
                while wait(&there).is_ok() && !ending.load(Ordering::Acquire) {
                    if back.write(1).is_err() {
                        return;
                    }
                }
            })?
        };
        if let Some(&core) = cores.first() {
            affinity::pin_this_thread(core)?;
        }
        Ok(PingFloor { there, back, ending, thread: Some(thread) })
    }
}

fn wait(eventfd: &EventFd) -> io::Result<()> {
    let mut count = [0; 8];
    read(eventfd.as_fd(), &mut count)?;
    Ok(())
}

impl Subject for PingFloor {
    fn run(&mut self, length: Duration, latency: &mut Latency) -> io::Result<u64> {
        let mut start = clock::now();
        let deadline = start + length;
        let mut ops = 0;
        while start < deadline {
            self.there.write(1)?;
            wait(&self.back)?;
            let now = clock::now();
            latency.record(now - start);
            start = now;
            ops += 1;
        }
        Ok(ops)
    }
}

impl Drop for PingFloor {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        let _ = self.there.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
