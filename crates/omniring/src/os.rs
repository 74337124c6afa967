//! What Linux offers as descriptors that become readable: counters, timers, and news of files; and what the process has
//! of memory and of time.

mod event_fd;
mod inotify;
mod timer_fd;

pub use event_fd::EventFd;
pub use inotify::{FileEvent, Inotify, WatchId};
pub use timer_fd::{Clock, TimerFd};

pub use omniring_driver::{thread_time, trim_heap};
