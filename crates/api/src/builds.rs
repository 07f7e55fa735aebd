//! Builds of templates.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use uuid::Uuid;
use warren_control::{
    BuildEntry, BuildInfo, BuildLogRequest, BuildStart, BuildStatus, BuildWindow, NewBuild,
    Registry, RegistryCredentials, Step,
};
use warren_service::Secret;
use warren_types::LogLevel;
use warren_wire as wire;

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{PathPair, PathText, Query, TemplateJson, detached, json};
use crate::observe::{is_backward, min_level, moment};
use crate::router::App;
use crate::trail;

type Answer = Result<Response, ApiError>;

/// Longest name of a template in a request.
const MAX_NAME: usize = 128;
const MIN_MEMORY_MB: i32 = 128;
const RETIRED: &str = "This way to build templates (v1) is no longer supported. Update your E2B \
                       CLI or SDK: current ones use POST /v3/templates.";

fn new_build(body: wire::TemplateBuildRequest) -> Result<NewBuild, ApiError> {
    let name = body.name.or(body.alias);
    if name.as_ref().is_some_and(|name| name.len() > MAX_NAME) {
        return Err(ApiError::validation(format_args!(
            "name must not be longer than {MAX_NAME} characters"
        )));
    }
    if body.cpu_count.is_some_and(|count| count < 1) {
        return Err(ApiError::validation("CPU count must be at least 1"));
    }
    if body.memory_mb.is_some_and(|mib| mib < MIN_MEMORY_MB) {
        return Err(ApiError::validation(format_args!(
            "Memory must be at least {MIN_MEMORY_MB} MiB"
        )));
    }
    let min_free_disk_mib = body.min_free_disk_mb.map(u64::try_from).transpose();
    Ok(NewBuild {
        name,
        tags: body.tags.unwrap_or_default(),
        cpu_count: body.cpu_count.and_then(|count| count.try_into().ok()),
        memory_mib: body.memory_mb.and_then(|mib| mib.try_into().ok()),
        min_free_disk_mib: min_free_disk_mib
            .map_err(|_| ApiError::validation("minFreeDiskMb must not be negative"))?,
    })
}

async fn request(
    app: &Arc<App>,
    caller: Arc<warren_control::Caller>,
    body: wire::TemplateBuildRequest,
) -> Result<warren_control::RequestedBuild, ApiError> {
    let build = new_build(body)?;
    let control = Arc::clone(&app.control);
    let work = async move { control.build_request(&caller, build).await };
    Ok(detached(&app.control, work).await??)
}

/// `POST /v3/templates`
pub(crate) async fn request_v3(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    TemplateJson(body): TemplateJson<wire::TemplateBuildRequest>,
) -> Answer {
    let made = request(&app, caller, body).await?;
    let body = wire::TemplateBuildRequested {
        template_id: made.template.clone().into(),
        build_id: made.build.to_string(),
        public: made.public,
        names: vec![made.name],
        aliases: vec![made.alias],
        tags: made.tags,
    };
    Ok(trail::made(
        json(StatusCode::ACCEPTED, &body),
        made.template.into(),
    ))
}

/// `POST /v2/templates`
pub(crate) async fn request_v2(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    TemplateJson(body): TemplateJson<wire::TemplateBuildRequest>,
) -> Answer {
    let body = wire::TemplateBuildRequest {
        name: body.alias,
        alias: None,
        tags: None,
        ..body
    };
    let made = request(&app, caller, body).await?;
    let body = wire::LegacyTemplate {
        template_id: made.template.clone().into(),
        build_id: made.build.to_string(),
        cpu_count: 0,
        memory_mb: 0,
        disk_size_mb: 0,
        public: made.public,
        aliases: vec![made.alias],
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        created_by: None,
        last_spawned_at: None,
        spawn_count: 0,
        build_count: 0,
        envd_version: String::new(),
    };
    Ok(trail::made(
        json(StatusCode::ACCEPTED, &body),
        made.template.into(),
    ))
}

/// The first generation of routes, whose clients push images to a registry of ours.
pub(crate) async fn retired() -> Response {
    ApiError::bad_request(RETIRED).into_response()
}

/// `POST /v2/templates/{templateID}/builds/{buildID}`
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathPair(template, build): PathPair,
    headers: HeaderMap,
    TemplateJson(body): TemplateJson<wire::TemplateBuildStart>,
) -> Answer {
    if Uuid::parse_str(&build).is_err() {
        return Err(ApiError::bad_request(format!("Invalid build ID: {build}")));
    }
    check_agent(&headers)?;
    let start = build_start(body)?;
    let control = Arc::clone(&app.control);
    let work = async move { control.build_start(&caller, &template, &build, start).await };
    detached(&app.control, work).await??;
    Ok(StatusCode::ACCEPTED.into_response())
}

fn build_start(body: wire::TemplateBuildStart) -> Result<BuildStart, ApiError> {
    let step = |step: wire::TemplateStep| Step {
        kind: step.kind,
        args: step.args,
        files_hash: step.files_hash.filter(|hash| !hash.is_empty()),
        force: step.force,
    };
    Ok(BuildStart {
        from_image: body.from_image,
        from_template: body.from_template,
        registry: body.from_image_registry.map(registry).transpose()?,
        steps: body.steps.into_iter().map(step).collect(),
        force: body.force,
        start_cmd: body.start_cmd,
        ready_cmd: body.ready_cmd,
    })
}

fn registry(registry: wire::ImageRegistry) -> Result<Registry, ApiError> {
    let need = |value: Option<String>, field: &str| {
        let absent = || ApiError::validation(format_args!("fromImageRegistry: missing {field}"));
        value.ok_or_else(absent)
    };
    let secret = |value, field| need(value, field).map(Secret::new);
    Ok(match registry.kind.as_str() {
        "registry" => Registry::Known(RegistryCredentials::Basic {
            username: need(registry.username, "username")?,
            password: secret(registry.password, "password")?,
        }),
        "aws" => Registry::Known(RegistryCredentials::Aws {
            access_key_id: need(registry.aws_access_key_id, "awsAccessKeyId")?,
            secret_access_key: secret(registry.aws_secret_access_key, "awsSecretAccessKey")?,
            region: need(registry.aws_region, "awsRegion")?,
        }),
        "gcp" => Registry::Known(RegistryCredentials::Gcp {
            service_account_json: secret(registry.service_account_json, "serviceAccountJson")?,
        }),
        _ => Registry::Unknown,
    })
}

/// Refuses a client library whose version can't be read: what it expects is unknown.
fn check_agent(headers: &HeaderMap) -> Result<(), ApiError> {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    for name in ["e2b-js-sdk/", "e2b-python-sdk/"] {
        let Some((_, rest)) = agent.split_once(name) else {
            continue;
        };
        let version = rest.split_whitespace().next().unwrap_or_default();
        if !is_version(version) {
            let text = format!("Error when parsing user agent: invalid version '{version}'");
            return Err(ApiError::bad_request(text));
        }
    }
    Ok(())
}

/// Whether a text begins with three numbers.
fn is_version(text: &str) -> bool {
    let mut parts = text.splitn(3, '.');
    let mut number = |may_go_on: bool| {
        parts.next().is_some_and(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && (digits == part.len() || may_go_on)
        })
    };
    number(false) && number(false) && number(true)
}

fn shown_entry(entry: BuildEntry) -> wire::BuildLogEntry {
    wire::BuildLogEntry {
        timestamp: entry.timestamp,
        message: entry.message,
        level: entry.level,
        step: entry.step,
    }
}

fn limit(query: &Query) -> Result<Option<usize>, ApiError> {
    Ok(query
        .natural("limit")?
        .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)))
}

/// `GET /templates/{templateID}/builds/{buildID}/status`
pub(crate) async fn status(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathPair(template, build): PathPair,
    query: Query,
) -> Answer {
    let offset = query.natural("logsOffset")?.unwrap_or_default();
    let request = BuildLogRequest {
        offset: usize::try_from(offset).unwrap_or(usize::MAX),
        limit: limit(&query)?,
        min_level: min_level(&query)?,
    };
    let info = app
        .control
        .build_info(&caller, &template, &build, request)
        .await?;
    Ok(json(StatusCode::OK, &shown_info(info)))
}

fn shown_info(info: BuildInfo) -> wire::TemplateBuildInfo {
    let record = info.record;
    let log_entries: Vec<_> = info.entries.into_iter().map(shown_entry).collect();
    let reason = record
        .reason
        .filter(|reason| record.status == BuildStatus::Error && !reason.message.is_empty());
    wire::TemplateBuildInfo {
        template_id: record.template_id.into(),
        build_id: record.id.to_string(),
        status: record.status.as_str().to_owned(),
        logs: Vec::new(),
        reason: reason.map(|reason| wire::BuildStatusReason {
            log_entries: log_entries
                .iter()
                .filter(|entry| entry.level >= LogLevel::Warn && entry.step == reason.step)
                .cloned()
                .collect(),
            message: reason.message,
            step: reason.step,
        }),
        log_entries,
    }
}

/// `GET /templates/{templateID}/builds/{buildID}/logs`
pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathPair(template, build): PathPair,
    query: Query,
) -> Answer {
    // One place holds young and old lines, so that the source makes no difference.
    if !matches!(
        query.filled("source"),
        None | Some("temporary" | "persistent")
    ) {
        return Err(ApiError::validation(
            "source must be temporary or persistent",
        ));
    }
    let window = BuildWindow {
        cursor: moment(&query, "cursor")?,
        backward: is_backward(&query)?.unwrap_or(false),
        limit: limit(&query)?,
        min_level: min_level(&query)?,
    };
    let entries = app
        .control
        .build_logs(&caller, &template, &build, window)
        .await?;
    let logs = entries.into_iter().map(shown_entry).collect();
    Ok(json(StatusCode::OK, &wire::TemplateBuildLogs { logs }))
}

/// `POST /admin/teams/{teamID}/builds/cancel`
pub(crate) async fn cancel_all(State(app): State<Arc<App>>, PathText(team): PathText) -> Answer {
    let caller = app.control.caller_for_team(&team).await?;
    let unknown = || ApiError::new(StatusCode::NOT_FOUND, "Team not found");
    let team = caller.ok_or_else(unknown)?.team.id;
    let control = Arc::clone(&app.control);
    let work = async move { control.builds_cancel(team).await };
    let done = detached(&app.control, work).await?;
    let body = wire::CancelledBuilds {
        cancelled_count: done.map_err(|error| ApiError::internal(&error))?,
        failed_count: 0,
    };
    Ok(json(StatusCode::OK, &body))
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn versions_have_three_numbers() {
        for good in ["2.63.0", "2.0.0-beta.1", "2.49.0+x", "2.0.0b1"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "2", "2.1", "x.y.z", "2..1", "v2.1.0"] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
