//! Why a runtime failed.

use std::io;
use std::path::PathBuf;

/// Failure to make, inspect or end a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The machine lacks something the runtime needs.
    #[error("{feature} is not available: {fix}")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
        /// What to do about it.
        fix: &'static str,
    },
    /// No free uid range, address or other slot.
    #[error("all {0} sandbox slots are in use")]
    NoSlot(u32),
    /// A layer directory does not exist.
    #[error("layer {0} is missing")]
    LayerMissing(PathBuf),
    /// A step on the host failed.
    #[error("{step}")]
    Step {
        /// What was being done, as a phrase that fits after "failed to".
        step: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Memory can't be captured or restored; the text is the reason, with a remedy if there
    /// is one.
    #[error("memory can't be kept: {0}")]
    NoCheckpoint(String),
    /// There is no whole capture at this place.
    #[error("there is no capture at {0}")]
    NoCapture(PathBuf),
    /// The sandbox must be frozen for this.
    #[error("the sandbox is not frozen")]
    NotFrozen,
    /// The agent did not come up.
    #[error("start the agent: {0}")]
    Agent(String),
}

/// Why a sandbox can't be taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The machine was restarted since.
    #[error("the machine was restarted since the sandbox was started")]
    HostRestarted,
    /// Its first process is gone.
    #[error("its first process is gone")]
    Gone,
    /// It is there but could not be taken hold of.
    #[error("take hold of the sandbox")]
    Failed(#[source] RuntimeError),
}
