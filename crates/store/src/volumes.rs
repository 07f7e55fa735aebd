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
    /// Adds a volume. Returns whether its name was free in the team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn volume_insert(&self, volume: &VolumeRecord) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO volumes (id, team_id, name, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (team_id, name) DO NOTHING",
        )
        .bind(volume.id.to_string())
        .bind(volume.team_id.to_string())
        .bind(&volume.name)
        .bind(micros(volume.created_at))
        .execute(&self.writer)
        .await
        .map_err(query("add volume"))?;
        Ok(done.rows_affected() > 0)
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

    /// Forgets a volume of the team. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn volume_delete(&self, team: TeamId, id: VolumeId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM volumes WHERE id = $1 AND team_id = $2")
            .bind(id.to_string())
            .bind(team.to_string())
            .execute(&self.writer)
            .await
            .map_err(query("delete volume"))?;
        Ok(done.rows_affected() > 0)
    }
}
