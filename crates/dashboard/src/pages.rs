//! What all pages share, and the list of sandboxes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use jiff::Timestamp;
use serde::Deserialize;
use warren_control::{ListQuery, NewSandbox};

use crate::App;
use crate::error::PageError;
use crate::view::SandboxRow;
use crate::visitor::{Frame, Posted, SignedIn};

pub(crate) type Answer = Result<Response, PageError>;

/// Sandboxes and templates of one page.
pub(crate) const PAGE: i64 = 50;
/// What the small charts of the list show.
const SPARKLINES: Duration = Duration::from_secs(300);

/// Renders a page.
pub(crate) fn html(page: &impl Template) -> Answer {
    Ok(Html(page.render()?).into_response())
}

/// Leads back to a page after a change.
pub(crate) fn back_to(path: &str) -> Answer {
    Ok(Redirect::to(path).into_response())
}

/// Runs a change to its end, even if the browser goes away meanwhile.
pub(crate) async fn detached<F>(app: &App, work: F) -> Result<F::Output, PageError>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let done = app.control.tasks().spawn(work).await;
    done.map_err(|error| PageError::Internal(Box::new(error)))
}

/// A form without fields.
#[derive(Debug, Deserialize)]
pub(crate) struct Nothing {}

pub(crate) async fn root() -> Redirect {
    Redirect::temporary("/dashboard")
}

#[derive(Deserialize)]
pub(crate) struct Paging {
    pub(crate) after: Option<String>,
    state: Option<String>,
    #[serde(default)]
    label: String,
    #[serde(default)]
    template: String,
}

#[derive(Template)]
#[template(path = "sandboxes.html")]
struct SandboxesPage {
    frame: Option<Frame>,
    state: String,
    label: String,
    template: String,
    sandboxes: Vec<SandboxRow>,
    /// The same list from its start, and from where this page ends, as queries.
    first: String,
    next: Option<String>,
    is_first: bool,
    is_filtered: bool,
    running: usize,
    limit: u32,
}

/// `GET /dashboard`
pub(crate) async fn sandboxes(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Query(paging): Query<Paging>,
) -> Answer {
    let state = paging.state.unwrap_or_default();
    let cursor = paging.after.filter(|after| !after.is_empty());
    let is_first = cursor.is_none();
    let query = ListQuery {
        running: state != "paused",
        paused: state != "running",
        metadata: label_query(&paging.label)?,
        template: Some(paging.template.trim().to_owned()).filter(|name| !name.is_empty()),
        limit: Some(PAGE),
        cursor,
        ..ListQuery::default()
    };
    let page = app.control.list(&visitor.caller, query).await?;
    let ids: Vec<_> = page
        .sandboxes
        .iter()
        .map(|one| one.record.id.clone())
        .collect();
    let figures = app
        .control
        .metrics_recent(&visitor.caller, &ids, SPARKLINES)
        .await?;
    let now = Timestamp::now();
    let first = list_query(&state, &paging.label, &paging.template, None)?;
    let next = page
        .next
        .map(|next| list_query(&state, &paging.label, &paging.template, Some(&next)))
        .transpose()?;
    html(&SandboxesPage {
        frame: visitor.frame("sandboxes"),
        is_filtered: !(state.is_empty() && paging.label.is_empty() && paging.template.is_empty()),
        state,
        label: paging.label,
        template: paging.template,
        first,
        next,
        sandboxes: page
            .sandboxes
            .iter()
            .map(|one| {
                let figures = figures.get(&one.record.id).map(Vec::as_slice);
                SandboxRow::new(one, figures.unwrap_or_default(), now)
            })
            .collect(),
        is_first,
        running: page.total_running.unwrap_or(0),
        limit: visitor.caller.team.max_sandboxes,
    })
}

/// The query of a page of the list.
fn list_query(
    state: &str,
    label: &str,
    template: &str,
    after: Option<&str>,
) -> Result<String, PageError> {
    let mut fields = vec![("state", state), ("label", label), ("template", template)];
    fields.extend(after.map(|after| ("after", after)));
    fields.retain(|(_, value)| !value.is_empty());
    serde_urlencoded::to_string(fields).map_err(|error| PageError::Internal(Box::new(error)))
}

/// `name=value` as a filter of labels.
fn label_query(text: &str) -> Result<Option<String>, PageError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| PageError::Refused("a label is written NAME=VALUE".to_owned()))?;
    // The filter is that of the API, where names and values are encoded, and then the whole.
    let internal = |error| PageError::Internal(Box::new(error));
    let pair = serde_urlencoded::to_string([(name.trim(), value.trim())]).map_err(internal)?;
    let whole = serde_urlencoded::to_string([("", pair)]).map_err(internal)?;
    Ok(whole.strip_prefix('=').map(str::to_owned))
}

#[derive(Deserialize)]
pub(crate) struct Creation {
    template: String,
    seconds: i64,
}

/// `POST /dashboard/sandboxes`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Posted(visitor, creation): Posted<Creation>,
) -> Answer {
    let control = Arc::clone(&app.control);
    let work = async move {
        let new = NewSandbox {
            template: creation.template.trim().to_owned(),
            timeout_s: creation.seconds,
            secure: true,
            ..NewSandbox::default()
        };
        control.create(&visitor.caller, new).await
    };
    let made = detached(&app, work).await??;
    back_to(&format!("/dashboard/sandboxes/{}", made.record.id))
}

#[cfg(test)]
mod tests {
    use super::label_query;

    #[test]
    fn a_label_is_a_name_and_a_value() {
        assert_eq!(label_query(" ").unwrap(), None);
        assert_eq!(
            label_query("a b = c&d").unwrap().as_deref(),
            Some("a%2Bb%3Dc%2526d")
        );
        assert!(label_query("a").is_err());
    }
}
