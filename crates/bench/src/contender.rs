//! Who runs a workload: the floor, an engine of Omniring, or an engine of fio.

use crate::error::Error;
use crate::fio::{self, Backend};
use crate::select;
use crate::subject::{FLOOR, engines};
use crate::workload::Workload;

/// One of those that run the workloads; a row is a contender on a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contender {
    /// The bare ring loop.
    Floor,
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
            Contender::Engine(name) => name.clone(),
            Contender::Fio(backend) => backend.name().to_owned(),
        }
    }

    /// Whether it can run the workload at all; in a quick run fio runs only the
    /// headline ones.
    pub fn runs(&self, workload: &Workload, quick: bool) -> bool {
        match self {
            Contender::Fio(backend) => backend.runs(workload) && (workload.headline || !quick),
            _ => true,
        }
    }
}

/// Every contender, in the order of the rows.
pub fn all() -> Vec<Contender> {
    let engines = engines::names().into_iter().map(Contender::Engine);
    let fio = Backend::ALL.iter().copied().map(Contender::Fio);
    std::iter::once(Contender::Floor).chain(engines).chain(fio).collect()
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
        Contender::Floor => return Ok(()),
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
        assert_eq!(names[0], "floor");
        assert_eq!(names[1], "uring");
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn unknown_engines_list_the_valid_ones() {
        let message = select(Some("floor,bogus")).unwrap_err().to_string();
        assert!(message.starts_with("unknown engine 'bogus'; choose from: floor, uring"));
        assert!(select(Some("")).is_err());
    }

    #[test]
    fn fio_runs_no_sockets_and_little_in_a_quick_run() {
        let fio = Contender::Fio(Backend::ALL[0]);
        let workload = |name| Workload::named(name).unwrap();
        assert!(!fio.runs(workload("echo-64"), false));
        assert!(fio.runs(workload("read-direct-64k-d32"), false));
        assert!(!fio.runs(workload("read-direct-64k-d32"), true));
        assert!(fio.runs(workload("read-direct-4k-d32"), true));
    }
}
