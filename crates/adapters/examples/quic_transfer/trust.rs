//! Who the server is: certificates, and their fingerprints.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use omniring_adapters::tls::{self, PrivateKeyDer, RootCertStore};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::protocol;

/// The SHA-256 of a certificate in DER form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(cert: &CertificateDer<'_>) -> Fingerprint {
        Fingerprint(Sha256::digest(cert).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Fingerprint, &'static str> {
        let what = "a fingerprint is 'sha256:' and 64 hexadecimal digits";
        let digits = text.strip_prefix("sha256:").ok_or(what)?.chars();
        let digits: Option<Vec<u32>> = digits.map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or(what)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (pair[0] * 16 + pair[1]) as u8;
        }
        Ok(Fingerprint(bytes))
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server with the certificate in these files, or with one that it makes and signs itself.
pub fn server_config(
    files: Option<(&Path, &Path)>,
) -> Result<(quinn::ServerConfig, Fingerprint), Box<dyn Error>> {
    let (config, fingerprint) = match files {
        Some((cert, key)) => {
            let config = tls::server_config_from_pem(cert, key, &[protocol::NAME])?;
            let first = CertificateDer::from_pem_file(cert).map_err(|error| error.to_string())?;
            (config, Fingerprint::of(&first))
        }
        None => {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
            let cert = made.cert.der().clone();
            let fingerprint = Fingerprint::of(&cert);
            (tls::server_config(vec![cert], key, &[protocol::NAME])?, fingerprint)
        }
    };
    let config = QuicServerConfig::try_from(config)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(protocol::IDLE_TIME_MAX.try_into()?));
    config.transport_config(Arc::new(transport));
    Ok((config, fingerprint))
}

/// A client that trusts who issued these certificates.
pub fn client_of_roots(path: &Path) -> Result<quinn::ClientConfig, Box<dyn Error>> {
    let named = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(path).map_err(|error| named(&error))? {
        roots.add(cert.map_err(|error| named(&error))?).map_err(|error| named(&error))?;
    }
    if roots.is_empty() {
        return Err(named(&"no certificates in PEM form").into());
    }
    let config = tls::client_config(roots, &[protocol::NAME])?;
    Ok(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?)))
}

/// What a server has shown.
pub type Shown = Arc<OnceLock<Fingerprint>>;

/// A client that trusts this one certificate, whatever it says, and what it was shown.
pub fn client_of_fingerprint(
    wanted: Fingerprint,
) -> Result<(quinn::ClientConfig, Shown), Box<dyn Error>> {
    let provider = Arc::new(ring::default_provider());
    let shown = Shown::default();
    let pinned = Pinned { wanted, shown: shown.clone(), provider: provider.clone() };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol::NAME.into()];
    Ok((quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?)), shown))
}

/// Accepts the certificate that has this fingerprint, from who has its key.
#[derive(Debug)]
struct Pinned {
    wanted: Fingerprint,
    /// Of the first certificate that was shown.
    shown: Shown,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = *self.shown.get_or_init(|| Fingerprint::of(cert));
        match Fingerprint::of(cert) == self.wanted && shown == self.wanted {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has no TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
