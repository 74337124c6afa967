//! The usual configurations.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore, ServerConfig};

/// A server that has this certificate, followed by those that lead to a root, and the key of the first.
/// `protocols` are those that ALPN may choose, the preferred first, such as `["h2", "http/1.1"]`; none,
/// and ALPN is not used.
pub fn server_config(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    protocols: &[&str],
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certs, key)?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client that trusts these roots. `protocols` are those that it offers by ALPN, the preferred first.
pub fn client_config(roots: RootCertStore, protocols: &[&str]) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// As [`server_config`], with certificates and key from files in PEM form. It reads the files before it
/// returns. The error names the file and what is wrong with it.
pub fn server_config_from_pem(
    certs: impl AsRef<Path>,
    key: impl AsRef<Path>,
    protocols: &[&str],
) -> io::Result<Arc<ServerConfig>> {
    let (certs_path, key_path) = (certs.as_ref(), key.as_ref());
    let certs = CertificateDer::pem_file_iter(certs_path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|certs| match certs.is_empty() {
            true => Err(pem::Error::NoItemsFound),
            false => Ok(certs),
        })
        .map_err(|error| in_file(certs_path, "certificates", error))?;
    let key = PrivateKeyDer::from_pem_file(key_path)
        .map_err(|error| in_file(key_path, "private key", error))?;
    server_config(certs, key, protocols).map_err(|error| {
        let (certs, key) = (certs_path.display(), key_path.display());
        let what = match &error {
            Error::InconsistentKeys(_) => {
                format!("the key in {key} is not that of the first certificate in {certs}")
            }
            error => format!("{certs} and {key}: {error}"),
        };
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

fn in_file(path: &Path, wanted: &str, error: pem::Error) -> io::Error {
    let path = path.display();
    match error {
        pem::Error::Io(error) => io::Error::new(error.kind(), format!("{path}: {error}")),
        pem::Error::NoItemsFound => {
            io::Error::new(io::ErrorKind::InvalidData, format!("{path}: no {wanted} in PEM form"))
        }
        error => io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {error:?}")),
    }
}
