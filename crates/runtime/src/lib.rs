//! Sandbox runtimes. [`Runtime`] boots, adopts and sweeps; [`Sandbox`] is one booted
//! sandbox. `ns` isolates with Linux namespaces; `fake` obeys the same contract in memory
//! for tests of the layers above.
//!
//! This crate owns the host side of isolation and nothing of policy: it does not know
//! teams, templates, time-outs or the database.

mod api;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
pub mod ns;

pub use api::{
    AgentSpec, Attachment, BootSpec, Capabilities, CaptureInfo, CheckpointSupport, Committed, Dial,
    ExitCause, Record, Restored, Runtime, Sandbox, SweepReport, Usage,
};
pub use error::{AdoptError, RuntimeError};
