//! Checks 109–112 of the API contract, and what the operator has beyond it.

use axum::body::Body;
use http::Request;
use jiff::Timestamp;
use serde_json::{Value, json};
use warren_api::{ApiConfig, local_router};
use warren_control::Limits;
use warren_service::Secret;
use warren_types::Role;

use crate::server::{Answer, Server};

async fn server() -> Server {
    let config = ApiConfig {
        admin_token: Some(Secret::new("root".to_owned())),
        ..ApiConfig::default()
    };
    Server::with(Limits::default(), config).await
}

async fn ask(
    server: &Server,
    headers: &[(&str, &str)],
    method: &str,
    path: &str,
    body: Value,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() {
        Body::empty()
    } else {
        Body::from(body.to_string())
    };
    server.send(request.body(body).unwrap()).await
}

async fn admin(server: &Server, method: &str, path: &str, body: Value) -> Answer {
    ask(server, &[("x-admin-token", "root")], method, path, body).await
}

/// A person in the server's team, who speaks for it.
struct Person<'a> {
    server: &'a Server,
    bearer: String,
    team: String,
}

impl<'a> Person<'a> {
    async fn new(server: &'a Server, role: Role) -> Self {
        Self {
            bearer: format!("Bearer {}", server.token(role).await),
            team: server.team.id.to_string(),
            server,
        }
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        let headers = [
            ("authorization", self.bearer.as_str()),
            ("x-team-id", self.team.as_str()),
        ];
        ask(self.server, &headers, method, path, body).await
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn a_key_is_shown_once_and_masked_afterwards() {
    let server = server().await;
    let person = Person::new(&server, Role::Admin).await;
    let made = person.ask("POST", "/api-keys", json!({"name": "ci"})).await;
    let made = made.expect(201);
    let key = text(&made["key"]);
    assert_eq!(made["mask"]["prefix"], json!("e2b_"));
    assert_eq!(made["mask"]["valueLength"], json!(40));
    assert_eq!(text(&made["mask"]["maskedValuePrefix"]), &key[4..6]);
    assert_eq!(text(&made["mask"]["maskedValueSuffix"]), &key[40..]);
    assert_eq!(made["lastUsed"], json!(null));
    assert!(text(&made["createdBy"]["email"]).ends_with("@example.com"));
    server
        .call_as(key, "GET", "/sandboxes", None)
        .await
        .expect(200);
    let listed = person.ask("GET", "/api-keys", Value::Null).await;
    assert!(!listed.text.contains(&key[4..]));
    let listed = listed.expect(200);
    let one = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["id"] == made["id"]);
    let used: Timestamp = text(&one.unwrap()["lastUsed"]).parse().unwrap();
    assert!(used <= Timestamp::now());
    let path = format!("/api-keys/{}", text(&made["id"]));
    let renamed = person.ask("PATCH", &path, json!({"name": "deploy"})).await;
    assert_eq!(renamed.expect(200)["name"], json!("deploy"));
    person.ask("DELETE", &path, Value::Null).await.expect(204);
    server
        .call_as(key, "GET", "/sandboxes", None)
        .await
        .error(401);
    assert_eq!(
        person.ask("DELETE", &path, Value::Null).await.error(404),
        "API key not found"
    );
    person
        .ask("DELETE", "/api-keys/x", Value::Null)
        .await
        .error(400);
    let bad = json!({"name": "x", "expiresAt": "2020-01-01T00:00:00Z"});
    person.ask("POST", "/api-keys", bad).await.error(400);
    person
        .ask("POST", "/api-keys", json!({"name": " "}))
        .await
        .error(400);
    let wrong = json!({"name": "x", "scope": "root"});
    person.ask("POST", "/api-keys", wrong).await.error(400);
}

#[tokio::test]
async fn the_last_use_survives_a_restart() {
    let server = server().await;
    server.get("/sandboxes").await.expect(200);
    let team = server.team.id;
    let server = server.restart().await;
    let keys = server.control.key_list(team).await.unwrap();
    assert!(keys[0].record.last_used_at.is_some());
}

#[tokio::test]
async fn roles_bound_what_people_do_with_keys() {
    let server = server().await;
    let boss = Person::new(&server, Role::Admin).await;
    let member = Person::new(&server, Role::Member).await;
    let viewer = Person::new(&server, Role::Viewer).await;
    let of_boss = boss
        .ask("POST", "/api-keys", json!({"name": "b"}))
        .await
        .expect(201);
    let of_member = member
        .ask("POST", "/api-keys", json!({"name": "m"}))
        .await
        .expect(201);
    let path = |key: &Value| format!("/api-keys/{}", text(&key["id"]));
    member
        .ask("DELETE", &path(&of_boss), Value::Null)
        .await
        .error(403);
    member
        .ask("DELETE", &path(&of_member), Value::Null)
        .await
        .expect(204);
    boss.ask("DELETE", &path(&of_boss), Value::Null)
        .await
        .expect(204);
    viewer
        .ask("POST", "/api-keys", json!({"name": "v"}))
        .await
        .error(403);
    // The keys that a viewer's tools get may only read.
    let teams = viewer.ask("GET", "/teams", Value::Null).await.expect(200);
    let key = text(&teams[0]["apiKey"]).to_owned();
    server
        .call_as(&key, "GET", "/v2/sandboxes", None)
        .await
        .expect(200);
    let create = json!({"templateID": "base"});
    server
        .call_as(&key, "POST", "/v2/sandboxes", Some(create))
        .await
        .error(403);
    member
        .ask("GET", "/v2/sandboxes", Value::Null)
        .await
        .expect(200);
}

#[tokio::test]
async fn access_tokens_are_made_and_deleted_by_their_owner() {
    let server = server().await;
    let person = Person::new(&server, Role::Member).await;
    let other = Person::new(&server, Role::Admin).await;
    let made = person
        .ask("POST", "/access-tokens", json!({"name": "laptop"}))
        .await;
    let made = made.expect(201);
    let token = text(&made["token"]);
    assert!(token.starts_with("sk_e2b_") && token.len() == 47);
    assert_eq!(made["mask"]["prefix"], json!("sk_e2b_"));
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let teams = || ask(&server, &headers, "GET", "/teams", Value::Null);
    teams().await.expect(200);
    let path = format!("/access-tokens/{}", text(&made["id"]));
    other.ask("DELETE", &path, Value::Null).await.error(404);
    person.ask("DELETE", &path, Value::Null).await.expect(204);
    teams().await.error(401);
}

#[tokio::test]
async fn the_administrator_counts_and_kills() {
    let server = server().await;
    let team = server.team.id.to_string();
    let counts = || async {
        let path = "/admin/sandboxes/running-counts";
        admin(&server, "GET", path, Value::Null).await.expect(200)
    };
    assert_eq!(counts().await, json!({}));
    server.create(json!({})).await;
    let second = server.create(json!({})).await;
    let paused = server.create(json!({})).await;
    server
        .post(&format!("/sandboxes/{paused}/pause"), json!({}))
        .await
        .expect(204);
    assert_eq!(counts().await, json!({ team.as_str(): 2 }));
    let kill = |team: &str| format!("/admin/teams/{team}/sandboxes/kill");
    let done = admin(&server, "POST", &kill(&team), Value::Null)
        .await
        .expect(200);
    assert_eq!(done, json!({"killedCount": 2, "failedCount": 0}));
    assert_eq!(server.listed("").await, [paused]);
    server.get(&format!("/sandboxes/{second}")).await.error(404);
    assert_eq!(counts().await, json!({}));
    let nobody = kill("00000000-0000-4000-8000-000000000000");
    admin(&server, "POST", &nobody, Value::Null)
        .await
        .error(404);
}

#[tokio::test]
async fn the_administrator_sees_and_drains_the_node() {
    let server = server().await;
    server.create(json!({})).await;
    let nodes = admin(&server, "GET", "/nodes", Value::Null)
        .await
        .expect(200);
    let node = nodes[0].clone();
    assert_eq!(node["status"], json!("ready"));
    assert_eq!(
        (&node["sandboxCount"], &node["createSuccesses"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(node["metrics"]["cpuCount"], json!(4));
    assert!(node["metrics"]["allocatedMemoryBytes"].as_u64().unwrap() > 0);
    let path = format!("/nodes/{}", text(&node["id"]));
    let set = |status: &'static str| {
        let body = json!({ "status": status });
        let (server, path) = (&server, &path);
        async move { admin(server, "POST", path, body).await }
    };
    set("draining").await.expect(204);
    let refused = server
        .post("/v2/sandboxes", json!({"templateID": "base"}))
        .await;
    assert_eq!(
        refused.json()["error_code"],
        json!("sandbox_capacity_unavailable")
    );
    refused.error(503);
    let one = admin(&server, "GET", &path, Value::Null).await.expect(200);
    assert_eq!(
        (&one["status"], &one["sandboxCount"]),
        (&json!("draining"), &json!(1))
    );
    set("unhealthy").await.error(409);
    set("broken").await.error(400);
    set("ready").await.expect(204);
    server.create(json!({})).await;
    admin(&server, "GET", "/nodes/other", Value::Null)
        .await
        .error(404);
    admin(&server, "POST", "/nodes/other", json!({"status": "ready"}))
        .await
        .error(404);
}

#[tokio::test]
async fn teams_people_and_keys_of_the_operator() {
    let server = server().await;
    let made = admin(
        &server,
        "POST",
        "/admin/teams",
        json!({"name": "Acme Corp"}),
    )
    .await;
    let made = made.expect(201);
    assert_eq!(made["slug"], json!("acme-corp"));
    let again = json!({"name": "x", "slug": "acme-corp"});
    admin(&server, "POST", "/admin/teams", again)
        .await
        .error(409);
    let keys = "/admin/teams/acme-corp/api-keys";
    let new = json!({"name": "k", "scope": "read"});
    let key = admin(&server, "POST", keys, new).await.expect(201);
    let clear = text(&key["key"]).to_owned();
    server
        .call_as(&clear, "GET", "/v2/sandboxes", None)
        .await
        .expect(200);
    let new = json!({"name": "full"});
    let full = admin(&server, "POST", keys, new).await.expect(201);
    let full = text(&full["key"]).to_owned();
    let change = json!({"maxSandboxes": 1});
    let changed = admin(&server, "PATCH", "/admin/teams/acme-corp", change)
        .await
        .expect(200);
    assert_eq!(changed["maxSandboxes"], json!(1));
    let create = || Some(json!({"templateID": "base"}));
    server
        .call_as(&full, "POST", "/v2/sandboxes", create())
        .await
        .expect(201);
    server
        .call_as(&full, "POST", "/v2/sandboxes", create())
        .await
        .error(429);
    // With something left, a team is not deleted by accident.
    let path = "/admin/teams/acme-corp";
    let refused = admin(&server, "DELETE", path, Value::Null).await.error(409);
    assert!(refused.contains("1 sandboxes"), "{refused}");
    admin(
        &server,
        "DELETE",
        &format!("{path}?force=true"),
        Value::Null,
    )
    .await
    .expect(204);
    server
        .call_as(&full, "GET", "/v2/sandboxes", None)
        .await
        .error(401);
    admin(&server, "GET", path, Value::Null).await.error(404);
    admin(
        &server,
        "DELETE",
        "/admin/teams/default?force=true",
        Value::Null,
    )
    .await
    .error(409);
    // Its name is free again, and nothing of the old one is there.
    admin(
        &server,
        "POST",
        "/admin/teams",
        json!({"name": "Acme Corp"}),
    )
    .await
    .expect(201);
    let left = admin(&server, "GET", keys, Value::Null).await.expect(200);
    assert_eq!(left, json!([]));
    let user = admin(&server, "POST", "/admin/users", json!({"email": "A@b.c"})).await;
    assert_eq!(user.expect(201)["email"], json!("a@b.c"));
    let member = "/admin/teams/acme-corp/members/a@b.c";
    admin(&server, "PUT", member, json!({"role": "viewer"}))
        .await
        .expect(204);
    let users = admin(&server, "GET", "/admin/users", Value::Null)
        .await
        .expect(200);
    assert_eq!(users[0]["teams"][0]["role"], json!("viewer"));
    admin(&server, "DELETE", member, Value::Null)
        .await
        .expect(204);
    admin(&server, "DELETE", member, Value::Null)
        .await
        .error(404);
    admin(&server, "DELETE", "/admin/users/a@b.c", Value::Null)
        .await
        .expect(204);
}

#[tokio::test]
async fn the_trail_tells_who_did_what() {
    let server = server().await;
    let id = server.create(json!({})).await;
    server.delete(&format!("/sandboxes/{id}")).await.expect(204);
    let refused = server
        .post("/v2/sandboxes", json!({"templateID": "nope"}))
        .await;
    let request = refused.header("x-request-id").unwrap().to_owned();
    refused.error(404);
    let trail = |query: String| {
        let server = &server;
        async move {
            let path = format!("/admin/audit?{query}");
            let answer = admin(server, "GET", &path, Value::Null).await;
            let next = answer.header("x-next-token").map(str::to_owned);
            (answer.expect(200), next)
        }
    };
    let (of_sandbox, _) = trail(format!("target={id}")).await;
    let actions: Vec<_> = of_sandbox
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["action"])
        .collect();
    assert_eq!(
        actions,
        [
            &json!("DELETE /sandboxes/{sandboxID}"),
            &json!("POST /v2/sandboxes")
        ]
    );
    assert_eq!(of_sandbox[0]["actor"], json!("key"));
    let (of_request, _) = trail(format!("requestID={request}")).await;
    assert_eq!(of_request[0]["status"], json!(404));
    assert_eq!(of_request[0]["reason"], json!("template 'nope' not found"));
    // A change of keys is one entry, written with it, and never tells the key.
    let keys = format!("/admin/teams/{}/api-keys", server.team.id);
    let made = admin(&server, "POST", &keys, json!({"name": "k"}))
        .await
        .expect(201);
    let (of_key, _) = trail(format!("target={}", text(&made["id"]))).await;
    assert_eq!(of_key.as_array().unwrap().len(), 1);
    assert_eq!(of_key[0]["action"], json!("key.create"));
    assert_eq!(of_key[0]["actor"], json!("admin"));
    assert!(of_key[0]["requestID"].is_string());
    let digits = &text(&made["key"])[4..];
    let (all, _) = trail("limit=1000".to_owned()).await;
    assert!(!all.to_string().contains(digits));
    let (first, next) = trail("limit=1".to_owned()).await;
    let (second, _) = trail(format!("limit=1&nextToken={}", next.unwrap())).await;
    assert_eq!((&first[0], &second[0]), (&all[0], &all[1]));
    let oldest = all.as_array().unwrap().len() - 1;
    assert_eq!(all[oldest]["actor"], json!("system"));
    for bad in ["limit=0", "limit=1001", "nextToken=x", "since=x"] {
        admin(&server, "GET", &format!("/admin/audit?{bad}"), Value::Null)
            .await
            .error(400);
    }
    // Past the retention it is forgotten.
    let later = Timestamp::now() + std::time::Duration::from_secs(400 * 24 * 3600);
    server.control.purge(later).await.unwrap();
    assert_eq!(trail(String::new()).await.0, json!([]));
}

#[tokio::test]
async fn commands_on_the_machine_need_no_token() {
    let mut server = server().await;
    server.router = local_router(std::sync::Arc::clone(&server.control));
    let teams = ask(&server, &[], "GET", "/admin/teams", Value::Null)
        .await
        .expect(200);
    assert_eq!(teams[0]["isDefault"], json!(true));
    let new = json!({"name": "T"});
    let team = ask(&server, &[], "POST", "/admin/teams", new)
        .await
        .expect(201);
    let path = format!("/admin/audit?target={}", text(&team["teamID"]));
    let trail = ask(&server, &[], "GET", &path, Value::Null)
        .await
        .expect(200);
    assert_eq!(trail[0]["actor"], json!("local"));
    // Nothing but administration is there.
    ask(&server, &[], "GET", "/v2/sandboxes", Value::Null)
        .await
        .error(404);
}

#[tokio::test]
async fn ends_and_refusals_are_explained() {
    let server = server().await;
    let explain = |id: String| {
        let server = &server;
        async move { admin(server, "GET", &format!("/admin/explain/{id}"), Value::Null).await }
    };
    let id = server.create(json!({})).await;
    let told = explain(id.clone()).await.expect(200);
    assert!(
        text(&told["summary"][0]).contains("runs; it ends at"),
        "{told}"
    );
    server.delete(&format!("/sandboxes/{id}")).await.expect(204);
    let told = explain(id.clone()).await.expect(200);
    assert!(
        text(&told["summary"][0]).contains("was killed at"),
        "{told}"
    );
    assert!(
        told["summary"]
            .to_string()
            .contains("(default) asked for that"),
        "{told}"
    );
    assert_eq!(told["events"][1]["kind"], json!("sandbox.lifecycle.killed"));
    assert_eq!(told["trail"][0]["action"], json!("POST /v2/sandboxes"));
    let refused = server
        .post("/v2/sandboxes", json!({"templateID": "nope"}))
        .await;
    let request = refused.header("x-request-id").unwrap().to_owned();
    let told = explain(request).await.expect(200);
    assert!(
        text(&told["summary"][0]).contains("404: template 'nope' not found"),
        "{told}"
    );
    explain("nothing".to_owned()).await.error(404);
}

#[tokio::test]
async fn what_happens_is_counted() {
    let server = server().await;
    let id = server.create(json!({})).await;
    server.delete(&format!("/sandboxes/{id}")).await.expect(204);
    server.get("/sandboxes/inothing").await.error(404);
    let told = server.control.meters_text().await;
    for line in [
        "warren_sandbox_creates_total{outcome=\"made\"} 1",
        "warren_sandbox_ends_total{reason=\"killed\"} 1",
        "warren_http_requests_total{method=\"GET\",route=\"/sandboxes/{sandboxID}\",\
         status=\"404\"} 1",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
}
