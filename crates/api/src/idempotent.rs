//! One execution for repeated requests.

use std::future::Future;
use std::sync::Arc;

use axum::body::to_bytes;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use warren_control::{Caller, Control, Execution, IdempotencyError, StoredAnswer};

use crate::error::ApiError;
use crate::extract::{detached, json_text};

const HEADER: &str = "idempotency-key";
/// Longest answer that is kept; those of a create have a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// The key of a request, if it has one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let value = headers.get(HEADER).map(|value| value.to_str());
    let value = value.transpose().map_err(|_| IdempotencyError::Key)?;
    Ok(value.map(str::to_owned))
}

/// Executes `work` unless a request of this key was executed before. `request` is the
/// same text for equal requests.
pub(crate) async fn once<F>(
    control: Arc<Control>,
    caller: Arc<Caller>,
    key: &str,
    request: &str,
    work: F,
) -> Response
where
    F: Future<Output = Response> + Send + 'static,
{
    match control.idempotency_begin(&caller, key, request).await {
        Ok(Execution::Run) => {}
        Ok(Execution::Replay(answer)) => {
            let status =
                StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return json_text(status, answer.body);
        }
        Err(error) => return ApiError::from(error).into_response(),
    }
    // A panic must not leave the key claimed for ever.
    let answer = detached(&control, work)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    let (parts, body) = answer.into_parts();
    match to_bytes(body, MAX_ANSWER).await {
        Ok(text) => {
            let kept = StoredAnswer {
                status: parts.status.as_u16(),
                body: String::from_utf8_lossy(&text).into_owned(),
            };
            control.idempotency_finish(&caller, key, &kept).await;
            Response::from_parts(parts, text.into())
        }
        Err(error) => ApiError::internal(&error).into_response(),
    }
}
