//! API keys of teams and access tokens of people: made, listed without their values,
//! renamed and deleted.

use jiff::Timestamp;
use rand::RngCore;
use warren_service::Secret;
use warren_store::{AccessTokenRecord, ApiKeyRecord, By, StoreError, UserRecord};
use warren_types::{AccessTokenId, ApiKeyId, KeyScope, Role, TeamId, UserId};

use crate::auth::{KEY_PREFIX, TOKEN_PREFIX, hash};
use crate::teams::is_name;
use crate::{AuthError, Caller, Control, Team};

/// Name of the keys that `GET /teams` makes.
const LOGIN_KEY: &str = "CLI login/configure";
/// Such keys kept for a team: each login makes one, and the oldest give way.
const LOGIN_KEYS: usize = 50;
/// Keys of a team, and tokens of a person.
const MAX_KEYS: usize = 1000;
const KEY_BYTES: usize = 20;
const MAX_NAME: usize = 128;

/// A key or token to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What its owner calls it.
    pub name: String,
    /// What it may be used for.
    pub scope: KeyScope,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// The person who makes it, if it is one.
    pub created_by: Option<UserId>,
}

impl NewKey {
    /// One that may be used for everything and does not expire.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            scope: KeyScope::Full,
            expires_at: None,
            created_by: None,
        }
    }

    fn check(&self) -> Result<(), KeysError> {
        if !is_name(&self.name, MAX_NAME) {
            return Err(KeysError::Name);
        }
        if self.expires_at.is_some_and(|at| at <= Timestamp::now()) {
            return Err(KeysError::Expiry);
        }
        Ok(())
    }
}

/// A key that was just made.
#[derive(Debug, Clone)]
pub struct CreatedKey {
    /// What is kept of it, and who made it.
    pub view: KeyView,
    /// The key itself, shown once.
    pub clear: Secret,
}

/// A token that was just made.
#[derive(Debug, Clone)]
pub struct CreatedToken {
    /// What is kept of it.
    pub record: AccessTokenRecord,
    /// The token itself, shown once.
    pub clear: Secret,
}

/// A key without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    /// What is kept of it; the time of its last use is that of a moment ago.
    pub record: ApiKeyRecord,
    /// The person who made it, if it was one who still exists.
    pub created_by: Option<UserRecord>,
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

/// Why a request about keys was refused.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Unknown, or another team's.
    #[error("API key not found")]
    NotFound,
    /// Unknown, or another person's.
    #[error("Access token not found")]
    NoToken,
    /// Empty or too long.
    #[error("validation error: name must have 1 to {MAX_NAME} characters")]
    Name,
    /// In the past.
    #[error("validation error: expiresAt must be in the future")]
    Expiry,
    /// A viewer's keys may read only.
    #[error("your role in this team allows keys that only read")]
    Scope,
    /// Not the caller's own, and they may only manage their own.
    #[error("your role in this team allows you to manage only keys that you made")]
    Foreign,
    /// Enough is enough.
    #[error("there are {MAX_KEYS} already; delete some first")]
    TooMany,
    /// The database failed.
    #[error("read or write keys")]
    Store(#[from] StoreError),
}

/// Fresh random hex digits.
fn digits() -> String {
    let mut bytes = [0; KEY_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

fn hash_of(digits: &str) -> String {
    hash(digits).map(hex::encode).expect("fresh digits are hex")
}

/// The ends of a value, for people to tell it from others.
fn ends(digits: &str) -> (String, String) {
    (
        digits[..2].to_owned(),
        digits[digits.len() - 4..].to_owned(),
    )
}

impl Control {
    /// Makes an API key of a team.
    ///
    /// # Errors
    /// [`KeysError`]
    pub async fn key_create(
        &self,
        by: &By,
        team: TeamId,
        new: NewKey,
    ) -> Result<CreatedKey, KeysError> {
        new.check()?;
        if self.store.api_key_list(team).await?.len() >= MAX_KEYS {
            return Err(KeysError::TooMany);
        }
        let digits = digits();
        let (mask_prefix, mask_suffix) = ends(&digits);
        let record = ApiKeyRecord {
            id: ApiKeyId::random(),
            team_id: team,
            name: new.name,
            hash: hash_of(&digits),
            value_length: u32::try_from(digits.len()).unwrap_or(u32::MAX),
            mask_prefix,
            mask_suffix,
            scope: new.scope,
            created_by: new.created_by,
            created_at: Timestamp::now(),
            last_used_at: None,
            expires_at: new.expires_at,
        };
        self.store.api_key_insert(by, &record).await?;
        Ok(CreatedKey {
            view: self.key_view(record).await?,
            clear: Secret::new(format!("{KEY_PREFIX}{digits}")),
        })
    }

    /// Makes an API key of the caller's team, within what the caller's role allows. Without
    /// a scope it is the widest of these.
    ///
    /// # Errors
    /// [`KeysError`]
    pub async fn key_create_own(
        &self,
        caller: &Caller,
        by: &By,
        name: &str,
        scope: Option<KeyScope>,
        expires_at: Option<Timestamp>,
    ) -> Result<CreatedKey, KeysError> {
        let widest = caller.role.scope();
        let scope = scope.unwrap_or(widest);
        if scope < widest {
            return Err(KeysError::Scope);
        }
        let new = NewKey {
            name: name.to_owned(),
            scope,
            expires_at,
            created_by: caller.user,
        };
        self.key_create(by, caller.team.id, new).await
    }

    /// Makes sure that the caller may change this key of their team.
    async fn may_manage(&self, caller: &Caller, id: ApiKeyId) -> Result<(), KeysError> {
        let keys = self.store.api_key_list(caller.team.id).await?;
        let key = keys.into_iter().find(|key| key.id == id);
        let key = key.ok_or(KeysError::NotFound)?;
        let is_own = caller.user.is_some() && key.created_by == caller.user;
        if caller.role == Role::Admin || is_own {
            Ok(())
        } else {
            Err(KeysError::Foreign)
        }
    }

    /// Renames a key of the caller's team, if the caller may.
    ///
    /// # Errors
    /// [`KeysError`]
    pub async fn key_rename_own(
        &self,
        caller: &Caller,
        by: &By,
        id: ApiKeyId,
        name: &str,
    ) -> Result<KeyView, KeysError> {
        self.may_manage(caller, id).await?;
        self.key_rename(by, caller.team.id, id, name).await
    }

    /// Deletes a key of the caller's team, if the caller may.
    ///
    /// # Errors
    /// [`KeysError`]
    pub async fn key_delete_own(
        &self,
        caller: &Caller,
        by: &By,
        id: ApiKeyId,
    ) -> Result<(), KeysError> {
        self.may_manage(caller, id).await?;
        self.key_delete(by, caller.team.id, id).await
    }

    /// Gives a key of a team another name.
    ///
    /// # Errors
    /// [`KeysError`]
    pub async fn key_rename(
        &self,
        by: &By,
        team: TeamId,
        id: ApiKeyId,
        name: &str,
    ) -> Result<KeyView, KeysError> {
        if !is_name(name, MAX_NAME) {
            return Err(KeysError::Name);
        }
        let renamed = self.store.api_key_rename(by, team, id, name).await?;
        self.key_view(renamed.ok_or(KeysError::NotFound)?).await
    }

    /// Deletes an API key of a team, which stops working at once.
    ///
    /// # Errors
    /// [`KeysError`]
    pub async fn key_delete(&self, by: &By, team: TeamId, id: ApiKeyId) -> Result<(), KeysError> {
        let deleted = self.store.api_key_delete(by, team, id).await;
        self.keys.clear();
        if deleted? {
            Ok(())
        } else {
            Err(KeysError::NotFound)
        }
    }

    /// The keys of a team, oldest first, without their values.
    ///
    /// # Errors
    /// [`KeysError::Store`]
    pub async fn key_list(&self, team: TeamId) -> Result<Vec<KeyView>, KeysError> {
        let mut views = Vec::new();
        for record in self.store.api_key_list(team).await? {
            views.push(self.key_view(record).await?);
        }
        Ok(views)
    }

    async fn key_view(&self, mut record: ApiKeyRecord) -> Result<KeyView, KeysError> {
        record.last_used_at = self.keys.used(record.id).or(record.last_used_at);
        let created_by = match record.created_by {
            Some(user) => self.store.user_get(user).await?,
            None => None,
        };
        Ok(KeyView { record, created_by })
    }

    /// Makes an access token of a person.
    ///
    /// # Errors
    /// [`KeysError`]
    pub async fn token_create(
        &self,
        by: &By,
        user: UserId,
        new: NewKey,
    ) -> Result<CreatedToken, KeysError> {
        new.check()?;
        if self.store.access_token_list(user).await?.len() >= MAX_KEYS {
            return Err(KeysError::TooMany);
        }
        let digits = digits();
        let (mask_prefix, mask_suffix) = ends(&digits);
        let record = AccessTokenRecord {
            id: AccessTokenId::random(),
            user_id: user,
            name: new.name,
            hash: hash_of(&digits),
            mask_prefix,
            mask_suffix,
            scope: new.scope,
            created_at: Timestamp::now(),
            last_used_at: None,
            expires_at: new.expires_at,
        };
        self.store.access_token_insert(by, &record).await?;
        Ok(CreatedToken {
            record,
            clear: Secret::new(format!("{TOKEN_PREFIX}{digits}")),
        })
    }

    /// The access tokens of a person, oldest first, without their values.
    ///
    /// # Errors
    /// [`KeysError::Store`]
    pub async fn token_list(&self, user: UserId) -> Result<Vec<AccessTokenRecord>, KeysError> {
        Ok(self.store.access_token_list(user).await?)
    }

    /// Deletes an access token of a person, which stops working at once.
    ///
    /// # Errors
    /// [`KeysError`]
    pub async fn token_delete(
        &self,
        by: &By,
        user: UserId,
        id: AccessTokenId,
    ) -> Result<(), KeysError> {
        if self.store.access_token_delete(by, user, id).await? {
            Ok(())
        } else {
            Err(KeysError::NoToken)
        }
    }

    /// The teams of the person who calls, each with a fresh key. A credential that may only
    /// read gets keys that only read.
    ///
    /// # Errors
    /// [`AuthError`] if the caller is no person, or the database fails.
    pub async fn teams(&self, caller: &Caller, by: &By) -> Result<Vec<TeamWithKey>, AuthError> {
        let user = caller.user.ok_or(AuthError::Missing)?;
        let mut teams = Vec::new();
        for membership in self.store.membership_list(user).await? {
            let team = self.team(membership.team);
            self.expire_login_keys(by, team.id).await?;
            let token_scope = if caller.is_read_only() && caller.role.scope() == KeyScope::Full {
                KeyScope::Read
            } else {
                KeyScope::Full
            };
            let new = NewKey {
                scope: membership.role.scope().max(token_scope),
                created_by: Some(user),
                expires_at: caller.expires_at,
                ..NewKey::named(LOGIN_KEY)
            };
            let key = match self.key_create(by, team.id, new).await {
                Ok(made) => made.clear,
                Err(KeysError::Store(error)) => return Err(error.into()),
                Err(KeysError::Expiry) => return Err(AuthError::Expired),
                Err(_) => return Err(AuthError::TooManyKeys),
            };
            teams.push(TeamWithKey {
                team,
                key,
                is_default: membership.is_default,
            });
        }
        Ok(teams)
    }

    async fn expire_login_keys(&self, by: &By, team: TeamId) -> Result<(), StoreError> {
        let mut keys = self.store.api_key_list(team).await?;
        keys.retain(|key| key.name == LOGIN_KEY);
        let excess = (keys.len() + 1).saturating_sub(LOGIN_KEYS);
        for key in keys.iter().take(excess) {
            self.store.api_key_delete(by, team, key.id).await?;
        }
        self.keys.clear();
        Ok(())
    }
}
