//! Browsers on other origins may call everything: credentials are headers, never cookies.

use http::{HeaderName, Method};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};

const METHODS: [Method; 7] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
];

const EXPOSED: [&str; 6] = [
    "x-next-token",
    "x-total-running",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after",
];

/// Answers preflights, and marks every answer.
pub(crate) fn layer() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(METHODS)
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
}
