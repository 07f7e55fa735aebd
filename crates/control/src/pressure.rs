//! When the node is short of memory: sandboxes that traffic wakes again, and that do nothing,
//! are set aside before the kernel has to kill anything. The node then moves what is set
//! aside to the disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use warren_cluster::{NodeError, PauseSandbox};
use warren_service::Chain;
use warren_store::StoreError;
use warren_types::{MetricsPoint, SandboxId};

use crate::{Control, PauseError};

/// Use of its CPUs in percent from which on a sandbox counts as busy.
const BUSY_PCT: f64 = 1.0;
/// Sandboxes set aside in one go; then it is looked again whether memory is still short.
const AT_ONCE: usize = 4;

/// When idle sandboxes are set aside for lack of memory.
#[derive(Debug, Clone, Copy)]
pub struct PressureConfig {
    /// Below this share of available memory, in percent.
    pub min_available_pct: u8,
    /// A sandbox is idle after so long without use of its CPUs.
    pub idle_for: Duration,
    /// How often memory is looked at.
    pub look_every: Duration,
}

impl Default for PressureConfig {
    fn default() -> Self {
        Self {
            min_available_pct: 10,
            idle_for: Duration::from_secs(60),
            look_every: Duration::from_secs(5),
        }
    }
}

/// When sandboxes were last seen to do something.
#[derive(Debug, Default)]
pub(crate) struct Activity(Mutex<HashMap<SandboxId, Timestamp>>);

impl Activity {
    pub(crate) fn note(&self, samples: &[(SandboxId, MetricsPoint)]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, point) in samples {
            if point.cpu_used_pct >= BUSY_PCT {
                seen.insert(id.clone(), point.at);
            }
        }
    }

    pub(crate) fn forget(&self, id: &SandboxId) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(id);
    }

    fn last(&self, id: &SandboxId) -> Option<Timestamp> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(id).copied()
    }
}

impl Control {
    /// Looks after the node's memory until the server stops.
    pub(crate) async fn watch_memory(self: &Arc<Self>) {
        let config = self.config.pressure;
        let stop = self.tasks.stop_token().clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(config.look_every) => {}
                () = stop.cancelled() => return,
            }
            let available = self.node.load().await.available_pct;
            if available.is_none_or(|pct| pct >= config.min_available_pct) {
                continue;
            }
            if let Err(error) = self.set_idle_aside(config).await {
                tracing::error!(error = %Chain(&error), "idle sandboxes were not set aside");
            }
        }
    }

    async fn set_idle_aside(&self, config: PressureConfig) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let before = now.checked_sub(config.idle_for).unwrap_or(now);
        let mut idle: Vec<_> = self
            .store
            .sandbox_list_wakeable()
            .await?
            .into_iter()
            .map(|(id, started_at)| (self.activity.last(&id).unwrap_or(started_at), id))
            .filter(|(seen, _)| *seen <= before)
            .collect();
        idle.sort();
        for (_, id) in idle.into_iter().take(AT_ONCE) {
            // What can't be taken up again must not be set aside unasked.
            let request = PauseSandbox {
                memory: true,
                healthy_guest: true,
            };
            match self.node.pause(&id, request).await {
                Ok(view) => {
                    self.follow_change(&view).await?;
                    tracing::info!(sandbox_id = %id, "set aside an idle sandbox: memory is short");
                }
                Err(NodeError::Paused(_) | NodeError::NotFound(_) | NodeError::Ending(_)) => {}
                Err(error) => {
                    let error = PauseError::failed(&id, Box::new(error));
                    tracing::warn!(error = %Chain(&error), "memory is short");
                }
            }
        }
        Ok(())
    }
}
