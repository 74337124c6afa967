//! What works on this machine, what falls back and what is missing, each with the reason and the
//! remedy: what `omniring doctor` prints.
//!
//! Nothing is concluded from the kernel's version: engines and features are tried, with real ops
//! on real descriptors. Each check is bounded in time and needs no privilege. Deliberately not
//! here: how it is printed (the `omniring` command).
//!
//! ```
//! use omniring_driver::doctor::{self, Status};
//!
//! let epoll = doctor::checks().find(|check| check.name() == "epoll").unwrap();
//! assert_eq!(epoll.run().status, Status::Works);
//! ```

mod engines;
mod features;
mod machine;

use std::fmt;
use std::sync::mpsc;
use std::time::Duration;

use crate::choice::EngineName;
use crate::diagnosis::Diagnosis;
use crate::engine::uring::features::{FEATURES, Feature};

/// A check that takes longer has found something that does not answer.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// An engine, or `auto`.
    Engine,
    /// What the kernel's io_uring can do.
    Feature,
    /// A limit, a setting or a fact of the machine, this process or the current directory.
    Machine,
}

impl Group {
    /// Every group, in the order of [`checks`].
    pub const ALL: [Group; 3] = [Group::Engine, Group::Feature, Group::Machine];

    /// The group's name: `engine`, `feature` or `machine`.
    pub fn name(self) -> &'static str {
        match self {
            Group::Engine => "engine",
            Group::Feature => "feature",
            Group::Machine => "machine",
        }
    }
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It does what it is for.
    Works,
    /// It is not to be had here, or not in full; programs go on with something else by themselves.
    FallsBack,
    /// It is not to be had here, and nothing takes its place.
    Missing,
}

impl Status {
    /// Every status, the best first.
    pub const ALL: [Status; 3] = [Status::Works, Status::FallsBack, Status::Missing];

    /// The status in words: `works`, `falls back` or `missing`.
    pub fn name(self) -> &'static str {
        match self {
            Status::Works => "works",
            Status::FallsBack => "falls back",
            Status::Missing => "missing",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about.
    pub group: Group,
    /// The name of what was checked; it does not change between versions.
    pub name: &'static str,
    /// How it is.
    pub status: Status,
    /// For a limit, a setting or a fact: what it is, such as `8192 KiB`. For `auto`: the engine.
    pub value: Option<String>,
    /// In one line, why it is so or what it is good for.
    pub reason: String,
    /// In one line, what to do about it; empty if there is nothing to be done.
    pub remedy: String,
}

/// What a check's function says, without the name.
struct Verdict {
    status: Status,
    value: Option<String>,
    reason: String,
    remedy: String,
}

impl Verdict {
    fn works(reason: impl Into<String>) -> Verdict {
        let (value, remedy) = (None, String::new());
        Verdict { status: Status::Works, value, reason: reason.into(), remedy }
    }

    fn new(status: Status, diagnosis: Diagnosis) -> Verdict {
        let Diagnosis { reason, remedy } = diagnosis;
        Verdict { status, value: None, reason, remedy }
    }

    fn with_value(self, value: impl Into<String>) -> Verdict {
        Verdict { value: Some(value.into()), ..self }
    }
}

/// One thing to check.
#[derive(Clone, Copy)]
pub struct Check(Subject);

#[derive(Clone, Copy)]
enum Subject {
    Engine(EngineName),
    Feature(&'static Feature),
    Machine(&'static str, fn() -> Verdict),
}

impl Check {
    /// What it is about.
    pub fn group(&self) -> Group {
        match self.0 {
            Subject::Engine(_) => Group::Engine,
            Subject::Feature(_) => Group::Feature,
            Subject::Machine(..) => Group::Machine,
        }
    }

    /// The name of what is checked.
    pub fn name(&self) -> &'static str {
        match self.0 {
            Subject::Engine(engine) => engine.name(),
            Subject::Feature(feature) => feature.name,
            Subject::Machine(name, _) => name,
        }
    }

    /// Checks it, on a thread of its own, within 10 seconds. If that is over, the thread stays
    /// behind, waiting for a kernel that does not answer.
    ///
    /// A seccomp filter that kills instead of answering with an error kills the process: to
    /// survive that, run it in a child.
    pub fn run(&self) -> Finding {
        let (sender, verdict) = mpsc::channel();
        let subject = self.0;
        let started = std::thread::Builder::new()
            .name("omniring-doctor".to_owned())
            .spawn(move || sender.send(subject.verdict()));
        let verdict = match started {
            Err(_) => subject.verdict(),
            Ok(_) => verdict.recv_timeout(TIME_MAX).unwrap_or_else(|error| match error {
                mpsc::RecvTimeoutError::Timeout => Verdict::new(
                    Status::Missing,
                    Diagnosis::new(
                        format!("the kernel does not answer within {} s", TIME_MAX.as_secs()),
                        "another kernel",
                    ),
                ),
                mpsc::RecvTimeoutError::Disconnected => Verdict::new(
                    Status::Missing,
                    Diagnosis::new("the check failed in an unexpected way", "report it"),
                ),
            }),
        };
        self.finding(verdict)
    }

    /// What there is to say about it if the process that ran the check died or hung.
    pub fn lost(&self, how: &str) -> Finding {
        let remedy = match self.group() {
            Group::Machine => "",
            _ => {
                "where a seccomp filter kills: have it answer with an error (EPERM), or set \
                  OMNIRING_ENGINE to another engine"
            }
        };
        self.finding(Verdict::new(Status::Missing, Diagnosis::new(how, remedy)))
    }

    fn finding(&self, verdict: Verdict) -> Finding {
        let Verdict { status, value, reason, remedy } = verdict;
        Finding { group: self.group(), name: self.name(), status, value, reason, remedy }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({})", self.name())
    }
}

impl Subject {
    fn verdict(self) -> Verdict {
        match self {
            Subject::Engine(EngineName::Auto) => engines::check_auto(),
            Subject::Engine(engine) => engines::check(engine),
            Subject::Feature(feature) => features::check(feature),
            Subject::Machine(_, check) => check(),
        }
    }
}

/// Every check, in the order in which to print them: `auto` and the engines, the features of
/// io_uring, the machine.
pub fn checks() -> impl Iterator<Item = Check> {
    let auto = std::iter::once(EngineName::Auto);
    let engines = auto.chain(EngineName::ALL.iter().copied()).map(Subject::Engine);
    let features = FEATURES.iter().map(Subject::Feature);
    let machine = machine::CHECKS.iter().map(|&(name, check)| Subject::Machine(name, check));
    engines.chain(features).chain(machine).map(Check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_says_something_in_one_line() {
        let mut names = Vec::new();
        for check in checks() {
            let finding = check.run();
            assert!(!names.contains(&(finding.group, finding.name)), "{finding:?}");
            names.push((finding.group, finding.name));
            assert!(!finding.reason.is_empty(), "{finding:?}");
            for text in [&finding.reason, &finding.remedy] {
                assert!(!text.contains('\n') && !text.contains("  "), "{finding:?}");
            }
            if finding.status == Status::Missing {
                assert!(!finding.remedy.is_empty(), "{finding:?}");
            }
        }
    }

    #[test]
    fn epoll_works_everywhere() {
        let finding = checks().find(|check| check.name() == "epoll").unwrap().run();
        assert_eq!(finding.status, Status::Works, "{finding:?}");
    }
}
