//! Check 81 of the API contract: a server that starts again finds what is there.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::json;
use warren_cluster::{CreateSandbox, NodeHandle};
use warren_control::By;
use warren_store::Store;
use warren_types::EndReason;

use crate::server::Server;

#[tokio::test]
async fn living_sandboxes_are_found_again_and_lost_ones_ended() {
    let server = Server::start().await;
    let kept = server.create(json!({"metadata": {"a": "b"}})).await;
    let lost = server.create(json!({})).await;
    server.node.lose(&lost);
    let server = server.restart().await;
    assert_eq!(server.listed("").await, std::slice::from_ref(&kept));
    server.get(&format!("/sandboxes/{lost}")).await.error(404);
    let detail = server.get(&format!("/sandboxes/{kept}")).await.expect(200);
    assert_eq!(detail["metadata"], json!({"a": "b"}));
    server
        .post(
            &format!("/sandboxes/{kept}/timeout"),
            json!({"timeout": 60}),
        )
        .await
        .expect(204);
    server
        .delete(&format!("/sandboxes/{kept}"))
        .await
        .expect(204);
}

#[tokio::test]
async fn a_sandbox_that_nobody_was_told_of_is_taken_down() {
    let server = Server::start().await;
    let image = server
        .control
        .register_build(crate::server::base())
        .await
        .unwrap();
    let orphan = CreateSandbox {
        image,
        timeout: Duration::from_secs(60),
        env: [].into(),
        access_token: None,
        network: warren_types::NetworkConfig::default(),
        private_traffic: false,
        on_timeout: warren_types::OnTimeout::End,
        mounts: Vec::new(),
    };
    server.node.create(orphan).await.unwrap();
    assert_eq!(server.node.count(), 1);
    let server = server.restart().await;
    assert_eq!(server.node.count(), 0);
}

#[tokio::test]
async fn what_the_node_tells_of_an_end_counts_more_than_a_guess() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    server.node.lose(&id);
    let server = server.restart().await;
    let store = Store::open(&server.dir.path().join("warren.db"))
        .await
        .unwrap();
    let reason = || async {
        let record = store
            .sandbox_get(server.team.id, &id.parse().unwrap())
            .await
            .unwrap();
        record.unwrap().end_reason.unwrap()
    };
    assert_eq!(reason().await, EndReason::HostRestarted);
    server.node.tell(&id, EndReason::OutOfMemory).await;
    for _ in 0..500 {
        if reason().await == EndReason::OutOfMemory {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the reason is still {:?}", reason().await);
}

#[tokio::test]
async fn adopted_sandboxes_count_against_the_quota() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    server
        .control
        .team_set_max_sandboxes(&By::SYSTEM, server.team.id, Some(1))
        .await
        .unwrap();
    let server = server.restart().await;
    server
        .post("/v2/sandboxes", json!({"templateID": "base"}))
        .await
        .error(429);
    server.delete(&format!("/sandboxes/{id}")).await.expect(204);
    server.create(json!({})).await;
}

#[tokio::test]
async fn a_create_that_was_cut_off_has_an_unknown_outcome() {
    let server = Server::start().await;
    let caller = server.control.authenticate_key(&server.key).await.unwrap();
    let body = json!({"templateID": "base"});
    let fingerprint = format!("POST /v2/sandboxes\n{body}");
    server
        .control
        .idempotency_begin(&caller, "k", &fingerprint)
        .await
        .unwrap();
    let server = server.restart().await;
    let request = Request::post("/v2/sandboxes")
        .header("x-api-key", &server.key)
        .header("idempotency-key", "k")
        .body(Body::from(body.to_string()))
        .unwrap();
    let answer = server.send(request).await;
    assert_eq!(answer.json()["error_code"], "idempotency_outcome_unknown");
    answer.error(422);
}

#[tokio::test]
async fn registering_the_same_build_again_changes_nothing() {
    let server = Server::start().await;
    let first = server
        .control
        .register_build(crate::server::base())
        .await
        .unwrap();
    let again = server
        .control
        .register_build(crate::server::base())
        .await
        .unwrap();
    assert_eq!(first, again);
    let mut newer = crate::server::base();
    newer.layers = vec!["sha256-def".to_owned()];
    let newer = server.control.register_build(newer).await.unwrap();
    assert_eq!(newer.template_id, first.template_id);
    assert_ne!(newer.build_id, first.build_id);
    assert_eq!(
        *server.node.warm.lock().unwrap(),
        std::slice::from_ref(&newer)
    );
    server.create(json!({})).await;
    let requests = server.node.requests.lock().unwrap();
    assert_eq!(requests[0].image.layers, newer.layers);
}
