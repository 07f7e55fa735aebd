//! Credentials, before anything else of a request is looked at.

use std::sync::Arc;
use std::time::Instant;

use axum::RequestExt;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tracing::Instrument;
use uuid::Uuid;
use warren_control::{Actor, AuthError, By, Caller, VolumeHolder};

use crate::error::ApiError;
use crate::extract::{self, detached};
use crate::operations::{Access, Operation, Trail};
use crate::rate::Calling;
use crate::router::App;
use crate::secrets;
use crate::trail::{Entry, Outcome, origin};
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
    /// Whoever has a volume's token.
    Holder(VolumeHolder),
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
    let shown = match operation.access {
        Access::Volume => match volume_token(app, &mut request).await {
            Ok(holder) => Ok(Shown::Holder(holder)),
            Err(refusal) => return refusal.into_response(),
        },
        access => authenticate(app, access, request.headers()).await,
    };
    let shown = match shown {
        Ok(shown) => shown,
        Err(error) if operation.path.starts_with(secrets::ALL) => {
            return secrets::unauthorized(error).into_response();
        }
        Err(error) => return error.into_response(),
    };
    let (actor, team, caller) = match shown {
        Shown::Nobody => return next.run(request).await,
        Shown::Operator(actor) => (actor, None, None),
        Shown::Caller(caller) => (caller.actor, Some(caller.team.id), Some(caller)),
        Shown::Holder(holder) => (holder.actor, Some(holder.team), None),
    };
    let id = Uuid::new_v4().to_string();
    let span = tracing::info_span!(
        "request", otel.name = %format_args!("{} {}", operation.method, operation.path),
        otel.kind = "server", http.route = operation.path, request_id = %id,
        team_id = team.map(tracing::field::display),
        http.response.status_code = tracing::field::Empty, otel.status_code = tracing::field::Empty
    );
    let header = HeaderValue::from_str(&id).ok();
    let (mut parts, body) = request.into_parts();
    let by = By {
        actor,
        request_id: Some(id),
        origin: origin(&parts),
    };
    let entry = match operation.trail {
        Trail::Reads => None,
        _ => Some(Entry::begin(operation, by.clone(), team, &mut parts).await),
    };
    let mut request = Request::from_parts(parts, body);
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
        Some(Err(refused)) => {
            let response = refused.into_response();
            if let Some(entry) = entry {
                entry.too_early().finish(app, Outcome::of(&response)).await;
            }
            response
        }
        rate => {
            let refused = match &caller {
                Some(caller) if operation.writes() => caller
                    .require_write(operation.method == Method::DELETE)
                    .err(),
                _ => None,
            };
            request.extensions_mut().insert(Doer(by));
            if let Some(caller) = caller {
                request.extensions_mut().insert(Auth(caller));
            }
            let work = work(app, entry, refused, request, next);
            let mut response = work.instrument(span.clone()).await;
            if let Some(Ok(state)) = rate {
                state.write(response.headers_mut());
            }
            response
        }
    };
    if let Some(header) = header {
        response.headers_mut().insert(REQUEST_ID.clone(), header);
    }
    let status = response.status();
    // A number that is signed is sent as one.
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}

/// Answers a request that showed a credential; what leaves an entry in the trail does so
/// before.
async fn work(
    app: &Arc<App>,
    entry: Option<Entry>,
    refused: Option<AuthError>,
    request: Request,
    next: Next,
) -> Response {
    let answer = async move {
        match refused {
            Some(error) => ApiError::from(error).into_response(),
            None => next.run(request).await,
        }
    };
    let Some(entry) = entry else {
        return answer.await;
    };
    let told = Arc::clone(app);
    // In a task of its own: a client that goes away must not keep what it did out of the
    // trail.
    let done = detached(&app.control, async move {
        let response = answer.await;
        entry.finish(&told, Outcome::of(&response)).await;
        response
    });
    done.await.unwrap_or_else(IntoResponse::into_response)
}

/// Whom the token of a volume was made for.
async fn volume_token(app: &App, request: &mut Request) -> Result<VolumeHolder, Refusal> {
    let Ok(Some(token)) = bearer(request.headers()).map(|token| token.map(str::to_owned)) else {
        return Err(Refusal::unauthorized());
    };
    let params = request.extract_parts::<RawPathParams>().await;
    let params = params.map_err(|_| Refusal::unauthorized())?;
    let id = params.iter().next().map(|(_, id)| id).unwrap_or_default();
    Ok(app.control.volume_holder(id, &token).await?)
}

async fn authenticate(app: &App, access: Access, headers: &HeaderMap) -> Result<Shown, ApiError> {
    let has_admin = headers.contains_key(ADMIN_TOKEN);
    let team = team_named(headers);
    let caller = match access {
        // The token of a volume was looked at before.
        Access::Open | Access::Volume => return Ok(Shown::Nobody),
        Access::Admin => return admin(app, headers).map(Shown::Operator),
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
