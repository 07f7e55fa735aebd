//! Figures of sandboxes over time, and of teams as counts of their sandboxes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::{FromRow, QueryBuilder, Sqlite};
use warren_types::{MetricsPoint, SandboxId, TeamId};

use crate::error::{malformed, query};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

/// Sandboxes that started or ended in one span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanCount {
    /// Number of the span: its start divided by its length, both in seconds.
    pub span: i64,
    /// How many.
    pub sandboxes: u64,
}

/// The comings and goings of a team's sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartSpans {
    /// Sandboxes that lived when the range began.
    pub before: u64,
    /// Starts by span, ascending.
    pub started: Vec<SpanCount>,
    /// Ends by span, ascending.
    pub ended: Vec<SpanCount>,
}

#[derive(FromRow)]
struct MetricRow {
    sandbox_id: String,
    at: i64,
    cpu_count: i64,
    cpu_used_pct: f64,
    mem_used: i64,
    mem_total: i64,
    mem_cache: i64,
    disk_used: i64,
    disk_total: i64,
}

impl TryFrom<MetricRow> for MetricsPoint {
    type Error = StoreError;

    fn try_from(row: MetricRow) -> Result<Self, StoreError> {
        Ok(Self {
            at: timestamp(row.at, "at", &row.sandbox_id)?,
            cpu_count: u32::try_from(row.cpu_count)
                .map_err(|_| malformed("cpu_count", &row.sandbox_id))?,
            cpu_used_pct: row.cpu_used_pct,
            mem_used: row.mem_used.unsigned_abs(),
            mem_total: row.mem_total.unsigned_abs(),
            mem_cache: row.mem_cache.unsigned_abs(),
            disk_used: row.disk_used.unsigned_abs(),
            disk_total: row.disk_total.unsigned_abs(),
        })
    }
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn span_counts(rows: Vec<(i64, i64)>) -> Vec<SpanCount> {
    rows.into_iter()
        .map(|(span, count)| SpanCount {
            span,
            sandboxes: count.unsigned_abs(),
        })
        .collect()
}

const MICROS: i64 = 1_000_000;
/// Samples written at once.
const BATCH: usize = 100;

impl Store {
    /// Adds samples; those known already are left as they are. Written in small batches,
    /// so that other writers get their turn.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn metrics_insert(
        &self,
        samples: &[(SandboxId, MetricsPoint)],
    ) -> Result<(), StoreError> {
        for batch in samples.chunks(BATCH) {
            let mut insert: QueryBuilder<'_, Sqlite> = QueryBuilder::new(
                "INSERT INTO metrics (sandbox_id, at, cpu_count, cpu_used_pct, mem_used,
                 mem_total, mem_cache, disk_used, disk_total) ",
            );
            insert.push_values(batch, |mut row, (id, point)| {
                row.push_bind(id.as_str())
                    .push_bind(micros(point.at))
                    .push_bind(i64::from(point.cpu_count))
                    .push_bind(point.cpu_used_pct)
                    .push_bind(bytes(point.mem_used))
                    .push_bind(bytes(point.mem_total))
                    .push_bind(bytes(point.mem_cache))
                    .push_bind(bytes(point.disk_used))
                    .push_bind(bytes(point.disk_total));
            });
            insert.push(" ON CONFLICT (sandbox_id, at) DO NOTHING");
            insert
                .build()
                .persistent(batch.len() == BATCH)
                .execute(&self.writer)
                .await
                .map_err(query("add metrics"))?;
        }
        Ok(())
    }

    /// The samples of several sandboxes of a team since a moment, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn metrics_recent(
        &self,
        team: TeamId,
        ids: &[SandboxId],
        from: Timestamp,
    ) -> Result<BTreeMap<SandboxId, Vec<MetricsPoint>>, StoreError> {
        let mut found: BTreeMap<SandboxId, Vec<MetricsPoint>> = BTreeMap::new();
        if ids.is_empty() {
            return Ok(found);
        }
        let mut select: QueryBuilder<'_, Sqlite> = QueryBuilder::new(
            "SELECT m.* FROM metrics m JOIN sandboxes s ON s.id = m.sandbox_id WHERE s.team_id = ",
        );
        select.push_bind(team.to_string());
        select.push(" AND m.at >= ").push_bind(micros(from));
        select.push(" AND m.sandbox_id IN (");
        let mut list = select.separated(", ");
        for id in ids {
            list.push_bind(id.as_str());
        }
        select.push(") ORDER BY m.at");
        let rows: Vec<MetricRow> = select
            .build_query_as()
            .persistent(false)
            .fetch_all(&self.reader)
            .await
            .map_err(query("read metrics"))?;
        for row in rows {
            let bad = malformed("sandbox_id", &row.sandbox_id);
            let id = row.sandbox_id.parse().map_err(|_| bad)?;
            found.entry(id).or_default().push(row.try_into()?);
        }
        Ok(found)
    }

    /// The samples of a sandbox from `from` to `to`, both inclusive, oldest first: one for
    /// each `step_s` seconds, averaged, with the time of the last sample in it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn metrics_range(
        &self,
        id: &SandboxId,
        from: Timestamp,
        to: Timestamp,
        step_s: u32,
    ) -> Result<Vec<MetricsPoint>, StoreError> {
        let rows: Vec<MetricRow> = sqlx::query_as(
            "SELECT sandbox_id, MAX(at) AS at, MAX(cpu_count) AS cpu_count,
                    AVG(cpu_used_pct) AS cpu_used_pct,
                    CAST(AVG(mem_used) AS BIGINT) AS mem_used, MAX(mem_total) AS mem_total,
                    CAST(AVG(mem_cache) AS BIGINT) AS mem_cache,
                    CAST(AVG(disk_used) AS BIGINT) AS disk_used,
                    MAX(disk_total) AS disk_total
             FROM metrics WHERE sandbox_id = $1 AND at >= $2 AND at <= $3
             GROUP BY sandbox_id, at / $4 ORDER BY 2",
        )
        .bind(id.as_str())
        .bind(micros(from))
        .bind(micros(to))
        .bind(i64::from(step_s.max(1)) * MICROS)
        .fetch_all(&self.reader)
        .await
        .map_err(query("read metrics"))?;
        rows.into_iter().map(MetricsPoint::try_from).collect()
    }

    /// The newest sample of a sandbox of the team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn metrics_latest(
        &self,
        team: TeamId,
        id: &SandboxId,
    ) -> Result<Option<MetricsPoint>, StoreError> {
        let row: Option<MetricRow> = sqlx::query_as(
            "SELECT m.* FROM metrics m JOIN sandboxes s ON s.id = m.sandbox_id
             WHERE s.id = $1 AND s.team_id = $2 ORDER BY m.at DESC LIMIT 1",
        )
        .bind(id.as_str())
        .bind(team.to_string())
        .fetch_optional(&self.reader)
        .await
        .map_err(query("read latest metrics"))?;
        row.map(MetricsPoint::try_from).transpose()
    }

    /// Forgets up to `limit` samples older than `before`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn metrics_purge(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM metrics WHERE (sandbox_id, at) IN
             (SELECT sandbox_id, at FROM metrics WHERE at < $1 LIMIT $2)",
        )
        .bind(micros(before))
        .bind(i64::from(limit))
        .execute(&self.writer)
        .await
        .map_err(query("forget metrics"))?;
        Ok(done.rows_affected())
    }

    /// Starts and ends of a team's sandboxes from `from` to `to`, by spans of `step_s`
    /// seconds.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_spans(
        &self,
        team: TeamId,
        from: Timestamp,
        to: Timestamp,
        step_s: u32,
    ) -> Result<StartSpans, StoreError> {
        let action = "read metrics of team";
        let (team, step) = (team.to_string(), i64::from(step_s.max(1)) * MICROS);
        let (before,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM sandboxes
             WHERE team_id = $1 AND started_at < $2 AND (ended_at IS NULL OR ended_at >= $2)",
        )
        .bind(&team)
        .bind(micros(from))
        .fetch_one(&self.reader)
        .await
        .map_err(query(action))?;
        let started: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT started_at / $4, COUNT(*) FROM sandboxes
             WHERE team_id = $1 AND started_at >= $2 AND started_at <= $3
             GROUP BY 1 ORDER BY 1",
        )
        .bind(&team)
        .bind(micros(from))
        .bind(micros(to))
        .bind(step)
        .fetch_all(&self.reader)
        .await
        .map_err(query(action))?;
        let ended: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT ended_at / $4, COUNT(*) FROM sandboxes
             WHERE team_id = $1 AND ended_at >= $2 AND ended_at <= $3
             GROUP BY 1 ORDER BY 1",
        )
        .bind(&team)
        .bind(micros(from))
        .bind(micros(to))
        .bind(step)
        .fetch_all(&self.reader)
        .await
        .map_err(query(action))?;
        Ok(StartSpans {
            before: before.unsigned_abs(),
            started: span_counts(started),
            ended: span_counts(ended),
        })
    }
}
