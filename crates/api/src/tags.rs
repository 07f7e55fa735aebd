//! Tags of templates.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use warren_control::{Caller, ManageError, TagRecord};
use warren_wire::{
    AssignTags, AssignedTags, DeleteTags, TagAssignment, TagAssignments, TagCount, TagExists,
    TagGroup, TagGroups, TemplateTag,
};

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{PathPair, PathText, Query, TemplateJson, json, no_content};
use crate::router::App;

type Answer = Result<Response, ApiError>;

/// Longest page of tags or assignments.
const MAX_PAGE: usize = 100;
const TAGS: usize = 25;
const ASSIGNMENTS_OF_TAG: usize = 6;
const ASSIGNMENTS: usize = 50;

/// `POST /templates/tags`
pub(crate) async fn assign(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    TemplateJson(body): TemplateJson<AssignTags>,
) -> Answer {
    let (build, tags) = app
        .control
        .tags_assign(&caller, &body.target, &body.tags)
        .await?;
    let body = AssignedTags {
        build_id: build.to_string(),
        tags,
    };
    Ok(json(StatusCode::CREATED, &body))
}

/// `DELETE /templates/tags`
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    TemplateJson(body): TemplateJson<DeleteTags>,
) -> Answer {
    app.control
        .tags_remove(&caller, &body.name, &body.tags)
        .await?;
    Ok(no_content())
}

/// `GET /templates/{templateID}/tags`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(template): PathText,
) -> Answer {
    let history = app.control.tags_history(&caller, &template).await?;
    let tags: Vec<_> = by_tag(&history)
        .into_iter()
        .filter_map(|assignments| assignments.first())
        .map(|record| TemplateTag {
            tag: record.tag.clone(),
            build_id: record.build_id.to_string(),
            created_at: record.assigned_at,
        })
        .collect();
    Ok(json(StatusCode::OK, &tags))
}

/// `GET /templates/{templateID}/tags/count`
pub(crate) async fn count(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(template): PathText,
) -> Answer {
    let history = hidden(&app, &caller, &template).await?;
    let total = by_tag(&history).len();
    Ok(json(StatusCode::OK, &TagCount { total }))
}

/// `GET /templates/{templateID}/tags/exists`
pub(crate) async fn exists(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(template): PathText,
    query: Query,
) -> Answer {
    let tag = query.filled("tag");
    let tag = tag.ok_or_else(|| ApiError::validation("tag is required"))?;
    let tag = tag.trim().to_lowercase();
    let history = hidden(&app, &caller, &template).await?;
    let exists = history.iter().any(|record| record.tag == tag);
    let body = TagExists {
        exists,
        normalized_tag: exists.then_some(tag),
    };
    Ok(json(StatusCode::OK, &body))
}

/// `GET /templates/{templateID}/tags/groups`
pub(crate) async fn groups(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(template): PathText,
    query: Query,
) -> Answer {
    let most = page_size(&query, "assignmentLimit", ASSIGNMENTS_OF_TAG)?;
    let page = page_size(&query, "tagsLimit", TAGS)?;
    let skip = cursor(&query, "tagsCursor")?;
    let search = query.filled("search").map(str::to_lowercase);
    let history = hidden(&app, &caller, &template).await?;
    let mut groups = by_tag(&history);
    groups.retain(|group| {
        search
            .as_ref()
            .is_none_or(|text| group[0].tag.contains(text))
    });
    match query.filled("sort") {
        None | Some("latest_desc") => {
            groups.sort_by_key(|group| std::cmp::Reverse(group[0].assigned_at));
        }
        Some("latest_asc") => groups.sort_by_key(|group| group[0].assigned_at),
        Some("name_asc") => {}
        Some("name_desc") => groups.reverse(),
        Some(_) => return Err(ApiError::validation("sort is not known")),
    }
    let next_cursor = next(groups.len(), skip, page);
    let tags = groups.into_iter().skip(skip).take(page);
    let tags = tags.map(|group| TagGroup {
        tag: group[0].tag.clone(),
        assignments: group.iter().take(most).map(shown).collect(),
        has_more: group.len() > most,
    });
    let body = TagGroups {
        tags: tags.collect(),
        next_cursor,
    };
    Ok(json(StatusCode::OK, &body))
}

/// `GET /templates/{templateID}/tags/{tag}/assignments`
pub(crate) async fn assignments(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathPair(template, tag): PathPair,
    query: Query,
) -> Answer {
    let page = page_size(&query, "limit", ASSIGNMENTS)?;
    let skip = cursor(&query, "cursor")?;
    let tag = tag.trim().to_lowercase();
    let mut history = hidden(&app, &caller, &template).await?;
    history.retain(|record| record.tag == tag);
    let body = TagAssignments {
        next_cursor: next(history.len(), skip, page),
        data: history.iter().skip(skip).take(page).map(shown).collect(),
    };
    Ok(json(StatusCode::OK, &body))
}

/// The history of a template's tags; another team's template is as good as none here.
async fn hidden(app: &App, caller: &Caller, template: &str) -> Result<Vec<TagRecord>, ApiError> {
    let history = app.control.tags_history(caller, template).await;
    Ok(history.map_err(|error| match error {
        ManageError::Foreign(name) => ManageError::NotFound(name),
        other => other,
    })?)
}

/// Assignments of each tag; none is empty.
fn by_tag(history: &[TagRecord]) -> Vec<&[TagRecord]> {
    history.chunk_by(|a, b| a.tag == b.tag).collect()
}

fn shown(record: &TagRecord) -> TagAssignment {
    let at = record.assigned_at.as_microsecond();
    TagAssignment {
        assignment_id: format!("{}-{}-{at}", record.tag, record.build_id),
        build_id: record.build_id.to_string(),
        assigned_at: record.assigned_at,
        build_created_at: record.build_created_at,
        build_finished_at: record.build_finished_at,
    }
}

fn page_size(query: &Query, name: &str, default: usize) -> Result<usize, ApiError> {
    match query.natural(name)?.map(usize::try_from) {
        None => Ok(default),
        Some(Ok(limit)) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        Some(_) => Err(ApiError::validation(format_args!(
            "{name} must be between 1 and {MAX_PAGE}"
        ))),
    }
}

/// Cursors of these lists, which hardly change, are counts.
fn cursor(query: &Query, name: &str) -> Result<usize, ApiError> {
    let bad = |_| ApiError::bad_request("Invalid next token");
    let cursor = query.filled(name).map(str::parse).transpose();
    Ok(cursor.map_err(bad)?.unwrap_or_default())
}

fn next(total: usize, skip: usize, page: usize) -> Option<String> {
    let end = skip.saturating_add(page);
    (end < total).then(|| end.to_string())
}
