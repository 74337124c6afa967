//! The client's side: a connection is made with omniring, and hyper speaks HTTP over it.
//!
//! Each of these makes the handshake and gives the connection a task of its own, which ends when the
//! sender, and every body that comes over it, is gone; the server may end it earlier, which the next
//! request is told.

use std::error::Error;

use hyper::body::Body;
use hyper::client::conn::{http1 as h1, http2 as h2};
use hyper::rt::{Read, Write};

use super::{Executor, Timer};

/// A client of HTTP/1 over a stream.
///
/// # Panics
/// Outside of a runtime.
pub async fn http1<T, B>(io: T) -> hyper::Result<h1::SendRequest<B>>
where
    T: Read + Write + Unpin + 'static,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (sender, connection) = h1::handshake(io).await?;
    // What goes wrong, the request in flight is told.
    drop(omniring::spawn(async { drop(connection.await) }));
    Ok(sender)
}

/// A client of HTTP/2 over a stream. Clones of the sender share the connection.
///
/// # Panics
/// Outside of a runtime.
pub async fn http2<T, B>(io: T) -> hyper::Result<h2::SendRequest<B>>
where
    T: Read + Write + Unpin + 'static,
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (sender, connection) = h2::Builder::new(Executor).timer(Timer).handshake(io).await?;
    drop(omniring::spawn(async { drop(connection.await) }));
    Ok(sender)
}
