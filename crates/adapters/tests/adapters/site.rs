//! What is served in the tests, and by whom.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use omniring::net::TcpListener;
use omniring::{JoinHandle, spawn};
use omniring_adapters::http::Server;

/// Bytes that differ wherever one looks: numbered blocks, quick to make.
pub fn pattern(len: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..=250).collect();
    let mut bytes = Vec::with_capacity(len + block.len());
    for number in 0u32.. {
        if bytes.len() >= len {
            break;
        }
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&block);
    }
    bytes.truncate(len);
    bytes
}

/// `/` says hello, `/echo` sends the body back, `/large/N` sends N bytes in pieces, `/never` does not
/// answer. It is not `Send`, and counts who is being answered.
#[derive(Clone, Default)]
pub struct Site {
    pub answering_count: Rc<Cell<usize>>,
    pub answered_count: Rc<Cell<usize>>,
}

/// One more as long as it exists.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(count: &Rc<Cell<usize>>) -> Counted {
        count.set(count.get() + 1);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Service<Request<Incoming>> for Site {
    type Response = Response<Pieces>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Pieces>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Site { answering_count, answered_count } = self.clone();
        Box::pin(async move {
            let _counted = Counted::new(&answering_count);
            let path = request.uri().path().to_owned();
            let body = match path.as_str() {
                "/" => Pieces::of("hello"),
                "/never" => std::future::pending().await,
                "/echo" => match request.into_body().collect().await {
                    Ok(body) => Pieces::of(body.to_bytes()),
                    Err(_) => Pieces::of("the body broke off"),
                },
                path => match path.strip_prefix("/large/").and_then(|len| len.parse().ok()) {
                    Some(len) => Pieces::of(pattern(len)),
                    None => {
                        let mut response = Response::new(Pieces::of("nothing here"));
                        *response.status_mut() = StatusCode::NOT_FOUND;
                        return Ok(response);
                    }
                },
            };
            answered_count.set(answered_count.get() + 1);
            Ok(Response::new(body))
        })
    }
}

/// A body in pieces of 20,000 bytes, which need not be `Send`.
pub struct Pieces {
    rest: Bytes,
    _not_send: Rc<()>,
}

impl Pieces {
    fn of(bytes: impl Into<Bytes>) -> Pieces {
        Pieces { rest: bytes.into(), _not_send: Rc::new(()) }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let len = self.rest.len().min(20_000);
        Poll::Ready((len > 0).then(|| Ok(Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A listener on a free port, and where it is.
pub async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A site that is served over TCP until the task is aborted.
pub struct Served {
    pub addr: SocketAddr,
    pub site: Site,
    pub server: JoinHandle<io::Result<()>>,
}

/// Serves a site in a task.
pub async fn serve() -> Served {
    let (listener, addr) = listener().await;
    let site = Site::default();
    let service = site.clone();
    let server = spawn(async move { Server::new().serve(&listener, service).await });
    Served { addr, site, server }
}

impl Served {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Ends the server, and waits until nothing of it is left but what the caller has.
    pub async fn end(self, runtime: &omniring::Runtime) {
        self.server.abort();
        assert!(self.server.await.is_err());
        settle(runtime).await;
    }
}

/// Waits until the runtime has neither tasks nor ops.
pub async fn settle(runtime: &omniring::Runtime) {
    let rest = async {
        loop {
            let stats = runtime.stats();
            if (stats.task_count, stats.in_flight_count, stats.leased_count) == (0, 0, 0) {
                return;
            }
            omniring::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let rested = omniring::time::timeout(std::time::Duration::from_secs(10), rest).await;
    assert!(rested.is_ok(), "left behind: {:?}", runtime.stats());
}

/// The body of a response.
pub async fn body(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// A body that is there.
pub fn full(bytes: impl Into<Bytes>) -> Full<Bytes> {
    Full::new(bytes.into())
}
