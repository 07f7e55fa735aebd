//! API keys of teams. Only hashes are kept.

use jiff::Timestamp;
use serde_json::json;
use sqlx::FromRow;
use warren_types::{ApiKeyId, KeyScope, TeamId, UserId};

use crate::audit::{self, By, NewAudit};
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
    /// What it may be used for.
    pub scope: KeyScope,
    /// The person who made it, if it was one.
    pub created_by: Option<UserId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, as far as that was written down.
    pub last_used_at: Option<Timestamp>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
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
    scope: String,
    created_by: Option<String>,
    created_at: i64,
    last_used_at: Option<i64>,
    expires_at: Option<i64>,
}

impl TryFrom<KeyRow> for ApiKeyRecord {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        let bad = |field| malformed(field, &row.id);
        let moment = |at: Option<i64>, field| at.map(|at| timestamp(at, field, &row.id));
        let created_by = row.created_by.as_deref().map(str::parse).transpose();
        Ok(Self {
            id: row.id.parse().map_err(|_| bad("id"))?,
            team_id: row.team_id.parse().map_err(|_| bad("team_id"))?,
            value_length: u32::try_from(row.value_length).map_err(|_| bad("value_length"))?,
            scope: row.scope.parse().map_err(|_| bad("scope"))?,
            created_by: created_by.map_err(|_| bad("created_by"))?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            last_used_at: moment(row.last_used_at, "last_used_at").transpose()?,
            expires_at: moment(row.expires_at, "expires_at").transpose()?,
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
    pub async fn api_key_insert(&self, by: &By, key: &ApiKeyRecord) -> Result<(), StoreError> {
        const ACTION: &str = "add API key";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let id = key.id.to_string();
        sqlx::query(
            "INSERT INTO api_keys
             (id, team_id, name, hash, value_length, mask_prefix, mask_suffix, scope,
              created_by, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(&id)
        .bind(key.team_id.to_string())
        .bind(&key.name)
        .bind(&key.hash)
        .bind(i64::from(key.value_length))
        .bind(&key.mask_prefix)
        .bind(&key.mask_suffix)
        .bind(key.scope.as_str())
        .bind(key.created_by.map(|user| user.to_string()))
        .bind(micros(key.created_at))
        .bind(key.expires_at.map(micros))
        .execute(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        let entry = NewAudit::done(by, "key.create", &id).of(key.team_id);
        let facts = json!({
            "name": key.name, "scope": key.scope, "expiresAt": key.expires_at,
        });
        audit::write(&mut tx, &entry.with(facts)).await?;
        tx.commit().await.map_err(query(ACTION))
    }

    /// The key of this hash and its team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn api_key_team(
        &self,
        hash: &str,
    ) -> Result<Option<(ApiKeyRecord, TeamRecord)>, StoreError> {
        let action = "look up API key";
        let key: Option<KeyRow> = sqlx::query_as("SELECT * FROM api_keys WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&self.reader)
            .await
            .map_err(query(action))?;
        let Some(key) = key else {
            return Ok(None);
        };
        let team: Option<TeamRow> =
            sqlx::query_as("SELECT * FROM teams WHERE id = $1 AND deleted_at IS NULL")
                .bind(&key.team_id)
                .fetch_optional(&self.reader)
                .await
                .map_err(query(action))?;
        let Some(team) = team else { return Ok(None) };
        Ok(Some((key.try_into()?, team.try_into()?)))
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

    /// Gives a key of a team another name. Returns the key, if there is one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn api_key_rename(
        &self,
        by: &By,
        team: TeamId,
        id: ApiKeyId,
        name: &str,
    ) -> Result<Option<ApiKeyRecord>, StoreError> {
        const ACTION: &str = "rename API key";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let text = id.to_string();
        let row: Option<KeyRow> = sqlx::query_as(
            "UPDATE api_keys SET name = $3 WHERE id = $1 AND team_id = $2 RETURNING *",
        )
        .bind(&text)
        .bind(team.to_string())
        .bind(name)
        .fetch_optional(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        let Some(row) = row else { return Ok(None) };
        let entry = NewAudit::done(by, "key.rename", &text).of(team);
        audit::write(&mut tx, &entry.with(json!({ "name": name }))).await?;
        tx.commit().await.map_err(query(ACTION))?;
        row.try_into().map(Some)
    }

    /// Deletes a key of a team. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn api_key_delete(
        &self,
        by: &By,
        team: TeamId,
        id: ApiKeyId,
    ) -> Result<bool, StoreError> {
        const ACTION: &str = "delete API key";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let text = id.to_string();
        let name: Option<(String,)> =
            sqlx::query_as("DELETE FROM api_keys WHERE id = $1 AND team_id = $2 RETURNING name")
                .bind(&text)
                .bind(team.to_string())
                .fetch_optional(&mut *tx)
                .await
                .map_err(query(ACTION))?;
        let Some((name,)) = name else {
            return Ok(false);
        };
        let entry = NewAudit::done(by, "key.delete", &text).of(team);
        audit::write(&mut tx, &entry.with(json!({ "name": name }))).await?;
        tx.commit().await.map_err(query(ACTION))?;
        Ok(true)
    }

    /// Writes down when keys and tokens were last used.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn last_used(
        &self,
        keys: &[(ApiKeyId, Timestamp)],
        tokens: &[(warren_types::AccessTokenId, Timestamp)],
    ) -> Result<(), StoreError> {
        const ACTION: &str = "write last use of keys";
        if keys.is_empty() && tokens.is_empty() {
            return Ok(());
        }
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        for (id, at) in keys {
            sqlx::query("UPDATE api_keys SET last_used_at = $2 WHERE id = $1")
                .bind(id.to_string())
                .bind(micros(*at))
                .execute(&mut *tx)
                .await
                .map_err(query(ACTION))?;
        }
        for (id, at) in tokens {
            sqlx::query("UPDATE access_tokens SET last_used_at = $2 WHERE id = $1")
                .bind(id.to_string())
                .bind(micros(*at))
                .execute(&mut *tx)
                .await
                .map_err(query(ACTION))?;
        }
        tx.commit().await.map_err(query(ACTION))
    }
}
