//! What comes all the time in the audit trail, and what a team is told of it.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use warren_api::{ApiConfig, RateLimit};
use warren_control::Limits;
use warren_service::Secret;

use crate::server::Server;

async fn entries(server: &Server, query: &str) -> Vec<Value> {
    let request = Request::get(format!("/admin/audit?{query}")).header("x-admin-token", "root");
    let answer = server.send(request.body(Body::empty()).unwrap()).await;
    answer.expect(200).as_array().unwrap().clone()
}

async fn server(rates: &[(&str, u32)]) -> Server {
    let limit = |calls: u32| RateLimit {
        burst: calls,
        tokens: calls,
        period: std::time::Duration::from_secs(3600),
    };
    let rates = rates
        .iter()
        .map(|(route, calls)| ((*route).to_owned(), limit(*calls)));
    let config = ApiConfig {
        admin_token: Some(Secret::new("root".to_owned())),
        rate_limits: rates.collect(),
        ..ApiConfig::default()
    };
    Server::with(Limits::default(), config).await
}

#[tokio::test]
async fn a_time_out_that_is_set_again_and_again_is_one_entry() {
    let server = server(&[]).await;
    let id = server.create(json!({})).await;
    let path = format!("/sandboxes/{id}/timeout");
    for seconds in [10, 20, 30] {
        server
            .post(&path, json!({"timeout": seconds}))
            .await
            .expect(204);
    }
    let found = entries(&server, &format!("target={id}&action=POST%20/sandboxes/")).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["status"], json!(204));
    // Of another sandbox, or with another outcome, it is another.
    let other = server.create(json!({})).await;
    let path = format!("/sandboxes/{other}/timeout");
    server.post(&path, json!({"timeout": 10})).await.expect(204);
    server
        .delete(&format!("/sandboxes/{other}"))
        .await
        .expect(204);
    server.post(&path, json!({"timeout": 10})).await.error(404);
    let found = entries(
        &server,
        &format!("target={other}&action=POST%20/sandboxes/"),
    )
    .await;
    assert_eq!(found.len(), 2, "{found:?}");
}

#[tokio::test]
async fn requests_that_come_too_fast_are_explained_by_the_first() {
    let server = server(&[("POST /v2/sandboxes", 1)]).await;
    server.create(json!({})).await;
    let mut first = None;
    for _ in 0..3 {
        let refused = server
            .post("/v2/sandboxes", json!({"templateID": "base"}))
            .await;
        first = first.or_else(|| refused.header("x-request-id").map(str::to_owned));
        refused.error(429);
    }
    let found = entries(&server, "refused=true").await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["reason"], json!("Rate limit exceeded"));
    let told = server.get(&format!("/explain/{}", first.unwrap())).await;
    let told = told.expect(200)["summary"][0].to_string();
    assert!(told.contains("with 429: Rate limit exceeded"), "{told}");
}

#[tokio::test]
async fn a_team_is_told_of_its_own_only() {
    let server = server(&[]).await;
    let other = server.other_key().await;
    let reads = server.read_key().await;
    let id = server.create(json!({})).await;
    let built = server.post("/v3/templates", json!({"name": "mine"})).await;
    let build = built.expect(202)["buildID"].as_str().unwrap().to_owned();
    let refused = server
        .post("/v2/sandboxes", json!({"templateID": "nope"}))
        .await;
    let request = refused.header("x-request-id").unwrap().to_owned();
    refused.error(404);
    let team = server.team.id.to_string();
    for (thing, words) in [
        (&id, "runs; it ends at"),
        (&build, "is waiting"),
        (&request, "template 'nope' not found"),
        (&team, "template 'nope' not found"),
        (&"default".to_owned(), "template 'nope' not found"),
    ] {
        let path = format!("/explain/{thing}");
        for key in [&server.key, &reads] {
            let told = server.call_as(key, "GET", &path, None).await.expect(200);
            assert!(
                told["summary"].to_string().contains(words),
                "{thing}: {told}"
            );
        }
        let foreign = server.call_as(&other, "GET", &path, None).await;
        assert!(
            foreign.error(404).starts_with("nothing is known of"),
            "{thing}"
        );
    }
    let all = server.get("/explain").await.expect(200);
    assert!(
        all["summary"]
            .to_string()
            .contains("template 'nope' not found")
    );
    let none = server
        .call_as(&other, "GET", "/explain", None)
        .await
        .expect(200);
    assert_eq!(none["trail"], json!([]));
}
