//! The page of one sandbox and its parts that are refreshed.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use http::HeaderValue;
use http::header::CONTENT_SECURITY_POLICY;
use jiff::Timestamp;
use serde::Deserialize;
use warren_control::{Caller, EventQuery, LogRequest, Sandbox, TimeRange};
use warren_types::{ENVD_PORT, LogLevel, SandboxId};

use crate::App;
use crate::assets::policy;
use crate::error::PageError;
use crate::pages::{Answer, back_to, html};
use crate::view::{self, CHART_HEIGHT, CHART_WIDTH, Chart, EventRow, LogRow, SandboxRow};
use crate::visitor::{Frame, SignedIn};

/// Longest span that charts show, in minutes.
const MAX_MINUTES: i64 = 7 * 24 * 60;
/// Log lines that a page shows.
const LINES: usize = 200;
/// Longest text that is looked for in a log, in bytes.
const MAX_SEARCH: usize = 256;
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
    /// Of the log, before anything is chosen.
    filter: LogFilter,
    /// Whether the agent inside is the visitor's to speak to.
    may_enter: bool,
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
    let (sandbox, row) = match row(&app, &visitor.caller, &sandbox_id(&id)?).await {
        Err(PageError::Ended(id)) => return back_to(&format!("/dashboard/sandboxes/{id}/ended")),
        found => found?,
    };
    let token = sandbox.access_token.as_ref();
    let domain = sandbox.domain.clone().unwrap_or_default();
    let agent = if domain.is_empty() {
        String::new()
    } else {
        format!("{ENVD_PORT}-{}.{domain}", row.id)
    };
    let page = html(&SandboxPage {
        frame: visitor.frame("sandboxes"),
        may_enter: !visitor.caller.is_read_only(),
        sandbox: row,
        filter: LogFilter::default(),
        agent_port: ENVD_PORT,
        // Its team's browser is the one to have it, as the API's clients do; those who only
        // read are not told.
        token: token
            .filter(|_| !visitor.caller.is_read_only())
            .map(|token| token.expose().to_owned())
            .unwrap_or_default(),
        domain,
    })?;
    // The script of this page, and of no other, speaks to a host that is not ours.
    let policy = HeaderValue::try_from(policy("'self'", &agent))
        .map_err(|error| PageError::Internal(Box::new(error)))?;
    Ok(([(CONTENT_SECURITY_POLICY, policy)], page).into_response())
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
    since: String,
    width: f64,
    height: f64,
}

/// The left end of charts in words.
fn since(minutes: i64) -> String {
    match minutes {
        1440 => "a day ago".to_owned(),
        60 => "an hour ago".to_owned(),
        minutes => format!("{minutes} minutes ago"),
    }
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
    let shown = view::Span::last(minutes * 60);
    let range = TimeRange {
        start: Some(shown.start.as_second()),
        end: None,
    };
    let samples = app
        .control
        .metrics(&visitor.caller, &sandbox_id(&id)?, range)
        .await?;
    html(&MetricsPart {
        charts: Chart::of_sandbox(&samples, shown),
        since: since(minutes),
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

/// Which lines of a log are wanted, as the form says it. Times are UTC, to the minute.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LogFilter {
    pub(crate) level: String,
    pub(crate) source: String,
    pub(crate) search: String,
    pub(crate) since: String,
    pub(crate) until: String,
}

impl LogFilter {
    fn request(&self) -> Result<LogRequest, PageError> {
        if self.search.len() > MAX_SEARCH {
            let text = format!("the text to look for has more than {MAX_SEARCH} bytes");
            return Err(PageError::Refused(text));
        }
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(LogRequest {
            // Newest first, so it begins at the end.
            from: minute_of(&self.until, true)?,
            until: minute_of(&self.since, false)?,
            limit: LINES,
            backward: true,
            min_level: match self.level.as_str() {
                "debug" => Some(LogLevel::Debug),
                "info" => Some(LogLevel::Info),
                "warn" => Some(LogLevel::Warn),
                "error" => Some(LogLevel::Error),
                _ => None,
            },
            logger: given(&self.source),
            search: given(&self.search),
        })
    }

    /// The newest of these lines, oldest first.
    pub(crate) async fn lines(
        &self,
        app: &App,
        caller: &Caller,
        id: &SandboxId,
    ) -> Result<Vec<LogRow>, PageError> {
        let mut entries = app.control.logs(caller, id, self.request()?).await?;
        entries.reverse();
        Ok(entries.iter().map(LogRow::new).collect())
    }
}

/// The first or last moment of a minute as browsers send it, `2026-01-31T23:59`.
fn minute_of(text: &str, is_end: bool) -> Result<Option<Timestamp>, PageError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let second = if is_end { "59.999999999" } else { "00" };
    let whole = match text.matches(':').count() {
        1 => format!("{}:{second}Z", text.trim()),
        _ => format!("{}Z", text.trim()),
    };
    let at = whole.parse().map_err(|_| {
        PageError::Refused("a time is written like 2026-01-31T23:59, in UTC".to_owned())
    })?;
    Ok(Some(at))
}

pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
    Query(filter): Query<LogFilter>,
) -> Answer {
    let id = sandbox_id(&id)?;
    let lines = filter.lines(&app, &visitor.caller, &id).await?;
    html(&LogsPart { lines })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_a_start_and_an_end() {
        let minute = |text, is_end| {
            let at = minute_of(text, is_end).unwrap();
            at.map(|at: Timestamp| at.to_string())
        };
        assert_eq!(minute("", true), None);
        let start = minute("2026-01-31T23:59", false);
        assert_eq!(start.as_deref(), Some("2026-01-31T23:59:00Z"));
        let end = minute("2026-01-31T23:59", true).unwrap();
        assert!(end.starts_with("2026-01-31T23:59:59.9"), "{end}");
        let exact = minute("2026-01-31T23:59:07", true);
        assert_eq!(exact.as_deref(), Some("2026-01-31T23:59:07Z"));
        for bad in ["x", "2026-01-31", "23:59", "2026-13-31T23:59"] {
            assert!(minute_of(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_filter_becomes_a_request_backward_in_time() {
        let filter = LogFilter {
            level: "warn".to_owned(),
            source: "process".to_owned(),
            since: "2026-01-31T10:00".to_owned(),
            until: "2026-01-31T11:00".to_owned(),
            ..LogFilter::default()
        };
        let request = filter.request().unwrap();
        assert!(request.from > request.until && request.backward);
        assert_eq!(request.min_level, Some(LogLevel::Warn));
        assert_eq!(request.logger.as_deref(), Some("process"));
        assert_eq!(request.search, None);
        let long = LogFilter {
            search: "x".repeat(MAX_SEARCH + 1),
            ..LogFilter::default()
        };
        assert!(long.request().is_err());
    }
}
