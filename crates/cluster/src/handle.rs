//! How `control` reaches a node.

use std::fmt::Debug;

use async_trait::async_trait;
use tokio::sync::mpsc;
use warren_types::{EndReason, LogEntry, NetworkPolicy, SandboxId};

use crate::{
    BuildImage, CreateSandbox, Deadline, LogQuery, NodeError, NodeEvent, NodeLoad, SandboxView,
};

/// A node, wherever it is. Every method is safe to call again after a failure.
#[async_trait]
pub trait NodeHandle: Debug + Send + Sync {
    /// Makes a sandbox. When this returns it is usable: agent up, initialised, routable.
    /// A failure leaves nothing behind.
    async fn create(&self, request: CreateSandbox) -> Result<SandboxView, NodeError>;

    /// The sandbox, if it is starting, running or paused here.
    async fn get(&self, id: &SandboxId) -> Result<SandboxView, NodeError>;

    /// All sandboxes that were handed out and are not ending.
    async fn list(&self) -> Vec<SandboxView>;

    /// Ends a sandbox. Returns once it can't be reached any more; what it held is released
    /// in the background. A second caller joins the first.
    async fn end(&self, id: &SandboxId, reason: EndReason) -> Result<(), NodeError>;

    /// Moves a sandbox's end.
    async fn set_deadline(&self, id: &SandboxId, to: Deadline) -> Result<SandboxView, NodeError>;

    /// Replaces what may leave a sandbox; in force for new connections on return.
    async fn set_egress(&self, id: &SandboxId, policy: NetworkPolicy) -> Result<(), NodeError>;

    /// Log lines of a sandbox that runs here, or ran here and is still retained.
    async fn logs(&self, id: &SandboxId, query: LogQuery) -> Result<Vec<LogEntry>, NodeError>;

    /// Names the builds worth keeping warm sandboxes of.
    async fn set_warm_builds(&self, builds: Vec<BuildImage>);

    /// How full the node is.
    async fn load(&self) -> NodeLoad;

    /// Takes the stream of events. There is one consumer; later calls return `None`.
    fn take_events(&self) -> Option<mpsc::Receiver<NodeEvent>>;
}
