//! The sandboxes of this host.
//!
//! ```text
//!  create ─► warm pool (booted, waiting for /init) ─┐
//!     └────► runtime boot ──────────────────────────┴─► /init ─► ledger ─► owner task
//!                                                                             │
//!            end, deadline, egress ───────────── messages ───────────────────►│
//!            first process died, time ran out ───────────────────────────────►│
//!                                                                             ▼
//!                              archive the log ◄─ unreachable ◄─ Ending ─► Ended event
//! ```
//!
//! One task owns each sandbox and is the only writer of its state; everyone else sends it
//! a message. The ledger is one small file per sandbox, written before a create is
//! acknowledged and removed when the sandbox has ended, so after a crash of the server
//! [`Node::start`] finds every acknowledged sandbox, takes it over, and has the runtime
//! sweep away the rest. A node never sees the database.

mod adopt;
mod agent;
mod build;
mod captures;
mod command;
mod config;
mod host;
mod ledger;
mod log;
mod memory;
mod metrics;
mod node;
mod pool;
mod registry;
mod sandbox;
pub mod services;
mod start;

pub use config::{NodeConfig, PauseConfig, WarmConfig};
pub use node::{Node, StartError, StopMode};
pub use registry::RouteFacts;
