//! TLS over a [`StreamIo`], with rustls: [`connect`] and [`accept`] make a [`TlsStream`], which has the
//! traits of tokio's I/O and, with the feature `hyper`, of hyper's.
//!
//! The cryptography is `ring`'s. Configurations are rustls's own; [`server_config`] and [`client_config`]
//! make the usual ones. The errors of handshakes say what did not match.
//!
//! ```
//! use omniring::net::UnixStream;
//! use omniring_adapters::{StreamIo, tls};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # let cert = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! # let key = tls::PrivateKeyDer::try_from(cert.signing_key.serialize_der())?;
//! # let certs = vec![cert.cert.der().clone()];
//! let mut roots = tls::RootCertStore::empty();
//! roots.add(certs[0].clone())?;
//! let client = tls::client_config(roots, &[])?;
//! let server = tls::server_config(certs, key, &[])?;
//! # omniring::Runtime::new()?.block_on(async {
//! let (one, other) = UnixStream::pair()?;
//! let server = omniring::spawn(async move {
//!     let mut stream = tls::accept(&server, StreamIo::new(one)).await?;
//!     stream.write_all(b"hello").await?;
//!     stream.shutdown().await
//! });
//! let mut stream = tls::connect(&client, "localhost", StreamIo::new(other)).await?;
//! let mut text = String::new();
//! stream.read_to_string(&mut text).await?;
//! assert_eq!(text, "hello");
//! server.await.unwrap()
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod error;
#[cfg(feature = "hyper")]
mod listener;
mod stream;

use std::io;
use std::sync::Arc;

use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::stream::{Socket, StreamIo};

pub use config::{client_config, server_config, server_config_from_pem};
pub use error::HandshakeError;
#[cfg(feature = "hyper")]
pub use listener::TlsListener;
pub use stream::TlsStream;
pub use tokio_rustls::rustls;
pub use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
pub use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The client's handshake: `name` is who the server has to prove to be, a DNS name or an IP address.
///
/// The error has a [`HandshakeError`] inside, which says what did not match. Dropping the future closes
/// the connection.
pub async fn connect<S: Socket>(
    config: &Arc<ClientConfig>,
    name: &str,
    io: StreamIo<S>,
) -> io::Result<TlsStream<S>> {
    let server = ServerName::try_from(name.to_owned()).map_err(|_| {
        let what = format!("'{name}' is neither a DNS name nor an IP address");
        io::Error::new(io::ErrorKind::InvalidInput, what)
    })?;
    let stream = TlsConnector::from(config.clone()).connect(server, io).await;
    let stream = stream.map_err(|error| HandshakeError::with(error, Some(name)))?;
    Ok(TlsStream::new(stream.into()))
}

/// The server's handshake. Dropping the future closes the connection.
///
/// The error has a [`HandshakeError`] inside.
pub async fn accept<S: Socket>(
    config: &Arc<ServerConfig>,
    io: StreamIo<S>,
) -> io::Result<TlsStream<S>> {
    let stream = TlsAcceptor::from(config.clone()).accept(io).await;
    let stream = stream.map_err(|error| HandshakeError::with(error, None))?;
    Ok(TlsStream::new(stream.into()))
}
