//! Figures and logs.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use warren_control::{LogRequest, TeamPeak, TimeRange};
use warren_types::LogLevel;
use warren_wire::{
    LogLine, MaxTeamMetric, SandboxLogs, SandboxLogsV2, SandboxMetric, SandboxesMetrics, TeamMetric,
};

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{PathText, Query, SandboxPath, json, sandbox_id};
use crate::router::App;

type Answer = Result<Response, ApiError>;

/// Log lines of one answer at most, and the default.
const MAX_LINES: i64 = 1000;
/// Longest text to search logs for.
const MAX_SEARCH: usize = 256;

fn range(query: &Query) -> Result<TimeRange, ApiError> {
    Ok(TimeRange {
        start: query.natural("start")?,
        end: query.natural("end")?,
    })
}

/// `GET /sandboxes/{sandboxID}/metrics`
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    query: Query,
) -> Answer {
    let points = app.control.metrics(&caller, &id, range(&query)?).await?;
    let points: Vec<SandboxMetric> = points.into_iter().map(SandboxMetric::from).collect();
    Ok(json(StatusCode::OK, &points))
}

/// `GET /sandboxes/metrics`
pub(crate) async fn metrics_latest(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    query: Query,
) -> Answer {
    if query.text("sandbox_ids").is_none() {
        return Err(ApiError::validation("sandbox_ids is required"));
    }
    let ids = query.list("sandbox_ids");
    let ids: Vec<_> = ids.into_iter().map(sandbox_id).collect::<Result<_, _>>()?;
    let latest = app.control.metrics_latest(&caller, &ids).await?;
    let sandboxes = latest
        .into_iter()
        .map(|(id, point)| (id.into(), point.into()))
        .collect();
    Ok(json(StatusCode::OK, &SandboxesMetrics { sandboxes }))
}

/// `GET /teams/{teamID}/metrics`
pub(crate) async fn team_metrics(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(team): PathText,
    query: Query,
) -> Answer {
    let points = app
        .control
        .team_metrics(&caller, &team, range(&query)?)
        .await?;
    let points: Vec<TeamMetric> = points
        .into_iter()
        .map(|point| TeamMetric {
            timestamp: point.at,
            timestamp_unix: point.at.as_second(),
            concurrent_sandboxes: point.concurrent,
            sandbox_start_rate: point.start_rate,
        })
        .collect();
    Ok(json(StatusCode::OK, &points))
}

/// `GET /teams/{teamID}/metrics/max`
pub(crate) async fn team_peak(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(team): PathText,
    query: Query,
) -> Answer {
    let peak = match query.text("metric") {
        Some("concurrent_sandboxes") => TeamPeak::Concurrent,
        Some("sandbox_start_rate") => TeamPeak::StartRate,
        _ => {
            let text = "metric must be concurrent_sandboxes or sandbox_start_rate";
            return Err(ApiError::validation(text));
        }
    };
    let highest = app
        .control
        .team_peak(&caller, &team, range(&query)?, peak)
        .await?;
    let (at, value) = highest.unwrap_or((Timestamp::now(), 0.0));
    let body = MaxTeamMetric {
        timestamp: at,
        timestamp_unix: at.as_second(),
        value,
    };
    Ok(json(StatusCode::OK, &body))
}

fn limit(query: &Query) -> Result<usize, ApiError> {
    let limit = query.natural("limit")?.unwrap_or(MAX_LINES);
    if limit > MAX_LINES {
        return Err(ApiError::validation("limit must not be greater than 1000"));
    }
    usize::try_from(limit).map_err(ApiError::validation)
}

/// Which way a list goes, if said.
pub(crate) fn is_backward(query: &Query) -> Result<Option<bool>, ApiError> {
    match query.filled("direction") {
        None => Ok(None),
        Some("backward") => Ok(Some(true)),
        Some("forward") => Ok(Some(false)),
        Some(_) => Err(ApiError::validation(
            "direction must be forward or backward",
        )),
    }
}

/// The least severity that is wanted, if said.
pub(crate) fn min_level(query: &Query) -> Result<Option<LogLevel>, ApiError> {
    match query.filled("level") {
        None => Ok(None),
        Some("debug") => Ok(Some(LogLevel::Debug)),
        Some("info") => Ok(Some(LogLevel::Info)),
        Some("warn") => Ok(Some(LogLevel::Warn)),
        Some("error") => Ok(Some(LogLevel::Error)),
        Some(_) => Err(ApiError::validation(
            "level must be debug, info, warn or error",
        )),
    }
}

pub(crate) fn moment(query: &Query, name: &str) -> Result<Option<Timestamp>, ApiError> {
    query
        .natural(name)?
        .map(Timestamp::from_millisecond)
        .transpose()
        .map_err(|_| ApiError::validation(format_args!("{name} is out of range")))
}

/// `GET /sandboxes/{sandboxID}/logs`
pub(crate) async fn logs_v1(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    query: Query,
) -> Answer {
    let request = LogRequest {
        from: moment(&query, "start")?,
        limit: limit(&query)?,
        backward: false,
        min_level: None,
        until: None,
        logger: None,
        search: None,
    };
    let log_entries = app.control.logs(&caller, &id, request).await?;
    let logs = log_entries.iter().map(LogLine::from).collect();
    Ok(json(StatusCode::OK, &SandboxLogs { logs, log_entries }))
}

/// `GET /v2/sandboxes/{sandboxID}/logs`
pub(crate) async fn logs_v2(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    query: Query,
) -> Answer {
    let backward = is_backward(&query)?.unwrap_or(true);
    let min_level = min_level(&query)?;
    let search = query.filled("search");
    if search.is_some_and(|text| text.len() > MAX_SEARCH) {
        return Err(ApiError::validation(
            "search must not be longer than 256 bytes",
        ));
    }
    let request = LogRequest {
        from: moment(&query, "cursor")?,
        limit: limit(&query)?,
        backward,
        min_level,
        until: None,
        logger: None,
        search: search.map(str::to_owned),
    };
    let logs = app.control.logs(&caller, &id, request).await?;
    Ok(json(StatusCode::OK, &SandboxLogsV2 { logs }))
}
