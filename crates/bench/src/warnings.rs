//! What would make the figures mislead, in sentences.

use crate::machine::Machine;
use crate::neighbours::Disturbance;
use crate::target::Target;

/// Blocks from this size on suffer from scattered buffers on a virtio disk.
const SCATTERED_BYTES_MIN: usize = 64 << 10;

/// What is known before the first row runs, of which the largest block has
/// `block_max` bytes.
pub fn before(
    machine: &Machine,
    target: Option<&Target>,
    bytes_asked: u64,
    block_max: usize,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if cfg!(debug_assertions) {
        warnings.push(
            "this is a debug build: processor time per op is several times too high; \
             use cargo run --release"
                .to_owned(),
        );
    }
    if machine.cores < 2 {
        warnings.push(
            "there is only one core: the echo server and its load share it, and the \
             threads engine has nothing to spread over"
                .to_owned(),
        );
    }
    if let Some(governor) = machine.governor.as_deref().filter(|&name| name != "performance") {
        warnings.push(format!(
            "the frequency governor is '{governor}': a mostly idle row runs at a lower clock \
             and looks dearer than it is"
        ));
    }
    if let Some(target) = target {
        about_file(machine, target, bytes_asked, &mut warnings);
    }
    if machine.is_virtio && block_max >= SCATTERED_BYTES_MIN {
        warnings.push(
            "the file is on a virtio disk, where a large read may take a queue entry for every \
             scattered page of its buffer: reads of 64 KiB and more differ by up to a factor of \
             2 by where a process's buffers happen to lie, whatever the engine"
                .to_owned(),
        );
    }
    warnings
}

fn about_file(machine: &Machine, target: &Target, asked: u64, warnings: &mut Vec<String>) {
    let mib = |bytes: u64| bytes >> 20;
    if target.bytes() < asked {
        warnings.push(format!(
            "the file has {} MiB, less than the {} MiB asked for: a small file sits in caches \
             that a large one does not fit into",
            mib(target.bytes()),
            mib(asked)
        ));
    }
    if machine.is_tmpfs {
        warnings.push(
            "the file is on tmpfs: no row touches a device; give --file a path on a disk"
                .to_owned(),
        );
    } else if !target.has_direct() {
        warnings.push(
            "the file system does not support O_DIRECT: those rows are skipped; give --file \
             a path on another one"
                .to_owned(),
        );
    }
    if target.is_sparse() {
        warnings.push(
            "the file has holes: reads of a hole never reach the device and look too fast"
                .to_owned(),
        );
    }
    if machine.memory_available.is_some_and(|available| available < 2 * target.hot_bytes()) {
        warnings.push(
            "there is little free memory: the page cache may lose what the hot rows read"
                .to_owned(),
        );
    }
}

/// What the neighbours did while a workload ran, if anything; the worst of all
/// workloads stands for the run.
pub fn about_neighbours(seen: &[(&str, Disturbance)]) -> Option<String> {
    let total = |seen: &Disturbance| seen.elsewhere + seen.stolen;
    let notable = seen.iter().filter(|(_, disturbance)| disturbance.is_notable());
    let (workload, worst) = notable.max_by(|a, b| total(&a.1).total_cmp(&total(&b.1)))?;
    Some(format!(
        "load from elsewhere: during {workload} other programs used {:.0} % of the processors \
         and the hypervisor took {:.0} %; ratios within a workload stay comparable, rates do not",
        worst.elsewhere * 100.0,
        worst.stolen * 100.0
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    #[test]
    fn a_file_smaller_than_asked_and_full_of_holes_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
        let target = Target::prepare(Some(&path), 8 << 20, false, &Progress::hidden()).unwrap();
        let machine = Machine { cores: 2, ..Machine::default() };
        let warnings = before(&machine, Some(&target), 8 << 20, 4096).join("\n");
        assert!(warnings.contains("the file has 4 MiB, less than the 8 MiB"), "{warnings}");
        assert!(warnings.contains("holes"), "{warnings}");
    }

    #[test]
    fn the_worst_neighbour_stands_for_the_run() {
        let quiet = Disturbance { elsewhere: 0.0, stolen: 0.0 };
        let loud = Disturbance { elsewhere: 0.4, stolen: 0.1 };
        assert_eq!(about_neighbours(&[("a", quiet)]), None);
        let text = about_neighbours(&[("a", quiet), ("b", loud)]).unwrap();
        assert!(text.contains("during b other programs used 40 %"), "{text}");
    }

    #[test]
    fn scattered_buffers_matter_for_large_blocks_on_virtio() {
        let machine = Machine { cores: 2, is_virtio: true, ..Machine::default() };
        let about = |block| before(&machine, None, 0, block).join("\n").contains("virtio");
        assert!(about(128 << 10) && !about(4 << 10));
    }

    #[test]
    fn one_core_and_a_saving_governor_are_told() {
        let machine =
            Machine { cores: 1, governor: Some("powersave".into()), ..Machine::default() };
        let warnings = before(&machine, None, 0, 0).join("\n");
        assert!(warnings.contains("only one core") && warnings.contains("'powersave'"));
    }
}
