//! The audit trail.

use jiff::Timestamp;
use warren_service::Chain;
use warren_store::{AuditFilter, AuditRecord, NewAudit, StoreError};
use warren_types::TeamId;

use crate::Control;

/// Entries in one answer at most.
const MAX_ENTRIES: u32 = 1000;

/// Which entries are wanted, newest first. What is absent does not matter.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Of this team.
    pub team: Option<TeamId>,
    /// About this target.
    pub target: Option<String>,
    /// Of this request.
    pub request_id: Option<String>,
    /// What was done begins like this.
    pub action: Option<String>,
    /// Done by this kind of actor.
    pub actor: Option<String>,
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Only what was refused.
    pub refused: bool,
    /// The page after this one's end.
    pub next_token: Option<String>,
    /// At most this many; 1 to 1000.
    pub limit: Option<i64>,
}

/// Why the trail is not shown.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Not a number of entries.
    #[error("validation error: limit must be from 1 to {MAX_ENTRIES}")]
    Limit,
    /// Not one of ours.
    #[error("Invalid next token")]
    Token,
    /// The database failed.
    #[error("read the audit trail")]
    Store(#[from] StoreError),
}

impl Control {
    /// Writes down what a request did or was refused. A failure is told in the log: what
    /// was done can't be undone for it.
    pub async fn audit_request(&self, entry: NewAudit<'_>) {
        if let Err(error) = self.store.audit_insert(&entry).await {
            tracing::error!(
                error = %Chain(&error), action = entry.action, "an audit entry was not written"
            );
        }
    }

    /// Entries of the trail, newest first, and where the next page begins.
    ///
    /// # Errors
    /// [`AuditError`]
    pub async fn audit_list(
        &self,
        query: AuditQuery,
    ) -> Result<(Vec<AuditRecord>, Option<String>), AuditError> {
        let limit = query.limit.unwrap_or(100);
        let limit = u32::try_from(limit)
            .ok()
            .filter(|l| (1..=MAX_ENTRIES).contains(l));
        let limit = limit.ok_or(AuditError::Limit)?;
        let before = query.next_token.as_deref().map(str::parse).transpose();
        let mut entries = self
            .store
            .audit_list(&AuditFilter {
                team: query.team,
                target: query.target,
                request_id: query.request_id,
                action: query.action,
                actor: query.actor,
                since: query.since,
                refused: query.refused,
                before: before.map_err(|_| AuditError::Token)?,
                limit: limit + 1,
            })
            .await?;
        let limit = limit as usize;
        let next = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| next).map(|e| e.seq.to_string());
        Ok((entries, next))
    }
}
