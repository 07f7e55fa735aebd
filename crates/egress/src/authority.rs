//! The certificate authority of one sandbox, whose agent installs its certificate. With it
//! the broker answers for hosts in whose requests it sets headers. The key stays outside of
//! the sandbox.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use warren_service::Secret;

const AUTHORITY_YEARS: i32 = 10;
/// Days that a certificate for a host is valid: less than any client's limit.
const LEAF_DAYS: i32 = 90;
/// After this it is made anew.
const LEAF_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Hosts remembered. A wildcard rule has any number of them; beyond it all are forgotten
/// and made again as they are asked for.
const HOSTS: usize = 256;
/// What connections speak above TLS, in the order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why there is no authority or certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A certificate can't be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// What was kept is not what should be there.
    #[error("the kept authority is damaged")]
    Damaged,
    /// The certificate can't be served.
    #[error("serve a certificate")]
    Serve(#[from] rustls::Error),
}

/// An authority in the form in which it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuthorityKeys {
    /// The key in PEM.
    pub key: Secret,
    /// The certificate in PEM, which the sandbox trusts.
    pub certificate: String,
}

impl AuthorityKeys {
    /// Makes a new authority.
    ///
    /// # Errors
    /// [`AuthorityError::Make`]
    pub fn generate() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = authority_params(&key).self_signed(&key)?;
        Ok(Self {
            key: Secret::new(key.serialize_pem()),
            certificate: certificate.pem(),
        })
    }
}

/// An authority at work, with the certificates that it has made.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// One key for all hosts, kept nowhere.
    key: KeyPair,
    hosts: Mutex<HashMap<Box<str>, Host>>,
}

/// How to answer as a host.
struct Host {
    made: Instant,
    config: Arc<ServerConfig>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Takes up a kept authority.
    ///
    /// # Errors
    /// [`AuthorityError::Damaged`]; [`AuthorityError::Make`]
    pub fn open(kept: &AuthorityKeys) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(kept.key.expose()).map_err(|_| AuthorityError::Damaged)?;
        let certificate = CertificateDer::from_pem_slice(kept.certificate.as_bytes())
            .map_err(|_| AuthorityError::Damaged)?;
        Ok(Self {
            issuer: Issuer::new(authority_params(&key), key),
            certificate,
            key: KeyPair::generate()?,
            hosts: Mutex::default(),
        })
    }

    /// How to answer as a host, by its normalised name.
    pub(crate) fn serve_as(&self, name: &str) -> Result<Arc<ServerConfig>, AuthorityError> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = hosts.get(name);
        if let Some(host) = known.filter(|host| host.made.elapsed() < LEAF_LIFE) {
            return Ok(Arc::clone(&host.config));
        }
        if hosts.len() >= HOSTS {
            hosts.clear();
        }
        let config = Arc::new(self.config(name)?);
        let host = Host {
            made: Instant::now(),
            config: Arc::clone(&config),
        };
        hosts.insert(name.into(), host);
        Ok(config)
    }

    fn config(&self, name: &str) -> Result<ServerConfig, AuthorityError> {
        let mut params = CertificateParams::default();
        set_validity(&mut params, LEAF_DAYS);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.distinguished_name = DistinguishedName::new();
        let organization = "Warren";
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        let leaf = params.signed_by(&self.key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        // Sessions are not resumed: that would keep memory for each of them.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// What an authority's certificate says: it follows from the key but for its dates.
fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    set_validity(&mut params, 365 * AUTHORITY_YEARS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Authorities must differ in a trust store.
    let public = key.public_key_raw();
    let mark = hex::encode(
        public
            .get(public.len().saturating_sub(8)..)
            .unwrap_or(public),
    );
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Warren");
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Warren egress of a sandbox ({mark})"),
    );
    params
}

/// From yesterday on, for clocks that are behind, to that many days from now.
fn set_validity(params: &mut CertificateParams, days: i32) {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let at = |days: i32| {
        let day = today.saturating_add(days.days());
        let positive = |part: i8| u8::try_from(part).unwrap_or(1);
        let (month, of_month) = (positive(day.month()), positive(day.day()));
        rcgen::date_time_ymd(i32::from(day.year()), month, of_month)
    };
    (params.not_before, params.not_after) = (at(-1), at(days));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_opens_again_and_remembers_hosts_up_to_a_limit() {
        let kept = AuthorityKeys::generate().unwrap();
        assert!(!format!("{kept:?}").contains("PRIVATE KEY"));
        let authority = Authority::open(&kept).unwrap();
        let one = authority.serve_as("a.test").unwrap();
        assert!(Arc::ptr_eq(&one, &authority.serve_as("a.test").unwrap()));
        for number in 0..HOSTS {
            authority.serve_as(&format!("{number}.test")).unwrap();
        }
        assert!(authority.hosts.lock().unwrap().len() <= HOSTS);

        let damaged = AuthorityKeys {
            key: Secret::new("no key".to_owned()),
            ..kept
        };
        assert!(matches!(
            Authority::open(&damaged),
            Err(AuthorityError::Damaged)
        ));
    }

    #[test]
    fn no_two_authorities_are_alike() {
        let (one, other) = (
            AuthorityKeys::generate().unwrap(),
            AuthorityKeys::generate().unwrap(),
        );
        assert_ne!(one.certificate, other.certificate);
        assert!(!one.key.matches(other.key.expose()));
    }
}
