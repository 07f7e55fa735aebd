//! Volumes: who owns which.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use warren_types::{TeamId, VolumeId};

use crate::error::{malformed, query};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its id.
    pub id: VolumeId,
    /// The team that it belongs to.
    pub team_id: TeamId,
    /// What the team calls it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A volume mounted in a sandbox, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// Name of the volume.
    pub name: String,
    /// Where it is mounted.
    pub path: String,
    /// Whether it can't be written to there.
    #[serde(default)]
    pub read_only: bool,
}

#[derive(FromRow)]
struct VolumeRow {
    id: String,
    team_id: String,
    name: String,
    created_at: i64,
}

impl TryFrom<VolumeRow> for VolumeRecord {
    type Error = StoreError;

    fn try_from(row: VolumeRow) -> Result<Self, StoreError> {
        let bad = |field| malformed(field, &row.id);
        Ok(Self {
            id: row.id.parse().map_err(|_| bad("id"))?,
            team_id: row.team_id.parse().map_err(|_| bad("team_id"))?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            name: row.name,
        })
    }
}

impl Store {
    /// Notes that there is content of a volume that is on no record: it is to be removed
    /// unless [`Self::volume_insert`] follows.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn volume_removal_add(
        &self,
        id: VolumeId,
        since: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO volume_removals (id, since) VALUES ($1, $2)")
            .bind(id.to_string())
            .bind(micros(since))
            .execute(&self.writer)
            .await
            .map_err(query("note volume to remove"))?;
        Ok(())
    }

    /// Volumes whose content is to be removed since `before` or longer.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn volume_removals(&self, before: Timestamp) -> Result<Vec<VolumeId>, StoreError> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT id FROM volume_removals WHERE since <= $1")
                .bind(micros(before))
                .fetch_all(&self.reader)
                .await
                .map_err(query("list volumes to remove"))?;
        rows.into_iter()
            .map(|(id,)| id.parse().map_err(|_| malformed("id", &id)))
            .collect()
    }

    /// Notes that the content of a volume is removed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn volume_removal_done(&self, id: VolumeId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM volume_removals WHERE id = $1")
            .bind(id.to_string())
            .execute(&self.writer)
            .await
            .map_err(query("note volume removed"))?;
        Ok(())
    }

    /// Adds a volume, whose content then is not to be removed. Returns whether its name was
    /// free in the team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn volume_insert(&self, volume: &VolumeRecord) -> Result<bool, StoreError> {
        const INSERT: &str = "add volume";
        let mut tx = self.writer.begin().await.map_err(query(INSERT))?;
        let done = sqlx::query(
            "INSERT INTO volumes (id, team_id, name, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (team_id, name) DO NOTHING",
        )
        .bind(volume.id.to_string())
        .bind(volume.team_id.to_string())
        .bind(&volume.name)
        .bind(micros(volume.created_at))
        .execute(&mut *tx)
        .await
        .map_err(query(INSERT))?;
        let is_added = done.rows_affected() > 0;
        if is_added {
            sqlx::query("DELETE FROM volume_removals WHERE id = $1")
                .bind(volume.id.to_string())
                .execute(&mut *tx)
                .await
                .map_err(query(INSERT))?;
        }
        tx.commit().await.map_err(query(INSERT))?;
        Ok(is_added)
    }

    /// A volume, whoever owns it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn volume_get(&self, id: VolumeId) -> Result<Option<VolumeRecord>, StoreError> {
        let row: Option<VolumeRow> = sqlx::query_as("SELECT * FROM volumes WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.reader)
            .await
            .map_err(query("read volume"))?;
        row.map(VolumeRecord::try_from).transpose()
    }

    /// The volumes of a team, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn volume_list(&self, team: TeamId) -> Result<Vec<VolumeRecord>, StoreError> {
        let rows: Vec<VolumeRow> =
            sqlx::query_as("SELECT * FROM volumes WHERE team_id = $1 ORDER BY created_at, id")
                .bind(team.to_string())
                .fetch_all(&self.reader)
                .await
                .map_err(query("list volumes"))?;
        rows.into_iter().map(VolumeRecord::try_from).collect()
    }

    /// Ids of the volumes of all teams.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn volume_ids(&self) -> Result<Vec<VolumeId>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT id FROM volumes")
            .fetch_all(&self.reader)
            .await
            .map_err(query("list all volumes"))?;
        rows.into_iter()
            .map(|(id,)| id.parse().map_err(|_| malformed("id", &id)))
            .collect()
    }

    /// Forgets a volume of the team, whose content then is to be removed. Returns whether
    /// there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn volume_delete(
        &self,
        team: TeamId,
        id: VolumeId,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        const DELETE: &str = "delete volume";
        let mut tx = self.writer.begin().await.map_err(query(DELETE))?;
        let done = sqlx::query("DELETE FROM volumes WHERE id = $1 AND team_id = $2")
            .bind(id.to_string())
            .bind(team.to_string())
            .execute(&mut *tx)
            .await
            .map_err(query(DELETE))?;
        let is_gone = done.rows_affected() > 0;
        if is_gone {
            sqlx::query(
                "INSERT INTO volume_removals (id, since) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            )
            .bind(id.to_string())
            .bind(micros(at))
            .execute(&mut *tx)
            .await
            .map_err(query(DELETE))?;
        }
        tx.commit().await.map_err(query(DELETE))?;
        Ok(is_gone)
    }
}
