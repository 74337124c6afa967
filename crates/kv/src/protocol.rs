//! Redis' protocol: bytes to requests ([`Args`]), replies to bytes ([`Reply`]). Knows no sockets.

mod ahead;
mod args;
mod number;
mod parser;
mod reply;

pub use ahead::Ahead;
pub use args::{Args, OwnedArgs};
pub use number::{LongDouble, parse_cursor, parse_f64, parse_i64, parse_u64, write_f64};
pub use parser::{Bounds, Parser, ProtocolError, split_words};
pub use reply::{Length, Proto, Reply, Shared};
