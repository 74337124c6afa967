//! The closed list of workloads, and the names that the command line, the rows
//! and the report use for them.
//!
//! A workload says what is done and with whose memory, never how: the floor,
//! every engine and fio read the same [`Shape`] and [`Tier`].

use crate::error::Error;
use crate::select;

/// Where the bytes of a read come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The device: the file is opened with O_DIRECT.
    Device,
    /// The page cache: the part of the file that is read has been read before.
    PageCache,
}

/// What one row does, over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Reads of `block` bytes at random aligned offsets, `depth` at a time.
    Read {
        /// Where the bytes come from.
        source: Source,
        /// Bytes per read.
        block: usize,
        /// Reads in flight.
        depth: usize,
    },
    /// Buffered writes of `block` bytes at random aligned offsets, each followed
    /// by fdatasync, `depth` such pairs at a time; a pair is one op.
    WriteSync {
        /// Bytes per write.
        block: usize,
        /// Pairs in flight.
        depth: usize,
    },
    /// A TCP echo server on one core; a round trip of [`ECHO_BYTES`] is one op.
    Echo {
        /// Connections, each with one message outstanding.
        connections: usize,
    },
    /// Two cores of one runtime, one of which sends the other work.
    Cores(Talk),
}

/// What two cores have to say to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// A task on the other core, awaited; one op is there and back, and both sleep meanwhile.
    RoundTrips,
    /// Messages in one direction, as fast as they are handled; both are busy.
    Messages,
}

/// Whose memory an op uses: the three tiers of buffers that the framework has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The caller's own buffer, plain descriptors.
    Owned,
    /// A buffer that the runtime lends when the data is there, and direct descriptors.
    Leased,
    /// Memory from a registered pool, and direct descriptors.
    Fixed,
}

/// Length of an echoed message in bytes.
pub const ECHO_BYTES: usize = 64;

/// Receive buffer of the echo server for each connection, in bytes.
pub const ECHO_BUFFER_BYTES: usize = 16 << 10;

/// Alignment of every file buffer and every O_DIRECT offset, in bytes.
pub const ALIGNMENT: usize = 4096;

/// One entry of the closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Public name: kind, where the bytes are, block, depth.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// What is done.
    pub shape: Shape,
    /// With whose memory.
    pub tier: Tier,
    /// Whether every engine runs it unless engines are named, and fio in a quick
    /// run too.
    pub headline: bool,
}

const fn read(
    name: &'static str,
    about: &'static str,
    source: Source,
    block: usize,
    depth: usize,
) -> Workload {
    let shape = Shape::Read { source, block, depth };
    Workload { name, about, shape, tier: Tier::Owned, headline: false }
}

const fn echo(name: &'static str, about: &'static str, connections: usize) -> Workload {
    let shape = Shape::Echo { connections };
    Workload { name, about, shape, tier: Tier::Owned, headline: false }
}

const fn cores(name: &'static str, about: &'static str, talk: Talk) -> Workload {
    Workload { name, about, shape: Shape::Cores(talk), tier: Tier::Owned, headline: false }
}

impl Workload {
    const fn headline(self) -> Workload {
        Workload { headline: true, ..self }
    }

    const fn on(self, tier: Tier) -> Workload {
        Workload { tier, ..self }
    }
}

const KIB: usize = 1 << 10;
use Source::{Device, PageCache};

/// Every workload, in the order in which they run.
///
/// The O_DIRECT rows stand before the hot ones: pages that a hot row leaves in
/// the page cache would make every direct read look for them first.
#[rustfmt::skip] // one line for each
pub const WORKLOADS: &[Workload] = &[
    read("read-direct-4k-d1", "random 4 KiB reads, O_DIRECT, one at a time", Device, 4 * KIB, 1),
    read("read-direct-4k-d32", "random 4 KiB reads, O_DIRECT, 32 in flight", Device, 4 * KIB, 32).headline(),
    read("read-direct-4k-d32-fixed", "the same with registered buffers and direct descriptors", Device, 4 * KIB, 32).on(Tier::Fixed),
    read("read-direct-8k-d32", "random 8 KiB reads, O_DIRECT, 32 in flight", Device, 8 * KIB, 32),
    read("read-direct-16k-d32", "random 16 KiB reads, O_DIRECT, 32 in flight", Device, 16 * KIB, 32),
    read("read-direct-32k-d32", "random 32 KiB reads, O_DIRECT, 32 in flight", Device, 32 * KIB, 32),
    read("read-direct-64k-d32", "random 64 KiB reads, O_DIRECT, 32 in flight", Device, 64 * KIB, 32),
    read("read-direct-128k-d32", "random 128 KiB reads, O_DIRECT, 32 in flight", Device, 128 * KIB, 32),
    read("read-hot-1k-d32", "random 1 KiB reads from the page cache, 32 in flight", PageCache, KIB, 32),
    read("read-hot-4k-d32", "random 4 KiB reads from the page cache, 32 in flight", PageCache, 4 * KIB, 32).headline(),
    read("read-hot-4k-d32-fixed", "the same with registered buffers and direct descriptors", PageCache, 4 * KIB, 32).on(Tier::Fixed),
    Workload {
        name: "write-sync-4k-d8",
        about: "random 4 KiB writes, each followed by fdatasync, 8 such pairs in flight",
        shape: Shape::WriteSync { block: 4 * KIB, depth: 8 },
        tier: Tier::Owned,
        headline: false,
    },
    echo("echo-1", "TCP echo of 64 bytes, 1 connection", 1),
    echo("echo-64", "TCP echo of 64 bytes, 64 connections", 64).headline(),
    echo("echo-64-leased", "the same with leased receive buffers", 64).on(Tier::Leased),
    echo("echo-256", "TCP echo of 64 bytes, 256 connections", 256),
    echo("echo-256-leased", "the same with leased receive buffers", 256).on(Tier::Leased),
    cores("core-round-trip", "a task on another core that sleeps, and its answer", Talk::RoundTrips),
    cores("core-messages", "messages from one busy core to another", Talk::Messages),
];

impl Workload {
    /// The workload of that exact name.
    pub fn named(name: &str) -> Option<&'static Workload> {
        WORKLOADS.iter().find(|workload| workload.name == name)
    }

    /// Whether it reads or writes a file.
    pub fn is_file(&self) -> bool {
        matches!(self.shape, Shape::Read { .. } | Shape::WriteSync { .. })
    }

    /// Whether it goes past the page cache.
    pub fn is_direct(&self) -> bool {
        matches!(self.shape, Shape::Read { source: Source::Device, .. })
    }

    /// Bytes that one op moves, for the column MB/s.
    pub fn bytes_per_op(&self) -> usize {
        match self.shape {
            Shape::Read { block, .. } | Shape::WriteSync { block, .. } => block,
            Shape::Echo { .. } => ECHO_BYTES,
            Shape::Cores(_) => 0,
        }
    }
}

/// The workloads that a comma separated list of names or patterns
/// (`read-hot-*`) selects, in the order of [`WORKLOADS`]; all when it is `None`.
pub fn select(list: Option<&str>) -> Result<Vec<&'static Workload>, Error> {
    let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
    let chosen = select::select(&names, list)
        .map_err(|name| Error::UnknownWorkload { name, valid: names.join(", ") })?;
    Ok(chosen.into_iter().map(|index| &WORKLOADS[index]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_the_depth() {
        for (index, workload) in WORKLOADS.iter().enumerate() {
            assert_eq!(Workload::named(workload.name), Some(&WORKLOADS[index]));
            if let Shape::Read { depth, block, .. } = workload.shape {
                let name = workload.name.strip_suffix("-fixed").unwrap_or(workload.name);
                assert!(name.ends_with(&format!("-{}k-d{depth}", block >> 10)));
            }
        }
    }

    #[test]
    fn a_tier_stands_right_after_the_same_without_it() {
        for pair in WORKLOADS.windows(2).filter(|pair| pair[1].tier != Tier::Owned) {
            assert_eq!((pair[0].shape, pair[0].tier), (pair[1].shape, Tier::Owned));
            assert!(pair[1].name.starts_with(pair[0].name), "{}", pair[1].name);
        }
    }

    #[test]
    fn patterns_select_and_unknown_names_list_the_valid_ones() {
        let names =
            |list| select(Some(list)).map(|found| found.iter().map(|w| w.name).collect::<Vec<_>>());
        assert_eq!(
            names("echo-*").unwrap(),
            ["echo-1", "echo-64", "echo-64-leased", "echo-256", "echo-256-leased"]
        );
        assert_eq!(names("echo-64,echo-1").unwrap(), ["echo-1", "echo-64"]);
        let message = names("nope").unwrap_err().to_string();
        assert!(message.contains("'nope'") && message.contains("read-direct-4k-d1"), "{message}");
    }
}
