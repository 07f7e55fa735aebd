//! Operations of the API that are not built: they say so, by name.

use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};

use crate::error::ApiError;
use crate::operations::Access;

/// Every operation that is not built, with the credentials it takes: none today.
pub(crate) const OPERATIONS: &[(Method, &str, Access)] = &[];

/// Answers any of them.
pub(crate) async fn answer(matched: MatchedPath, request: Request) -> Response {
    let (method, path) = (request.method(), matched.as_str());
    let text = format!("{method} {path} is not implemented by this version of Warren");
    ApiError::new(StatusCode::NOT_IMPLEMENTED, text).into_response()
}
