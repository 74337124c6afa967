//! What there is to say about a feature of io_uring.

use super::{Status, Verdict};
use crate::diagnosis::Diagnosis;
use crate::engine::uring::features::{Feature, ring_works};
use crate::system;

pub(super) fn check(feature: &Feature) -> Verdict {
    let status = match feature.instead {
        Some(_) => Status::FallsBack,
        None => Status::Missing,
    };
    if ring_works().is_err() {
        let why = "only with io_uring, which does not work here";
        return Verdict::new(status, Diagnosis::new(why, "as for the engine uring"));
    }
    let Err(lack) = (feature.attempt)() else {
        return Verdict::works(feature.about);
    };
    let remedy = match (lack.error.raw_os_error(), system::kernel_version()) {
        (Some(libc::ENOMEM), _) => "raise the limit of locked memory: `ulimit -l`".to_owned(),
        (_, Some(version)) if version >= feature.since => format!(
            "Linux has it from {} on, but this one ({}) refuses it: try another kernel or \
             container",
            feature.since,
            system::kernel_release()
        ),
        _ => format!("Linux {} or later", feature.since),
    };
    let why = format!("{} fails: {}", lack.doing, lack.error);
    let reason = feature.instead.map_or(why.clone(), |instead| format!("{instead}: {why}"));
    Verdict::new(status, Diagnosis::new(reason, remedy))
}
