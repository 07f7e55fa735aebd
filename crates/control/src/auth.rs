//! Who is calling.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use warren_store::TeamRecord;
use warren_types::{ApiKeyId, TeamId, UserId};

use crate::{AuthError, Control};

/// Start of every API key.
pub(crate) const KEY_PREFIX: &str = "e2b_";
/// Start of every access token.
pub(crate) const TOKEN_PREFIX: &str = "sk_e2b_";
/// Longest value that is decoded; ours have 40 digits.
const MAX_DIGITS: usize = 256;
/// Callers remembered. Beyond it all are forgotten, which costs one query each.
const CACHE: usize = 4096;

/// A team with its limits worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// Its id.
    pub id: TeamId,
    /// What people call it.
    pub name: String,
    /// Namespace of its templates.
    pub slug: String,
    /// Sandboxes it may run at a time.
    pub max_sandboxes: u32,
    /// Longest life of its sandboxes.
    pub max_length: Duration,
}

/// Who is calling, and for which team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The team that the request acts for.
    pub team: Team,
    /// The key that was shown, if it was one.
    pub key: Option<ApiKeyId>,
    /// The person, if a personal token was shown.
    pub user: Option<UserId>,
}

/// Callers by the hash of what they showed, so that a request costs no query.
#[derive(Debug, Default)]
pub(crate) struct KeyCache {
    known: Mutex<HashMap<[u8; 32], Arc<Caller>>>,
    /// Raised by every change, so that a lookup that was under way is not remembered.
    changes: AtomicU64,
}

impl KeyCache {
    fn get(&self, hash: &[u8; 32]) -> Option<Arc<Caller>> {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(hash)
            .cloned()
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn insert(&self, hash: [u8; 32], caller: Arc<Caller>, seen: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if self.changes() != seen {
            return;
        }
        if known.len() >= CACHE {
            known.clear();
        }
        known.insert(hash, caller);
    }

    /// Forgets everybody. Call after keys or teams changed.
    pub(crate) fn clear(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes.fetch_add(1, Ordering::AcqRel);
        known.clear();
    }
}

/// SHA-256 over the decoded digits, or `None` if they are none.
pub(crate) fn hash(digits: &str) -> Option<[u8; 32]> {
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    let bytes = hex::decode(digits).ok()?;
    Some(Sha256::digest(bytes).into())
}

impl Control {
    /// Finds out who shows this API key.
    ///
    /// # Errors
    /// [`AuthError`] if the key is malformed, unknown or deleted, or the database fails.
    pub async fn authenticate_key(&self, key: &str) -> Result<Arc<Caller>, AuthError> {
        let digits = key
            .trim()
            .strip_prefix(KEY_PREFIX)
            .ok_or(AuthError::KeyFormat)?;
        let hash = hash(digits).ok_or(AuthError::KeyFormat)?;
        if let Some(caller) = self.keys.get(&hash) {
            return Ok(caller);
        }
        let seen = self.keys.changes();
        let (key, team) = self
            .store
            .api_key_team(&hex::encode(hash))
            .await?
            .ok_or(AuthError::Key)?;
        let caller = Arc::new(Caller {
            team: self.team(team),
            key: Some(key),
            user: None,
        });
        self.keys.insert(hash, Arc::clone(&caller), seen);
        Ok(caller)
    }

    /// Finds out who shows this access token; the caller acts for their default team.
    ///
    /// # Errors
    /// [`AuthError`] if the token is malformed or unknown, or the database fails.
    pub async fn authenticate_token(&self, token: &str) -> Result<Arc<Caller>, AuthError> {
        let digits = token
            .trim()
            .strip_prefix(TOKEN_PREFIX)
            .ok_or(AuthError::Malformed)?;
        let hash = hash(digits).ok_or(AuthError::Malformed)?;
        let user = self
            .store
            .access_token_user(&hex::encode(hash))
            .await?
            .ok_or(AuthError::AccessToken)?;
        let memberships = self.store.membership_list(user).await?;
        let first = memberships
            .into_iter()
            .next()
            .ok_or(AuthError::AccessToken)?;
        Ok(Arc::new(Caller {
            team: self.team(first.team),
            key: None,
            user: Some(user),
        }))
    }

    /// A caller that acts for this team, without a key: the administrator.
    ///
    /// # Errors
    /// [`AuthError::Store`] when the database fails.
    pub async fn caller_for_team(&self, team: &str) -> Result<Option<Arc<Caller>>, AuthError> {
        let Ok(id) = team.parse() else {
            return Ok(None);
        };
        let record = self.store.team_get(id).await?;
        Ok(record.map(|record| {
            Arc::new(Caller {
                team: self.team(record),
                key: None,
                user: None,
            })
        }))
    }

    pub(crate) fn team(&self, record: TeamRecord) -> Team {
        let limits = &self.config.limits;
        Team {
            id: record.id,
            name: record.name,
            slug: record.slug,
            max_sandboxes: record.max_sandboxes.unwrap_or(limits.max_sandboxes),
            max_length: limits.max_length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn only_hex_digits_are_hashed() {
        assert!(hash("00ff").is_some());
        for bad in ["", "0", "xyz!", "é", &"0".repeat(512)] {
            assert_eq!(hash(bad), None, "{bad}");
        }
    }
}
