//! Making, listing, restarting and removing contexts.

use std::os::unix::process::CommandExt;

use serde_json::{Value, json};

use crate::client::{error, stdout};
use crate::server::{self, Server};

async fn list(server: &Server) -> Vec<Value> {
    let (status, body) = server.client.get("/contexts").await;
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn defaults_come_first_and_new_contexts_last() {
    let server = server::start().await;
    let cwd = server.dir.path().to_str().unwrap().to_owned();
    let id = server
        .client
        .context(&json!({"language": " JS ", "cwd": cwd}))
        .await;
    let contexts = list(&server).await;
    let languages: Vec<_> = contexts
        .iter()
        .map(|context| &context["language"])
        .collect();
    assert_eq!(languages, ["python", "javascript", "javascript"]);
    assert_eq!(
        contexts[2],
        json!({"id": id, "language": "javascript", "cwd": cwd})
    );
    let cell = server
        .client
        .start(&json!({"code": "cwd", "context_id": id}))
        .await;
    assert_eq!(stdout(&cell.rest().await), cwd);
}

#[tokio::test]
async fn only_pythons_kernel_runs_before_it_is_asked_for() {
    let server = server::start().await;
    let kernels = || {
        let files = std::fs::read_dir(server.dir.path().join("run")).unwrap();
        let is_record = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".pid");
        files
            .filter(|file| is_record(&file.as_ref().unwrap().file_name()))
            .count()
    };
    assert_eq!((list(&server).await.len(), kernels()), (2, 1));
    let body = json!({"code": "print x", "language": "javascript"});
    assert_eq!(
        stdout(&server.client.start(&body).await.rest().await),
        "x\n"
    );
    assert_eq!((list(&server).await.len(), kernels()), (2, 2));
}

#[tokio::test]
async fn two_first_requests_for_a_language_make_one_context() {
    let server = server::start().await;
    let body = json!({"code": "pid", "language": "Forth"});
    let (one, two) = tokio::join!(server.client.start(&body), server.client.start(&body));
    let (one, two) = tokio::join!(one.rest(), two.rest());
    assert_eq!(stdout(&one), stdout(&two));
    assert_eq!(list(&server).await.len(), 3);
}

#[tokio::test]
async fn typescript_runs_in_the_default_javascript_context() {
    let server = server::start().await;
    for language in ["javascript", "js", "ts", "typescript"] {
        let cell = server
            .client
            .start(&json!({"code": "print x", "language": language}))
            .await;
        assert_eq!(stdout(&cell.rest().await), "x\n");
    }
    assert_eq!(list(&server).await.len(), 2);
}

#[tokio::test]
async fn a_restart_ends_the_cell_and_keeps_the_context() {
    let server = server::start().await;
    let id = server.client.context(&json!({})).await;
    // It takes no notice of interrupts.
    let body = json!({"code": "stuck", "context_id": id});
    let mut cell = server.client.start(&body).await;
    cell.until("number_of_executions").await;
    let queued = server
        .client
        .start(&json!({"code": "print queued", "context_id": id}))
        .await;
    let path = format!("/contexts/{id}/restart");
    assert_eq!(
        server.client.post(&path, &Value::Null).await,
        (200, "null".to_owned())
    );
    let lines = cell.rest().await;
    assert_eq!(error(&lines)["name"], "ContextRestarting");
    assert_eq!(error(&lines)["value"], "Context was restarted");
    let lines = queued.rest().await;
    assert_eq!(lines[0]["execution_count"], 1);
    assert_eq!(stdout(&lines), "queued\n");
    assert_eq!(list(&server).await[2]["id"], id);
}

#[tokio::test]
async fn a_removed_context_is_gone_and_its_cells_are_aborted() {
    let server = server::start().await;
    let id = server.client.context(&json!({})).await;
    let body = json!({"code": "stuck", "context_id": id});
    let mut running = server.client.start(&body).await;
    running.until("number_of_executions").await;
    let waiting = server.client.start(&body).await;
    let path = format!("/contexts/{id}");
    assert_eq!(server.client.delete(&path).await, (200, "null".to_owned()));
    for cell in [running, waiting] {
        assert_eq!(error(&cell.rest().await)["name"], "ExecutionAborted");
    }
    assert_eq!(list(&server).await.len(), 2);
    let missing = (404, "Context ID not found".to_owned());
    assert_eq!(server.client.post("/execute", &body).await, missing);
    assert_eq!(server.client.delete(&path).await, missing);
    assert_eq!(
        server
            .client
            .post(&format!("{path}/restart"), &Value::Null)
            .await,
        missing
    );
}

#[tokio::test]
async fn a_removed_default_context_is_made_anew() {
    let server = server::start().await;
    let id = list(&server).await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        server.client.delete(&format!("/contexts/{id}")).await.0,
        200
    );
    assert_eq!(stdout(&server.client.run("print x").await), "x\n");
    assert_eq!(list(&server).await.len(), 2);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let server = server::start().await;
    let body = json!({"code": "", "language": "python", "context_id": "x"});
    assert_eq!(
        server.client.post("/execute", &body).await,
        (
            400,
            "Only one of context_id or language can be provided".to_owned()
        )
    );
    for (path, body) in [
        ("/execute", json!({"code": "", "language": "cobol"})),
        ("/contexts", json!({"language": "cobol"})),
    ] {
        let (status, text) = server.client.post(path, &body).await;
        assert_eq!(status, 500);
        assert!(text.contains("cobol"), "{text}");
    }
    let (status, text) = server
        .client
        .post("/contexts", &json!({"cwd": "/no/such/dir"}))
        .await;
    assert_eq!(status, 500);
    assert!(text.contains("/no/such/dir"), "{text}");
    assert_eq!(server.client.post("/execute", &json!({})).await.0, 422);
    assert_eq!(server.client.get("/execute").await.0, 405);
    assert_eq!(server.client.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn a_kernel_that_does_not_start_tells_why() {
    let server = server::start().await;
    let dir = server.dir.path().join("jupyter/kernels/broken");
    std::fs::create_dir_all(&dir).unwrap();
    let spec = json!({"argv": ["/bin/sh", "-c", "echo the reason >&2; exit 4"]});
    std::fs::write(dir.join("kernel.json"), spec.to_string()).unwrap();
    let (status, text) = server
        .client
        .post("/contexts", &json!({"language": "broken"}))
        .await;
    assert_eq!(status, 500);
    assert!(
        text.contains("exit status: 4") && text.contains("the reason"),
        "{text}"
    );
    assert_eq!(list(&server).await.len(), 2);
}

#[tokio::test]
async fn the_next_server_kills_the_kernels_that_one_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut left = std::process::Command::new("sleep")
        .arg("1000")
        .process_group(0)
        .spawn()
        .unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", left.id())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let started = fields.split_whitespace().nth(19).unwrap();
    std::fs::create_dir_all(dir.path().join("run/0")).unwrap();
    let record = format!("{} {started}", left.id());
    std::fs::write(dir.path().join("run/0.pid"), record).unwrap();
    // It was recorded, but is another process now: it stays.
    let mut other = std::process::Command::new("sleep")
        .arg("1000")
        .process_group(0)
        .spawn()
        .unwrap();
    std::fs::write(dir.path().join("run/1.pid"), format!("{} 1", other.id())).unwrap();
    warren_interpreter::kernel::RunDir::open(&dir.path().join("run")).unwrap();
    assert!(!left.wait().unwrap().success());
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(
        std::fs::read_dir(dir.path().join("run")).unwrap().count(),
        0
    );
}
