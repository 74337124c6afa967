//! The server: connections, and the requests on their streams.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use omniring::fs::File;
use omniring::time::timeout;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};

use crate::body::{self, Partial};
use crate::progress::Progress;
use crate::protocol::{self, FAILED, GET, LIST, Offer, PUT};
use crate::tree::Tree;

/// How long peers may take to hear that it is over.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

pub struct Service {
    pub tree: Tree,
    pub read_only: bool,
    pub verbose: bool,
}

/// Serves until `stop` is there.
pub async fn serve(endpoint: &Endpoint, service: Service, stop: impl Future<Output = ()>) {
    let service = Rc::new(service);
    let accepting = async {
        while let Some(incoming) = endpoint.accept().await {
            drop(omniring::spawn(serve_connection(incoming, service.clone())));
        }
    };
    futures_util::future::select(std::pin::pin!(accepting), std::pin::pin!(stop)).await;
    endpoint.close(VarInt::from_u32(0), b"the server shuts down");
    let _ = timeout(GOODBYE_TIME_MAX, endpoint.wait_idle()).await;
}

async fn serve_connection(incoming: Incoming, service: Rc<Service>) {
    let peer = incoming.remote_address();
    let error = match incoming.await {
        Ok(connection) => serve_requests(&connection, &service).await,
        Err(error) => error,
    };
    if service.verbose && !matches!(error, quinn::ConnectionError::ApplicationClosed(_)) {
        eprintln!("quic_transfer: {peer}: {error}");
    }
}

/// Until the connection ends, which is how it says so.
async fn serve_requests(connection: &Connection, service: &Rc<Service>) -> quinn::ConnectionError {
    loop {
        let (send, recv) = match connection.accept_bi().await {
            Ok(streams) => streams,
            Err(error) => return error,
        };
        let (service, peer) = (service.clone(), connection.remote_address());
        drop(omniring::spawn(async move {
            match service.serve_request(send, recv).await {
                Ok(done) if service.verbose => eprintln!("quic_transfer: {peer}: {done}"),
                Err(error) if service.verbose => eprintln!("quic_transfer: {peer}: {error}"),
                _ => {}
            }
        }));
    }
}

impl Service {
    /// What was done.
    async fn serve_request(
        &self,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> io::Result<String> {
        let [wanted] = protocol::read_array(&mut recv).await?;
        let name = protocol::read_text(&mut recv).await?;
        let done = match wanted {
            PUT => self.put(&name, &mut send, &mut recv).await,
            GET => self.get(&name, &mut send, &mut recv).await,
            LIST => self.list(&name, &mut send).await,
            other => {
                let what = format!("no request begins with the byte {other}");
                answered(Err(io::Error::new(io::ErrorKind::InvalidInput, what)), &mut send).await
            }
        };
        let named = |error: io::Error| crate::tree::at(Path::new(&name), error);
        match done {
            Ok(what) => {
                send.finish()?;
                Ok(format!("{what} {name}"))
            }
            Err(error) => {
                let _ = recv.stop(FAILED.into());
                let _ = send.finish();
                Err(named(error))
            }
        }
    }

    async fn put(
        &self,
        name: &str,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> io::Result<&'static str> {
        let begin = async {
            if self.read_only {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it only gives files"));
            }
            Partial::open(&self.tree.place(name).await?).await
        };
        let partial = answered(begin.await, send).await?;
        if let Err(error) = partial.offer().write(send).await {
            partial.give_up().await;
            return Err(error);
        }
        let received = partial.receive(recv, &Progress::default()).await;
        answered(received, send).await?;
        Ok("took")
    }

    async fn get(
        &self,
        name: &str,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> io::Result<&'static str> {
        let offer = Offer::read(recv).await?;
        let file = async { File::open(self.tree.find(name).await?).await };
        let file = answered(file.await, send).await?;
        let sent = body::send(&file, &offer, send, &Progress::default()).await;
        if sent.is_err() {
            let _ = send.reset(FAILED.into());
        }
        sent?;
        Ok("gave")
    }

    async fn list(&self, name: &str, send: &mut SendStream) -> io::Result<&'static str> {
        let files = answered(self.tree.list(name).await, send).await?;
        let count = u32::try_from(files.len()).map_err(io::Error::other)?;
        send.write_all(&count.to_be_bytes()).await?;
        for file in files {
            protocol::write_text(send, &file.name).await?;
            send.write_all(&file.len.to_be_bytes()).await?;
        }
        Ok("listed")
    }
}

/// Tells the peer whether it went well.
async fn answered<T>(result: io::Result<T>, send: &mut SendStream) -> io::Result<T> {
    protocol::write_answer(send, result.as_ref().err()).await?;
    result
}
