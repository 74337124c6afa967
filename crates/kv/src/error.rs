//! What a command answers when it cannot be carried out.

use std::borrow::Cow;
use std::fmt;

/// An error reply: a code in capitals, a space and a message, as clients of Redis know them.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Cow<'static, str>);

impl Error {
    /// The error with this text, which begins with its code.
    pub const fn new(text: &'static str) -> Error {
        Error(Cow::Borrowed(text))
    }

    /// The same, of a text that is made for the occasion.
    pub fn of(text: String) -> Error {
        Error(Cow::Owned(text))
    }

    /// The key holds a value of another type.
    pub const WRONG_TYPE: Error =
        Error::new("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// The arguments do not fit the command's syntax.
    pub const SYNTAX: Error = Error::new("ERR syntax error");
    /// An argument, or the value of a key, is no signed 64-bit number.
    pub const NOT_AN_INTEGER: Error = Error::new("ERR value is not an integer or out of range");
    /// An argument, or the value of a key, is no number.
    pub const NOT_A_FLOAT: Error = Error::new("ERR value is not a valid float");
    /// There is no such key, where the command needs one.
    pub const NO_SUCH_KEY: Error = Error::new("ERR no such key");
    /// There is no element at that index.
    pub const INDEX_OUT_OF_RANGE: Error = Error::new("ERR index out of range");

    /// The command was called with a number of arguments that it does not take.
    pub fn arity(name: &str) -> Error {
        Error::of(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// The text, code first.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The code: the text up to its first space.
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
