//! A private certificate authority for one domain.
//!
//! Its certificate is constrained to the domain and to loopback (RFC 5280, section
//! 4.2.1.10), so that trusting it gives nobody a say over other names. Certificates of the
//! server are made for the very name that a client asks for: some TLS libraries refuse
//! wildcards directly below a top-level name such as `localhost`.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use warren_service::file;

use crate::certificates::of_own_key;
use crate::is_within;

/// Days a certificate of the server is valid: less than any client's limit.
const LEAF_DAYS: i32 = 90;
/// Hours after which it is made anew.
const LEAF_RENEW_HOURS: i64 = 30 * 24;
const AUTHORITY_YEARS: i32 = 10;
/// Most names remembered; beyond, all are forgotten and made again as they are asked for.
const MAX_NAMES: usize = 1024;

/// Why there is no private authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file can't be read or written.
    #[error("private authority: {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What is in a file is not what should be there.
    #[error(
        "private authority: {path} is damaged\nhint: restore it, or remove its directory and run `warren trust` again"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// A certificate can't be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
}

/// The authority: a key on disk, and the certificates it has made since the start.
pub struct Authority {
    domain: String,
    addresses: Vec<IpAddr>,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// One key for all certificates of the server, never written to disk.
    key: KeyPair,
    made: Mutex<HashMap<String, Made>>,
}

struct Made {
    at: Timestamp,
    key: Arc<CertifiedKey>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority of `domain` in a directory, making it if it is not there.
    /// Clients without a server name get a certificate for `addresses`.
    ///
    /// # Errors
    /// The directory can't be used, or what is in it is damaged.
    pub fn open(dir: &Path, domain: &str, addresses: &[IpAddr]) -> Result<Self, AuthorityError> {
        let dir = dir.join(domain);
        let (key_path, certificate_path) = (dir.join("ca.key"), Self::certificate_path(&dir));
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::File { path, source }
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(file(&dir))?;
        // The key is written first: without a certificate, both are made anew.
        if !certificate_path.exists() {
            let key = KeyPair::generate()?;
            let params = authority_params(domain, addresses, &key)?;
            let certificate = params.self_signed(&key)?;
            file::replace(&key_path, key.serialize_pem().as_bytes(), 0o600)
                .map_err(file(&key_path))?;
            file::replace(&certificate_path, certificate.pem().as_bytes(), 0o644)
                .map_err(file(&certificate_path))?;
        }
        let damaged = |path: &Path| AuthorityError::Damaged {
            path: path.to_owned(),
        };
        let key = fs::read_to_string(&key_path).map_err(file(&key_path))?;
        let key = KeyPair::from_pem(&key).map_err(|_| damaged(&key_path))?;
        let certificate = CertificateDer::from_pem_file(&certificate_path)
            .map_err(|_| damaged(&certificate_path))?;
        let params = authority_params(domain, addresses, &key)?;
        Ok(Self {
            domain: domain.to_owned(),
            addresses: addresses.to_owned(),
            issuer: Issuer::new(params, key),
            certificate,
            key: KeyPair::generate()?,
            made: Mutex::default(),
        })
    }

    /// Where the authority of a domain keeps the certificate to trust.
    pub fn certificate_of(dir: &Path, domain: &str) -> PathBuf {
        Self::certificate_path(&dir.join(domain))
    }

    fn certificate_path(dir: &Path) -> PathBuf {
        dir.join("ca.crt")
    }

    /// The certificate for the name that a client asks for. Of other names than those of
    /// the domain, and of none, the certificate is that of the domain and its addresses.
    pub(crate) fn certified(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let name = name
            .filter(|name| is_within(name, &self.domain))
            .unwrap_or_default();
        let now = Timestamp::now();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(&name) {
            let age = now
                .since(known.at)
                .map_or(0, |age| i64::from(age.get_hours()));
            if (0..LEAF_RENEW_HOURS).contains(&age) {
                return Some(Arc::clone(&known.key));
            }
        }
        match self.make(&name) {
            Ok(key) => {
                if made.len() >= MAX_NAMES {
                    made.clear();
                }
                let key = Arc::new(key);
                made.insert(
                    name,
                    Made {
                        at: now,
                        key: Arc::clone(&key),
                    },
                );
                Some(key)
            }
            Err(error) => {
                tracing::warn!(%error, "can't make a certificate");
                None
            }
        }
    }

    fn make(&self, name: &str) -> Result<CertifiedKey, AuthorityError> {
        let mut params = CertificateParams::default();
        let (from, to) = (days_from_now(-1), days_from_now(LEAF_DAYS));
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let shown = if name.is_empty() { &self.domain } else { name };
        params
            .subject_alt_names
            .push(SanType::DnsName(shown.try_into()?));
        if name.is_empty() {
            let addresses = self.addresses.iter().copied().map(SanType::IpAddress);
            params.subject_alt_names.extend(addresses);
        }
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Warren");
        let leaf = params.signed_by(&self.key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        Ok(of_own_key(chain, &self.key)?)
    }
}

/// What the authority's certificate says; the same each time but for its dates.
fn authority_params(
    domain: &str,
    addresses: &[IpAddr],
    key: &KeyPair,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    let (from, to) = (days_from_now(-1), days_from_now(365 * AUTHORITY_YEARS));
    params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
    params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut permitted = vec![GeneralSubtree::DnsName(domain.to_owned())];
    permitted.extend(addresses.iter().map(|address| {
        GeneralSubtree::IpAddress(match address {
            IpAddr::V4(ip) => CidrSubnet::from_v4_prefix(ip.octets(), 32),
            IpAddr::V6(ip) => CidrSubnet::from_v6_prefix(ip.octets(), 128),
        })
    }));
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: permitted,
        excluded_subtrees: Vec::new(),
    });
    // Servers of one domain on several machines must differ in a trust store.
    let mark: String = key
        .public_key_raw()
        .iter()
        .rev()
        .take(4)
        .map(|b| format!("{b:02x}"))
        .collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Warren");
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Warren authority for {domain} ({mark})"),
    );
    Ok(params)
}

/// The UTC day that many days from now, as year, month and day.
fn days_from_now(days: i32) -> (i32, u8, u8) {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = today.saturating_add(days.days());
    let positive = |part: i8| u8::try_from(part).unwrap_or(1);
    (
        i32::from(day.year()),
        positive(day.month()),
        positive(day.day()),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn an_authority_is_made_once_and_keeps_its_key_to_itself() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path(), "d.localhost", &[LOOPBACK]).unwrap();
        let again = Authority::open(dir.path(), "d.localhost", &[LOOPBACK]).unwrap();
        assert_eq!(first.certificate, again.certificate);
        let other = Authority::open(dir.path(), "other.test", &[LOOPBACK]).unwrap();
        assert_ne!(first.certificate, other.certificate);
        let mode = fs::metadata(dir.path().join("d.localhost/ca.key"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        fs::write(dir.path().join("d.localhost/ca.key"), "no key").unwrap();
        let error = Authority::open(dir.path(), "d.localhost", &[LOOPBACK]).unwrap_err();
        assert!(error.to_string().contains("hint:"), "{error}");
    }

    #[test]
    fn certificates_are_made_per_name_and_remembered_up_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), "d.test", &[LOOPBACK]).unwrap();
        let one = authority.certified(Some("3000-i1.D.test")).unwrap();
        let same = authority.certified(Some("3000-i1.d.test")).unwrap();
        assert!(Arc::ptr_eq(&one, &same));
        let default = authority.certified(None).unwrap();
        assert!(Arc::ptr_eq(
            &default,
            &authority.certified(Some("elsewhere.org")).unwrap()
        ));
        for n in 0..MAX_NAMES {
            authority.certified(Some(&format!("{n}-i.d.test"))).unwrap();
        }
        assert!(authority.made.lock().unwrap().len() <= MAX_NAMES);
    }
}
