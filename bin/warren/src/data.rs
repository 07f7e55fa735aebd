//! The data directory: held by one server at a time, and the secrets in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rand::Rng;
use rustix::fs::{FlockOperation, flock};
use warren_control::{Identity, LocalKey};
use warren_service::{Secret, file};

/// Shorter administrator's tokens are refused.
const MIN_ADMIN_TOKEN: usize = 32;

/// The data directory, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens and locks the directory, making it if needed.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| {
                format!(
                    "create the data directory {}\nhint: choose another with --data-dir",
                    path.display()
                )
            })?;
        let path = path.canonicalize()?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => bail!(
                "another server uses the data directory {}\nhint: stop it, or choose another directory with --data-dir",
                path.display()
            ),
            Err(error) => Err(error).context("lock the data directory"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The administrator's token for requests over the network, made on first start.
    pub(crate) fn admin_token(&self) -> anyhow::Result<Secret> {
        let path = self.path.join("admin-token");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().len() >= MIN_ADMIN_TOKEN => {
                Ok(Secret::new(text.trim().to_owned()))
            }
            Ok(_) => bail!(
                "{} holds less than {MIN_ADMIN_TOKEN} characters\nhint: remove it, and the next start makes a new one",
                path.display()
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token = hex::encode(rand::rng().random::<[u8; 32]>());
                write_secret(&path, &token)?;
                Ok(Secret::new(token))
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// The key that sandbox tokens are derived from, made on first start.
    pub(crate) fn token_key(&self) -> anyhow::Result<Secret> {
        let lost = "without it the tokens of running sandboxes change";
        kept_key(&self.path.join("secrets.key"), lost)
    }

    /// What seals the values of secrets: the key in the environment, in the file that is
    /// named, or in one of ours that is made on first start.
    pub(crate) fn sealer(&self, file: Option<&Path>) -> anyhow::Result<LocalKey> {
        let lost = "without it the values of secrets are lost";
        let own = self.path.join("values.key");
        let key = match (std::env::var(SECRETS_KEY), file) {
            (Ok(text), _) => Secret::new(text),
            (Err(_), file) => kept_key(file.unwrap_or(&own), lost)?,
        };
        LocalKey::from_hex(&key)
            .with_context(|| format!("{SECRETS_KEY} is no key of 64 hexadecimal digits"))
    }
}

impl DataDir {
    /// What makes workload tokens, with the key of this server.
    pub(crate) fn identity(&self, issuer: String) -> anyhow::Result<Identity> {
        let path = self.path.join("identity.key");
        let key = match fs::read_to_string(&path) {
            Ok(text) => Secret::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Identity::generate()?;
                write_secret(&path, key.expose())?;
                key
            }
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", path.display()));
            }
        };
        Identity::new(issuer, &key).with_context(|| {
            format!(
                "{} can't be used\nhint: restore it from a backup, or remove it: verifiers then \
                 fetch the new public key",
                path.display()
            )
        })
    }
}

/// Holds the key of secrets, where it must not be in a file.
const SECRETS_KEY: &str = "WARREN_SECRETS_KEY";

/// The key in a file, made if there is none.
fn kept_key(path: &Path, lost: &str) -> anyhow::Result<Secret> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let key = text.trim();
            if key.len() != 64 || !key.bytes().all(|b| b.is_ascii_hexdigit()) {
                bail!(
                    "{} does not hold a key of 64 hexadecimal digits\nhint: restore it from a backup; {lost}",
                    path.display()
                );
            }
            Ok(Secret::new(key.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = hex::encode(rand::rng().random::<[u8; 32]>());
            write_secret(path, &key)?;
            Ok(Secret::new(key))
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Writes a secret to a file that only its owner may read, whole or not at all.
pub(crate) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    file::replace(path, format!("{text}\n").as_bytes(), 0o600)
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_key_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("d")).unwrap();
        let key = data.token_key().unwrap();
        assert!(key.matches(data.token_key().unwrap().expose()));
        let mode = fs::metadata(data.path().join("secrets.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(data.path().join("secrets.key"), "short").unwrap();
        assert!(
            data.token_key()
                .unwrap_err()
                .to_string()
                .contains("64 hexadecimal digits")
        );
    }

    #[test]
    fn a_second_server_is_refused_with_the_fix() {
        let dir = tempfile::tempdir().unwrap();
        let _held = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("another server") && error.contains("hint:"),
            "{error}"
        );
    }
}
