//! Omniring for crates that know other runtimes: its streams in the traits of futures-io, tokio and
//! hyper, its tasks and timers as hyper and quinn want them.
//!
//! Each adapter is a feature, and none is on by default:
//!
//! | feature | what it adds |
//! |---|---|
//! | `futures-io` | `futures_io::{AsyncRead, AsyncBufRead, AsyncWrite}` of a [`StreamIo`], and [`FromFutures`] |
//! | `tokio-io` | `tokio::io::{AsyncRead, AsyncBufRead, AsyncWrite}` of a [`StreamIo`], and [`FromTokio`] |
//! | `hyper` | `hyper::rt::{Read, Write}` of a [`StreamIo`], and [`http`]: executor, timer, server, client |
//! | `axum` | [`axum`]: a Router, or any tower service, behind that server |
//! | `rustls` | [`tls`]: TLS over any stream |
//! | `quinn` | [`quic`]: QUIC endpoints on the runtime |
//!
//! # What a borrowed buffer costs
//! Ops own their buffers; these traits lend theirs for the time of a call. So what is read is copied out
//! of a lease once, and what is written is copied once into memory of the adapter's. An idle connection
//! has neither.
//!
//! # Threads
//! A stream stays on the thread of its runtime: none of this is `Send`, but for what hyper and quinn need
//! to be, which says what it does on another thread.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "full"),
    allow(rustdoc::broken_intra_doc_links, reason = "the list names what is switched off, too")
)]

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "futures-io")]
mod futures_traits;
#[cfg(feature = "hyper")]
pub mod http;
#[cfg(feature = "quinn")]
pub mod quic;
#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper"))]
mod sending;
#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper"))]
mod stream;
#[cfg(feature = "rustls")]
pub mod tls;
#[cfg(feature = "tokio-io")]
mod tokio_traits;

#[cfg(feature = "futures-io")]
pub use futures_traits::FromFutures;
#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper"))]
pub use stream::{Socket, StreamIo};
#[cfg(feature = "tokio-io")]
pub use tokio_traits::FromTokio;
