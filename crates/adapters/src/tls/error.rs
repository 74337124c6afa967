//! What did not match in a handshake.

use std::fmt;
use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// A handshake that failed: with whom, why, and what to do where that is known. The kind of the
/// [`io::Error`] around it is that of the failure: `InvalidData` for all that TLS itself finds.
#[derive(Debug)]
pub struct HandshakeError {
    peer: Option<String>,
    error: io::Error,
}

impl HandshakeError {
    pub(super) fn with(error: io::Error, peer: Option<&str>) -> io::Error {
        let peer = peer.map(str::to_owned);
        io::Error::new(error.kind(), HandshakeError { peer, error })
    }

    /// What rustls found, if it was rustls.
    pub fn tls(&self) -> Option<&Error> {
        self.error.get_ref()?.downcast_ref::<Error>()
    }

    /// What to do about it.
    fn remedy(&self) -> Option<&'static str> {
        Some(match self.tls() {
            Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                "who issued it is none of the trusted roots; add its issuer to them"
            }
            Some(Error::InvalidCertificate(CertificateError::BadSignature)) => {
                "who issued it has the name of a trusted root, but not its key"
            }
            Some(Error::NoApplicationProtocol) => {
                "the two sides have no protocol of ALPN in common"
            }
            Some(Error::AlertReceived(AlertDescription::UnknownCA)) => {
                "the peer does not trust who issued this side's certificate"
            }
            Some(Error::AlertReceived(AlertDescription::BadCertificate)) => {
                "the peer does not accept this side's certificate, such as for its name"
            }
            Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                "the peer knows none of the protocols that ALPN offered"
            }
            Some(Error::InvalidMessage(_)) => "what the peer speaks is not TLS",
            None if self.error.kind() == io::ErrorKind::UnexpectedEof => {
                "the peer closed the connection during the handshake"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TLS handshake")?;
        if let Some(peer) = &self.peer {
            write!(f, " with {peer}")?;
        }
        write!(f, ": {}", self.error)?;
        match self.remedy() {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
