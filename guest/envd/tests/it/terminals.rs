//! Terminals.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

fn terminal() -> Value {
    json!({
        "process": {"cmd": "/bin/bash", "args": ["-i", "-l"],
            "envs": {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}},
        "pty": {"size": {"cols": 80, "rows": 24}}
    })
}

fn type_in(sandbox: &Sandbox, pid: u64, bytes: &str) {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
    let body = json!({"process": {"pid": pid}, "input": {"pty": encoded}});
    assert_eq!(sandbox.call("process.Process/SendInput", &body).status, 200);
}

#[test]
fn sizes_are_set_and_changed() {
    let sandbox = Sandbox::new();
    let mut stream = sandbox.stream("process.Process/Start", &terminal());
    let pid = stream.pid();
    type_in(
        &sandbox,
        pid,
        "echo cols=$(tput cols) tty=$(test -t 0 && echo y)\n",
    );
    stream.until("cols=80 tty=y");
    let update = json!({"process": {"pid": pid}, "pty": {"size": {"cols": 100, "rows": 24}}});
    assert_eq!(sandbox.call("process.Process/Update", &update).status, 200);
    type_in(&sandbox, pid, "echo cols=$(tput cols)\n");
    stream.until("cols=100");

    // Clients leave and come back.
    drop(stream);
    let mut again = sandbox.stream("process.Process/Connect", &json!({"process": {"pid": pid}}));
    assert_eq!(again.pid(), pid);
    type_in(&sandbox, pid, "exit\n");
    assert_eq!(again.finish().end["status"], "exit status 0");
}

#[test]
fn terminals_are_not_pipes() {
    let sandbox = Sandbox::new();
    let mut stream = sandbox.stream("process.Process/Start", &terminal());
    let pid = stream.pid();
    let process = json!({"process": {"pid": pid}});
    let input = json!({"process": {"pid": pid}, "input": {"stdin": "eA=="}});
    let reply = sandbox.call("process.Process/SendInput", &input);
    reply.assert_rpc_error(
        500,
        "internal",
        "input should be written to the pty, not the stdin",
    );
    let reply = sandbox.call("process.Process/CloseStdin", &process);
    reply.assert_rpc_error(500, "unknown", "send Ctrl+D (0x04) instead");

    let other = sandbox.start("sleep 30").pid();
    let update = json!({"process": {"pid": other}, "pty": {"size": {"cols": 1, "rows": 1}}});
    let reply = sandbox.call("process.Process/Update", &update);
    reply.assert_rpc_error(
        500,
        "internal",
        "error resizing tty: tty not assigned to process",
    );
    let nothing = json!({"process": {"pid": other}});
    assert_eq!(sandbox.call("process.Process/Update", &nothing).status, 200);

    let kill = json!({"process": {"pid": pid}, "signal": 9});
    assert_eq!(
        sandbox.call("process.Process/SendSignal", &kill).status,
        200
    );
    assert_eq!(stream.finish().end["exitCode"], -1);
}
