//! Secrets: whose they are, and that no answer tells a value.

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::server::Server;

const VALUE: &str = "hunter2-hunter2";

#[tokio::test]
async fn a_secret_is_kept_changed_and_forgotten_without_being_told() {
    let server = Server::start().await;
    let body = json!({"name": " My-Key ", "value": VALUE, "metadata": {"for": "tests"}});
    let made = server.post("/secrets", body.clone()).await;
    assert_eq!(made.header("cache-control"), Some("no-store"));
    assert!(!made.text.contains(VALUE));
    let made = made.expect(201);
    let id = made["secretID"].as_str().unwrap().to_owned();
    assert!(id.starts_with("sec_"));
    assert_eq!(made["name"], json!("my-key"));
    assert_eq!(made["currentVersion"], json!(1));

    let taken = server.post("/secrets", body).await.error(409);
    assert_eq!(taken, "Secret cannot be modified in its current state");
    for path in [format!("/secrets/{id}"), "/secrets/MY-KEY".to_owned()] {
        let found = server.get(&path).await;
        assert_eq!(found.header("cache-control"), Some("no-store"));
        assert_eq!(found.expect(200), made);
    }
    let one = format!("/secrets/{id}");
    let changed = server
        .post(&one, json!({"value": "next"}))
        .await
        .expect(200);
    assert_eq!(changed["currentVersion"], json!(2));
    assert_eq!(changed["metadata"], json!({"for": "tests"}));
    let cleared = json!({"value": "third", "metadata": {}});
    let cleared = server.post("/secrets/my-key", cleared).await.expect(200);
    assert_eq!(cleared["metadata"], json!({}));

    let team = server.team.id;
    let value = server.control.secret_reveal(team, "my-key").await.unwrap();
    assert!(value.matches("third"));

    server.delete(&one).await.expect(204);
    assert_eq!(server.delete(&one).await.error(404), "Secret not found");
    assert_eq!(server.get(&one).await.error(404), "Secret not found");
}

#[tokio::test]
async fn secrets_are_listed_by_page_newest_first() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        let body = json!({"name": name, "value": VALUE});
        server.post("/secrets", body).await.expect(201);
    }
    let first = server.get("/secrets?limit=2").await;
    let next = first.header("x-next-token").unwrap().to_owned();
    assert!(!first.text.contains(VALUE));
    let names = |page: serde_json::Value| -> Vec<String> {
        let page = page.as_array().unwrap().clone();
        page.iter()
            .map(|secret| secret["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(first.expect(200)), ["c", "b"]);
    let rest = server
        .get(&format!("/secrets?limit=2&nextToken={next}"))
        .await;
    assert_eq!(rest.header("x-next-token"), None);
    assert_eq!(names(rest.expect(200)), ["a"]);
    let bad = server.get("/secrets?nextToken=garbage").await;
    assert_eq!(bad.error(400), "Invalid next token");
}

#[tokio::test]
async fn bad_requests_do_not_quote_the_value() {
    let server = Server::start().await;
    for body in [
        json!({"name": "sec_x", "value": VALUE}),
        json!({"name": "a b", "value": VALUE}),
        json!({"name": "a", "value": format!("{VALUE}\n")}),
        json!({"name": "a", "value": [VALUE]}),
        json!({"name": "a", "value": VALUE, "metadata": VALUE}),
        json!({"name": "a"}),
    ] {
        let answer = server.post("/secrets", body).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(!answer.text.contains(VALUE));
        assert_eq!(answer.error(400), "Invalid secrets request");
    }
}

#[tokio::test]
async fn without_a_credential_nothing_is_told_or_kept_by_caches() {
    let server = Server::start().await;
    for path in ["/secrets", "/secrets/my-key"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let none = server.send(request).await;
        assert_eq!(none.header("cache-control"), Some("no-store"));
        assert_eq!(none.error(401), "You are not authenticated");
    }
}
