//! Budgets of teams and API keys.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use warren_api::ApiConfig;
use warren_control::{Budget, By, Limits, NewKey, NewTeam};
use warren_service::Secret;

use crate::server::{Answer, Server};

async fn server(limits: Limits) -> Server {
    let config = ApiConfig {
        admin_token: Some(Secret::new("root".to_owned())),
        ..ApiConfig::default()
    };
    Server::with(limits, config).await
}

async fn admin(server: &Server, method: &str, path: &str, body: Value) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("x-admin-token", "root")
        .header("content-type", "application/json");
    let body = if body.is_null() {
        Body::empty()
    } else {
        Body::from(body.to_string())
    };
    server.send(request.body(body).unwrap()).await
}

async fn refused(server: &Server, words: &str) {
    let answer = server
        .post("/v2/sandboxes", json!({"templateID": "base"}))
        .await;
    // Clients would wait and ask again in vain.
    assert_eq!(answer.header("should-retry"), Some("false"));
    assert_eq!(answer.header("retry-after"), None);
    let message = answer.error(429);
    assert!(message.contains(words), "{message}");
}

async fn kill(server: &Server, id: &str) {
    server.delete(&format!("/sandboxes/{id}")).await.expect(204);
}

/// A sandbox of the tests' template has 2 CPUs, 512 MiB of memory and 10,240 MiB of disk.
#[tokio::test]
async fn each_budget_of_a_team_is_kept() {
    let room = |change: fn(&mut Budget)| {
        let mut team = Budget::default();
        change(&mut team);
        Limits {
            team,
            ..Limits::default()
        }
    };
    for (limits, words) in [
        (room(|b| b.cpus = Some(3)), "3 CPUs"),
        (room(|b| b.memory_mib = Some(1023)), "1023 MiB of memory"),
        (room(|b| b.disk_mib = Some(20_479)), "20479 MiB of disk"),
    ] {
        let server = server(limits).await;
        let id = server.create(json!({})).await;
        refused(&server, words).await;
        kill(&server, &id).await;
        server.create(json!({})).await;
        assert_eq!(server.node.count(), 1);
    }
}

#[tokio::test]
async fn a_paused_sandbox_counts_with_its_disk_only() {
    let limits = Limits {
        team: Budget {
            cpus: Some(2),
            disk_mib: Some(2 * 10_240),
            ..Budget::default()
        },
        ..Limits::default()
    };
    let server = server(limits).await;
    let first = server.create(json!({})).await;
    refused(&server, "2 CPUs").await;
    let path = format!("/sandboxes/{first}");
    server
        .post(&format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    let used = server.get("/limits").await.expect(200)["team"]["used"].clone();
    let expected = json!({"sandboxes": 0, "cpus": 0, "memoryMB": 0, "diskMB": 10_240});
    assert_eq!(used, expected);
    let second = server.create(json!({})).await;
    let path = format!("{path}/connect");
    let connect = server.post(&path, json!({"timeout": 60}));
    assert!(connect.await.error(429).contains("2 CPUs"));
    kill(&server, &second).await;
    let connect = server.post(&path, json!({"timeout": 60}));
    connect.await.expect(201);
    let server = server.restart().await;
    let used = server.get("/limits").await.expect(200)["team"]["used"].clone();
    let expected = json!({"sandboxes": 1, "cpus": 2, "memoryMB": 512, "diskMB": 10_240});
    assert_eq!(used, expected, "as before the restart");
}

#[tokio::test]
async fn a_key_has_less_than_its_team() {
    let server = server(Limits::default()).await;
    let caller = server.control.authenticate_key(&server.key).await.unwrap();
    let path = format!(
        "/admin/teams/{}/api-keys/{}/limits",
        server.team.id,
        caller.key.unwrap()
    );
    let set = admin(&server, "PUT", &path, json!({"sandboxes": 1})).await;
    let set = set.expect(200);
    assert_eq!(set["own"]["sandboxes"], 1);
    assert_eq!(set["limits"]["sandboxes"], 1);
    let id = server.create(json!({})).await;
    refused(&server, "sandboxes (1) of this API key").await;
    let mine = server.get("/limits").await.expect(200);
    assert_eq!(mine["key"]["used"]["sandboxes"], 1);
    assert_eq!(mine["team"]["limits"]["sandboxes"], 1000);

    // Another key of the team has room, and what the first one made still counts for it.
    let other = server
        .control
        .key_create(&By::SYSTEM, server.team.id, NewKey::named("k"))
        .await
        .unwrap();
    let other = other.clear.expose();
    let body = Some(json!({"templateID": "base"}));
    let made = server.call_as(other, "POST", "/v2/sandboxes", body).await;
    made.expect(201);
    let server = server.restart().await;
    refused(&server, "of this API key").await;
    let path = format!("/sandboxes/{id}");
    let killed = server.call_as(other, "DELETE", &path, None);
    killed.await.expect(204);
    server.create(json!({})).await;
}

#[tokio::test]
async fn limits_that_are_set_count_at_once_and_are_kept() {
    let server = server(Limits::default()).await;
    let path = format!("/admin/teams/{}/limits", server.team.id);
    let before = admin(&server, "GET", &path, Value::Null).await.expect(200);
    assert_eq!(before["own"]["sandboxes"], Value::Null);
    assert_eq!(before["limits"]["sandboxes"], 1000);
    let ids = [
        server.create(json!({})).await,
        server.create(json!({})).await,
    ];
    let to = json!({"sandboxes": 1, "memoryMB": 4096});
    admin(&server, "PUT", &path, to).await.expect(200);
    assert_eq!(server.node.count(), 2, "what runs goes on");
    refused(&server, "(1)").await;
    kill(&server, &ids[0]).await;
    refused(&server, "(1)").await;
    kill(&server, &ids[1]).await;
    server.create(json!({})).await;
    let server = server.restart().await;
    refused(&server, "(1)").await;
    let own = server.get("/limits").await.expect(200)["team"]["own"].clone();
    assert_eq!(
        (&own["sandboxes"], &own["memoryMB"]),
        (&json!(1), &json!(4096))
    );
}

#[tokio::test]
async fn changes_are_in_the_trail_with_the_new_limits() {
    let server = server(Limits::default()).await;
    let caller = server.control.authenticate_key(&server.key).await.unwrap();
    let (team, key) = (server.team.id, caller.key.unwrap());
    let trail = async |server: &Server, target: String| {
        let path = format!("/admin/audit?target={target}");
        admin(server, "GET", &path, Value::Null).await.expect(200)
    };
    let of_team = format!("/admin/teams/{team}/limits");
    let to = json!({"sandboxes": 7, "cpus": null, "memoryMB": 4096});
    let set = admin(&server, "PUT", &of_team, to).await;
    let request = set.header("x-request-id").unwrap().to_owned();
    set.expect(200);
    let told = trail(&server, team.to_string()).await;
    let entry = &told[0];
    assert_eq!(entry["action"], json!("team.limits"));
    assert_eq!(entry["actor"], json!("admin"));
    assert_eq!(entry["teamID"], json!(team.to_string()));
    assert_eq!(entry["requestID"], json!(request));
    assert_eq!(
        (&entry["data"]["sandboxes"], &entry["data"]["cpus"]),
        (&json!(7), &Value::Null)
    );
    let of_key = format!("/admin/teams/{team}/api-keys/{key}/limits");
    admin(&server, "PUT", &of_key, json!({"diskMB": 5}))
        .await
        .expect(200);
    let told = trail(&server, key.to_string()).await;
    assert_eq!(told[0]["action"], json!("key.limits"));
    assert_eq!(told[0]["data"]["diskMB"], json!(5));
    // What is refused is there by the request, and reading leaves nothing.
    let before = told.as_array().unwrap().len();
    admin(&server, "GET", &of_key, Value::Null)
        .await
        .expect(200);
    let told = trail(&server, key.to_string()).await;
    assert_eq!(told.as_array().unwrap().len(), before);
    let nobody = warren_types::TeamId::random();
    let path = format!("/admin/teams/{nobody}/limits");
    admin(&server, "PUT", &path, json!({"cpus": 1}))
        .await
        .error(404);
    let told = trail(&server, nobody.to_string()).await;
    assert_eq!(told[0]["status"], json!(404));
}

#[tokio::test]
async fn the_operator_of_the_machine_needs_no_token() {
    let mut server = server(Limits::default()).await;
    let mine = server.router.clone();
    server.router = warren_api::local_router(std::sync::Arc::clone(&server.control));
    let path = format!("/admin/teams/{}/limits", server.team.slug);
    let set = server.put(&path, json!({"sandboxes": 1})).await.expect(200);
    assert_eq!(set["limits"]["sandboxes"], json!(1));
    server.get("/limits").await.error(404);
    let trail = server.get("/admin/audit?action=team.limits").await;
    assert_eq!(trail.expect(200)[0]["actor"], json!("local"));
    server.router = mine;
    server.create(json!({})).await;
    refused(&server, "(1)").await;
}

#[tokio::test]
async fn unknown_teams_and_foreign_keys() {
    let server = server(Limits::default()).await;
    let caller = server.control.authenticate_key(&server.key).await.unwrap();
    let new = NewTeam {
        name: "Other".to_owned(),
        ..NewTeam::default()
    };
    let other = server.control.team_create(&By::SYSTEM, new).await.unwrap();
    let foreign = format!(
        "/admin/teams/{}/api-keys/{}/limits",
        other.id,
        caller.key.unwrap()
    );
    let nobody = warren_types::TeamId::random();
    for path in [
        "/admin/teams/x/limits".to_owned(),
        format!("/admin/teams/{nobody}/limits"),
        foreign,
    ] {
        admin(&server, "GET", &path, Value::Null).await.error(404);
        admin(&server, "PUT", &path, json!({"cpus": 1}))
            .await
            .error(404);
        server.put(&path, json!({"cpus": 1})).await.error(401);
    }
    let path = format!("/admin/teams/{}/limits", other.id);
    let wrong = admin(&server, "PUT", &path, json!({"cpus": -1})).await;
    assert!(wrong.error(400).starts_with("validation error"));
}

#[tokio::test]
async fn requests_of_a_key_and_of_a_team_have_rates() {
    let limits = Limits {
        team: Budget {
            requests_per_minute: Some(3),
            ..Budget::default()
        },
        key: Budget {
            requests_per_minute: Some(2),
            ..Budget::default()
        },
        ..Limits::default()
    };
    let server = server(limits).await;
    for left in ["1", "0"] {
        let answer = server.get("/v2/sandboxes").await;
        assert_eq!(answer.header("ratelimit-limit"), Some("2"));
        assert_eq!(answer.header("ratelimit-remaining"), Some(left));
        answer.expect(200);
    }
    let refused = server.get("/v2/sandboxes").await;
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(refused.error(429), "Rate limit exceeded");
    let other = server
        .control
        .key_create(&By::SYSTEM, server.team.id, NewKey::named("k"))
        .await
        .unwrap();
    let call = || server.call_as(other.clear.expose(), "GET", "/v2/sandboxes", None);
    call().await.expect(200);
    let refused = call().await;
    assert_eq!(refused.header("ratelimit-limit"), Some("3"), "the team's");
    refused.error(429);
    let foreign = server.other_key().await;
    let answer = server.call_as(&foreign, "GET", "/v2/sandboxes", None);
    answer.await.expect(200);
}
