//! Requests that are read before they are carried out, so that their keys can be brought near together.
//!
//! Of use are the many that come at once, complete and of short words; what is unusual is left to the
//! [`Parser`](super::Parser).

use super::args::Span;
use super::parser::whole_request;

/// Requests that are read ahead together, at most.
const REQUESTS_MAX: usize = 32;

/// Bytes that are looked at, at most.
const BYTES_MAX: usize = 64 * 1024;

/// Requests that were read ahead: they lie one behind the other.
#[derive(Debug, Default)]
pub struct Ahead {
    spans: Vec<Span>,
    requests: Vec<Request>,
    /// How many of them were taken.
    taken: usize,
}

/// Where a request ends.
#[derive(Clone, Copy, Debug)]
struct Request {
    /// In `spans`.
    spans_end: u32,
    /// In bytes from its begin.
    len: u32,
}

impl Ahead {
    /// Whether all that were read have been taken.
    pub fn is_empty(&self) -> bool {
        self.taken == self.requests.len()
    }

    /// How many were read.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Forgets what was not taken.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.requests.clear();
        self.taken = 0;
    }

    /// Reads the requests that `bytes` begin with, in place of those before. `visit` is called with the second word of
    /// each: mostly that is the key.
    pub(super) fn read(&mut self, bytes: &[u8], mut visit: impl FnMut(&[u8])) {
        self.clear();
        let mut rest = &bytes[..bytes.len().min(BYTES_MAX)];
        while self.requests.len() < REQUESTS_MAX {
            let first = self.spans.len();
            let Some(len) = whole_request(rest, &mut self.spans) else {
                self.spans.truncate(first);
                return;
            };
            if let Some(&Span::Inline { start, end }) = self.spans.get(first + 1) {
                visit(&rest[start as usize..end as usize]);
            }
            self.requests.push(Request { spans_end: self.spans.len() as u32, len: len as u32 });
            rest = &rest[len..];
        }
    }

    /// The words and the bytes of the next request.
    #[inline]
    pub(super) fn take(&mut self) -> Option<(&[Span], usize)> {
        let request = *self.requests.get(self.taken)?;
        let start = match self.taken.checked_sub(1) {
            Some(before) => self.requests[before].spans_end,
            None => 0,
        };
        self.taken += 1;
        Some((&self.spans[start as usize..request.spans_end as usize], request.len as usize))
    }
}
