//! The object that holds what use cases need.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use warren_cluster::{BuildImage, NodeHandle};
use warren_service::{Secret, Tasks};
use warren_store::Store;
use warren_types::{Budget, SandboxEnd, SandboxId, TemplateId};
use warren_volume::Volumes;

use crate::auth::KeyCache;
use crate::build::{BuildConfig, Builds};
use crate::events::RecentEnds;
use crate::identity::Identity;
use crate::meters::Meters;
use crate::network::ProxyCheck;
use crate::nodes::NodeState;
use crate::pause::Gates;
use crate::pressure::{Activity, PressureConfig};
use crate::quota::Quota;
use crate::secrets::Sealer;
use crate::snapshots::OpenCaptures;
use crate::templates::ResolveCache;
use crate::wake::Wakes;
use crate::webhooks::WebhookConfig;

/// What a team may do unless its own record says otherwise.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sandboxes of a team at a time.
    pub max_sandboxes: u32,
    /// Longest life of a sandbox.
    pub max_length: Duration,
    /// Builds of a team that wait or run at a time.
    pub max_builds: u32,
    /// CPUs of a template's sandboxes.
    pub max_cpus: u32,
    /// Memory of a template's sandboxes in MiB.
    pub max_memory_mib: u32,
    /// Disk of a template's sandboxes in MiB where no more is asked for.
    pub disk_mib: u32,
    /// The most that can be asked for.
    pub max_disk_mib: u32,
    /// How long a build may wait for its start.
    pub build_wait: Duration,
    /// How long a build may run.
    pub build_time: Duration,
    /// What a team may have at a time beside its number of sandboxes, which
    /// [`max_sandboxes`](Self::max_sandboxes) is.
    pub team: Budget,
    /// What an API key may have at a time.
    pub key: Budget,
}

impl Limits {
    fn quota(&self) -> Quota {
        let team = Budget {
            sandboxes: Some(self.max_sandboxes),
            ..self.team
        };
        Quota::new(team, self.key)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sandboxes: 1000,
            max_length: Duration::from_secs(24 * 3600),
            max_builds: 20,
            max_cpus: 8,
            max_memory_mib: 8096,
            disk_mib: 10 * 1024,
            max_disk_mib: 25_000,
            build_wait: Duration::from_secs(40 * 60),
            build_time: Duration::from_secs(3600),
            team: Budget::default(),
            key: Budget::default(),
        }
    }
}

/// How long and how much is kept of something that grows with time; whichever is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// As long.
    pub age: Duration,
    /// About as many bytes.
    pub bytes: u64,
}

/// How much is kept of what grows with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Figures of sandboxes.
    pub metrics: Keep,
    /// Lifecycle events and their deliveries.
    pub events: Keep,
    /// The audit trail.
    pub audit: Keep,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        let keep = |days: u64, mib: u64| Keep {
            age: Duration::from_secs(days * 24 * 3600),
            bytes: mib << 20,
        };
        Self {
            metrics: keep(7, 1024),
            events: keep(7, 256),
            audit: keep(90, 256),
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
    /// How long ended sandboxes and logs of builds are remembered.
    pub retention: Duration,
    /// How much is kept of what grows with time.
    pub history: HistoryLimits,
    /// Give sandboxes the variables that their template's build ended with.
    pub template_env: bool,
    /// What builds need; without it there are none.
    pub build: Option<BuildConfig>,
    /// Where the content of volumes is kept; without it there are none.
    pub volumes: Option<Arc<Volumes>>,
    /// What seals the values of secrets; without it there are none.
    pub sealer: Option<Arc<dyn Sealer>>,
    /// What makes workload tokens; without it there are none.
    pub identity: Option<Arc<Identity>>,
    /// Looks at the egress proxies that clients name; without it all are taken.
    pub proxies: Option<Arc<dyn ProxyCheck>>,
    /// How often volumes that are kept in a bucket are written back.
    pub write_back_every: Duration,
    /// How events are sent to webhooks; without it there are no webhooks.
    pub webhooks: Option<WebhookConfig>,
    /// When idle sandboxes are set aside for lack of memory.
    pub pressure: PressureConfig,
}

impl ControlConfig {
    /// Default limits, seven days of history, no domain, no builds.
    #[must_use]
    pub fn new(token_key: Secret) -> Self {
        Self {
            token_key,
            domain: None,
            limits: Limits::default(),
            retention: Duration::from_secs(7 * 24 * 3600),
            history: HistoryLimits::default(),
            template_env: true,
            build: None,
            volumes: None,
            sealer: None,
            identity: None,
            proxies: None,
            write_back_every: Duration::from_secs(30),
            webhooks: None,
            pressure: PressureConfig::default(),
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
    pub(crate) node_state: NodeState,
    pub(crate) meters: Meters,
    pub(crate) gates: Gates,
    pub(crate) captures: Arc<OpenCaptures>,
    pub(crate) wakes: Wakes,
    /// Ends that were told before their sandbox had a row.
    pub(crate) early_ends: Mutex<HashMap<SandboxId, SandboxEnd>>,
    pub(crate) recent_ends: RecentEnds,
    pub(crate) activity: Activity,
    /// Sandboxes found gone after a start, whose reason the node may still tell.
    pub(crate) presumed: Mutex<HashSet<SandboxId>>,
    /// Sandboxes made since the last time the templates' counts were written.
    pub(crate) spawned: Mutex<HashMap<TemplateId, (u32, Timestamp)>>,
    /// Builds kept warm, by template.
    pub(crate) warm: Mutex<HashMap<TemplateId, BuildImage>>,
    /// Names of the operator's templates that are not there yet, and why.
    pub(crate) unprepared: Mutex<HashMap<String, String>>,
    pub(crate) building: Option<Arc<Builds>>,
    /// Held by whoever changes the state of a build.
    pub(crate) build_turn: tokio::sync::Mutex<()>,
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
        let building = config
            .build
            .as_ref()
            .map(|build| Arc::new(Builds::new(build)));
        let quota = Arc::new(config.limits.quota());
        Arc::new(Self {
            config,
            store,
            node,
            tasks: Tasks::new(),
            keys: KeyCache::default(),
            builds: ResolveCache::default(),
            quota,
            node_state: NodeState::default(),
            meters: Meters::default(),
            gates: Gates::default(),
            captures: Arc::default(),
            wakes: Wakes::default(),
            early_ends: Mutex::default(),
            recent_ends: RecentEnds::default(),
            activity: Activity::default(),
            presumed: Mutex::default(),
            spawned: Mutex::default(),
            warm: Mutex::default(),
            unprepared: Mutex::default(),
            building,
            build_turn: tokio::sync::Mutex::default(),
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
        if let Err(error) = self.write_uses().await {
            tracing::warn!(error = %warren_service::Chain(&error), "last uses of keys lost");
        }
        self.store.close().await;
        cut
    }
}
