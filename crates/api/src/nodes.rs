//! Nodes, for the administrator.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use warren_control::{DiskFacts, NodeView, NodesError};
use warren_wire as wire;

use crate::error::ApiError;
use crate::extract::{Json, PathText, Query, json, no_content};
use crate::router::App;

type Answer = Result<Response, ApiError>;

/// Id of the one cluster.
const CLUSTER: &str = "00000000-0000-0000-0000-000000000000";

impl From<NodesError> for ApiError {
    fn from(error: NodesError) -> Self {
        let status = match &error {
            NodesError::NotFound => StatusCode::NOT_FOUND,
            NodesError::Status(_) => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

fn disk(disk: DiskFacts) -> wire::DiskMetrics {
    wire::DiskMetrics {
        mount_point: disk.mount_point,
        device: disk.device,
        filesystem_type: disk.kind,
        used_bytes: disk.used,
        total_bytes: disk.total,
    }
}

fn shown(node: NodeView) -> wire::Node {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let host = node.host;
    let [cpu_family, cpu_model, cpu_model_name] = host.cpu;
    wire::Node {
        id: node.id.to_owned(),
        service_instance_id: node.instance,
        cluster_id: CLUSTER.to_owned(),
        status: node.status.as_str().to_owned(),
        status_changed_at: node.since,
        sandbox_count: count(node.running),
        metrics: wire::NodeMetrics {
            allocated_cpu: node.allocated_cpu,
            cpu_percent: host.cpu_percent,
            cpu_count: host.cpu_count,
            allocated_memory_bytes: node.allocated_memory,
            memory_used_bytes: host.memory_used,
            memory_total_bytes: host.memory_total,
            huge_pages_total: host.huge_pages.total,
            huge_pages_used: host.huge_pages.used,
            huge_pages_reserved: host.huge_pages.reserved,
            huge_page_size_bytes: host.huge_pages.size,
            disks: host.disks.into_iter().map(disk).collect(),
        },
        create_successes: node.created,
        create_fails: node.refused,
        sandbox_starting_count: count(node.starting),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("WARREN_COMMIT").unwrap_or_default().to_owned(),
        machine_info: wire::MachineInfo {
            cpu_family,
            cpu_model,
            cpu_model_name,
            cpu_architecture: std::env::consts::ARCH.to_owned(),
        },
    }
}

fn is_ours(cluster: Option<&str>) -> bool {
    cluster.is_none_or(|cluster| cluster == CLUSTER)
}

/// `GET /nodes`
pub(crate) async fn list(State(app): State<Arc<App>>, query: Query) -> Answer {
    let mut nodes = app.control.node_list().await;
    nodes.retain(|_| is_ours(query.filled("clusterID")));
    let nodes: Vec<wire::Node> = nodes.into_iter().map(shown).collect();
    Ok(json(StatusCode::OK, &nodes))
}

/// `GET /nodes/{nodeID}`
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    PathText(id): PathText,
    query: Query,
) -> Answer {
    if !is_ours(query.filled("clusterID")) {
        return Err(NodesError::NotFound.into());
    }
    let node = app.control.node_get(&id).await?;
    Ok(json(StatusCode::OK, &shown(node)))
}

/// `POST /nodes/{nodeID}`
pub(crate) async fn set_status(
    State(app): State<Arc<App>>,
    PathText(id): PathText,
    Json(body): Json<wire::NodeStatusChange>,
) -> Answer {
    if !is_ours(body.cluster_id.as_deref()) {
        return Err(NodesError::NotFound.into());
    }
    let known = ["ready", "draining", "connecting", "unhealthy", "standby"];
    if !known.contains(&body.status.as_str()) {
        let text = format!("status must be one of {}", known.join(", "));
        return Err(ApiError::validation(text));
    }
    app.control.node_set_status(&id, &body.status)?;
    Ok(no_content())
}
