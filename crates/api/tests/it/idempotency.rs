//! Check 37 of the API contract.

use axum::body::Body;
use http::Request;
use serde_json::Value;

use crate::node::Fault;
use crate::server::{Answer, Server};

async fn create(server: &Server, key: &str, body: &str) -> Answer {
    let request = Request::post("/v2/sandboxes")
        .header("x-api-key", &server.key)
        .header("idempotency-key", key)
        .body(Body::from(body.to_owned()))
        .unwrap();
    server.send(request).await
}

fn code(answer: &Answer) -> Value {
    answer.json()["error_code"].clone()
}

#[tokio::test]
async fn the_same_request_twice_makes_one_sandbox() {
    let server = Server::start().await;
    let first = create(&server, "k-1", r#"{"templateID":"base","timeout":60}"#).await;
    // Format and unknown fields do not matter.
    let again = create(
        &server,
        "k-1",
        r#"{ "timeout": 60, "x": 1, "templateID": "base" }"#,
    )
    .await;
    assert_eq!((first.status, &first.text), (again.status, &again.text));
    assert_eq!(first.status, 201);
    assert_eq!(server.node.count(), 1);
    let other = create(&server, "k-1", r#"{"templateID":"base","timeout":61}"#).await;
    assert_eq!(code(&other), "idempotency_request_mismatch");
    let text = "Idempotency-Key was already used with a different request";
    assert_eq!(other.error(409), text);
    create(&server, "k-2", r#"{"templateID":"base","timeout":60}"#)
        .await
        .expect(201);
    assert_eq!(server.node.count(), 2);
}

#[tokio::test]
async fn while_the_first_runs_the_second_is_told_so() {
    let server = Server::start().await;
    server.node.gate.forget_permits(usize::MAX);
    let body = r#"{"templateID":"base"}"#;
    let second = async {
        while server.node.requests.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let answer = create(&server, "k", body).await;
        server.node.gate.add_permits(1);
        answer
    };
    let (first, second) = tokio::join!(create(&server, "k", body), second);
    first.expect(201);
    assert_eq!(code(&second), "idempotency_in_progress");
    second.error(409);
    assert_eq!(server.node.count(), 1);
}

#[tokio::test]
async fn what_a_retry_may_change_is_not_kept() {
    let server = Server::start().await;
    let body = r#"{"templateID":"base"}"#;
    server.node.fail_next(Fault::Capacity);
    create(&server, "k", body).await.error(503);
    create(&server, "k", body).await.expect(201);
    server.node.fail_next(Fault::Panic);
    create(&server, "p", body).await.error(500);
    create(&server, "p", body).await.expect(201);
    let missing = r#"{"templateID":"nope"}"#;
    create(&server, "m", missing).await.error(404);
    create(&server, "m", missing).await.error(404);
}

#[tokio::test]
async fn teams_do_not_share_keys_and_malformed_ones_are_refused() {
    let server = Server::start().await;
    create(&server, "k", r#"{"templateID":"base"}"#)
        .await
        .expect(201);
    let other = server.other_key().await;
    let request = Request::post("/v2/sandboxes")
        .header("x-api-key", other)
        .header("idempotency-key", "k")
        .body(Body::from(r#"{"templateID":"base"}"#))
        .unwrap();
    server.send(request).await.expect(201);
    for bad in ["", "a b", &"k".repeat(256)] {
        create(&server, bad, r#"{"templateID":"base"}"#)
            .await
            .error(400);
    }
}
