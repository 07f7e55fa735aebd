//! What was told of the lives of sandboxes. Events are written in the transaction that
//! changes the sandbox, together with their deliveries: there is no change without its
//! event, and no event that is not delivered.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{FromRow, QueryBuilder, Sqlite, SqliteConnection};
use warren_types::{
    BuildId, DeliveryId, EventId, EventKind, RunId, SandboxEnd, SandboxId, TeamId, TemplateId,
};

use crate::error::{malformed, query};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

const WRITE: &str = "write event";

/// Something that befell a sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRecord {
    /// Its id.
    pub id: EventId,
    /// What befell it.
    pub kind: EventKind,
    /// When.
    pub at: Timestamp,
    /// The team of the sandbox.
    pub team_id: TeamId,
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// Template it was made from.
    pub template_id: TemplateId,
    /// Build it was made from.
    pub build_id: BuildId,
    /// The run that it was in.
    pub run_id: RunId,
    /// Further facts.
    pub data: Value,
}

/// Which events are wanted.
#[derive(Debug, Clone)]
pub struct EventFilter {
    /// Of this team.
    pub team: TeamId,
    /// Of this sandbox.
    pub sandbox: Option<SandboxId>,
    /// Of these kinds; none means all.
    pub kinds: Vec<EventKind>,
    /// Oldest first.
    pub ascending: bool,
    /// How many to leave out.
    pub offset: u32,
    /// At most this many.
    pub limit: u32,
}

#[derive(FromRow)]
pub(crate) struct EventRow {
    pub(crate) id: String,
    kind: String,
    at: i64,
    team_id: String,
    sandbox_id: String,
    template_id: String,
    build_id: String,
    run_id: String,
    data: String,
}

impl TryFrom<EventRow> for EventRecord {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        let bad = |field| malformed(field, &row.id);
        Ok(Self {
            id: row.id.parse().map_err(|_| bad("id"))?,
            kind: row.kind.parse().map_err(|_| bad("kind"))?,
            at: timestamp(row.at, "at", &row.id)?,
            team_id: row.team_id.parse().map_err(|_| bad("team_id"))?,
            sandbox_id: row.sandbox_id.parse().map_err(|_| bad("sandbox_id"))?,
            template_id: row.template_id.parse().map_err(|_| bad("template_id"))?,
            build_id: row.build_id.parse().map_err(|_| bad("build_id"))?,
            run_id: row.run_id.parse().map_err(|_| bad("run_id"))?,
            data: serde_json::from_str(&row.data).map_err(|_| bad("data"))?,
        })
    }
}

/// The columns of a sandbox that [`Subject`] is made from.
pub(crate) const SUBJECT: &str = "id, team_id, template_id, build_id, run_id, metadata, \
                                  cpu_count, memory_mib, started_at, state";

/// Whom an event is about, as its row says after the change.
#[derive(Debug, FromRow)]
pub(crate) struct Subject {
    pub(crate) id: String,
    pub(crate) team_id: String,
    pub(crate) template_id: String,
    pub(crate) build_id: String,
    pub(crate) run_id: String,
    pub(crate) metadata: String,
    pub(crate) cpu_count: i64,
    pub(crate) memory_mib: i64,
    pub(crate) started_at: i64,
    pub(crate) state: String,
}

/// The run that a pause or an end closes.
#[derive(Serialize)]
struct Execution {
    started_at: Timestamp,
    vcpu_count: i64,
    memory_mb: i64,
    /// Milliseconds.
    execution_time: i64,
}

impl Subject {
    fn data(&self) -> Result<Value, StoreError> {
        let metadata: Value =
            serde_json::from_str(&self.metadata).map_err(|_| malformed("metadata", &self.id))?;
        Ok(json!({ "sandbox_metadata": metadata }))
    }

    fn execution(&self, end: Timestamp) -> Result<Execution, StoreError> {
        let started_at = timestamp(self.started_at, "started_at", &self.id)?;
        Ok(Execution {
            started_at,
            vcpu_count: self.cpu_count,
            memory_mb: self.memory_mib,
            execution_time: end.as_millisecond() - started_at.as_millisecond(),
        })
    }

    /// Facts of the end of a run.
    pub(crate) fn closed(&self, at: Timestamp) -> Result<Value, StoreError> {
        let mut data = self.data()?;
        data["execution"] = json!(self.execution(at)?);
        Ok(data)
    }

    /// Facts of an end.
    pub(crate) fn ended(&self, end: &SandboxEnd) -> Result<Value, StoreError> {
        // One that was paused has closed its run before.
        let mut data = if self.state == crate::sandboxes::RUNNING {
            self.closed(end.at)?
        } else {
            self.data()?
        };
        data["reason"] = json!(end.reason.as_str());
        if let Some(peak) = end.memory_peak {
            data["memory_peak_bytes"] = json!(peak);
        }
        Ok(data)
    }

    /// Facts of a change, with one more.
    pub(crate) fn with(&self, name: &str, value: Value) -> Result<Value, StoreError> {
        let mut data = self.data()?;
        data[name] = value;
        Ok(data)
    }

    /// Facts of anything else.
    pub(crate) fn plain(&self) -> Result<Value, StoreError> {
        self.data()
    }
}

/// Writes an event and its deliveries. Returns whether there are any.
pub(crate) async fn write(
    tx: &mut SqliteConnection,
    subject: &Subject,
    kind: EventKind,
    at: Timestamp,
    data: &Value,
) -> Result<bool, StoreError> {
    let (seq,): (i64,) = sqlx::query_as(
        "INSERT INTO events
         (id, kind, at, team_id, sandbox_id, template_id, build_id, run_id, data)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING seq",
    )
    .bind(EventId::random().to_string())
    .bind(kind.as_str())
    .bind(micros(at))
    .bind(&subject.team_id)
    .bind(&subject.id)
    .bind(&subject.template_id)
    .bind(&subject.build_id)
    .bind(&subject.run_id)
    .bind(data.to_string())
    .fetch_one(&mut *tx)
    .await
    .map_err(query(WRITE))?;
    let wanted: Vec<(String,)> = sqlx::query_as(
        "SELECT id FROM webhooks WHERE team_id = $1 AND enabled = 1 AND kinds LIKE $2",
    )
    .bind(&subject.team_id)
    .bind(format!("%,{kind},%"))
    .fetch_all(&mut *tx)
    .await
    .map_err(query(WRITE))?;
    let now = micros(Timestamp::now());
    for (webhook,) in &wanted {
        sqlx::query(
            "INSERT INTO deliveries
             (id, webhook_id, event_seq, state, next_at, attempts, created_at)
             VALUES ($1, $2, $3, 'pending', $4, '[]', $4)",
        )
        .bind(DeliveryId::random().to_string())
        .bind(webhook)
        .bind(seq)
        .bind(now)
        .execute(&mut *tx)
        .await
        .map_err(query(WRITE))?;
    }
    Ok(!wanted.is_empty())
}

impl Store {
    /// Events of a team, in the order in which they were written.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn event_list(&self, filter: &EventFilter) -> Result<Vec<EventRecord>, StoreError> {
        let mut select = QueryBuilder::<Sqlite>::new("SELECT * FROM events WHERE team_id = ");
        select.push_bind(filter.team.to_string());
        if let Some(id) = &filter.sandbox {
            select.push(" AND sandbox_id = ");
            select.push_bind(id.as_str().to_owned());
        }
        if !filter.kinds.is_empty() {
            select.push(" AND kind IN (");
            let mut kinds = select.separated(", ");
            for kind in &filter.kinds {
                kinds.push_bind(kind.as_str());
            }
            select.push(")");
        }
        let order = if filter.ascending { "ASC" } else { "DESC" };
        select.push(format_args!(" ORDER BY seq {order} LIMIT "));
        select.push_bind(i64::from(filter.limit));
        select.push(" OFFSET ");
        select.push_bind(i64::from(filter.offset));
        let rows: Vec<EventRow> = select
            .build_query_as()
            .fetch_all(&self.reader)
            .await
            .map_err(query("list events"))?;
        rows.into_iter().map(EventRecord::try_from).collect()
    }

    /// Forgets up to `limit` events before `before`, and their deliveries. Returns how many
    /// events.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn event_purge(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        const ACTION: &str = "forget events";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let old = "SELECT seq FROM events WHERE at < $1 ORDER BY at LIMIT $2";
        let statement = format!("DELETE FROM deliveries WHERE event_seq IN ({old})");
        sqlx::query(&statement)
            .bind(micros(before))
            .bind(i64::from(limit))
            .execute(&mut *tx)
            .await
            .map_err(query(ACTION))?;
        let statement = format!("DELETE FROM events WHERE seq IN ({old})");
        let done = sqlx::query(&statement)
            .bind(micros(before))
            .bind(i64::from(limit))
            .execute(&mut *tx)
            .await
            .map_err(query(ACTION))?;
        tx.commit().await.map_err(query(ACTION))?;
        Ok(done.rows_affected())
    }
}
