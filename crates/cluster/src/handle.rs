//! How `control` reaches a node.

use std::fmt::Debug;

use async_trait::async_trait;
use tokio::sync::mpsc;
use warren_types::{BuildId, EndReason, LogEntry, NetworkPolicy, SandboxId};

use crate::{
    BuildImage, Captured, CreateSandbox, Deadline, HostFacts, LogQuery, NodeError, NodeEvent,
    NodeLoad, PauseSandbox, ResumeSandbox, Resumed, SandboxView,
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

    /// Sets a sandbox aside. On return it can't be reached, its processes stand still and
    /// a resume right after it succeeds, also by the next server process.
    ///
    /// Refused with [`NodeError::Paused`] when it was paused before this request came.
    async fn pause(&self, id: &SandboxId, request: PauseSandbox) -> Result<SandboxView, NodeError>;

    /// Makes sure that a sandbox runs; usable on return. Requests at the same time share
    /// one resume.
    async fn resume(&self, id: &SandboxId, request: ResumeSandbox) -> Result<Resumed, NodeError>;

    /// Takes a copy of a running sandbox, which stands still meanwhile and goes on. The
    /// copy is kept under `build` until it is forgotten. Memory is left out if it is not
    /// wanted or if the node can't keep it.
    async fn capture(
        &self,
        id: &SandboxId,
        build: BuildId,
        memory: bool,
    ) -> Result<Captured, NodeError>;

    /// Deletes a capture. Forgetting one that is not there is fine.
    async fn forget_capture(&self, build: BuildId) -> Result<(), NodeError>;

    /// Captures what the start command of a build that was just made sets up, so that its
    /// sandboxes are restored from that, where the node can do that and it pays.
    async fn keep_ready(&self, image: &BuildImage) -> Result<(), NodeError>;

    /// The captures that are kept for builds.
    async fn captures(&self) -> Result<Vec<BuildId>, NodeError>;

    /// Why memory can't be captured, if it can't.
    fn memory_captures(&self) -> Result<(), String>;

    /// Log lines of a sandbox that runs here, or ran here and is still retained.
    async fn logs(&self, id: &SandboxId, query: LogQuery) -> Result<Vec<LogEntry>, NodeError>;

    /// Names the builds worth keeping warm sandboxes of.
    async fn set_warm_builds(&self, builds: Vec<BuildImage>);

    /// How full the node is.
    async fn load(&self) -> NodeLoad;

    /// What machine it is and how much of it is in use.
    async fn host(&self) -> HostFacts;

    /// Takes the stream of events. There is one consumer; later calls return `None`.
    fn take_events(&self) -> Option<mpsc::Receiver<NodeEvent>>;
}
