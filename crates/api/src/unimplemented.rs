//! Operations of the API that are not built: they say so, by name.

use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use warren_wire::VolumeContentErrorBody;

use crate::error::ApiError;
use crate::extract;
use crate::operations::Access;

/// Every operation that is not built, with the credentials it takes.
pub(crate) const OPERATIONS: &[(Method, &str, Access)] = &[
    (Method::GET, "/nodes", Access::Admin),
    (Method::GET, "/nodes/{nodeID}", Access::Admin),
    (Method::POST, "/nodes/{nodeID}", Access::Admin),
    (
        Method::POST,
        "/admin/teams/{teamID}/sandboxes/kill",
        Access::Admin,
    ),
    (
        Method::GET,
        "/admin/sandboxes/running-counts",
        Access::Admin,
    ),
    (
        Method::POST,
        "/admin/teams/{teamID}/api-keys",
        Access::Admin,
    ),
    (
        Method::DELETE,
        "/admin/teams/{teamID}/api-keys/{apiKeyID}",
        Access::Admin,
    ),
    (Method::POST, "/access-tokens", Access::Person),
    (
        Method::DELETE,
        "/access-tokens/{accessTokenID}",
        Access::Person,
    ),
    (Method::GET, "/api-keys", Access::Person),
    (Method::POST, "/api-keys", Access::Person),
    (Method::PATCH, "/api-keys/{apiKeyID}", Access::Person),
    (Method::DELETE, "/api-keys/{apiKeyID}", Access::Person),
    (Method::GET, "/volumes", Access::Key),
    (Method::POST, "/volumes", Access::Key),
    (Method::GET, "/volumes/{volumeID}", Access::Key),
    (Method::DELETE, "/volumes/{volumeID}", Access::Key),
    (
        Method::GET,
        "/volumecontent/{volumeID}/path",
        Access::Volume,
    ),
    (
        Method::PATCH,
        "/volumecontent/{volumeID}/path",
        Access::Volume,
    ),
    (
        Method::DELETE,
        "/volumecontent/{volumeID}/path",
        Access::Volume,
    ),
    (Method::GET, "/volumecontent/{volumeID}/dir", Access::Volume),
    (
        Method::POST,
        "/volumecontent/{volumeID}/dir",
        Access::Volume,
    ),
    (
        Method::GET,
        "/volumecontent/{volumeID}/file",
        Access::Volume,
    ),
    (
        Method::PUT,
        "/volumecontent/{volumeID}/file",
        Access::Volume,
    ),
    (Method::GET, "/secrets", Access::Key),
    (Method::POST, "/secrets", Access::Key),
    (Method::GET, "/secrets/{secretID}", Access::Key),
    (Method::POST, "/secrets/{secretID}", Access::Key),
    (Method::DELETE, "/secrets/{secretID}", Access::Key),
];

/// Answers any of them.
pub(crate) async fn answer(matched: MatchedPath, request: Request) -> Response {
    let (method, path) = (request.method(), matched.as_str());
    let text = format!("{method} {path} is not implemented by this version of Warren");
    if path.starts_with("/volumecontent/") {
        return volume_error(StatusCode::NOT_IMPLEMENTED, &text);
    }
    ApiError::new(StatusCode::NOT_IMPLEMENTED, text).into_response()
}

/// An error of the volume content API, whose code is a word.
pub(crate) fn volume_error(status: StatusCode, message: &str) -> Response {
    let code = status
        .canonical_reason()
        .unwrap_or("Error")
        .to_lowercase()
        .replace(' ', "_");
    extract::json(
        status,
        &VolumeContentErrorBody {
            code,
            message: message.to_owned(),
        },
    )
}
