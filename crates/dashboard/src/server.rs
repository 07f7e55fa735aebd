//! How the machine is.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use warren_control::{NewKey, NewTeam, NodeView, TeamChange};
use warren_types::{TeamId, TeamState, UnknownWord};

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, back_to, detached, html};
use crate::view::{day, moment, size};
use crate::visitor::{Frame, Posted, SignedIn};

const HERE: &str = "/dashboard/server";

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
    /// Whether teams can be changed here.
    admin: bool,
    version: &'static str,
    nodes: Vec<NodeRow>,
    teams: Vec<TeamRow>,
    states: &'static [TeamState],
    /// The first key of a new team, shown once.
    made: Option<String>,
}

#[derive(Debug)]
struct TeamRow {
    id: String,
    is_default: bool,
    name: String,
    slug: String,
    state: &'static str,
    running: u32,
    limit: String,
    since: String,
}

/// `GET /dashboard/server`. How full the machine is, and who else uses it, is the business
/// of whoever runs it.
pub(crate) async fn server(State(app): State<Arc<App>>, visitor: SignedIn) -> Answer {
    page(&app, &visitor, None).await
}

async fn page(app: &App, visitor: &SignedIn, made: Option<String>) -> Answer {
    if !visitor.is_operator() {
        return Err(PageError::NotFound("page".to_owned()));
    }
    let nodes = app.control.node_list().await;
    let running = app.control.running_counts();
    let teams = app.control.team_list().await?;
    html(&ServerPage {
        frame: visitor.frame("server"),
        admin: visitor.is_admin(),
        version: env!("CARGO_PKG_VERSION"),
        nodes: nodes.iter().map(NodeRow::new).collect(),
        teams: teams
            .into_iter()
            .map(|team| TeamRow {
                running: running.get(&team.record.id).copied().unwrap_or(0),
                limit: team
                    .record
                    .max_sandboxes
                    .map_or_else(String::new, |most| most.to_string()),
                state: team.record.state.as_str(),
                since: day(team.record.created_at),
                id: team.record.id.to_string(),
                is_default: team.is_default,
                name: team.record.name,
                slug: team.record.slug,
            })
            .collect(),
        states: TeamState::ALL,
        made,
    })
}

#[derive(Deserialize)]
pub(crate) struct Creation {
    name: String,
    /// Made from the name if empty.
    #[serde(default)]
    slug: String,
    /// The server's default if empty.
    #[serde(default)]
    limit: String,
}

fn limit_of(text: &str) -> Result<Option<u32>, PageError> {
    match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            PageError::Refused("a number of sandboxes is 0 or more, without a sign".to_owned())
        }),
    }
}

fn team_id(text: &str) -> Result<TeamId, PageError> {
    text.parse()
        .map_err(|_| PageError::NotFound("team".to_owned()))
}

/// `POST /dashboard/server/teams`: makes a team with a first key, which is shown once.
pub(crate) async fn team_create(
    State(app): State<Arc<App>>,
    Posted(visitor, creation): Posted<Creation>,
) -> Answer {
    let (control, by) = (Arc::clone(&app.control), visitor.by());
    let new = NewTeam {
        name: creation.name.trim().to_owned(),
        slug: Some(creation.slug.trim().to_owned()).filter(|slug| !slug.is_empty()),
        max_sandboxes: limit_of(&creation.limit)?,
    };
    let work = async move {
        let team = control.team_create(&by, new).await?;
        let key = control.key_create(&by, team.id, NewKey::named("default"));
        Ok::<_, PageError>(key.await?.clear)
    };
    let key = detached(&app, work).await??;
    page(&app, &visitor, Some(key.expose().to_owned())).await
}

#[derive(Deserialize)]
pub(crate) struct Change {
    name: String,
    state: String,
    #[serde(default)]
    limit: String,
}

/// `POST /dashboard/server/teams/{id}`
pub(crate) async fn team_change(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, wanted): Posted<Change>,
) -> Answer {
    let (control, by, id) = (Arc::clone(&app.control), visitor.by(), team_id(&id)?);
    let state: TeamState = wanted
        .state
        .parse()
        .map_err(|error: UnknownWord| PageError::Refused(error.to_string()))?;
    let change = TeamChange {
        name: Some(wanted.name.trim().to_owned()),
        max_sandboxes: Some(limit_of(&wanted.limit)?),
        state: Some(state),
    };
    detached(
        &app,
        async move { control.team_update(&by, id, change).await },
    )
    .await??;
    back_to(HERE)
}

#[derive(Deserialize)]
pub(crate) struct Deletion {
    /// With everything that it still has.
    force: Option<String>,
}

/// `POST /dashboard/server/teams/{id}/delete`
pub(crate) async fn team_delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, deletion): Posted<Deletion>,
) -> Answer {
    let (control, by, id) = (Arc::clone(&app.control), visitor.by(), team_id(&id)?);
    let force = deletion.force.is_some();
    detached(
        &app,
        async move { control.team_delete(&by, id, force).await },
    )
    .await??;
    back_to(HERE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_the_server_s() {
        assert_eq!(limit_of(" ").unwrap(), None);
        assert_eq!(limit_of("7").unwrap(), Some(7));
        for bad in ["-1", "x", "1.5", "99999999999"] {
            assert!(limit_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_gauge_ends_at_a_hundred_percent() {
        assert_eq!(Gauge::new("x", 1, 4).percent, 25);
        assert_eq!(Gauge::new("x", 9, 4).percent, 100);
        assert_eq!(Gauge::new("x", 0, 0).percent, 0);
    }
}
