//! Why a node refused or failed.

use warren_types::SandboxId;

/// Failure of a request to a node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No such sandbox runs on this node.
    #[error("sandbox {0} is not on this node")]
    NotFound(SandboxId),
    /// It is being taken down.
    #[error("sandbox {0} is being killed")]
    Ending(SandboxId),
    /// The node has no room: memory, addresses or uid ranges ran out.
    #[error("no room on the node: {0}")]
    NoCapacity(String),
    /// The build's layers are not on this node.
    #[error("layer {0} of the template is missing on the node")]
    LayerMissing(String),
    /// The sandbox did not come up; everything made for it was undone.
    #[error("start sandbox")]
    StartFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
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
