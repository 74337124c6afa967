//! The server: accepts, gives each connection a task, and ends them in order.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::rt::{Read, Write};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::server::conn::auto;
use omniring::JoinHandle;
use omniring::time::{now, sleep, sleep_until};

use super::{Executor, Listen, Timer};

/// How long to wait before accepting again when descriptors or memory have run out.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(50);

type BoxError = Box<dyn Error + Send + Sync>;

/// An HTTP server: HTTP/1 and HTTP/2 on the same port, told apart by how a connection begins (HTTP/2 as
/// with prior knowledge, or chosen by ALPN on TLS).
///
/// The services need not be `Send`, and there is one task for each connection, on the runtime's thread
/// (with HTTP/2 one more for each request in work). A request's head has to be there 30 seconds after it
/// was begun or waited for; [`Server::options`] has this and all other settings. HTTP upgrades, such as to
/// WebSocket, are not served.
#[derive(Clone)]
pub struct Server {
    options: auto::Builder<Executor>,
    shutdown_time_max: Duration,
    on_error: Rc<dyn Fn(&ServeError)>,
}

impl Default for Server {
    fn default() -> Server {
        Server::new()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Why one connection failed. The others go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// It could not be accepted.
    Accept(io::Error),
    /// It could not be made ready: a TLS handshake failed.
    Establish(io::Error),
    /// It failed later: what the peer sent was not HTTP, the peer was gone, or the service failed.
    Connection(BoxError),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Accept(error) => write!(f, "cannot accept a connection: {error}"),
            ServeError::Establish(error) => write!(f, "cannot set a connection up: {error}"),
            ServeError::Connection(error) => {
                write!(f, "connection: {error}")?;
                let mut cause = error.source();
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
        }
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ServeError::Accept(error) | ServeError::Establish(error) => Some(error),
            ServeError::Connection(error) => Some(&**error),
        }
    }
}

impl Server {
    /// A server of HTTP/1 and HTTP/2, with omniring's timer.
    pub fn new() -> Server {
        let mut options = auto::Builder::new(Executor);
        options.http1().timer(Timer);
        options.http2().timer(Timer);
        Server { options, shutdown_time_max: Duration::from_secs(10), on_error: Rc::new(|_| ()) }
    }

    /// Speaks HTTP/1 only.
    pub fn http1_only(mut self) -> Server {
        self.options = self.options.http1_only();
        self
    }

    /// Speaks HTTP/2 only.
    pub fn http2_only(mut self) -> Server {
        self.options = self.options.http2_only();
        self
    }

    /// All settings of hyper's, as they are used for the next connection.
    pub fn options(&mut self) -> &mut auto::Builder<Executor> {
        &mut self.options
    }

    /// How long requests in work may take after [`Server::serve_until`] was told to end (default 10
    /// seconds). What still runs then is dropped.
    pub fn shutdown_time_max(mut self, time: Duration) -> Server {
        self.shutdown_time_max = time;
        self
    }

    /// Called with the failure of each connection that has one, of which clients that go away early make
    /// many (default: nothing is said).
    pub fn on_error(mut self, on_error: impl Fn(&ServeError) + 'static) -> Server {
        self.on_error = Rc::new(on_error);
        self
    }

    /// Serves one connection to its end.
    pub async fn serve_connection<I, S, B>(&self, io: I, service: S) -> Result<(), ServeError>
    where
        I: Read + Write + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<B>>,
        S::Future: 'static,
        S::Error: Into<BoxError>,
        B: Body + 'static,
        B::Error: Into<BoxError>,
    {
        self.options.serve_connection(io, service).await.map_err(ServeError::Connection)
    }

    /// Serves until the listener fails. Dropping the future drops every connection, with what it does.
    ///
    /// Running out of descriptors or memory is not a failure: the server waits for some.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn serve<L, S, B>(&self, listener: &L, service: S) -> io::Result<()>
    where
        L: Listen,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
        S::Future: 'static,
        S::Error: Into<BoxError>,
        B: Body + 'static,
        B::Error: Into<BoxError>,
    {
        self.serve_until(listener, service, std::future::pending()).await
    }

    /// As [`Server::serve`], until `signal` is ready. Then nothing is accepted any more, idle connections
    /// end, and requests in work are finished, within [`Server::shutdown_time_max`].
    pub async fn serve_until<L, S, B>(
        &self,
        listener: &L,
        service: S,
        signal: impl Future<Output = ()>,
    ) -> io::Result<()>
    where
        L: Listen,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
        S::Future: 'static,
        S::Error: Into<BoxError>,
        B: Body + 'static,
        B::Error: Into<BoxError>,
    {
        self.serve_each(listener, |_| service.clone(), signal).await
    }

    /// As [`Server::serve_until`], with a service for each connection, made when that is accepted: it may
    /// know who the peer is.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn serve_each<L, S, B>(
        &self,
        listener: &L,
        mut make: impl FnMut(&L::Accepted) -> S,
        signal: impl Future<Output = ()>,
    ) -> io::Result<()>
    where
        L: Listen,
        S: Service<Request<Incoming>, Response = Response<B>> + 'static,
        S::Future: 'static,
        S::Error: Into<BoxError>,
        B: Body + 'static,
        B::Error: Into<BoxError>,
    {
        listener.start()?;
        let mut connections = Connections::default();
        let mut signal = pin!(signal);
        loop {
            let accepted = match until(listener.accept(), signal.as_mut()).await {
                None => break,
                Some(Ok(accepted)) => accepted,
                Some(Err(error)) => {
                    let kind = fate(&error);
                    (self.on_error)(&ServeError::Accept(error));
                    match kind {
                        Fate::Next => {}
                        Fate::Wait => sleep(EXHAUSTED_WAIT).await,
                        Fate::End(error) => return Err(error),
                    }
                    continue;
                }
            };
            let (server, service) = (self.clone(), make(&accepted));
            let established = listener.establish(accepted);
            connections.add(|link| async move {
                let result = match established.await {
                    Ok(io) => server.run(io, service, &link).await,
                    Err(error) => Err(ServeError::Establish(error)),
                };
                if let Err(error) = result {
                    (server.on_error)(&error);
                }
            });
        }
        connections.finish(self.shutdown_time_max).await;
        Ok(())
    }

    /// One connection, which is told to end when its link is.
    async fn run<I, S, B>(&self, io: I, service: S, link: &Link) -> Result<(), ServeError>
    where
        I: Read + Write + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<B>>,
        S::Future: 'static,
        S::Error: Into<BoxError>,
        B: Body + 'static,
        B::Error: Into<BoxError>,
    {
        let mut connection = pin!(self.options.serve_connection(io, service));
        let mut is_told = false;
        poll_fn(|cx| {
            if link.is_ending.get() && !is_told {
                is_told = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx).map_err(ServeError::Connection)
        })
        .await
    }
}

/// What an error of `accept(2)` means.
enum Fate {
    /// The peer was gone by then.
    Next,
    /// Something has run out, and comes back when connections end.
    Wait,
    End(io::Error),
}

fn fate(error: &io::Error) -> Fate {
    use libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EPROTO};
    match omniring::raw_os_error(error) {
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM) => Fate::Wait,
        // A firewall's word, and an error of the connection's.
        Some(EPERM | EPROTO) => Fate::Next,
        _ if error.kind() == io::ErrorKind::ConnectionAborted => Fate::Next,
        _ => Fate::End(io::Error::new(error.kind(), format!("cannot accept: {error}"))),
    }
}

/// Between the server and one connection's task.
#[derive(Default)]
struct Link {
    is_ending: Cell<bool>,
    /// The task's.
    waker: RefCell<Option<Waker>>,
}

/// The connections of a server. Dropping this drops them.
#[derive(Default)]
struct Connections {
    tasks: Vec<(JoinHandle<()>, Rc<Link>)>,
    /// When there are so many, those that have ended are looked for.
    look_at: usize,
}

impl Connections {
    fn add<F: Future<Output = ()> + 'static>(&mut self, serve: impl FnOnce(Rc<Link>) -> F) {
        if self.tasks.len() >= self.look_at {
            self.tasks.retain(|(task, _)| !task.is_finished());
            self.look_at = (self.tasks.len() * 2).max(64);
        }
        let link = Rc::new(Link::default());
        let mut serving = Box::pin(serve(link.clone()));
        let of_task = link.clone();
        let task = omniring::spawn(poll_fn(move |cx| {
            // A task's waker stays the same.
            of_task.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            serving.as_mut().poll(cx)
        }));
        self.tasks.push((task, link));
    }

    /// Waits until all have ended, for so long.
    async fn finish(mut self, time_max: Duration) {
        for (_, link) in &self.tasks {
            link.is_ending.set(true);
            let waker = link.waker.take();
            waker.inspect(Waker::wake_by_ref);
        }
        let mut deadline = sleep_until(now() + time_max);
        for (task, _) in &mut self.tasks {
            if until(task, &mut deadline).await.is_none() {
                return;
            }
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        for (task, link) in &self.tasks {
            // The task would otherwise hold its waker, and so itself.
            link.waker.take();
            task.abort();
        }
    }
}

/// The output of `future`, or nothing if `end` comes first.
async fn until<T>(
    future: impl Future<Output = T>,
    end: impl Future<Output = ()> + Unpin,
) -> Option<T> {
    let (mut future, mut end) = (pin!(future), pin!(end));
    poll_fn(|cx| {
        if end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_outlives_what_passes() {
        let fate_of = |errno| fate(&io::Error::from_raw_os_error(errno));
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert!(matches!(fate_of(errno), Fate::Wait), "{errno}");
        }
        for errno in [libc::ECONNABORTED, libc::EPROTO, libc::EPERM] {
            assert!(matches!(fate_of(errno), Fate::Next), "{errno}");
        }
        let Fate::End(error) = fate_of(libc::EINVAL) else { panic!("a listener that is none") };
        assert!(error.to_string().contains("Invalid argument"), "{error}");
    }
}
