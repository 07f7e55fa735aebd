//! Vocabulary shared by every crate: identifiers, sandbox states and their
//! transitions, resource limits. No I/O and no async runtime.

mod budget;
pub mod egress;
mod event;
mod id;
mod network;
mod observe;
pub mod placeholder;
mod resources;
mod sandbox;
mod start;
mod team;

pub use budget::{Budget, Usage};
pub use event::{EventKind, SandboxEnd, UnknownEvent};
pub use id::{
    AccessTokenId, ApiKeyId, AuditId, BuildId, DeliveryId, EventId, IdError, RunId, SandboxId,
    SshKeyId, TeamId, TemplateId, UserId, VolumeId, WebhookId,
};
pub use network::{
    EgressProxy, EgressProxyTls, EgressRules, Ipv4Net, NetworkConfig, NetworkPolicy, NotANet,
};
pub use observe::{LogEntry, LogLevel, MetricsPoint};
pub use resources::Resources;
pub use sandbox::{
    CaptureKind, EndReason, InvalidTransition, OnTimeout, SandboxEvent, SandboxState,
};
pub use start::StartCommand;
pub use team::{KeyScope, Role, TeamState, UnknownWord};

/// The client id that the E2B API reports for every sandbox. Deprecated on the
/// wire but required in responses.
pub const CLIENT_ID: &str = "6532622b";

/// Version of the in-sandbox agent that Warren reports: the behaviour of the
/// upstream agent of this number is what ours has.
pub const ENVD_VERSION: &str = "0.6.13";

/// Port on which the in-sandbox agent listens.
pub const ENVD_PORT: u16 = 49983;
