//! What is said between `control` and a node.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use warren_service::Secret;
use warren_types::{
    BuildId, CaptureKind, LogLevel, MetricsPoint, NetworkConfig, OnTimeout, Resources, SandboxEnd,
    SandboxId, SandboxState, StartCommand, TemplateId, VolumeId,
};

/// What a node needs to know of a template build to start sandboxes from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildImage {
    /// The template.
    pub template_id: TemplateId,
    /// The build of it.
    pub build_id: BuildId,
    /// Digests of its layers in the layer store, lowest first.
    pub layers: Vec<String>,
    /// Limits of its sandboxes.
    pub resources: Resources,
    /// User that commands run as unless the request names one.
    pub default_user: String,
    /// Directory that commands start in; the user's home if unset.
    pub default_workdir: Option<String>,
    /// Variables of every process, below those of the create request.
    pub env: BTreeMap<String, String>,
    /// What its sandboxes have running before they are handed out.
    #[serde(default)]
    pub start: Option<StartCommand>,
    /// For a build that was made from a sandbox: what was captured of it. The node keeps
    /// the capture under the build's id.
    #[serde(default)]
    pub capture: Option<CaptureKind>,
}

/// A request for a new sandbox.
#[derive(Debug, Clone)]
pub struct CreateSandbox {
    /// What it is made from.
    pub image: BuildImage,
    /// Time from the moment it is usable until it ends.
    pub timeout: Duration,
    /// Variables of every process in it.
    pub env: BTreeMap<String, String>,
    /// Derives the token that the agent requires, from the id that the node chose.
    /// `None` leaves the agent open.
    pub access_token: Option<TokenKey>,
    /// Network settings. A traffic token is wanted when
    /// [`private_traffic`](Self::private_traffic) is set; the node derives it.
    pub network: NetworkConfig,
    /// Require a traffic token on all ports but the agent's.
    pub private_traffic: bool,
    /// What happens when its time runs out.
    pub on_timeout: OnTimeout,
    /// Volumes to mount, in this order.
    pub mounts: Vec<VolumeMount>,
}

/// A request to set a sandbox aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseSandbox {
    /// Whether its processes and their memory are kept.
    pub memory: bool,
    /// Refuse unless the agent answers.
    pub healthy_guest: bool,
}

/// A request to have a sandbox running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeSandbox {
    /// Time from the moment that it runs until it ends. Of one that runs already, the end
    /// is moved only if that makes its life longer.
    pub timeout: Duration,
    /// Longest life from the start of a run.
    pub max_length: Duration,
    /// Take up its processes and memory, if they were kept; boot from its files otherwise.
    pub memory: bool,
    /// Replaces what happens when its time runs out.
    pub on_timeout: Option<OnTimeout>,
}

/// Answer to [`ResumeSandbox`].
#[derive(Debug, Clone)]
pub struct Resumed {
    /// The sandbox, running.
    pub view: SandboxView,
    /// Whether it ran before.
    pub was_running: bool,
}

/// A capture that was taken.
#[derive(Debug, Clone)]
pub struct Captured {
    /// What a build made from it boots from; its build id is the capture's.
    pub image: BuildImage,
    /// Bytes that it takes on the node.
    pub bytes: u64,
}

/// What is kept of a paused sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseView {
    /// When it was set aside.
    pub at: Timestamp,
    /// Whether its processes and memory were kept.
    pub memory: bool,
    /// Why less was kept than was asked for.
    pub note: Option<String>,
    /// Its agent did not answer when its memory was kept: from that it can't be resumed.
    pub agent_silent: bool,
}

/// A volume in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Which.
    pub volume: VolumeId,
    /// Absolute path in the sandbox; made if missing.
    pub path: String,
    /// Refuse writes.
    pub read_only: bool,
}

/// Key that tokens of a sandbox are derived from: HMAC-SHA-256 of the sandbox id (agent)
/// and of `sandbox-traffic-` and the id (traffic), in lower-case hex.
pub type TokenKey = Secret;

/// A sandbox as its node sees it.
#[derive(Debug, Clone)]
pub struct SandboxView {
    /// Its id.
    pub id: SandboxId,
    /// Template it was made from.
    pub template_id: TemplateId,
    /// Build it was made from.
    pub build_id: BuildId,
    /// Where it is in its life.
    pub state: SandboxState,
    /// When it became usable.
    pub started_at: Timestamp,
    /// When it ends.
    pub end_at: Timestamp,
    /// Its limits.
    pub resources: Resources,
    /// Token that the agent requires.
    pub access_token: Option<Secret>,
    /// Token that its other ports require.
    pub traffic_access_token: Option<Secret>,
    /// Isolation tier: `namespace`.
    pub tier: &'static str,
    /// Raised by every pause and resume: of two views, the one with more is newer.
    pub revision: u64,
    /// What is kept of it, while it is paused.
    pub pause: Option<PauseView>,
}

/// A change of a sandbox's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Ends at this moment, sooner or later than before.
    Set(Timestamp),
    /// Ends at this moment or when it would have, whichever is later.
    Extend(Timestamp),
}

/// Which log lines are wanted.
#[derive(Debug, Clone)]
pub struct LogQuery {
    /// Inclusive: forward lists from here on, backward from here back.
    pub from: Option<Timestamp>,
    /// At most this many.
    pub limit: usize,
    /// Newest first.
    pub backward: bool,
    /// This severity and above.
    pub min_level: Option<LogLevel>,
    /// Inclusive: where it stops, in the direction of reading.
    pub until: Option<Timestamp>,
    /// Only lines of this source.
    pub logger: Option<String>,
    /// Only lines whose message holds this text.
    pub search: Option<String>,
}

/// What a node tells on its own.
#[derive(Debug, Clone)]
pub enum NodeEvent {
    /// A sandbox ended, for whatever reason. Told once for each sandbox that had started.
    Ended {
        /// Which.
        id: SandboxId,
        /// How.
        end: SandboxEnd,
    },
    /// A sandbox was paused or resumed, or less is left of a paused one than before.
    Changed(Box<SandboxView>),
    /// New samples of running sandboxes.
    Metrics(Vec<(SandboxId, MetricsPoint)>),
}

/// How full a node is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeLoad {
    /// Sandboxes that run for clients.
    pub running: usize,
    /// Sandboxes set aside.
    pub paused: usize,
    /// Booted ones that wait for a create.
    pub warm: usize,
    /// Share of memory that is available, in percent, where that is known.
    pub available_pct: Option<u8>,
}
