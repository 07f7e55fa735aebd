//! Templates, their builds, and snapshots.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use warren_control::{BuildEntry, BuildLogRequest, BuildStatus, SnapshotQuery};

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, Nothing, PAGE, Paging, back_to, detached, html};
use crate::view::{BuildRow, TemplateRow};
use crate::visitor::{Frame, Posted, SignedIn};

/// Lines of a build that a page shows.
const MOST_LINES: usize = 5000;

#[derive(Template)]
#[template(path = "templates.html")]
struct TemplatesPage {
    frame: Option<Frame>,
    templates: Vec<TemplateRow>,
    next: Option<String>,
}

/// `GET /dashboard/templates`
pub(crate) async fn list(
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
    next: Option<String>,
}

/// `GET /dashboard/templates/{id}`
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Answer {
    let cursor = paging.after.filter(|after| !after.is_empty());
    let (summary, builds, next) = app
        .control
        .template_builds(&visitor.caller, &id, Some(PAGE), cursor.as_deref())
        .await?;
    html(&TemplatePage {
        frame: visitor.frame("templates"),
        template: TemplateRow::new(&summary),
        builds: builds.iter().map(BuildRow::new).collect(),
        next,
    })
}

#[derive(Deserialize)]
pub(crate) struct Publishing {
    public: bool,
}

/// `POST /dashboard/templates/{id}/publish`
pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, publishing): Posted<Publishing>,
) -> Answer {
    let (control, template) = (Arc::clone(&app.control), id.clone());
    detached(&app, async move {
        let public = Some(publishing.public);
        control
            .template_update(&visitor.caller, &template, public)
            .await
    })
    .await??;
    back_to(&format!("/dashboard/templates/{id}"))
}

/// `POST /dashboard/templates/{id}/delete`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    let control = Arc::clone(&app.control);
    detached(&app, async move {
        control.template_delete(&visitor.caller, &id).await
    })
    .await??;
    back_to("/dashboard/templates")
}

/// A line of a build.
#[derive(Debug)]
struct BuildLine {
    at: String,
    level: &'static str,
    message: String,
}

impl BuildLine {
    fn new(entry: &BuildEntry) -> Self {
        Self {
            at: entry.timestamp.strftime("%H:%M:%S%.3f").to_string(),
            level: entry.level.as_str(),
            message: entry.message.clone(),
        }
    }
}

async fn build(
    app: &App,
    visitor: &SignedIn,
    template: &str,
    build: &str,
) -> Result<(BuildRow, bool, Vec<BuildLine>), PageError> {
    let mut lines = Vec::new();
    loop {
        let request = BuildLogRequest {
            offset: lines.len(),
            ..BuildLogRequest::default()
        };
        let info = app
            .control
            .build_info(&visitor.caller, template, build, request)
            .await?;
        lines.extend(info.entries.iter().map(BuildLine::new));
        if info.entries.is_empty() || lines.len() >= MOST_LINES {
            let is_open = matches!(
                info.record.status,
                BuildStatus::Waiting | BuildStatus::Building
            );
            return Ok((BuildRow::new(&info.record), is_open, lines));
        }
    }
}

#[derive(Template)]
#[template(path = "build.html")]
struct BuildPage {
    frame: Option<Frame>,
    template: String,
    build: BuildRow,
    is_open: bool,
    lines: Vec<BuildLine>,
}

/// `GET /dashboard/templates/{id}/builds/{build}`
pub(crate) async fn build_page(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path((template, id)): Path<(String, String)>,
) -> Answer {
    let (build, is_open, lines) = build(&app, &visitor, &template, &id).await?;
    html(&BuildPage {
        frame: visitor.frame("templates"),
        template,
        build,
        is_open,
        lines,
    })
}

#[derive(Template)]
#[template(path = "snapshots.html")]
struct SnapshotsPage {
    frame: Option<Frame>,
    snapshots: Vec<(String, String)>,
    next: Option<String>,
}

/// `GET /dashboard/snapshots`
pub(crate) async fn snapshots(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Query(paging): Query<Paging>,
) -> Answer {
    let query = SnapshotQuery {
        sandbox: None,
        name: None,
        limit: Some(PAGE),
        cursor: paging.after.filter(|after| !after.is_empty()),
    };
    let (snapshots, next) = app.control.snapshot_list(&visitor.caller, query).await?;
    html(&SnapshotsPage {
        frame: visitor.frame("templates"),
        snapshots: snapshots
            .into_iter()
            .map(|one| (one.id, one.names.join(", ")))
            .collect(),
        next,
    })
}

#[derive(Deserialize)]
pub(crate) struct Named {
    id: String,
}

/// `POST /dashboard/snapshots/delete`
pub(crate) async fn snapshot_delete(
    State(app): State<Arc<App>>,
    Posted(visitor, named): Posted<Named>,
) -> Answer {
    let control = Arc::clone(&app.control);
    detached(&app, async move {
        control.template_delete(&visitor.caller, &named.id).await
    })
    .await??;
    back_to("/dashboard/snapshots")
}
