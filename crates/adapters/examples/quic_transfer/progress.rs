//! How far it is, in one line on a terminal.

use std::cell::Cell;
use std::io::Write;
use std::time::Duration;

use omniring::time::interval;

#[derive(Default)]
pub struct Progress {
    bytes: Cell<u64>,
    files: Cell<usize>,
}

impl Progress {
    pub fn add(&self, count: usize) {
        self.bytes.set(self.bytes.get() + count as u64);
    }

    pub fn finish_file(&self) {
        self.files.set(self.files.get() + 1);
    }

    /// Bytes that went through streams.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub fn files(&self) -> usize {
        self.files.get()
    }

    /// Shows it five times a second, until it is dropped.
    pub async fn show(&self, files: usize, len: u64) {
        let mut ticks = interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            let (done, bytes) = (self.files.get(), self.bytes.get());
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r{done} of {files} files, {bytes} of {len} bytes");
            let _ = err.flush();
        }
    }
}
