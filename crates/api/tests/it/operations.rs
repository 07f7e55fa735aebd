//! What is served, against the list of all operations of the API.

use std::collections::BTreeSet;

use axum::body::Body;
use http::Request;
use serde_json::json;
use warren_api::{ApiConfig, operations};
use warren_control::Limits;
use warren_service::Secret;
use warren_types::Role;

use crate::server::Server;

/// Every operation that clients know.
const ALL: &str = include_str!("../../../../spec/operations.txt");
/// Those that answer 501. This list only shrinks.
const UNIMPLEMENTED: &str = include_str!("unimplemented.golden");

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

#[test]
fn every_operation_has_a_route() {
    let served: BTreeSet<_> = operations()
        .into_iter()
        .map(|operation| format!("{} {}", operation.method, operation.path))
        .collect();
    assert_eq!(served, lines(ALL));
}

#[test]
fn the_unimplemented_ones_are_known() {
    let open: BTreeSet<_> = operations()
        .into_iter()
        .filter(|operation| !operation.is_built)
        .map(|operation| format!("{} {}", operation.method, operation.path))
        .collect();
    let listed = lines(UNIMPLEMENTED);
    let grown: Vec<_> = open.difference(&listed).collect();
    assert!(grown.is_empty(), "no longer built: {grown:?}");
    let stale: Vec<_> = listed.difference(&open).collect();
    assert!(
        stale.is_empty(),
        "built, so remove from unimplemented.golden: {stale:?}"
    );
}

#[tokio::test]
async fn the_unimplemented_ones_say_so_by_name_after_the_credential() {
    let config = ApiConfig {
        admin_token: Some(Secret::new("root".to_owned())),
        ..ApiConfig::default()
    };
    let server = Server::with(Limits::default(), config).await;
    let token = server.token(Role::Admin).await;
    for operation in operations()
        .into_iter()
        .filter(|operation| !operation.is_built)
    {
        let name = format!("{} {}", operation.method, operation.path);
        let path = operation.path.replace(['{', '}'], "x");
        let request = || Request::builder().method(&operation.method).uri(&path);
        let stranger = server.send(request().body(Body::empty()).unwrap()).await;
        assert_eq!(stranger.status, 401, "{name}");
        let mut request = request()
            .header("x-api-key", &server.key)
            .header("authorization", format!("Bearer {token}"));
        if path.starts_with("/admin") || path.starts_with("/nodes") {
            request = request.header("x-admin-token", "root");
        }
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 501, "{name}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = answer.json();
        assert!(
            body["message"].as_str().unwrap().starts_with(&name),
            "{body}"
        );
        assert_eq!(body["code"], json!(501));
    }
}

#[tokio::test]
async fn no_operation_is_open_but_health() {
    let server = Server::start().await;
    for operation in operations() {
        let path = operation.path.replace(['{', '}'], "x");
        let request = Request::builder().method(&operation.method).uri(&path);
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        let expected = if path == "/health" { 200 } else { 401 };
        assert_eq!(answer.status, expected, "{} {path}", operation.method);
    }
}
