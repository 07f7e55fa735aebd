//! What all requests share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use warren_connect::Timestamp;
use warren_service::{Secret, Tasks};

use crate::cli::Limits;
use crate::env::GlobalEnv;
use crate::filesystem::Watchers;
use crate::log::Log;
use crate::metrics::Meter;
use crate::process::{Reaper, Registry};

/// What `/init` changes.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Secret that authorises `/init`, if there is one. The host replaces it: an agent that
    /// goes on from a capture knows that of its copies.
    pub init_key: Option<Secret>,
    /// Token that requests must carry, if any.
    pub token: Option<Secret>,
    /// User of requests that name none.
    pub default_user: String,
    /// Directory of requests that name none.
    pub default_workdir: Option<String>,
    /// Variables of all processes.
    pub env: GlobalEnv,
    /// Time of the last applied `/init`.
    pub last_init: Option<Timestamp>,
}

/// How the agent was started.
#[derive(Debug)]
pub(crate) struct AgentConfig {
    /// Whether `/init` sets the machine's clock.
    pub set_clock: bool,
    /// What the host lets the sandbox use.
    pub limits: Limits,
    /// Search path of processes.
    pub path: String,
}

/// The agent's state.
#[derive(Debug)]
pub(crate) struct Agent {
    /// How it was started.
    pub config: AgentConfig,
    /// Log lines for the host.
    pub log: Log,
    /// Owner of all tasks.
    pub tasks: Tasks,
    /// Processes started through the agent.
    pub processes: Registry,
    /// Collects exit statuses.
    pub reaper: Arc<Reaper>,
    /// Watchers that outlive their connection.
    pub watchers: Watchers,
    /// Looks at what is in use.
    pub meter: Meter,
    /// Serialises `/init`.
    pub init_lock: tokio::sync::Mutex<()>,
    settings: Mutex<Settings>,
}

impl Agent {
    /// Makes the state before the first `/init`, which the secret authorises.
    #[must_use]
    pub(crate) fn new(config: AgentConfig, init_key: Option<Secret>, log: Log) -> Self {
        let limits = config.limits;
        let mut env = GlobalEnv::default();
        env.set_internal("E2B_SANDBOX", "true");
        Self {
            config,
            log,
            tasks: Tasks::new(),
            processes: Registry::default(),
            reaper: Arc::new(Reaper::default()),
            watchers: Watchers::default(),
            meter: Meter::new(limits),
            init_lock: tokio::sync::Mutex::new(()),
            settings: Mutex::new(Settings {
                init_key,
                token: None,
                default_user: "root".to_owned(),
                default_workdir: None,
                env,
                last_init: None,
            }),
        }
    }

    /// The settings. Hold the guard briefly and never across an await.
    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    /// The default working directory.
    #[must_use]
    pub(crate) fn default_workdir(&self) -> Option<String> {
        self.settings().default_workdir.clone()
    }
}

/// Locks a mutex whose data is valid after each statement, so a poisoned one is too.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
