//! What is wrong with a disk or its files.

use std::{fmt, io};

/// Where a file is damaged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file's name.
    pub file: String,
    /// Where, in bytes from its beginning.
    pub offset: u64,
    /// What is wrong there.
    pub why: String,
}

impl Damage {
    pub(super) fn new(file: &str, offset: u64, why: impl Into<String>) -> Damage {
        Damage { file: file.to_owned(), offset, why: why.into() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' at byte {}: {}", self.file, self.offset, self.why)
    }
}

/// Why the log, or a snapshot, cannot be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The disk did not do what it was asked to.
    Disk {
        /// The file's name, or that of a directory.
        file: String,
        /// What it said.
        error: io::Error,
    },
    /// A file is not as it was written.
    Damaged(Damage),
    /// A command that was logged is refused.
    Refused {
        /// Where its record lies.
        at: Damage,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Disk { file, error } => write!(f, "'{file}': {error}"),
            Failure::Damaged(damage) => write!(f, "damaged: {damage}"),
            Failure::Refused { at } => write!(f, "{at}"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::Disk { error, .. } => Some(error),
            Failure::Damaged(_) | Failure::Refused { .. } => None,
        }
    }
}

/// The result of something done with a file, which names it.
pub(super) fn at_file<T>(file: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Disk { file: file.to_owned(), error })
}
