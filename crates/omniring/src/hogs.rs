//! Tasks that keep the core from the others, reported by name if asked.
//!
//! Who does not ask pays nothing: tasks then have no names and nobody reads the clock. So names are
//! kept here, beside the tasks.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::task::TaskId;

/// What the future of `block_on` is called.
const MAIN: &str = "the future of block_on";

/// A task that kept the core for too long: see [`Builder::report_hogs`](crate::Builder::report_hogs).
///
/// ```
/// let runtime = omniring::Runtime::builder()
///     .report_hogs_to(std::time::Duration::from_millis(10), |hog: &omniring::Hog<'_>| {
///         eprintln!("{} took {:?}", hog.name, hog.time);
///     })
///     .build()?;
/// # Ok::<(), omniring::StartError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hog<'a> {
    /// The task's name, else the type of its future.
    pub name: &'a str,
    /// From when the task was let run to when it gave the core back.
    pub time: Duration,
}

impl fmt::Display for Hog<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task '{}' kept the core for {:.1?}", self.name, self.time)
    }
}

/// Who is told, and of what.
#[derive(Clone)]
pub(crate) struct HogWatch {
    threshold: Duration,
    report: Arc<dyn Fn(&Hog<'_>) + Send + Sync>,
}

impl HogWatch {
    pub(crate) fn new(
        threshold: Duration,
        report: impl Fn(&Hog<'_>) + Send + Sync + 'static,
    ) -> HogWatch {
        HogWatch { threshold, report: Arc::new(report) }
    }
}

impl fmt::Debug for HogWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HogWatch").field("threshold", &self.threshold).finish_non_exhaustive()
    }
}

/// The watch of one core, and the names of its tasks.
pub(crate) struct Hogs {
    watch: HogWatch,
    names: RefCell<HashMap<TaskId, Cow<'static, str>>>,
}

impl Hogs {
    pub(crate) fn new(watch: HogWatch) -> Hogs {
        Hogs { watch, names: RefCell::default() }
    }

    pub(crate) fn set_name(&self, task: TaskId, name: Cow<'static, str>) {
        self.names.borrow_mut().insert(task, name);
    }

    /// A task ran for so long: its name, or its type's, if that is to be reported. One that has ended
    /// leaves its id to another.
    pub(crate) fn observe(
        &self,
        task: TaskId,
        type_name: &'static str,
        ended: bool,
        time: Duration,
    ) -> Option<Cow<'static, str>> {
        let is_hog = time >= self.watch.threshold;
        let mut names = self.names.borrow_mut();
        let name = match (ended, is_hog) {
            (true, _) => names.remove(&task),
            (false, true) => names.get(&task).cloned(),
            (false, false) => None,
        };
        is_hog.then(|| name.unwrap_or(Cow::Borrowed(type_name)))
    }

    /// The future of `block_on` ran for so long.
    pub(crate) fn observe_main(&self, time: Duration) {
        if time >= self.watch.threshold {
            self.report(MAIN, time);
        }
    }

    /// Calls the user's function, which may spawn: nothing is borrowed.
    pub(crate) fn report(&self, name: &str, time: Duration) {
        crate::trace::hog(name, time);
        (self.watch.report)(&Hog { name, time });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hog_is_told_in_one_line() {
        let hog = Hog { name: "index", time: Duration::from_micros(12_340) };
        assert_eq!(hog.to_string(), "task 'index' kept the core for 12.3ms");
    }
}
