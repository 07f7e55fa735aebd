//! The page of one sandbox and its parts that are refreshed.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use serde::Deserialize;
use warren_control::{Caller, EventQuery, LogRequest, Sandbox, TimeRange};
use warren_types::{ENVD_PORT, LogLevel, SandboxId};

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, html};
use crate::session::{Frame, SignedIn};
use crate::view::{CHART_HEIGHT, CHART_WIDTH, Chart, EventRow, LogRow, SandboxRow};

/// Longest span that charts show, in minutes.
const MAX_MINUTES: i64 = 7 * 24 * 60;
/// Log lines that a page shows.
const LINES: usize = 200;
/// Events that a page shows.
const EVENTS: i64 = 50;

pub(crate) fn sandbox_id(text: &str) -> Result<SandboxId, PageError> {
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
    let row = SandboxRow::new(&sandbox, newest.get(id).as_slice_of_one(), Timestamp::now());
    Ok((sandbox, row))
}

/// An option as a slice.
trait AsSliceOfOne<T> {
    fn as_slice_of_one(&self) -> &[T];
}

impl<T> AsSliceOfOne<T> for Option<&T> {
    fn as_slice_of_one(&self) -> &[T] {
        self.map_or(&[], std::slice::from_ref)
    }
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

/// `GET /dashboard/sandboxes/{id}`
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
        // Its team's browser is the one to have it, as the API's clients do; those who only
        // read are not told.
        token: token
            .filter(|_| !visitor.caller.is_read_only())
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
    minutes: i64,
    width: f64,
    height: f64,
}

#[derive(Deserialize)]
pub(crate) struct Span {
    minutes: Option<i64>,
}

pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
    Query(span): Query<Span>,
) -> Answer {
    let minutes = span.minutes.unwrap_or(10).clamp(1, MAX_MINUTES);
    let range = TimeRange {
        start: Some(Timestamp::now().as_second() - minutes * 60),
        end: None,
    };
    let samples = app
        .control
        .metrics(&visitor.caller, &sandbox_id(&id)?, range)
        .await?;
    html(&MetricsPart {
        charts: Chart::of_sandbox(&samples),
        minutes,
        width: CHART_WIDTH,
        height: CHART_HEIGHT,
    })
}

#[derive(Template)]
#[template(path = "logs.html")]
struct LogsPart {
    lines: Vec<LogRow>,
}

#[derive(Deserialize)]
pub(crate) struct LogFilter {
    #[serde(default)]
    level: String,
    #[serde(default)]
    search: String,
}

pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
    Query(filter): Query<LogFilter>,
) -> Answer {
    let request = LogRequest {
        from: None,
        limit: LINES,
        backward: true,
        min_level: match filter.level.as_str() {
            "debug" => Some(LogLevel::Debug),
            "info" => Some(LogLevel::Info),
            "warn" => Some(LogLevel::Warn),
            "error" => Some(LogLevel::Error),
            _ => None,
        },
        search: Some(filter.search).filter(|text| !text.is_empty()),
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

#[derive(Template)]
#[template(path = "timeline.html")]
struct TimelinePart {
    events: Vec<EventRow>,
}

pub(crate) async fn events(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
) -> Answer {
    let query = EventQuery {
        sandbox: Some(sandbox_id(&id)?),
        limit: Some(EVENTS),
        ..EventQuery::default()
    };
    let events = app.control.event_list(&visitor.caller, query).await?;
    html(&TimelinePart {
        events: events.iter().map(EventRow::new).collect(),
    })
}
