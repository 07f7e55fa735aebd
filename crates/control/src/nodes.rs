//! Nodes, for the administrator. There is one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use warren_cluster::{HostFacts, NodeError};
use warren_types::SandboxState;

use crate::Control;

/// Name of the one node.
const LOCAL: &str = "local";

/// Whether a node takes new sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStatus {
    /// It does.
    Ready,
    /// It keeps those that it has until they end.
    Draining,
    /// It takes none for now.
    Standby,
}

impl NodeStatus {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Standby => "standby",
        }
    }
}

/// What is known of the node beside what it tells itself.
#[derive(Debug)]
pub(crate) struct NodeState {
    status: Mutex<(NodeStatus, Timestamp)>,
    /// Sandboxes made, and not made, since the start.
    pub(crate) created: AtomicU64,
    pub(crate) refused: AtomicU64,
    instance: uuid::Uuid,
}

impl Default for NodeState {
    fn default() -> Self {
        Self {
            status: Mutex::new((NodeStatus::Ready, Timestamp::now())),
            created: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            instance: uuid::Uuid::new_v4(),
        }
    }
}

impl NodeState {
    fn status(&self) -> (NodeStatus, Timestamp) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an attempt to make a sandbox.
    pub(crate) fn count<T>(&self, made: &Result<T, NodeError>) {
        let count = if made.is_ok() {
            &self.created
        } else {
            &self.refused
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A node as the administrator sees it.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Its id.
    pub id: &'static str,
    /// Id of the running server process.
    pub instance: String,
    /// Whether it takes new sandboxes.
    pub status: NodeStatus,
    /// Since when.
    pub since: Timestamp,
    /// Sandboxes that run on it.
    pub running: usize,
    /// Sandboxes that are being made.
    pub starting: usize,
    /// Cores that its sandboxes may use, together.
    pub allocated_cpu: u32,
    /// Bytes of memory that they may use, together.
    pub allocated_memory: u64,
    /// Sandboxes made since the start.
    pub created: u64,
    /// Sandboxes that could not be made since the start.
    pub refused: u64,
    /// The machine.
    pub host: HostFacts,
}

/// Why a request about a node was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodesError {
    /// Unknown.
    #[error("Node not found")]
    NotFound,
    /// Not for the administrator to set.
    #[error("the status of a node can't be set to '{0}'")]
    Status(String),
}

impl Control {
    /// All nodes.
    pub async fn node_list(&self) -> Vec<NodeView> {
        let (status, since) = self.node_state.status();
        let views = self.node.list().await;
        let running = views
            .iter()
            .filter(|view| view.state == SandboxState::Running);
        let (mut count, mut cpu, mut memory) = (0, 0_u32, 0_u64);
        for view in running {
            count += 1;
            cpu = cpu.saturating_add(view.resources.cpu_count);
            let bytes = u64::from(view.resources.memory_mib) << 20;
            memory = memory.saturating_add(bytes);
        }
        let places: u32 = self.quota.counts().values().sum();
        vec![NodeView {
            id: LOCAL,
            instance: self.node_state.instance.to_string(),
            status,
            since,
            running: count,
            starting: (places as usize).saturating_sub(count),
            allocated_cpu: cpu,
            allocated_memory: memory,
            created: self.node_state.created.load(Ordering::Relaxed),
            refused: self.node_state.refused.load(Ordering::Relaxed),
            host: self.node.host().await,
        }]
    }

    /// A node.
    ///
    /// # Errors
    /// [`NodesError::NotFound`]
    pub async fn node_get(&self, id: &str) -> Result<NodeView, NodesError> {
        let nodes = self.node_list().await;
        let found = nodes.into_iter().find(|node| node.id == id);
        found.ok_or(NodesError::NotFound)
    }

    /// Sets whether a node takes new sandboxes, until the server is started again.
    ///
    /// # Errors
    /// [`NodesError`]
    pub fn node_set_status(&self, id: &str, status: &str) -> Result<(), NodesError> {
        if id != LOCAL {
            return Err(NodesError::NotFound);
        }
        let status = match status {
            "ready" => NodeStatus::Ready,
            "draining" => NodeStatus::Draining,
            "standby" => NodeStatus::Standby,
            other => return Err(NodesError::Status(other.to_owned())),
        };
        let mut current = self.node_state.status.lock();
        let current = current.as_deref_mut();
        if let Ok(current) = current
            && current.0 != status
        {
            *current = (status, Timestamp::now());
        }
        Ok(())
    }

    /// Makes sure that the node takes new sandboxes.
    pub(crate) fn takes_sandboxes(&self) -> Result<(), NodeError> {
        match self.node_state.status().0 {
            NodeStatus::Ready => Ok(()),
            NodeStatus::Draining => Err(NodeError::NoCapacity("it is draining".to_owned())),
            NodeStatus::Standby => Err(NodeError::NoCapacity("it stands by".to_owned())),
        }
    }
}
