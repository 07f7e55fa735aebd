//! Why a node refused or failed.

use warren_types::{SandboxId, SandboxState};

/// Failure of a request to a node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No such sandbox runs on this node.
    #[error("sandbox {0} is not on this node")]
    NotFound(SandboxId),
    /// It is being taken down.
    #[error("sandbox {0} is being killed")]
    Ending(SandboxId),
    /// It is paused already.
    #[error("sandbox {0} is paused")]
    Paused(SandboxId),
    /// It runs already.
    #[error("sandbox {0} is running")]
    Running(SandboxId),
    /// It is between two states.
    #[error("sandbox {id} is {}", state.as_str())]
    Transition {
        /// Which.
        id: SandboxId,
        /// Where it is in its life.
        state: SandboxState,
    },
    /// Its agent does not answer; it goes on as before.
    #[error("the agent of sandbox {0} does not answer")]
    AgentSilent(SandboxId),
    /// It could not be paused, and goes on as before.
    #[error("pause sandbox")]
    PauseFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its memory can't be kept; the text is the reason.
    #[error("memory can't be kept: {0}")]
    MemoryRefused(String),
    /// It could not be resumed, and stays paused.
    #[error("resume sandbox")]
    ResumeFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It could not be captured, and goes on as before.
    #[error("capture sandbox")]
    CaptureFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The node has no room: memory, addresses or uid ranges ran out.
    #[error("no room on the node: {0}")]
    NoCapacity(String),
    /// The build's layers are not on this node.
    #[error("layer {0} of the template is missing on the node")]
    LayerMissing(String),
    /// The sandbox did not come up; everything made for it was undone.
    #[error("start sandbox")]
    StartFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A volume of the sandbox is not to be had now; the text is the reason.
    #[error("a volume can't be mounted: {0}")]
    Volume(String),
    /// Reading what the node keeps of a sandbox failed.
    #[error("read the records of sandbox {id}")]
    Records {
        /// The sandbox.
        id: SandboxId,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}
