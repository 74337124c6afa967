//! Redis' own files: RDB dumps up to version 10, and append-only files; and single values as `DUMP` gives them.
//!
//! # Layout
//! - `source`: bytes that are read, and what can be wrong with them.
//! - `packed`: the compact encodings: ziplists, listpacks, sets of integers. `lzf`: compressed strings.
//! - `value`: values, of any encoding, read and written.
//! - `file`: a whole RDB file. `aof`: append-only files, with their manifest.
//!
//! Invariants:
//! - *Any bytes are an error or a value*: nothing panics, and no memory is asked for because a length says so.
//!
//! Deliberately not here: streams, values of modules and zipmaps (which Redis has not written since 2.6), which are
//! refused with the name of their key, and functions, which are passed over with a notice. No crate for it was
//! found that takes a value by itself, reads all encodings and asks for no memory by lengths.

mod aof;
mod file;
mod lzf;
mod packed;
mod source;
#[cfg(test)]
mod tests;
mod value;

pub use aof::{AppendOnly, find_append_only, import_append_only};
pub use file::{Entry, Failure, Import, export, import};
pub use source::Wrong;
pub use value::{VERSION, dump, restore};
