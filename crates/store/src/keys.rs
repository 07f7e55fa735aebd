//! API keys and access tokens. Only hashes are kept.

use jiff::Timestamp;
use sqlx::FromRow;
use warren_types::{ApiKeyId, TeamId, UserId};

use crate::error::{malformed, query};
use crate::teams::TeamRow;
use crate::time::{micros, timestamp};
use crate::{Store, StoreError, TeamRecord};

/// An API key without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// Its id in routes.
    pub id: ApiKeyId,
    /// The team that it acts for.
    pub team_id: TeamId,
    /// What its owner calls it.
    pub name: String,
    /// SHA-256 of the decoded value, in lower-case hex.
    pub hash: String,
    /// Characters of the value after the prefix.
    pub value_length: u32,
    /// First characters of the value, for people to tell keys apart.
    pub mask_prefix: String,
    /// Last characters of it.
    pub mask_suffix: String,
    /// When it was made.
    pub created_at: Timestamp,
}

#[derive(FromRow)]
struct KeyRow {
    id: String,
    team_id: String,
    name: String,
    hash: String,
    value_length: i64,
    mask_prefix: String,
    mask_suffix: String,
    created_at: i64,
}

impl TryFrom<KeyRow> for ApiKeyRecord {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.parse().map_err(|_| malformed("id", &row.id))?,
            team_id: row
                .team_id
                .parse()
                .map_err(|_| malformed("team_id", &row.id))?,
            value_length: u32::try_from(row.value_length)
                .map_err(|_| malformed("value_length", &row.id))?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            name: row.name,
            hash: row.hash,
            mask_prefix: row.mask_prefix,
            mask_suffix: row.mask_suffix,
        })
    }
}

impl Store {
    /// Adds an API key.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails or the hash is known already.
    pub async fn api_key_insert(&self, key: &ApiKeyRecord) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO api_keys
             (id, team_id, name, hash, value_length, mask_prefix, mask_suffix, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(key.id.to_string())
        .bind(key.team_id.to_string())
        .bind(&key.name)
        .bind(&key.hash)
        .bind(i64::from(key.value_length))
        .bind(&key.mask_prefix)
        .bind(&key.mask_suffix)
        .bind(micros(key.created_at))
        .execute(&self.writer)
        .await
        .map_err(query("add API key"))?;
        Ok(())
    }

    /// The key of this hash and its team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn api_key_team(
        &self,
        hash: &str,
    ) -> Result<Option<(ApiKeyId, TeamRecord)>, StoreError> {
        let action = "look up API key";
        let key: Option<(String, String)> =
            sqlx::query_as("SELECT id, team_id FROM api_keys WHERE hash = $1")
                .bind(hash)
                .fetch_optional(&self.reader)
                .await
                .map_err(query(action))?;
        let Some((key, team)) = key else {
            return Ok(None);
        };
        let team: Option<TeamRow> = sqlx::query_as("SELECT * FROM teams WHERE id = $1")
            .bind(team)
            .fetch_optional(&self.reader)
            .await
            .map_err(query(action))?;
        let Some(team) = team else { return Ok(None) };
        let id = key.parse().map_err(|_| malformed("id", &key))?;
        Ok(Some((id, team.try_into()?)))
    }

    /// The keys of a team, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn api_key_list(&self, team: TeamId) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let rows: Vec<KeyRow> =
            sqlx::query_as("SELECT * FROM api_keys WHERE team_id = $1 ORDER BY created_at, id")
                .bind(team.to_string())
                .fetch_all(&self.reader)
                .await
                .map_err(query("list API keys"))?;
        rows.into_iter().map(ApiKeyRecord::try_from).collect()
    }

    /// Deletes a key of a team. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn api_key_delete(&self, team: TeamId, id: ApiKeyId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM api_keys WHERE id = $1 AND team_id = $2")
            .bind(id.to_string())
            .bind(team.to_string())
            .execute(&self.writer)
            .await
            .map_err(query("delete API key"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Adds an access token of a person, by its hash.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn access_token_insert(
        &self,
        user: UserId,
        name: &str,
        hash: &str,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO access_tokens (id, user_id, name, hash, created_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(ApiKeyId::random().to_string())
        .bind(user.to_string())
        .bind(name)
        .bind(hash)
        .bind(micros(at))
        .execute(&self.writer)
        .await
        .map_err(query("add access token"))?;
        Ok(())
    }

    /// The person whose access token has this hash.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn access_token_user(&self, hash: &str) -> Result<Option<UserId>, StoreError> {
        let row: Option<(String,)> =
            sqlx::query_as("SELECT user_id FROM access_tokens WHERE hash = $1")
                .bind(hash)
                .fetch_optional(&self.reader)
                .await
                .map_err(query("look up access token"))?;
        row.map(|(id,)| id.parse().map_err(|_| malformed("user_id", &id)))
            .transpose()
    }
}
