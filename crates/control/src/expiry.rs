//! Forgetting what is old, and other work that can wait.

use std::time::Duration;

use jiff::Timestamp;
use warren_service::Chain;
use warren_store::StoreError;

use crate::Control;

/// How often the database's log is looked at and counts are written.
const TICK: Duration = Duration::from_secs(5);
/// Ticks between looking for things to forget.
const PURGE_TICKS: u32 = 24;
/// Rows forgotten in one statement, so that creates never wait long behind it.
const BATCH: u32 = 500;
/// Batches of a table in one go.
const BATCHES: u32 = 100;
/// Answers to idempotency keys are kept for as long.
const IDEMPOTENCY: Duration = Duration::from_secs(24 * 3600);

impl Control {
    pub(crate) async fn expire(&self) {
        let stop = self.tasks.stop_token().clone();
        let mut ticks = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.tidy(ticks % PURGE_TICKS == 0).await {
                tracing::error!(error = %Chain(&error), "tidying the database failed");
            }
            ticks = ticks.wrapping_add(1);
        }
    }

    async fn tidy(&self, purge: bool) -> Result<(), StoreError> {
        self.write_spawned().await?;
        self.write_uses().await?;
        self.store.checkpoint().await?;
        if purge {
            self.purge(Timestamp::now()).await?;
            self.collect_layers(Timestamp::now()).await?;
        }
        Ok(())
    }

    /// Forgets metrics, events, audit entries and ended sandboxes past the retention, old
    /// idempotency keys, and what builds left.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn purge(&self, now: Timestamp) -> Result<(), StoreError> {
        let before = |age| now.checked_sub(age).unwrap_or(Timestamp::MIN);
        let retention = before(self.config.retention);
        for _ in 0..BATCHES {
            if self.store.metrics_purge(retention, BATCH).await? < u64::from(BATCH) {
                break;
            }
        }
        for _ in 0..BATCHES {
            if self.store.sandbox_purge(retention, BATCH).await? < u64::from(BATCH) {
                break;
            }
        }
        for _ in 0..BATCHES {
            if self.store.event_purge(retention, BATCH).await? < u64::from(BATCH) {
                break;
            }
        }
        for _ in 0..BATCHES {
            if self.store.audit_purge(retention, BATCH).await? < u64::from(BATCH) {
                break;
            }
        }
        self.store.idempotency_purge(before(IDEMPOTENCY)).await?;
        self.tidy_builds(now).await
    }

    /// Writes the counts of sandboxes by template that have gathered.
    pub(crate) async fn write_spawned(&self) -> Result<(), StoreError> {
        let gathered = std::mem::take(
            &mut *self
                .spawned
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        for (template, (count, last)) in gathered {
            self.store.template_spawned(&template, count, last).await?;
        }
        Ok(())
    }
}
