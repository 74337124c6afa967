//! Waiting for one of several futures, or for all of them, within one task.
//!
//! The macros [`select!`](crate::select!), [`select_biased!`](crate::select_biased!),
//! [`join!`](crate::join!) and [`try_join!`](crate::try_join!) are those of the crate
//! `futures-util`, and so are the traits here, which `select!` asks of its futures. They work on any
//! runtime and need neither `Send` nor an allocation.
//!
//! # What becomes of the others
//! `select!` takes the first future that is ready and leaves the others as they are. One that is
//! passed by name goes on where it was in the next `select!`; one that is made within the macro is
//! dropped, and with it its op is cancelled. So what a drop may lose belongs outside of the loop:
//!
//! | a dropped future of | |
//! |---|---|
//! | `recv()`, `recv_from()`, `Incoming::next`, `Interval::tick`, `sleep`, a channel's `recv` | loses nothing: may be made anew each time |
//! | `accept()` | closes a connection that it took in the same moment; `incoming()` does not |
//! | `recv_into`, `send`, `send_all`, `read_at`, `write_at` | may have moved bytes that nobody is told of: keep it, or end the connection with it |
//!
//! ```
//! # omniring::Runtime::new()?.block_on(async {
//! use std::pin::pin;
//! use std::time::Duration;
//! use omniring::future::FutureExt;
//! use omniring::{net::UnixStream, time};
//!
//! let (client, server) = UnixStream::pair()?;
//! // Kept: it has a buffer, and bytes that it took are in there.
//! let mut reply = pin!(client.recv_into(Vec::with_capacity(16)).fuse());
//! let mut tick_count = 0;
//! let (received, buf) = loop {
//!     omniring::select! {
//!         (result, buf) = reply => break (result?, buf),
//!         // Made anew: dropping it costs nothing.
//!         () = time::sleep(Duration::from_millis(1)).fuse() => tick_count += 1,
//!     }
//!     if tick_count == 3 {
//!         server.send_all("reply").await.0?;
//!     }
//! };
//! assert_eq!((received, &buf[..], tick_count), (5, &b"reply"[..], 3));
//! # Ok::<(), std::io::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `join!` waits for all, and `try_join!` for all or the first error, with which it drops the others:
//!
//! ```
//! # omniring::Runtime::new()?.block_on(async {
//! use omniring::net::UnixStream;
//! let (client, server) = UnixStream::pair()?;
//! let ((sent, _), received) = omniring::join!(client.send_all("x"), server.recv());
//! assert_eq!(&received?[..], b"x");
//! sent?;
//! # Ok::<(), std::io::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Of several futures that are ready `select!` takes one at random, `select_biased!` the first.

pub use futures_util::future::{Fuse, FusedFuture, FutureExt};
