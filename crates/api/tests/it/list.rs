//! Checks 33 and 48–56 of the API contract.

use form_urlencoded::byte_serialize;
use serde_json::json;

use crate::server::Server;

fn encode(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// The filter as both SDKs send it.
fn filter(pairs: &[(&str, &str)]) -> String {
    let pair = |(key, value): &(&str, &str)| {
        format!("{}={}", encode(&encode(key)), encode(&encode(value)))
    };
    encode(&pairs.iter().map(pair).collect::<Vec<_>>().join("&"))
}

#[tokio::test]
async fn newest_first_and_states() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(server.create(json!({})).await);
    }
    ids.reverse();
    assert_eq!(server.listed("").await, ids);
    assert_eq!(server.listed("?state=running").await, ids);
    assert_eq!(server.listed("?state=running%2Cpaused").await, ids);
    assert_eq!(server.listed("?state=running,paused").await, ids);
    assert!(server.listed("?state=paused").await.is_empty());
    let v1 = server.get("/sandboxes").await.expect(200);
    assert_eq!(v1.as_array().unwrap().len(), 3);
    assert_eq!(v1[0]["sandboxID"], json!(ids[0]));
    server.get("/v2/sandboxes?state=dead").await.error(400);
}

#[tokio::test]
async fn pages_end_cleanly() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(server.create(json!({})).await);
    }
    let first = server.get("/v2/sandboxes?limit=2&order=asc").await;
    let token = first.header("x-next-token").unwrap().to_owned();
    assert_eq!(first.header("x-total-running"), Some("3"));
    assert_eq!(first.json().as_array().unwrap().len(), 2);
    assert_eq!(first.json()[0]["sandboxID"], json!(ids[0]));
    let path = format!("/v2/sandboxes?limit=2&order=asc&nextToken={token}");
    let second = server.get(&path).await;
    assert_eq!(second.header("x-next-token"), None);
    assert_eq!(second.json().as_array().unwrap().len(), 1);
    assert_eq!(second.json()[0]["sandboxID"], json!(ids[2]));
    let exact = server.get("/v2/sandboxes?limit=3").await;
    assert_eq!(exact.header("x-next-token"), None);
    let paused = server.get("/v2/sandboxes?state=paused").await;
    assert_eq!(paused.header("x-total-running"), None);
    for bad in [
        format!("order=desc&nextToken={token}"),
        format!("nextToken={token}"),
        "nextToken=garbage".to_owned(),
    ] {
        let answer = server.get(&format!("/v2/sandboxes?{bad}")).await;
        assert_eq!(answer.error(400), "Invalid next token", "{bad}");
    }
    for bad in [
        "limit=0",
        "limit=101",
        "limit=x",
        "order=up",
        "startedAfter=yesterday",
    ] {
        let answer = server.get(&format!("/v2/sandboxes?{bad}")).await;
        assert!(answer.error(400).starts_with("validation error"), "{bad}");
    }
}

#[tokio::test]
async fn metadata_filters() {
    let server = Server::start().await;
    let id = server
        .create(json!({"metadata": {"a b": "c&d=e", "ü": "✓"}}))
        .await;
    server.create(json!({"metadata": {"user": "abc"}})).await;
    let found = |pairs: &[(&str, &str)]| {
        let query = format!("?metadata={}", filter(pairs));
        let server = &server;
        async move { server.listed(&query).await }
    };
    assert_eq!(found(&[("a b", "c&d=e")]).await, std::slice::from_ref(&id));
    assert_eq!(
        found(&[("a b", "c&d=e"), ("ü", "✓")]).await,
        std::slice::from_ref(&id)
    );
    assert!(found(&[("a b", "c&d=e"), ("ü", "x")]).await.is_empty());
    assert_eq!(server.listed("?metadata=user%3Dabc").await.len(), 1);
    assert_eq!(server.listed("?metadata=").await.len(), 2);
    let wire = "?metadata=a%252520b%3Dc%252526d%25253De";
    assert_eq!(server.listed(wire).await, [id]);
    let v1 = server
        .get("/sandboxes?metadata=user%3Dabc")
        .await
        .expect(200);
    assert_eq!(v1.as_array().unwrap().len(), 1);
    for path in ["/v2/sandboxes", "/sandboxes"] {
        let answer = server.get(&format!("{path}?metadata=novalue")).await;
        assert!(answer.error(400).starts_with("Error parsing metadata"));
    }
}

#[tokio::test]
async fn started_after_is_inclusive() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    let detail = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    let started = detail["startedAt"].as_str().unwrap();
    let query = |at: &str| format!("?startedAfter={}", encode(at));
    assert_eq!(
        server.listed(&query(started)).await,
        std::slice::from_ref(&id)
    );
    let at: jiff::Timestamp = started.parse().unwrap();
    // As Python and JavaScript write it.
    let millis = format!(
        "{}.{:03}Z",
        at.strftime("%Y-%m-%dT%H:%M:%S"),
        at.subsec_millisecond()
    );
    assert_eq!(server.listed(&query(&millis)).await, [id]);
    let later = at + std::time::Duration::from_secs(1);
    let python = later.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string();
    assert!(server.listed(&query(&python)).await.is_empty());
}

#[tokio::test]
async fn template_filters() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    let detail = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    let template = detail["templateID"].as_str().unwrap();
    assert_eq!(
        server.listed("?template=base").await,
        std::slice::from_ref(&id)
    );
    assert_eq!(server.listed(&format!("?template={template}")).await, [id]);
    assert!(server.listed("?template=unknown").await.is_empty());
    server
        .get("/v2/sandboxes?template=base:v1")
        .await
        .error(400);
    server.get("/v2/sandboxes?template=a/b/c").await.error(400);
}

#[tokio::test]
async fn the_total_does_not_depend_on_the_limit() {
    let server = Server::start().await;
    for _ in 0..3 {
        server.create(json!({})).await;
    }
    let answer = server.get("/v2/sandboxes?state=running&limit=1").await;
    assert_eq!(answer.header("x-total-running"), Some("3"));
    assert_eq!(answer.json().as_array().unwrap().len(), 1);
}
