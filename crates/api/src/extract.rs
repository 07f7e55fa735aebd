//! Reading requests and writing answers.

use std::future::Future;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use http_body_util::LengthLimitError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::timeout;
use tracing::Instrument;
use warren_control::Control;
use warren_types::SandboxId;

use crate::error::{ApiError, INTERNAL};

/// Longest request body.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// How long it may take to arrive; clients wait no longer for the answer.
const BODY_TIME: Duration = Duration::from_secs(60);
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer with a JSON body.
pub(crate) fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(text) => json_text(status, text),
        Err(error) => {
            tracing::error!(%error, "an answer can't be written as JSON");
            let text = format!(r#"{{"code":500,"message":"{INTERNAL}"}}"#);
            json_text(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

/// An answer whose body is JSON text already.
pub(crate) fn json_text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// 204.
pub(crate) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Runs work that changes state to its end, even if the client goes away meanwhile.
pub(crate) async fn detached<F>(control: &Control, work: F) -> Result<F::Output, ApiError>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let task = control.tasks().spawn(work.in_current_span());
    task.await.map_err(|error| ApiError::internal(&error))
}

/// A JSON body that must be there.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// The same on the routes of templates, which word the error in their own way.
#[derive(Debug)]
pub(crate) struct TemplateJson<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for TemplateJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = body(request).await?;
        Ok(Self(parse(&body, "Invalid request body")?))
    }
}

/// A JSON body that may be absent or empty.
#[derive(Debug)]
pub(crate) struct OptionalJson<T>(pub(crate) T);

async fn body(request: Request) -> Result<Bytes, ApiError> {
    let read = to_bytes(request.into_body(), MAX_BODY);
    let late = |_| {
        let text = "Error when parsing request: the body did not arrive in time";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, text)
    };
    timeout(BODY_TIME, read)
        .await
        .map_err(late)?
        .map_err(|error| {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            while let Some(error) = cause {
                if error.is::<LengthLimitError>() {
                    let text = "request body is larger than 16 MiB";
                    return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text);
                }
                cause = error.source();
            }
            ApiError::bad_request("Error when parsing request: the body could not be read")
        })
}

fn parse<T: DeserializeOwned>(body: &[u8], no_json: &str) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => ApiError::validation(error),
        _ => ApiError::bad_request(format!("{no_json}: {error}")),
    })
}

const NO_JSON: &str = "Error when parsing request";

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        Ok(Self(parse(&body(request).await?, NO_JSON)?))
    }
}

impl<T: DeserializeOwned + Default, S: Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = body(request).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        Ok(Self(parse(&body, NO_JSON)?))
    }
}

/// The only parameter in the path, decoded.
#[derive(Debug)]
pub(crate) struct PathText(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bad = || ApiError::validation("the path is not UTF-8");
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| bad())?;
        let (_, text) = params.iter().next().ok_or_else(bad)?;
        Ok(Self(text.to_owned()))
    }
}

/// The two parameters in the path, decoded.
#[derive(Debug)]
pub(crate) struct PathPair(pub(crate) String, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathPair {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bad = || ApiError::validation("the path is not UTF-8");
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| bad())?;
        let mut params = params.iter().map(|(_, text)| text.to_owned());
        match (params.next(), params.next()) {
            (Some(first), Some(second)) => Ok(Self(first, second)),
            _ => Err(bad()),
        }
    }
}

/// The sandbox in the path.
#[derive(Debug)]
pub(crate) struct SandboxPath(pub(crate) SandboxId);

/// Reads a sandbox id as clients send it.
pub(crate) fn sandbox_id(text: &str) -> Result<SandboxId, ApiError> {
    SandboxId::from_client(text).map_err(|_| ApiError::bad_request("Invalid sandbox ID"))
}

impl<S: Send + Sync> FromRequestParts<S> for SandboxPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::bad_request("Invalid sandbox ID"))?;
        let id = params
            .iter()
            .next()
            .map(|(_, text)| text)
            .unwrap_or_default();
        Ok(Self(sandbox_id(id)?))
    }
}

/// The query, decoded once.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// The first value of this name.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The same; an empty value counts as absent.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.text(name).filter(|value| !value.is_empty())
    }

    /// A whole number.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.filled(name)
            .map(str::parse)
            .transpose()
            .map_err(|_| ApiError::validation(format_args!("{name} must be an integer")))
    }

    /// A whole number that is not negative.
    pub(crate) fn natural(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.integer(name)? {
            Some(number) if number < 0 => Err(ApiError::validation(format_args!(
                "{name} must not be negative"
            ))),
            number => Ok(number),
        }
    }

    /// Comma-separated values.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .flat_map(|(_, value)| value.split(','))
            .filter(|value| !value.is_empty())
            .collect()
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        ))
    }
}
