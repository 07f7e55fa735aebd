//! Credentials, before anything else of a request is looked at.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tracing::Instrument;
use uuid::Uuid;
use warren_control::{Actor, AuthError, By, Caller};
use warren_types::TeamId;

use crate::error::ApiError;
use crate::extract::{self, detached};
use crate::operations::{Access, Operation, Trail};
use crate::rate::Calling;
use crate::router::App;
use crate::secrets;
use crate::trail::{Entry, Outcome};
use crate::volumecontent::Refusal;

const API_KEY: &str = "x-api-key";
const ADMIN_TOKEN: &str = "x-admin-token";
const TEAM: &str = "x-team-id";
/// What older web applications call these.
const OLD_TOKEN: &str = "x-supabase-token";
const OLD_TEAM: &str = "x-supabase-team";
/// Names a request in its answer, in the log and in the audit trail.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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

/// Who does what a request asks for; put into the request by [`guard`].
#[derive(Debug, Clone)]
pub(crate) struct Doer(pub(crate) By);

impl<S: Sync> FromRequestParts<S> for Doer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let doer = parts.extensions.get::<Self>().cloned();
        doer.ok_or_else(|| AuthError::Missing.into())
    }
}

/// Whom a request shows itself to be from.
enum Shown {
    /// Nobody: the operation is open, or its handler looks at the credential.
    Nobody,
    /// The operator, for the whole server.
    Operator(Actor),
    /// Somebody, for a team.
    Caller(Arc<Caller>),
}

/// Lets a request through to its handler if it shows a credential that the operation
/// takes, and within the team's rate. What it does is in the audit trail before it is
/// answered.
pub(crate) async fn guard(
    State(app): State<Arc<App>>,
    matched: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let Some(operation) = app.operations.find(request.method(), matched.as_str()) else {
        return next.run(request).await;
    };
    let began = Instant::now();
    let mut response = let_through(&app, operation, request, next).await;
    if operation.path.starts_with(secrets::ALL) {
        secrets::keep_from_caches(&mut response);
    }
    let (method, status) = (operation.method.as_str(), response.status().as_u16());
    let meters = app.control.meters();
    meters.request(method, operation.path, status, began.elapsed());
    response
}

async fn let_through(
    app: &Arc<App>,
    operation: &Operation,
    mut request: Request,
    next: Next,
) -> Response {
    let shown = match authenticate(app, operation.access, request.headers()).await {
        Ok(shown) => shown,
        Err(error) if operation.access == Access::Volume => {
            tracing::debug!(?error, "no volume token");
            return Refusal::unauthorized().into_response();
        }
        Err(error) if operation.path.starts_with(secrets::ALL) => {
            return secrets::unauthorized(error).into_response();
        }
        Err(error) => return error.into_response(),
    };
    let (actor, caller) = match shown {
        Shown::Nobody => return next.run(request).await,
        Shown::Operator(actor) => (actor, None),
        Shown::Caller(caller) => (caller.actor, Some(caller)),
    };
    let id = Uuid::new_v4().to_string();
    let team = caller.as_ref().map(|caller| caller.team.id);
    let span = tracing::info_span!(
        "request", method = %operation.method, route = operation.path, request_id = %id,
        team_id = team.map(tracing::field::display)
    );
    let header = HeaderValue::from_str(&id).ok();
    let by = By {
        actor,
        request_id: Some(id),
    };
    let rate = caller.as_deref().and_then(|caller| {
        let (team_per_minute, key_per_minute) = app.control.requests_per_minute(caller);
        let calling = Calling {
            team: caller.team.id,
            key: caller.key,
            team_per_minute,
            key_per_minute,
        };
        app.rates.take(calling, &operation.method, operation.path)
    });
    let mut response = match rate {
        Some(Err(refused)) => refused.into_response(),
        rate => {
            let refused = match &caller {
                Some(caller) if operation.writes() => caller
                    .require_write(operation.method == Method::DELETE)
                    .err(),
                _ => None,
            };
            request.extensions_mut().insert(Doer(by.clone()));
            if let Some(caller) = caller {
                request.extensions_mut().insert(Auth(caller));
            }
            let work = Work {
                operation,
                by,
                team,
                refused,
            };
            let mut response = work.run(app, request, next).instrument(span).await;
            if let Some(Ok(state)) = rate {
                state.write(response.headers_mut());
            }
            response
        }
    };
    if let Some(header) = header {
        response.headers_mut().insert(REQUEST_ID.clone(), header);
    }
    response
}

/// A request that showed a credential.
struct Work<'a> {
    operation: &'a Operation,
    by: By,
    team: Option<TeamId>,
    refused: Option<AuthError>,
}

impl Work<'_> {
    async fn run(self, app: &Arc<App>, request: Request, next: Next) -> Response {
        if self.operation.trail == Trail::Reads {
            return match self.refused {
                Some(error) => ApiError::from(error).into_response(),
                None => next.run(request).await,
            };
        }
        let (mut parts, body) = request.into_parts();
        let entry = Entry::begin(self.operation, self.by, self.team, &mut parts).await;
        let request = Request::from_parts(parts, body);
        let control = Arc::clone(&app.control);
        // In a task of its own: a client that goes away must not keep what it did out of
        // the trail.
        let done = detached(&app.control, async move {
            let response = match self.refused {
                Some(error) => ApiError::from(error).into_response(),
                None => next.run(request).await,
            };
            entry.finish(&control, Outcome::of(&response)).await;
            response
        });
        done.await.unwrap_or_else(IntoResponse::into_response)
    }
}

async fn authenticate(app: &App, access: Access, headers: &HeaderMap) -> Result<Shown, ApiError> {
    let has_admin = headers.contains_key(ADMIN_TOKEN);
    let team = team_named(headers);
    let caller = match access {
        Access::Open => return Ok(Shown::Nobody),
        Access::Admin => return admin(app, headers).map(Shown::Operator),
        Access::Volume => {
            bearer(headers)?.ok_or(AuthError::Missing)?;
            return Ok(Shown::Nobody);
        }
        _ if has_admin => admin_for_team(app, headers).await?,
        Access::Key => match (api_key(headers)?, person(headers)?) {
            (Some(key), _) => app.control.authenticate_key(key).await?,
            // A person says which team is meant.
            (None, Some(token)) if team.is_some() => {
                app.control.authenticate_token(token, team).await?
            }
            (None, _) => return Err(AuthError::Missing.into()),
        },
        Access::KeyOrToken => match (api_key(headers)?, person(headers)?) {
            (Some(key), _) => app.control.authenticate_key(key).await?,
            (None, Some(token)) => app.control.authenticate_token(token, team).await?,
            (None, None) => return Err(AuthError::Missing.into()),
        },
        Access::PersonInTeam if team.is_none() => return Err(AuthError::Missing.into()),
        Access::Person | Access::PersonInTeam => match person(headers)? {
            Some(token) => app.control.authenticate_token(token, team).await?,
            None => return Err(AuthError::Missing.into()),
        },
    };
    Ok(Shown::Caller(caller))
}

/// The team that a person or the administrator names, under its current or its old name.
fn team_named(headers: &HeaderMap) -> Option<&str> {
    let named = headers.get(TEAM).or_else(|| headers.get(OLD_TEAM))?;
    named.to_str().ok().filter(|team| !team.is_empty())
}

/// The access token of a person, under its current or its old name.
fn person(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    if let Some(token) = bearer(headers)? {
        return Ok(Some(token));
    }
    let old = headers.get(OLD_TOKEN).map(HeaderValue::to_str).transpose();
    Ok(old.map_err(|_| AuthError::Malformed)?)
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

fn admin(app: &App, headers: &HeaderMap) -> Result<Actor, ApiError> {
    if app.is_local {
        return Ok(Actor::Local);
    }
    let shown = headers.get(ADMIN_TOKEN).ok_or(AuthError::Missing)?;
    let shown = shown.to_str().map_err(|_| AuthError::AdminToken)?;
    match &app.admin_token {
        Some(token) if token.matches(shown) => Ok(Actor::Admin),
        _ => Err(AuthError::AdminToken.into()),
    }
}

async fn admin_for_team(app: &App, headers: &HeaderMap) -> Result<Arc<Caller>, ApiError> {
    admin(app, headers)?;
    let team = team_named(headers).ok_or(AuthError::Missing)?;
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
