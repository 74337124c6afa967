//! The engines as subjects. This is the only module that names the runtime.

use super::{SetupError, Spec, Subject};

/// Names of the engines, in the order of the rows.
pub fn names() -> Vec<String> {
    ["uring", "epoll", "threads", "blocking"]
        .map(str::to_owned)
        .to_vec()
}

/// Whether the engine runs here; the error is its own reason.
pub fn available(_name: &str) -> Result<(), String> {
    Ok(())
}

/// Sets a row up.
pub fn set_up(spec: &Spec) -> Result<Box<dyn Subject>, SetupError> {
    Err(SetupError::Refused(format!(
        "the engine {} is not built yet",
        spec.engine
    )))
}
