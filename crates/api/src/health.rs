//! For load balancers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::error::ApiError;
use crate::router::App;

/// `GET /health`
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    if app.control.tasks().stop_token().is_cancelled() {
        let stopping = StatusCode::SERVICE_UNAVAILABLE;
        return ApiError::new(stopping, "the server is stopping").into_response();
    }
    "Health check successful".into_response()
}
