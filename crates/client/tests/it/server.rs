//! A server with the answers of the contract's examples.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use serde_json::{Value, json};

type Stored = Arc<Mutex<BTreeMap<String, Bytes>>>;

pub(crate) struct FakeServer;

impl FakeServer {
    /// Starts one that lives as long as the test's runtime. Returns its URL.
    pub(crate) async fn start() -> String {
        let app = Router::new()
            .route("/v2/sandboxes", post(create))
            .route("/sandboxes/{id}", delete(kill))
            .route("/process.Process/Start", post(start))
            .route("/filesystem.Filesystem/{method}", post(filesystem))
            .route("/files", post(write).get(read))
            .with_state(Stored::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "the test's runtime owns the server and ends it"
        )]
        tokio::task::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }
}

fn refused(status: StatusCode, message: &str) -> Response {
    let body = json!({ "code": status.as_u16(), "message": message });
    (status, axum::Json(body)).into_response()
}

async fn create(headers: HeaderMap) -> Response {
    if headers.get("x-api-key").is_none_or(|key| key != "e2b_key") {
        return refused(StatusCode::UNAUTHORIZED, "bad key");
    }
    let body = json!({
        "templateID": "t", "sandboxID": "isandbox1", "clientID": "c", "envdVersion": "0.6.13",
        "envdAccessToken": "agent-token", "trafficAccessToken": null,
        "domain": "warren.example", "aFieldOfTomorrow": {},
    });
    (StatusCode::CREATED, axum::Json(body)).into_response()
}

async fn kill(Path(id): Path<String>) -> Response {
    if id == "isandbox1" {
        StatusCode::NO_CONTENT.into_response()
    } else {
        refused(StatusCode::NOT_FOUND, "no such sandbox")
    }
}

fn reaches_agent(headers: &HeaderMap) -> bool {
    let expected = [
        ("e2b-sandbox-id", "isandbox1"),
        ("e2b-sandbox-port", "49983"),
        ("x-access-token", "agent-token"),
    ];
    expected
        .iter()
        .all(|(name, value)| headers.get(*name).is_some_and(|got| got == value))
}

fn envelope(flags: u8, message: &Value) -> Vec<u8> {
    let payload = message.to_string();
    let mut bytes = vec![flags];
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload.as_bytes());
    bytes
}

fn event(event: &Value) -> Vec<u8> {
    envelope(0, &json!({ "event": event }))
}

async fn start(headers: HeaderMap, body: Bytes) -> Response {
    if !reaches_agent(&headers) {
        return refused(StatusCode::UNAUTHORIZED, "no token");
    }
    let request: Value = serde_json::from_slice(&body[5..]).unwrap();
    let line = request.pointer("/process/args/2").unwrap();
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    let mut stream = event(&json!({ "start": { "pid": 7 } }));
    match line.as_str().unwrap() {
        "talk" => {
            assert_eq!(header("authorization"), Some("Basic cm9vdDo="));
            assert_eq!(header("connect-timeout-ms"), None);
            stream.extend(event(&json!({ "keepalive": {} })));
            stream.extend(event(&json!({ "data": { "stdout": "b3V0" } })));
            stream.extend(event(&json!({ "data": { "stderr": "ZXJy" } })));
            let end = json!({ "exitCode": 3, "exited": true, "status": "exit status 3" });
            stream.extend(event(&json!({ "end": end })));
            stream.extend(envelope(2, &json!({})));
        }
        "late" => {
            assert_eq!(header("connect-timeout-ms"), Some("1500"));
            let error = json!({ "code": "deadline_exceeded", "message": "too late" });
            stream.extend(envelope(2, &json!({ "error": error })));
        }
        // Half an envelope.
        _ => stream.extend([0, 0, 0]),
    }
    ([("content-type", "application/connect+json")], stream).into_response()
}

async fn filesystem(Path(method): Path<String>) -> Response {
    let (status, code) = match method.as_str() {
        "Stat" => (StatusCode::NOT_FOUND, "not_found"),
        _ => (StatusCode::CONFLICT, "already_exists"),
    };
    (status, axum::Json(json!({ "code": code, "message": "m" }))).into_response()
}

async fn write(
    State(stored): State<Stored>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(
        headers.get("content-type").unwrap(),
        "application/octet-stream"
    );
    stored.lock().unwrap().insert(query["path"].clone(), body);
    axum::Json(json!([])).into_response()
}

async fn read(
    State(stored): State<Stored>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    match stored.lock().unwrap().get(&query["path"]) {
        Some(bytes) => Body::from(bytes.clone()).into_response(),
        None => refused(StatusCode::NOT_FOUND, "no such file"),
    }
}
