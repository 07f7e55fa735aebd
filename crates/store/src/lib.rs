//! SQL: schema, migrations, queries. The database holds intent and history (teams, hashed
//! keys, templates, builds, sandbox records, metrics); nodes hold facts and never see it.
//!
//! Embedded SQLite in WAL mode: one connection writes, a few read. A commit does not wait
//! for the disk; [`Store::checkpoint`] carries the log over in the background. After a
//! power loss the last commits may be missing, never torn. Statements are portable SQL
//! with ids as text and times as microseconds, so that another engine can take them.

mod audit;
mod changes;
mod error;
mod events;
mod history;
mod idempotency;
mod keys;
mod limits;
mod metrics;
mod migrate;
mod pool;
mod sandboxes;
mod secrets;
mod snapshots;
mod sshkeys;
mod teams;
mod templates;
mod time;
mod tokens;
mod users;
mod volumes;
mod webhooks;

pub use audit::{Actor, AuditFilter, AuditRecord, By, NewAudit};
pub use changes::SandboxChange;
pub use error::{OpenError, StoreError};
pub use events::{EventFilter, EventRecord};
pub use history::{DatabaseSize, History};
pub use idempotency::{IdempotencyClaim, StoredAnswer};
pub use keys::ApiKeyRecord;
pub use metrics::{SpanCount, StartSpans};
pub use pool::Store;
pub use sandboxes::{LiveSandbox, PauseRecord, SandboxRecord};
pub use secrets::SecretRecord;
pub use snapshots::{NewSnapshot, RecordSnapshotError, SnapshotRecord};
pub use sshkeys::{SshKeyInsert, SshKeyRecord};
pub use teams::{TeamChange, TeamHoldings, TeamRecord};
pub use templates::{
    AliasRecord, BuildContent, BuildOutcome, BuildReason, BuildRecord, BuildRegistration,
    BuildRequest, BuildRequested, BuildStatus, DeleteTemplateError, RequestBuildError, TagRecord,
    TemplateRecord, TemplateSummary,
};
pub use tokens::AccessTokenRecord;
pub use users::{Member, Membership, UserRecord};
pub use volumes::{MountRecord, VolumeRecord};
pub use webhooks::{AttemptRecord, DeliveryRecord, DeliveryState, WebhookRecord};
