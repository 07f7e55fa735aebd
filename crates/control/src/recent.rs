//! What lists show of many sandboxes at once.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use warren_types::{MetricsPoint, SandboxId};

use crate::{Caller, Control, ObserveError};

/// Sandboxes of one question.
const MOST: usize = 100;

impl Control {
    /// The figures of several sandboxes over the last while, oldest first; unknown ones are
    /// left out.
    ///
    /// # Errors
    /// [`ObserveError`]
    pub async fn metrics_recent(
        &self,
        caller: &Caller,
        ids: &[SandboxId],
        span: Duration,
    ) -> Result<BTreeMap<SandboxId, Vec<MetricsPoint>>, ObserveError> {
        if ids.len() > MOST {
            return Err(ObserveError::TooMany(MOST));
        }
        let now = Timestamp::now();
        let from = now.checked_sub(span).unwrap_or(Timestamp::MIN);
        Ok(self.store.metrics_recent(caller.team.id, ids, from).await?)
    }
}
