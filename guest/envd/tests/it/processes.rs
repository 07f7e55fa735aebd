//! Processes without a terminal.

use serde_json::{Value, json};

use crate::init::TRUST;
use crate::sandbox::{Sandbox, shell};

fn by_pid(pid: u64) -> Value {
    json!({"process": {"pid": pid}})
}

fn list(sandbox: &Sandbox) -> Value {
    sandbox.call("process.Process/List", &json!({})).json()
}

#[test]
fn events_come_in_order_and_success_is_terse() {
    let sandbox = Sandbox::new();
    let mut stream = sandbox.start("echo hi");
    stream.pid();
    assert_eq!(stream.event(), json!({"data": {"stdout": "aGkK"}}));
    let end = json!({"end": {"exited": true, "status": "exit status 0"}});
    assert_eq!(stream.event(), end);
    assert_eq!(stream.next(), (2, json!({})));
}

#[test]
fn failures_have_words() {
    let sandbox = Sandbox::new();
    let end = sandbox.start("exit 3").finish().end;
    let expected =
        json!({"exitCode": 3, "exited": true, "status": "exit status 3", "error": "exit status 3"});
    assert_eq!(end, expected);
    let request = json!({"process": {"cmd": "no-such-binary"}});
    let outcome = sandbox.stream("process.Process/Start", &request).finish();
    assert_eq!(outcome.end["exitCode"], 127);
    assert!(
        String::from_utf8(outcome.stderr)
            .unwrap()
            .contains("no-such-binary")
    );
    let outcome = sandbox.start("kill -SEGV $$").finish();
    assert!(
        outcome.end["status"]
            .as_str()
            .unwrap()
            .starts_with("signal: segmentation fault")
    );
}

#[test]
fn killing_ends_the_stream_at_once() {
    let sandbox = Sandbox::new();
    let mut stream = sandbox.start("sleep 30 && echo done");
    let pid = stream.pid();
    let kill = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    assert_eq!(
        sandbox.call("process.Process/SendSignal", &kill).status,
        200
    );
    let end = stream.finish().end;
    let expected = json!({"exitCode": -1, "status": "signal: killed", "error": "signal: killed"});
    assert_eq!(end, expected);
    assert_eq!(list(&sandbox), json!({}));
    let text = format!("process with pid {pid} not found");
    let again = sandbox.call("process.Process/SendSignal", &kill);
    again.assert_rpc_error(404, "not_found", &text);
}

#[test]
fn other_signals_are_refused() {
    let sandbox = Sandbox::new();
    let pid = sandbox.start("sleep 30").pid();
    for signal in [json!(0), json!(2)] {
        let body = json!({"process": {"pid": pid}, "signal": signal});
        let reply = sandbox.call("process.Process/SendSignal", &body);
        reply.assert_rpc_error(501, "unimplemented", "invalid signal:");
    }
    let nobody = sandbox.call("process.Process/SendSignal", &json!({"signal": 9}));
    nobody.assert_rpc_error(501, "unimplemented", "invalid input type");
}

#[test]
fn a_deadline_kills_the_process() {
    let sandbox = Sandbox::new();
    let request = sandbox.request("POST", "/process.Process/Start");
    let mut stream = request
        .header("connect-timeout-ms", "300")
        .stream(&shell("sleep 60"));
    let pid = stream.pid();
    let outcome = stream.finish();
    assert_eq!(outcome.trailer["error"]["code"], "deadline_exceeded");
    assert_eq!(
        outcome.trailer["error"]["message"],
        "context deadline exceeded"
    );
    assert_eq!(
        sandbox.run(&format!("test -d /proc/{pid} || echo gone")),
        "gone\n"
    );
}

#[test]
fn a_deadline_holds_without_a_client() {
    let sandbox = Sandbox::new();
    let request = sandbox.request("POST", "/process.Process/Start");
    let mut stream = request
        .header("connect-timeout-ms", "500")
        .stream(&shell("sleep 60"));
    let pid = stream.pid();
    drop(stream);
    let outcome = sandbox
        .stream("process.Process/Connect", &by_pid(pid))
        .finish();
    assert_eq!(outcome.end["status"], "signal: killed");
}

#[test]
fn processes_outlive_their_clients() {
    let sandbox = Sandbox::new();
    let mut request = shell("read x; echo got $x");
    request["stdin"] = json!(true);
    let mut first = sandbox.stream("process.Process/Start", &request);
    let pid = first.pid();
    drop(first);
    assert_eq!(list(&sandbox)["processes"][0]["pid"], pid);

    let short = sandbox.request("POST", "/process.Process/Connect");
    let outcome = short
        .header("connect-timeout-ms", "100")
        .stream(&by_pid(pid))
        .finish();
    assert_eq!(outcome.trailer["error"]["code"], "deadline_exceeded");

    let mut second = sandbox.stream("process.Process/Connect", &by_pid(pid));
    let mut third = sandbox.stream("process.Process/Connect", &by_pid(pid));
    assert_eq!((second.pid(), third.pid()), (pid, pid));
    let input = json!({"process": {"pid": pid}, "input": {"stdin": "eAo="}});
    assert_eq!(
        sandbox.call("process.Process/SendInput", &input).status,
        200
    );
    for stream in [second, third] {
        assert_eq!(stream.finish().stdout, b"got x\n");
    }
    let late = sandbox
        .stream("process.Process/Connect", &by_pid(pid))
        .finish();
    assert_eq!((late.pid, &late.stdout[..]), (pid, &b""[..]));
    assert_eq!(late.end["status"], "exit status 0");
}

#[test]
fn tags_name_processes() {
    let sandbox = Sandbox::new();
    let tagged = |tag: &str| {
        let mut request = shell("sleep 30");
        request["tag"] = json!(tag);
        sandbox.stream("process.Process/Start", &request).pid()
    };
    tagged("t1");
    let second = tagged("t2");
    let select = |tag: &str| json!({"process": {"tag": tag}});
    let mut found = sandbox.stream("process.Process/Connect", &select("t2"));
    assert_eq!(found.pid(), second);
    let mut missing = sandbox.stream("process.Process/Connect", &select("t3"));
    assert_eq!(
        missing.next().1["error"]["message"],
        "process with tag t3 not found"
    );
    let mut missing = sandbox.stream("process.Process/Connect", &by_pid(999_999));
    assert_eq!(
        missing.next().1["error"]["message"],
        "process with pid 999999 not found"
    );
}

#[test]
fn standard_input_is_a_pipe_or_nothing() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.start("read -p x").finish().end["exitCode"], 1);

    let pid = sandbox.start("sleep 30").pid();
    let input = |pid| json!({"process": {"pid": pid}, "input": {"stdin": "aGkK"}});
    let reply = sandbox.call("process.Process/SendInput", &input(pid));
    reply.assert_rpc_error(
        500,
        "internal",
        "error writing to stdin: stdin not enabled or closed",
    );
    let reply = sandbox.call("process.Process/SendInput", &by_pid(pid));
    reply.assert_rpc_error(501, "unimplemented", "invalid input type");
    let reply = sandbox.call(
        "process.Process/SendInput",
        &json!({"process": {"pid": pid}, "input": {"pty": "aGkK"}}),
    );
    reply.assert_rpc_error(
        500,
        "internal",
        "input should be written to the stdin, not the tty",
    );

    let mut request = shell("cat; sleep 0.2");
    request.as_object_mut().unwrap().remove("stdin");
    let mut cat = sandbox.stream("process.Process/Start", &request);
    let pid = cat.pid();
    assert_eq!(
        sandbox
            .call("process.Process/SendInput", &input(pid))
            .status,
        200
    );
    for _ in 0..2 {
        assert_eq!(
            sandbox
                .call("process.Process/CloseStdin", &by_pid(pid))
                .status,
            200
        );
    }
    let outcome = cat.finish();
    assert_eq!(
        (&outcome.stdout[..], &outcome.end["exited"]),
        (&b"hi\n"[..], &json!(true))
    );
}

#[test]
fn a_grandchild_that_holds_the_output_holds_the_stream() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.start("(sleep 1; echo late) & echo x").finish();
    assert_eq!(outcome.stdout, b"x\nlate\n");
    // Without its output it holds nothing: this ends long before the grandchild does.
    let outcome = sandbox.start("sleep 600 >/dev/null 2>&1 & echo x").finish();
    assert_eq!(outcome.stdout, b"x\n");
    // The direct child is gone, so a kill can only end the wait.
    let mut stream = sandbox.start("sleep 600 & echo $BASHPID");
    let pid = stream.pid();
    let shown = stream.until("\n");
    let gone = format!(
        "while test -d /proc/{}/task && ! grep -q Z /proc/{0}/stat; do sleep 0.01; done",
        shown.trim()
    );
    sandbox.run(&gone);
    let kill = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    assert_eq!(
        sandbox.call("process.Process/SendSignal", &kill).status,
        200
    );
    assert_eq!(stream.finish().end["status"], "exit status 0");
}

#[test]
fn output_is_raw_and_complete() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .start("printf '%8191s' | tr ' ' a; printf '\\xe2'")
        .finish();
    assert_eq!(outcome.stdout.len(), 8192);
    assert_eq!(outcome.stdout[8191], 0xe2);
    let outcome = sandbox.start("seq 1 1500000").finish();
    let expected: String = (1..=1_500_000).map(|n| format!("{n}\n")).collect();
    assert!(
        outcome.stdout == expected.as_bytes(),
        "{} bytes",
        outcome.stdout.len()
    );
}

#[test]
fn a_stalled_reader_blocks_the_process() {
    let sandbox = Sandbox::new();
    let mut stream = sandbox.start("head -c 24000000 /dev/zero; touch /tmp/done");
    let pid = stream.pid();
    // The writer sleeps in a pipe once every buffer on the way is full.
    let blocked = format!(
        "until grep -q pipe_write /proc/$(pgrep -P {pid} head)/stack; do sleep 0.05; done; test -e /tmp/done || echo blocked"
    );
    assert_eq!(sandbox.run_root(&blocked), "blocked\n");
    let status = std::fs::read_to_string(format!("/proc/{}/status", sandbox.agent_pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 20 << 10, "{line}");
    assert_eq!(stream.finish().stdout.len(), 24_000_000);
}

#[test]
fn variables_and_directories() {
    let sandbox = Sandbox::bare(&[]);
    sandbox.init(
        &json!({"defaultUser": "user", "envVars": {"A": "1", "B": "1", "E2B_SANDBOX": "no"}}),
    );
    let mut request = shell("echo $A $B $FOO $E2B_SANDBOX; pwd");
    request["process"]["envs"] = json!({"A": "2", "FOO": "bar"});
    request["process"]["cwd"] = json!("~/x");
    let missing = sandbox.stream("process.Process/Start", &request).finish();
    assert_eq!(
        missing.trailer["error"]["message"],
        "cwd '/home/user/x' does not exist"
    );
    assert_eq!(missing.trailer["error"]["code"], "invalid_argument");
    sandbox.run("mkdir x");
    for cwd in ["~/x", "x"] {
        request["process"]["cwd"] = json!(cwd);
        let outcome = sandbox.stream("process.Process/Start", &request).finish();
        assert_eq!(outcome.stdout, b"2 1 bar true\n/home/user/x\n");
    }
    assert_eq!(sandbox.run("echo $A$FOO; pwd"), "1\n/home/user\n");
    let env = json!({"process": {"cmd": "env"}, "stdin": false});
    let env = sandbox
        .stream("process.Process/Start", &env)
        .finish()
        .stdout;
    let env = String::from_utf8(env).unwrap();
    let mut names: Vec<_> = env.lines().map(|l| l.split('=').next().unwrap()).collect();
    // Where the system has certificates, programs are led to them.
    names.retain(|name| !TRUST.contains(name));
    names.sort_unstable();
    assert_eq!(
        names,
        ["A", "B", "E2B_SANDBOX", "HOME", "LOGNAME", "PATH", "USER"]
    );
}

#[test]
fn directories_that_the_user_may_not_enter() {
    let sandbox = Sandbox::new();
    sandbox.run_root("mkdir -m 700 /tmp/closed");
    let mut request = shell("pwd");
    request["process"]["cwd"] = json!("/tmp/closed");
    let outcome = sandbox.stream("process.Process/Start", &request).finish();
    let error = &outcome.trailer["error"];
    assert_eq!(error["code"], "invalid_argument");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("error starting process '/bin/bash")
    );
}

#[test]
fn arguments_beyond_the_kernels_limit_fail_the_start() {
    let sandbox = Sandbox::new();
    let request = json!({"process": {"cmd": "echo", "args": ["x".repeat(200_000)]}});
    let outcome = sandbox.stream("process.Process/Start", &request).finish();
    assert_eq!(outcome.trailer["error"]["code"], "invalid_argument");
    assert_eq!(
        sandbox.call("process.Process/List", &json!({})).json(),
        json!({})
    );
}

#[test]
fn commands_run_with_the_users_rights_and_no_more() {
    let sandbox = Sandbox::new();
    let script = "id -u; id -g; id -G; nice; cat /proc/self/oom_score_adj; \
                  grep -E 'Cap(Eff|Prm|Amb|Inh)' /proc/self/status | sort -u -k2 | wc -l; \
                  grep SigIgn /proc/self/status; grep SigBlk /proc/self/status; \
                  ls /proc/self/fd | wc -l; umask";
    let shown = sandbox.run(script);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[..6], ["1000", "1000", "1000 4321", "0", "100", "1"]);
    assert!(lines[6].ends_with("0000000000000000"), "{shown}");
    assert!(lines[7].ends_with("0000000000000000"), "{shown}");
    // Three streams and the directory that `ls` reads.
    assert_eq!(lines[8..], ["4", "0022"]);
}

#[test]
fn silence_is_filled() {
    let sandbox = Sandbox::new();
    let request = sandbox.request("POST", "/process.Process/Start");
    let silent = request
        .header("keepalive-ping-interval", "1")
        .stream(&shell("sleep 1.5"));
    assert_eq!(silent.finish().keepalives, 1);
    let request = sandbox.request("POST", "/process.Process/Start");
    let script = "for i in 1 2 3 4; do sleep 0.4; echo; done";
    let busy = request
        .header("keepalive-ping-interval", "1")
        .stream(&shell(script));
    assert_eq!(busy.finish().keepalives, 0);
}

#[test]
fn orphans_are_reaped_and_the_log_tells_starts_and_ends() {
    let sandbox = Sandbox::new();
    sandbox.run("(setsid sh -c 'sleep 0.1' >/dev/null 2>&1 &) ; sleep 0.3");
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    assert_eq!(sandbox.run(zombies), "0\n");
    let log = sandbox.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let of = |message: &str| lines.iter().filter(|l| l["message"] == message).count();
    assert!(
        of("process started") >= 2 && of("process ended") >= 2,
        "{log}"
    );
}
