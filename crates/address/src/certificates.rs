//! What the TLS listener shows to a client.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::Authority;

/// The protocol name of TLS-ALPN-01 challenges (RFC 8737).
const ACME_TLS: &[u8] = b"acme-tls/1";

/// The certificates of the server. Cheap to clone; what is set is shown to the next client.
#[derive(Debug, Clone)]
pub struct Certificates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    authority: Option<Authority>,
    fixed: RwLock<Option<Arc<CertifiedKey>>>,
    /// Answers to TLS-ALPN-01 challenges, by name.
    challenges: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Certificates {
    /// Certificates of a private authority.
    pub fn of_authority(authority: Authority) -> Self {
        Self::new(Some(authority), None)
    }

    /// A certificate from elsewhere, which [`Certificates::set`] replaces. Without one,
    /// handshakes fail until there is one.
    pub fn fixed(certificate: Option<CertifiedKey>) -> Self {
        Self::new(None, certificate)
    }

    fn new(authority: Option<Authority>, fixed: Option<CertifiedKey>) -> Self {
        Self(Arc::new(Inner {
            authority,
            fixed: RwLock::new(fixed.map(Arc::new)),
            challenges: RwLock::default(),
        }))
    }

    /// Replaces the certificate.
    pub fn set(&self, certificate: CertifiedKey) {
        let mut fixed = self.0.fixed.write().unwrap_or_else(PoisonError::into_inner);
        *fixed = Some(Arc::new(certificate));
    }

    /// Shows `certificate` to whoever validates that name, until it is taken back.
    pub(crate) fn set_challenge(&self, name: &str, certificate: Option<CertifiedKey>) {
        let mut challenges = self
            .0
            .challenges
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match certificate {
            Some(certificate) => challenges.insert(name.to_owned(), Arc::new(certificate)),
            None => challenges.remove(name),
        };
    }

    /// The settings of a TLS listener that shows these certificates and speaks HTTP/2 and
    /// HTTP/1.1.
    pub fn server_config(&self) -> ServerConfig {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&self.0) as _;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ACME_TLS.to_vec()];
        config
    }
}

/// A chain that was made here, with its key.
pub(crate) fn of_own_key(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
) -> Result<CertifiedKey, rcgen::Error> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = any_supported_type(&der).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    Ok(CertifiedKey::new(chain, signer))
}

impl ResolvesServerCert for Inner {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        if hello
            .alpn()
            .is_some_and(|mut protocols| protocols.any(|p| p == ACME_TLS))
        {
            let challenges = self
                .challenges
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            return challenges.get(name?).cloned();
        }
        if let Some(authority) = &self.authority {
            return authority.certified(name);
        }
        self.fixed
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
