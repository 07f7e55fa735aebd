//! Lists and usage.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use jiff::Timestamp;
use serde::Deserialize;
use warren_control::{ListQuery, TimeRange};

use crate::App;
use crate::error::PageError;
use crate::session::{Frame, SignedIn};
use crate::view::{BuildRow, Chart, SandboxRow, TemplateRow};

pub(crate) type Answer = Result<Response, PageError>;

/// Sandboxes and templates of one page.
const PAGE: i64 = 50;

/// Renders a page.
pub(crate) fn html(page: &impl Template) -> Answer {
    Ok(Html(page.render()?).into_response())
}

pub(crate) async fn root() -> Redirect {
    Redirect::temporary("/dashboard")
}

#[derive(Deserialize)]
pub(crate) struct Paging {
    after: Option<String>,
    state: Option<String>,
}

#[derive(Template)]
#[template(path = "sandboxes.html")]
struct SandboxesPage {
    frame: Option<Frame>,
    state: String,
    sandboxes: Vec<SandboxRow>,
    next: Option<String>,
    running: usize,
    limit: u32,
}

pub(crate) async fn sandboxes(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Query(paging): Query<Paging>,
) -> Answer {
    let state = paging.state.unwrap_or_default();
    let query = ListQuery {
        running: state != "paused",
        paused: state != "running",
        limit: Some(PAGE),
        cursor: paging.after.filter(|after| !after.is_empty()),
        ..ListQuery::default()
    };
    let page = app.control.list(&visitor.caller, query).await?;
    let ids: Vec<_> = page
        .sandboxes
        .iter()
        .map(|one| one.record.id.clone())
        .collect();
    let newest = app.control.metrics_latest(&visitor.caller, &ids).await?;
    let now = Timestamp::now();
    html(&SandboxesPage {
        frame: visitor.frame("sandboxes"),
        state,
        sandboxes: page
            .sandboxes
            .iter()
            .map(|one| SandboxRow::new(one, newest.get(&one.record.id), now))
            .collect(),
        next: page.next,
        running: page.total_running.unwrap_or(0),
        limit: visitor.caller.team.max_sandboxes,
    })
}

#[derive(Template)]
#[template(path = "templates.html")]
struct TemplatesPage {
    frame: Option<Frame>,
    templates: Vec<TemplateRow>,
    next: Option<String>,
}

pub(crate) async fn templates(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Query(paging): Query<Paging>,
) -> Answer {
    let cursor = paging.after.filter(|after| !after.is_empty());
    let (templates, next) = app
        .control
        .template_page(&visitor.caller, None, Some(PAGE), cursor.as_deref())
        .await?;
    html(&TemplatesPage {
        frame: visitor.frame("templates"),
        templates: templates.iter().map(TemplateRow::new).collect(),
        next,
    })
}

#[derive(Template)]
#[template(path = "template.html")]
struct TemplatePage {
    frame: Option<Frame>,
    template: TemplateRow,
    builds: Vec<BuildRow>,
}

pub(crate) async fn template(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
) -> Answer {
    let (summary, builds, _) = app
        .control
        .template_builds(&visitor.caller, &id, Some(PAGE), None)
        .await?;
    html(&TemplatePage {
        frame: visitor.frame("templates"),
        template: TemplateRow::new(&summary),
        builds: builds.iter().map(BuildRow::new).collect(),
    })
}

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    frame: Option<Frame>,
    charts: Vec<Chart>,
    keys: Vec<(String, String, String)>,
}

#[expect(clippy::cast_precision_loss, reason = "charts have few pixels")]
pub(crate) async fn usage(State(app): State<Arc<App>>, visitor: SignedIn) -> Answer {
    let team = visitor.caller.team.id.to_string();
    let range = TimeRange::default();
    let points = app
        .control
        .team_metrics(&visitor.caller, &team, range)
        .await?;
    let concurrent: Vec<f64> = points.iter().map(|point| point.concurrent as f64).collect();
    let starts: Vec<f64> = points.iter().map(|point| point.start_rate).collect();
    let keys = app.control.key_list(visitor.caller.team.id).await;
    let keys = keys.map_err(|error| PageError::Internal(Box::new(error)))?;
    html(&UsagePage {
        frame: visitor.frame("usage"),
        charts: vec![
            Chart::peaking("Sandboxes at a time", &concurrent, |v| format!("{v:.0}")),
            Chart::peaking("Starts per second", &starts, |v| format!("{v:.2}")),
        ],
        keys: keys
            .iter()
            .map(|key| {
                (
                    key.record.name.clone(),
                    format!("e2b_{}…{}", key.record.mask_prefix, key.record.mask_suffix),
                    crate::view::moment(key.record.created_at),
                )
            })
            .collect(),
    })
}
