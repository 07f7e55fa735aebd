//! What is shown and done while a pause is under way: sections 7 and 10 to 12 of the API
//! contract.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use warren_cluster::NodeError;
use warren_control::{Wake, WakeAsk};
use warren_service::Tasks;
use warren_types::{SandboxId, SandboxState};

use crate::server::{Answer, Server, ahead, is_about};

/// A sandbox whose pause has begun and waits for a permit of the node.
async fn pausing(server: &Arc<Server>, new: Value, how: Value) -> (SandboxId, JoinHandle<Answer>) {
    server.node.pauses.forget_permits(usize::MAX >> 4);
    let id = server.create(new).await;
    let path = format!("/sandboxes/{id}/pause");
    let asking = Arc::clone(server);
    let answer = Tasks::new().spawn(async move { asking.post(&path, how).await });
    let id: SandboxId = id.parse().unwrap();
    server.node.until(&id, SandboxState::Pausing).await;
    (id, answer)
}

fn finish(server: &Server) {
    server.node.pauses.add_permits(1);
}

async fn shown(server: &Server, id: &SandboxId) -> Value {
    server.get(&format!("/sandboxes/{id}")).await.expect(200)
}

#[tokio::test]
async fn it_is_shown_as_paused_from_the_beginning() {
    let server = Arc::new(Server::start().await);
    let other = server.create(json!({})).await;
    let (id, answer) = pausing(&server, json!({"timeout": 600}), json!({})).await;
    let during = shown(&server, &id).await;
    assert_eq!(during["state"], "paused");
    assert_eq!(during.get("pauseMode"), None, "not before it has finished");
    let listed = [id.to_string()];
    assert_eq!(server.listed("?state=paused").await, listed);
    assert_eq!(server.listed("?state=running").await, [other]);
    let page = server.get("/v2/sandboxes?state=running").await;
    assert_eq!(page.header("x-total-running"), Some("1"));
    let first = server.get("/sandboxes").await.expect(200);
    assert_eq!(first.as_array().unwrap().len(), 1);
    for (call, body) in [("timeout", json!({"timeout": 9})), ("refreshes", json!({}))] {
        let told = server.post(&format!("/sandboxes/{id}/{call}"), body).await;
        assert_eq!(told.error(409), format!("Sandbox \"{id}\" is being paused"));
    }

    finish(&server);
    answer.await.unwrap().expect(204);
    let after = shown(&server, &id).await;
    assert_eq!(
        (&after["state"], &after["pauseMode"]),
        (&json!("paused"), &json!("full"))
    );
    assert!(ahead(&after["endAt"]) <= 0);
}

#[tokio::test]
async fn one_that_fails_leaves_it_shown_as_it_was() {
    let server = Arc::new(Server::start().await);
    let (id, answer) = pausing(&server, json!({"timeout": 600}), json!({})).await;
    assert_eq!(shown(&server, &id).await["state"], "paused");
    *server.node.refusal.lock().unwrap() = Some(NodeError::AgentSilent(id.clone()));
    finish(&server);
    answer.await.unwrap().error(503);
    let after = shown(&server, &id).await;
    assert_eq!(after["state"], "running");
    assert!(is_about(&after["endAt"], 600));
}

#[tokio::test]
async fn nothing_of_it_is_left_when_the_server_dies_meanwhile() {
    let server = Arc::new(Server::start().await);
    let (id, answer) = pausing(&server, json!({"timeout": 600}), json!({})).await;
    // What it does ends where it stands.
    server.node.pauses.close();
    answer.await.unwrap().error(500);
    let server = Arc::into_inner(server).unwrap().restart().await;
    assert_eq!(shown(&server, &id).await["state"], "running");
    assert_eq!(server.listed("?state=running").await, [id.to_string()]);
}

#[tokio::test]
async fn a_connect_and_traffic_wait_for_it_and_resume_once() {
    let server = Arc::new(Server::start().await);
    let wakes = json!({"autoPause": true, "autoResume": {"enabled": true}, "timeout": 600});
    let (id, answer) = pausing(&server, wakes, json!({})).await;
    let (control, woken) = (Arc::clone(&server.control), id.clone());
    let ask = WakeAsk {
        port: 8000,
        access_token: None,
        traffic_token: None,
    };
    let wake = Tasks::new().spawn(async move { control.wake(&woken, ask).await });
    let asking = Arc::clone(&server);
    let path = format!("/v2/sandboxes/{id}/connect");
    let connect = Tasks::new().spawn(async move { asking.post(&path, json!({})).await });
    tokio::task::yield_now().await;
    assert_eq!(shown(&server, &id).await["state"], "paused");
    finish(&server);
    answer.await.unwrap().expect(204);
    assert_eq!(wake.await.unwrap(), Wake::Running);
    let connected = connect.await.unwrap();
    assert!(
        matches!(connected.status.as_u16(), 200 | 201),
        "{connected:?}"
    );
    assert_eq!(*server.node.resumes.lock().unwrap(), 1);
    assert_eq!(shown(&server, &id).await["state"], "running");
}

#[tokio::test]
async fn traffic_does_not_resume_what_turns_out_to_be_files_only() {
    let server = Arc::new(Server::start().await);
    let wakes = json!({"autoPause": true, "autoResume": {"enabled": true}});
    let (id, answer) = pausing(&server, wakes, json!({"memory": false})).await;
    let (control, woken) = (Arc::clone(&server.control), id.clone());
    let ask = WakeAsk {
        port: 8000,
        access_token: None,
        traffic_token: None,
    };
    let wake = Tasks::new().spawn(async move { control.wake(&woken, ask).await });
    tokio::task::yield_now().await;
    finish(&server);
    answer.await.unwrap().expect(204);
    assert_eq!(wake.await.unwrap(), Wake::NotFound);
    assert_eq!(shown(&server, &id).await["pauseMode"], "filesystem");
}
