//! Errors that say more than an errno: what is wrong with the request at hand.

use std::error::Error;
use std::fmt;
use std::io;

/// An errno, and what it means here. An [`io::Error`] made of it has the text, which one made of
/// the errno alone has not; [`raw_os_error`] finds the errno in either.
#[derive(Debug)]
pub struct Explained {
    /// Made of the errno alone.
    error: io::Error,
    what: String,
}

impl Explained {
    /// Says what `errno` means here.
    pub fn new(errno: i32, what: impl Into<String>) -> Explained {
        Explained { error: io::Error::from_raw_os_error(errno), what: what.into() }
    }

    /// The errno.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.error.raw_os_error()
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.what)
    }
}

impl Error for Explained {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Explained> for io::Error {
    fn from(explained: Explained) -> io::Error {
        io::Error::new(explained.error.kind(), explained)
    }
}

/// The errno of an error, with or without an explanation. `None` if it is no system call's.
///
/// ```
/// use omniring_driver::{Explained, raw_os_error};
/// let error = std::io::Error::from(Explained::new(22, "the offset is odd"));
/// assert_eq!(error.raw_os_error(), None, "what the standard library knows");
/// assert_eq!(raw_os_error(&error), Some(22));
/// assert_eq!(error.to_string(), "Invalid argument (os error 22): the offset is odd");
/// ```
pub fn raw_os_error(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| error.get_ref()?.downcast_ref::<Explained>()?.raw_os_error())
}
