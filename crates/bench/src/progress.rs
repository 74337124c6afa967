//! Progress bars on standard error; nothing at all when that is not a terminal.

use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The one bar of a run.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar on standard error, if that is a terminal.
    pub fn on_stderr() -> Self {
        Progress(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()))
    }

    /// No bar.
    pub fn hidden() -> Self {
        Progress(ProgressBar::hidden())
    }

    /// A file of so many bytes is being made.
    pub fn filling(&self, path: &Path, bytes: u64) {
        self.0.set_style(style("{bar:40} {bytes}/{total_bytes}  {msg}"));
        self.0.set_message(format!("making {}", path.display()));
        self.0.set_position(0);
        self.0.set_length(bytes);
    }

    /// So many bytes more of it are there.
    pub fn filled(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// So many rows are going to be measured.
    pub fn measuring(&self, rows: usize) {
        self.0.set_style(style("{bar:40} {pos}/{len} rows, {eta} left  {msg}"));
        self.0.set_position(0);
        self.0.set_length(rows as u64);
        self.0.reset_eta();
    }

    /// What is being measured now.
    pub fn at(&self, what: String) {
        self.0.set_message(what);
    }

    /// So many rows more are done.
    pub fn done(&self, rows: usize) {
        self.0.inc(rows as u64);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates of this module");
    style.progress_chars("=> ")
}
