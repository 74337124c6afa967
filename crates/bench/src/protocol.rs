//! The lines of JSON that the bench and a subject exchange over the subject's
//! standard input and output.
//!
//! The subject sets up and says `Ready`; then each [`Request`] is answered with
//! one `Slice`. `Refused` and `Failed` end the conversation. Between requests
//! the subject is blocked on its input and uses no processor time.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::measure::{Latency, Slice, Usage};

/// From the bench: run for that long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Length of the slice in milliseconds.
    pub run_ms: u64,
    /// Whether to count system calls, which makes each of them slower.
    #[serde(default)]
    pub count_syscalls: bool,
}

/// From the subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Set up, and blocked on its input.
    Ready {
        /// Port that its echo server listens on.
        port: Option<u16>,
    },
    /// What a slice measured.
    Slice(SliceLine),
    /// The row cannot run here, by no fault of the engine.
    Refused {
        /// Why.
        reason: String,
    },
    /// The row failed.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A [`Slice`] as it crosses the pipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SliceLine {
    ops: u64,
    elapsed_ns: u64,
    usage: Usage,
    device_bytes: Option<u64>,
    syscalls: Option<u64>,
    latency: String,
}

impl From<&Slice> for SliceLine {
    fn from(slice: &Slice) -> Self {
        SliceLine {
            ops: slice.ops,
            elapsed_ns: slice.elapsed.as_nanos() as u64,
            usage: slice.usage,
            device_bytes: slice.device_bytes,
            syscalls: slice.syscalls,
            latency: slice.latency.encode(),
        }
    }
}

impl TryFrom<SliceLine> for Slice {
    type Error = io::Error;

    fn try_from(line: SliceLine) -> io::Result<Slice> {
        Ok(Slice {
            ops: line.ops,
            elapsed: Duration::from_nanos(line.elapsed_ns),
            usage: line.usage,
            device_bytes: line.device_bytes,
            syscalls: line.syscalls,
            latency: Latency::decode(&line.latency)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_survives_the_pipe() {
        let mut slice = Slice {
            ops: 7,
            elapsed: Duration::from_millis(250),
            usage: Usage { user_us: 1, system_us: 2, context_switches: 3 },
            device_bytes: Some(4096),
            syscalls: Some(12),
            latency: Latency::new(),
        };
        slice.latency.record(Duration::from_micros(90));
        let line = serde_json::to_string(&Reply::Slice(SliceLine::from(&slice))).unwrap();
        assert!(!line.contains('\n'));
        let Reply::Slice(back) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        let back = Slice::try_from(back).unwrap();
        assert_eq!((back.ops, back.elapsed, back.usage), (slice.ops, slice.elapsed, slice.usage));
        assert_eq!((back.device_bytes, back.syscalls), (slice.device_bytes, slice.syscalls));
        assert_eq!(back.latency, slice.latency);
    }

    #[test]
    fn a_request_is_what_the_documentation_says() {
        let request: Request = serde_json::from_str(r#"{"run_ms":250}"#).unwrap();
        assert_eq!(request, Request { run_ms: 250, count_syscalls: false });
    }
}
