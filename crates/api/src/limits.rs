//! Limits of teams and API keys. Not of E2B's API.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use warren_control::{Budget, LimitsView, StoreError, Usage};
use warren_types::{ApiKeyId, TeamId};
use warren_wire as wire;

use crate::auth::{Auth, Doer};
use crate::error::ApiError;
use crate::extract::{Json, PathPair, PathText, json};
use crate::router::App;

/// `GET /limits`
pub(crate) async fn mine(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
) -> Result<Response, ApiError> {
    let limits = app.control.limits(&caller);
    let body = wire::CallerLimits {
        team: view(&limits.team),
        key: limits.key.as_ref().map(view),
    };
    Ok(json(StatusCode::OK, &body))
}

/// `GET /admin/teams/{teamID}/limits`
pub(crate) async fn team(
    State(app): State<Arc<App>>,
    PathText(team): PathText,
) -> Result<Response, ApiError> {
    let team = team_id(&app, &team).await?;
    answer(app.control.team_limits(team).await, NO_TEAM)
}

/// `PUT /admin/teams/{teamID}/limits`
pub(crate) async fn set_team(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathText(team): PathText,
    Json(to): Json<wire::Budget>,
) -> Result<Response, ApiError> {
    let team = team_id(&app, &team).await?;
    let set = app.control.team_limits_set(&by, team, budget(to));
    answer(set.await, NO_TEAM)
}

/// `GET /admin/teams/{teamID}/api-keys/{apiKeyID}/limits`
pub(crate) async fn key(
    State(app): State<Arc<App>>,
    PathPair(team, key): PathPair,
) -> Result<Response, ApiError> {
    let team = team_id(&app, &team).await?;
    let limits = app.control.key_limits(team, key_id(&key)?);
    answer(limits.await, NO_KEY)
}

/// `PUT /admin/teams/{teamID}/api-keys/{apiKeyID}/limits`
pub(crate) async fn set_key(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathPair(team, key): PathPair,
    Json(to): Json<wire::Budget>,
) -> Result<Response, ApiError> {
    let (team, key) = (team_id(&app, &team).await?, key_id(&key)?);
    let set = app.control.key_limits_set(&by, team, key, budget(to));
    answer(set.await, NO_KEY)
}

const NO_TEAM: &str = "Team not found";
const NO_KEY: &str = "API key not found";

/// A team by its id or slug.
async fn team_id(app: &App, text: &str) -> Result<TeamId, ApiError> {
    Ok(app.control.team_find(text).await?.id)
}

fn key_id(text: &str) -> Result<ApiKeyId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::new(StatusCode::NOT_FOUND, NO_KEY))
}

fn answer(
    found: Result<Option<LimitsView>, StoreError>,
    missing: &'static str,
) -> Result<Response, ApiError> {
    match found {
        Ok(Some(limits)) => Ok(json(StatusCode::OK, &view(&limits))),
        Ok(None) => Err(ApiError::new(StatusCode::NOT_FOUND, missing)),
        Err(error) => Err(ApiError::internal(&error)),
    }
}

fn view(limits: &LimitsView) -> wire::Limits {
    wire::Limits {
        own: shown(limits.own),
        limits: shown(limits.limits),
        used: used(limits.used),
    }
}

fn shown(budget: Budget) -> wire::Budget {
    wire::Budget {
        sandboxes: budget.sandboxes,
        cpus: budget.cpus,
        memory_mib: budget.memory_mib,
        disk_mib: budget.disk_mib,
        requests_per_minute: budget.requests_per_minute,
    }
}

fn used(usage: Usage) -> wire::Usage {
    wire::Usage {
        sandboxes: usage.sandboxes,
        cpus: usage.cpus,
        memory_mib: usage.memory_mib,
        disk_mib: usage.disk_mib,
    }
}

fn budget(to: wire::Budget) -> Budget {
    Budget {
        sandboxes: to.sandboxes,
        cpus: to.cpus,
        memory_mib: to.memory_mib,
        disk_mib: to.disk_mib,
        requests_per_minute: to.requests_per_minute,
    }
}
