//! The header `Range`: a part of a file (RFC 9110, 14.1).

use std::ops::Range;

/// What a request asks for of a file of `len` bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it: nothing was said, or nothing that has a meaning here (several parts, other units).
    Whole,
    /// These bytes, at least one.
    Bytes(Range<u64>),
    /// What is not there.
    Unsatisfiable,
}

impl Part {
    pub fn parse(header: Option<&str>, len: u64) -> Part {
        let Some((from, to)) = header
            .and_then(|header| header.trim().strip_prefix("bytes="))
            .and_then(|range| range.split_once('-'))
        else {
            return Part::Whole;
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(from) || !digits(to) {
            return Part::Whole;
        }
        let number = |text: &str| text.parse().unwrap_or(u64::MAX);
        let (start, end) = match (from, to) {
            ("", "") => return Part::Whole,
            // The last bytes.
            ("", last) => (len.saturating_sub(number(last)), len),
            (first, "") => (number(first), len),
            (first, last) if number(first) > number(last) => return Part::Whole,
            (first, last) => (number(first), number(last).saturating_add(1).min(len)),
        };
        match start < end {
            true => Part::Bytes(start..end),
            false => Part::Unsatisfiable,
        }
    }
}
