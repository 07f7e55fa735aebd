//! What verifiers of workload tokens ask for, without a credential.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use warren_control::Identity;

use crate::error::ApiError;
use crate::extract::json;
use crate::router::App;

pub(crate) const CONFIGURATION: &str = "/.well-known/openid-configuration";
pub(crate) const KEYS: &str = "/.well-known/jwks.json";

/// `GET /.well-known/openid-configuration`
pub(crate) async fn configuration(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    shown(&app, Identity::configuration)
}

/// `GET /.well-known/jwks.json`
pub(crate) async fn keys(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    shown(&app, Identity::key_set)
}

fn shown(app: &App, what: impl Fn(&Identity) -> Value) -> Result<Response, ApiError> {
    let identity = app.control.identity();
    let identity =
        identity.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "route not found"))?;
    Ok(json(StatusCode::OK, &what(identity)))
}
