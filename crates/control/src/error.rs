//! What use cases refuse and why. The texts of variants that name a client's mistake are
//! shown to clients as they are; clients match on some of them.

use warren_cluster::NodeError;
use warren_store::StoreError;
use warren_types::{EndReason, SandboxEnd, SandboxId, SandboxState};

use crate::{IamError, MetadataError, NetworkError, OverBudget, PageError, ReferenceError};

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No credential at all.
    #[error("authorization header is missing")]
    Missing,
    /// `Authorization` is no bearer token of ours.
    #[error("authorization header is malformed")]
    Malformed,
    /// Not of the form of an API key.
    #[error("Invalid API key format")]
    KeyFormat,
    /// Unknown or deleted.
    #[error("Invalid API key, please use the one that this server wrote to its key file.")]
    Key,
    /// Unknown access token.
    #[error("Invalid access token")]
    AccessToken,
    /// Wrong administrator's token.
    #[error("Invalid admin token")]
    AdminToken,
    /// Its time is up.
    #[error("the key or token has expired; ask for a new one")]
    Expired,
    /// A person names a team that is not theirs.
    #[error("you are not a member of this team")]
    NoMember,
    /// It may read only.
    #[error("this key or token may only read")]
    ReadOnly,
    /// A key was to be made and the team has its fill.
    #[error("your team has as many keys as it may have; delete some first")]
    TooManyKeys,
    /// The team may read and delete only.
    #[error("your team is blocked: it may read and delete what it has, and nothing else")]
    Blocked,
    /// The team is shut out.
    #[error("your team is banned from this server")]
    Banned,
    /// The database failed.
    #[error("authenticate")]
    Store(#[from] StoreError),
}

/// Why a sandbox's time is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeoutError {
    /// Zero or negative.
    #[error("Timeout must be greater than 0")]
    NotPositive,
    /// More than the team may have.
    #[error("Timeout cannot be greater than {hours} hours")]
    TooLong {
        /// The team's maximum.
        hours: u64,
    },
}

/// Why a template can't be used or shown.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Not a reference to a template.
    #[error("Invalid template reference: {0}")]
    Reference(#[from] ReferenceError),
    /// Unknown, or private and another team's.
    #[error("template '{0}' not found")]
    NotFound(String),
    /// The server is making it, or could not.
    #[error("template '{name}' {how}")]
    Unprepared {
        /// Its name.
        name: String,
        /// What is wrong, as the end of a sentence.
        how: String,
    },
    /// No ready build carries the tag.
    #[error("tag '{tag}' does not exist for template '{template}'")]
    Tag {
        /// The tag.
        tag: String,
        /// The name that matched.
        template: String,
    },
    /// Another team's, asked for by alias.
    #[error("You don't have access to this template alias")]
    ForeignAlias,
    /// Another team's, asked for by id.
    #[error("You don't have access to this sandbox template ({0})")]
    Foreign(String),
    /// Unknown, asked for by id.
    #[error("Template {0} not found")]
    NoSuchId(String),
    /// A namespace that is not the caller's.
    #[error("namespace '{namespace}' must match your team '{slug}'")]
    Namespace {
        /// The one asked for.
        namespace: String,
        /// The caller's.
        slug: String,
    },
    /// `teamID` is not the caller's.
    #[error("Team ID param mismatch with the API key")]
    TeamMismatch,
    /// A bad page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// The database failed.
    #[error("read template")]
    Store(#[from] StoreError),
}

/// Why no sandbox was made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A bad time.
    #[error(transparent)]
    Timeout(#[from] TimeoutError),
    /// `autoPauseMemory` without `autoPause`.
    #[error("autoPauseMemory=false only applies when autoPause is true.")]
    AutoPauseMemory,
    /// `autoPauseMemory` with `autoResume`.
    #[error(
        "autoPauseMemory=false (filesystem-only auto-pause) cannot be combined with autoResume"
    )]
    AutoPauseResume,
    /// Private ports need a secured agent.
    #[error(
        "You cannot create a sandbox without public access unless you enable secure envd \
         access via 'secure' flag."
    )]
    PrivateNeedsSecure,
    /// Bad network settings.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Volumes are not there.
    #[error("Volume mounts are not enabled.")]
    VolumeMounts,
    /// Volumes that can't be mounted, one per line.
    #[error("{0}")]
    Mounts(String),
    /// Workload identity is not there.
    #[error("Sandbox IAM workload tokens are not available for your team.")]
    Iam,
    /// Workload tokens that can't be.
    #[error(transparent)]
    IamTokens(#[from] IamError),
    /// A variable that no process can have.
    #[error("validation error: envVars: {0:?} is not a valid variable")]
    EnvVar(String),
    /// Labels or settings beyond reason.
    #[error("validation error: {field} must not be larger than {limit} bytes")]
    TooLarge {
        /// Which.
        field: &'static str,
        /// How much is fine.
        limit: usize,
    },
    /// No such template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The team or the key has as much as it may.
    #[error(transparent)]
    Quota(#[from] OverBudget),
    /// The node did not make it.
    #[error("place sandbox")]
    Node(#[source] NodeError),
    /// The database failed.
    #[error("record sandbox")]
    Store(#[from] StoreError),
}

/// The words for a sandbox that is gone. Those of an expected end are the ones for a
/// sandbox that never was, which clients know; what else befell it is added.
fn ended(id: &SandboxId, end: &SandboxEnd) -> String {
    let gone = SandboxError::NotFound(id.clone());
    match end.reason {
        EndReason::Killed | EndReason::TimedOut => gone.to_string(),
        _ => format!("{gone}: it {}", end.explain()),
    }
}

/// Why a request to a sandbox was refused.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Unknown, ended, or another team's.
    #[error("Sandbox \"{0}\" doesn't exist or you don't have access to it")]
    NotFound(SandboxId),
    /// It ended and is still remembered.
    #[error("{}", ended(id, end))]
    Ended {
        /// Which.
        id: SandboxId,
        /// How.
        end: SandboxEnd,
    },
    /// It is being taken down.
    #[error("Sandbox \"{0}\" is being killed")]
    Ending(SandboxId),
    /// It is between two states.
    #[error("Sandbox \"{id}\" is being {what}")]
    Changing {
        /// Which.
        id: SandboxId,
        /// What is being done to it.
        what: &'static str,
    },
    /// It runs, where only a paused one would do.
    #[error("Sandbox {0} is already running")]
    Running(SandboxId),
    /// It is being started by another request, which may take up its memory.
    #[error("Sandbox {0} is being started by another request")]
    StartInFlight(SandboxId),
    /// Its memory was kept while its agent did not answer.
    #[error(
        "Sandbox {0} can't be resumed with its memory because its agent did not answer when it \
         was paused; resume it without memory"
    )]
    GuestSilent(SandboxId),
    /// It did not come up from its files; it is still paused.
    #[error("Sandbox {id} did not come up from its files; it is still paused")]
    BootUnconfirmed {
        /// Which.
        id: SandboxId,
        /// The cause.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It does not run, and its team or key has as much as it may.
    #[error(transparent)]
    Quota(#[from] OverBudget),
    /// A bad time.
    #[error(transparent)]
    Timeout(#[from] TimeoutError),
    /// It has lived as long as its team may have it.
    #[error("Max instance length exceeded")]
    MaxLength,
    /// Bad network settings.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The node failed.
    #[error("reach sandbox")]
    Node(#[source] NodeError),
    /// The database failed.
    #[error("read or write record of sandbox")]
    Store(#[from] StoreError),
}

impl SandboxError {
    /// Sorts a node's refusal.
    pub(crate) fn from_node(error: NodeError) -> Self {
        match error {
            NodeError::NotFound(id) => Self::NotFound(id),
            NodeError::Ending(id) => Self::Ending(id),
            NodeError::AgentSilent(id) => Self::GuestSilent(id),
            // Requests that only a running sandbox can take.
            NodeError::Paused(id) => Self::NotFound(id),
            NodeError::Transition { id, state } => Self::Changing {
                id,
                what: match state {
                    SandboxState::Pausing => "paused",
                    SandboxState::Snapshotting => "snapshotted",
                    SandboxState::Resuming => "resumed",
                    _ => "changed",
                },
            },
            other => Self::Node(other),
        }
    }
}

/// Why a sandbox was not paused.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// It is paused already.
    #[error("Error pausing sandbox - sandbox '{0}' is already paused")]
    AlreadyPaused(SandboxId),
    /// Its agent does not answer; it goes on.
    #[error("Sandbox '{0}' was not paused because its agent does not answer; it is still running")]
    AgentSilent(SandboxId),
    /// No room for what is to be kept; it goes on.
    #[error("Sandbox '{id}' was not paused because the node's disk is full; it is still running")]
    DiskFull {
        /// Which.
        id: SandboxId,
        /// The cause.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node failed; it goes on.
    #[error("Sandbox '{id}' was not paused; it is still running")]
    Failed {
        /// Which.
        id: SandboxId,
        /// The cause.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Refused for another reason.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The database failed.
    #[error("record pause")]
    Store(#[from] StoreError),
}

impl PauseError {
    /// Tells a full disk apart.
    pub(crate) fn failed(id: &SandboxId, cause: Box<dyn std::error::Error + Send + Sync>) -> Self {
        let id = id.clone();
        if is_disk_full(cause.as_ref()) {
            Self::DiskFull { id, cause }
        } else {
            Self::Failed { id, cause }
        }
    }
}

/// Why no snapshot was made. Nothing is left behind, and the sandbox goes on.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The name is none.
    #[error("Invalid snapshot name: {0}")]
    Name(#[from] ReferenceError),
    /// A build can't stand in the place of the tag.
    #[error("Invalid snapshot name: invalid tag: {0}")]
    TagIsBuild(String),
    /// A template that was built has the name.
    #[error("The name '{0}' belongs to a template that is not a snapshot")]
    NameTaken(String),
    /// The name can't be the caller's.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It is between two states.
    #[error("Sandbox '{id}' cannot be snapshotted while in '{}' state", state.as_str())]
    Transition {
        /// Which.
        id: SandboxId,
        /// Where it is in its life.
        state: SandboxState,
    },
    /// No room for it.
    #[error("Sandbox '{id}' was not snapshotted because the node's disk is full")]
    DiskFull {
        /// Which.
        id: SandboxId,
        /// The cause.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node failed.
    #[error("Sandbox '{id}' was not snapshotted")]
    Failed {
        /// Which.
        id: SandboxId,
        /// The cause.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Refused for another reason.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The database failed.
    #[error("record snapshot")]
    Store(#[from] StoreError),
}

impl SnapshotError {
    /// Tells a full disk apart.
    pub(crate) fn failed(id: &SandboxId, cause: Box<dyn std::error::Error + Send + Sync>) -> Self {
        let id = id.clone();
        if is_disk_full(cause.as_ref()) {
            Self::DiskFull { id, cause }
        } else {
            Self::Failed { id, cause }
        }
    }
}

/// Why a sandbox was not copied at all; it goes on.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// No copy is wanted.
    #[error("Count must be at least 1")]
    TooFew,
    /// More than one request may make.
    #[error("Count cannot be greater than {0}")]
    TooMany(i64),
    /// More than the team may run beside the source.
    #[error("Count must be lower than the maximum number of concurrent sandboxes ({0})")]
    Limit(u32),
    /// A bad time.
    #[error(transparent)]
    Timeout(#[from] TimeoutError),
    /// It is paused.
    #[error("Sandbox '{0}' is paused and cannot be forked; resume it first")]
    Paused(SandboxId),
    /// It is between two states.
    #[error("Sandbox '{id}' cannot be forked while in '{}' state", state.as_str())]
    Transition {
        /// Which.
        id: SandboxId,
        /// Where it is in its life.
        state: SandboxState,
    },
    /// The node failed.
    #[error("Sandbox '{id}' was not forked")]
    Failed {
        /// Which.
        id: SandboxId,
        /// The cause.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The copies could not be asked for.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// Refused for another reason.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The database failed.
    #[error("record copies")]
    Store(#[from] StoreError),
}

/// Whether a full disk is behind a failure.
fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        if matches!(
            kind,
            Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        ) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Why a list is refused.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A bad page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A bad metadata filter.
    #[error("Error parsing metadata: {0}")]
    Metadata(#[from] MetadataError),
    /// The template filter is no name.
    #[error("Invalid template reference: {0}")]
    Template(#[from] ReferenceError),
    /// The template filter names a tag.
    #[error("Invalid template filter: a tag is not allowed in '{0}'")]
    TemplateTag(String),
    /// The database failed.
    #[error("list sandboxes")]
    Store(#[from] StoreError),
}

/// Why figures or logs are refused.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Unknown, or another team's.
    #[error("Sandbox \"{0}\" doesn't exist or you don't have access to it")]
    NotFound(SandboxId),
    /// It starts after it ends.
    #[error("Invalid time range for metrics")]
    Range,
    /// The same, for a team.
    #[error("end time cannot be before start time")]
    TeamRange,
    /// Another team's figures.
    #[error("You ({caller}) are not authorized to access this team's ({team}) metrics")]
    ForeignTeam {
        /// Who asked.
        caller: String,
        /// For whom.
        team: String,
    },
    /// Too many at once.
    #[error("Too many sandboxes requested, maximum is {0}")]
    TooMany(usize),
    /// The node failed.
    #[error("read logs of sandbox")]
    Node(#[source] NodeError),
    /// The database failed.
    #[error("read figures of sandbox")]
    Store(#[from] StoreError),
}

/// Why an idempotency key does not lead to an answer.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// Empty, too long, or not printable ASCII.
    #[error("Invalid Idempotency-Key")]
    Key,
    /// It belongs to another request.
    #[error("Idempotency-Key was already used with a different request")]
    Mismatch,
    /// The first request is being executed.
    #[error("a request with this Idempotency-Key is still in progress")]
    InProgress,
    /// The server stopped while it was executed.
    #[error("the outcome of the first request with this Idempotency-Key is unknown")]
    Unknown,
    /// The database failed.
    #[error("read idempotency key")]
    Store(#[from] StoreError),
}
