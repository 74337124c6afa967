//! The operations: each op with its memory, its preparation and its result, side by side.
//!
//! Each function returns the future of one op and says what it yields; what the op does is in the
//! man page that [`Op`](crate::op::Op) names.

mod control;
mod direct;
mod file;
mod message;
mod net;
mod path;
mod read_many;
mod split;
mod terminal;

pub use control::{ControlReceived, ControlToSend};
pub use file::*;
pub use message::*;
pub use net::*;
pub use path::*;
pub use read_many::*;
pub use split::*;
pub use terminal::explain_terminal;

use std::io;

use crate::op::Completion;

/// The most bytes that the kernel moves in one call (`MAX_RW_COUNT`).
const LEN_MAX: usize = 0x7fff_f000;

/// A buffer's length as an op takes it: longer ones are used in part, as by `read(2)`.
fn op_len(len: usize) -> u32 {
    len.min(LEN_MAX) as u32
}

/// The result of an op that yields nothing but success.
fn unit(completion: Completion) -> io::Result<()> {
    completion.into_result().map(drop)
}

/// The result of an op that yields a number of bytes.
fn count(completion: Completion) -> io::Result<usize> {
    completion.into_result().map(|count| count as usize)
}
