//! For load balancers and whoever watches the server.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use warren_control::Control;

use crate::error::ApiError;
use crate::router::App;

/// The text form of counters.
const METERS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /health`
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    if app.control.tasks().stop_token().is_cancelled() {
        let stopping = StatusCode::SERVICE_UNAVAILABLE;
        return ApiError::new(stopping, "the server is stopping").into_response();
    }
    "Health check successful".into_response()
}

/// `GET /metrics` of the listener for whoever watches the server.
pub(crate) async fn meters(State(control): State<Arc<Control>>) -> Response {
    let text = control.meters_text().await;
    ([(header::CONTENT_TYPE, METERS)], text).into_response()
}
