//! Files that pages use, part of the program. xterm.js is vendored, see its license beside it.

use axum::extract::{Path, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderValue, StatusCode};

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! asset {
    ($name:literal, $kind:expr) => {
        ($name, $kind, include_bytes!(concat!("../assets/", $name)))
    };
}

const ASSETS: &[(&str, &str, &[u8])] = &[
    asset!("app.css", STYLE),
    asset!("app.js", SCRIPT),
    asset!("agent.js", SCRIPT),
    asset!("files.js", SCRIPT),
    asset!("processes.js", SCRIPT),
    asset!("terminal.js", SCRIPT),
    asset!("volume.js", SCRIPT),
    asset!("xterm.css", STYLE),
    asset!("xterm.js", SCRIPT),
    asset!("addon-fit.js", SCRIPT),
];

/// `GET /dashboard/assets/{name}`. Names carry no version: browsers ask again each hour.
pub(crate) async fn get(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, bytes)) => (
            [
                (CONTENT_TYPE, *kind),
                (CACHE_CONTROL, "private, max-age=3600"),
            ],
            *bytes,
        )
            .into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What pages may do: where their forms may lead, and whom else than us their scripts may
/// speak to. Styles are written by the terminal.
pub(crate) fn policy(forms: &str, connect: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
         img-src 'self' blob: data:; font-src 'self'; connect-src 'self' {connect}; \
         form-action {forms}; base-uri 'none'; frame-ancestors 'none'"
    )
}

/// Keeps other sites from framing pages, and pages from running anything but our scripts.
pub(crate) async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert_with(|| HeaderValue::try_from(policy("'self'", "")).expect("our own text"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
