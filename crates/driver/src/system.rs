//! What this machine and this process are allowed: kernel version, sysctls, limits, seccomp.
//!
//! Each is read when asked for, and what cannot be read is `None`: a container need not have
//! `/proc`. Deliberately not here: what follows from it (`diagnosis`, `doctor`).

use std::fmt;
use std::fs;
use std::path::Path;

/// A kernel's version, as far as it decides what the kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KernelVersion {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl KernelVersion {
    pub(crate) const fn new(major: u32, minor: u32) -> KernelVersion {
        KernelVersion { major, minor }
    }

    /// Reads the start of a release such as `6.18.44-generic`.
    fn parse(release: &str) -> Option<KernelVersion> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(KernelVersion { major: next()?, minor: next()? })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The release of the running kernel (`uname -r`).
pub(crate) fn kernel_release() -> String {
    // SAFETY: all-zero is a valid value of these arrays of bytes.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is a local. It cannot fail with a valid pointer, and would leave the
    // zeroes.
    unsafe { libc::uname(&raw mut names) };
    let bytes = names.release.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

pub(crate) fn kernel_version() -> Option<KernelVersion> {
    KernelVersion::parse(&kernel_release())
}

/// The first line of a file of `/proc` or `/sys`.
pub(crate) fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// A sysctl by the name that `sysctl(8)` gives it, where it has no dots of its own.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    line(format!("/proc/sys/{}", name.replace('.', "/")))
}

pub(crate) fn sysctl_number(name: &str) -> Option<i64> {
    sysctl(name)?.parse().ok()
}

/// A field of the calling thread's status, without the colon: `Seccomp`.
fn status_field(name: &str) -> Option<String> {
    // A seccomp filter belongs to a thread.
    let text = fs::read_to_string("/proc/thread-self/status").ok()?;
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned);
    text.lines().find_map(value).map(|value| value.trim().to_owned())
}

/// What seccomp does to the calling thread: 0 nothing, 1 strict, 2 a filter.
pub(crate) fn seccomp_mode() -> Option<u32> {
    status_field("Seccomp")?.parse().ok()
}

/// Whether the calling thread has a capability, by its number.
pub(crate) fn has_capability(number: u32) -> Option<bool> {
    let effective = u64::from_str_radix(&status_field("CapEff")?, 16).ok()?;
    Some(effective >> number & 1 == 1)
}

/// `CAP_SYS_ADMIN`, which io_uring asks for where it is restricted.
pub(crate) const CAP_SYS_ADMIN: u32 = 21;

/// `CAP_IPC_LOCK`, without which locked memory is limited.
pub(crate) const CAP_IPC_LOCK: u32 = 14;

/// Whether the calling thread is in a group, as its own or as a further one.
pub(crate) fn is_in_group(group: i64) -> Option<bool> {
    let group = group.to_string();
    // Real, effective, saved and file system group.
    let own = status_field("Gid")?.split_whitespace().nth(1).map(str::to_owned);
    let more = status_field("Groups")?;
    Some(own.as_ref() == Some(&group) || more.split_whitespace().any(|one| one == group))
}

/// A limit of a resource, in its own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Unlimited,
    Value(u64),
}

/// How much memory this process may lock, in bytes: the soft limit.
pub(crate) fn locked_memory_limit() -> Option<Limit> {
    limits(libc::RLIMIT_MEMLOCK).map(|(soft, _)| soft)
}

/// How many descriptors this process may have, and to what it may raise that.
pub(crate) fn open_files_limits() -> Option<(Limit, Limit)> {
    limits(libc::RLIMIT_NOFILE)
}

fn limits(resource: libc::__rlimit_resource_t) -> Option<(Limit, Limit)> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is a local.
    if unsafe { libc::getrlimit(resource, &raw mut limits) } != 0 {
        return None;
    }
    let limit = |value| match value {
        libc::RLIM_INFINITY => Limit::Unlimited,
        value => Limit::Value(value),
    };
    Some((limit(limits.rlim_cur), limit(limits.rlim_max)))
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Unlimited => f.write_str("unlimited"),
            Limit::Value(value) => write!(f, "{value}"),
        }
    }
}

impl Limit {
    /// In KiB, as `ulimit -l` has it.
    pub(crate) fn in_kib(self) -> String {
        match self {
            Limit::Unlimited => "unlimited".to_owned(),
            Limit::Value(bytes) => format!("{} KiB", bytes >> 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        let version = |release| KernelVersion::parse(release);
        assert_eq!(version("6.18.44-fc"), Some(KernelVersion::new(6, 18)));
        assert_eq!(version("5.10"), Some(KernelVersion::new(5, 10)));
        assert_eq!(version("7.2-rc1"), Some(KernelVersion::new(7, 2)));
        assert_eq!(version("linux"), None);
        assert!(KernelVersion::new(5, 9) < KernelVersion::new(5, 10));
        assert!(kernel_version().is_some());
    }

    #[test]
    fn this_thread_has_a_status() {
        assert!(seccomp_mode().is_some());
        assert!(has_capability(CAP_SYS_ADMIN).is_some());
        assert_eq!(is_in_group(i64::from(u32::MAX)), Some(false));
        assert!(locked_memory_limit().is_some());
    }
}
