//! Secrets of teams. Values are sealed by the caller; the database never sees one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::FromRow;
use warren_types::TeamId;

use crate::error::{malformed, query};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

/// A secret, with its sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRecord {
    /// `sec_` and random characters.
    pub id: String,
    /// The team that it belongs to.
    pub team_id: TeamId,
    /// What the team calls it.
    pub name: String,
    /// Raised by each new value; the first is 1.
    pub version: i64,
    /// The value, readable only with the key.
    pub sealed: Vec<u8>,
    /// The customer's notes.
    pub metadata: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its value was last set.
    pub updated_at: Timestamp,
}

#[derive(FromRow)]
struct SecretRow {
    id: String,
    team_id: String,
    name: String,
    version: i64,
    sealed: Vec<u8>,
    metadata: String,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<SecretRow> for SecretRecord {
    type Error = StoreError;

    fn try_from(row: SecretRow) -> Result<Self, StoreError> {
        let bad = |field| malformed(field, &row.id);
        Ok(Self {
            team_id: row.team_id.parse().map_err(|_| bad("team_id"))?,
            metadata: serde_json::from_str(&row.metadata).map_err(|_| bad("metadata"))?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            updated_at: timestamp(row.updated_at, "updated_at", &row.id)?,
            id: row.id,
            name: row.name,
            version: row.version,
            sealed: row.sealed,
        })
    }
}

fn stored(metadata: &BTreeMap<String, String>) -> String {
    serde_json::to_string(metadata).expect("a map of text is always JSON")
}

impl Store {
    /// Adds a secret. Returns whether its name was free in the team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn secret_insert(&self, secret: &SecretRecord) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO secrets
                 (id, team_id, name, version, sealed, metadata, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (team_id, name) DO NOTHING",
        )
        .bind(&secret.id)
        .bind(secret.team_id.to_string())
        .bind(&secret.name)
        .bind(secret.version)
        .bind(&secret.sealed)
        .bind(stored(&secret.metadata))
        .bind(micros(secret.created_at))
        .bind(micros(secret.updated_at))
        .execute(&self.writer)
        .await
        .map_err(query("add secret"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The secret of a team that has this id or name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn secret_find(
        &self,
        team: TeamId,
        id_or_name: &str,
    ) -> Result<Option<SecretRecord>, StoreError> {
        let row: Option<SecretRow> =
            sqlx::query_as("SELECT * FROM secrets WHERE team_id = $1 AND (id = $2 OR name = $2)")
                .bind(team.to_string())
                .bind(id_or_name)
                .fetch_optional(&self.reader)
                .await
                .map_err(query("read secret"))?;
        row.map(SecretRecord::try_from).transpose()
    }

    /// Secrets of a team, newest first, from after the one that `after` names on.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn secret_page(
        &self,
        team: TeamId,
        after: Option<(Timestamp, &str)>,
        limit: usize,
    ) -> Result<Vec<SecretRecord>, StoreError> {
        let (at, id) = after.map_or((i64::MAX, ""), |(at, id)| (micros(at), id));
        let rows: Vec<SecretRow> = sqlx::query_as(
            "SELECT * FROM secrets WHERE team_id = $1 AND (created_at, id) < ($2, $3)
             ORDER BY created_at DESC, id DESC LIMIT $4",
        )
        .bind(team.to_string())
        .bind(at)
        .bind(id)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.reader)
        .await
        .map_err(query("list secrets"))?;
        rows.into_iter().map(SecretRecord::try_from).collect()
    }

    /// How many secrets a team has.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn secret_count(&self, team: TeamId) -> Result<i64, StoreError> {
        let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM secrets WHERE team_id = $1")
            .bind(team.to_string())
            .fetch_one(&self.reader)
            .await
            .map_err(query("count secrets"))?;
        Ok(count)
    }

    /// Replaces the value and notes of a secret that is still at the version before. Returns
    /// whether it was.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn secret_update(&self, secret: &SecretRecord) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE secrets SET version = $2, sealed = $3, metadata = $4, updated_at = $5
             WHERE id = $1 AND version = $2 - 1",
        )
        .bind(&secret.id)
        .bind(secret.version)
        .bind(&secret.sealed)
        .bind(stored(&secret.metadata))
        .bind(micros(secret.updated_at))
        .execute(&self.writer)
        .await
        .map_err(query("update secret"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Forgets a secret of a team. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn secret_delete(&self, team: TeamId, id_or_name: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM secrets WHERE team_id = $1 AND (id = $2 OR name = $2)")
            .bind(team.to_string())
            .bind(id_or_name)
            .execute(&self.writer)
            .await
            .map_err(query("delete secret"))?;
        Ok(done.rows_affected() > 0)
    }
}
