//! Who runs a workload: the floor, an engine of Omniring, or an engine of fio.

use crate::error::Error;
use crate::fio::{self, Backend};
use crate::select;
use crate::subject::{FLOOR, MAPPING, PLAIN_FLOOR, engines};
use crate::workload::{Shape, Source, Talk, Tier, Workload};

/// The engines that run every workload; the others run the headline ones, unless
/// they are named.
pub const MAIN_ENGINES: [&str; 5] = ["uring", "aio", "epoll", "threads", "blocking"];

/// The engine that is about O_DIRECT alone; elsewhere it is `uring`.
const POLLED_ENGINE: &str = "uring-iopoll";

/// One of those that run the workloads; a row is a contender on a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contender {
    /// The bare ring loop, on the tier of the workload.
    Floor,
    /// The bare ring loop with plain buffers, beside the floor of a tier.
    PlainFloor,
    /// Copies out of a mapping of the file.
    Mapping,
    /// An engine of Omniring, by name.
    Engine(String),
    /// An engine of fio.
    Fio(Backend),
}

impl Contender {
    /// The name in the column `engine`.
    pub fn name(&self) -> String {
        match self {
            Contender::Floor => FLOOR.to_owned(),
            Contender::PlainFloor => PLAIN_FLOOR.to_owned(),
            Contender::Mapping => MAPPING.to_owned(),
            Contender::Engine(name) => name.clone(),
            Contender::Fio(backend) => backend.name().to_owned(),
        }
    }

    /// One line for people.
    pub fn about(&self) -> &'static str {
        match self {
            Contender::Floor => "a bare io_uring loop without driver or runtime",
            Contender::PlainFloor => "beside the floor of a tier: the loop with plain buffers",
            Contender::Mapping => "copies out of a mapping, page cache rows only; has no depth",
            Contender::Engine(_) => "Omniring on this engine",
            Contender::Fio(_) => "the same through fio, file workloads only",
        }
    }

    /// Whether it can run the workload at all.
    pub fn runs(&self, workload: &Workload) -> bool {
        match self {
            // There is nothing barer than what is measured.
            Contender::Floor => workload.shape != Shape::Cores(Talk::Messages),
            Contender::Engine(_) => true,
            Contender::PlainFloor => workload.tier != Tier::Owned,
            Contender::Mapping => {
                let is_hot =
                    matches!(workload.shape, Shape::Read { source: Source::PageCache, .. });
                is_hot && workload.tier == Tier::Owned
            }
            Contender::Fio(backend) => backend.runs(workload),
        }
    }

    /// Whether it runs the workload when nobody has said who should: the main
    /// engines run everything; the other engines what is a headline, and in a quick
    /// run nothing; fio everything, and in a quick run what is a headline.
    pub fn runs_unnamed(&self, workload: &Workload, quick: bool) -> bool {
        let is_asked = match self {
            Contender::Floor | Contender::PlainFloor | Contender::Mapping => true,
            Contender::Engine(name) if MAIN_ENGINES.contains(&name.as_str()) => true,
            Contender::Engine(name) if name == POLLED_ENGINE => {
                workload.headline && !quick && workload.is_direct()
            }
            Contender::Engine(_) => workload.headline && !quick,
            Contender::Fio(_) => workload.headline || !quick,
        };
        is_asked && self.runs(workload)
    }
}

/// Every contender, in the order of the rows.
pub fn all() -> Vec<Contender> {
    let engines = engines::names().into_iter().map(Contender::Engine);
    let fio = Backend::ALL.iter().copied().map(Contender::Fio);
    let bare = [Contender::Floor, Contender::PlainFloor, Contender::Mapping];
    bare.into_iter().chain(engines).chain(fio).collect()
}

/// The contenders that a comma separated list of names or patterns selects; with
/// no list all of them, fio only if it is installed. `fio` stands for all of its
/// engines, and `fio-psync` for `fio psync`.
///
/// Naming an engine is strict: one that does not run here is an error.
pub fn select(list: Option<&str>) -> Result<Vec<Contender>, Error> {
    let all = all();
    let names: Vec<String> = all.iter().map(Contender::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let spelled = list.map(|list| {
        let items = list.split(',').map(|item| match item.trim() {
            "fio" => "fio *".to_owned(),
            item => item.replace("fio-", "fio "),
        });
        items.collect::<Vec<_>>().join(",")
    });
    let chosen = select::select(&names, spelled.as_deref())
        .map_err(|name| Error::UnknownEngine { name, valid: names.join(", ") })?;
    let mut contenders: Vec<Contender> =
        chosen.into_iter().map(|index| all[index].clone()).collect();
    if list.is_none() {
        let has_fio = fio::version().is_some();
        contenders.retain(|contender| has_fio || !matches!(contender, Contender::Fio(_)));
    } else {
        for contender in &contenders {
            available(contender)?;
        }
    }
    Ok(contenders)
}

fn available(contender: &Contender) -> Result<(), Error> {
    let reason = match contender {
        Contender::Floor | Contender::PlainFloor | Contender::Mapping => return Ok(()),
        Contender::Engine(name) => engines::available(name).err(),
        Contender::Fio(_) if fio::version().is_some() => None,
        Contender::Fio(_) => Some("fio is not installed".to_owned()),
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(Error::EngineUnavailable { engine: contender.name(), reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_comes_first_and_names_are_unique() {
        let names: Vec<String> = all().iter().map(Contender::name).collect();
        assert_eq!(names[..4], ["floor", "floor-plain", "mmap", "uring"]);
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn unknown_engines_list_the_valid_ones() {
        let message = select(Some("floor,bogus")).unwrap_err().to_string();
        assert!(message.starts_with("unknown engine 'bogus'; choose from: floor, floor-plain"));
        assert!(select(Some("")).is_err());
    }

    fn workload(name: &str) -> &'static Workload {
        Workload::named(name).unwrap()
    }

    #[test]
    fn fio_runs_no_sockets_and_little_in_a_quick_run() {
        let fio = Contender::Fio(Backend::ALL[0]);
        assert!(!fio.runs(workload("echo-64")));
        assert!(fio.runs_unnamed(workload("read-direct-64k-d32"), false));
        assert!(!fio.runs_unnamed(workload("read-direct-64k-d32"), true));
        assert!(fio.runs_unnamed(workload("read-direct-4k-d32"), true));
    }

    #[test]
    fn main_engines_run_everything_and_the_others_what_is_a_headline() {
        let runs = |engine: &str, name, quick| {
            Contender::Engine(engine.to_owned()).runs_unnamed(workload(name), quick)
        };
        assert!(runs("uring", "read-direct-16k-d32", true));
        assert!(runs("poll", "echo-64", false) && !runs("poll", "echo-64", true));
        assert!(!runs("poll", "read-direct-16k-d32", false));
        assert!(runs(POLLED_ENGINE, "read-direct-4k-d32", false));
        assert!(!runs(POLLED_ENGINE, "echo-64", false));
    }

    #[test]
    fn the_plain_floor_is_for_tiers_and_the_mapping_for_the_page_cache() {
        for name in ["read-direct-4k-d32-fixed", "echo-64-leased"] {
            assert!(Contender::PlainFloor.runs(workload(name)));
        }
        assert!(!Contender::PlainFloor.runs(workload("echo-64")));
        assert!(Contender::Mapping.runs(workload("read-hot-1k-d32")));
        for name in ["read-direct-4k-d1", "echo-64", "read-hot-4k-d32-fixed"] {
            assert!(!Contender::Mapping.runs(workload(name)));
        }
    }
}
