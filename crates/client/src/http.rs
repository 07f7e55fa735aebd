//! Requests and answers, each read under a limit.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::error::Error;

/// Longest answer to a call.
pub(crate) const ANSWER_LIMIT: usize = 16 << 20;
/// Longest message of a refusal that is kept.
const MESSAGE_LIMIT: usize = 4096;

/// Reads the URL of a server.
pub(crate) fn base_url(text: &str) -> Result<Url, Error> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && !url.cannot_be_a_base())
        .ok_or_else(|| Error::Url {
            url: text.to_owned(),
        })
}

/// A path below a server's URL; segments are escaped.
pub(crate) fn join(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

pub(crate) async fn send(
    operation: &'static str,
    request: RequestBuilder,
) -> Result<Response, Error> {
    request
        .send()
        .await
        .map_err(|source| Error::Transport { operation, source })
}

/// Sends a request and takes any status but success for a refusal.
pub(crate) async fn call(
    operation: &'static str,
    request: RequestBuilder,
) -> Result<Response, Error> {
    let response = send(operation, request).await?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let body = body(operation, response, ANSWER_LIMIT).await?;
    Err(refusal(operation, status, &body))
}

/// Sends a deletion; `false` if there was nothing to delete.
pub(crate) async fn gone(operation: &'static str, request: RequestBuilder) -> Result<bool, Error> {
    match call(operation, request).await {
        Ok(_) => Ok(true),
        Err(Error::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn refusal(operation: &'static str, status: StatusCode, body: &[u8]) -> Error {
    /// What all kinds of refusals have: their codes are numbers or words.
    #[derive(Deserialize)]
    struct Told {
        message: String,
    }
    let message = match serde_json::from_slice::<Told>(body) {
        Ok(body) => body.message,
        Err(_) => {
            let start = body.get(..MESSAGE_LIMIT).unwrap_or(body);
            String::from_utf8_lossy(start).trim().to_owned()
        }
    };
    Error::Refused {
        operation,
        status,
        message,
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn body(
    operation: &'static str,
    mut response: Response,
    limit: usize,
) -> Result<Bytes, Error> {
    let mut all = BytesMut::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|source| Error::Transport { operation, source })?
    {
        if all.len() + chunk.len() > limit {
            return Err(Error::TooLong { operation, limit });
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

/// Reads a JSON body.
pub(crate) async fn json<T: DeserializeOwned>(
    operation: &'static str,
    response: Response,
) -> Result<T, Error> {
    let body = body(operation, response, ANSWER_LIMIT).await?;
    serde_json::from_slice(&body).map_err(|source| Error::Answer { operation, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_escaped_and_a_path_of_the_base_is_kept() {
        let base = base_url("http://h:1/e2b/").unwrap();
        let url = join(&base, &["sandboxes", "a/../b?c"]);
        assert_eq!(url.as_str(), "http://h:1/e2b/sandboxes/a%2F..%2Fb%3Fc");
        for bad in ["", "localhost:3000", "unix:/x", "ftp://h"] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_has_the_message_of_either_form() {
        let json = br#"{"code":404,"message":"gone"}"#;
        let error = refusal("get", StatusCode::NOT_FOUND, json);
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), "get: gone (status 404 Not Found)");
        let json = br#"{"code":"not_found","message":"no file"}"#;
        let error = refusal("read", StatusCode::NOT_FOUND, json);
        assert_eq!(error.to_string(), "read: no file (status 404 Not Found)");
        let error = refusal("get", StatusCode::BAD_GATEWAY, b"bad gateway\n");
        assert_eq!(
            error.to_string(),
            "get: bad gateway (status 502 Bad Gateway)"
        );
    }
}
