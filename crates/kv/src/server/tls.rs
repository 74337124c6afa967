//! TLS for clients, with rustls.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use omniring::buf::IoBuf;
use omniring::net::TcpStream;
use omniring_adapters::StreamIo;
use omniring_adapters::tls::rustls::crypto::ring::default_provider;
use omniring_adapters::tls::rustls::pki_types::pem::{self, PemObject};
use omniring_adapters::tls::rustls::server::WebPkiClientVerifier;
use omniring_adapters::tls::rustls::{Error, RootCertStore, ServerConfig};
use omniring_adapters::tls::{self, CertificateDer, PrivateKeyDer, TlsStream};
use tokio::io::{AsyncBufRead, AsyncWrite};

use crate::config::{AuthClients, Config};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long the end may take to be told to the client.
const END: Duration = Duration::from_secs(1);

/// Makes connections speak TLS.
#[derive(Clone)]
pub struct Acceptor(Arc<ServerConfig>);

/// An acceptor as the settings want it. It reads their files. The error names the setting or the file, and what is
/// wrong with it.
pub fn acceptor(config: &Config) -> Result<Acceptor, String> {
    let path = |name: &str, path: &Path| match path.as_os_str().is_empty() {
        true => Err(format!("tls-port needs {name}, which is not set")),
        false => Ok(path.to_owned()),
    };
    let certs_path = path("tls-cert-file", &config.tls_cert_file)?;
    let key_path = path("tls-key-file", &config.tls_key_file)?;
    let certs = certificates(&certs_path)?;
    let key = PrivateKeyDer::from_pem_file(&key_path)
        .map_err(|error| in_file(&key_path, "private key", error))?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if config.tls_auth_clients == AuthClients::No {
        builder.with_no_client_auth()
    } else {
        if config.tls_ca_cert_file.as_os_str().is_empty() {
            let why = "tls-port needs tls-ca-cert-file, against which clients' certificates are checked, \
                       unless tls-auth-clients is no";
            return Err(why.to_owned());
        }
        let path = &config.tls_ca_cert_file;
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut roots = RootCertStore::empty();
        for cert in certificates(path)? {
            roots.add(cert).map_err(|error| wrong(&error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = match config.tls_auth_clients {
            AuthClients::Optional => verifier.allow_unauthenticated(),
            AuthClients::No | AuthClients::Yes => verifier,
        };
        builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(&error))?)
    };
    let (certs_shown, key_shown) = (certs_path.display(), key_path.display());
    match builder.with_single_cert(certs, key) {
        Ok(config) => Ok(Acceptor(Arc::new(config))),
        Err(Error::InconsistentKeys(_)) => Err(format!(
            "the key in {key_shown} is not that of the first certificate in {certs_shown}"
        )),
        Err(error) => Err(format!("{certs_shown} and {key_shown}: {error}")),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certs =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certs = certs.and_then(|certs| match certs.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(certs),
    });
    certs.map_err(|error| in_file(path, "certificate", error))
}

fn in_file(path: &Path, wanted: &str, error: pem::Error) -> String {
    let path = path.display();
    match error {
        pem::Error::Io(error) => format!("{path}: {error}"),
        pem::Error::NoItemsFound => format!("{path}: no {wanted} in PEM form"),
        error => format!("{path}: {error}"),
    }
}

impl Acceptor {
    /// Carries out the handshake, for a bounded time.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        let handshake = tls::accept(&self.0, StreamIo::new(tcp.clone()));
        let tls = omniring::time::timeout(HANDSHAKE, handshake).await??;
        Ok(Stream { tls: Rc::new(RefCell::new(tls)), tcp })
    }
}

/// A connection that speaks TLS. One task receives while another sends. Clones are the same connection.
#[derive(Clone)]
pub struct Stream {
    tls: Rc<RefCell<TlsStream<TcpStream>>>,
    tcp: TcpStream,
}

impl Stream {
    /// Receives bytes, none at the end.
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let mut tls = self.tls.borrow_mut();
        let mut tls = Pin::new(&mut *tls);
        let bytes = ready!(tls.as_mut().poll_fill_buf(cx))?.to_vec();
        tls.consume(bytes.len());
        Poll::Ready(Ok(bytes))
    }

    /// Sends all bytes.
    pub async fn send_all<B: IoBuf>(&self, buf: B) -> (io::Result<()>, B) {
        let mut sent = 0;
        let result = poll_fn(|cx| {
            let mut tls = self.tls.borrow_mut();
            let mut tls = Pin::new(&mut *tls);
            while let rest @ [_, ..] = &buf.as_bytes()[sent..] {
                match ready!(tls.as_mut().poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => sent += count,
                }
            }
            tls.poll_flush(cx)
        })
        .await;
        (result, buf)
    }

    /// Tells the client, in TLS, that nothing more comes, as far as it takes that in time.
    pub async fn end(&self) {
        let end = poll_fn(|cx| Pin::new(&mut *self.tls.borrow_mut()).poll_shutdown(cx));
        // It may have gone already.
        let _ = omniring::time::timeout(END, end).await;
    }

    /// Ends the connection below.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.tcp.shutdown(std::net::Shutdown::Both).await
    }
}
