//! The gateway before real processes, over HTTP.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like tests"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use warren_mcp_gateway::{Launch, LaunchError, serve};
use warren_service::{Chain, Secret, Tasks};

const SERVER: &str = include_str!("server.py");
const TOKEN: &str = "the token";

struct World {
    address: SocketAddr,
    _tasks: Tasks,
    _dir: TempDir,
}

struct Reply {
    status: u16,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Repositories that are cloned already, with a server in each.
fn repositories(names: &[&str]) -> (TempDir, Launch) {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch {
        logs: dir.path().join("logs"),
        repositories: dir.path().to_owned(),
    };
    for name in names {
        let clone = dir.path().join("o").join(name);
        std::fs::create_dir_all(&clone).unwrap();
        std::fs::write(clone.join("server.py"), SERVER).unwrap();
    }
    (dir, launch)
}

async fn started(config: Value, names: &[&str]) -> World {
    let (dir, launch) = repositories(names);
    let tasks = Tasks::new();
    let gateway = launch.start(&config.to_string(), &tasks).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = Arc::new(Secret::new(TOKEN.to_owned()));
    tasks.spawn(serve(listener, Arc::new(gateway), token, tasks.clone()));
    World {
        address,
        _tasks: tasks,
        _dir: dir,
    }
}

async fn failed(config: Value, names: &[&str]) -> String {
    let (_dir, launch) = repositories(names);
    let tasks = Tasks::new();
    let error: LaunchError = launch.start(&config.to_string(), &tasks).await.unwrap_err();
    Chain(&error).to_string()
}

impl World {
    async fn send(&self, head: &str, body: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Reply {
            status: head[9..12].parse().unwrap(),
            body: body.to_owned(),
        }
    }

    async fn post(&self, message: &Value) -> Reply {
        let head = format!("POST /mcp HTTP/1.1\r\nAuthorization: Bearer {TOKEN}");
        self.send(&head, &message.to_string()).await
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        let message = json!({"jsonrpc": "2.0", "id": "a", "method": method, "params": params});
        let answer = self.post(&message).await.json();
        assert_eq!(answer["id"], "a");
        answer
    }
}

fn two() -> Value {
    json!({
        "github/o/one": {"runCmd": "python3 server.py one add exit", "envs": {"WORD": "w"}},
        "github/o/two": {"run_cmd": "python3 server.py two add sub"},
    })
}

#[tokio::test]
async fn two_servers_are_one() {
    let world = started(two(), &["one", "two"]).await;
    let about = world
        .call("initialize", json!({"protocolVersion": "2025-03-26"}))
        .await;
    assert_eq!(about["result"]["protocolVersion"], "2025-03-26");
    let capabilities = json!({"tools": {}, "resources": {}});
    assert_eq!(about["result"]["capabilities"], capabilities);
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(world.post(&initialized).await.status, 202);

    // Called before anything was listed.
    let added = world
        .call("tools/call", json!({"name": "add", "arguments": {}}))
        .await;
    assert_eq!(added["result"]["content"][0]["text"], "one ran add with w");
    let tools = world.call("tools/list", json!({})).await;
    let names = tools["result"]["tools"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["add", "exit", "github_o_two_add", "sub"]);
    let other = world
        .call("tools/call", json!({"name": "github_o_two_add"}))
        .await;
    assert_eq!(
        other["result"]["content"][0]["text"],
        "two ran add with None"
    );
    let none = world.call("tools/call", json!({"name": "nothing"})).await;
    assert_eq!(none["error"]["code"], -32602);

    let listed = world.call("resources/list", json!({})).await;
    assert_eq!(listed["result"]["resources"].as_array().unwrap().len(), 2);
    for uri in ["x://two", "x://two/unlisted"] {
        let read = world.call("resources/read", json!({"uri": uri})).await;
        assert_eq!(read["result"]["contents"][0]["text"], "two", "{uri}");
    }
    let missing = world.call("resources/read", json!({"uri": "y://"})).await;
    assert_eq!(missing["error"]["message"], "Resource not found");
}

#[tokio::test]
async fn fields_that_it_does_not_know_pass_as_they_are() {
    let world = started(two(), &["one", "two"]).await;
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "sub"},
    });
    let body = world.post(&message).await.body;
    assert!(body.contains("\"unknown\": 1.5}"), "{body}");
    assert!(
        body.starts_with(r#"{"jsonrpc":"2.0","id":1,"result":"#),
        "{body}"
    );
}

#[tokio::test]
async fn a_server_that_ends_takes_nothing_with_it() {
    let world = started(two(), &["one", "two"]).await;
    for _ in 0..2 {
        let ended = world.call("tools/call", json!({"name": "exit"})).await;
        let message = ended["error"]["message"].as_str().unwrap();
        assert!(message.contains("github/o/one"), "{message}");
    }
    let sub = world.call("tools/call", json!({"name": "sub"})).await;
    assert_eq!(sub["result"]["content"][0]["text"], "two ran sub with None");
}

#[tokio::test]
async fn what_is_no_message_and_who_has_no_token() {
    let world = started(two(), &["one", "two"]).await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    for head in [
        "POST /mcp HTTP/1.1",
        "POST /mcp HTTP/1.1\r\nAuthorization: Bearer wrong",
        "POST /mcp HTTP/1.1\r\nAuthorization: the token",
    ] {
        assert_eq!(world.send(head, &ping.to_string()).await.status, 401);
    }
    let bearer = format!("HTTP/1.1\r\nAuthorization: bearer {TOKEN}");
    assert_eq!(
        world.send(&format!("GET /mcp {bearer}"), "").await.status,
        405
    );
    assert_eq!(
        world.send(&format!("POST /x {bearer}"), "").await.status,
        404
    );
    let broken = world.send(&format!("POST /mcp {bearer}"), "{").await;
    assert_eq!(broken.status, 400);
    let batch = json!([ping, {"jsonrpc": "2.0", "method": "notifications/x"}]);
    assert_eq!(world.post(&batch).await.json().as_array().unwrap().len(), 1);
    assert_eq!(world.post(&json!([])).await.status, 400);
    let unknown = world.call("no/such", json!({})).await;
    assert_eq!(unknown["error"]["code"], -32601);
}

#[tokio::test]
async fn a_failure_names_the_server_and_what_it_said() {
    let broken = |settings: Value| json!({ "github/o/one": settings });
    let ends = broken(json!({"runCmd": "echo it is broken >&2; exit 3"}));
    let told = failed(ends, &["one"]).await;
    assert!(told.contains("github/o/one"), "{told}");
    assert!(told.contains("it is broken"), "{told}");
    let install = json!({"runCmd": "true", "installCmd": "echo no compiler >&2; false"});
    let told = failed(broken(install), &["one"]).await;
    assert!(
        told.contains("github/o/one") && told.contains("no compiler"),
        "{told}"
    );
    let told = failed(json!({"sonarqube": {}}), &[]).await;
    assert!(told.contains("\"sonarqube\" can't be had here"), "{told}");
}

#[tokio::test]
async fn what_a_repository_needs_is_installed_before_it_runs() {
    let install = "python3 -c \"print(open('server.py').read())\" > made.py";
    let config = json!({
        "github/o/one": {"installCmd": install, "runCmd": "python3 made.py one add"},
    });
    let world = started(config, &["one"]).await;
    let added = world.call("tools/call", json!({"name": "add"})).await;
    assert_eq!(
        added["result"]["content"][0]["text"],
        "one ran add with None"
    );
}
