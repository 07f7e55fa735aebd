//! What is left of a sandbox that has ended: why, what befell it, and its log.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use warren_control::{EventQuery, SandboxError};

use crate::App;
use crate::pages::{Answer, html};
use crate::sandbox::{LogFilter, sandbox_id};
use crate::view::{EventRow, LogRow, moment};
use crate::visitor::{Frame, SignedIn};

/// Events that the page shows.
const EVENTS: i64 = 100;

#[derive(Template)]
#[template(path = "ended.html")]
struct EndedPage {
    frame: Option<Frame>,
    id: String,
    /// How it ended and when, unless it has not.
    end: Option<(String, String)>,
    filter: LogFilter,
    lines: Vec<LogRow>,
    events: Vec<EventRow>,
}

/// `GET /dashboard/sandboxes/{id}/ended`
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
    Query(filter): Query<LogFilter>,
) -> Answer {
    let id = sandbox_id(&id)?;
    let end = match app.control.get(&visitor.caller, &id).await {
        Ok(_) => None,
        Err(SandboxError::Ended { end, .. }) => Some((end.explain(), moment(end.at))),
        Err(error) => return Err(error.into()),
    };
    let lines = filter.lines(&app, &visitor.caller, &id).await?;
    let query = EventQuery {
        sandbox: Some(id.clone()),
        limit: Some(EVENTS),
        ..EventQuery::default()
    };
    let events = app.control.event_list(&visitor.caller, query).await?;
    let events: Vec<_> = events.iter().map(EventRow::new).collect();
    html(&EndedPage {
        frame: visitor.frame("sandboxes"),
        id: id.to_string(),
        end,
        filter,
        lines,
        events,
    })
}
