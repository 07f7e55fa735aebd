//! What changes pass through: other sites are refused, and all is written down.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use warren_control::{By, NewAudit};
use warren_service::Peer;

use crate::App;
use crate::session::named;
use crate::visitor::authenticate;

/// Longest target of an entry in the audit trail.
const MAX_TARGET: usize = 512;
/// Changes of these write entries of their own.
const TOLD: [&str; 4] = [
    "/dashboard/keys",
    "/dashboard/tokens",
    "/dashboard/team/members",
    "/dashboard/server/teams",
];

/// The address that a request came from.
pub(crate) fn origin(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<Peer>().map(|peer| peer.ip())
}

/// Writes into the audit trail what somebody signed in asks for, and what came of it.
pub(crate) async fn write(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let held = named(&parts).and_then(|name| app.sessions.get(name));
    let caller = match held {
        Some(held) => authenticate(&app, &held).await.ok(),
        None => None,
    };
    let matched = parts.extensions.get::<MatchedPath>();
    let path = matched.map_or("", MatchedPath::as_str).to_owned();
    let params = RawPathParams::from_request_parts(&mut parts, &())
        .await
        .ok();
    let target = params.as_ref().and_then(|params| {
        let mut values = params.iter().map(|(_, value)| value.to_owned());
        values.next().filter(|value| value.len() <= MAX_TARGET)
    });
    let action = format!("{} {path}", parts.method);
    let origin = origin(&parts);
    let response = next.run(Request::from_parts(parts, body)).await;
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    let is_told = !failed && TOLD.iter().any(|told| path.starts_with(told));
    if let Some(caller) = caller.filter(|_| !is_told) {
        let by = By {
            actor: caller.actor,
            request_id: None,
            origin,
        };
        let entry = NewAudit {
            by: &by,
            team: Some(caller.team.id),
            action: &action,
            target: target.as_deref(),
            status: Some(status.as_u16()),
            reason: None,
            data: serde_json::json!({}),
        };
        app.control.audit_request(entry).await;
    }
    response
}

/// Refuses changes that another site's page asks for. The cookie is not sent along by
/// browsers then; this holds without relying on that.
pub(crate) async fn guard_origin(request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && !is_same_site(&request) {
        return (StatusCode::FORBIDDEN, "the request comes from another site").into_response();
    }
    next.run(request).await
}

fn is_same_site(request: &Request) -> bool {
    let text = |name| {
        let value: Option<&HeaderValue> = request.headers().get(name);
        value.and_then(|value| value.to_str().ok())
    };
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let host = text(HOST).or(authority);
    match text(ORIGIN) {
        // Not a browser, or one that has nothing to tell.
        None => true,
        Some(origin) => origin
            .split_once("://")
            .is_some_and(|(_, from)| Some(from) == host),
    }
}
