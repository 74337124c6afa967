//! The machine that the figures were measured on: kernel, processor, file
//! system, device and limits, from /proc, /sys and statfs.
//!
//! Whatever cannot be read is left out; nothing here can fail a run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::utsname::uname;

use crate::affinity;

/// One line about the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// What it is about.
    pub name: &'static str,
    /// What is so.
    pub value: String,
}

/// What is known about the machine and the place of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Everything worth showing, in order.
    pub facts: Vec<Fact>,
    /// Cores that we may run on.
    pub cores: usize,
    /// Memory that could still be had, in bytes.
    pub memory_available: Option<u64>,
    /// Frequency governor of the processor, if there is one to see.
    pub governor: Option<String>,
    /// Whether the file is in memory only.
    pub is_tmpfs: bool,
    /// Whether the file is on a virtio disk.
    pub is_virtio: bool,
}

impl Machine {
    /// Looks around; `file` is where the file is or will be.
    pub fn observe(file: Option<&Path>) -> Machine {
        let mut facts = Facts(Vec::new());
        facts.add("kernel", kernel());
        facts.add("processor", processor());
        let cores = affinity::cores().len();
        facts.add("cores", Some(cores_text(cores)));
        let governor = line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        facts.add("frequency governor", governor.clone());
        facts.add("hypervisor", hypervisor());
        let memory_available = meminfo("MemAvailable:");
        facts.add("memory", memory(memory_available));
        let (mut is_tmpfs, mut is_virtio) = (false, false);
        if let Some(directory) = file.map(directory_of) {
            is_tmpfs =
                statfs(directory).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC);
            if let Some(mount) = Mount::of(directory) {
                facts.add("file system", Some(mount.describe()));
                let device = Device::of(&mount.device);
                is_virtio = device.as_ref().is_some_and(Device::is_virtio);
                facts.add("device", device.map(|device| device.describe()));
            }
        }
        facts.add("io_uring", Some(ring_policy()));
        facts.add("limits", Some(limits()));
        facts.add("program", Some(program()));
        Machine { facts: facts.0, cores, memory_available, governor, is_tmpfs, is_virtio }
    }
}

struct Facts(Vec<Fact>);

impl Facts {
    fn add(&mut self, name: &'static str, value: Option<String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.0.push(Fact { name, value });
        }
    }
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn kernel() -> Option<String> {
    let name = uname().ok()?;
    let part = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    Some(format!("{} {} {}", part(name.sysname()), part(name.release()), part(name.machine())))
}

fn cpuinfo(field: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == field).then(|| value.trim().to_owned())
    })
}

fn processor() -> Option<String> {
    cpuinfo("model name").or_else(|| cpuinfo("Model")).or_else(|| cpuinfo("CPU part"))
}

fn hypervisor() -> Option<String> {
    if !cpuinfo("flags")?.split(' ').any(|flag| flag == "hypervisor") {
        return None;
    }
    let vendor = line("/sys/class/dmi/id/sys_vendor").filter(|vendor| !vendor.is_empty());
    Some(vendor.map_or_else(|| "a virtual machine".into(), |name| format!("{name} (virtual)")))
}

fn cores_text(ours: usize) -> String {
    match affinity::online() {
        all if all == ours => format!("{all}"),
        all => format!("{ours} of {all}"),
    }
}

/// A value of /proc/meminfo in bytes.
fn meminfo(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = value.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

fn memory(available: Option<u64>) -> Option<String> {
    let total = meminfo("MemTotal:")?;
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    Some(match available {
        Some(available) => format!("{}, {} available", gib(total), gib(available)),
        None => gib(total),
    })
}

/// Where a directory is mounted from.
struct Mount {
    kind: String,
    options: String,
    source: String,
    /// Major and minor number, as `8:1`.
    device: String,
}

impl Mount {
    fn of(directory: &Path) -> Option<Mount> {
        let device = fs::metadata(directory).ok()?.dev();
        let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Mount::find(&table, &device).or_else(|| Mount::around(&table, directory))
    }

    /// The mount of a device number.
    fn find(table: &str, device: &str) -> Option<Mount> {
        table.lines().filter_map(Mount::parse).map(|(_, mount)| mount).find(|m| m.device == device)
    }

    /// The mount with the longest path around a directory, for file systems with
    /// device numbers of their own.
    fn around(table: &str, directory: &Path) -> Option<Mount> {
        let directory = directory.canonicalize().ok()?;
        let around = table.lines().filter_map(Mount::parse);
        let (_, mount) = around
            .filter(|(point, _)| directory.starts_with(point))
            .max_by_key(|(point, _)| point.len())?;
        Some(mount)
    }

    fn parse(line: &str) -> Option<(String, Mount)> {
        let (before, after) = line.split_once(" - ")?;
        let before: Vec<&str> = before.split(' ').collect();
        let after: Vec<&str> = after.split(' ').collect();
        let mount = Mount {
            kind: (*after.first()?).to_owned(),
            source: (*after.get(1)?).to_owned(),
            options: (*before.get(5)?).to_owned(),
            device: (*before.get(2)?).to_owned(),
        };
        Some(((*before.get(4)?).to_owned(), mount))
    }

    fn describe(&self) -> String {
        format!("{} on {} ({})", self.kind, self.source, self.options)
    }
}

/// A block device, or the one that a partition is on.
struct Device {
    name: String,
    /// Its directory in /sys.
    whole: PathBuf,
}

impl Device {
    /// The device of a number such as `8:1`.
    fn of(number: &str) -> Option<Device> {
        let link = fs::canonicalize(format!("/sys/dev/block/{number}")).ok()?;
        let name = link.file_name()?.to_string_lossy().into_owned();
        // A partition has its queue in the directory of the whole device.
        let whole = if link.join("queue").is_dir() { link } else { link.parent()?.to_owned() };
        Some(Device { name, whole })
    }

    fn is_virtio(&self) -> bool {
        self.whole.to_string_lossy().contains("/virtio")
    }

    /// Name, model, kind, scheduler and queues.
    fn describe(&self) -> String {
        let mut parts = vec![self.name.clone()];
        let told = |path: &str| line(self.whole.join(path)).filter(|text| !text.is_empty());
        parts.extend(told("device/model"));
        if self.whole.starts_with("/sys/devices/virtual") {
            parts.push("virtual".to_owned());
        } else if self.is_virtio() {
            parts.push("virtio: the host may cache what O_DIRECT does not".to_owned());
        }
        if told("queue/rotational").as_deref() == Some("1") {
            parts.push("reported as rotational".to_owned());
        }
        if let Some(scheduler) = told("queue/scheduler") {
            let chosen = scheduler.split(['[', ']']).nth(1).unwrap_or(&scheduler).to_owned();
            parts.push(format!("scheduler {chosen}"));
        }
        if let Some(requests) = told("queue/nr_requests") {
            parts.push(format!("queue of {requests}"));
        }
        if let Ok(queues) = fs::read_dir(self.whole.join("mq")) {
            parts.push(format!("hardware queues: {}", queues.count()));
        }
        parts.join(", ")
    }
}

fn ring_policy() -> String {
    match line("/proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("0") => "allowed".to_owned(),
        Some("1") => "only for the group of kernel.io_uring_group and for root".to_owned(),
        Some(_) => "disabled by kernel.io_uring_disabled".to_owned(),
        None => "no sysctl restricts it".to_owned(),
    }
}

fn limits() -> String {
    let soft = |resource| match getrlimit(resource) {
        Ok((u64::MAX, _)) => "unlimited".to_owned(),
        Ok((soft, _)) => soft.to_string(),
        Err(_) => "unknown".to_owned(),
    };
    let sysctl = |path| line(path).unwrap_or_else(|| "unknown".to_owned());
    format!(
        "open files {}, locked memory {} bytes, aio-max-nr {}, somaxconn {}",
        soft(Resource::RLIMIT_NOFILE),
        soft(Resource::RLIMIT_MEMLOCK),
        sysctl("/proc/sys/fs/aio-max-nr"),
        sysctl("/proc/sys/net/core/somaxconn"),
    )
}

fn program() -> String {
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    let fio = crate::fio::version().unwrap_or("no fio");
    format!("omniring {}, {build}; {fio}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_limits() {
        let machine = Machine::observe(Some(Path::new("/proc/none")));
        let names: Vec<&str> = machine.facts.iter().map(|fact| fact.name).collect();
        assert!(names.contains(&"kernel") && names.contains(&"limits"), "{names:?}");
        assert!(machine.cores >= 1);
        assert!(machine.facts.iter().all(|fact| !fact.value.contains('\n')));
    }

    #[test]
    fn mount_table_lines_are_read() {
        let table = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                     23 22 0:21 / /data rw - zfs pool/data rw";
        assert_eq!(
            Mount::find(table, "254:0").unwrap().describe(),
            "ext4 on /dev/vda (rw,relatime)"
        );
        assert!(Mount::find(table, "9:9").is_none());
        assert_eq!(Mount::around(table, Path::new("/")).unwrap().kind, "ext4");
    }
}
