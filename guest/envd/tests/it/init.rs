//! `/init` and the agent's own life.

use serde_json::json;

use crate::sandbox::Sandbox;

/// Variables that name the system's certificates.
pub(crate) const TRUST: [&str; 4] = [
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "DENO_CERT",
];

#[test]
fn variables_are_replaced_as_a_set() {
    let sandbox = Sandbox::bare(&[]);
    assert_eq!(sandbox.run("whoami"), "root\n");
    let reply = sandbox.init(
        &json!({"envVars": {"X": "1"}, "sandboxID": "s", "templateID": "t",
        "buildID": "b", "eventsAddress": "http://events.e2b.local"}),
    );
    assert_eq!(
        (reply.status, reply.header("x-envd-version")),
        (204, Some("0.6.13"))
    );
    sandbox.init(&json!({"envVars": {"Y": "2"}}));
    sandbox.init(&json!({}));
    let expected = json!({"Y": "2", "E2B_SANDBOX": "true", "E2B_SANDBOX_ID": "s",
        "E2B_TEMPLATE_ID": "t", "E2B_EVENTS_ADDRESS": "http://events.e2b.local"});
    let mut shown = sandbox.get("/envs").json();
    // Where the system has certificates, programs are led to them.
    for name in TRUST {
        shown.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(shown, expected);
    let shown = sandbox.run("cd /run/e2b; cat .E2B_SANDBOX .E2B_SANDBOX_ID .E2B_TEMPLATE_ID /.e2b; stat -c %a .E2B_SANDBOX");
    assert_eq!(shown, "truestENV_ID=t\nTEMPLATE_ID=t\nBUILD_ID=b\n444\n");
}

#[test]
fn only_the_token_opens_it_again() {
    let sandbox = Sandbox::secure("one");
    for (body, text) in [
        (json!({}), "access token reset not authorized"),
        (
            json!({"accessToken": "two"}),
            "access token validation failed",
        ),
    ] {
        let reply = sandbox.init(&body);
        assert_eq!((reply.status, reply.text().trim_end()), (401, text));
    }
    assert_eq!(sandbox.get("/envs").status, 401);
    assert_eq!(sandbox.init(&json!({"accessToken": "one"})).status, 204);
    let envs = sandbox
        .request("GET", "/envs")
        .header("x-access-token", "one")
        .send();
    assert_eq!(envs.status, 200);
}

#[test]
fn an_init_key_is_the_only_way_in() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "sesame\n").unwrap();
    let sandbox = Sandbox::with_key(key.path());
    assert_eq!(sandbox.init(&json!({"accessToken": "guess"})).status, 401);
    let with_key = |key: &str, body| {
        sandbox
            .request("POST", "/init")
            .header("x-init-key", key)
            .json(&body)
            .send()
            .status
    };
    assert_eq!(with_key("wrong", json!({})), 401);
    assert_eq!(with_key("sesame", json!({"accessToken": "one"})), 204);
    assert_eq!(with_key("sesame", json!({"accessToken": "two"})), 204);
    assert_eq!(sandbox.init(&json!({"accessToken": "one"})).status, 401);
    assert_eq!(with_key("sesame", json!({})), 204);
    assert_eq!(sandbox.get("/envs").status, 200);
}

#[test]
fn the_host_replaces_the_init_key_and_nobody_else_does() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "sesame\n").unwrap();
    let sandbox = Sandbox::with_key(key.path());
    let with_key = |key: &str, body| {
        let request = sandbox.request("POST", "/init").header("x-init-key", key);
        let reply = request.json(&body).send();
        (reply.status, reply.header("x-init-key-changed").is_some())
    };
    let at = |second: u8, key: &str| json!({"timestamp": format!("2026-01-01T00:00:{second:02}Z"), "initKey": key, "accessToken": "one"});
    assert_eq!(with_key("sesame", at(10, "open")), (204, true));
    assert_eq!(with_key("sesame", json!({})), (401, false));
    // Who knows only the token, and old requests.
    assert_eq!(with_key("sesame", at(12, "mine")), (204, false));
    assert_eq!(with_key("open", at(5, "old")), (204, false));
    assert_eq!(with_key("mine", json!({})), (401, false));
    assert_eq!(with_key("open", at(13, "last")), (204, true));
}

#[test]
fn stale_requests_change_nothing() {
    let sandbox = Sandbox::bare(&[]);
    let at = |second: u8, value: &str| json!({"timestamp": format!("2026-01-01T00:00:{second:02}Z"), "envVars": {"V": value}});
    for body in [at(30, "new"), at(20, "old"), at(30, "same")] {
        assert_eq!(sandbox.init(&body).status, 204);
    }
    assert_eq!(sandbox.get("/envs").json()["V"], "new");
}

#[test]
fn bad_requests_are_told_apart() {
    let sandbox = Sandbox::bare(&[]);
    let post = |body: &[u8]| sandbox.request("POST", "/init").body(body).send().status;
    assert_eq!(post(b""), 204);
    assert_eq!(post(b"{"), 400);
    assert_eq!(post(&vec![b' '; (1 << 20) + 1]), 413);
}

#[test]
fn defaults_apply_to_calls_that_name_nothing() {
    let sandbox = Sandbox::bare(&[]);
    sandbox.init(&json!({"defaultUser": "user", "defaultWorkdir": "/tmp"}));
    assert_eq!(sandbox.run("whoami; pwd"), "user\n/tmp\n");
    sandbox.upload("rel", b"x");
    assert_eq!(sandbox.run("ls /home/user"), "rel\n");
    sandbox.init(&json!({"defaultUser": "ghost"}));
    let stat = sandbox.call("filesystem.Filesystem/Stat", &json!({"path": "/"}));
    stat.assert_rpc_error(401, "unauthenticated", "invalid default user: 'ghost'");
}

#[test]
fn certificates_and_hosts_are_installed() {
    let sandbox = Sandbox::bare(&[]);
    let pem = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n";
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    sandbox.run(&format!("echo '{}' >{bundle}", pem.replace("QQ", "Qg")));
    sandbox.init(&json!({}));
    let before = sandbox.get("/envs").json();
    for name in TRUST {
        assert_eq!(
            before[name], bundle,
            "they are there before they are needed"
        );
    }
    let reply = sandbox.init(&json!({"caBundle": pem, "hyperloopIP": "192.0.2.1"}));
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(
        sandbox.run("tail -n 3 /etc/ssl/certs/ca-certificates.crt"),
        pem
    );
    assert_eq!(
        sandbox.run("cat /usr/local/share/ca-certificates/e2b-ca.crt"),
        pem
    );
    assert_eq!(
        sandbox.run("echo $NODE_EXTRA_CA_CERTS"),
        format!("{bundle}\n")
    );
    assert_eq!(
        sandbox.run("grep events.e2b.local /etc/hosts; echo $E2B_EVENTS_ADDRESS"),
        "192.0.2.1 events.e2b.local\nhttp://192.0.2.1\n"
    );
}

#[test]
fn it_stops_with_everything_it_started() {
    let mut sandbox = Sandbox::new();
    sandbox.start("setsid sleep 600 & sleep 600").pid();
    assert!(sandbox.terminate().success());
}

#[test]
fn the_version_is_bare() {
    let run = |arg: &str| {
        std::process::Command::new(env!("CARGO_BIN_EXE_envd"))
            .arg(arg)
            .output()
            .unwrap()
    };
    assert_eq!(run("-version").stdout, b"0.6.13\n");
    assert_eq!(run("--version").stdout, b"0.6.13\n");
    assert_eq!(run("-nonsense").status.code(), Some(2));
}
