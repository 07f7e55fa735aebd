//! The object that holds what use cases need.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use warren_cluster::{BuildImage, NodeHandle};
use warren_service::{Secret, Tasks};
use warren_store::Store;
use warren_types::{EndReason, SandboxId, TemplateId};

use crate::auth::KeyCache;
use crate::quota::Quota;
use crate::templates::ResolveCache;

/// What a team may do unless its own record says otherwise.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sandboxes of a team at a time.
    pub max_sandboxes: u32,
    /// Longest life of a sandbox.
    pub max_length: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sandboxes: 1000,
            max_length: Duration::from_secs(24 * 3600),
        }
    }
}

/// Settings of [`Control`].
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Key that tokens of sandboxes are derived from; must never change.
    pub token_key: Secret,
    /// Domain under which sandboxes are reached, with a port unless it is 443.
    pub domain: Option<String>,
    /// What teams may do.
    pub limits: Limits,
    /// How long metrics and ended sandboxes are remembered.
    pub retention: Duration,
}

impl ControlConfig {
    /// Default limits, seven days of history, no domain.
    #[must_use]
    pub fn new(token_key: Secret) -> Self {
        Self {
            token_key,
            domain: None,
            limits: Limits::default(),
            retention: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// The use cases.
pub struct Control {
    pub(crate) config: ControlConfig,
    pub(crate) store: Store,
    pub(crate) node: Arc<dyn NodeHandle>,
    pub(crate) tasks: Tasks,
    pub(crate) keys: KeyCache,
    pub(crate) builds: ResolveCache,
    pub(crate) quota: Arc<Quota>,
    /// Ends that were told before their sandbox had a row.
    pub(crate) early_ends: Mutex<HashMap<SandboxId, (EndReason, Timestamp)>>,
    /// Sandboxes found gone after a start, whose reason the node may still tell.
    pub(crate) presumed: Mutex<HashSet<SandboxId>>,
    /// Sandboxes made since the last time the templates' counts were written.
    pub(crate) spawned: Mutex<HashMap<TemplateId, (u32, Timestamp)>>,
    /// Builds kept warm, by template.
    pub(crate) warm: Mutex<HashMap<TemplateId, BuildImage>>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("config", &self.config)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// Joins database and node. Call [`bootstrap`](Self::bootstrap), [`run`](Self::run) and
    /// [`reconcile`](Self::reconcile) before serving.
    #[must_use]
    pub fn new(config: ControlConfig, store: Store, node: Arc<dyn NodeHandle>) -> Arc<Self> {
        Arc::new(Self {
            config,
            store,
            node,
            tasks: Tasks::new(),
            keys: KeyCache::default(),
            builds: ResolveCache::default(),
            quota: Arc::default(),
            early_ends: Mutex::default(),
            presumed: Mutex::default(),
            spawned: Mutex::default(),
            warm: Mutex::default(),
        })
    }

    /// The group that work outliving its client's connection runs in.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Stops the background work and waits for requests under way, at most `limit`.
    /// Returns how many were cut.
    pub async fn stop(&self, limit: Duration) -> usize {
        let cut = self.tasks.stop(limit).await;
        if let Err(error) = self.write_spawned().await {
            tracing::warn!(error = %warren_service::Chain(&error), "counts of sandboxes lost");
        }
        self.store.close().await;
        cut
    }
}
