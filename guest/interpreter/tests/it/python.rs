//! The Python kernel of this directory, where a `python3` on the search path can run it.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::{error, stdout};
use crate::server::{self, Server};

/// A server with the real kernel; `None` where ipykernel is not installed.
async fn start() -> Option<Server> {
    let path = std::env::var("PATH").unwrap();
    let check = Command::new("python3")
        .env("PATH", &path)
        .args(["-c", "import ipykernel"])
        .output();
    if !check.is_ok_and(|output| output.status.success()) {
        let note = b"skipped: python3 has no ipykernel\n";
        std::io::stderr().write_all(note).unwrap();
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let kernels = dir.path().join("jupyter/kernels");
    std::fs::create_dir_all(&kernels).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/python");
    std::os::unix::fs::symlink(source, kernels.join("python3")).unwrap();
    Some(server::start_in(dir, path).await)
}

fn main_result(lines: &[Value]) -> &Value {
    lines
        .iter()
        .find(|line| line["is_main_result"] == true)
        .expect("a main result")
}

#[tokio::test]
async fn python_cells_have_values_state_output_and_errors() {
    let Some(server) = start().await else { return };
    let client = &server.client;
    assert_eq!(main_result(&client.run("x = 1; x").await)["text"], "1");
    assert_eq!(
        main_result(
            &client
                .run("await __import__('asyncio').sleep(0); x + 1")
                .await
        )["text"],
        "2"
    );
    let lines = client
        .run("print('a')\nimport sys; print('b', file=sys.stderr)")
        .await;
    assert_eq!(stdout(&lines), "a\n");
    assert!(
        lines
            .iter()
            .any(|line| line["type"] == "stderr" && line["text"] == "b\n")
    );
    let lines = client.run("def f():\n  xyz\nf()").await;
    assert_eq!(error(&lines)["name"], "NameError");
    let traceback = error(&lines)["traceback"].as_str().unwrap();
    assert!(
        traceback.contains("----> 2") && !traceback.contains('\u{1b}'),
        "{traceback}"
    );
    let result = client.run("{'a': [1, None], 2: float('nan')}").await;
    assert_eq!(
        main_result(&result)["json"],
        json!({"a": [1, null], "2": null})
    );
    let result = client.run("  list(range(1500))").await;
    assert!(
        main_result(&result)["text"]
            .as_str()
            .unwrap()
            .ends_with("1499]")
    );
    let result = client
        .run("class A:\n  def _repr_e2b_data_(self): return {'q': 1}\nA()")
        .await;
    assert_eq!(main_result(&result)["data"], json!({"q": 1}));
}

#[tokio::test]
async fn python_sees_variables_as_they_were_given() {
    let Some(server) = start().await else { return };
    let value = "q'\"$\\ \n\t é 😀 {x} %s !ls";
    server.agent.state.lock().unwrap().vars = [("G".to_owned(), "global".to_owned())].into();
    let code = "%time import os\nprint([os.environ.get(n) for n in ('A', 'G')]); 1/0";
    let body = json!({"code": code, "env_vars": {"A": value, "G": "mine"}});
    let lines = server.client.start(&body).await.rest().await;
    assert!(
        error(&lines)["traceback"]
            .as_str()
            .unwrap()
            .contains("line 2")
    );
    let body = json!({"code": "os.environ['A'] == VALUE", "env_vars": {"A": value}});
    let code = body["code"].as_str().unwrap().replace(
        "VALUE",
        &serde_json::to_string(value)
            .unwrap()
            .replace("\\ud83d\\ude00", "😀"),
    );
    let lines = server
        .client
        .start(&json!({"code": code, "env_vars": {"A": value}}))
        .await;
    assert_eq!(main_result(&lines.rest().await)["text"], "True");
    let lines = server
        .client
        .run("[os.environ.get(n) for n in ('A', 'G')]")
        .await;
    assert_eq!(main_result(&lines)["json"], json!([null, "global"]));
}

#[tokio::test]
async fn python_is_interrupted_when_the_client_leaves() {
    let Some(server) = start().await else { return };
    let mut cell = server
        .client
        .start(&json!({"code": "import time\ny = 5\nprint(y, flush=True)\ntime.sleep(300)"}))
        .await;
    cell.until("stdout").await;
    drop(cell);
    assert_eq!(main_result(&server.client.run("y").await)["text"], "5");
}

#[tokio::test]
async fn python_output_is_whole_and_in_order() {
    let Some(server) = start().await else { return };
    let code = "for i in range(200_000): print(i, 'x' * 40)";
    let lines = server.client.run(code).await;
    let text = stdout(&lines);
    let numbers = text
        .lines()
        .map(|line| line.split_once(' ').unwrap().0.parse::<u32>().unwrap());
    assert!(numbers.eq(0..200_000));
}

#[tokio::test]
async fn a_python_that_leaves_is_replaced_before_the_next_cell() {
    let Some(server) = start().await else { return };
    assert_eq!(
        main_result(&server.client.run("z = 1; z").await)["text"],
        "1"
    );
    server.client.run("exit()").await;
    let lines = server.client.run("'z' in globals()").await;
    assert_eq!(main_result(&lines)["text"], "False");
}
