//! Uploads of the archives that copies take from.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use http_body_util::BodyExt;
use warren_control::UploadLink;
use warren_wire::TemplateFiles;

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{PathPair, Query, json};
use crate::router::App;

/// Where links lead.
pub(crate) const PATH: &str = "/upload";
/// A client that sends nothing for as long has gone.
const IDLE: Duration = Duration::from_secs(60);
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// `GET /templates/{templateID}/files/{hash}`
pub(crate) async fn files(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathPair(template, hash): PathPair,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let answer = app.control.build_files(&caller, &template, &hash).await?;
    let base = match &app.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => base_url(&uri, &headers)
            .ok_or_else(|| ApiError::bad_request("the request names no host"))?,
    };
    let link = answer.link;
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("path", &link.path)
        .append_pair("expires", &link.expires.to_string())
        .append_pair("signature", &link.signature)
        .finish();
    let body = TemplateFiles {
        present: answer.present,
        url: format!("{base}{PATH}?{query}"),
    };
    Ok(json(StatusCode::CREATED, &body))
}

/// The address that a request came in on, as its client sees it.
fn base_url(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let host = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    // What a proxy in front that ends TLS says; a lie misleads only the liar.
    let proto = headers.get(FORWARDED_PROTO);
    let is_https = proto.is_some_and(|proto| {
        let first = proto.as_bytes().split(|byte| *byte == b',').next();
        first.is_some_and(|proto| proto.trim_ascii().eq_ignore_ascii_case(b"https"))
    });
    let scheme = if is_https { "https" } else { "http" };
    Some(format!("{scheme}://{host}"))
}

/// `PUT /upload`: takes an archive under a link of [`files`]. No credential but the link's.
pub(crate) async fn upload(
    State(app): State<Arc<App>>,
    query: Query,
    request: Request,
) -> Result<Response, ApiError> {
    let link = link(&query)?;
    let slot = app.control.upload_check(&link)?;
    let length = length(request.headers())?;
    let mut upload = app.control.upload_begin(slot, length).await?;
    let mut body: Body = request.into_body();
    loop {
        let frame = tokio::time::timeout(IDLE, body.frame()).await;
        let frame = frame
            .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the upload does not go on"))?;
        let Some(frame) = frame else {
            break;
        };
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "an upload was cut");
            ApiError::bad_request("the upload was cut")
        })?;
        if let Ok(bytes) = frame.into_data() {
            upload.write(&bytes).await?;
        }
    }
    upload.finish().await?;
    Ok(StatusCode::OK.into_response())
}

fn link(query: &Query) -> Result<UploadLink, ApiError> {
    let text = |name: &str| {
        let absent = || ApiError::bad_request(format!("missing parameter {name}"));
        query.filled(name).ok_or_else(absent)
    };
    Ok(UploadLink {
        path: text("path")?.to_owned(),
        expires: text("expires")?
            .parse()
            .map_err(|_| ApiError::bad_request("invalid parameter expires"))?,
        signature: text("signature")?.to_owned(),
    })
}

/// How long the body is to be.
fn length(headers: &HeaderMap) -> Result<u64, ApiError> {
    let required = || {
        ApiError::new(
            StatusCode::LENGTH_REQUIRED,
            "an upload needs a Content-Length",
        )
    };
    let length = headers.get(header::CONTENT_LENGTH).ok_or_else(required)?;
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    length.ok_or_else(|| ApiError::bad_request("invalid Content-Length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_where_the_request_came_in() {
        let mut headers = HeaderMap::new();
        let path = Uri::from_static("/templates/x/files/y");
        assert_eq!(base_url(&path, &headers), None);
        headers.insert(header::HOST, "api.example.org:3000".parse().unwrap());
        let url = |headers: &HeaderMap| base_url(&path, headers).unwrap();
        assert_eq!(url(&headers), "http://api.example.org:3000");
        headers.insert(FORWARDED_PROTO, "https, http".parse().unwrap());
        assert_eq!(url(&headers), "https://api.example.org:3000");
        let full = Uri::from_static("http://other:1/x");
        assert_eq!(base_url(&full, &headers).unwrap(), "https://other:1");
    }
}
