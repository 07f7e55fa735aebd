//! Use cases: who may do what, quotas, templates, the life of sandboxes. No HTTP here and
//! no processes: [`Control`] joins the database with a node.
//!
//! A create reserves quota, resolves the template from memory, has the node make the
//! sandbox, and writes one row. The node alone decides when a sandbox ends; what it tells
//! is written down by one task ([`Control::run`]). After a restart
//! [`Control::reconcile`] compares rows with what the node has: rows without a sandbox are
//! ended, sandboxes without a row were never acknowledged and are taken down.

mod audit;
mod auth;
mod build;
mod control;
mod create;
mod error;
mod events;
mod expiry;
mod explain;
mod idempotency;
mod identity;
mod keys;
mod lifecycle;
mod limits;
mod list;
mod login;
mod metadata;
mod meters;
mod names;
mod network;
mod nodes;
mod observe;
mod paging;
mod pause;
mod pressure;
mod quota;
mod recent;
mod reconcile;
mod sandbox;
mod secrets;
mod shown;
mod snapshots;
mod sshkeys;
mod teams;
mod templates;
mod users;
mod volumes;
mod wake;
mod webhooks;

pub use audit::{AuditError, AuditQuery};
pub use auth::{Caller, Team};
pub use build::{
    ArchiveLimits, BuildConfig, BuildEntry, BuildInfo, BuildLogRequest, BuildRequestError,
    BuildStart, BuildStartError, BuildStatusError, BuildWindow, FilesAnswer, FilesError,
    ManageError, NewBuild, Registry, RequestedBuild, ResourcesError, TagError, TemplateImageError,
    Upload, UploadError, UploadLink, UploadSlot,
};
pub use control::{Control, ControlConfig, HistoryLimits, Keep, Limits};
pub use create::{NewSandbox, VERSION_1_TIMEOUT_S, VERSION_2_TIMEOUT_S};
pub use error::{
    AuthError, CreateError, ForkError, IdempotencyError, ListError, ObserveError, PauseError,
    SandboxError, SnapshotError, TemplateError, TimeoutError,
};
pub use explain::{ExplainError, Explanation};
pub use idempotency::Execution;
pub use identity::{IamError, IamToken, Identity, IdentityError};
pub use keys::{CreatedKey, CreatedToken, KeyView, KeysError, NewKey, TeamWithKey};
pub use limits::{CallerLimits, LimitsView, OverBudget};
pub use list::{ListQuery, Order, Page};
pub use login::ProgramLogin;
pub use metadata::MetadataError;
pub use meters::Meters;
pub use names::{ReferenceError, TemplateRef, Version};
pub use network::{
    EgressProxy, EgressProxyTls, NetworkError, NetworkSettings, NetworkUpdate, ProxyCheck,
};
pub use nodes::{NodeStatus, NodeView, NodesError};
pub use observe::{LogRequest, TeamPeak, TeamPoint, TimeRange};
pub use paging::PageError;
pub use pause::Resume;
pub use pressure::PressureConfig;
pub use reconcile::Reconciled;
pub use sandbox::Sandbox;
pub use secrets::{LocalKey, SealError, Sealer, SecretsError};
pub use snapshots::{Snapshot, SnapshotQuery};
pub use sshkeys::SshKeyError;
pub use teams::{NewTeam, Swept, TeamView, TeamsError};
pub use templates::BuildSpec;
pub use users::{UserView, UsersError};
pub use volumes::{VolumeHolder, VolumeTokenError, VolumeView, VolumesError};
pub use wake::{Wake, WakeAsk};
pub use warren_cluster::{DiskFacts, HostFacts, HugePages, NodeError};
pub use warren_store::{
    AccessTokenRecord, Actor, AliasRecord, ApiKeyRecord, AttemptRecord, AuditRecord, BuildRecord,
    BuildStatus, By, DeleteTemplateError, DeliveryRecord, DeliveryState, EventRecord, Member,
    Membership, MountRecord, NewAudit, RequestBuildError, SandboxRecord, SecretRecord,
    SshKeyRecord, StoreError, StoredAnswer, TagRecord, TeamChange, TeamHoldings, TeamRecord,
    TemplateRecord, TemplateSummary, UserRecord, VolumeRecord, WebhookRecord,
};
pub use warren_template::build::{RegistryCredentials, Step};
pub use warren_types::{Budget, Usage};
pub use warren_volume::{
    Content, Draft, Entry, EntryKind, NewNode, Owner, VolumeError, VolumePath,
};
pub use webhooks::{
    EventQuery, NewWebhook, WebhookChange, WebhookConfig, WebhookError, event_body,
};
