//! The page of one sandbox, its parts that are refreshed, and what is done to it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use jiff::Timestamp;
use serde::Deserialize;
use warren_control::{Caller, LogRequest, Sandbox, TimeRange};
use warren_types::{ENVD_PORT, SandboxId};

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, html};
use crate::session::{Frame, Posted, SignedIn};
use crate::view::{CHART_HEIGHT, CHART_WIDTH, Chart, LogRow, SandboxRow};

/// Charts show this much, in seconds.
const CHARTED: i64 = 600;
/// Log lines that a page shows.
const LINES: usize = 200;
/// Longest extension by a button, in seconds.
const MAX_EXTENSION: u64 = 24 * 3600;

fn sandbox_id(text: &str) -> Result<SandboxId, PageError> {
    text.parse()
        .map_err(|_| PageError::NotFound(format!("sandbox {text}")))
}

async fn row(
    app: &App,
    caller: &Caller,
    id: &SandboxId,
) -> Result<(Sandbox, SandboxRow), PageError> {
    let sandbox = app.control.get(caller, id).await?;
    let newest = app
        .control
        .metrics_latest(caller, std::slice::from_ref(id))
        .await?;
    let row = SandboxRow::new(&sandbox, newest.get(id), Timestamp::now());
    Ok((sandbox, row))
}

#[derive(Template)]
#[template(path = "sandbox.html")]
struct SandboxPage {
    frame: Option<Frame>,
    sandbox: SandboxRow,
    /// What the browser needs to speak to the agent.
    agent_port: u16,
    token: String,
    domain: String,
}

pub(crate) async fn page(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
) -> Answer {
    let (sandbox, row) = row(&app, &visitor.caller, &sandbox_id(&id)?).await?;
    let token = sandbox.access_token.as_ref();
    html(&SandboxPage {
        frame: visitor.frame("sandboxes"),
        sandbox: row,
        agent_port: ENVD_PORT,
        // Its team's browser is the one to have it, as the API's clients do.
        token: token
            .map(|token| token.expose().to_owned())
            .unwrap_or_default(),
        domain: sandbox.domain.unwrap_or_default(),
    })
}

#[derive(Template)]
#[template(path = "facts.html")]
struct FactsPart {
    sandbox: SandboxRow,
}

pub(crate) async fn facts(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
) -> Answer {
    let (_, sandbox) = row(&app, &visitor.caller, &sandbox_id(&id)?).await?;
    html(&FactsPart { sandbox })
}

#[derive(Template)]
#[template(path = "metrics.html")]
struct MetricsPart {
    charts: Vec<Chart>,
    width: f64,
    height: f64,
}

pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
) -> Answer {
    let range = TimeRange {
        start: Some(Timestamp::now().as_second() - CHARTED),
        end: None,
    };
    let samples = app
        .control
        .metrics(&visitor.caller, &sandbox_id(&id)?, range)
        .await?;
    html(&MetricsPart {
        charts: Chart::of_sandbox(&samples),
        width: CHART_WIDTH,
        height: CHART_HEIGHT,
    })
}

#[derive(Template)]
#[template(path = "logs.html")]
struct LogsPart {
    lines: Vec<LogRow>,
}

pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
) -> Answer {
    let request = LogRequest {
        from: None,
        limit: LINES,
        backward: true,
        min_level: None,
        search: None,
    };
    let mut entries = app
        .control
        .logs(&visitor.caller, &sandbox_id(&id)?, request)
        .await?;
    entries.reverse();
    html(&LogsPart {
        lines: entries.iter().map(LogRow::new).collect(),
    })
}

/// A form without fields.
#[derive(Deserialize)]
pub(crate) struct Nothing {}

pub(crate) async fn kill(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    app.control.kill(&visitor.caller, &sandbox_id(&id)?).await?;
    Ok(Redirect::to("/dashboard").into_response())
}

#[derive(Deserialize)]
pub(crate) struct Extension {
    seconds: u64,
}

pub(crate) async fn extend(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, extension): Posted<Extension>,
) -> Answer {
    if extension.seconds > MAX_EXTENSION {
        return Err(PageError::Refused("that is too long".to_owned()));
    }
    let id = sandbox_id(&id)?;
    app.control
        .set_timeout(&visitor.caller, &id, extension.seconds)
        .await?;
    Ok(Redirect::to(&format!("/dashboard/sandboxes/{id}")).into_response())
}
