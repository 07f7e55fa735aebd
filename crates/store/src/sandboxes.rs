//! Sandboxes: those that live, and for a while those that ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::FromRow;
use warren_types::{
    ApiKeyId, BuildId, EndReason, EventKind, RunId, SandboxId, SandboxState, TeamId, TemplateId,
};

use crate::error::{malformed, query};
use crate::events::{self, SUBJECT, Subject};
use crate::time::{micros, timestamp};
use crate::{MountRecord, Store, StoreError};

/// What is remembered of a sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRecord {
    /// Its id.
    pub id: SandboxId,
    /// The team that it belongs to.
    pub team_id: TeamId,
    /// The API key that it was made with, whose budget it counts against.
    pub key_id: Option<ApiKeyId>,
    /// Template it was made from.
    pub template_id: TemplateId,
    /// Build it was made from.
    pub build_id: BuildId,
    /// The template's first name.
    pub alias: Option<String>,
    /// Running or paused; of an ended one, what it was before.
    pub state: SandboxState,
    /// When it became usable.
    pub started_at: Timestamp,
    /// When it ends, or was to end.
    pub end_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it ended.
    pub end_reason: Option<EndReason>,
    /// The most memory in bytes that it used, of one that ran out of it.
    pub memory_peak: Option<u64>,
    /// CPUs.
    pub cpu_count: u32,
    /// Memory limit in MiB.
    pub memory_mib: u32,
    /// Disk limit in MiB.
    pub disk_mib: u32,
    /// The user's labels.
    pub metadata: BTreeMap<String, String>,
    /// Whether its agent requires a token.
    pub secure: bool,
    /// Whether its other ports require one.
    pub private_traffic: bool,
    /// `allow_internet_access` as given.
    pub allow_internet: Option<bool>,
    /// Network settings as given, in JSON.
    pub network: Option<String>,
    /// Pause instead of end when its time runs out.
    pub auto_pause: bool,
    /// Resume a paused one when traffic arrives.
    pub auto_resume: bool,
    /// The user's MCP settings, in JSON; never interpreted.
    pub mcp: Option<String>,
    /// Raised by every pause and resume.
    pub revision: u64,
    /// What is kept of a paused one.
    pub pause: Option<PauseRecord>,
    /// Whether a pause at time-out keeps memory.
    pub auto_pause_memory: bool,
    /// Life in seconds that the create asked for.
    pub timeout_s: u32,
    /// Volumes mounted in it.
    pub volume_mounts: Vec<MountRecord>,
}

/// What is kept of a paused sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseRecord {
    /// Whether its memory is kept.
    pub memory: bool,
    /// Why less is kept than was asked for.
    pub note: Option<String>,
    /// Whether its agent did not answer when its memory was kept.
    pub agent_silent: bool,
}

/// A sandbox that has not ended.
#[derive(Debug, Clone)]
pub struct LiveSandbox {
    /// Its id.
    pub id: SandboxId,
    /// The team that it belongs to.
    pub team_id: TeamId,
    /// The API key that it was made with.
    pub key_id: Option<ApiKeyId>,
    /// CPUs.
    pub cpu_count: u32,
    /// Memory limit in MiB.
    pub memory_mib: u32,
    /// Disk limit in MiB.
    pub disk_mib: u32,
    /// When it ends, or was paused.
    pub end_at: Timestamp,
    /// Whether it is paused.
    pub paused: bool,
    /// Raised by every pause and resume.
    pub revision: u64,
}

#[derive(FromRow)]
struct SandboxRow {
    id: String,
    team_id: String,
    key_id: Option<String>,
    template_id: String,
    build_id: String,
    alias: Option<String>,
    state: String,
    started_at: i64,
    end_at: i64,
    ended_at: Option<i64>,
    end_reason: Option<String>,
    memory_peak: Option<i64>,
    cpu_count: i64,
    memory_mib: i64,
    disk_mib: i64,
    metadata: String,
    secure: i64,
    private_traffic: i64,
    allow_internet: Option<i64>,
    network: Option<String>,
    auto_pause: i64,
    auto_resume: i64,
    mcp: Option<String>,
    revision: i64,
    pause_memory: Option<i64>,
    pause_note: Option<String>,
    pause_agent_silent: i64,
    auto_pause_memory: i64,
    timeout_s: i64,
    volume_mounts: Option<String>,
}

const INSERT: &str = "add sandbox";
pub(crate) const RUNNING: &str = "running";
pub(crate) const PAUSED: &str = "paused";

impl TryFrom<SandboxRow> for SandboxRecord {
    type Error = StoreError;

    fn try_from(row: SandboxRow) -> Result<Self, StoreError> {
        let id = &row.id;
        let number = |value: i64, field| u32::try_from(value).map_err(|_| malformed(field, id));
        let mounts = row.volume_mounts.as_deref().map(serde_json::from_str);
        let mounts = mounts
            .transpose()
            .map_err(|_| malformed("volume_mounts", id))?;
        let mounts = mounts.unwrap_or_default();
        Ok(Self {
            id: id.parse().map_err(|_| malformed("id", id))?,
            team_id: row.team_id.parse().map_err(|_| malformed("team_id", id))?,
            key_id: key(row.key_id.as_deref(), id)?,
            template_id: row
                .template_id
                .parse()
                .map_err(|_| malformed("template_id", id))?,
            build_id: row
                .build_id
                .parse()
                .map_err(|_| malformed("build_id", id))?,
            state: match row.state.as_str() {
                RUNNING => SandboxState::Running,
                PAUSED => SandboxState::Paused,
                _ => return Err(malformed("state", id)),
            },
            started_at: timestamp(row.started_at, "started_at", id)?,
            end_at: timestamp(row.end_at, "end_at", id)?,
            ended_at: row
                .ended_at
                .map(|at| timestamp(at, "ended_at", id))
                .transpose()?,
            end_reason: match &row.end_reason {
                Some(word) => {
                    Some(EndReason::parse(word).ok_or_else(|| malformed("end_reason", id))?)
                }
                None => None,
            },
            memory_peak: row.memory_peak.and_then(|peak| u64::try_from(peak).ok()),
            cpu_count: number(row.cpu_count, "cpu_count")?,
            memory_mib: number(row.memory_mib, "memory_mib")?,
            disk_mib: number(row.disk_mib, "disk_mib")?,
            metadata: serde_json::from_str(&row.metadata).map_err(|_| malformed("metadata", id))?,
            secure: row.secure != 0,
            private_traffic: row.private_traffic != 0,
            allow_internet: row.allow_internet.map(|flag| flag != 0),
            auto_pause: row.auto_pause != 0,
            auto_resume: row.auto_resume != 0,
            revision: u64::try_from(row.revision).map_err(|_| malformed("revision", id))?,
            pause: row.pause_memory.map(|memory| PauseRecord {
                memory: memory != 0,
                note: row.pause_note,
                agent_silent: row.pause_agent_silent != 0,
            }),
            auto_pause_memory: row.auto_pause_memory != 0,
            timeout_s: number(row.timeout_s, "timeout_s")?,
            alias: row.alias,
            network: row.network,
            mcp: row.mcp,
            volume_mounts: mounts,
        })
    }
}

#[derive(FromRow)]
struct LiveRow {
    id: String,
    team_id: String,
    key_id: Option<String>,
    cpu_count: i64,
    memory_mib: i64,
    disk_mib: i64,
    end_at: i64,
    state: String,
    revision: i64,
}

impl TryFrom<LiveRow> for LiveSandbox {
    type Error = StoreError;

    fn try_from(row: LiveRow) -> Result<Self, StoreError> {
        let id = &row.id;
        let number = |value: i64, field| u32::try_from(value).map_err(|_| malformed(field, id));
        Ok(Self {
            team_id: row.team_id.parse().map_err(|_| malformed("team_id", id))?,
            key_id: key(row.key_id.as_deref(), id)?,
            cpu_count: number(row.cpu_count, "cpu_count")?,
            memory_mib: number(row.memory_mib, "memory_mib")?,
            disk_mib: number(row.disk_mib, "disk_mib")?,
            end_at: timestamp(row.end_at, "end_at", id)?,
            paused: row.state == PAUSED,
            revision: u64::try_from(row.revision).map_err(|_| malformed("revision", id))?,
            id: id.parse().map_err(|_| malformed("id", id))?,
        })
    }
}

fn key(text: Option<&str>, id: &str) -> Result<Option<ApiKeyId>, StoreError> {
    text.map(|text| text.parse().map_err(|_| malformed("key_id", id)))
        .transpose()
}

pub(crate) fn revision(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

impl Store {
    /// Adds a sandbox that runs, and tells of it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_insert(&self, sandbox: &SandboxRecord) -> Result<(), StoreError> {
        let metadata = serde_json::to_string(&sandbox.metadata)
            .map_err(|_| malformed("metadata", sandbox.id.as_str()))?;
        let mounts = (!sandbox.volume_mounts.is_empty())
            .then(|| serde_json::to_string(&sandbox.volume_mounts))
            .transpose()
            .map_err(|_| malformed("volume_mounts", sandbox.id.as_str()))?;
        let state = if sandbox.state == SandboxState::Paused {
            PAUSED
        } else {
            RUNNING
        };
        let statement = format!(
            "INSERT INTO sandboxes
             (id, team_id, template_id, build_id, alias, state, started_at, end_at,
              cpu_count, memory_mib, disk_mib, metadata, secure, private_traffic,
              allow_internet, network, auto_pause, auto_resume, mcp, revision,
              auto_pause_memory, timeout_s, volume_mounts, run_id, key_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                     $17, $18, $19, $20, $21, $22, $23, $24, $25)
             RETURNING {SUBJECT}"
        );
        let mut tx = self.writer.begin().await.map_err(query(INSERT))?;
        let subject: Subject = sqlx::query_as(&statement)
            .bind(sandbox.id.as_str())
            .bind(sandbox.team_id.to_string())
            .bind(sandbox.template_id.as_str())
            .bind(sandbox.build_id.to_string())
            .bind(&sandbox.alias)
            .bind(state)
            .bind(micros(sandbox.started_at))
            .bind(micros(sandbox.end_at))
            .bind(i64::from(sandbox.cpu_count))
            .bind(i64::from(sandbox.memory_mib))
            .bind(i64::from(sandbox.disk_mib))
            .bind(metadata)
            .bind(i64::from(sandbox.secure))
            .bind(i64::from(sandbox.private_traffic))
            .bind(sandbox.allow_internet.map(i64::from))
            .bind(&sandbox.network)
            .bind(i64::from(sandbox.auto_pause))
            .bind(i64::from(sandbox.auto_resume))
            .bind(&sandbox.mcp)
            .bind(revision(sandbox.revision))
            .bind(i64::from(sandbox.auto_pause_memory))
            .bind(i64::from(sandbox.timeout_s))
            .bind(mounts)
            .bind(RunId::random().to_string())
            .bind(sandbox.key_id.map(|key| key.to_string()))
            .fetch_one(&mut *tx)
            .await
            .map_err(query(INSERT))?;
        let (at, data) = (sandbox.started_at, subject.plain()?);
        let told = events::write(&mut tx, &subject, EventKind::Created, at, &data).await?;
        tx.commit().await.map_err(query(INSERT))?;
        self.delivered_later(told);
        Ok(())
    }

    /// A sandbox of the team, also one that ended and is still remembered.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_get(
        &self,
        team: TeamId,
        id: &SandboxId,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        let row: Option<SandboxRow> =
            sqlx::query_as("SELECT * FROM sandboxes WHERE id = $1 AND team_id = $2")
                .bind(id.as_str())
                .bind(team.to_string())
                .fetch_optional(&self.reader)
                .await
                .map_err(query("read sandbox"))?;
        row.map(SandboxRecord::try_from).transpose()
    }

    /// Whether there is a row of this sandbox, ended or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_is_known(&self, id: &SandboxId) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM sandboxes WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.reader)
            .await
            .map_err(query("look for sandbox"))?;
        Ok(row.is_some())
    }

    /// The sandboxes of a team that have not ended, in no order.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_list_live(&self, team: TeamId) -> Result<Vec<SandboxRecord>, StoreError> {
        let rows: Vec<SandboxRow> =
            sqlx::query_as("SELECT * FROM sandboxes WHERE team_id = $1 AND ended_at IS NULL")
                .bind(team.to_string())
                .fetch_all(&self.reader)
                .await
                .map_err(query("list sandboxes"))?;
        rows.into_iter().map(SandboxRecord::try_from).collect()
    }

    /// The sandbox, whosever it is, also one that ended and is still remembered.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_find(&self, id: &SandboxId) -> Result<Option<SandboxRecord>, StoreError> {
        let row: Option<SandboxRow> = sqlx::query_as("SELECT * FROM sandboxes WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.reader)
            .await
            .map_err(query("find sandbox"))?;
        row.map(SandboxRecord::try_from).transpose()
    }

    /// The running sandboxes that traffic would resume, with the start of their runs.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_list_wakeable(&self) -> Result<Vec<(SandboxId, Timestamp)>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT id, started_at FROM sandboxes
             WHERE ended_at IS NULL AND state = 'running' AND auto_resume = 1",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(query("list sandboxes that traffic wakes"))?;
        rows.into_iter()
            .map(|(id, at)| {
                let started_at = timestamp(at, "started_at", &id)?;
                Ok((id.parse().map_err(|_| malformed("id", &id))?, started_at))
            })
            .collect()
    }

    /// All sandboxes that have not ended, in no order.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_list_all_live(&self) -> Result<Vec<LiveSandbox>, StoreError> {
        let rows: Vec<LiveRow> = sqlx::query_as(
            "SELECT id, team_id, key_id, cpu_count, memory_mib, disk_mib, end_at, state, revision
             FROM sandboxes WHERE ended_at IS NULL",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(query("list all sandboxes"))?;
        rows.into_iter().map(LiveSandbox::try_from).collect()
    }

    /// Replaces what happens to a sandbox when its time runs out.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_set_auto_pause(
        &self,
        id: &SandboxId,
        auto_pause: bool,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE sandboxes SET auto_pause = $2 WHERE id = $1")
            .bind(id.as_str())
            .bind(i64::from(auto_pause))
            .execute(&self.writer)
            .await
            .map_err(query("set time-out action of sandbox"))?;
        Ok(())
    }

    /// Forgets up to `limit` sandboxes that ended before `before`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_purge(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM sandboxes WHERE id IN
             (SELECT id FROM sandboxes WHERE ended_at < $1 LIMIT $2)",
        )
        .bind(micros(before))
        .bind(i64::from(limit))
        .execute(&self.writer)
        .await
        .map_err(query("forget ended sandboxes"))?;
        Ok(done.rows_affected())
    }
}
