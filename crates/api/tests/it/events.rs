//! Lifecycle events, webhooks, and what clients of an ended sandbox are told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use warren_service::Secret;
use warren_types::EndReason;
use warren_webhook::{plain, timed};

use crate::server::Server;

const CREATED: &str = "sandbox.lifecycle.created";
const UPDATED: &str = "sandbox.lifecycle.updated";
const PAUSED: &str = "sandbox.lifecycle.paused";
const RESUMED: &str = "sandbox.lifecycle.resumed";
const CHECKPOINTED: &str = "sandbox.lifecycle.checkpointed";
const KILLED: &str = "sandbox.lifecycle.killed";

/// What came to a receiver, and what it answers.
#[derive(Debug, Default)]
struct Inbox {
    got: Mutex<Vec<(HeaderMap, Bytes)>>,
    /// Statuses of the next answers; then 200.
    answers: Mutex<Vec<u16>>,
}

impl Inbox {
    async fn start() -> (Arc<Self>, String) {
        let inbox = Arc::<Self>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/hook", post(take))
            .with_state(Arc::clone(&inbox));
        // It goes with the test's runtime.
        warren_service::Tasks::new().spawn(async move { axum::serve(listener, app).await });
        (inbox, url)
    }

    async fn wait(&self, count: usize) -> Vec<(HeaderMap, Value)> {
        for _ in 0..500 {
            let got = self.got.lock().unwrap().clone();
            if got.len() >= count {
                let parse = |(headers, body): (HeaderMap, Bytes)| {
                    (headers, serde_json::from_slice(&body).unwrap())
                };
                return got.into_iter().map(parse).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} of {count} came", self.got.lock().unwrap().len());
    }
}

async fn take(State(inbox): State<Arc<Inbox>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    inbox.got.lock().unwrap().push((headers, body));
    let mut answers = inbox.answers.lock().unwrap();
    let status = if answers.is_empty() {
        200
    } else {
        answers.remove(0)
    };
    StatusCode::from_u16(status).unwrap()
}

fn types(events: &Value) -> Vec<&str> {
    let events = events.as_array().unwrap().iter();
    events
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

async fn webhook(server: &Server, url: &str, events: &[&str]) -> Value {
    let body = json!({"name": "w", "url": url, "events": events, "signatureSecret": "s3"});
    server.post("/events/webhooks", body).await.expect(201)
}

#[tokio::test]
async fn the_life_of_a_sandbox_is_listed() {
    let server = Server::start().await;
    let id = server.create(json!({"metadata": {"a": "b"}})).await;
    let path = format!("/sandboxes/{id}");
    server
        .post(&format!("{path}/timeout"), json!({"timeout": 9}))
        .await
        .expect(204);
    server
        .put(&format!("{path}/network"), json!({}))
        .await
        .expect(204);
    server
        .post(&format!("{path}/snapshots"), json!({}))
        .await
        .expect(201);
    server
        .post(&format!("{path}/pause"), json!({}))
        .await
        .expect(204);
    server
        .post(&format!("/v2{path}/connect"), json!({}))
        .await
        .expect(201);
    server.delete(&path).await.expect(204);
    let other = server.create(json!({})).await;

    let events = server
        .get(&format!("/events/sandboxes/{id}?orderAsc=true"))
        .await
        .expect(200);
    let all = [
        CREATED,
        UPDATED,
        UPDATED,
        CHECKPOINTED,
        PAUSED,
        RESUMED,
        KILLED,
    ];
    assert_eq!(types(&events), all);
    let first = &events[0];
    assert_eq!(first["version"], "v2");
    assert_eq!(first["sandboxId"], id.as_str());
    assert_eq!(first["sandboxTeamId"], server.team.id.to_string());
    assert_eq!(first["eventData"], json!({"sandbox_metadata": {"a": "b"}}));
    for field in [
        "id",
        "timestamp",
        "sandboxExecutionId",
        "sandboxTemplateId",
        "sandboxBuildId",
    ] {
        assert!(first[field].is_string(), "{field}");
    }
    let killed = &events[6]["eventData"];
    assert_eq!(killed["reason"], "killed");
    assert!(killed["execution"]["started_at"].is_string());
    assert_eq!(killed["execution"]["vcpu_count"], 2);

    let newest = server.get("/events/sandboxes?limit=2").await.expect(200);
    assert_eq!(types(&newest), [CREATED, KILLED]);
    assert_eq!(newest[0]["sandboxId"], other.as_str());
    let next = server
        .get("/events/sandboxes?limit=1&offset=1")
        .await
        .expect(200);
    assert_eq!(next[0], newest[1]);
    let some = format!("/events/sandboxes?types={PAUSED}&types={RESUMED},{KILLED}");
    assert_eq!(
        types(&server.get(&some).await.expect(200)),
        [KILLED, RESUMED, PAUSED]
    );
    for bad in [
        "limit=0",
        "limit=101",
        "offset=-1",
        "types=x",
        "orderAsc=maybe",
    ] {
        server
            .get(&format!("/events/sandboxes?{bad}"))
            .await
            .error(400);
    }
    let stranger = server.other_key().await;
    let path = format!("/events/sandboxes/{id}");
    let foreign = server
        .call_as(&stranger, "GET", &path, None)
        .await
        .expect(200);
    assert_eq!(foreign, json!([]));
}

#[tokio::test]
async fn a_webhook_is_made_changed_and_deleted() {
    let server = Server::start().await;
    let made = webhook(&server, "http://example.com/a", &[CREATED, KILLED, CREATED]).await;
    assert_eq!(made.get("signatureSecret"), None, "the client has it");
    assert_eq!(made["events"], json!([CREATED, KILLED]));
    assert_eq!(
        (&made["enabled"], &made["name"]),
        (&json!(true), &json!("w"))
    );
    let path = format!("/events/webhooks/{}", made["id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.expect(200), made);
    assert_eq!(
        server.get("/events/webhooks").await.expect(200),
        json!([made])
    );
    let change = json!({"enabled": false, "url": "https://example.com/b"});
    let changed = server.patch(&path, change).await.expect(200);
    assert_eq!(changed["enabled"], false);
    assert_eq!(changed["url"], "https://example.com/b");
    assert_eq!(changed["events"], made["events"]);
    assert_eq!(server.get(&path).await.expect(200), changed);

    let stranger = server.other_key().await;
    for (method, body) in [("GET", None), ("PATCH", Some(json!({}))), ("DELETE", None)] {
        let answer = server.call_as(&stranger, method, &path, body).await;
        assert_eq!(answer.error(404), "Webhook not found");
    }
    let foreign = server
        .call_as(&stranger, "GET", &format!("{path}/deliveries"), None)
        .await;
    foreign.error(404);
    server.delete(&path).await.expect(204);
    server.delete(&path).await.error(404);
    server.get(&path).await.error(404);
    server.get("/events/webhooks/x").await.error(400);

    let body = json!({"name": "w", "url": "http://example.com", "events": [KILLED]});
    let generated = server.post("/events/webhooks", body).await.expect(201);
    assert!(generated["signatureSecret"].as_str().unwrap().len() > 32);
    let path = format!("/events/webhooks/{}", generated["id"].as_str().unwrap());
    let shown = server.get(&path).await.expect(200);
    assert_eq!(shown.get("signatureSecret"), None, "told once");
}

#[tokio::test]
async fn bad_webhooks_are_refused() {
    let server = Server::start().await;
    let good = json!({"name": "w", "url": "http://example.com", "events": [KILLED]});
    let bad = [
        ("name", json!("")),
        ("name", json!("x".repeat(129))),
        ("url", json!("ftp://example.com")),
        ("url", json!("http://a:b@example.com")),
        ("events", json!([])),
        ("events", json!(["sandbox.lifecycle.exploded"])),
        ("signatureSecret", json!("")),
        ("signatureSecret", json!("x".repeat(257))),
    ];
    for (field, value) in bad {
        let mut body = good.clone();
        body[field] = value;
        let message = server.post("/events/webhooks", body).await.error(400);
        assert!(message.starts_with("validation error"), "{message}");
    }
    for _ in 0..20 {
        server
            .post("/events/webhooks", good.clone())
            .await
            .expect(201);
    }
    let full = server.post("/events/webhooks", good).await;
    assert_eq!(full.header("should-retry"), Some("false"));
    full.error(429);
}

#[tokio::test]
async fn events_are_delivered_signed_and_again_until_they_are_taken() {
    let server = Server::start().await;
    let (inbox, url) = Inbox::start().await;
    inbox.answers.lock().unwrap().extend([500, 302]);
    let hook = webhook(&server, &url, &[KILLED]).await;
    let id = server.create(json!({})).await;
    server.delete(&format!("/sandboxes/{id}")).await.expect(204);
    let got = inbox.wait(3).await;
    let (headers, event) = &got[0];
    assert_eq!(
        (&event["type"], &event["sandboxId"]),
        (&json!(KILLED), &json!(id))
    );
    let (secret, body) = (
        Secret::new("s3".to_owned()),
        inbox.got.lock().unwrap()[0].1.clone(),
    );
    assert_eq!(headers["e2b-signature"], plain(&secret, &body));
    let signature = headers["warren-signature"].to_str().unwrap();
    let at = signature[2..].split(',').next().unwrap().parse().unwrap();
    assert_eq!(signature, timed(&secret, at, &body));
    assert_eq!(headers["e2b-webhook-id"], hook["id"].as_str().unwrap());
    let delivery = headers["e2b-delivery-id"].clone();
    assert!(
        got.iter()
            .all(|(headers, body)| { headers["e2b-delivery-id"] == delivery && body == event })
    );

    let path = format!(
        "/events/webhooks/{}/deliveries",
        hook["id"].as_str().unwrap()
    );
    let mut history = json!([]);
    for _ in 0..500 {
        history = server.get(&path).await.expect(200);
        if history[0]["status"] == "delivered" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let [only] = history.as_array().unwrap().as_slice() else {
        panic!("{history}");
    };
    assert_eq!(only["status"], "delivered");
    assert_eq!(only["id"], delivery.to_str().unwrap());
    assert_eq!(only["eventId"], event["id"]);
    let codes: Vec<_> = only["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| &a["statusCode"])
        .collect();
    assert_eq!(codes, [&json!(500), &json!(302), &json!(200)]);
    assert_eq!(only["attempts"][0]["error"], "the answer was 500");
    assert_eq!(only.get("nextAttemptAt"), None);
}

#[tokio::test]
async fn a_receiver_that_never_takes_an_event_is_given_up() {
    let server = Server::start().await;
    let (inbox, url) = Inbox::start().await;
    inbox.answers.lock().unwrap().extend([503; 4]);
    let hook = webhook(&server, &url, &[CREATED]).await;
    server.create(json!({})).await;
    inbox.wait(4).await;
    let path = format!(
        "/events/webhooks/{}/deliveries",
        hook["id"].as_str().unwrap()
    );
    for _ in 0..500 {
        if server.get(&path).await.expect(200)[0]["status"] == "failed" {
            assert_eq!(inbox.got.lock().unwrap().len(), 4);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never given up");
}

#[tokio::test]
async fn what_waits_is_delivered_by_the_next_server_and_after_switching_on() {
    let server = Server::start().await;
    let (inbox, url) = Inbox::start().await;
    let hook = webhook(&server, &url, &[CREATED, KILLED]).await;
    let path = format!("/events/webhooks/{}", hook["id"].as_str().unwrap());
    // Nothing is listening yet where it leads.
    let nowhere = json!({"url": "http://127.0.0.1:1/"});
    server.patch(&path, nowhere).await.expect(200);
    let id = server.create(json!({})).await;
    server
        .patch(&path, json!({"enabled": false}))
        .await
        .expect(200);
    let server = server.restart().await;
    server.delete(&format!("/sandboxes/{id}")).await.expect(204);
    server
        .patch(&path, json!({"enabled": true, "url": url}))
        .await
        .expect(200);
    let got = inbox.wait(1).await;
    assert_eq!(
        got[0].1["type"], CREATED,
        "what happened while it was off is not for it"
    );
}

#[tokio::test]
async fn clients_of_an_ended_sandbox_are_told_why() {
    let server = Server::start().await;
    let end = |reason: EndReason| {
        let server = &server;
        async move {
            let id = server.create(json!({})).await;
            server.node.die(&id.parse().unwrap(), reason).await;
            let path = format!("/sandboxes/{id}");
            server.until(&path, 404).await;
            let body = server.get(&path).await.expect(404);
            let known = server.control.recent_end(&id.parse().unwrap());
            let events = server
                .get(&format!("/events/sandboxes/{id}"))
                .await
                .expect(200);
            assert_eq!(events[0]["eventData"]["reason"], reason.as_str());
            (id, body, known, events)
        }
    };
    for (reason, code) in [
        (EndReason::Killed, "sandbox_killed"),
        (EndReason::TimedOut, "sandbox_timed_out"),
    ] {
        let (id, body, known, _) = end(reason).await;
        let text = format!("Sandbox \"{id}\" doesn't exist or you don't have access to it");
        assert_eq!(
            body,
            json!({"code": 404, "message": text, "error_code": code})
        );
        assert_eq!(known, None);
    }
    let (id, body, known, events) = end(EndReason::OutOfMemory).await;
    let text = format!(
        "Sandbox \"{id}\" doesn't exist or you don't have access to it: it ran out of memory \
         (it used 512 MiB)"
    );
    assert_eq!(
        body,
        json!({"code": 404, "message": text, "error_code": "sandbox_out_of_memory"})
    );
    assert_eq!(known.unwrap().reason, EndReason::OutOfMemory);
    assert_eq!(events[0]["eventData"]["memory_peak_bytes"], 512 << 20);
    let stranger = server.other_key().await;
    let foreign = server
        .call_as(&stranger, "GET", &format!("/sandboxes/{id}"), None)
        .await;
    let text = format!("Sandbox \"{id}\" doesn't exist or you don't have access to it");
    assert_eq!(foreign.expect(404), json!({"code": 404, "message": text}));
}

#[tokio::test]
async fn past_what_is_kept_they_are_forgotten() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    server.delete(&format!("/sandboxes/{id}")).await.expect(204);
    let path = format!("/events/sandboxes/{id}");
    let count = || async {
        let told = server.get(&path).await.expect(200);
        told.as_array().unwrap().len()
    };
    assert_eq!(count().await, 2);
    let day = Duration::from_secs(24 * 3600);
    for (days, left) in [(6, 2), (8, 0)] {
        let later = jiff::Timestamp::now() + day * days;
        server.control.purge(later).await.unwrap();
        assert_eq!(count().await, left, "after {days} days");
    }
}
