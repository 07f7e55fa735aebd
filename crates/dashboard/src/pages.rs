//! Sign-in, lists and usage.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, Request, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::StatusCode;
use http::header::SET_COOKIE;
use jiff::Timestamp;
use serde::Deserialize;
use warren_control::{AuthError, ListQuery, TimeRange};
use warren_service::{Chain, Secret};

use crate::App;
use crate::error::PageError;
use crate::session::{self, SignedIn};
use crate::view::{BuildRow, Chart, SandboxRow, TemplateRow};

pub(crate) type Answer = Result<Response, PageError>;

/// Sandboxes and templates of one page.
const PAGE: i64 = 50;
/// Longest key that is looked at.
const MAX_KEY: usize = 512;

/// Renders a page.
pub(crate) fn html(page: &impl Template) -> Answer {
    Ok(Html(page.render()?).into_response())
}

pub(crate) async fn root() -> Redirect {
    Redirect::temporary("/dashboard")
}

#[derive(Template)]
#[template(path = "sign-in.html")]
struct SignInPage {
    message: Option<String>,
}

pub(crate) async fn sign_in() -> Answer {
    html(&SignInPage { message: None })
}

#[derive(Deserialize)]
pub(crate) struct Credentials {
    key: String,
}

/// Takes a key for a session. Text that is no key is refused like a wrong one.
pub(crate) async fn signed_in(
    State(app): State<Arc<App>>,
    Form(credentials): Form<Credentials>,
) -> Answer {
    let key = credentials.key.trim();
    let found = if key.len() > MAX_KEY {
        Err(AuthError::KeyFormat)
    } else {
        app.control.authenticate_key(key).await
    };
    match found {
        Ok(_) => {
            let name = app.sessions.begin(Secret::new(key.to_owned()));
            let cookie = [(SET_COOKIE, session::cookie(Some(&name)))];
            Ok((cookie, Redirect::to("/dashboard")).into_response())
        }
        Err(AuthError::Store(source)) => Err(PageError::Internal(Box::new(source))),
        Err(error) => {
            tracing::info!(error = %Chain(&error), "a sign-in was refused");
            let page = SignInPage {
                message: Some(error.to_string()),
            };
            Ok((StatusCode::UNAUTHORIZED, html(&page)?).into_response())
        }
    }
}

pub(crate) async fn sign_out(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if let Some(name) = session::named(&parts) {
        app.sessions.end(name);
    }
    let cookie = [(SET_COOKIE, session::cookie(None))];
    (cookie, Redirect::to("/dashboard/sign-in")).into_response()
}

#[derive(Deserialize)]
pub(crate) struct Paging {
    after: Option<String>,
    state: Option<String>,
}

#[derive(Template)]
#[template(path = "sandboxes.html")]
struct SandboxesPage {
    team: Option<String>,
    section: &'static str,
    state: String,
    sandboxes: Vec<SandboxRow>,
    next: Option<String>,
    running: usize,
    limit: u32,
}

pub(crate) async fn sandboxes(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
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
    let page = app.control.list(&caller, query).await?;
    let ids: Vec<_> = page
        .sandboxes
        .iter()
        .map(|one| one.record.id.clone())
        .collect();
    let newest = app.control.metrics_latest(&caller, &ids).await?;
    let now = Timestamp::now();
    html(&SandboxesPage {
        team: Some(caller.team.name.clone()),
        section: "sandboxes",
        state,
        sandboxes: page
            .sandboxes
            .iter()
            .map(|one| SandboxRow::new(one, newest.get(&one.record.id), now))
            .collect(),
        next: page.next,
        running: page.total_running.unwrap_or(0),
        limit: caller.team.max_sandboxes,
    })
}

#[derive(Template)]
#[template(path = "templates.html")]
struct TemplatesPage {
    team: Option<String>,
    section: &'static str,
    templates: Vec<TemplateRow>,
    next: Option<String>,
}

pub(crate) async fn templates(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Query(paging): Query<Paging>,
) -> Answer {
    let cursor = paging.after.filter(|after| !after.is_empty());
    let (templates, next) = app
        .control
        .template_page(&caller, None, Some(PAGE), cursor.as_deref())
        .await?;
    html(&TemplatesPage {
        team: Some(caller.team.name.clone()),
        section: "templates",
        templates: templates.iter().map(TemplateRow::new).collect(),
        next,
    })
}

#[derive(Template)]
#[template(path = "template.html")]
struct TemplatePage {
    team: Option<String>,
    section: &'static str,
    template: TemplateRow,
    builds: Vec<BuildRow>,
}

pub(crate) async fn template(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<String>,
) -> Answer {
    let (summary, builds, _) = app
        .control
        .template_builds(&caller, &id, Some(PAGE), None)
        .await?;
    html(&TemplatePage {
        team: Some(caller.team.name.clone()),
        section: "templates",
        template: TemplateRow::new(&summary),
        builds: builds.iter().map(BuildRow::new).collect(),
    })
}

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    team: Option<String>,
    section: &'static str,
    charts: Vec<Chart>,
    keys: Vec<(String, String, String)>,
}

#[expect(clippy::cast_precision_loss, reason = "charts have few pixels")]
pub(crate) async fn usage(State(app): State<Arc<App>>, SignedIn(caller): SignedIn) -> Answer {
    let team = caller.team.id.to_string();
    let range = TimeRange::default();
    let points = app.control.team_metrics(&caller, &team, range).await?;
    let concurrent: Vec<f64> = points.iter().map(|point| point.concurrent as f64).collect();
    let starts: Vec<f64> = points.iter().map(|point| point.start_rate).collect();
    let keys = app.control.key_list(caller.team.id).await;
    let keys = keys.map_err(|error| PageError::Internal(Box::new(error)))?;
    html(&UsagePage {
        team: Some(caller.team.name.clone()),
        section: "usage",
        charts: vec![
            Chart::peaking("Sandboxes at a time", &concurrent, |v| format!("{v:.0}")),
            Chart::peaking("Starts per second", &starts, |v| format!("{v:.2}")),
        ],
        keys: keys
            .iter()
            .map(|key| {
                (
                    key.name.clone(),
                    format!("e2b_{}…{}", key.mask_prefix, key.mask_suffix),
                    crate::view::moment(key.created_at),
                )
            })
            .collect(),
    })
}
