//! Checks 82–91 of the API contract, as far as they concern the control plane.

use serde_json::{Value, json};
use warren_api::ApiConfig;
use warren_cluster::NodeError;
use warren_control::Limits;
use warren_types::{CaptureKind, SandboxId, SandboxState};

use crate::node::Fault;
use crate::server::Server;

async fn snapshot(server: &Server, id: &str, body: Value) -> String {
    let path = format!("/sandboxes/{id}/snapshots");
    let made = server.post(&path, body).await.expect(201);
    made["snapshotID"].as_str().unwrap().to_owned()
}

async fn listed(server: &Server, query: &str) -> Vec<String> {
    let list = server.get(&format!("/snapshots{query}")).await.expect(200);
    let id = |snapshot: &Value| snapshot["snapshotID"].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn an_unnamed_snapshot_is_a_template_that_is_not_listed_as_one() {
    let server = Server::start().await;
    let before = server.get("/templates").await.expect(200);
    let id = server.create(json!({})).await;
    let path = format!("/sandboxes/{id}/snapshots");
    let made = server
        .call_as(&server.key, "POST", &path, None)
        .await
        .expect(201);
    assert_eq!(made["names"], json!([]));
    let snapshot = made["snapshotID"].as_str().unwrap();
    let template = snapshot.strip_suffix(":default").unwrap();
    assert_eq!(server.get("/templates").await.expect(200), before);
    let state = server.get(&format!("/sandboxes/{id}")).await.expect(200)["state"].clone();
    assert_eq!(state, "running");

    let child = json!({"templateID": snapshot});
    let child = server.post("/v2/sandboxes", child).await.expect(201);
    assert_eq!(child["templateID"], *template);
    let request = server.node.requests.lock().unwrap().last().unwrap().clone();
    assert_eq!(request.image.capture, Some(CaptureKind::Memory));
    assert_eq!(
        *server.node.captures.lock().unwrap(),
        [request.image.build_id]
    );

    let gone = format!("/templates/{}", snapshot.replace(':', "%3A"));
    assert!(server.delete(&gone).await.error(400).contains("running"));
    let child = child["sandboxID"].as_str().unwrap();
    server
        .delete(&format!("/sandboxes/{child}"))
        .await
        .expect(204);
    server.delete(&gone).await.expect(204);
    server.delete(&gone).await.error(404);
    assert!(server.node.captures.lock().unwrap().is_empty());
    assert!(listed(&server, "").await.is_empty());
    assert_eq!(server.listed("").await, [id]);
}

#[tokio::test]
async fn a_name_moves_to_the_newest_and_filters_find_it() {
    let server = Server::start().await;
    let slug = server.team.slug.clone();
    let (a, b) = (
        server.create(json!({})).await,
        server.create(json!({})).await,
    );
    let name = json!({"name": "Snap1:v1", "memory": false});
    let first = snapshot(&server, &a, name.clone()).await;
    assert_eq!(first, format!("{slug}/snap1:v1"));
    let made = server
        .post(&format!("/sandboxes/{a}/snapshots"), name)
        .await
        .expect(201);
    assert_eq!(made["names"], json!([format!("{slug}/snap1")]));
    server.create(json!({"templateID": first})).await;
    let newest = server
        .node
        .requests
        .lock()
        .unwrap()
        .last()
        .unwrap()
        .image
        .build_id;
    assert_eq!(server.node.captures.lock().unwrap().last(), Some(&newest));
    let plain = snapshot(&server, &b, json!({})).await;

    let named = std::slice::from_ref(&first);
    assert_eq!(listed(&server, "").await, [plain.clone(), first.clone()]);
    assert_eq!(listed(&server, &format!("?sandboxID={b}")).await, [plain]);
    for query in ["snap1", "snap1%3Av1", &format!("{slug}%2Fsnap1")] {
        assert_eq!(
            listed(&server, &format!("?name={query}")).await,
            named,
            "{query}"
        );
    }
    for query in ["snap1%3Adefault", "nope", "a%20b"] {
        assert!(
            listed(&server, &format!("?name={query}")).await.is_empty(),
            "{query}"
        );
    }
    server.delete(&format!("/sandboxes/{a}")).await.expect(204);
    assert_eq!(listed(&server, &format!("?sandboxID={a}")).await, named);

    let page = server.get("/snapshots?limit=1").await;
    let token = page.header("x-next-token").unwrap().to_owned();
    assert_eq!(
        listed(&server, &format!("?limit=1&nextToken={token}")).await,
        named
    );
    let garbage = server.get("/snapshots?nextToken=garbage").await;
    assert_eq!(garbage.error(400), "Invalid next token");
}

#[tokio::test]
async fn refusals_leave_nothing() {
    let server = Server::start().await;
    let other = server.other_key().await;
    let id = server.create(json!({})).await;
    let path = format!("/sandboxes/{id}/snapshots");
    for name in [
        "a b",
        "other/x",
        "",
        "x:00000000-0000-0000-0000-000000000000",
    ] {
        server.post(&path, json!({"name": name})).await.error(400);
    }
    let taken = json!({"templateID": "base"});
    server.create(taken).await;
    server.call_as(&other, "POST", &path, None).await.error(404);
    server
        .post("/sandboxes/inope/snapshots", json!({}))
        .await
        .error(404);
    let sandbox: SandboxId = id.parse().unwrap();
    *server.node.refusal.lock().unwrap() = Some(NodeError::Transition {
        id: sandbox,
        state: SandboxState::Pausing,
    });
    assert_eq!(
        server.post(&path, json!({})).await.error(409),
        format!("Sandbox '{id}' cannot be snapshotted while in 'pausing' state")
    );
    server
        .post(&format!("/sandboxes/{id}/pause"), json!({}))
        .await
        .expect(204);
    server.post(&path, json!({})).await.error(404);
    assert!(server.node.captures.lock().unwrap().is_empty());
    assert!(listed(&server, "").await.is_empty());
}

#[tokio::test]
async fn captures_that_no_snapshot_names_are_swept_at_start() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    snapshot(&server, &id, json!({})).await;
    let kept = server.node.captures.lock().unwrap().clone();
    let server = server.restart().await;
    let stray = warren_types::BuildId::random();
    *server.node.captures.lock().unwrap() = vec![kept[0], stray];
    server.control.reconcile().await.unwrap();
    assert_eq!(*server.node.captures.lock().unwrap(), kept);
}

#[tokio::test]
async fn forks_are_new_sandboxes_like_the_old_one() {
    let server = Server::start().await;
    let made = json!({"templateID": "base", "metadata": {"a": "b"}, "autoPause": true});
    let source = server.post("/v2/sandboxes", made).await.expect(201);
    let id = source["sandboxID"].as_str().unwrap();
    let path = format!("/sandboxes/{id}/fork");
    let entries = server
        .post(&path, json!({"count": 3, "timeout": 60}))
        .await
        .expect(201);
    let entries = entries.as_array().unwrap();
    assert_eq!(entries.len(), 3);
    let before = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    for entry in entries {
        let sandbox = &entry["sandbox"];
        assert_ne!(sandbox["sandboxID"], source["sandboxID"]);
        assert_ne!(sandbox["envdAccessToken"], source["envdAccessToken"]);
        assert_eq!(sandbox["templateID"], source["templateID"]);
        let fork = sandbox["sandboxID"].as_str().unwrap();
        let detail = server.get(&format!("/sandboxes/{fork}")).await.expect(200);
        for field in ["metadata", "lifecycle", "cpuCount"] {
            assert_eq!(detail[field], before[field]);
        }
    }
    assert_eq!(server.listed("").await.len(), 4);
    assert!(server.node.captures.lock().unwrap().is_empty());
}

#[tokio::test]
async fn fork_limits_and_states() {
    let limits = Limits {
        max_sandboxes: 3,
        ..Limits::default()
    };
    let server = Server::with(limits, ApiConfig::default()).await;
    let id = server.create(json!({})).await;
    server.create(json!({})).await;
    let path = format!("/sandboxes/{id}/fork");
    for (count, text) in [
        (0, "Count must be at least 1"),
        (101, "Count cannot be greater than 100"),
        (
            3,
            "Count must be lower than the maximum number of concurrent sandboxes (3)",
        ),
    ] {
        let refused = server.post(&path, json!({"count": count})).await;
        assert_eq!(refused.error(400), text);
    }
    let entries = server.post(&path, json!({"count": 2})).await.expect(201);
    let entries = entries.as_array().unwrap();
    let made = entries
        .iter()
        .filter(|entry| entry.get("sandbox").is_some());
    assert_eq!(made.count(), 1);
    let refused = entries.iter().find_map(|entry| entry.get("error")).unwrap();
    assert_eq!(refused["code"], 429);

    for sandbox in server.listed("").await {
        if sandbox != id {
            server
                .delete(&format!("/sandboxes/{sandbox}"))
                .await
                .expect(204);
        }
    }
    server.node.fail_next(Fault::Start);
    let entries = server.post(&path, json!({})).await.expect(201);
    assert_eq!(entries[0]["error"]["code"], 500);
    assert_eq!(server.listed("").await, std::slice::from_ref(&id));
    server
        .post(&format!("/sandboxes/{id}/pause"), json!({}))
        .await
        .expect(204);
    assert_eq!(
        server.post(&path, json!({})).await.error(409),
        format!("Sandbox '{id}' is paused and cannot be forked; resume it first")
    );
    server
        .post("/sandboxes/inope/fork", json!({}))
        .await
        .error(404);
}

#[tokio::test]
async fn what_a_start_command_sets_up_is_captured_with_the_build_and_goes_with_it() {
    let server = Server::start().await;
    let build = server.built(json!({"name": "ready"})).await;
    let id = build.build.parse().unwrap();
    let captured = || server.node.captures.lock().unwrap().contains(&id);
    for _ in 0..1000 {
        if captured() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(captured());
    // Another template's end does not concern it.
    let other = server.built(json!({"name": "other"})).await;
    let gone = format!("/templates/{}", other.template);
    server.delete(&gone).await.expect(204);
    assert!(captured());
    let gone = format!("/templates/{}", build.template);
    server.delete(&gone).await.expect(204);
    assert!(!captured());
}
