//! Checks 7–13 and 15 of the API contract.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::Request;
use serde_json::json;
use warren_api::{ApiConfig, RateLimit};
use warren_control::Limits;

use crate::node::Fault;
use crate::server::Server;

#[tokio::test]
async fn unknown_routes_and_wrong_methods_answer_json() {
    let server = Server::start().await;
    assert_eq!(server.get("/nope").await.error(404), "route not found");
    assert_eq!(server.get("/").await.error(404), "route not found");
    let answer = server.put("/v2/sandboxes", json!({})).await;
    assert!(answer.error(405).contains("PUT"));
}

#[tokio::test]
async fn a_chunked_body_is_read() {
    let server = Server::start().await;
    let parts =
        ["{\"templateID\"", ":\"base\"}"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
    let request = Request::post("/v2/sandboxes")
        .header("x-api-key", &server.key)
        .body(Body::from_stream(stream::iter(parts)))
        .unwrap();
    server.send(request).await.expect(201);
}

#[tokio::test]
async fn bodies_that_break_the_specification() {
    let server = Server::start().await;
    for bad in [
        json!({"templateID": "base", "timeout": "x"}),
        json!({"timeout": 5}),
        json!({"templateID": 5}),
        json!({"templateID": "base", "metadata": {"a": 1}}),
        json!({"templateID": "base", "timeout": 5_000_000_000_i64}),
        json!([]),
    ] {
        let answer = server.post("/v2/sandboxes", bad.clone()).await;
        assert!(answer.error(400).starts_with("validation error"), "{bad}");
    }
    for bad in ["{", "", "nonsense", "{\"templateID\":\"base\"} trailing"] {
        let request = Request::post("/v2/sandboxes")
            .header("x-api-key", &server.key)
            .body(Body::from(bad))
            .unwrap();
        let message = server.send(request).await.error(400);
        assert!(
            message.starts_with("Error when parsing request"),
            "{bad}: {message}"
        );
    }
    assert_eq!(server.node.count(), 0);
}

#[tokio::test]
async fn a_body_beyond_16_mib_is_refused() {
    let server = Server::start().await;
    let request = Request::post("/v2/sandboxes")
        .header("x-api-key", &server.key)
        .body(Body::from(vec![b' '; 16 * 1024 * 1024 + 1]))
        .unwrap();
    server.send(request).await.error(413);
}

#[tokio::test]
async fn preflights_need_no_key_and_errors_are_readable_across_origins() {
    let server = Server::start().await;
    let preflight = Request::options("/v2/sandboxes")
        .header("origin", "https://example.com")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "x-api-key,content-type,idempotency-key",
        )
        .body(Body::empty())
        .unwrap();
    let answer = server.send(preflight).await;
    assert!(answer.status.is_success());
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let headers = answer.header("access-control-allow-headers").unwrap();
    assert_eq!(headers, "x-api-key,content-type,idempotency-key");
    let methods = answer.header("access-control-allow-methods").unwrap();
    assert!(methods.contains("PATCH") && methods.contains("DELETE"));

    let refused = Request::get("/sandboxes").header("origin", "https://example.com");
    let refused = server.send(refused.body(Body::empty()).unwrap()).await;
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    assert!(
        refused
            .header("access-control-expose-headers")
            .unwrap()
            .contains("x-next-token")
    );
    refused.error(401);
}

#[tokio::test]
async fn sandbox_ids_may_carry_the_client_id() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    let detail = server
        .get(&format!("/sandboxes/{id}-6532622b"))
        .await
        .expect(200);
    assert_eq!(detail["sandboxID"], json!(id));
    for bad in ["a-b-c", "I_D", "a.b", "%2e%2e", "%ff", "a%2Fb"] {
        let answer = server.get(&format!("/sandboxes/{bad}")).await;
        assert_eq!(answer.error(400), "Invalid sandbox ID", "{bad}");
    }
}

#[tokio::test]
async fn the_third_call_to_a_route_of_burst_two_is_refused() {
    let limit = RateLimit {
        burst: 2,
        tokens: 1,
        period: Duration::from_secs(3600),
    };
    let config = ApiConfig {
        rate_limits: HashMap::from([("GET /sandboxes/{sandboxID}".to_owned(), limit)]),
        ..ApiConfig::default()
    };
    let server = Server::with(Limits::default(), config).await;
    for (path, left) in [("/sandboxes/i1", "1"), ("/sandboxes/i2", "0")] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("ratelimit-limit"), Some("2"));
        assert_eq!(answer.header("ratelimit-remaining"), Some(left));
        assert!(answer.header("ratelimit-reset").is_some());
        answer.error(404);
    }
    let refused = server.get("/sandboxes/i3").await;
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(wait >= 1);
    assert_eq!(refused.error(429), "Rate limit exceeded");
    assert_eq!(
        server.get("/v2/sandboxes").await.header("ratelimit-limit"),
        None
    );
}

#[tokio::test]
async fn a_panic_is_a_json_500_and_leaves_no_quota_used() {
    let server = Server::with(
        Limits {
            max_sandboxes: 1,
            ..Limits::default()
        },
        ApiConfig::default(),
    )
    .await;
    server.node.fail_next(Fault::Panic);
    let answer = server
        .post("/v2/sandboxes", json!({"templateID": "base"}))
        .await;
    assert_eq!(answer.error(500), "internal server error");
    server.create(json!({})).await;
}

#[tokio::test]
async fn health_needs_no_key() {
    let server = Server::start().await;
    let request = Request::get("/health").body(Body::empty()).unwrap();
    assert!(server.send(request).await.status.is_success());
}
