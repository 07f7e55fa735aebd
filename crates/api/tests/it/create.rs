//! Checks 23–43 of the API contract, as far as they concern the control plane.

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use warren_api::ApiConfig;
use warren_control::{By, Limits};
use warren_types::{BuildId, OnTimeout};

use crate::node::Fault;
use crate::server::{Server, TOKEN_KEY, is_about};

fn token(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(TOKEN_KEY.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

async fn refusal(server: &Server, path: &str, body: Value) -> (u16, String) {
    let answer = server.post(path, body).await;
    let status = answer.status.as_u16();
    (status, answer.error(status))
}

#[tokio::test]
async fn a_create_without_options() {
    let server = Server::start().await;
    let body = json!({"templateID": "base", "metadata": {}, "envVars": {}, "unknown": 1});
    let sandbox = server.post("/v2/sandboxes", body).await.expect(201);
    let id = sandbox["sandboxID"].as_str().unwrap();
    assert!(id.starts_with('i') && id.len() == 21);
    assert_eq!(sandbox["clientID"], "6532622b");
    assert_eq!(sandbox["envdVersion"], "0.6.13");
    assert_eq!(sandbox["alias"], "base");
    assert_eq!(sandbox["domain"], "localhost:3000");
    assert_eq!(sandbox["trafficAccessToken"], Value::Null);
    assert_eq!(sandbox["envdAccessToken"], json!(token(id)));
    assert_eq!(sandbox["templateID"].as_str().unwrap().len(), 20);
    let detail = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    assert!(is_about(&detail["endAt"], 300));
    assert_eq!(
        detail["lifecycle"],
        json!({"onTimeout": "kill", "autoResume": false})
    );
    assert_eq!(detail["allowInternetAccess"], Value::Null);
    assert_eq!(detail["network"], Value::Null);
    assert_eq!(detail["volumeMounts"], json!([]));
    assert_eq!(detail["envdAccessToken"], sandbox["envdAccessToken"]);
}

#[tokio::test]
async fn version_1_lives_15_seconds_and_is_open_unless_asked() {
    let server = Server::start().await;
    let open = server
        .post("/sandboxes", json!({"templateID": "base"}))
        .await
        .expect(201);
    assert!(open.get("envdAccessToken").is_none());
    let path = format!("/sandboxes/{}", open["sandboxID"].as_str().unwrap());
    let detail = server.get(&path).await.expect(200);
    assert!(crate::server::ahead(&detail["endAt"]) <= 16);
    assert!(detail.get("envdAccessToken").is_none());
    let body = json!({"templateID": "base", "timeout": 300, "secure": true,
                      "allow_internet_access": true});
    let secured = server.post("/sandboxes", body).await.expect(201);
    assert!(secured["envdAccessToken"].is_string());
    let requests = server.node.requests.lock().unwrap();
    assert!(requests[0].access_token.is_none());
    assert!(requests[1].access_token.is_some());
}

#[tokio::test]
async fn every_reference_leads_to_the_template_s_id() {
    let server = Server::start().await;
    let image = server
        .control
        .register_build(crate::server::base())
        .await
        .unwrap();
    let id = image.template_id.to_string();
    for reference in [
        "base".to_owned(),
        " BASE ".to_owned(),
        "base:default".to_owned(),
        format!("base:{}", image.build_id),
        id.clone(),
        format!("{id}:default"),
    ] {
        let body = json!({"templateID": reference});
        let sandbox = server.post("/v2/sandboxes", body).await.expect(201);
        assert_eq!(sandbox["templateID"], json!(id), "{reference}");
    }
}

#[tokio::test]
async fn unknown_templates_tags_and_malformed_references() {
    let server = Server::start().await;
    let ask = |template: &str| {
        let body = json!({"templateID": template});
        refusal(&server, "/v2/sandboxes", body)
    };
    assert_eq!(
        ask("nope").await,
        (404, "template 'nope' not found".to_owned())
    );
    assert_eq!(
        ask("x/base").await,
        (404, "template 'x/base' not found".to_owned())
    );
    let text = "tag 'v9' does not exist for template 'base'";
    assert_eq!(ask("base:v9").await, (404, text.to_owned()));
    let build = BuildId::random();
    let text = format!("tag '{build}' does not exist for template 'base'");
    assert_eq!(ask(&format!("base:{build}")).await, (404, text));
    for bad in ["", "base:", "/base", "a/b/c", "a b"] {
        let (status, message) = ask(bad).await;
        assert_eq!(status, 400);
        assert!(
            message.starts_with("Invalid template reference: "),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_private_template_is_another_team_s_secret_until_published() {
    let server = Server::start().await;
    let spec = warren_control::BuildSpec {
        public: false,
        ..crate::server::base()
    };
    let image = server.control.register_build(spec).await.unwrap();
    let (other, id) = (server.other_key().await, image.template_id.to_string());
    let body = json!({"templateID": id});
    let foreign = server
        .call_as(&other, "POST", "/v2/sandboxes", Some(body.clone()))
        .await;
    assert_eq!(foreign.error(404), format!("template '{id}' not found"));
    server
        .control
        .template_set_public(&image.template_id, true)
        .await
        .unwrap();
    server
        .call_as(&other, "POST", "/v2/sandboxes", Some(body))
        .await
        .expect(201);
}

#[tokio::test]
async fn lives_out_of_range() {
    let server = Server::start().await;
    for path in ["/sandboxes", "/v2/sandboxes"] {
        for (timeout, text) in [
            (0, "Timeout must be greater than 0"),
            (-1, "Timeout must be greater than 0"),
            (86_401, "Timeout cannot be greater than 24 hours"),
        ] {
            let body = json!({"templateID": "base", "timeout": timeout});
            assert_eq!(refusal(&server, path, body).await, (400, text.to_owned()));
        }
        server
            .post(path, json!({"templateID": "base", "timeout": 86_400}))
            .await
            .expect(201);
    }
}

#[tokio::test]
async fn labels_come_back_and_variables_do_not() {
    let server = Server::start().await;
    let metadata = json!({"a b": "c&d=e", "ü": "✓"});
    let body = json!({"metadata": metadata, "envVars": {"SECRET_A": "value-1"},
                      "mcp": {"server": {"x": 1}}});
    let id = server.create(body).await;
    let detail = server.get(&format!("/sandboxes/{id}")).await;
    assert!(!detail.text.contains("SECRET_A") && !detail.text.contains("value-1"));
    assert_eq!(detail.expect(200)["metadata"], metadata);
    let list = server.get("/v2/sandboxes").await;
    assert!(!list.text.contains("value-1"));
    assert_eq!(list.expect(200)[0]["metadata"], metadata);
    let requests = server.node.requests.lock().unwrap();
    assert_eq!(requests[0].env["SECRET_A"], "value-1");
    assert_eq!(requests[0].image.env["PATH"], "/usr/bin");
}

#[tokio::test]
async fn variables_that_no_process_can_have() {
    let server = Server::start().await;
    for bad in [
        json!({"": "x"}),
        json!({"A=B": "x"}),
        json!({"A": "x\u{0}y"}),
    ] {
        let body = json!({"templateID": "base", "envVars": bad});
        let (status, message) = refusal(&server, "/v2/sandboxes", body).await;
        assert_eq!(status, 400);
        assert!(message.starts_with("validation error"), "{message}");
    }
}

#[tokio::test]
async fn labels_and_settings_beyond_reason() {
    let server = Server::start().await;
    for (field, value) in [
        ("metadata", json!({"a": "x".repeat(300 * 1024)})),
        ("envVars", json!({"A": "x".repeat(2 * 1024 * 1024)})),
        ("mcp", json!({"a": "x".repeat(2 * 1024 * 1024)})),
    ] {
        let body = json!({"templateID": "base", field: value});
        let (status, message) = refusal(&server, "/v2/sandboxes", body).await;
        assert_eq!(status, 400);
        let text = format!("validation error: {field} must not be larger than ");
        assert!(message.starts_with(&text), "{message}");
    }
}

#[tokio::test]
async fn one_create_too_many_at_the_same_moment() {
    let limits = Limits {
        max_sandboxes: 5,
        ..Limits::default()
    };
    let server = Server::with(limits, ApiConfig::default()).await;
    let creates = (0..6).map(|_| server.post("/v2/sandboxes", json!({"templateID": "base"})));
    let answers = futures_util::future::join_all(creates).await;
    let (made, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len(), server.node.count()), (5, 1, 5));
    for answer in refused {
        assert_eq!(answer.header("should-retry"), Some("false"));
        let text = "you have reached the maximum number of concurrent E2B sandboxes (5)";
        assert!(answer.error(429).starts_with(text));
    }
    let id = made[0].json()["sandboxID"].as_str().unwrap().to_owned();
    server.delete(&format!("/sandboxes/{id}")).await.expect(204);
    server.create(json!({})).await;
    // A team's own limit counts instead, at once.
    server
        .control
        .team_set_max_sandboxes(&By::SYSTEM, server.team.id, Some(6))
        .await
        .unwrap();
    server.create(json!({})).await;
    server
        .post("/v2/sandboxes", json!({"templateID": "base"}))
        .await
        .error(429);
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_and_tells_nothing() {
    let limits = Limits {
        max_sandboxes: 1,
        ..Limits::default()
    };
    let server = Server::with(limits, ApiConfig::default()).await;
    server.node.fail_next(Fault::Start);
    let answer = server
        .post("/v2/sandboxes", json!({"templateID": "base"}))
        .await;
    assert_eq!(answer.json()["error_code"], "sandbox_create_failed");
    assert!(!answer.text.contains("secret"), "{}", answer.text);
    answer.error(500);
    server.node.fail_next(Fault::Capacity);
    let answer = server
        .post("/v2/sandboxes", json!({"templateID": "base"}))
        .await;
    assert_eq!(answer.json()["error_code"], "sandbox_capacity_unavailable");
    // Room may come: clients are told when to ask again, and nobody tells them not to.
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(wait >= 1);
    assert_eq!(answer.header("should-retry"), None);
    assert!(answer.error(503).starts_with("Failed to place sandbox"));
    assert_eq!(server.listed("").await, Vec::<String>::new());
    server.create(json!({})).await;
}

#[tokio::test]
async fn a_sandbox_that_dies_at_birth_is_not_listed_for_ever() {
    let limits = Limits {
        max_sandboxes: 1,
        ..Limits::default()
    };
    let server = Server::with(limits, ApiConfig::default()).await;
    for _ in 0..20 {
        server.node.fail_next(Fault::Dies);
        let id = server.create(json!({})).await;
        server.until(&format!("/sandboxes/{id}"), 404).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_a_whole_sandbox() {
    let server = Server::start().await;
    server.node.gate.forget_permits(usize::MAX);
    let call = server.post("/v2/sandboxes", json!({"templateID": "base"}));
    let gone = tokio::time::timeout(std::time::Duration::from_millis(200), call).await;
    assert!(gone.is_err(), "the node holds the create up");
    server.node.gate.add_permits(1);
    for _ in 0..500 {
        if !server.listed("").await.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(server.listed("").await.len(), server.node.count());
    assert_eq!(server.node.count(), 1);
}

#[tokio::test]
async fn pausing_options() {
    let server = Server::start().await;
    let ask = |mut body: Value| {
        body["templateID"] = json!("base");
        refusal(&server, "/v2/sandboxes", body)
    };
    let text = "autoPauseMemory=false only applies when autoPause is true.";
    assert_eq!(
        ask(json!({"autoPauseMemory": false})).await,
        (400, text.to_owned())
    );
    let both = json!({"autoPause": true, "autoPauseMemory": false,
                      "autoResume": {"enabled": true}});
    let (status, message) = ask(both).await;
    assert_eq!(status, 400);
    assert!(message.starts_with(
        "autoPauseMemory=false (filesystem-only auto-pause) cannot be combined with autoResume"
    ));
    assert_eq!(server.node.count(), 0);
    let body = json!({"autoPause": true, "autoPauseMemory": false});
    let id = server.create(body).await;
    let action = server.node.requests.lock().unwrap()[0].on_timeout;
    assert_eq!(action, OnTimeout::Pause { memory: false });
    let detail = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    assert_eq!(
        detail["lifecycle"],
        json!({"onTimeout": "pause", "autoResume": false})
    );
}

#[tokio::test]
async fn features_that_are_switched_off() {
    let server = Server::start().await;
    let mounts = json!({"templateID": "base", "volumeMounts": [{"name": "v", "path": "/v"}]});
    let text = "Volume mounts are not enabled.";
    assert_eq!(
        refusal(&server, "/v2/sandboxes", mounts).await,
        (400, text.to_owned())
    );
    server
        .create(json!({"volumeMounts": [], "iam": {"tokens": {}}}))
        .await;
}

#[tokio::test]
async fn private_ports_have_a_token() {
    let server = Server::start().await;
    let private = json!({"templateID": "base", "network": {"allowPublicTraffic": false}});
    let (status, message) = refusal(&server, "/sandboxes", private.clone()).await;
    assert_eq!(status, 400);
    assert!(message.starts_with("You cannot create a sandbox without public access unless"));
    let sandbox = server.post("/v2/sandboxes", private).await.expect(201);
    let id = sandbox["sandboxID"].as_str().unwrap();
    assert_eq!(
        sandbox["trafficAccessToken"],
        json!(token(&format!("sandbox-traffic-{id}")))
    );
    assert!(server.node.requests.lock().unwrap()[0].private_traffic);
    let public = json!({"templateID": "base", "network": {"allowPublicTraffic": null}});
    let sandbox = server.post("/v2/sandboxes", public).await.expect(201);
    assert_eq!(sandbox["trafficAccessToken"], Value::Null);
}

#[tokio::test]
async fn network_options_are_passed_on_or_refused_by_name() {
    let server = Server::start().await;
    let id = server
        .create(json!({"allow_internet_access": false, "network": {
            "maskRequestHost": "localhost:${PORT}", "httpsPorts": [8443],
            "denyOut": ["0.0.0.0/0"], "allowOut": []}}))
        .await;
    {
        let requests = server.node.requests.lock().unwrap();
        assert!(!requests[0].network.egress.internet);
        assert_eq!(requests[0].network.https_ports, [8443]);
        let mask = requests[0].network.mask_request_host.as_deref();
        assert_eq!(mask, Some("localhost:${PORT}"));
    }
    let detail = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    assert_eq!(detail["allowInternetAccess"], json!(false));
    assert_eq!(detail["network"]["httpsPorts"], json!([8443]));
    assert_eq!(detail["network"]["denyOut"], json!(["0.0.0.0/0"]));
    for (network, status, text) in [
        (json!({"httpsPorts": [49983]}), 400, "reserved port 49983"),
        (
            json!({"maskRequestHost": "-https://abcd"}),
            400,
            "is not valid: -https://abcd",
        ),
        (json!({"denyOut": ["x"]}), 400, "invalid denied CIDR x"),
        (json!({"allowOut": ["example.com"]}), 400, "ALL_TRAFFIC"),
        (
            json!({"rules": {"a.b": [{"transform": {"headers": {"X": "${e2b.x}"}}}]}}),
            400,
            "Network transform header contains a malformed E2B placeholder.",
        ),
        (
            json!({"rules": {"a.b": [], "A.b": []}}),
            400,
            "Network rule domain keys must be unique ignoring case.",
        ),
        (
            json!({"egressProxy": {"address": "h"}}),
            400,
            "Invalid egress proxy config: ",
        ),
        (
            json!({"egressProxy": {"address": "h:1", "password": "p"}}),
            400,
            "Invalid egress proxy config: password requires username",
        ),
    ] {
        let body = json!({"templateID": "base", "network": network});
        let (found, message) = refusal(&server, "/v2/sandboxes", body).await;
        assert_eq!(found, status, "{network} {message}");
        assert!(message.contains(text), "{network} {message}");
    }
    assert_eq!(server.node.count(), 1);
}

#[tokio::test]
async fn header_rules_tokens_and_proxies_are_passed_on_and_shown_without_what_is_secret() {
    let server = Server::with(Limits::default(), ApiConfig::default()).await;
    let rules = json!({"*.a.b": [{"transform": {"headers": {"X": "k ${e2b.secrets.k}"}}}]});
    let network = json!({
        "rules": rules,
        "egressProxy": {"address": "p.test:1080", "username": "me", "password": "hunter2",
            "tls": {"enabled": true, "serverName": "q.test", "caCert": "PEM"}},
    });
    let id = server
        .create(json!({"network": network, "iam": {"tokens": {
        "t": {"audience": "aud", "tokenType": "JWT-SVID"}}}}))
        .await;
    let egress = {
        let requests = server.node.requests.lock().unwrap();
        requests[0].network.egress.egress.clone().unwrap()
    };
    assert_eq!(egress.headers["*.a.b"]["X"], "k ${e2b.secrets.k}");
    assert_eq!(egress.tokens["t"], "aud");
    assert_eq!(egress.owner, server.team.id.to_string());
    let proxy = egress.proxy.clone().unwrap();
    assert_eq!((proxy.host.as_str(), proxy.port), ("p.test", 1080));
    let kept = serde_json::to_string(&egress.as_ref()).unwrap();
    assert!(!kept.contains("hunter2"), "{kept}");
    let sealed = proxy.sealed_password.clone().unwrap();
    let opened = server.control.proxy_password(server.team.id, &sealed).await;
    assert!(opened.unwrap().matches("hunter2"));
    let detail = server.get(&format!("/sandboxes/{id}")).await;
    assert!(!detail.text.contains("hunter2"));
    let detail = detail.expect(200);
    assert_eq!(detail["network"]["rules"], rules);
    let shown = json!({"address": "p.test:1080", "username": "me",
        "tls": {"enabled": true, "serverName": "q.test"}});
    assert_eq!(detail["network"]["egressProxy"], shown);
    let only_token = json!({"iam": {"tokens": {"t": {"audience": "a", "tokenType": "JWT-SVID"}}}});
    let id = server.create(only_token).await;
    let detail = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    assert_eq!(detail.get("network"), None);
    for (token, text) in [
        (
            json!({"": {"audience": "a", "tokenType": "JWT-SVID"}}),
            "name must not be empty",
        ),
        (
            json!({"t": {"audience": "", "tokenType": "JWT-SVID"}}),
            "audience is required",
        ),
        (
            json!({"t": {"audience": "a", "tokenType": "x"}}),
            "only \"JWT-SVID\" is supported",
        ),
    ] {
        let body = json!({"templateID": "base", "iam": {"tokens": token}});
        let (status, message) = refusal(&server, "/v2/sandboxes", body).await;
        assert!(status == 400 && message.contains(text), "{message}");
    }
    let keys = server.get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(keys["keys"][0]["alg"], json!("ES256"));
    let found = server
        .get("/.well-known/openid-configuration")
        .await
        .expect(200);
    assert_eq!(
        found["jwks_uri"],
        json!("https://api.test/.well-known/jwks.json")
    );
}
