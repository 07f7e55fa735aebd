//! Templates: lists, names, publishing, deletion.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use uuid::Uuid;
use warren_control::{AliasRecord, BuildRecord, TemplateSummary};
use warren_wire::{
    AliasAnswer, Template, TemplateBuild, TemplateUpdate, TemplateUpdated, TemplateWithBuilds,
};

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{OptionalJson, PathText, Query, detached, json, no_content};
use crate::list::with_next;
use crate::router::App;

type Answer = Result<Response, ApiError>;

/// `GET /templates`
pub(crate) async fn list_v1(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    query: Query,
) -> Answer {
    let templates = app
        .control
        .template_list(&caller, query.filled("teamID"))
        .await?;
    let templates: Vec<Template> = templates.into_iter().map(shown).collect();
    Ok(json(StatusCode::OK, &templates))
}

/// `GET /v2/templates`
pub(crate) async fn list_v2(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    query: Query,
) -> Answer {
    let (team, limit) = (query.filled("teamID"), query.integer("limit")?);
    let (templates, next) = app
        .control
        .template_page(&caller, team, limit, query.filled("nextToken"))
        .await?;
    let templates: Vec<Template> = templates.into_iter().map(shown).collect();
    Ok(with_next(json(StatusCode::OK, &templates), next.as_deref()))
}

/// `GET /default-templates`
pub(crate) async fn defaults(State(app): State<Arc<App>>, Auth(caller): Auth) -> Answer {
    let templates = app.control.template_defaults(&caller).await;
    let templates = templates.map_err(|error| ApiError::internal(&error))?;
    let templates: Vec<Template> = templates.into_iter().map(shown).collect();
    Ok(json(StatusCode::OK, &templates))
}

/// `GET /templates/{templateID}`
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(id): PathText,
    query: Query,
) -> Answer {
    let (limit, cursor) = (query.integer("limit")?, query.filled("nextToken"));
    let (summary, builds, next) = app
        .control
        .template_builds(&caller, &id, limit, cursor)
        .await?;
    let (aliases, names) = names(&summary.aliases);
    let template = summary.template;
    let body = TemplateWithBuilds {
        template_id: template.id.into(),
        public: template.public,
        aliases,
        names,
        created_at: template.created_at,
        updated_at: template.updated_at,
        last_spawned_at: template.last_spawned_at,
        spawn_count: template.spawn_count,
        builds: builds.into_iter().map(shown_build).collect(),
    };
    Ok(with_next(json(StatusCode::OK, &body), next.as_deref()))
}

/// `GET /templates/aliases/{alias}`
pub(crate) async fn alias(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(alias): PathText,
) -> Answer {
    let template = app.control.alias_get(&caller, &alias).await?;
    let body = AliasAnswer {
        template_id: template.id.into(),
        public: template.public,
    };
    Ok(json(StatusCode::OK, &body))
}

/// `DELETE /templates/{templateID}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(name): PathText,
) -> Answer {
    let control = Arc::clone(&app.control);
    let work = async move { control.template_delete(&caller, &name).await };
    detached(&app.control, work).await??;
    Ok(no_content())
}

/// `PATCH /v2/templates/{templateID}`
pub(crate) async fn update_v2(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(name): PathText,
    OptionalJson(body): OptionalJson<TemplateUpdate>,
) -> Answer {
    let names = app
        .control
        .template_update(&caller, &name, body.public)
        .await?;
    Ok(json(StatusCode::OK, &TemplateUpdated { names }))
}

/// `PATCH /templates/{templateID}`
pub(crate) async fn update_v1(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(name): PathText,
    OptionalJson(body): OptionalJson<TemplateUpdate>,
) -> Answer {
    app.control
        .template_update_v1(&caller, &name, body.public)
        .await?;
    Ok(json(StatusCode::OK, &()))
}

/// Names without and with namespace.
fn names(aliases: &[AliasRecord]) -> (Vec<String>, Vec<String>) {
    let full = |name: &AliasRecord| match name.namespace.as_str() {
        "" => name.alias.clone(),
        namespace => format!("{namespace}/{}", name.alias),
    };
    let mut names: Vec<_> = aliases.iter().map(full).collect();
    names.sort();
    let mut bare: Vec<_> = aliases.iter().map(|name| name.alias.clone()).collect();
    bare.sort();
    // The same name may be the team's and everybody's.
    bare.dedup();
    (bare, names)
}

fn shown(summary: TemplateSummary) -> Template {
    let (aliases, names) = names(&summary.aliases);
    let template = summary.template;
    let ready = summary.ready.as_ref();
    Template {
        template_id: template.id.into(),
        build_id: ready.map_or_else(|| Uuid::nil().to_string(), |build| build.id.to_string()),
        cpu_count: ready.map_or(0, |build| build.content.resources.cpu_count),
        memory_mb: ready.map_or(0, |build| build.content.resources.memory_mib),
        disk_size_mb: ready.map_or(0, |build| build.content.resources.disk_mib),
        public: template.public,
        aliases,
        names,
        created_at: template.created_at,
        updated_at: template.updated_at,
        created_by: None,
        last_spawned_at: template.last_spawned_at,
        spawn_count: template.spawn_count,
        build_count: summary.build_count,
        envd_version: ready
            .map(|build| build.content.envd_version.clone())
            .unwrap_or_default(),
        build_status: summary
            .status
            .map_or("waiting", |status| status.as_str())
            .to_owned(),
    }
}

fn shown_build(build: BuildRecord) -> TemplateBuild {
    TemplateBuild {
        build_id: build.id.to_string(),
        status: build.status.as_str().to_owned(),
        created_at: build.created_at,
        updated_at: build.updated_at,
        finished_at: build.finished_at,
        cpu_count: build.content.resources.cpu_count,
        memory_mb: build.content.resources.memory_mib,
        disk_size_mb: Some(build.content.resources.disk_mib),
        envd_version: Some(build.content.envd_version),
    }
}
