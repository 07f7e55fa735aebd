//! Checks 1–6, 14, 96, 109 and 111 of the API contract.

use axum::body::Body;
use http::Request;
use serde_json::json;
use warren_api::ApiConfig;
use warren_control::{By, KeysError, Limits, NewKey};
use warren_service::Secret;
use warren_types::Role;

use crate::server::Server;

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn without_a_valid_key_nobody_gets_in() {
    let server = Server::start().await;
    let path = "/v2/sandboxes";
    let none = server.send(request("GET", path, &[])).await;
    assert_eq!(none.error(401), "authorization header is missing");
    let unknown = format!("e2b_{}", "0".repeat(40));
    let answer = server.call_as(&unknown, "GET", path, None).await;
    assert!(answer.error(401).starts_with("Invalid API key"));
    for bad in ["abc", "e2b_", "e2b_xyz", "e2b_0", "E2B_00"] {
        let answer = server.call_as(bad, "GET", path, None).await;
        assert_eq!(answer.error(401), "Invalid API key format", "{bad}");
    }
    let binary = Request::builder().uri(path).header(
        "x-api-key",
        http::HeaderValue::from_bytes(b"\xff\xfe").unwrap(),
    );
    server
        .send(binary.body(Body::empty()).unwrap())
        .await
        .error(401);
}

#[tokio::test]
async fn credentials_come_before_bodies_and_ids() {
    let server = Server::start().await;
    server
        .send(request("POST", "/v2/sandboxes", &[]))
        .await
        .error(401);
    server
        .send(request("GET", "/sandboxes/a-b-c", &[]))
        .await
        .error(401);
    server
        .send(request("GET", "/v2/sandboxes?limit=0", &[]))
        .await
        .error(401);
}

#[tokio::test]
async fn the_header_s_case_does_not_matter() {
    let server = Server::start().await;
    for name in ["X-API-KEY", "x-api-key", "X-API-Key"] {
        let answer = server
            .send(request("GET", "/sandboxes", &[(name, &server.key)]))
            .await;
        answer.expect(200);
    }
}

#[tokio::test]
async fn new_keys_are_40_hex_digits_and_deleted_ones_stop_at_once() {
    let server = Server::start().await;
    let made = server
        .control
        .key_create(&By::SYSTEM, server.team.id, NewKey::named("ci"))
        .await
        .unwrap();
    let clear = made.clear.expose();
    let digits = clear.strip_prefix("e2b_").unwrap();
    assert_eq!(digits.len(), 40);
    assert!(
        digits
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    );
    assert_eq!(made.view.record.mask_prefix, digits[..2]);
    assert_eq!(made.view.record.mask_suffix, digits[36..]);
    server
        .call_as(clear, "GET", "/sandboxes", None)
        .await
        .expect(200);
    let delete = || {
        let (team, key) = (server.team.id, made.view.record.id);
        server.control.key_delete(&By::SYSTEM, team, key)
    };
    delete().await.unwrap();
    server
        .call_as(clear, "GET", "/sandboxes", None)
        .await
        .error(401);
    assert!(matches!(delete().await, Err(KeysError::NotFound)));
}

#[tokio::test]
async fn keys_are_not_in_the_database_in_clear() {
    let server = Server::start().await;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(server.dir.path()).unwrap() {
        files.push(std::fs::read(entry.unwrap().path()).unwrap());
    }
    let contains = |text: &str| {
        let text = text.as_bytes();
        files
            .iter()
            .any(|file| file.windows(text.len()).any(|part| part == text))
    };
    assert!(contains("api_keys"), "these are the files");
    assert!(!contains(server.key.strip_prefix("e2b_").unwrap()));
}

#[tokio::test]
async fn another_team_sees_and_changes_nothing() {
    let server = Server::start().await;
    let id = server.create(json!({"timeout": 300})).await;
    let other = server.other_key().await;
    let text = format!("Sandbox \"{id}\" doesn't exist or you don't have access to it");
    for (method, path, body) in [
        ("GET", format!("/sandboxes/{id}"), None),
        ("DELETE", format!("/sandboxes/{id}"), None),
        ("POST", format!("/v2/sandboxes/{id}/connect"), None),
        (
            "POST",
            format!("/sandboxes/{id}/connect"),
            Some(json!({"timeout": 900})),
        ),
        (
            "POST",
            format!("/sandboxes/{id}/timeout"),
            Some(json!({"timeout": 1})),
        ),
        (
            "POST",
            format!("/sandboxes/{id}/refreshes"),
            Some(json!({"duration": 900})),
        ),
        ("PUT", format!("/sandboxes/{id}/network"), Some(json!({}))),
        ("GET", format!("/sandboxes/{id}/metrics"), None),
        ("GET", format!("/sandboxes/{id}/logs"), None),
        ("GET", format!("/v2/sandboxes/{id}/logs"), None),
    ] {
        let answer = server.call_as(&other, method, &path, body).await;
        assert_eq!(answer.error(404), text, "{method} {path}");
    }
    let list = server
        .call_as(&other, "GET", "/v2/sandboxes", None)
        .await
        .expect(200);
    assert_eq!(list, json!([]));
    let latest = format!("/sandboxes/metrics?sandbox_ids={id}");
    let latest = server
        .call_as(&other, "GET", &latest, None)
        .await
        .expect(200);
    assert_eq!(latest, json!({"sandboxes": {}}));
    let detail = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    assert!(crate::server::is_about(&detail["endAt"], 300));
}

#[tokio::test]
async fn an_access_token_lists_teams_with_keys_that_work() {
    let server = Server::start().await;
    let team = server.team.id;
    let token = server.token(Role::Admin).await;
    let bearer = format!("Bearer {token}");
    let answer = server
        .send(request("GET", "/teams", &[("authorization", &bearer)]))
        .await;
    let teams = answer.expect(200);
    assert_eq!(teams.as_array().unwrap().len(), 1);
    assert_eq!(teams[0]["isDefault"], json!(true));
    assert_eq!(teams[0]["teamID"], json!(team.to_string()));
    let key = teams[0]["apiKey"].as_str().unwrap();
    server
        .call_as(key, "GET", "/sandboxes", None)
        .await
        .expect(200);
    let templates = request("GET", "/templates", &[("authorization", &bearer)]);
    assert_eq!(
        server.send(templates).await.expect(200)[0]["aliases"],
        json!(["base"])
    );
    // An access token is for people: it does not make sandboxes.
    let create = request("POST", "/v2/sandboxes", &[("authorization", &bearer)]);
    server.send(create).await.error(401);
    for bad in ["Bearer nope", "Basic x", "Bearer", "Bearer sk_e2b_00"] {
        server
            .send(request("GET", "/teams", &[("authorization", bad)]))
            .await
            .error(401);
    }
}

#[tokio::test]
async fn an_api_key_opens_neither_keys_nor_administration() {
    let server = Server::start().await;
    for path in [
        "/api-keys",
        "/teams",
        "/nodes",
        "/admin/sandboxes/running-counts",
    ] {
        server.get(path).await.error(401);
    }
}

#[tokio::test]
async fn the_administrator_s_token() {
    let config = ApiConfig {
        admin_token: Some(Secret::new("root".to_owned())),
        ..ApiConfig::default()
    };
    let server = Server::with(Limits::default(), config).await;
    let admin = |token: &'static str| request("GET", "/nodes", &[("x-admin-token", token)]);
    assert_eq!(
        server.send(admin("root")).await.expect(200)[0]["status"],
        json!("ready")
    );
    server.send(admin("wrong")).await.error(401);
    let team = server.team.id.to_string();
    let for_team = [("x-admin-token", "root"), ("x-team-id", team.as_str())];
    server
        .send(request("GET", "/sandboxes", &for_team))
        .await
        .expect(200);
    let wrong = [("x-admin-token", "wrong"), ("x-team-id", team.as_str())];
    server
        .send(request("GET", "/sandboxes", &wrong))
        .await
        .error(401);
}
