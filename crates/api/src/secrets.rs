//! Secrets. No answer carries a value, and none may be stored on the way.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use warren_control::{AuthError, SecretRecord, SecretsError};
use warren_service::Secret;
use warren_wire as wire;

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{Json, PathText, Query, detached, json, no_content};
use crate::list::with_next;
use crate::router::App;
use crate::trail::made;

/// Path of the list; that of one secret begins with it.
pub(crate) const ALL: &str = "/secrets";

impl From<SecretsError> for ApiError {
    fn from(error: SecretsError) -> Self {
        use SecretsError as E;
        let status = match &error {
            E::Store(_) => return Self::internal(&error),
            E::Seal(cause) => {
                tracing::error!(error = %warren_service::Chain(cause), "a secret");
                StatusCode::BAD_GATEWAY
            }
            E::Disabled => StatusCode::FORBIDDEN,
            E::Invalid | E::Page(_) => StatusCode::BAD_REQUEST,
            E::TooMany => {
                return Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
                    .code("secret_limit_reached")
                    .should_retry(false);
            }
            E::NotFound => StatusCode::NOT_FOUND,
            E::State => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

fn shown(record: SecretRecord) -> wire::SecretInfo {
    wire::SecretInfo {
        secret_id: record.id,
        name: record.name,
        current_version: record.version,
        metadata: record.metadata,
        created_at: record.created_at,
        updated_at: record.updated_at,
    }
}

/// Keeps caches away from an answer, whatever it says.
pub(crate) fn keep_from_caches(response: &mut Response) {
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
}

/// What is told to a request without a credential that is good.
pub(crate) fn unauthorized(error: ApiError) -> ApiError {
    if error.message() == AuthError::Missing.to_string() {
        return ApiError::new(StatusCode::UNAUTHORIZED, "You are not authenticated");
    }
    error
}

/// `POST /secrets`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    body: Result<Json<wire::NewSecret>, ApiError>,
) -> Result<Response, ApiError> {
    // The reason could quote the value.
    let Json(body) = body.map_err(|_| SecretsError::Invalid)?;
    let control = Arc::clone(&app.control);
    let work = async move {
        let (value, notes) = (Secret::new(body.value), body.metadata.unwrap_or_default());
        control
            .secret_create(&caller, &body.name, value, notes)
            .await
    };
    let new = detached(&app.control, work).await??;
    let id = new.id.clone();
    Ok(made(json(StatusCode::CREATED, &shown(new)), id))
}

/// `GET /secrets`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    query: Query,
) -> Result<Response, ApiError> {
    let (limit, cursor) = (query.integer("limit")?, query.filled("nextToken"));
    let (page, next) = app.control.secret_list(&caller, limit, cursor).await?;
    let listed: Vec<_> = page.into_iter().map(shown).collect();
    Ok(with_next(json(StatusCode::OK, &listed), next.as_deref()))
}

/// `GET /secrets/{secretID}`
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(secret): PathText,
) -> Result<Response, ApiError> {
    let found = app.control.secret_get(&caller, &secret).await?;
    Ok(json(StatusCode::OK, &shown(found)))
}

/// `POST /secrets/{secretID}`
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(secret): PathText,
    body: Result<Json<wire::SecretUpdate>, ApiError>,
) -> Result<Response, ApiError> {
    let Json(body) = body.map_err(|_| SecretsError::Invalid)?;
    let control = Arc::clone(&app.control);
    let work = async move {
        let value = Secret::new(body.value);
        control
            .secret_update(&caller, &secret, value, body.metadata)
            .await
    };
    let changed = detached(&app.control, work).await??;
    Ok(json(StatusCode::OK, &shown(changed)))
}

/// `DELETE /secrets/{secretID}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(secret): PathText,
) -> Result<Response, ApiError> {
    let control = Arc::clone(&app.control);
    let work = async move { control.secret_delete(&caller, &secret).await };
    detached(&app.control, work).await??;
    Ok(no_content())
}
