//! REST bodies on the wire, with exact field names. Every type reads and writes, so that
//! servers and clients share them. Unknown fields are ignored; absent and null optional
//! fields mean the same.

mod build;
mod error;
mod event;
mod limits;
mod network;
mod node;
mod observe;
mod sandbox;
mod secret;
mod sshkey;
mod team;
mod template;
mod volume;

pub use build::{
    AssignTags, AssignedTags, BuildLogEntry, BuildStatusReason, CancelledBuilds, DeleteTags,
    ImageRegistry, LegacyTemplate, TagAssignment, TagAssignments, TagCount, TagExists, TagGroup,
    TagGroups, TemplateBuildInfo, TemplateBuildLogs, TemplateBuildRequest, TemplateBuildRequested,
    TemplateBuildStart, TemplateFiles, TemplateStep, TemplateTag, TemplateUpdate, TemplateUpdated,
};
pub use error::{ErrorBody, VolumeContentErrorBody};
pub use event::{
    EVENT_VERSION, NewWebhook, SandboxEvent, Webhook, WebhookAttempt, WebhookChange,
    WebhookDelivery,
};
pub use limits::{Budget, CallerLimits, Limits, Usage};
pub use network::{
    EgressProxy, EgressProxyTls, NetworkRule, NetworkSettings, NetworkTransform, NetworkUpdate,
};
pub use node::{DiskMetrics, MachineInfo, Node, NodeMetrics, NodeStatusChange};
pub use observe::{
    LogLine, LogRecord, MaxTeamMetric, SandboxLogs, SandboxLogsV2, SandboxMetric, SandboxesMetrics,
    TeamMetric,
};
pub use sandbox::{
    AutoResume, Connect, Fork, ForkResult, Iam, IamToken, Lifecycle, ListedSandbox, NewSandbox,
    NewSnapshot, OnTimeout, Pause, PauseMode, Refresh, Resume, Sandbox, SandboxDetail, Snapshot,
    State, Timeout, VolumeMount,
};
pub use secret::{NewSecret, SecretInfo, SecretUpdate};
pub use sshkey::{NewSshKey, SshKey, SshServer};
pub use team::{
    AccessToken, AdminTeam, AdminTeamChange, AdminUser, AuditEntry, CreatedAccessToken,
    CreatedTeamApiKey, ExplainedEvent, Explanation, KilledSandboxes, Mask, NewApiKey, NewMember,
    NewTeam, NewUser, Rename, Team, TeamApiKey, TeamMember, UserTeam,
};
pub use template::{AliasAnswer, Template, TemplateBuild, TemplateWithBuilds, UserRef};
pub use volume::{
    NewVolume, Volume, VolumeAndToken, VolumeEntryChange, VolumeEntryStat, VolumeEntryType,
};
