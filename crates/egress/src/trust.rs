//! Whom the broker trusts when it speaks TLS itself: the host's certificates, and those that
//! the operator adds.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of certificates can't be read.
    #[error("read certificates from {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate or the TLS library can't be used.
    #[error("prepare TLS to hosts")]
    Tls(#[from] rustls::Error),
}

/// The TLS client. Clones share everything. Sessions are not resumed: what one sandbox did
/// must not be seen in the next one's connections.
#[derive(Debug, Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    http1: Arc<ClientConfig>,
    both: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts what the host trusts, and the certificates in a file.
    ///
    /// # Errors
    /// [`TrustError`]
    pub fn of_host(extra: Option<&Path>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "certificates of the host can't be read");
        }
        roots.add_parsable_certificates(native.certs);
        if let Some(path) = extra {
            let read = |source| TrustError::Read {
                path: path.to_owned(),
                source,
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
                roots.add(certificate.map_err(read)?)?;
            }
        }
        if roots.is_empty() {
            tracing::warn!("the host trusts no certificate: header rules work for HTTP only");
        }
        Self::new(roots)
    }

    pub(crate) fn new(roots: RootCertStore) -> Result<Self, TrustError> {
        let roots = Arc::new(roots);
        Ok(Self {
            http1: config(&roots, &[b"http/1.1"])?,
            both: config(&roots, &[b"h2", b"http/1.1"])?,
            roots,
        })
    }

    /// Speaks TLS with a host over a connection to it, and HTTP/2 above that if both want to.
    pub(crate) async fn connect<S>(
        &self,
        name: &str,
        stream: S,
        with_http2: bool,
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = if with_http2 { &self.both } else { &self.http1 };
        handshake(config, name, stream).await
    }

    /// Speaks TLS with a proxy, which may be trusted by certificates of its own.
    pub(crate) async fn connect_proxy<S>(
        &self,
        name: &str,
        own: Option<&str>,
        stream: S,
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let roots = match own {
            Some(pem) => Arc::new(own_roots(pem).map_err(io::Error::other)?),
            None => Arc::clone(&self.roots),
        };
        let config = config(&roots, &[]).map_err(io::Error::other)?;
        handshake(&config, name, stream).await
    }
}

async fn handshake<S>(config: &Arc<ClientConfig>, name: &str, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
}

fn config(
    roots: &Arc<RootCertStore>,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The certificates in a PEM text.
fn own_roots(pem: &str) -> Result<RootCertStore, OwnRootsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err(OwnRootsError::Empty);
    }
    Ok(roots)
}

/// Whether a PEM text holds certificates that can be trusted.
#[must_use]
pub fn is_trustable(pem: &str) -> bool {
    own_roots(pem).is_ok()
}

#[derive(Debug, thiserror::Error)]
enum OwnRootsError {
    #[error("the proxy's CA certificate can't be read")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the proxy's CA certificate can't be used")]
    Certificate(#[from] rustls::Error),
    #[error("the proxy's CA certificate is empty")]
    Empty,
}
