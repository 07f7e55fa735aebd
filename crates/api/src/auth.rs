//! Credentials, before anything else of a request is looked at.

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use tracing::Instrument;
use warren_control::{AuthError, Caller};

use crate::error::ApiError;
use crate::extract;
use crate::operations::Access;
use crate::router::App;
use crate::volumecontent::Refusal;

const API_KEY: &str = "x-api-key";
const ADMIN_TOKEN: &str = "x-admin-token";
const TEAM: &str = "x-team-id";

/// Who is calling; put into the request by [`guard`].
#[derive(Debug, Clone)]
pub(crate) struct Auth(pub(crate) Arc<Caller>);

impl<S: Sync> FromRequestParts<S> for Auth {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let auth = parts.extensions.get::<Self>().cloned();
        auth.ok_or_else(|| AuthError::Missing.into())
    }
}

/// Lets a request through to its handler if it shows a credential that the operation
/// takes, and within the team's rate.
pub(crate) async fn guard(
    State(app): State<Arc<App>>,
    matched: MatchedPath,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(operation) = app.operations.find(request.method(), matched.as_str()) else {
        return next.run(request).await;
    };
    let caller = match authenticate(&app, operation.access, request.headers()).await {
        Ok(caller) => caller,
        Err(error) if operation.access == Access::Volume => {
            tracing::debug!(?error, "no volume token");
            return Refusal::unauthorized().into_response();
        }
        Err(error) => return error.into_response(),
    };
    let Some(caller) = caller else {
        return next.run(request).await;
    };
    let team = caller.team.id;
    let span = tracing::info_span!(
        "request", method = %operation.method, route = operation.path, team_id = %team
    );
    request.extensions_mut().insert(Auth(caller));
    match app.rates.take(team, &operation.method, operation.path) {
        None => next.run(request).instrument(span).await,
        Some(Err(refused)) => refused.into_response(),
        Some(Ok(state)) => {
            let mut response = next.run(request).instrument(span).await;
            state.write(response.headers_mut());
            response
        }
    }
}

async fn authenticate(
    app: &App,
    access: Access,
    headers: &HeaderMap,
) -> Result<Option<Arc<Caller>>, ApiError> {
    let has_admin = headers.contains_key(ADMIN_TOKEN);
    match access {
        Access::Open => Ok(None),
        Access::Admin => admin(app, headers).map(|()| None),
        Access::Volume => {
            bearer(headers)?.ok_or(AuthError::Missing)?;
            Ok(None)
        }
        _ if has_admin => admin_for_team(app, headers).await.map(Some),
        Access::Key => match api_key(headers)? {
            Some(key) => Ok(Some(app.control.authenticate_key(key).await?)),
            None => Err(AuthError::Missing.into()),
        },
        Access::KeyOrToken => match (api_key(headers)?, bearer(headers)?) {
            (Some(key), _) => Ok(Some(app.control.authenticate_key(key).await?)),
            (None, Some(token)) => Ok(Some(app.control.authenticate_token(token).await?)),
            (None, None) => Err(AuthError::Missing.into()),
        },
        Access::Person => match bearer(headers)? {
            Some(token) => Ok(Some(app.control.authenticate_token(token).await?)),
            None => Err(AuthError::Missing.into()),
        },
    }
}

fn api_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let key = headers.get(API_KEY).map(|value| value.to_str());
    Ok(key
        .transpose()
        .map_err(|_| AuthError::KeyFormat)?
        .filter(|key| !key.is_empty()))
}

pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let value = value.to_str().map_err(|_| AuthError::Malformed)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(AuthError::Malformed.into()),
    }
}

fn admin(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let shown = headers.get(ADMIN_TOKEN).ok_or(AuthError::Missing)?;
    let shown = shown.to_str().map_err(|_| AuthError::AdminToken)?;
    match &app.admin_token {
        Some(token) if token.matches(shown) => Ok(()),
        _ => Err(AuthError::AdminToken.into()),
    }
}

async fn admin_for_team(app: &App, headers: &HeaderMap) -> Result<Arc<Caller>, ApiError> {
    admin(app, headers)?;
    let team = headers.get(TEAM).and_then(|value| value.to_str().ok());
    let team = team.ok_or(AuthError::Missing)?;
    let caller = app.control.caller_for_team(team).await?;
    caller.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "Team not found"))
}

/// Answers a path that exists with another method.
pub(crate) async fn wrong_method(request: Request) -> Response {
    let text = format!("method {} is not allowed here", request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text).into_response()
}

/// Answers a path that does not exist.
pub(crate) async fn no_route() -> Response {
    ApiError::new(StatusCode::NOT_FOUND, "route not found").into_response()
}

/// Answers when a handler panicked.
pub(crate) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    let body = warren_wire::ErrorBody {
        code: 500,
        message: crate::error::INTERNAL.to_owned(),
        error_code: None,
    };
    extract::json(StatusCode::INTERNAL_SERVER_ERROR, &body)
}
