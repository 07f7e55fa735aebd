//! After a start: what the database believes against what the node has.

use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

use jiff::Timestamp;
use warren_cluster::NodeError;
use warren_service::Chain;
use warren_store::{LiveSandbox, StoreError};
use warren_types::{EndReason, SandboxEnd, SandboxId};

use crate::Control;

/// What [`Control::reconcile`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Sandboxes that both sides know.
    pub adopted: usize,
    /// Rows whose sandbox is gone; marked as ended.
    pub ended: usize,
    /// Sandboxes that no client was ever told of; taken down.
    pub evicted: usize,
}

impl Control {
    /// Makes database and node agree. Call once, after the node has adopted what survived
    /// and before serving, with [`run`](Self::run) going: ends that the node tells of
    /// meanwhile have to be taken in.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn reconcile(&self) -> Result<Reconciled, StoreError> {
        self.store.idempotency_abandon().await?;
        self.recover_builds().await?;
        self.load_budgets().await?;
        let rows = self.store.sandbox_list_all_live().await?;
        // Counted before the node is asked: whatever ends from here on is either missing
        // in its answer or told later, and gives its place back.
        for row in &rows {
            self.adopt_claim(row);
        }
        let mut there: HashMap<_, _> = self
            .node
            .list()
            .await
            .into_iter()
            .map(|view| (view.id.clone(), view))
            .collect();
        let mut result = Reconciled::default();
        for LiveSandbox {
            id,
            end_at,
            paused,
            revision,
            ..
        } in rows
        {
            match there.remove(&id) {
                Some(view) => {
                    // Of a paused one this gives the place back, too.
                    self.follow_change(&view).await?;
                    if view.end_at != end_at && view.revision == revision {
                        self.store
                            .sandbox_set_end(&id, view.end_at, revision)
                            .await?;
                    }
                    result.adopted += 1;
                }
                None => {
                    self.presume_ended(&id, (!paused).then_some(end_at)).await?;
                    result.ended += 1;
                }
            }
        }
        for id in there.into_keys() {
            match self.node.end(&id, EndReason::Evicted).await {
                Ok(()) | Err(NodeError::NotFound(_) | NodeError::Ending(_)) => {
                    result.evicted += 1;
                }
                Err(error) => {
                    tracing::error!(
                        sandbox_id = %id, error = %Chain(&error),
                        "an unacknowledged sandbox could not be taken down"
                    );
                }
            }
        }
        self.sweep_captures().await?;
        Ok(result)
    }

    /// Ends a row whose sandbox is gone, and whose time ends at `end_at` unless it is paused.
    /// The reason is a guess that gives way to what the node tells.
    pub(crate) async fn presume_ended(
        &self,
        id: &SandboxId,
        end_at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let end = match end_at.filter(|end_at| *end_at <= now) {
            Some(end_at) => SandboxEnd::new(EndReason::TimedOut, end_at),
            None => SandboxEnd::new(EndReason::HostRestarted, now),
        };
        self.recent_ends.note(id, end);
        self.quota.release(id);
        // Noted first, so that a word of the node that comes in between finds the note.
        self.lock_presumed().insert(id.clone());
        let ended = self.write_end(id, &end).await;
        if !matches!(ended, Ok(true)) {
            self.lock_presumed().remove(id);
        }
        ended.map(|_| ())
    }

    pub(crate) fn lock_presumed(&self) -> MutexGuard<'_, HashSet<SandboxId>> {
        self.presumed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
