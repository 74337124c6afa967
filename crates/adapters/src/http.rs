//! hyper on omniring: its I/O traits for a [`StreamIo`], its executor and its timer, a
//! [`Server`] and [`client`]s.
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http_body_util::{BodyExt, Empty, Full};
//! use hyper::{Request, Response, service::service_fn};
//! use omniring::net::{TcpListener, TcpStream};
//! use omniring_adapters::{StreamIo, http};
//!
//! # omniring::Runtime::new()?.block_on(async {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let addr = listener.local_addr()?;
//! let hello = service_fn(async |_| {
//!     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
//! });
//! let server = omniring::spawn(async move { http::Server::new().serve(&listener, hello).await });
//!
//! let io = StreamIo::new(TcpStream::connect(addr).await?);
//! let mut client = http::client::http1(io).await?;
//! let request = Request::get("/").header("host", "localhost").body(Empty::<Bytes>::new())?;
//! let body = client.send_request(request).await?.into_body().collect().await?;
//! assert_eq!(body.to_bytes(), "hello");
//! server.abort();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod client;
mod listen;
mod server;

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use omniring::time::{Instant, now};
use send_wrapper::SendWrapper;

use crate::stream::{Socket, StreamIo};

pub use listen::Listen;
pub use server::{ServeError, Server};

impl<S: Socket> Read for StreamIo<S> {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        self.poll_read_with(cx, room, |bytes| buf.put_slice(bytes)).map_ok(drop)
    }
}

impl<S: Socket> Write for StreamIo<S> {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, &[IoSlice::new(buf)])
    }

    /// So that head and body, which are copied in any case, are copied once.
    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, bufs)
    }

    /// hyper goes on to the next request after it, and shuts down before it closes: a short send is not
    /// waited for, which would wake the connection's task once more for each response.
    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_handed_over(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end_writing(cx)
    }
}

/// hyper's tasks as omniring's: they need not be `Send`.
///
/// ```
/// use hyper::rt::Executor as _;
/// # omniring::Runtime::new()?.block_on(async {
/// let not_send = std::rc::Rc::new(42);
/// omniring_adapters::http::Executor.execute(async move { assert_eq!(*not_send, 42) });
/// omniring::yield_now().await;
/// # });
/// # Ok::<(), omniring::StartError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F: Future + 'static> hyper::rt::Executor<F> for Executor {
    /// # Panics
    /// Outside of a runtime.
    fn execute(&self, future: F) {
        drop(omniring::spawn(future));
    }
}

/// hyper's timers as omniring's.
///
/// hyper wants sleeps that are `Send` and `Sync`, which omniring's are not. These panic when polled on
/// another thread than that which made them. Dropped there, the timer fires for nobody.
///
/// ```
/// use std::time::Duration;
/// use hyper::rt::Timer as _;
/// # omniring::Runtime::new()?.block_on(async {
/// omniring_adapters::http::Timer.sleep(Duration::from_millis(1)).await;
/// # });
/// # Ok::<(), omniring::StartError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep::new(omniring::time::sleep(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep::new(omniring::time::sleep_until(deadline)))
    }

    fn now(&self) -> Instant {
        now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>().and_then(|sleep| sleep.get_mut().local()) {
            Some(sleep) => sleep.reset(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

struct Sleep(Option<SendWrapper<omniring::time::Sleep>>);

impl Sleep {
    fn new(sleep: omniring::time::Sleep) -> Sleep {
        Sleep(Some(SendWrapper::new(sleep)))
    }

    /// The sleep, on its own thread.
    fn local(&mut self) -> Option<&mut omniring::time::Sleep> {
        self.0.as_mut().filter(|sleep| sleep.valid()).map(|sleep| &mut **sleep)
    }
}

impl hyper::rt::Sleep for Sleep {}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    /// On another thread than that which made the timer.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Which the wrapper checks.
        let sleep = self.0.as_deref_mut().expect("there until it is dropped");
        Pin::new(sleep).poll(cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(sleep) = self.0.take()
            && !sleep.valid()
        {
            // It may be touched on its own thread only, and would panic here.
            std::mem::forget(sleep);
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleep")
    }
}
