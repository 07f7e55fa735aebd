//! The life of a sandbox after it was made.

use jiff::Timestamp;
use warren_cluster::{Deadline, NodeError, SandboxView};
use warren_store::SandboxRecord;
use warren_types::{EndReason, SandboxEnd, SandboxId, SandboxState};

use crate::sandbox::{later, latest_end};
use crate::{Caller, Control, NetworkUpdate, Sandbox, SandboxError};

/// A refresh extends by no less, in seconds.
const MIN_REFRESH_S: u64 = 15;

impl Control {
    /// A sandbox of the caller's team. Whoever may only read is not told its tokens.
    ///
    /// # Errors
    /// [`SandboxError::NotFound`] if it is unknown, ended or another team's;
    /// [`SandboxError::Store`].
    pub async fn get(&self, caller: &Caller, id: &SandboxId) -> Result<Sandbox, SandboxError> {
        let record = self.now(self.live(caller, id).await?).await;
        let record = record.ok_or_else(|| SandboxError::NotFound(id.clone()))?;
        let mut sandbox = self.sandbox(record);
        if caller.is_read_only() {
            sandbox.access_token = None;
            sandbox.traffic_token = None;
        }
        Ok(sandbox)
    }

    /// Ends a sandbox; it is neither reachable nor listed on return.
    ///
    /// # Errors
    /// [`SandboxError`]
    pub async fn kill(&self, caller: &Caller, id: &SandboxId) -> Result<(), SandboxError> {
        let record = self.live(caller, id).await?;
        match self.node.end(id, EndReason::Killed).await {
            // Somebody else is ending it: gone all the same.
            Ok(()) | Err(NodeError::Ending(_)) => {}
            Err(error) => return Err(self.refused(&record, error).await),
        }
        self.quota.release(id);
        let end = SandboxEnd::new(EndReason::Killed, Timestamp::now());
        self.write_end(id, &end).await?;
        Ok(())
    }

    /// Makes a sandbox end in `seconds` from now, sooner or later than before; no later
    /// than its team may have it.
    ///
    /// # Errors
    /// [`SandboxError`]
    pub async fn set_timeout(
        &self,
        caller: &Caller,
        id: &SandboxId,
        seconds: u64,
    ) -> Result<(), SandboxError> {
        let record = self.running(caller, id).await?;
        let end = capped(caller, &record, seconds)?;
        self.move_end(&record, Deadline::Set(end)).await?;
        Ok(())
    }

    /// Makes a sandbox live for `seconds` from now at least.
    ///
    /// # Errors
    /// [`SandboxError`]
    pub async fn refresh(
        &self,
        caller: &Caller,
        id: &SandboxId,
        seconds: u64,
    ) -> Result<(), SandboxError> {
        let record = self.running(caller, id).await?;
        let end = capped(caller, &record, seconds.max(MIN_REFRESH_S))?;
        self.move_end(&record, Deadline::Extend(end)).await?;
        Ok(())
    }

    /// Replaces what may leave a sandbox.
    ///
    /// # Errors
    /// [`SandboxError`]
    pub async fn set_network(
        &self,
        caller: &Caller,
        id: &SandboxId,
        update: NetworkUpdate,
    ) -> Result<(), SandboxError> {
        let record = self.running(caller, id).await?;
        let current = self.sandbox(record.clone()).network.unwrap_or_default();
        let allow_internet = update.allow_internet.or(record.allow_internet);
        let mut settings = update.apply_to(current);
        let config = self
            .network(caller.team.id, &mut settings, allow_internet)
            .await?;
        if let Err(error) = self.node.set_egress(id, config.egress).await {
            return Err(self.refused(&record, error).await);
        }
        let stored = (!settings.is_empty()).then(|| settings.to_stored());
        self.store
            .sandbox_set_network(id, allow_internet, stored.as_deref())
            .await?;
        Ok(())
    }

    pub(crate) async fn live(
        &self,
        caller: &Caller,
        id: &SandboxId,
    ) -> Result<SandboxRecord, SandboxError> {
        let record = self.store.sandbox_get(caller.team.id, id).await?;
        let record = record.ok_or_else(|| SandboxError::NotFound(id.clone()))?;
        match record.ended_at.zip(record.end_reason) {
            None => Ok(record),
            Some((at, reason)) => Err(SandboxError::Ended {
                id: id.clone(),
                end: SandboxEnd {
                    reason,
                    at,
                    memory_peak: record.memory_peak,
                },
            }),
        }
    }

    async fn running(
        &self,
        caller: &Caller,
        id: &SandboxId,
    ) -> Result<SandboxRecord, SandboxError> {
        let record = self.live(caller, id).await?;
        if record.state == SandboxState::Running {
            Ok(record)
        } else {
            Err(SandboxError::NotFound(id.clone()))
        }
    }

    async fn move_end(
        &self,
        record: &SandboxRecord,
        to: Deadline,
    ) -> Result<SandboxView, SandboxError> {
        match self.node.set_deadline(&record.id, to).await {
            Ok(view) => {
                self.store
                    .sandbox_set_end(&record.id, view.end_at, view.revision)
                    .await?;
                Ok(view)
            }
            Err(error) => Err(self.refused(record, error).await),
        }
    }

    /// Sorts a node's refusal. A sandbox that the node does not know has ended; should its
    /// word of that be lost, the row must not stay alive for ever.
    pub(crate) async fn refused(&self, record: &SandboxRecord, error: NodeError) -> SandboxError {
        let end_at = (record.state != SandboxState::Paused).then_some(record.end_at);
        if let NodeError::NotFound(id) = &error
            && let Err(error) = self.presume_ended(id, end_at).await
        {
            return error.into();
        }
        SandboxError::from_node(error)
    }
}

/// A moment `seconds` from now, or the last one that the team may have the sandbox.
fn capped(
    caller: &Caller,
    record: &SandboxRecord,
    seconds: u64,
) -> Result<Timestamp, SandboxError> {
    let now = Timestamp::now();
    let latest = latest_end(record.started_at, caller.team.max_length);
    if now >= latest {
        return Err(SandboxError::MaxLength);
    }
    Ok(later(now, seconds).min(latest))
}
