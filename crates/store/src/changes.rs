//! What becomes of sandboxes, written down together with the event that tells of it.

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::{Sqlite, Transaction};
use warren_types::{EventKind, RunId, SandboxEnd, SandboxId};

use crate::error::query;
use crate::events::{self, SUBJECT, Subject};
use crate::sandboxes::{PAUSED, RUNNING, revision};
use crate::time::micros;
use crate::{PauseRecord, Store, StoreError};

/// What a pause or resume changes.
#[derive(Debug, Clone)]
pub struct SandboxChange {
    /// Raised by every pause and resume; older changes than what is known do nothing.
    pub revision: u64,
    /// When its last run started.
    pub started_at: Timestamp,
    /// When it ends, or was paused.
    pub end_at: Timestamp,
    /// What is kept of it, if it is paused.
    pub pause: Option<PauseRecord>,
}

impl Store {
    /// Has the deliveries looked at that were just written, if there are any.
    pub(crate) fn delivered_later(&self, told: bool) {
        if told {
            self.outbox.notify_one();
        }
    }

    /// Writes down a pause or resume, unless it is known or a newer one is. Returns whether
    /// it was written.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_change(
        &self,
        id: &SandboxId,
        change: &SandboxChange,
    ) -> Result<bool, StoreError> {
        const ACTION: &str = "change state of sandbox";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let before: Option<(String,)> = sqlx::query_as(
            "SELECT state FROM sandboxes WHERE id = $1 AND ended_at IS NULL AND revision < $2",
        )
        .bind(id.as_str())
        .bind(revision(change.revision))
        .fetch_optional(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        let Some((before,)) = before else {
            return Ok(false);
        };
        let pause = change.pause.as_ref();
        let state = if pause.is_some() { PAUSED } else { RUNNING };
        let run = pause.is_none().then(|| RunId::random().to_string());
        let statement = format!(
            "UPDATE sandboxes SET state = $2, started_at = $3, end_at = $4, revision = $5,
                                  pause_memory = $6, pause_note = $7,
                                  run_id = COALESCE($8, run_id),
                                  pause_agent_silent = $9
             WHERE id = $1 RETURNING {SUBJECT}"
        );
        let subject: Subject = sqlx::query_as(&statement)
            .bind(id.as_str())
            .bind(state)
            .bind(micros(change.started_at))
            .bind(micros(change.end_at))
            .bind(revision(change.revision))
            .bind(pause.map(|pause| i64::from(pause.memory)))
            .bind(pause.and_then(|pause| pause.note.as_deref()))
            .bind(run)
            .bind(i64::from(pause.is_some_and(|pause| pause.agent_silent)))
            .fetch_one(&mut *tx)
            .await
            .map_err(query(ACTION))?;
        let told = match pause {
            None => {
                let (at, data) = (change.started_at, subject.plain()?);
                events::write(&mut tx, &subject, EventKind::Resumed, at, &data).await?
            }
            Some(pause) if before == RUNNING => {
                let at = change.end_at;
                let mut data = subject.closed(at)?;
                let mode = if pause.memory { "full" } else { "filesystem" };
                data["pause_mode"] = json!(mode);
                events::write(&mut tx, &subject, EventKind::Paused, at, &data).await?
            }
            // Less is left of it than before; it is as paused as it was.
            Some(_) => false,
        };
        tx.commit().await.map_err(query(ACTION))?;
        self.delivered_later(told);
        Ok(true)
    }

    /// Marks a sandbox as ended. Returns whether it was known and had not ended: the
    /// first reason stays.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_end(&self, id: &SandboxId, end: &SandboxEnd) -> Result<bool, StoreError> {
        const ACTION: &str = "mark sandbox as ended";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let statement = format!(
            "UPDATE sandboxes SET ended_at = $2, end_reason = $3, memory_peak = $4
             WHERE id = $1 AND ended_at IS NULL RETURNING {SUBJECT}"
        );
        let subject: Option<Subject> = sqlx::query_as(&statement)
            .bind(id.as_str())
            .bind(micros(end.at))
            .bind(end.reason.as_str())
            .bind(end.memory_peak.map(bytes))
            .fetch_optional(&mut *tx)
            .await
            .map_err(query(ACTION))?;
        let Some(subject) = subject else {
            return Ok(false);
        };
        let data = subject.ended(end)?;
        let told = events::write(&mut tx, &subject, EventKind::Killed, end.at, &data).await?;
        tx.commit().await.map_err(query(ACTION))?;
        self.delivered_later(told);
        Ok(true)
    }

    /// Replaces the presumed end of a sandbox by what is known of it, in its event too.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_correct_end(
        &self,
        id: &SandboxId,
        end: &SandboxEnd,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "correct end of sandbox";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let statement = format!(
            "UPDATE sandboxes SET ended_at = $2, end_reason = $3, memory_peak = $4
             WHERE id = $1 RETURNING {SUBJECT}"
        );
        let subject: Option<Subject> = sqlx::query_as(&statement)
            .bind(id.as_str())
            .bind(micros(end.at))
            .bind(end.reason.as_str())
            .bind(end.memory_peak.map(bytes))
            .fetch_optional(&mut *tx)
            .await
            .map_err(query(ACTION))?;
        let Some(subject) = subject else {
            return Ok(());
        };
        sqlx::query("UPDATE events SET at = $2, data = $3 WHERE sandbox_id = $1 AND kind = $4")
            .bind(id.as_str())
            .bind(micros(end.at))
            .bind(subject.ended(end)?.to_string())
            .bind(EventKind::Killed.as_str())
            .execute(&mut *tx)
            .await
            .map_err(query(ACTION))?;
        tx.commit().await.map_err(query(ACTION))
    }

    /// Moves the end of a sandbox that has not ended, in the run that a revision names.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_set_end(
        &self,
        id: &SandboxId,
        end_at: Timestamp,
        run: u64,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "move end of sandbox";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let statement = format!(
            "UPDATE sandboxes SET end_at = $2
             WHERE id = $1 AND ended_at IS NULL AND revision = $3 AND end_at <> $2
             RETURNING {SUBJECT}"
        );
        let subject: Option<Subject> = sqlx::query_as(&statement)
            .bind(id.as_str())
            .bind(micros(end_at))
            .bind(revision(run))
            .fetch_optional(&mut *tx)
            .await
            .map_err(query(ACTION))?;
        self.updated(tx, ACTION, subject, ("set_timeout", json!(end_at)))
            .await
    }

    /// Replaces the network settings of a sandbox.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_set_network(
        &self,
        id: &SandboxId,
        allow_internet: Option<bool>,
        network: Option<&str>,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "set network of sandbox";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let statement = format!(
            "UPDATE sandboxes SET allow_internet = $2, network = $3 WHERE id = $1
             RETURNING {SUBJECT}"
        );
        let subject: Option<Subject> = sqlx::query_as(&statement)
            .bind(id.as_str())
            .bind(allow_internet.map(i64::from))
            .bind(network)
            .fetch_optional(&mut *tx)
            .await
            .map_err(query(ACTION))?;
        // Settings hold addresses and passwords of proxies: only that they changed is told.
        self.updated(tx, ACTION, subject, ("update_network", json!(true)))
            .await
    }

    /// Commits a change with its event; without a subject nothing was changed.
    async fn updated(
        &self,
        mut tx: Transaction<'_, Sqlite>,
        action: &'static str,
        subject: Option<Subject>,
        (field, value): (&str, Value),
    ) -> Result<(), StoreError> {
        let Some(subject) = subject else {
            return Ok(());
        };
        let data = subject.with(field, value)?;
        let now = Timestamp::now();
        let told = events::write(&mut tx, &subject, EventKind::Updated, now, &data).await?;
        tx.commit().await.map_err(query(action))?;
        self.delivered_later(told);
        Ok(())
    }
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
