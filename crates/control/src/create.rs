//! Making a sandbox.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use warren_cluster::{CreateSandbox, SandboxView};
use warren_service::Chain;
use warren_store::{MountRecord, SandboxRecord, StoreError};
use warren_types::{EndReason, OnTimeout, SandboxId, SandboxState};

use crate::identity::audiences;
use crate::limits::claim;
use crate::templates::Resolved;
use crate::{Caller, Control, CreateError, IamToken, NetworkSettings, Sandbox, Team, TimeoutError};

/// Life of a sandbox in seconds where a version 1 request names none.
pub const VERSION_1_TIMEOUT_S: i64 = 15;
/// The same in version 2.
pub const VERSION_2_TIMEOUT_S: i64 = 300;

/// Labels of a sandbox together.
const MAX_METADATA: usize = 256 * 1024;
/// Variables of a sandbox together; the kernel takes 2 MiB with the arguments.
const MAX_ENV: usize = 1024 * 1024;
/// MCP settings, which are kept with the sandbox.
const MAX_MCP: usize = 1024 * 1024;

/// A request for a sandbox.
#[derive(Debug, Clone, Default)]
pub struct NewSandbox {
    /// Name or id of a template, with optional tag.
    pub template: String,
    /// Seconds from the moment it is usable until it ends.
    pub timeout_s: i64,
    /// Labels.
    pub metadata: BTreeMap<String, String>,
    /// Variables of every process.
    pub env: BTreeMap<String, String>,
    /// Pause at time-out instead of end.
    pub auto_pause: bool,
    /// Whether that pause keeps memory, if said.
    pub auto_pause_memory: Option<bool>,
    /// Resume when traffic arrives.
    pub auto_resume: bool,
    /// Require a token on the agent.
    pub secure: bool,
    /// False denies all egress.
    pub allow_internet: Option<bool>,
    /// Network settings, if any were given.
    pub network: Option<NetworkSettings>,
    /// Volumes to mount.
    pub volume_mounts: Vec<MountRecord>,
    /// Workload tokens that header rules can name.
    pub iam_tokens: BTreeMap<String, IamToken>,
    /// MCP settings in JSON, kept as they are.
    pub mcp: Option<String>,
}

impl Control {
    /// Makes a sandbox; it is usable on return. Must run to its end once begun: see
    /// [`Control::tasks`].
    ///
    /// # Errors
    /// [`CreateError`]; nothing is left behind.
    #[tracing::instrument(
        name = "create", skip_all,
        fields(template_id = tracing::field::Empty, sandbox_id = tracing::field::Empty)
    )]
    pub async fn create(
        &self,
        caller: &Caller,
        mut request: NewSandbox,
    ) -> Result<Sandbox, CreateError> {
        let team = &caller.team;
        let timeout = self.check(team, &request)?;
        let mut network = request.network.take().unwrap_or_default();
        network.tokens = audiences(&request.iam_tokens)?;
        let policy = self
            .network(team.id, &mut network, request.allow_internet)
            .await?;
        let resolved = self.resolve(team, &request.template).await?;
        let span = tracing::Span::current();
        span.record("template_id", resolved.image.template_id.as_str());
        let mounts = self.mounts(team, &request.volume_mounts).await?;
        self.takes_sandboxes().map_err(CreateError::Node)?;
        let place = self
            .quota
            .reserve(claim(caller, &resolved.image.resources))?;
        let private_traffic = network.allow_public_traffic == Some(false);
        let began = Instant::now();
        let made = self
            .node
            .create(CreateSandbox {
                image: resolved.image.clone(),
                timeout,
                env: request.env.clone(),
                // Without this token nobody can reach a secured agent.
                access_token: request.secure.then(|| self.config.token_key.clone()),
                network: policy,
                private_traffic,
                on_timeout: on_timeout(&request),
                mounts,
            })
            .await;
        self.node_state.count(&made);
        self.meters.create(made.is_ok(), began.elapsed());
        let view = made.map_err(CreateError::Node)?;
        let id = view.id.clone();
        span.record("sandbox_id", id.as_str());
        place.keep(id.clone(), view.revision);
        request.network = Some(network);
        let record = record(caller, &request, &resolved, view, private_traffic);
        self.enrol(&record).await?;
        Ok(self.sandbox(record))
    }

    /// Writes down a sandbox that the node made; takes it down if that fails.
    #[tracing::instrument(name = "enrol", skip_all)]
    pub(crate) async fn enrol(&self, record: &SandboxRecord) -> Result<(), StoreError> {
        let id = &record.id;
        if let Err(error) = self.store.sandbox_insert(record).await {
            self.abandon(id).await;
            return Err(error);
        }
        self.apply_early_end(id).await?;
        self.settle(id, record.revision).await?;
        self.count_spawn(record);
        Ok(())
    }

    /// Everything that can be refused without looking anything up.
    fn check(&self, team: &Team, request: &NewSandbox) -> Result<Duration, CreateError> {
        let timeout = check_timeout(team, request.timeout_s)?;
        if request.auto_pause_memory == Some(false) {
            if !request.auto_pause {
                return Err(CreateError::AutoPauseMemory);
            }
            if request.auto_resume {
                return Err(CreateError::AutoPauseResume);
            }
        }
        let private = request
            .network
            .as_ref()
            .is_some_and(NetworkSettings::is_private);
        if private && !request.secure {
            return Err(CreateError::PrivateNeedsSecure);
        }
        if !request.iam_tokens.is_empty() && self.config.identity.is_none() {
            return Err(CreateError::Iam);
        }
        check_env(&request.env)?;
        check_size("metadata", size(&request.metadata), MAX_METADATA)?;
        check_size("envVars", size(&request.env), MAX_ENV)?;
        check_size("mcp", request.mcp.as_ref().map_or(0, String::len), MAX_MCP)?;
        Ok(timeout)
    }

    /// Takes down a sandbox that could not be recorded.
    async fn abandon(&self, id: &SandboxId) {
        if let Err(error) = self.node.end(id, EndReason::Evicted).await {
            tracing::error!(sandbox_id = %id, error = %Chain(&error), "unrecorded sandbox left");
        }
        self.quota.release(id);
        self.take_early_end(id);
    }

    fn count_spawn(&self, record: &SandboxRecord) {
        let mut spawned = self.spawned.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = spawned
            .entry(record.template_id.clone())
            .or_insert((0, record.started_at));
        entry.0 += 1;
        entry.1 = record.started_at;
    }
}

/// Checks a life time in seconds against the team's maximum.
pub(crate) fn check_timeout(team: &Team, seconds: i64) -> Result<Duration, TimeoutError> {
    let seconds = u64::try_from(seconds).ok().filter(|s| *s > 0);
    let timeout = Duration::from_secs(seconds.ok_or(TimeoutError::NotPositive)?);
    if timeout > team.max_length {
        return Err(TimeoutError::TooLong {
            hours: team.max_length.as_secs() / 3600,
        });
    }
    Ok(timeout)
}

fn on_timeout(request: &NewSandbox) -> OnTimeout {
    if request.auto_pause {
        OnTimeout::Pause {
            memory: request.auto_pause_memory.unwrap_or(true),
        }
    } else {
        OnTimeout::End
    }
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), CreateError> {
    let bad = env.iter().find(|(name, value)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    });
    bad.map_or(Ok(()), |(name, _)| Err(CreateError::EnvVar(name.clone())))
}

fn check_size(field: &'static str, size: usize, limit: usize) -> Result<(), CreateError> {
    if size > limit {
        Err(CreateError::TooLarge { field, limit })
    } else {
        Ok(())
    }
}

fn size(map: &BTreeMap<String, String>) -> usize {
    map.iter()
        .map(|(key, value)| key.len() + value.len() + 2)
        .sum()
}

fn record(
    caller: &Caller,
    request: &NewSandbox,
    resolved: &Resolved,
    view: SandboxView,
    private_traffic: bool,
) -> SandboxRecord {
    let stored = request
        .network
        .as_ref()
        .filter(|network| !network.is_empty());
    SandboxRecord {
        id: view.id,
        team_id: caller.team.id,
        key_id: caller.key,
        template_id: view.template_id,
        build_id: view.build_id,
        alias: resolved.alias.clone(),
        state: SandboxState::Running,
        started_at: micros(view.started_at),
        end_at: micros(view.end_at),
        ended_at: None,
        end_reason: None,
        memory_peak: None,
        cpu_count: view.resources.cpu_count,
        memory_mib: view.resources.memory_mib,
        disk_mib: view.resources.disk_mib,
        metadata: request.metadata.clone(),
        secure: request.secure,
        private_traffic,
        allow_internet: request.allow_internet,
        network: stored.map(NetworkSettings::to_stored),
        auto_pause: request.auto_pause,
        auto_resume: request.auto_resume,
        mcp: request.mcp.clone(),
        revision: view.revision,
        pause: None,
        auto_pause_memory: request.auto_pause_memory.unwrap_or(true),
        timeout_s: u32::try_from(request.timeout_s).unwrap_or(u32::MAX),
        volume_mounts: request.volume_mounts.clone(),
    }
}

/// Cuts a time to what the database keeps, so that it is the same in every answer.
pub(crate) fn micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}
