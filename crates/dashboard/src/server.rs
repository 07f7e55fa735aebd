//! How the machine is.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use warren_control::NodeView;

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, html};
use crate::session::{Frame, OPERATOR, SignedIn};
use crate::view::{moment, size};

#[derive(Debug)]
struct Gauge {
    name: String,
    used: String,
    total: String,
    percent: u64,
}

impl Gauge {
    fn new(name: &str, used: u64, total: u64) -> Self {
        Self {
            name: name.to_owned(),
            used: size(used),
            total: size(total),
            percent: (used.saturating_mul(100) / total.max(1)).min(100),
        }
    }
}

#[derive(Debug)]
struct NodeRow {
    id: &'static str,
    host: String,
    status: &'static str,
    since: String,
    cpu: String,
    running: usize,
    starting: usize,
    created: u64,
    refused: u64,
    promised: String,
    gauges: Vec<Gauge>,
}

impl NodeRow {
    fn new(node: &NodeView) -> Self {
        let host = &node.host;
        let mut gauges = vec![
            Gauge {
                name: "Processors".to_owned(),
                used: format!("{} %", host.cpu_percent),
                total: format!("{} cores", host.cpu_count),
                percent: u64::from(host.cpu_percent).min(100),
            },
            Gauge::new("Memory", host.memory_used, host.memory_total),
        ];
        gauges.extend(
            host.disks.iter().map(|disk| {
                Gauge::new(&format!("Disk {}", disk.mount_point), disk.used, disk.total)
            }),
        );
        Self {
            id: node.id,
            host: host.name.clone(),
            status: node.status.as_str(),
            since: moment(node.since),
            cpu: host.cpu[2].clone(),
            running: node.running,
            starting: node.starting,
            created: node.created,
            refused: node.refused,
            promised: format!(
                "{} CPUs, {}",
                node.allocated_cpu,
                size(node.allocated_memory)
            ),
            gauges,
        }
    }
}

#[derive(Template)]
#[template(path = "server.html")]
struct ServerPage {
    frame: Option<Frame>,
    version: &'static str,
    nodes: Vec<NodeRow>,
    teams: Vec<TeamRow>,
}

#[derive(Debug)]
struct TeamRow {
    name: String,
    slug: String,
    state: &'static str,
    running: u32,
    limit: String,
    created: String,
}

/// `GET /dashboard/server`. How full the machine is, and who else uses it, is the business
/// of whoever runs it.
pub(crate) async fn server(State(app): State<Arc<App>>, visitor: SignedIn) -> Answer {
    if visitor.caller.team.slug != OPERATOR {
        return Err(PageError::NotFound("page".to_owned()));
    }
    let nodes = app.control.node_list().await;
    let running = app.control.running_counts();
    let teams = app.control.team_list().await?;
    html(&ServerPage {
        frame: visitor.frame("server"),
        version: env!("CARGO_PKG_VERSION"),
        nodes: nodes.iter().map(NodeRow::new).collect(),
        teams: teams
            .into_iter()
            .map(|team| TeamRow {
                running: running.get(&team.record.id).copied().unwrap_or(0),
                limit: team.record.max_sandboxes.map_or_else(
                    || "as many as the server allows".to_owned(),
                    |most| most.to_string(),
                ),
                state: team.record.state.as_str(),
                created: moment(team.record.created_at),
                name: team.record.name,
                slug: team.record.slug,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::Gauge;

    #[test]
    fn a_gauge_ends_at_a_hundred_percent() {
        assert_eq!(Gauge::new("x", 1, 4).percent, 25);
        assert_eq!(Gauge::new("x", 9, 4).percent, 100);
        assert_eq!(Gauge::new("x", 0, 0).percent, 0);
    }
}
