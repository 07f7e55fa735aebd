//! Public keys of SSH clients.

use jiff::Timestamp;
use ssh_key::{HashAlg, PublicKey};
use warren_service::Chain;
use warren_store::{SshKeyInsert, SshKeyRecord, StoreError};
use warren_types::{SshKeyId, TeamId};

use crate::{Caller, Control};

/// Keys of a team.
const MAX_KEYS: u32 = 256;
const MAX_NAME: usize = 128;
/// Longest text of a key: RSA of 16,384 bits has some 2,800 characters.
const MAX_TEXT: usize = 16 * 1024;
/// RSA keys below this can be broken.
const MIN_RSA_BITS: u32 = 2048;

/// Why a request about SSH keys was refused.
#[derive(Debug, thiserror::Error)]
pub enum SshKeyError {
    /// Not a public key.
    #[error(
        "validation error: publicKey must be a line of a public key file of OpenSSH, such as `ssh-ed25519 AAAA… name`"
    )]
    Malformed,
    /// A kind that is not safe any more, or not supported.
    #[error(
        "validation error: keys of kind {0} are not accepted; use Ed25519, ECDSA or RSA of 2048 bits or more"
    )]
    Kind(String),
    /// Empty or too long.
    #[error("validation error: name must have 1 to {MAX_NAME} characters")]
    Name,
    /// The team has it.
    #[error("this key was added already")]
    Known,
    /// The team has its fill.
    #[error("you have reached the maximum number of SSH keys ({MAX_KEYS})")]
    TooMany,
    /// Unknown, or another team's.
    #[error("SSH key not found")]
    NotFound,
    /// The database failed.
    #[error("read or write SSH keys")]
    Store(#[from] StoreError),
}

/// A public key that may be added.
#[derive(Debug, PartialEq, Eq)]
struct Accepted {
    public_key: String,
    fingerprint: String,
    comment: String,
}

fn accept(text: &str) -> Result<Accepted, SshKeyError> {
    let text = text.trim();
    if text.len() > MAX_TEXT || text.lines().count() != 1 {
        return Err(SshKeyError::Malformed);
    }
    let key = PublicKey::from_openssh(text).map_err(|_| SshKeyError::Malformed)?;
    let algorithm = key.algorithm();
    let is_accepted = match &algorithm {
        ssh_key::Algorithm::Ed25519 | ssh_key::Algorithm::Ecdsa { .. } => true,
        ssh_key::Algorithm::Rsa { .. } => {
            let bits = key.key_data().rsa().map_or(0, |rsa| rsa.key_size());
            bits >= MIN_RSA_BITS
        }
        _ => false,
    };
    if !is_accepted {
        return Err(SshKeyError::Kind(algorithm.to_string()));
    }
    let mut words = text.split_whitespace();
    let public_key = words.by_ref().take(2).collect::<Vec<_>>().join(" ");
    Ok(Accepted {
        public_key,
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        comment: words.collect::<Vec<_>>().join(" "),
    })
}

impl Control {
    /// Adds a public key, which opens the team's sandboxes from then on. Without a name it
    /// has that of its comment, or else its fingerprint.
    ///
    /// # Errors
    /// [`SshKeyError`].
    pub async fn ssh_key_add(
        &self,
        caller: &Caller,
        public_key: &str,
        name: Option<&str>,
    ) -> Result<SshKeyRecord, SshKeyError> {
        let accepted = accept(public_key)?;
        let name = match name.map(str::trim) {
            Some(name) => name.to_owned(),
            None if accepted.comment.is_empty() => accepted.fingerprint.clone(),
            None => accepted.comment.chars().take(MAX_NAME).collect(),
        };
        if name.is_empty() || name.chars().count() > MAX_NAME || name.contains(char::is_control) {
            return Err(SshKeyError::Name);
        }
        let record = SshKeyRecord {
            id: SshKeyId::random(),
            team_id: caller.team.id,
            name,
            public_key: accepted.public_key,
            fingerprint: accepted.fingerprint,
            created_at: Timestamp::now(),
            last_used_at: None,
        };
        match self.store.ssh_key_insert(&record, MAX_KEYS).await? {
            SshKeyInsert::Added => Ok(record),
            SshKeyInsert::Known => Err(SshKeyError::Known),
            SshKeyInsert::TooMany => Err(SshKeyError::TooMany),
        }
    }

    /// The keys of the caller's team.
    ///
    /// # Errors
    /// [`SshKeyError::Store`].
    pub async fn ssh_key_list(&self, caller: &Caller) -> Result<Vec<SshKeyRecord>, SshKeyError> {
        Ok(self.store.ssh_key_list(caller.team.id).await?)
    }

    /// Removes a key: connections that stand go on, new ones are refused.
    ///
    /// # Errors
    /// [`SshKeyError`].
    pub async fn ssh_key_remove(&self, caller: &Caller, id: SshKeyId) -> Result<(), SshKeyError> {
        if self.store.ssh_key_delete(caller.team.id, id).await? {
            Ok(())
        } else {
            Err(SshKeyError::NotFound)
        }
    }

    /// The teams whose sandboxes the key of a fingerprint opens. `is_proven` once somebody
    /// was let in by it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn ssh_key_teams(
        &self,
        fingerprint: &str,
        is_proven: bool,
    ) -> Result<Vec<TeamId>, StoreError> {
        let teams = self.store.ssh_key_teams(fingerprint).await?;
        if is_proven
            && !teams.is_empty()
            && let Err(error) = self.store.ssh_key_used(fingerprint, Timestamp::now()).await
        {
            // It lets people in all the same.
            tracing::warn!(error = %Chain(&error), "use of an SSH key not noted");
        }
        Ok(teams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn a_line_of_a_key_file_is_taken_with_its_comment() {
        let key = accept(&format!("  {ED25519} me@host with words\n")).unwrap();
        assert_eq!(key.public_key, ED25519);
        assert_eq!(key.comment, "me@host with words");
        assert!(key.fingerprint.starts_with("SHA256:"), "{key:?}");
        assert_eq!(accept(ED25519).unwrap().comment, "");
    }

    #[test]
    fn anything_else_is_refused() {
        let private =
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----";
        let two = format!("{ED25519}\n{ED25519}");
        let long = format!("{ED25519} {}", "x".repeat(MAX_TEXT));
        for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA", private, &two, &long] {
            assert!(matches!(accept(bad), Err(SshKeyError::Malformed)), "{bad}");
        }
    }
}
