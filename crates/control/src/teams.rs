//! Teams and their keys.

use jiff::Timestamp;
use rand::RngCore;
use warren_service::Secret;
use warren_store::{ApiKeyRecord, StoreError, TeamRecord};
use warren_types::{ApiKeyId, TeamId};

use crate::auth::{KEY_PREFIX, TOKEN_PREFIX, hash};
use crate::{AuthError, Caller, Control, Team};

/// Slug of the team that a fresh server has.
const DEFAULT_TEAM: &str = "default";
/// Name of the keys that `GET /teams` makes.
const LOGIN_KEY: &str = "CLI login/configure";
/// Such keys kept for a team: each login makes one, and the oldest give way.
const LOGIN_KEYS: usize = 50;
const KEY_BYTES: usize = 20;

/// A key that was just made.
#[derive(Debug, Clone)]
pub struct CreatedKey {
    /// What is kept of it.
    pub record: ApiKeyRecord,
    /// The key itself, shown once.
    pub clear: Secret,
}

/// A team as `GET /teams` shows it.
#[derive(Debug, Clone)]
pub struct TeamWithKey {
    /// The team.
    pub team: Team,
    /// A fresh key of it.
    pub key: Secret,
    /// Whether it is meant when none is named.
    pub is_default: bool,
}

/// Fresh random hex digits.
pub(crate) fn digits() -> String {
    let mut bytes = [0; KEY_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

pub(crate) fn hash_of(digits: &str) -> String {
    hash(digits).map(hex::encode).expect("fresh digits are hex")
}

impl Control {
    /// Makes sure that there is a team, and a key if it has none. Returns the key in clear
    /// if one was made: it can't be shown again.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn bootstrap(&self) -> Result<Option<CreatedKey>, StoreError> {
        let team = self.default_team().await?;
        if !self.store.api_key_list(team.id).await?.is_empty() {
            return Ok(None);
        }
        self.key_create(team.id, "default").await.map(Some)
    }

    /// The team that a fresh server has; made if absent.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn default_team(&self) -> Result<Team, StoreError> {
        self.team_create(DEFAULT_TEAM, DEFAULT_TEAM).await
    }

    /// The team of this slug; made if absent.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_create(&self, name: &str, slug: &str) -> Result<Team, StoreError> {
        if let Some(known) = self.store.team_by_slug(slug).await? {
            return Ok(self.team(known));
        }
        let record = TeamRecord {
            id: TeamId::random(),
            name: name.to_owned(),
            slug: slug.to_owned(),
            max_sandboxes: None,
            created_at: Timestamp::now(),
        };
        self.store.team_insert(&record).await?;
        // Another process may have been faster; its team counts.
        let kept = self.store.team_by_slug(slug).await?.unwrap_or(record);
        Ok(self.team(kept))
    }

    /// Sets how many sandboxes a team may run at a time; `None` for the server's default.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_set_max_sandboxes(
        &self,
        team: TeamId,
        max: Option<u32>,
    ) -> Result<(), StoreError> {
        self.store.team_set_max_sandboxes(team, max).await?;
        self.keys.clear();
        Ok(())
    }

    /// Makes an API key.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn key_create(&self, team: TeamId, name: &str) -> Result<CreatedKey, StoreError> {
        let digits = digits();
        let record = ApiKeyRecord {
            id: ApiKeyId::random(),
            team_id: team,
            name: name.to_owned(),
            hash: hash_of(&digits),
            value_length: u32::try_from(digits.len()).unwrap_or(u32::MAX),
            mask_prefix: digits.chars().take(2).collect(),
            mask_suffix: digits.chars().skip(digits.len() - 4).collect(),
            created_at: Timestamp::now(),
        };
        self.store.api_key_insert(&record).await?;
        Ok(CreatedKey {
            record,
            clear: Secret::new(format!("{KEY_PREFIX}{digits}")),
        })
    }

    /// Deletes an API key of a team, which stops working at once. Returns whether there
    /// was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn key_delete(&self, team: TeamId, id: ApiKeyId) -> Result<bool, StoreError> {
        let deleted = self.store.api_key_delete(team, id).await?;
        self.keys.clear();
        Ok(deleted)
    }

    /// The keys of a team, without their values.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn key_list(&self, team: TeamId) -> Result<Vec<ApiKeyRecord>, StoreError> {
        self.store.api_key_list(team).await
    }

    /// Makes an access token for a person, who is added to the team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn access_token_create(
        &self,
        email: &str,
        team: TeamId,
        name: &str,
    ) -> Result<Secret, StoreError> {
        let now = Timestamp::now();
        let user = self.store.user_join(email, team, now).await?;
        let digits = digits();
        self.store
            .access_token_insert(user, name, &hash_of(&digits), now)
            .await?;
        Ok(Secret::new(format!("{TOKEN_PREFIX}{digits}")))
    }

    /// The teams of the person who calls, each with a fresh key.
    ///
    /// # Errors
    /// [`AuthError`] if the caller is no person, or the database fails.
    pub async fn teams(&self, caller: &Caller) -> Result<Vec<TeamWithKey>, AuthError> {
        let user = caller.user.ok_or(AuthError::Missing)?;
        let mut teams = Vec::new();
        for membership in self.store.membership_list(user).await? {
            let team = self.team(membership.team);
            self.expire_login_keys(team.id).await?;
            let key = self.key_create(team.id, LOGIN_KEY).await?.clear;
            teams.push(TeamWithKey {
                team,
                key,
                is_default: membership.is_default,
            });
        }
        Ok(teams)
    }

    async fn expire_login_keys(&self, team: TeamId) -> Result<(), StoreError> {
        let mut keys = self.store.api_key_list(team).await?;
        keys.retain(|key| key.name == LOGIN_KEY);
        let excess = (keys.len() + 1).saturating_sub(LOGIN_KEYS);
        for key in keys.iter().take(excess) {
            self.key_delete(team, key.id).await?;
        }
        Ok(())
    }
}
