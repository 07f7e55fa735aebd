//! Budgets of teams and API keys, where they differ from the server's defaults.

use serde_json::{Value, json};
use sqlx::FromRow;
use warren_types::{ApiKeyId, Budget, TeamId};

use crate::audit::{self, By, NewAudit};
use crate::error::{malformed, query};
use crate::{Store, StoreError};

#[derive(FromRow)]
struct BudgetRow {
    id: String,
    sandboxes: Option<i64>,
    cpus: Option<i64>,
    memory_mib: Option<i64>,
    disk_mib: Option<i64>,
    requests_per_minute: Option<i64>,
}

impl BudgetRow {
    fn budget(&self) -> Result<Budget, StoreError> {
        let number = |value: Option<i64>, field| {
            value
                .map(|value| u32::try_from(value).map_err(|_| malformed(field, &self.id)))
                .transpose()
        };
        Ok(Budget {
            sandboxes: number(self.sandboxes, "sandboxes")?,
            cpus: number(self.cpus, "cpus")?,
            memory_mib: number(self.memory_mib, "memory_mib")?,
            disk_mib: number(self.disk_mib, "disk_mib")?,
            requests_per_minute: number(self.requests_per_minute, "requests_per_minute")?,
        })
    }
}

/// Limits as the trail tells them; null is the server's default.
fn facts(to: &Budget) -> Value {
    json!({
        "sandboxes": to.sandboxes,
        "cpus": to.cpus,
        "memoryMB": to.memory_mib,
        "diskMB": to.disk_mib,
        "requestsPerMinute": to.requests_per_minute,
    })
}

impl Store {
    /// The teams that have limits of their own.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_limits_list(&self) -> Result<Vec<(TeamId, Budget)>, StoreError> {
        let rows: Vec<BudgetRow> = sqlx::query_as(
            "SELECT t.id, t.max_sandboxes AS sandboxes, l.cpus, l.memory_mib, l.disk_mib,
                    l.requests_per_minute
             FROM teams t LEFT JOIN team_limits l ON l.team_id = t.id
             WHERE t.max_sandboxes IS NOT NULL OR l.team_id IS NOT NULL",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(query("list limits of teams"))?;
        rows.into_iter()
            .map(|row| {
                let id = row.id.parse().map_err(|_| malformed("id", &row.id))?;
                Ok((id, row.budget()?))
            })
            .collect()
    }

    /// The API keys that have limits of their own.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn key_limits_list(&self) -> Result<Vec<(ApiKeyId, Budget)>, StoreError> {
        let rows: Vec<BudgetRow> = sqlx::query_as(
            "SELECT key_id AS id, sandboxes, cpus, memory_mib, disk_mib, requests_per_minute
             FROM key_limits",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(query("list limits of API keys"))?;
        rows.into_iter()
            .map(|row| {
                let id = row.id.parse().map_err(|_| malformed("key_id", &row.id))?;
                Ok((id, row.budget()?))
            })
            .collect()
    }

    /// Replaces all limits of a team. Returns whether there is such a team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_limits_set(
        &self,
        by: &By,
        team: TeamId,
        to: &Budget,
    ) -> Result<bool, StoreError> {
        let action = "set limits of team";
        let mut tx = self.writer.begin().await.map_err(query(action))?;
        let known =
            sqlx::query("UPDATE teams SET max_sandboxes = $2 WHERE id = $1 AND deleted_at IS NULL")
                .bind(team.to_string())
                .bind(to.sandboxes.map(i64::from))
                .execute(&mut *tx)
                .await
                .map_err(query(action))?;
        if known.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO team_limits (team_id, cpus, memory_mib, disk_mib, requests_per_minute)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (team_id) DO UPDATE SET cpus = excluded.cpus,
                 memory_mib = excluded.memory_mib, disk_mib = excluded.disk_mib,
                 requests_per_minute = excluded.requests_per_minute",
        )
        .bind(team.to_string())
        .bind(to.cpus.map(i64::from))
        .bind(to.memory_mib.map(i64::from))
        .bind(to.disk_mib.map(i64::from))
        .bind(to.requests_per_minute.map(i64::from))
        .execute(&mut *tx)
        .await
        .map_err(query(action))?;
        let id = team.to_string();
        let entry = NewAudit::done(by, "team.limits", &id).of(team);
        audit::write(&mut tx, &entry.with(facts(to))).await?;
        tx.commit().await.map_err(query(action))?;
        Ok(true)
    }

    /// Replaces all limits of an API key of a team. Returns whether there is such a key.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn key_limits_set(
        &self,
        by: &By,
        team: TeamId,
        key: ApiKeyId,
        to: &Budget,
    ) -> Result<bool, StoreError> {
        let action = "set limits of API key";
        let mut tx = self.writer.begin().await.map_err(query(action))?;
        let done = sqlx::query(
            "INSERT INTO key_limits
             (key_id, sandboxes, cpus, memory_mib, disk_mib, requests_per_minute)
             SELECT id, $3, $4, $5, $6, $7 FROM api_keys WHERE id = $1 AND team_id = $2
             ON CONFLICT (key_id) DO UPDATE SET sandboxes = excluded.sandboxes,
                 cpus = excluded.cpus, memory_mib = excluded.memory_mib,
                 disk_mib = excluded.disk_mib,
                 requests_per_minute = excluded.requests_per_minute",
        )
        .bind(key.to_string())
        .bind(team.to_string())
        .bind(to.sandboxes.map(i64::from))
        .bind(to.cpus.map(i64::from))
        .bind(to.memory_mib.map(i64::from))
        .bind(to.disk_mib.map(i64::from))
        .bind(to.requests_per_minute.map(i64::from))
        .execute(&mut *tx)
        .await
        .map_err(query(action))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let id = key.to_string();
        let entry = NewAudit::done(by, "key.limits", &id).of(team);
        audit::write(&mut tx, &entry.with(facts(to))).await?;
        tx.commit().await.map_err(query(action))?;
        Ok(true)
    }

    /// Whether a team has this API key.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn api_key_is_of(&self, team: TeamId, key: ApiKeyId) -> Result<bool, StoreError> {
        let row: Option<(i64,)> =
            sqlx::query_as("SELECT 1 FROM api_keys WHERE id = $1 AND team_id = $2")
                .bind(key.to_string())
                .bind(team.to_string())
                .fetch_optional(&self.reader)
                .await
                .map_err(query("look for API key"))?;
        Ok(row.is_some())
    }
}
