//! Certificates in files of the operator, reloaded when they change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};
use warren_service::Chain;

use crate::Certificates;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(5);

/// Why files give no certificate.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file can't be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should, in PEM.
    #[error(
        "{path} holds no {what} in PEM\nhint: give the whole chain with --tls-cert and its key with --tls-key"
    )]
    Nothing {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The key is of a kind that is not supported.
    #[error("the key in {path} can't sign\nhint: use an RSA, ECDSA (P-256, P-384) or Ed25519 key")]
    Key {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// They are not a pair.
    #[error("the certificate in {certificate} is not for the key in {key}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// Where a chain and its key are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The chain, the server's own certificate first, in PEM.
    pub certificate: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
}

/// Changes whenever a file is written or replaced.
type Stamp = Vec<Option<(SystemTime, u64)>>;

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// They can't be read, or are no chain and its key.
    pub fn load(&self) -> Result<CertifiedKey, FilesError> {
        certified(&read(&self.certificate)?, &read(&self.key)?, self)
    }

    /// Loads them again whenever they change. What can't be used is told in the log, and
    /// what was shown before stays. Never returns.
    pub async fn watch(self, certificates: Certificates) {
        self.watch_every(EVERY, certificates).await;
    }

    async fn watch_every(self, every: Duration, certificates: Certificates) {
        let mut seen = self.stamp();
        loop {
            tokio::time::sleep(every).await;
            let now = self.stamp();
            if now == seen {
                continue;
            }
            match self.load() {
                Ok(certificate) => {
                    certificates.set(certificate);
                    info!(path = %self.certificate.display(), "took up the changed certificate");
                    seen = now;
                }
                // Perhaps only one of the two is written yet.
                Err(error) => warn!(error = %Chain(&error), "keeping the certificate"),
            }
        }
    }

    fn stamp(&self) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        [&self.certificate, &self.key]
            .map(|path| {
                let data = fs::metadata(path).ok()?;
                Some((data.modified().ok()?, data.ino()))
            })
            .to_vec()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FilesError> {
    fs::read(path).map_err(|source| FilesError::Read {
        path: path.to_owned(),
        source,
    })
}

/// A chain and its key from PEM; `files` says where they are from.
pub(crate) fn certified(
    chain: &[u8],
    key: &[u8],
    files: &Files,
) -> Result<CertifiedKey, FilesError> {
    let nothing = |path: &Path, what| FilesError::Nothing {
        path: path.to_owned(),
        what,
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| nothing(&files.certificate, "certificate"))?;
    if chain.is_empty() {
        return Err(nothing(&files.certificate, "certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| nothing(&files.key, "private key"))?;
    let key = any_supported_type(&key).map_err(|source| FilesError::Key {
        path: files.key.clone(),
        source,
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(FilesError::Pair {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
            })
        }
        _ => Ok(certified),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["d.test".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_is_no_pair_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            certificate: dir.path().join("c.pem"),
            key: dir.path().join("k.pem"),
        };
        assert!(matches!(files.load(), Err(FilesError::Read { .. })));
        let ((chain, key), (_, other)) = (pair(), pair());
        fs::write(&files.certificate, &chain).unwrap();
        fs::write(&files.key, &key).unwrap();
        files.load().unwrap();
        fs::write(&files.key, other).unwrap();
        assert!(matches!(files.load(), Err(FilesError::Pair { .. })));
        fs::write(&files.key, "nothing").unwrap();
        assert!(matches!(
            files.load(),
            Err(FilesError::Nothing {
                what: "private key",
                ..
            })
        ));
        fs::write(&files.certificate, &key).unwrap();
        assert!(matches!(
            files.load(),
            Err(FilesError::Nothing {
                what: "certificate",
                ..
            })
        ));
    }

    #[tokio::test]
    async fn changed_files_are_taken_up_and_broken_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            certificate: dir.path().join("c.pem"),
            key: dir.path().join("k.pem"),
        };
        let put = |(chain, key): (String, String)| {
            fs::write(&files.certificate, chain).unwrap();
            fs::write(&files.key, key).unwrap();
        };
        put(pair());
        let certificates = Certificates::fixed(Some(files.load().unwrap()));
        let shown = || format!("{certificates:?}");
        let first = shown();
        let every = Duration::from_millis(5);
        let tasks = warren_service::Tasks::new();
        let watching = tasks.spawn(files.clone().watch_every(every, certificates.clone()));
        fs::remove_file(&files.key).unwrap();
        tokio::time::sleep(every * 10).await;
        assert_eq!(shown(), first);
        put(pair());
        while shown() == first {
            tokio::time::sleep(every).await;
        }
        watching.abort();
    }
}
