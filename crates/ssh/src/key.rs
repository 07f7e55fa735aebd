//! The key that the server proves its identity with.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{HashAlg, PrivateKey};
use warren_service::file;

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file can't be read or written.
    #[error("keep the SSH host key in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{} holds no SSH host key\nhint: restore it from a backup, or remove it to have a new one made, which clients will warn of",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: russh::keys::ssh_key::Error,
    },
}

/// An Ed25519 key pair.
#[derive(Clone)]
pub struct HostKey(pub(crate) PrivateKey);

impl HostKey {
    /// Reads the key from a file that only its owner may read; makes it if there is none.
    ///
    /// # Errors
    /// [`HostKeyError`]; a file with anything else in it is left alone.
    pub fn keep(path: &Path) -> Result<Self, HostKeyError> {
        let failed = |source| HostKeyError::File {
            path: path.to_owned(),
            source,
        };
        let malformed = |source| HostKeyError::Malformed {
            path: path.to_owned(),
            source,
        };
        match fs::read_to_string(path) {
            Ok(text) => return PrivateKey::from_openssh(text).map(Self).map_err(malformed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let pair = Ed25519Keypair::from_seed(&rand::random());
        let key = PrivateKey::new(KeypairData::Ed25519(pair), "warren").map_err(malformed)?;
        let text = key.to_openssh(LineEnding::LF).map_err(malformed)?;
        file::replace(path, text.as_bytes(), 0o600).map_err(failed)?;
        Ok(Self(key))
    }

    /// The public half, as clients have it in their files: kind and key.
    #[must_use]
    pub fn public(&self) -> String {
        let public = self.0.public_key();
        let text = public.to_openssh().unwrap_or_default();
        text.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// `SHA256:` and the digest of the public half.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.public_key().fingerprint(HashAlg::Sha256).to_string()
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostKey").field(&self.fingerprint()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host");
        let made = HostKey::keep(&path).unwrap();
        assert!(
            made.public().starts_with("ssh-ed25519 AAAA"),
            "{}",
            made.public()
        );
        assert_eq!(HostKey::keep(&path).unwrap().public(), made.public());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn another_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host");
        fs::write(&path, "mine").unwrap();
        assert!(HostKey::keep(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
