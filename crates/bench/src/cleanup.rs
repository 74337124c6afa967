//! What has to be undone however the run ends: files that we made, children
//! that we started.
//!
//! INV-CLEAN: a file is entered before it is created and a child right after it
//! is started; each leaves the list only after it is gone. On SIGINT, SIGTERM
//! and SIGHUP the list is worked off and the process exits with status 130.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[derive(Default)]
struct Leftovers {
    files: Vec<PathBuf>,
    children: Vec<Pid>,
}

static LEFTOVERS: Mutex<Leftovers> =
    Mutex::new(Leftovers { files: Vec::new(), children: Vec::new() });

fn leftovers() -> MutexGuard<'static, Leftovers> {
    LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cleans up on SIGINT, SIGTERM and SIGHUP. Once in a process; a second call
/// does nothing.
pub fn on_signals() {
    // The only failure is a handler that is there already.
    let _ = ctrlc::set_handler(|| {
        let leftovers = leftovers(); // never given back: nothing may be added now
        for &pid in &leftovers.children {
            let _ = kill(pid, Signal::SIGTERM);
        }
        for file in &leftovers.files {
            let _ = std::fs::remove_file(file);
        }
        std::process::exit(130);
    });
}

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub struct OwnFile(PathBuf);

impl OwnFile {
    /// Takes charge of a file that is about to be created.
    pub fn new(path: PathBuf) -> Self {
        leftovers().files.push(path.clone());
        OwnFile(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        leftovers().files.retain(|path| *path != self.0);
    }
}

/// A child that is killed and awaited when this is dropped.
#[derive(Debug)]
pub struct OwnChild {
    child: std::process::Child,
    pid: Pid,
}

impl OwnChild {
    /// Starts a child.
    pub fn start(command: &mut std::process::Command) -> std::io::Result<Self> {
        let mut leftovers = leftovers();
        let child = command.spawn()?;
        let pid = Pid::from_raw(child.id() as i32);
        leftovers.children.push(pid);
        Ok(OwnChild { child, pid })
    }

    /// The child itself, for its pipes.
    pub fn inner(&mut self) -> &mut std::process::Child {
        &mut self.child
    }

    /// Asks it to end; fio then ends its jobs too.
    pub fn terminate(&self) {
        let _ = kill(self.pid, Signal::SIGTERM);
    }

    /// Whether and how it has ended.
    pub fn try_wait(&mut self) -> std::io::Result<Option<std::process::ExitStatus>> {
        // Under the lock, so that no signal goes to a process id that is free again.
        let mut leftovers = leftovers();
        let status = self.child.try_wait()?;
        if status.is_some() {
            leftovers.children.retain(|pid| *pid != self.pid);
        }
        Ok(status)
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        let mut leftovers = leftovers();
        let _ = self.child.kill(); // nothing happens to one that was awaited
        let _ = self.child.wait();
        leftovers.children.retain(|pid| *pid != self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_own_file_is_removed_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made");
        let own = OwnFile::new(path.clone());
        std::fs::write(own.path(), b"x").unwrap();
        assert!(leftovers().files.contains(&path));
        drop(own);
        assert!(!path.exists());
        assert!(!leftovers().files.contains(&path));
    }

    #[test]
    fn an_own_child_does_not_outlive_its_owner() {
        let child = OwnChild::start(Command::new("sleep").arg("100")).unwrap();
        let pid = child.pid;
        drop(child);
        assert!(kill(pid, None).is_err());
    }
}
