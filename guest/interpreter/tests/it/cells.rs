//! Running cells: order, failures, clients that leave, kernels that end.

use serde_json::json;
use warren_interpreter::language::{seed, stir};

use crate::client::{error, stdout};
use crate::server;

/// What a new kernel runs first.
fn fresh() -> String {
    seed("python").to_owned() + stir("python")
}

#[tokio::test]
async fn a_cell_is_counted_prints_and_has_a_value() {
    let server = server::start().await;
    let lines = server.client.run("print a\nvalue 'b'").await;
    assert_eq!(
        lines[0],
        json!({"type": "number_of_executions", "execution_count": 1})
    );
    assert_eq!(lines[1]["text"], "a\n");
    assert_eq!(
        lines[2],
        json!({"type": "result", "is_main_result": true, "text": "b", "extra": {}})
    );
    assert_eq!(lines.len(), 3);
    assert_eq!(server.client.run("print c").await[0]["execution_count"], 2);
}

#[tokio::test]
async fn cells_of_a_context_run_in_the_order_of_their_arrival() {
    let server = server::start().await;
    let mut first = server.client.start(&json!({"code": "wait"})).await;
    first.until("number_of_executions").await;
    let mut waiting = Vec::new();
    for n in 0..20 {
        waiting.push(
            server
                .client
                .start(&json!({"code": format!("print {n}")}))
                .await,
        );
    }
    drop(first);
    for (n, cell) in waiting.into_iter().enumerate() {
        let lines = cell.rest().await;
        assert_eq!(lines[0]["execution_count"], n + 2);
        assert_eq!(stdout(&lines), format!("{n}\n"));
    }
}

#[tokio::test]
async fn contexts_do_not_wait_for_each_other() {
    let server = server::start().await;
    let id = server.client.context(&json!({})).await;
    let mut busy = server.client.start(&json!({"code": "wait"})).await;
    busy.until("number_of_executions").await;
    let other = server
        .client
        .start(&json!({"code": "print b", "context_id": id}))
        .await;
    assert_eq!(stdout(&other.rest().await), "b\n");
}

#[tokio::test]
async fn output_arrives_while_the_cell_runs() {
    let server = server::start().await;
    let mut cell = server.client.start(&json!({"code": "print a\nwait"})).await;
    assert_eq!(cell.until("stdout").await["text"], "a\n");
}

#[tokio::test]
async fn a_client_that_leaves_interrupts_its_cell_and_those_that_wait_with_it_never_run() {
    let server = server::start().await;
    let mut left = server.client.start(&json!({"code": "wait"})).await;
    left.until("number_of_executions").await;
    let waiting = server.client.start(&json!({"code": "print never"})).await;
    drop(waiting);
    drop(left);
    let lines = server.client.run("print next").await;
    assert_eq!(stdout(&lines), "next\n");
    assert_eq!(lines[0]["execution_count"], 2);
}

#[tokio::test]
async fn a_kernel_that_cannot_stop_a_left_cell_is_replaced() {
    let server = server::start().await;
    let body = json!({"code": "stuck", "language": "js"});
    let mut left = server.client.start(&body).await;
    left.until("number_of_executions").await;
    drop(left);
    let body = json!({"code": "print next", "language": "js"});
    let lines = server.client.start(&body).await.rest().await;
    assert_eq!(lines[0]["execution_count"], 1);
    assert_eq!(stdout(&lines), "next\n");
}

#[tokio::test]
async fn failures_that_only_the_answer_tells_are_told() {
    let server = server::start().await;
    let lines = server.client.run("fail why").await;
    assert_eq!(
        (&error(&lines)["name"], &error(&lines)["value"]),
        (&json!("Silent"), &json!("why"))
    );
    let lines = server.client.run("abort").await;
    assert_eq!(error(&lines)["name"], "ExecutionAborted");
    assert_eq!(error(&lines)["value"], "Execution was aborted");
}

#[tokio::test]
async fn a_kernel_that_ends_fails_its_cell_and_the_next_has_a_new_one() {
    let server = server::start().await;
    let lines = server.client.run("print before\nexit 3").await;
    assert_eq!(stdout(&lines), "before\n");
    assert_eq!(error(&lines)["name"], "ContextRestarting");
    assert_eq!(
        error(&lines)["value"],
        "Context was restarted: the kernel exited with code 3"
    );
    assert!(
        error(&lines)["traceback"]
            .as_str()
            .unwrap()
            .contains("last words")
    );
    let lines = server.client.run("print after").await;
    assert_eq!(lines[0]["execution_count"], 1);
    assert_eq!(stdout(&lines), "after\n");
}

#[tokio::test]
async fn a_killed_kernel_is_told_and_replaced() {
    let server = server::start().await;
    let lines = server.client.run("kill").await;
    let value = error(&lines)["value"].as_str().unwrap();
    assert!(value.contains("the kernel was killed"), "{value}");
    assert_eq!(stdout(&server.client.run("print after").await), "after\n");
}

#[tokio::test]
async fn much_output_arrives_whole_and_in_order_at_a_slow_reader() {
    const PIECES: usize = 400;
    let server = server::start().await;
    let mut cell = server
        .client
        .start(&json!({"code": format!("flood {PIECES}")}))
        .await;
    for n in 0..PIECES {
        if n % 50 == 0 {
            // Longer than it takes to fill every buffer on the way.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let line = cell.until("stdout").await;
        let text = line["text"].as_str().unwrap();
        assert_eq!(
            (&text[..8], text.len()),
            (format!("{n:08}").as_str(), 65_536)
        );
    }
    assert!(cell.rest().await.is_empty());
}

#[tokio::test]
async fn variables_are_set_before_a_cell_and_taken_away_after() {
    let server = server::start().await;
    server.agent.state.lock().unwrap().vars = [("G", "g"), ("B", "global")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let env = json!({"A": "1", "B": "2", "LANG": "x"});
    let cell = server
        .client
        .start(&json!({"code": "silent", "env_vars": env}))
        .await;
    let set =
        |name: &str, value: &str| format!("__import__('os').environ[\"{name}\"] = \"{value}\"\n");
    let before = [
        fresh(),
        set("A", "1"),
        set("B", "2"),
        set("G", "g"),
        set("LANG", "x"),
    ]
    .concat();
    assert_eq!(stdout(&cell.rest().await), before);
    // The sandbox's variables are asked for and set once.
    let after = [
        "__import__('os').environ.pop(\"A\", None)\n".to_owned(),
        set("B", "global"),
        set("LANG", "C.UTF-8"),
    ]
    .concat();
    assert_eq!(
        stdout(&server.client.run("silent").await),
        before.clone() + &after
    );
    assert_eq!(
        server.agent.state.lock().unwrap().tokens,
        [Some("the-token".to_owned())]
    );
}

#[tokio::test]
async fn a_new_kernel_gets_the_variables_again() {
    let server = server::start().await;
    server.agent.state.lock().unwrap().vars = [("G".to_owned(), "g".to_owned())].into();
    server.client.run("exit 1").await;
    let lines = server.client.run("silent").await;
    let set = "__import__('os').environ[\"G\"] = \"g\"\n";
    assert_eq!(stdout(&lines), fresh() + set);
}

#[tokio::test]
async fn a_copy_of_a_kernel_becomes_part_of_the_sandbox_that_it_is_in() {
    let server = server::start().await;
    let become_another = |id: &str, vars: &[(&str, &str)]| {
        std::fs::write(server.dir.path().join("id"), id).unwrap();
        let vars = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        server.agent.state.lock().unwrap().vars = vars.collect();
    };
    become_another("one", &[("A", "1"), ("B", "2"), ("C", "3")]);
    server.client.run("value 1").await;
    become_another("two", &[("A", "1"), ("B", "x")]);
    let os = "__import__('os').environ";
    let moved = format!("{os}[\"B\"] = \"x\"\n{os}.pop(\"C\", None)\n");
    // All that was run silently so far.
    let expected = [
        fresh(),
        format!("{os}[\"A\"] = \"1\"\n{os}[\"B\"] = \"2\"\n{os}[\"C\"] = \"3\"\n"),
        stir("python").to_owned(),
        moved,
    ];
    assert_eq!(
        stdout(&server.client.run("silent").await),
        expected.concat()
    );
    // Nothing more, once it is at home.
    assert_eq!(
        stdout(&server.client.run("silent").await),
        expected.concat()
    );
}

#[tokio::test]
async fn variables_that_cannot_be_are_refused() {
    let server = server::start().await;
    let body = json!({"code": "", "env_vars": {"A=B": "1"}});
    let (status, text) = server.client.post("/execute", &body).await;
    assert_eq!(
        (status, text.as_str()),
        (400, "Environment variable \"A=B\" can't be set")
    );
    let body = json!({"code": "", "language": "forth", "env_vars": {"A": "1"}});
    let (status, text) = server.client.post("/execute", &body).await;
    assert_eq!(status, 400);
    assert!(text.contains("forth"), "{text}");
}
