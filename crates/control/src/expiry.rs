//! Forgetting what is old, and other work that can wait.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use warren_service::Chain;
use warren_store::{History, StoreError};

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

/// Forgets a batch at a time until there is nothing left to forget, or for long enough.
async fn in_batches<F>(mut forget: impl FnMut() -> F) -> Result<(), StoreError>
where
    F: Future<Output = Result<u64, StoreError>>,
{
    for _ in 0..BATCHES {
        if forget().await? < u64::from(BATCH) {
            break;
        }
    }
    Ok(())
}

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

    /// Forgets metrics, events, audit entries and ended sandboxes past what is kept by age and
    /// by size, old idempotency keys, and what builds left.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn purge(&self, now: Timestamp) -> Result<(), StoreError> {
        let before = |age| now.checked_sub(age).unwrap_or(Timestamp::MIN);
        let kept = self.config.history;
        let old = before(kept.metrics.age);
        in_batches(|| self.store.metrics_purge(old, BATCH)).await?;
        let old = before(self.config.retention);
        in_batches(|| self.store.sandbox_purge(old, BATCH)).await?;
        let old = before(kept.events.age);
        in_batches(|| self.store.event_purge(old, BATCH)).await?;
        let old = before(kept.audit.age);
        in_batches(|| self.store.audit_purge(old, BATCH)).await?;
        for (history, bytes) in [
            (History::Metrics, kept.metrics.bytes),
            (History::Events, kept.events.bytes),
            (History::Audit, kept.audit.bytes),
        ] {
            in_batches(|| self.store.history_trim(history, bytes, BATCH)).await?;
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
