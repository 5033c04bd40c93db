//! Certificate and key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::ServerConfig;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::crypto::ring;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::pki_types::pem::PemObject;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::ServerError;

/// Files in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, then those that vouch for it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What they make.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    /// The certificates as read, for SCRAM's channel binding.
    pub(super) pem: Vec<u8>,
}

/// Clients may begin with TLS at once, and say so by this name.
const ALPN: &[u8] = b"postgresql";

pub(super) fn load(files: &TlsFiles) -> Result<Tls, ServerError> {
    let failed = |path: &Path, reason: String| ServerError::Tls { path: path.to_owned(), reason };
    let pem = std::fs::read(&files.cert).map_err(|e| failed(&files.cert, e.to_string()))?;
    let certs: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|e| failed(&files.cert, format!("not a certificate in PEM: {e}")))?;
    if certs.is_empty() {
        return Err(failed(&files.cert, "it holds no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| failed(&files.key, format!("not a private key in PEM: {e}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&files.cert, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .map_err(|e| failed(&files.key, format!("it is not the key of the certificate: {e}")))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), pem })
}
