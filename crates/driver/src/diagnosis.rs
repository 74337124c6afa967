//! Why an engine does not start here, and what to do about it.
//!
//! One place turns an errno into the cause behind it (a sysctl, a seccomp filter, a limit, the
//! kernel's age) and into the remedy, for the error of a named engine, for `auto`, which passes
//! an engine over, and for the doctor.

use std::fmt;
use std::io;

use crate::system::{self, KernelVersion};

/// The first kernel whose io_uring suffices: completions are never dropped, and a wait takes a
/// time.
pub(crate) const RING_VERSION_MIN: KernelVersion = KernelVersion::new(5, 11);

/// What a container or a filter has to allow for io_uring.
pub(crate) const RING_CALLS: &str = "io_uring_setup, io_uring_enter and io_uring_register";

/// A step of an engine's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Making what the engine needs: `io_uring_setup`, for a ring.
    SetUp,
    /// `io_uring_register`.
    Register,
    /// The proof: an op and a wake-up go through the engine. `io_uring_enter`, for a ring.
    Prove,
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) error: io::Error,
}

impl Failure {
    pub(crate) fn at(step: Step) -> impl Fn(io::Error) -> Failure {
        move |error| Failure { step, error }
    }
}

/// Why something does not work here, and what to do about it, each in less than a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    pub(crate) reason: String,
    pub(crate) remedy: String,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; remedy: {}", self.reason, self.remedy)
    }
}

impl Diagnosis {
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Diagnosis {
        Diagnosis { reason: reason.into(), remedy: remedy.into() }
    }

    /// Why a ring does not work.
    pub(crate) fn of_ring(failure: &Failure) -> Diagnosis {
        let call = match failure.step {
            Step::SetUp => "io_uring_setup",
            Step::Register => "io_uring_register",
            Step::Prove => "io_uring_enter",
        };
        let error = &failure.error;
        match error.raw_os_error() {
            Some(errno @ (libc::EPERM | libc::EACCES)) => {
                let told = if errno == libc::EPERM { "EPERM" } else { "EACCES" };
                denied(failure.step, &format!("{call} is denied ({told})"))
            }
            Some(libc::ENOSYS) => hidden(call),
            Some(libc::ENOMEM) => {
                let limit = system::locked_memory_limit();
                let limit = limit.map_or_else(|| "unknown".to_owned(), |limit| limit.in_kib());
                Diagnosis::new(
                    format!("{call}: too little locked memory (ENOMEM): the limit is {limit}"),
                    "raise it: `ulimit -l`, LimitMEMLOCK= in systemd, docker run --ulimit \
                     memlock=-1; or ask for fewer queue entries",
                )
            }
            Some(libc::ETIME) => Diagnosis::new(
                "io_uring does not answer: an op on a fresh ring did not end within 5 seconds",
                "another kernel",
            ),
            Some(libc::EINVAL) => Diagnosis::new(
                format!("{call} refuses what is asked of it (EINVAL)"),
                "a newer kernel",
            ),
            _ => Diagnosis::of_calls(failure),
        }
    }

    /// As `of_ring`, of a ring that polls the device.
    pub(crate) fn of_polled_ring(failure: &Failure) -> Diagnosis {
        match (failure.step, failure.error.raw_os_error()) {
            (Step::SetUp, Some(libc::EINVAL)) => Diagnosis::new(
                "io_uring_setup refuses a ring that polls the device as asked for (EINVAL)",
                "without hybrid polling before Linux 6.13, a polling thread on a CPU that is online \
                 and allowed to this process; or engine 'uring'",
            ),
            _ => Diagnosis::of_ring(failure),
        }
    }

    /// As `of_ring`, of a ring whose submissions a thread of the kernel's takes.
    pub(crate) fn of_ring_with_thread(failure: &Failure) -> Diagnosis {
        match (failure.step, failure.error.raw_os_error()) {
            (Step::SetUp, Some(libc::EINVAL)) => Diagnosis::new(
                "io_uring_setup refuses a submission thread, or the CPU for it (EINVAL)",
                "a CPU that is online and allowed to this process, or none named; or engine 'uring'",
            ),
            _ => Diagnosis::of_ring(failure),
        }
    }

    /// Why native AIO does not work.
    pub(crate) fn of_aio(failure: &Failure) -> Diagnosis {
        let call = match failure.step {
            Step::SetUp => "io_setup",
            Step::Prove => "io_submit or io_getevents",
            Step::Register => return Diagnosis::of_calls(failure),
        };
        let allow = || "allow io_setup, io_submit, io_getevents and io_destroy there".to_owned();
        match failure.error.raw_os_error() {
            Some(libc::EAGAIN) if failure.step == Step::SetUp => {
                let number = |name| system::sysctl_number(name).unwrap_or(-1);
                let (used, max) = (number("fs.aio-nr"), number("fs.aio-max-nr"));
                Diagnosis::new(
                    format!(
                        "io_setup: too few requests are left (EAGAIN): fs.aio-nr is {used}, \
                         fs.aio-max-nr {max}"
                    ),
                    "sysctl -w fs.aio-max-nr=1048576, or ask for fewer queue entries",
                )
            }
            Some(libc::ENOSYS) => Diagnosis::new(
                format!("{call} is hidden (ENOSYS): by a seccomp filter, or by the kernel's build"),
                format!("{}, or a kernel with CONFIG_AIO=y", allow()),
            ),
            Some(libc::EPERM | libc::EACCES) => Diagnosis::new(
                format!("{call} is denied (EPERM) by a seccomp filter or a sandbox"),
                allow(),
            ),
            Some(libc::EINVAL) => Diagnosis::new(
                format!("{call} refuses what is asked of it (EINVAL)"),
                "Linux 4.18 or later",
            ),
            _ => Diagnosis::of_calls(failure),
        }
    }

    /// Why an engine of plain system calls does not work.
    pub(crate) fn of_calls(failure: &Failure) -> Diagnosis {
        let error = &failure.error;
        let remedy = match error.raw_os_error() {
            Some(libc::EMFILE) => "raise `ulimit -n`",
            Some(libc::ENFILE) => "raise sysctl fs.file-max",
            Some(libc::EAGAIN) => "raise `ulimit -u` or the container's limit of processes",
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
                "allow the engine's system calls in the seccomp filter"
            }
            Some(libc::ENOMEM) => "more memory, or a higher limit of the container's",
            // A descriptor that select(2) cannot name.
            None => "start it before so many files are open, or use engine 'poll'",
            _ => "another engine",
        };
        Diagnosis::new(error.to_string(), remedy)
    }
}

/// Somebody forbids io_uring: who?
fn denied(step: Step, what: &str) -> Diagnosis {
    // The sysctl stands in the way of making rings only.
    if step == Step::SetUp {
        match system::sysctl_number("kernel.io_uring_disabled") {
            Some(2) => {
                return Diagnosis::new(
                    format!("{what} by sysctl kernel.io_uring_disabled=2"),
                    "sysctl -w kernel.io_uring_disabled=0",
                );
            }
            Some(1) if !may_use_restricted_ring() => {
                let group = system::sysctl_number("kernel.io_uring_group").unwrap_or(-1);
                let remedy = match group {
                    ..0 => "sysctl -w kernel.io_uring_disabled=0, or set kernel.io_uring_group \
                            to a group of this user's"
                        .to_owned(),
                    _ => format!(
                        "add this user to group {group}, or sysctl -w kernel.io_uring_disabled=0"
                    ),
                };
                return Diagnosis::new(
                    format!(
                        "{what} by sysctl kernel.io_uring_disabled=1 to users outside of \
                         kernel.io_uring_group ({group})"
                    ),
                    remedy,
                );
            }
            _ => {}
        }
    }
    match system::seccomp_mode() {
        Some(2) => filtered(what),
        Some(_) => Diagnosis::new(
            format!("{what}, not by seccomp or sysctl: by a security module or a sandbox"),
            format!("allow {RING_CALLS} there; a security module says what it denied in dmesg"),
        ),
        None => Diagnosis::new(
            format!("{what} by a seccomp filter, a security module or a sandbox"),
            format!("allow {RING_CALLS} there"),
        ),
    }
}

/// Whether `kernel.io_uring_disabled=1` lets this process through.
pub(crate) fn may_use_restricted_ring() -> bool {
    let in_group = || {
        let group = system::sysctl_number("kernel.io_uring_group").filter(|&group| group >= 0)?;
        system::is_in_group(group)
    };
    system::has_capability(system::CAP_SYS_ADMIN) == Some(true) || in_group() == Some(true)
}

/// The kernel says that it has no such call.
fn hidden(call: &str) -> Diagnosis {
    if let Some(version) = system::kernel_version()
        && version < RING_VERSION_MIN
    {
        return Diagnosis::new(
            format!("Linux {version} is too old for it"),
            format!("Linux {RING_VERSION_MIN} or later"),
        );
    }
    let what = format!("{call} is hidden (ENOSYS)");
    match system::seccomp_mode() {
        Some(2) => filtered(&what),
        _ => Diagnosis::new(
            format!("{what}: the kernel is built without io_uring, or a sandbox hides it"),
            "a kernel with CONFIG_IO_URING=y, outside of the sandbox",
        ),
    }
}

fn filtered(what: &str) -> Diagnosis {
    Diagnosis::new(
        format!("{what} by a seccomp filter"),
        format!(
            "allow {RING_CALLS} in the filter: docker run --security-opt seccomp=PROFILE.json with \
             a profile that does, or seccomp=unconfined"
        ),
    )
}
