//! Who is calling.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use warren_store::{Actor, Membership, StoreError, TeamRecord};
use warren_types::{AccessTokenId, ApiKeyId, KeyScope, Role, TeamId, TeamState, UserId};

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
    /// Whether it is served.
    pub state: TeamState,
}

/// Who is calling, and for which team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The team that the request acts for.
    pub team: Team,
    /// Who it is, for the audit trail.
    pub actor: Actor,
    /// The key that was shown, if it was one.
    pub key: Option<ApiKeyId>,
    /// The person, if a personal token was shown.
    pub user: Option<UserId>,
    /// What the credential may be used for.
    pub scope: KeyScope,
    /// What the person may do in the team; keys and administrators may do all there is
    /// for them.
    pub role: Role,
    /// When the credential stops working.
    pub expires_at: Option<Timestamp>,
}

impl Caller {
    /// Whether nothing may be changed, and no secret of a sandbox or volume be told.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.scope == KeyScope::Read
    }

    /// Makes sure that the caller may change things.
    ///
    /// # Errors
    /// [`AuthError::ReadOnly`]; [`AuthError::Blocked`] if the team may delete only.
    pub fn require_write(&self, is_deletion: bool) -> Result<(), AuthError> {
        if self.is_read_only() {
            return Err(AuthError::ReadOnly);
        }
        if self.team.state == TeamState::Blocked && !is_deletion {
            return Err(AuthError::Blocked);
        }
        Ok(())
    }

    /// Refuses a credential whose time is up, and teams that are shut out.
    fn admit(self: Arc<Self>) -> Result<Arc<Self>, AuthError> {
        if self.expires_at.is_some_and(|at| at <= Timestamp::now()) {
            return Err(AuthError::Expired);
        }
        if self.team.state == TeamState::Banned {
            return Err(AuthError::Banned);
        }
        Ok(self)
    }
}

/// When keys and tokens were used, until it is written down.
#[derive(Debug, Default)]
struct Uses {
    keys: HashMap<ApiKeyId, Timestamp>,
    tokens: HashMap<AccessTokenId, Timestamp>,
}

/// Callers by the hash of what they showed, so that a request costs no query.
#[derive(Debug, Default)]
pub(crate) struct KeyCache {
    known: Mutex<HashMap<[u8; 32], Arc<Caller>>>,
    /// Raised by every change, so that a lookup that was under way is not remembered.
    changes: AtomicU64,
    uses: Mutex<Uses>,
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

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a key was used, if that is not written down yet.
    pub(crate) fn used(&self, key: ApiKeyId) -> Option<Timestamp> {
        self.uses().keys.get(&key).copied()
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
            let caller = caller.admit()?;
            self.note_use(&caller);
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
            actor: Actor::Key(key.id),
            key: Some(key.id),
            user: None,
            scope: key.scope,
            role: Role::Admin,
            expires_at: key.expires_at,
        });
        self.keys.insert(hash, Arc::clone(&caller), seen);
        let caller = caller.admit()?;
        self.note_use(&caller);
        Ok(caller)
    }

    /// Finds out who shows this access token. The caller acts for the team that is named,
    /// or for their default one.
    ///
    /// # Errors
    /// [`AuthError`] if the token is malformed or unknown, the person is not in that team,
    /// or the database fails.
    pub async fn authenticate_token(
        &self,
        token: &str,
        team: Option<&str>,
    ) -> Result<Arc<Caller>, AuthError> {
        let digits = token
            .trim()
            .strip_prefix(TOKEN_PREFIX)
            .ok_or(AuthError::Malformed)?;
        let hash = hash(digits).ok_or(AuthError::Malformed)?;
        let token = self
            .store
            .access_token_get(&hex::encode(hash))
            .await?
            .ok_or(AuthError::AccessToken)?;
        let memberships = self.store.membership_list(token.user_id).await?;
        let is_meant = |membership: &Membership| {
            team.is_none_or(|team| membership.team.id.to_string() == team)
        };
        let found = memberships.into_iter().find(is_meant);
        let found = found.ok_or(match team {
            Some(_) => AuthError::NoMember,
            None => AuthError::AccessToken,
        })?;
        let caller = Arc::new(Caller {
            team: self.team(found.team),
            actor: Actor::User(token.user_id),
            key: None,
            user: Some(token.user_id),
            scope: token.scope.max(found.role.scope()),
            role: found.role,
            expires_at: token.expires_at,
        });
        let caller = caller.admit()?;
        let mut uses = self.keys.uses();
        uses.tokens.insert(token.id, Timestamp::now());
        drop(uses);
        Ok(caller)
    }

    fn note_use(&self, caller: &Caller) {
        if let Some(key) = caller.key {
            self.keys.uses().keys.insert(key, Timestamp::now());
        }
    }

    /// Writes down when keys and tokens were used.
    pub(crate) async fn write_uses(&self) -> Result<(), StoreError> {
        let uses = std::mem::take(&mut *self.keys.uses());
        let keys: Vec<_> = uses.keys.into_iter().collect();
        let tokens: Vec<_> = uses.tokens.into_iter().collect();
        self.store.last_used(&keys, &tokens).await
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
        Ok(record.map(|record| Arc::new(self.administrator(record))))
    }

    /// The administrator, acting for a team.
    pub(crate) fn administrator(&self, team: TeamRecord) -> Caller {
        Caller {
            team: self.team(team),
            actor: Actor::Admin,
            key: None,
            user: None,
            scope: KeyScope::Full,
            role: Role::Admin,
            expires_at: None,
        }
    }

    pub(crate) fn team(&self, record: TeamRecord) -> Team {
        let limits = &self.config.limits;
        Team {
            id: record.id,
            name: record.name,
            slug: record.slug,
            max_sandboxes: record.max_sandboxes.unwrap_or(limits.max_sandboxes),
            max_length: limits.max_length,
            state: record.state,
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
