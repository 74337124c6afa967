//! The one error type of the bench: each message is one line that says what is
//! wrong and what to do, because it is printed as it stands.

use std::io;
use std::path::PathBuf;

/// Why a run could not start, or had to stop.
///
/// A row that fails is not an error of the run: it is a row with a reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `--engine` names nothing that the bench knows.
    #[error("unknown engine '{name}'; choose from: {valid}")]
    UnknownEngine {
        /// What was asked for.
        name: String,
        /// The valid names, comma separated.
        valid: String,
    },
    /// `--workload` names nothing that the bench knows.
    #[error("unknown workload '{name}'; choose from: {valid}")]
    UnknownWorkload {
        /// What was asked for.
        name: String,
        /// The valid names, comma separated.
        valid: String,
    },
    /// An engine that was asked for by name does not run here.
    #[error(
        "engine '{engine}' is not available: {reason}; leave it out of --engine to run the others"
    )]
    EngineUnavailable {
        /// The engine.
        engine: String,
        /// The engine's own reason.
        reason: String,
    },
    /// The chosen engines and workloads have no row in common.
    #[error("nothing to run: none of the chosen engines runs the chosen workloads; see --list")]
    NothingToRun,
    /// A size that cannot be read, or is too small.
    #[error(
        "size '{text}' {problem}; give a number of bytes with an optional K, M, G or T, at least 1M"
    )]
    Size {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A duration that cannot be measured in.
    #[error("--seconds {seconds} is not a time to measure in; give a number between 0.05 and 3600")]
    Seconds {
        /// What was given.
        seconds: f64,
    },
    /// The file to read is a directory.
    #[error("{} is a directory; give --file the path of a file", path.display())]
    IsDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The file to read is a socket, a pipe or a device.
    #[error("{} is not a regular file; give --file the path of a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// The file to read exists and cannot be opened.
    #[error("cannot read {}: {}; check its permissions or give another --file", path.display(), plain(source))]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file to read is too small to measure anything.
    #[error("{} holds {bytes} bytes; give --file a file of at least 1 MiB, or a path that does not exist yet", path.display())]
    FileTooSmall {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file to read could not be made.
    #[error("cannot make {}: {}; give --file a path in a directory that can be written to", path.display(), plain(source))]
    CannotMake {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file system has no room for the file.
    #[error(
        "no room for {}: {} MiB wanted, {} MiB free; give a smaller --size or --file on another file system",
        path.display(), wanted >> 20, free >> 20
    )]
    NoSpace {
        /// The path.
        path: PathBuf,
        /// Bytes that the file needs.
        wanted: u64,
        /// Bytes that the file system has left.
        free: u64,
    },
    /// The report cannot be written.
    #[error("cannot write the report {}: {}; give --report another path", path.display(), plain(source))]
    Report {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output: {}; check where it goes", plain(.0))]
    Output(#[source] io::Error),
    /// The operating system refused something that the bench itself needs.
    #[error("{what}: {}; {remedy}", plain(source))]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
}

impl Error {
    /// Whether the reader of standard output has gone away, which is no fault.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Error::Output(source) if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// An I/O error as people read it: the cause in lower case, without the number.
pub(crate) fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_with_a_remedy() {
        let errors = [
            Error::UnknownEngine { name: "x".into(), valid: "floor, uring".into() },
            Error::IsDirectory { path: "/tmp".into() },
            Error::NoSpace { path: "f".into(), wanted: 2 << 30, free: 1 << 20 },
            Error::Unreadable {
                path: "f".into(),
                source: io::Error::from_raw_os_error(libc::EACCES),
            },
        ];
        for error in errors {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.contains(';'), "{text}");
        }
    }

    #[test]
    fn os_errors_lose_their_number() {
        let error = io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(plain(&error), "permission denied");
    }
}
