//! Checks 35, 48, 59, 61, 64, 68–78 and 80 of the API contract, and of the proxy's 35–41 what
//! is decided here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use warren_api::ApiConfig;
use warren_cluster::NodeError;
use warren_control::{Limits, Wake, WakeAsk};
use warren_types::{SandboxId, SandboxState};

use crate::server::{Server, ahead, is_about};

async fn paused(server: &Server, body: serde_json::Value) -> (String, String) {
    let id = server.create(body).await;
    let path = format!("/sandboxes/{id}");
    server
        .post(&format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    (id, path)
}

fn one_place() -> Limits {
    Limits {
        max_sandboxes: 1,
        ..Limits::default()
    }
}

fn ask(port: u16) -> WakeAsk<'static> {
    WakeAsk {
        port,
        access_token: None,
        traffic_token: None,
    }
}

#[tokio::test]
async fn a_paused_sandbox_is_shown_listed_and_connected_to_again() {
    let server = Server::start().await;
    let made = server
        .post(
            "/v2/sandboxes",
            json!({"templateID": "base", "metadata": {"a": "b"}}),
        )
        .await
        .expect(201);
    let id = made["sandboxID"].as_str().unwrap().to_owned();
    let path = format!("/sandboxes/{id}");
    let before = server.get(&path).await.expect(200);
    assert_eq!(before.get("pauseMode"), None);
    let absent = server
        .call_as(&server.key, "POST", &format!("{path}/pause"), None)
        .await;
    absent.expect(204);
    let detail = server.get(&path).await.expect(200);
    assert_eq!(detail["state"], "paused");
    assert_eq!(detail["pauseMode"], "full");
    assert!(ahead(&detail["endAt"]) <= 0, "the time of the pause");
    assert_eq!(detail["startedAt"], before["startedAt"]);
    assert_eq!(server.listed("").await, std::slice::from_ref(&id));
    assert_eq!(
        server.listed("?state=paused").await,
        std::slice::from_ref(&id)
    );
    assert!(server.listed("?state=running").await.is_empty());

    let again = server.post(&format!("{path}/pause"), json!({})).await;
    assert_eq!(
        again.error(409),
        format!("Error pausing sandbox - sandbox '{id}' is already paused")
    );
    for (call, body) in [("timeout", json!({"timeout": 9})), ("refreshes", json!({}))] {
        server
            .post(&format!("{path}/{call}"), body)
            .await
            .error(404);
    }
    server
        .put(&format!("{path}/network"), json!({}))
        .await
        .error(404);

    let connected = server
        .post(&format!("/v2{path}/connect"), json!({"timeout": 60}))
        .await
        .expect(201);
    assert_eq!(connected, made, "tokens and all");
    let after = server.get(&path).await.expect(200);
    assert_eq!(after["state"], "running");
    assert_eq!(after["metadata"], json!({"a": "b"}));
    assert_ne!(after["startedAt"], before["startedAt"]);
    assert!(is_about(&after["endAt"], 60));
    let running = server.post(&format!("/v2{path}/connect"), json!({})).await;
    running.expect(200);
}

#[tokio::test]
async fn unknown_and_foreign_ones_are_not_paused() {
    let server = Server::start().await;
    let other = server.other_key().await;
    let id = server.create(json!({})).await;
    for call in ["pause", "resume"] {
        server
            .post(&format!("/sandboxes/inope/{call}"), json!({}))
            .await
            .error(404);
        let path = format!("/sandboxes/{id}/{call}");
        server.call_as(&other, "POST", &path, None).await.error(404);
    }
    assert_eq!(server.listed("?state=running").await, [id]);
}

#[tokio::test]
async fn a_pause_without_memory_is_shown_as_such() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    let path = format!("/sandboxes/{id}");
    server
        .post(&format!("{path}/pause"), json!({"memory": false}))
        .await
        .expect(204);
    let detail = server.get(&path).await.expect(200);
    assert_eq!(detail["pauseMode"], "filesystem");
}

#[tokio::test]
async fn simultaneous_connects_share_one_resume_and_one_place() {
    let server = Server::with(one_place(), ApiConfig::default()).await;
    let (id, path) = paused(&server, json!({})).await;
    let connect = format!("/v2{path}/connect");
    let asks = (0..10).map(|_| server.post(&connect, json!({})));
    for answer in futures_util::future::join_all(asks).await {
        assert!(matches!(answer.status.as_u16(), 200 | 201), "{answer:?}");
    }
    assert_eq!(*server.node.resumes.lock().unwrap(), 1);
    server
        .post(&format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    // The place is free again, once.
    let other = server.create(json!({})).await;
    let full = server.post(&connect, json!({})).await;
    assert_eq!(full.header("should-retry"), Some("false"));
    assert!(
        full.error(429)
            .starts_with("you have reached the maximum number of concurrent E2B sandboxes (1)")
    );
    server
        .delete(&format!("/sandboxes/{other}"))
        .await
        .expect(204);
    server.post(&connect, json!({})).await.expect(201);
    assert_eq!(server.listed("?state=running").await, [id]);
}

#[tokio::test]
async fn a_late_word_of_a_pause_undoes_nothing() {
    let server = Server::start().await;
    for _ in 0..20 {
        let (id, path) = paused(&server, json!({})).await;
        server
            .post(&format!("/v2{path}/connect"), json!({}))
            .await
            .expect(201);
        // The node's own words of both are written down after the answers.
        tokio::task::yield_now().await;
        assert_eq!(server.get(&path).await.expect(200)["state"], "running");
        let id: SandboxId = id.parse().unwrap();
        let view = warren_cluster::NodeHandle::get(server.node.as_ref(), &id).await;
        assert_eq!(view.unwrap().state, SandboxState::Running);
    }
}

#[tokio::test]
async fn the_old_resume() {
    let server = Server::start().await;
    let (id, path) = paused(&server, json!({})).await;
    let resume = format!("{path}/resume");
    server
        .post(&resume, json!({"autoPause": true}))
        .await
        .expect(201);
    let detail = server.get(&path).await.expect(200);
    assert!(is_about(&detail["endAt"], 15));
    assert_eq!(detail["lifecycle"]["onTimeout"], "pause");
    assert_eq!(
        server.post(&resume, json!({})).await.error(409),
        format!("Sandbox {id} is already running")
    );
}

#[tokio::test]
async fn times_of_a_connect_are_checked_first() {
    let server = Server::start().await;
    let (_, path) = paused(&server, json!({})).await;
    let v2 = format!("/v2{path}/connect");
    let refused = server.post(&v2, json!({"timeout": 0})).await;
    assert_eq!(refused.error(400), "Timeout must be greater than 0");
    let refused = server.post(&v2, json!({"timeout": 1_000_000})).await;
    assert_eq!(
        refused.error(400),
        "Timeout cannot be greater than 24 hours"
    );
    let zero = server
        .post(&format!("{path}/connect"), json!({"timeout": 0}))
        .await;
    zero.expect(201);
    server.node.tick().await;
    server.until(&path, 404).await;
}

#[tokio::test]
async fn a_killed_paused_one_is_gone() {
    let server = Server::start().await;
    let (_, path) = paused(&server, json!({})).await;
    server.delete(&path).await.expect(204);
    server.get(&path).await.error(404);
    server
        .post(&format!("/v2{path}/connect"), json!({}))
        .await
        .error(404);
    server.delete(&path).await.error(404);
}

#[tokio::test]
async fn refusals_of_the_node() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    let path = format!("/sandboxes/{id}");
    let sandbox: SandboxId = id.parse().unwrap();
    let pause = format!("{path}/pause");
    let refuse = |error| *server.node.refusal.lock().unwrap() = Some(error);

    refuse(NodeError::AgentSilent(sandbox.clone()));
    server
        .post(&pause, json!({"requireHealthyGuest": true}))
        .await
        .error(503);
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    refuse(NodeError::PauseFailed(Box::new(full)));
    let told = server.post(&pause, json!({})).await.error(500);
    assert!(told.contains("disk is full"), "{told}");
    assert!(told.contains("still running"), "{told}");
    refuse(NodeError::Transition {
        id: sandbox,
        state: SandboxState::Pausing,
    });
    let told = server.post(&pause, json!({})).await.error(409);
    assert_eq!(told, format!("Sandbox \"{id}\" is being paused"));
    assert_eq!(server.get(&path).await.expect(200)["state"], "running");
}

#[tokio::test]
async fn a_restart_keeps_paused_ones_and_their_places_free() {
    let server = Server::start().await;
    let (id, path) = paused(&server, json!({})).await;
    let server = server.restart().await;
    assert_eq!(server.get(&path).await.expect(200)["state"], "paused");
    server
        .post(&format!("/v2{path}/connect"), json!({}))
        .await
        .expect(201);
    assert_eq!(server.listed("?state=running").await, [id]);
}

#[tokio::test]
async fn traffic_wakes_once_and_only_what_may_be_woken() {
    let server = Server::start().await;
    let wakes = json!({"autoPause": true, "autoResume": {"enabled": true}, "timeout": 600});
    let (id, path) = paused(&server, wakes.clone()).await;
    let id: SandboxId = id.parse().unwrap();
    let control = &server.control;
    assert_eq!(control.wake(&id, ask(49983)).await, Wake::Denied, "secured");
    let asks = (0..50).map(|_| control.wake(&id, ask(8000)));
    let woken = futures_util::future::join_all(asks).await;
    assert!(woken.iter().all(|wake| *wake == Wake::Running), "{woken:?}");
    assert_eq!(*server.node.resumes.lock().unwrap(), 1);
    let detail = server.get(&path).await.expect(200);
    assert!(is_about(&detail["endAt"], 600), "the create's time-out");

    let (plain, _) = paused(&server, json!({})).await;
    let plain: SandboxId = plain.parse().unwrap();
    assert_eq!(control.wake(&plain, ask(8000)).await, Wake::NotFound);
    let stranger = SandboxId::random();
    assert_eq!(control.wake(&stranger, ask(8000)).await, Wake::NotFound);

    let mut short = wakes;
    short["timeout"] = json!(10);
    let (id, path) = paused(&server, short).await;
    let id: SandboxId = id.parse().unwrap();
    assert_eq!(control.wake(&id, ask(8000)).await, Wake::Running);
    assert!(is_about(&server.get(&path).await.expect(200)["endAt"], 300));
}

#[tokio::test]
async fn traffic_needs_the_tokens_and_a_place() {
    let server = Server::with(one_place(), ApiConfig::default()).await;
    let body = json!({"templateID": "base", "autoPause": true, "autoResume": {"enabled": true},
                      "network": {"allowPublicTraffic": false}});
    let made = server.post("/v2/sandboxes", body).await.expect(201);
    let id: SandboxId = made["sandboxID"].as_str().unwrap().parse().unwrap();
    let path = format!("/sandboxes/{id}");
    server
        .post(&format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    let control = &server.control;
    let token = made["trafficAccessToken"].as_str().unwrap();
    for shown in [None, Some("wrong")] {
        let ask = WakeAsk {
            traffic_token: shown,
            ..ask(8000)
        };
        assert_eq!(control.wake(&id, ask).await, Wake::Denied);
    }
    let right = WakeAsk {
        traffic_token: Some(token),
        ..ask(8000)
    };
    let other = server.create(json!({})).await;
    let Wake::Limit { message } = control.wake(&id, right).await else {
        panic!("there was a place");
    };
    assert!(message.contains("maximum number of concurrent"));
    server
        .delete(&format!("/sandboxes/{other}"))
        .await
        .expect(204);
    assert_eq!(control.wake(&id, right).await, Wake::Running);
    let agent = WakeAsk {
        access_token: made["envdAccessToken"].as_str(),
        ..ask(49983)
    };
    server
        .post(&format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    assert_eq!(control.wake(&id, agent).await, Wake::Running);
}

#[tokio::test]
async fn a_wake_goes_on_when_its_request_goes_away() {
    let server = Server::start().await;
    let body = json!({"autoPause": true, "autoResume": {"enabled": true}});
    let (id, path) = paused(&server, body).await;
    let id: SandboxId = id.parse().unwrap();
    let held = server.node.gate.acquire_many(1_000_000).await.unwrap();
    let control = Arc::clone(&server.control);
    let request = tokio::time::timeout(
        std::time::Duration::from_millis(50),
        control.wake(&id, ask(8000)),
    );
    assert!(request.await.is_err());
    drop(held);
    while server.get(&path).await.expect(200)["state"] != "running" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_silent_agent_is_shown_and_its_memory_is_not_taken_up() {
    let server = Server::start().await;
    server.node.agent_silent.store(true, Ordering::Relaxed);
    let (id, path) = paused(&server, json!({})).await;
    let detail = server.get(&path).await.expect(200);
    assert_eq!(detail["envdUnresponsiveAtPause"], true);
    let listed = server.get("/v2/sandboxes").await.expect(200);
    assert_eq!(listed[0]["envdUnresponsiveAtPause"], true);
    let refusal = NodeError::AgentSilent(id.parse().unwrap());
    *server.node.refusal.lock().unwrap() = Some(refusal);
    let refused = server.post(&format!("/v2{path}/connect"), json!({})).await;
    let body = refused.expect(409);
    assert_eq!(
        body["error_code"],
        "sandbox_snapshot_guest_agent_unresponsive"
    );
    let booted = json!({"memory": false});
    server
        .post(&format!("/v2{path}/connect"), booted)
        .await
        .expect(201);
    let detail = server.get(&path).await.expect(200);
    assert_eq!(detail.get("envdUnresponsiveAtPause"), None);
}

#[tokio::test]
async fn a_boot_from_files_gives_way_to_a_resume_under_way_and_may_fail() {
    let server = Arc::new(Server::start().await);
    let (id, path) = paused(&server, json!({})).await;
    let connect = format!("/v2{path}/connect");
    // A resume is held in the node.
    server.node.gate.forget_permits(1_000_000);
    let resume = warren_service::Tasks::new().spawn({
        let (server, connect) = (Arc::clone(&server), connect.clone());
        async move { server.post(&connect, json!({})).await.status.as_u16() }
    });
    let mut refused = json!({});
    for _ in 0..500 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let answer = tokio::time::timeout(
            std::time::Duration::from_millis(200),
            server.post(&connect, json!({"memory": false})),
        );
        if let Ok(answer) = answer.await {
            refused = answer.expect(409);
            break;
        }
    }
    assert_eq!(refused["error_code"], "sandbox_start_in_flight");
    server.node.gate.add_permits(1_000_000);
    assert!(matches!(resume.await.unwrap(), 200 | 201));
    // It runs: nothing is in the way any more, and nothing is to be done.
    server
        .post(&connect, json!({"memory": false}))
        .await
        .expect(200);

    server
        .post(&format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    let cause = NodeError::ResumeFailed("it does not come up".into());
    *server.node.refusal.lock().unwrap() = Some(cause);
    let failed = server
        .post(&connect, json!({"memory": false}))
        .await
        .expect(503);
    assert_eq!(failed["error_code"], "sandbox_filesystem_boot_unconfirmed");
    assert_eq!(server.listed("?state=paused").await, [id]);
}

#[tokio::test]
async fn idle_sandboxes_that_traffic_wakes_are_paused_when_memory_is_short() {
    let server = Server::start().await;
    let lifecycle = json!({"autoPause": true, "autoResume": {"enabled": true}});
    let idle = server.create(lifecycle.clone()).await;
    let busy = server.create(lifecycle).await;
    let kept = server.create(json!({"autoPause": true})).await;
    *server.node.available_pct.lock().unwrap() = Some(9);
    for _ in 0..100 {
        server.node.use_cpu(&busy).await;
        if server.listed("?state=paused").await == [idle.clone()] {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let paused = server.listed("?state=paused").await;
    assert_eq!(paused, std::slice::from_ref(&idle));
    let mut running = server.listed("?state=running").await;
    running.sort();
    let mut expected = vec![busy, kept];
    expected.sort();
    assert_eq!(running, expected);
    *server.node.available_pct.lock().unwrap() = Some(50);
    let (id, token) = (idle.parse().unwrap(), token(&idle));
    let shown = WakeAsk {
        access_token: Some(&token),
        ..ask(49983)
    };
    assert_eq!(server.control.wake(&id, shown).await, Wake::Running);
}

fn token(id: &str) -> String {
    let key = warren_service::Secret::new(crate::server::TOKEN_KEY.to_owned());
    let token = warren_cluster::token::access(&key, &id.parse().unwrap());
    token.expose().to_owned()
}
