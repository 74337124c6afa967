//! The machine, this process and the current directory: limits, settings, facts.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use super::{Status, Verdict};
use crate::diagnosis::{self, Diagnosis};
use crate::engine::uring::features::ring_works;
use crate::system::{self, Limit};

/// The name of a check, and the check.
type NamedCheck = (&'static str, fn() -> Verdict);

/// Each of them.
pub(super) const CHECKS: &[NamedCheck] = &[
    ("kernel", kernel),
    ("container", container),
    ("seccomp", seccomp),
    ("io_uring_disabled", ring_disabled),
    ("io_uring_group", ring_group),
    ("locked-memory", locked_memory),
    ("open-files", open_files),
    ("aio-nr", aio_contexts),
    ("huge-pages", huge_pages),
    ("polled-devices", polled_devices),
    ("direct-io", direct_io),
    ("device", device),
];

fn falls_back(reason: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict::new(Status::FallsBack, Diagnosis::new(reason, remedy))
}

fn missing(reason: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict::new(Status::Missing, Diagnosis::new(reason, remedy))
}

fn kernel() -> Verdict {
    let release = system::kernel_release();
    let verdict = match system::kernel_version() {
        Some(version) if version < diagnosis::RING_VERSION_MIN => match ring_works() {
            Ok(()) => Verdict::works("old, but with a newer io_uring, which suffices, ported back"),
            Err(_) => falls_back(
                "too old for the engine uring",
                "Linux 5.11 or later, better 6.1 or later",
            ),
        },
        Some(_) => Verdict::works("new enough for the engine uring"),
        None => Verdict::works("a release that says no version"),
    };
    verdict.with_value(release)
}

/// A guess: a container need not leave traces, and a machine may have some of one it was made of.
fn container() -> Verdict {
    let found = container_traces();
    match found.first() {
        None => Verdict::works("no trace of one, which is no proof").with_value("none found"),
        Some((name, _)) => {
            let traces = found.iter().map(|(_, trace)| trace.as_str()).collect::<Vec<_>>();
            Verdict::works(format!("probably in one: {}", traces.join(", "))).with_value(name)
        }
    }
}

fn container_traces() -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Ok(name) = std::env::var("container")
        && !name.is_empty()
        && !name.contains(char::is_whitespace)
    {
        found.push((name.clone(), format!("the variable container is {name}")));
    }
    for (path, name) in [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")] {
        if Path::new(path).exists() {
            found.push((name.to_owned(), format!("{path} exists")));
        }
    }
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        found.push(("kubernetes".to_owned(), "KUBERNETES_SERVICE_HOST is set".to_owned()));
    }
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for name in ["kubepods", "docker", "containerd", "libpod", "lxc"] {
        if groups.contains(name) {
            found.push((name.to_owned(), format!("its control group is called {name}")));
            break;
        }
    }
    if system::line("/proc/version").is_some_and(|version| version.contains("gVisor")) {
        found.push(("gvisor".to_owned(), "/proc/version says gVisor".to_owned()));
    }
    found
}

fn seccomp() -> Verdict {
    match system::seccomp_mode() {
        Some(0) => Verdict::works("no filter on this process").with_value("none"),
        Some(_) if ring_works().is_ok() => {
            Verdict::works("a filter is active, which lets io_uring through").with_value("filter")
        }
        Some(_) => {
            let remedy = ring_works().err().map(|failure| Diagnosis::of_ring(&failure).remedy);
            falls_back("a filter is active, and io_uring does not work", remedy.unwrap_or_default())
                .with_value("filter")
        }
        None => Verdict::works("/proc/thread-self/status does not say").with_value("unknown"),
    }
}

const DISABLED: &str = "kernel.io_uring_disabled";

fn ring_disabled() -> Verdict {
    let Some(value) = system::sysctl(DISABLED) else {
        return Verdict::works("no such sysctl in this kernel (it came with Linux 6.6)")
            .with_value("none");
    };
    let enable = format!("sysctl -w {DISABLED}=0");
    let verdict = match value.as_str() {
        "0" => Verdict::works("io_uring is allowed to everyone"),
        "1" if diagnosis::may_use_restricted_ring() => {
            Verdict::works("io_uring is allowed to a group and the superuser, and so to us")
        }
        "1" => falls_back(
            "io_uring is allowed to the group of kernel.io_uring_group and the superuser only",
            enable,
        ),
        _ => falls_back("io_uring is forbidden to everyone", enable),
    };
    verdict.with_value(value)
}

fn ring_group() -> Verdict {
    let Some(value) = system::sysctl("kernel.io_uring_group") else {
        return Verdict::works("no such sysctl in this kernel (it came with Linux 6.6)")
            .with_value("none");
    };
    let about = "who may use io_uring where kernel.io_uring_disabled is 1; -1 is nobody but the \
                 superuser";
    Verdict::works(about).with_value(value)
}

/// What rings and registered buffers of a modest program take, in bytes.
const LOCKED_MEMORY_ENOUGH: u64 = 8 << 20;

fn locked_memory() -> Verdict {
    let remedy = "raise it: `ulimit -l`, LimitMEMLOCK= in systemd, docker run --ulimit memlock=-1";
    let Some(limit) = system::locked_memory_limit() else {
        return Verdict::works("getrlimit does not say").with_value("unknown");
    };
    let verdict = match limit {
        _ if system::has_capability(system::CAP_IPC_LOCK) == Some(true) => {
            Verdict::works("not limited in truth: this process has CAP_IPC_LOCK")
        }
        Limit::Value(bytes) if bytes < LOCKED_MEMORY_ENOUGH => falls_back(
            "little: rings are made smaller, and buffers are not registered, where all of this \
             user's together come to more",
            remedy,
        ),
        Limit::Value(_) => {
            Verdict::works("for the rings and registered buffers of this user's programs together")
        }
        Limit::Unlimited => Verdict::works("rings and registered buffers may be of any size"),
    };
    verdict.with_value(limit.in_kib())
}

fn open_files() -> Verdict {
    let Some((soft, hard)) = system::open_files_limits() else {
        return Verdict::works("getrlimit does not say").with_value("unknown");
    };
    let verdict = match soft {
        Limit::Value(count) if count < 1024 => falls_back(
            "few: accepting fails with EMFILE when they are used up",
            "raise it: `ulimit -n`, LimitNOFILE= in systemd, docker run --ulimit nofile=N",
        ),
        _ => Verdict::works(format!("one for each file and connection; may be raised to {hard}")),
    };
    verdict.with_value(soft.to_string())
}

fn aio_contexts() -> Verdict {
    let used = system::sysctl_number("fs.aio-nr");
    let (Some(used), Some(max)) = (used, system::sysctl_number("fs.aio-max-nr")) else {
        return falls_back("no sysctl fs.aio-max-nr", "a kernel with CONFIG_AIO=y")
            .with_value("none");
    };
    let verdict = if used < max {
        Verdict::works("native AIO requests that all programs have reserved, and may reserve")
    } else {
        falls_back(
            "other programs have reserved all native AIO requests",
            format!("sysctl -w fs.aio-max-nr={}", (max * 2).max(1 << 20)),
        )
    };
    verdict.with_value(format!("{used} of {max}"))
}

fn huge_pages() -> Verdict {
    let reserved = system::sysctl("vm.nr_hugepages");
    let size = meminfo_kib("Hugepagesize:").unwrap_or(2048);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    let len = (size as usize) << 10;
    // SAFETY: a fresh mapping at an address of the kernel's choice, which nobody uses.
    let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
    let verdict = if start == libc::MAP_FAILED {
        falls_back(
            format!("no huge page to be had ({}): ordinary pages", io::Error::last_os_error()),
            format!("sysctl -w vm.nr_hugepages=N, for N pages of {size} KiB"),
        )
    } else {
        // SAFETY: mapped above, used by nobody.
        unsafe { libc::munmap(start, len) };
        Verdict::works(format!("pages of {size} KiB can be mapped"))
    };
    verdict.with_value(format!("{} reserved", reserved.as_deref().unwrap_or("none")))
}

/// A value of /proc/meminfo.
fn meminfo_kib(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    value.trim().trim_end_matches("kB").trim().parse().ok()
}

fn polled_devices() -> Verdict {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return missing("/sys/block cannot be read", "mount sysfs").with_value("unknown");
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_polled = |name: &String| {
        system::line(format!("/sys/block/{name}/queue/io_poll")).as_deref() == Some("1")
    };
    let mut polled: Vec<String> = names.filter(is_polled).collect();
    polled.sort();
    if polled.is_empty() {
        return missing(
            "no block device has queues to poll, so that IOPOLL reads fail with EOPNOTSUPP",
            "an NVMe device with nvme.poll_queues=N on the kernel's command line",
        )
        .with_value("none");
    }
    Verdict::works("block devices with queues to poll").with_value(polled.join(", "))
}

/// What O_DIRECT asks of files in the current directory.
fn direct_io() -> Verdict {
    let file = match scratch_file() {
        Ok(file) => file,
        Err(error) => {
            return missing(
                format!("no file can be made in the current directory: {error}"),
                "run it in a directory that this user may write to",
            );
        }
    };
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_DIRECT) } != 0 {
        return missing(
            format!("the file system refuses O_DIRECT: {}", io::Error::last_os_error()),
            "a directory on another file system, or buffered reads and writes",
        );
    }
    if let Err(error) = write_and_read_direct(&file) {
        return missing(
            format!("4096 aligned bytes cannot be written and read with O_DIRECT: {error}"),
            "a directory on another file system, or buffered reads and writes",
        );
    }
    match direct_alignment(&file) {
        Some((memory, offset)) => {
            Verdict::works("alignment of offset and length in the file, and of the memory")
                .with_value(format!("offset {offset}, memory {memory} bytes"))
        }
        None => Verdict::works(
            "4096 aligned bytes go through; what less would do, statx does not say here (it does \
             from Linux 6.1 on, on most file systems)",
        )
        .with_value("offset 4096, memory 4096 bytes"),
    }
}

/// A file in the current directory that has no name, or has it only for a moment.
fn scratch_file() -> io::Result<OwnedFd> {
    let open = |path: &CStr, flags| {
        // SAFETY: a string that ends in zero.
        let fd =
            unsafe { libc::open(path.as_ptr(), flags | libc::O_RDWR | libc::O_CLOEXEC, 0o600) };
        match fd {
            ..0 => Err(io::Error::last_os_error()),
            // SAFETY: just made, owned by nobody else.
            fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    };
    match open(c".", libc::O_TMPFILE) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            let name = format!(".omniring-doctor-{}\0", std::process::id());
            let name = CStr::from_bytes_with_nul(name.as_bytes()).expect("one zero, at the end");
            let file = open(name, libc::O_CREAT | libc::O_EXCL)?;
            // SAFETY: a string that ends in zero. What it names was made above.
            unsafe { libc::unlink(name.as_ptr()) };
            Ok(file)
        }
        result => result,
    }
}

#[repr(align(4096))]
struct Page([u8; 4096]);

fn write_and_read_direct(file: &OwnedFd) -> io::Result<()> {
    let mut page = Box::new(Page([7; 4096]));
    let done = |count: isize| match count {
        4096 => Ok(()),
        ..0 => Err(io::Error::last_os_error()),
        count => Err(io::Error::other(format!("{count} bytes of 4096"))),
    };
    // SAFETY: the page's own bytes, for the duration of the call.
    done(unsafe { libc::pwrite(file.as_raw_fd(), page.0.as_ptr().cast(), 4096, 0) })?;
    page.0.fill(0);
    // SAFETY: as above.
    done(unsafe { libc::pread(file.as_raw_fd(), page.0.as_mut_ptr().cast(), 4096, 0) })?;
    if page.0.iter().all(|&byte| byte == 7) {
        Ok(())
    } else {
        Err(io::Error::other("other bytes were read than written"))
    }
}

/// Of the memory and of the offset, in bytes, where `statx(2)` says (6.1).
fn direct_alignment(file: &OwnedFd) -> Option<(u32, u32)> {
    // SAFETY: all-zero is a valid value of this structure of numbers.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty path and a local.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut stat,
        )
    };
    let said = result == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0;
    (said && stat.stx_dio_offset_align != 0)
        .then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// The block device under the current directory.
fn device() -> Verdict {
    let Ok(metadata) = fs::metadata(".") else {
        return missing("the current directory cannot be read", "another directory");
    };
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let Some((name, whole)) = block_device(major, minor) else {
        return Verdict::works(
            "the current directory is on no block device, or on one that /sys does not name",
        )
        .with_value("none found");
    };
    let told = |path: &str| system::line(whole.join(path)).filter(|text| !text.is_empty());
    let mut parts = Vec::new();
    if let Some(bytes) = told("queue/logical_block_size") {
        parts.push(format!("logical blocks of {bytes} bytes"));
    }
    if let Some(kib) = told("queue/max_sectors_kb") {
        parts.push(format!("requests of up to {kib} KiB"));
    }
    let polled = told("queue/io_poll").as_deref() == Some("1");
    parts.push(if polled { "queues to poll" } else { "no queues to poll" }.to_owned());
    Verdict::works(format!("under the current directory: {}", parts.join(", "))).with_value(name)
}

/// Its name, and the directory in /sys of the whole device.
fn block_device(major: u32, minor: u32) -> Option<(String, PathBuf)> {
    let link = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let name = link.file_name()?.to_string_lossy().into_owned();
    // A partition has its queue in the directory of the whole device.
    let whole = if link.join("queue").is_dir() { link } else { link.parent()?.to_owned() };
    Some((name, whole))
}
