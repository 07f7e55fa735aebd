//! Teams.

use jiff::Timestamp;
use serde_json::json;
use sqlx::FromRow;
use warren_types::{TeamId, TeamState};

use crate::audit::{self, By, NewAudit};
use crate::error::{malformed, query};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

/// A team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamRecord {
    /// Its id.
    pub id: TeamId,
    /// What people call it.
    pub name: String,
    /// Namespace of its templates.
    pub slug: String,
    /// Sandboxes it may run at a time, where it differs from the server's default.
    pub max_sandboxes: Option<u32>,
    /// Whether it is served.
    pub state: TeamState,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A change of a team; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TeamChange {
    /// What people call it.
    pub name: Option<String>,
    /// Sandboxes it may run at a time; `Some(None)` for the server's default.
    pub max_sandboxes: Option<Option<u32>>,
    /// Whether it is served.
    pub state: Option<TeamState>,
}

/// What a team still has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TeamHoldings {
    /// Sandboxes that have not ended.
    pub sandboxes: u64,
    /// Templates, snapshots included.
    pub templates: u64,
    /// Volumes.
    pub volumes: u64,
}

#[derive(FromRow)]
pub(crate) struct TeamRow {
    id: String,
    name: String,
    slug: String,
    max_sandboxes: Option<i64>,
    state: String,
    created_at: i64,
}

impl TryFrom<TeamRow> for TeamRecord {
    type Error = StoreError;

    fn try_from(row: TeamRow) -> Result<Self, StoreError> {
        let max_sandboxes = match row.max_sandboxes {
            None => None,
            Some(max) => Some(u32::try_from(max).map_err(|_| malformed("max_sandboxes", &row.id))?),
        };
        Ok(Self {
            id: row.id.parse().map_err(|_| malformed("id", &row.id))?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            state: row.state.parse().map_err(|_| malformed("state", &row.id))?,
            name: row.name,
            slug: row.slug,
            max_sandboxes,
        })
    }
}

impl Store {
    /// Adds a team. Returns whether its slug was free.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_insert(&self, by: &By, team: &TeamRecord) -> Result<bool, StoreError> {
        const ACTION: &str = "add team";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let done = sqlx::query(
            "INSERT INTO teams (id, name, slug, max_sandboxes, state, created_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (slug) DO NOTHING",
        )
        .bind(team.id.to_string())
        .bind(&team.name)
        .bind(&team.slug)
        .bind(team.max_sandboxes.map(i64::from))
        .bind(team.state.as_str())
        .bind(micros(team.created_at))
        .execute(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let id = team.id.to_string();
        let entry = NewAudit::done(by, "team.create", &id).of(team.id);
        let facts = json!({ "name": team.name, "slug": team.slug });
        audit::write(&mut tx, &entry.with(facts)).await?;
        tx.commit().await.map_err(query(ACTION))?;
        Ok(true)
    }

    /// The team of this id.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_get(&self, id: TeamId) -> Result<Option<TeamRecord>, StoreError> {
        let row: Option<TeamRow> =
            sqlx::query_as("SELECT * FROM teams WHERE id = $1 AND deleted_at IS NULL")
                .bind(id.to_string())
                .fetch_optional(&self.reader)
                .await
                .map_err(query("read team"))?;
        row.map(TeamRecord::try_from).transpose()
    }

    /// The team of this slug.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_by_slug(&self, slug: &str) -> Result<Option<TeamRecord>, StoreError> {
        let row: Option<TeamRow> =
            sqlx::query_as("SELECT * FROM teams WHERE slug = $1 AND deleted_at IS NULL")
                .bind(slug)
                .fetch_optional(&self.reader)
                .await
                .map_err(query("read team"))?;
        row.map(TeamRecord::try_from).transpose()
    }

    /// All teams, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_list(&self) -> Result<Vec<TeamRecord>, StoreError> {
        let rows: Vec<TeamRow> =
            sqlx::query_as("SELECT * FROM teams WHERE deleted_at IS NULL ORDER BY created_at, id")
                .fetch_all(&self.reader)
                .await
                .map_err(query("list teams"))?;
        rows.into_iter().map(TeamRecord::try_from).collect()
    }

    /// Changes a team. Returns whether there is one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_update(
        &self,
        by: &By,
        id: TeamId,
        change: &TeamChange,
    ) -> Result<bool, StoreError> {
        const ACTION: &str = "change team";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let text = id.to_string();
        let done = sqlx::query(
            "UPDATE teams SET name = COALESCE($2, name), state = COALESCE($3, state),
                    max_sandboxes = CASE WHEN $4 THEN $5 ELSE max_sandboxes END
             WHERE id = $1 AND deleted_at IS NULL",
        )
        .bind(&text)
        .bind(&change.name)
        .bind(change.state.map(TeamState::as_str))
        .bind(change.max_sandboxes.is_some())
        .bind(change.max_sandboxes.flatten().map(i64::from))
        .execute(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let mut facts = json!({});
        if let Some(name) = &change.name {
            facts["name"] = json!(name);
        }
        if let Some(max) = change.max_sandboxes {
            facts["maxSandboxes"] = json!(max);
        }
        if let Some(state) = change.state {
            facts["state"] = json!(state);
        }
        let entry = NewAudit::done(by, "team.update", &text).of(id);
        audit::write(&mut tx, &entry.with(facts)).await?;
        tx.commit().await.map_err(query(ACTION))?;
        Ok(true)
    }

    /// What a team still has.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_holdings(&self, id: TeamId) -> Result<TeamHoldings, StoreError> {
        let (sandboxes, templates, volumes): (i64, i64, i64) = sqlx::query_as(
            "SELECT
               (SELECT COUNT(*) FROM sandboxes WHERE team_id = $1 AND ended_at IS NULL),
               (SELECT COUNT(*) FROM templates WHERE team_id = $1 AND deleted_at IS NULL),
               (SELECT COUNT(*) FROM volumes WHERE team_id = $1)",
        )
        .bind(id.to_string())
        .fetch_one(&self.reader)
        .await
        .map_err(query("read what a team has"))?;
        Ok(TeamHoldings {
            sandboxes: sandboxes.unsigned_abs(),
            templates: templates.unsigned_abs(),
            volumes: volumes.unsigned_abs(),
        })
    }

    /// Deletes a team that has nothing left, with its keys, members and webhooks, and the
    /// person of this address, who stood for it. Its slug is free at once. Returns whether
    /// it was there and had nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_delete(
        &self,
        by: &By,
        id: TeamId,
        stand_in: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        const ACTION: &str = "delete team";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let text = id.to_string();
        // The row stays, because history names it; its slug must not keep a new team out.
        let slug: Option<(String,)> = sqlx::query_as(
            "UPDATE teams SET deleted_at = $2, slug = 'deleted/' || id
             WHERE id = $1 AND deleted_at IS NULL
               AND NOT EXISTS (SELECT 1 FROM sandboxes
                               WHERE team_id = $1 AND ended_at IS NULL)
               AND NOT EXISTS (SELECT 1 FROM templates
                               WHERE team_id = $1 AND deleted_at IS NULL)
               AND NOT EXISTS (SELECT 1 FROM volumes WHERE team_id = $1)
             RETURNING name",
        )
        .bind(&text)
        .bind(micros(now))
        .fetch_optional(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        let Some((name,)) = slug else {
            return Ok(false);
        };
        for statement in [
            "DELETE FROM api_keys WHERE team_id = $1",
            "DELETE FROM team_members WHERE team_id = $1",
            "DELETE FROM webhooks WHERE team_id = $1",
            "DELETE FROM secrets WHERE team_id = $1",
            "DELETE FROM ssh_keys WHERE team_id = $1",
            "DELETE FROM idempotency WHERE team_id = $1",
        ] {
            sqlx::query(statement)
                .bind(&text)
                .execute(&mut *tx)
                .await
                .map_err(query(ACTION))?;
        }
        for statement in [
            "DELETE FROM access_tokens WHERE user_id IN (SELECT id FROM users WHERE email = $1)",
            "DELETE FROM team_members WHERE user_id IN (SELECT id FROM users WHERE email = $1)",
            "DELETE FROM users WHERE email = $1",
        ] {
            sqlx::query(statement)
                .bind(stand_in)
                .execute(&mut *tx)
                .await
                .map_err(query(ACTION))?;
        }
        let entry = NewAudit::done(by, "team.delete", &text).of(id);
        audit::write(&mut tx, &entry.with(json!({ "name": name }))).await?;
        tx.commit().await.map_err(query(ACTION))?;
        Ok(true)
    }
}
