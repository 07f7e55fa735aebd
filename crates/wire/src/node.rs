//! Nodes, as the administrator sees them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Body of `POST /nodes/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatusChange {
    /// `ready`, `draining`, `standby`; others are not for the administrator to set.
    pub status: String,
    /// Id of the cluster.
    #[serde(rename = "clusterID", default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

/// How full a file system is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskMetrics {
    /// Where it is mounted.
    pub mount_point: String,
    /// On what.
    pub device: String,
    /// Its kind.
    pub filesystem_type: String,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// What a node is made of and how much of it is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeMetrics {
    /// Cores that its sandboxes may use, together.
    #[serde(rename = "allocatedCPU")]
    pub allocated_cpu: u32,
    /// Load of the processors.
    pub cpu_percent: u32,
    /// Cores.
    pub cpu_count: u32,
    /// Memory that its sandboxes may use, together, in bytes.
    pub allocated_memory_bytes: u64,
    /// Memory in use in bytes.
    pub memory_used_bytes: u64,
    /// Memory in all in bytes.
    pub memory_total_bytes: u64,
    /// Huge pages set aside.
    pub huge_pages_total: u64,
    /// Of these, in use.
    pub huge_pages_used: u64,
    /// Of these, promised.
    pub huge_pages_reserved: u64,
    /// Size of one in bytes.
    pub huge_page_size_bytes: u64,
    /// Its file systems that sandboxes use.
    pub disks: Vec<DiskMetrics>,
}

/// What machine a node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineInfo {
    /// Family of the processor.
    pub cpu_family: String,
    /// Its model.
    pub cpu_model: String,
    /// Its model's name.
    pub cpu_model_name: String,
    /// Its architecture.
    pub cpu_architecture: String,
}

/// A node: an element of `GET /nodes`, and the answer of `GET /nodes/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Id of the running server process.
    #[serde(rename = "serviceInstanceID")]
    pub service_instance_id: String,
    /// Id of the cluster.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// `ready`, `draining`, `connecting`, `unhealthy` or `standby`.
    pub status: String,
    /// Since when.
    pub status_changed_at: Timestamp,
    /// Sandboxes that run on it.
    pub sandbox_count: u32,
    /// What it is made of and how much of it is in use.
    pub metrics: NodeMetrics,
    /// Sandboxes made since the server's start.
    pub create_successes: u64,
    /// Sandboxes that could not be made.
    pub create_fails: u64,
    /// Sandboxes that are being made.
    pub sandbox_starting_count: u32,
    /// Version of the server.
    pub version: String,
    /// Commit that it was made from, where that is known.
    pub commit: String,
    /// What machine it is.
    pub machine_info: MachineInfo,
}
