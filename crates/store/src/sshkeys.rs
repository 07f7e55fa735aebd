//! Public keys of SSH clients.

use jiff::Timestamp;
use sqlx::FromRow;
use warren_types::{SshKeyId, TeamId};

use crate::error::{malformed, query};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

/// A public key of a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshKeyRecord {
    /// Its id in routes.
    pub id: SshKeyId,
    /// The team whose sandboxes it opens.
    pub team_id: TeamId,
    /// What its owner calls it.
    pub name: String,
    /// Kind and key, as in OpenSSH's files.
    pub public_key: String,
    /// `SHA256:` and the digest in base64.
    pub fingerprint: String,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it last let somebody in.
    pub last_used_at: Option<Timestamp>,
}

/// What became of a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SshKeyInsert {
    /// It was added.
    Added,
    /// The team has it already.
    Known,
    /// The team has as many as it may.
    TooMany,
}

#[derive(FromRow)]
struct SshKeyRow {
    id: String,
    team_id: String,
    name: String,
    public_key: String,
    fingerprint: String,
    created_at: i64,
    last_used_at: Option<i64>,
}

impl TryFrom<SshKeyRow> for SshKeyRecord {
    type Error = StoreError;

    fn try_from(row: SshKeyRow) -> Result<Self, StoreError> {
        let bad = |field| malformed(field, &row.id);
        let last_used_at = row
            .last_used_at
            .map(|at| timestamp(at, "last_used_at", &row.id))
            .transpose()?;
        Ok(Self {
            id: row.id.parse().map_err(|_| bad("id"))?,
            team_id: row.team_id.parse().map_err(|_| bad("team_id"))?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            last_used_at,
            name: row.name,
            public_key: row.public_key,
            fingerprint: row.fingerprint,
        })
    }
}

impl Store {
    /// Adds a key, if the team has fewer than `max`.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn ssh_key_insert(
        &self,
        key: &SshKeyRecord,
        max: u32,
    ) -> Result<SshKeyInsert, StoreError> {
        let action = "add SSH key";
        let mut tx = self.writer.begin().await.map_err(query(action))?;
        let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM ssh_keys WHERE team_id = $1")
            .bind(key.team_id.to_string())
            .fetch_one(&mut *tx)
            .await
            .map_err(query(action))?;
        if count >= i64::from(max) {
            return Ok(SshKeyInsert::TooMany);
        }
        let done = sqlx::query(
            "INSERT INTO ssh_keys (id, team_id, name, public_key, fingerprint, created_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (team_id, fingerprint) DO NOTHING",
        )
        .bind(key.id.to_string())
        .bind(key.team_id.to_string())
        .bind(&key.name)
        .bind(&key.public_key)
        .bind(&key.fingerprint)
        .bind(micros(key.created_at))
        .execute(&mut *tx)
        .await
        .map_err(query(action))?;
        tx.commit().await.map_err(query(action))?;
        Ok(match done.rows_affected() {
            0 => SshKeyInsert::Known,
            _ => SshKeyInsert::Added,
        })
    }

    /// The keys of a team, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn ssh_key_list(&self, team: TeamId) -> Result<Vec<SshKeyRecord>, StoreError> {
        let rows: Vec<SshKeyRow> =
            sqlx::query_as("SELECT * FROM ssh_keys WHERE team_id = $1 ORDER BY created_at, id")
                .bind(team.to_string())
                .fetch_all(&self.reader)
                .await
                .map_err(query("list SSH keys"))?;
        rows.into_iter().map(SshKeyRecord::try_from).collect()
    }

    /// The teams that have the key of this fingerprint.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn ssh_key_teams(&self, fingerprint: &str) -> Result<Vec<TeamId>, StoreError> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT team_id FROM ssh_keys WHERE fingerprint = $1 ORDER BY team_id")
                .bind(fingerprint)
                .fetch_all(&self.reader)
                .await
                .map_err(query("look up SSH key"))?;
        rows.into_iter()
            .map(|(id,)| id.parse().map_err(|_| malformed("team_id", fingerprint)))
            .collect()
    }

    /// Writes down that a key let somebody in.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn ssh_key_used(&self, fingerprint: &str, at: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE ssh_keys SET last_used_at = $2 WHERE fingerprint = $1")
            .bind(fingerprint)
            .bind(micros(at))
            .execute(&self.writer)
            .await
            .map_err(query("note use of SSH key"))?;
        Ok(())
    }

    /// Removes a key of a team. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn ssh_key_delete(&self, team: TeamId, id: SshKeyId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM ssh_keys WHERE id = $1 AND team_id = $2")
            .bind(id.to_string())
            .bind(team.to_string())
            .execute(&self.writer)
            .await
            .map_err(query("remove SSH key"))?;
        Ok(done.rows_affected() > 0)
    }
}
