//! A listener whose connections speak TLS, for an HTTP server.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use omniring::time::timeout;
use tokio_rustls::rustls::ServerConfig;

use super::{TlsStream, accept};
use crate::http::Listen;
use crate::stream::{Socket, StreamIo};

/// A listener with TLS on top, for [`Server::serve`](crate::http::Server::serve). With `h2` and `http/1.1`
/// in the configuration's ALPN, clients choose between HTTP/2 and HTTP/1.
///
/// A handshake is made in the connection's task, within 10 seconds.
///
/// ```no_run
/// use omniring::net::TcpListener;
/// use omniring_adapters::tls;
/// # async fn listen() -> std::io::Result<()> {
/// let config = tls::server_config_from_pem("cert.pem", "key.pem", &["h2", "http/1.1"])?;
/// let listener = tls::TlsListener::new(TcpListener::bind("127.0.0.1:8443").await?, config);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct TlsListener<L> {
    listener: L,
    config: Arc<ServerConfig>,
    handshake_time_max: Duration,
}

impl<L> TlsListener<L> {
    /// TLS on the connections of `listener`.
    pub fn new(listener: L, config: Arc<ServerConfig>) -> TlsListener<L> {
        TlsListener { listener, config, handshake_time_max: Duration::from_secs(10) }
    }

    /// How long a handshake may take (default 10 seconds).
    pub fn handshake_time_max(mut self, time: Duration) -> TlsListener<L> {
        self.handshake_time_max = time;
        self
    }

    /// The listener below.
    pub fn listener(&self) -> &L {
        &self.listener
    }
}

impl<S: Socket, L: Listen<Io = StreamIo<S>>> Listen for TlsListener<L> {
    type Accepted = L::Accepted;
    type Io = TlsStream<S>;

    fn start(&self) -> io::Result<()> {
        self.listener.start()
    }

    fn accept(&self) -> impl Future<Output = io::Result<Self::Accepted>> {
        self.listener.accept()
    }

    fn establish(
        &self,
        accepted: Self::Accepted,
    ) -> impl Future<Output = io::Result<Self::Io>> + use<S, L> + 'static {
        let below = self.listener.establish(accepted);
        let (config, time_max) = (self.config.clone(), self.handshake_time_max);
        async move {
            let io = below.await?;
            timeout(time_max, accept(&config, io)).await.unwrap_or_else(|_| {
                let what = format!("the peer did not finish the TLS handshake in {time_max:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, what))
            })
        }
    }
}
