//! The E2B REST API over the use cases: routes, credentials, error bodies, rate limits.
//! What is not built answers 501 and names itself; [`operations`] lists both kinds.

mod admin;
mod auth;
mod builds;
mod convert;
mod cors;
mod error;
mod events;
mod explain;
mod extract;
mod health;
mod idempotent;
mod identity;
mod images;
mod keys;
mod limits;
mod list;
mod nodes;
mod observe;
mod operations;
mod rate;
mod router;
mod sandboxes;
mod secrets;
mod snapshots;
mod sshkeys;
mod tags;
mod teams;
mod templates;
mod trail;
mod unimplemented;
mod uploads;
mod volumecontent;
mod volumes;

pub use operations::Operation;
pub use rate::RateLimit;
pub use router::{ApiConfig, local_router, meters_router, operations, own_operations, router};
pub use warren_wire::SshServer;
