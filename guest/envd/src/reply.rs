//! Answers and their bodies.

use std::io;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde::Serialize;

/// Body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Header that stops browsers from guessing a type.
const NOSNIFF: HeaderName = http::header::X_CONTENT_TYPE_OPTIONS;

/// A body of known content.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that is made while it is sent.
pub(crate) fn streaming(
    stream: impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Body {
    use futures_util::StreamExt as _;
    StreamBody::new(stream.map(|piece| piece.map(hyper::body::Frame::data))).boxed_unsync()
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, full(Bytes::new()))
}

/// An answer with a body.
pub(crate) fn with_body(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A plain text answer.
pub(crate) fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = with_body(status, full(format!("{message}\n")));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    response
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Only maps, strings and numbers are passed here, so writing them does not fail.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let mut response = with_body(status, full(bytes));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Forbids caches to keep an answer.
pub(crate) fn no_store(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A failed REST request: the status and what the caller reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RestError {
    /// HTTP status.
    pub status: StatusCode,
    /// Message.
    pub message: String,
}

impl RestError {
    /// Makes an error.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401.
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 500.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 507.
    pub(crate) fn no_space(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, message)
    }

    /// The answer: exactly the keys `code` and `message`.
    #[must_use]
    pub(crate) fn into_response(self) -> Response<Body> {
        #[derive(Serialize)]
        struct Wire<'a> {
            code: u16,
            message: &'a str,
        }
        let mut response = json(
            self.status,
            &Wire {
                code: self.status.as_u16(),
                message: &self.message,
            },
        );
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
        response
    }
}

/// Whether an error says that the disk or the quota is full.
#[must_use]
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
