//! What a team uses over time, and how the machine is.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use jiff::Timestamp;
use serde::Deserialize;
use warren_control::{ListQuery, TeamPoint, TimeRange};

use crate::App;
use crate::pages::{Answer, html};
use crate::view::{self, CHART_HEIGHT, CHART_WIDTH, Chart};
use crate::visitor::{Frame, SignedIn};

/// Spans that can be chosen, in hours, and how they are called.
const SPANS: [(i64, &str); 4] = [
    (1, "1 hour"),
    (6, "6 hours"),
    (24, "1 day"),
    (7 * 24, "7 days"),
];

#[derive(Deserialize)]
pub(crate) struct Span {
    hours: Option<i64>,
}

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    frame: Option<Frame>,
    spans: [(i64, &'static str); 4],
    hours: i64,
    shown: &'static str,
    charts: Vec<Chart>,
    width: f64,
    height: f64,
    running: usize,
    limit: u32,
}

/// `GET /dashboard/usage`
#[expect(clippy::cast_precision_loss, reason = "charts have few pixels")]
pub(crate) async fn usage(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Query(span): Query<Span>,
) -> Answer {
    let wanted = SPANS
        .into_iter()
        .find(|(hours, _)| Some(*hours) == span.hours);
    let (hours, shown) = wanted.unwrap_or((24, "1 day"));
    let team = &visitor.caller.team;
    let shown_span = view::Span::last(hours * 3600);
    let range = TimeRange {
        start: Some(shown_span.start.as_second()),
        end: None,
    };
    let points = app
        .control
        .team_metrics(&visitor.caller, &team.id.to_string(), range)
        .await?;
    let column = |value: fn(&TeamPoint) -> f64| -> Vec<(Timestamp, f64)> {
        let points = points.iter().map(|point| (point.at, value(point)));
        points.collect()
    };
    let query = ListQuery {
        running: true,
        limit: Some(1),
        ..ListQuery::default()
    };
    let running = app
        .control
        .list(&visitor.caller, query)
        .await?
        .total_running;
    html(&UsagePage {
        frame: visitor.frame("usage"),
        spans: SPANS,
        hours,
        shown,
        charts: vec![
            Chart::peaking(
                "Sandboxes at a time",
                shown_span,
                &column(|p| p.concurrent as f64),
                |v| format!("{v:.0}"),
            ),
            Chart::peaking(
                "Starts per second",
                shown_span,
                &column(|p| p.start_rate),
                |v| format!("{v:.2}"),
            ),
        ],
        width: CHART_WIDTH,
        height: CHART_HEIGHT,
        running: running.unwrap_or(0),
        limit: team.max_sandboxes,
    })
}
