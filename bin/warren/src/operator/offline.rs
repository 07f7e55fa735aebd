//! The operator's commands on the data directory of a server that does not run.

use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use async_trait::async_trait;
use axum::Router;
use tokio::sync::mpsc;
use warren_cluster::{
    BuildImage, Captured, CreateSandbox, Deadline, HostFacts, LogQuery, NodeError, NodeEvent,
    NodeHandle, NodeLoad, PauseSandbox, ResumeSandbox, Resumed, SandboxView,
};
use warren_control::{Control, ControlConfig};
use warren_store::Store;
use warren_types::{BuildId, EndReason, LogEntry, NetworkPolicy, SandboxId};

use crate::data::DataDir;

/// A data directory that nobody else uses meanwhile.
pub(crate) struct Offline {
    control: Arc<Control>,
    _data: DataDir,
}

impl Offline {
    /// Opens the data directory; a server must have made it.
    pub(crate) async fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let database = data_dir.join("warren.db");
        ensure!(
            database.exists(),
            "no server has kept its data in {}\nhint: start it once with `warren up`, or name its directory with --data-dir",
            data_dir.display()
        );
        let data = DataDir::open(data_dir)?;
        let store = Store::open(&database).await?;
        let config = ControlConfig::new(data.token_key()?);
        let control = Control::new(config, store, Arc::new(NoNode));
        control.load_limits().await?;
        Ok(Self {
            control,
            _data: data,
        })
    }

    /// The operator's part of the API.
    pub(crate) fn router(&self) -> Router {
        warren_api::local_router(Arc::clone(&self.control))
    }
}

/// The node of a server that does not run.
#[derive(Debug)]
struct NoNode;

#[async_trait]
impl NodeHandle for NoNode {
    async fn create(&self, _: CreateSandbox) -> Result<SandboxView, NodeError> {
        Err(NodeError::Stopping)
    }

    async fn get(&self, _: &SandboxId) -> Result<SandboxView, NodeError> {
        Err(NodeError::Stopping)
    }

    async fn list(&self) -> Vec<SandboxView> {
        Vec::new()
    }

    async fn end(&self, _: &SandboxId, _: EndReason) -> Result<(), NodeError> {
        Err(NodeError::Stopping)
    }

    async fn set_deadline(&self, _: &SandboxId, _: Deadline) -> Result<SandboxView, NodeError> {
        Err(NodeError::Stopping)
    }

    async fn set_egress(&self, _: &SandboxId, _: NetworkPolicy) -> Result<(), NodeError> {
        Err(NodeError::Stopping)
    }

    async fn pause(&self, _: &SandboxId, _: PauseSandbox) -> Result<SandboxView, NodeError> {
        Err(NodeError::Stopping)
    }

    async fn resume(&self, _: &SandboxId, _: ResumeSandbox) -> Result<Resumed, NodeError> {
        Err(NodeError::Stopping)
    }

    async fn capture(&self, _: &SandboxId, _: BuildId, _: bool) -> Result<Captured, NodeError> {
        Err(NodeError::Stopping)
    }

    async fn keep_ready(&self, _: &BuildImage) -> Result<(), NodeError> {
        Err(NodeError::Stopping)
    }

    async fn forget_capture(&self, _: BuildId) -> Result<(), NodeError> {
        Err(NodeError::Stopping)
    }

    async fn captures(&self) -> Result<Vec<BuildId>, NodeError> {
        Err(NodeError::Stopping)
    }

    fn memory_captures(&self) -> Result<(), String> {
        Err("the server does not run".to_owned())
    }

    async fn logs(&self, _: &SandboxId, _: LogQuery) -> Result<Vec<LogEntry>, NodeError> {
        Err(NodeError::Stopping)
    }

    async fn set_warm_builds(&self, _: Vec<BuildImage>) {}

    async fn load(&self) -> NodeLoad {
        NodeLoad::default()
    }

    async fn host(&self) -> HostFacts {
        HostFacts::default()
    }

    fn take_events(&self) -> Option<mpsc::Receiver<NodeEvent>> {
        None
    }
}
