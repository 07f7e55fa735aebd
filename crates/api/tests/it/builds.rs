//! Checks 1-11 and 20-29 of the contract of templates.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;
use warren_api::ApiConfig;
use warren_control::Limits;

use crate::server::{Answer, Server};

/// A build that waits.
#[derive(Debug, Clone)]
pub(crate) struct Requested {
    pub(crate) template: String,
    pub(crate) build: String,
}

impl Requested {
    fn path(&self, rest: &str) -> String {
        format!("/templates/{}/builds/{}/{rest}", self.template, self.build)
    }

    fn start_path(&self) -> String {
        format!("/v2/templates/{}/builds/{}", self.template, self.build)
    }
}

fn step(kind: &str, argument: &str) -> Value {
    json!({"type": kind, "args": [argument], "forceUpload": true, "gzip": false})
}

impl Server {
    pub(crate) async fn request(&self, body: Value) -> Requested {
        let answer = self.post("/v3/templates", body).await.expect(202);
        Requested {
            template: answer["templateID"].as_str().unwrap().to_owned(),
            build: answer["buildID"].as_str().unwrap().to_owned(),
        }
    }

    pub(crate) async fn start_build(&self, build: &Requested, steps: &[Value]) -> Answer {
        let body = json!({"fromImage": "e2bdev/base", "steps": steps, "force": false});
        self.post(&build.start_path(), body).await
    }

    async fn status(&self, build: &Requested, query: &str) -> Value {
        self.get(&build.path(&format!("status{query}")))
            .await
            .expect(200)
    }

    pub(crate) async fn ended(&self, build: &Requested) -> Value {
        for _ in 0..1000 {
            let status = self.status(build, "").await;
            if !["waiting", "building"].contains(&status["status"].as_str().unwrap()) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{build:?} did not end");
    }

    /// A ready build.
    pub(crate) async fn built(&self, body: Value) -> Requested {
        let build = self.request(body).await;
        self.start_build(&build, &[]).await.expect(202);
        assert_eq!(self.ended(&build).await["status"], "ready");
        build
    }
}

fn messages(status: &Value) -> Vec<&str> {
    let entries = status["logEntries"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| entry["message"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_request_names_the_template_and_its_build() {
    let server = Server::start().await;
    let first = server
        .post("/v3/templates", json!({"name": "t1"}))
        .await
        .expect(202);
    let template = first["templateID"].as_str().unwrap();
    assert_eq!(template.len(), 20);
    assert!(
        template
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    );
    Uuid::parse_str(first["buildID"].as_str().unwrap()).unwrap();
    assert_eq!(first["names"], json!(["default/t1"]));
    assert_eq!(first["aliases"], json!(["t1"]));
    assert_eq!(first["tags"], json!(["default"]));
    assert_eq!(first["public"], json!(false));

    let second = server
        .post("/v3/templates", json!({"name": " T1 "}))
        .await
        .expect(202);
    assert_eq!(second["templateID"], first["templateID"]);
    assert_ne!(second["buildID"], first["buildID"]);
    let path = format!(
        "/templates/{template}/builds/{}/status",
        first["buildID"].as_str().unwrap()
    );
    let superseded = server.get(&path).await.expect(200);
    assert_eq!(superseded["status"], "error");
    let why = "The build was canceled because it was superseded by a newer one.";
    assert_eq!(
        superseded["reason"],
        json!({"message": why, "logEntries": []})
    );

    let list = server.get("/templates").await.expect(200);
    let shown = list
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["templateID"] == template)
        .unwrap();
    assert_eq!(
        (&shown["buildCount"], &shown["buildStatus"]),
        (&json!(2), &json!("waiting"))
    );
    assert_eq!(shown["buildID"], json!(Uuid::nil().to_string()));
    let zero = json!(0);
    assert_eq!((&shown["cpuCount"], &shown["memoryMB"]), (&zero, &zero));
    assert_eq!(
        (&shown["diskSizeMB"], &shown["envdVersion"]),
        (&zero, &json!(""))
    );
    assert_eq!(
        server.get("/v2/templates?limit=1").await.json()[0]["templateID"],
        template
    );
}

#[tokio::test]
async fn tags_of_name_and_list_are_joined() {
    let server = Server::start().await;
    let body = json!({"name": "T1:V1", "tags": ["Stable", "v1"]});
    let answer = server.post("/v3/templates", body).await.expect(202);
    assert_eq!(answer["aliases"], json!(["t1"]));
    assert_eq!(answer["tags"], json!(["stable", "v1"]));
    let answer = server
        .post("/v3/templates", json!({"alias": "only-alias"}))
        .await
        .expect(202);
    assert_eq!(answer["names"], json!(["default/only-alias"]));
    let other_tag = server.request(json!({"name": "t1:v2"})).await;
    let waits = server.status(&other_tag, "").await;
    assert_eq!(waits["status"], "waiting");
    assert_eq!(
        (&waits["logs"], &waits["logEntries"]),
        (&json!([]), &json!([]))
    );
    assert!(waits.get("reason").is_none());
}

#[tokio::test]
async fn bad_names_tags_and_resources_are_refused() {
    let server = Server::start().await;
    let refused = async |body: Value| server.post("/v3/templates", body).await.error(400);
    for (name, why) in [
        ("x:", "invalid tag: "),
        ("a b", "invalid template ID: a b"),
        ("/x", "invalid namespace: "),
        ("a/b/c", "invalid template ID: b/c"),
    ] {
        assert_eq!(
            refused(json!({"name": name})).await,
            format!("Invalid name: {why}")
        );
    }
    let text = refused(json!({"name": "x", "tags": ["bad tag"]})).await;
    assert_eq!(
        text,
        "Invalid tag: invalid tag 'bad tag': invalid tag: bad tag"
    );
    let uuid = Uuid::new_v4();
    for body in [
        json!({"name": "x", "tags": [uuid]}),
        json!({"name": format!("x:{uuid}")}),
    ] {
        let text = refused(body).await;
        assert_eq!(
            text,
            format!("Invalid tag: invalid tag '{uuid}': tag cannot be a UUID")
        );
    }
    let text = refused(json!({"name": "other/x"})).await;
    assert_eq!(text, "namespace 'other' must match your team 'default'");
    assert_eq!(refused(json!({})).await, "Name is required");
    assert_eq!(refused(json!({"name": ""})).await, "Name is required");
    for (field, value, why) in [
        ("cpuCount", 3, "CPU count must be 1 or an even number"),
        ("cpuCount", 34, "CPU count must be at most 32"),
        (
            "cpuCount",
            0,
            "validation error: CPU count must be at least 1",
        ),
        ("memoryMB", 1001, "Memory must be divisible by 2"),
        (
            "memoryMB",
            32,
            "validation error: Memory must be at least 128 MiB",
        ),
    ] {
        assert_eq!(
            refused(json!({"name": "x", field: value})).await,
            why,
            "{field} {value}"
        );
    }
    let text = refused(json!({"name": "x", "memoryMB": 1_048_576})).await;
    assert!(
        text.starts_with("Memory can't be higher than 8096 MiB (if you need"),
        "{text}"
    );
    let text = refused(json!({"name": "x", "cpuCount": 16})).await;
    assert!(
        text.starts_with("CPU count can't be higher than 8 (if you need"),
        "{text}"
    );
    let text = refused(json!({"name": 7})).await;
    assert!(text.starts_with("validation error"), "{text}");
    let text = refused(json!({"name": "x".repeat(129)})).await;
    assert!(text.starts_with("validation error"), "{text}");
    let broken = Request::post("/v3/templates").header("x-api-key", &server.key);
    let answer = server.send(broken.body(Body::from("{")).unwrap()).await;
    assert!(answer.error(400).starts_with("Invalid request body:"));
    let list = server.get("/templates").await.expect(200);
    assert_eq!(list.as_array().unwrap().len(), 1, "nothing was made");
}

#[tokio::test]
async fn a_global_name_gets_a_template_of_the_teams_own_and_an_id_is_no_name() {
    let server = Server::start().await;
    let global = server.get("/templates/aliases/base").await.expect(200);
    let own = server.built(json!({"name": "base"})).await;
    assert_ne!(json!(own.template), global["templateID"]);
    let shadowing = server.get("/templates/aliases/base").await.expect(200);
    assert_eq!(shadowing["templateID"], json!(own.template));
    let id = server.create(json!({"templateID": "base"})).await;
    let sandbox = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    assert_eq!(sandbox["templateID"], json!(own.template));
    let answer = server
        .post("/v3/templates", json!({"name": own.template}))
        .await;
    assert_eq!(
        answer.error(409),
        format!("Alias '{}' is already used", own.template)
    );
}

#[tokio::test]
async fn builds_at_a_time_are_limited() {
    let limits = Limits {
        max_builds: 3,
        ..Limits::default()
    };
    let server = Server::with(limits, ApiConfig::default()).await;
    let mut builds = Vec::new();
    for name in ["a", "b", "c"] {
        builds.push(server.request(json!({"name": name})).await);
    }
    server
        .start_build(&builds[0], &[step("WAIT", "")])
        .await
        .expect(202);
    let answer = server.post("/v3/templates", json!({"name": "d"})).await;
    let text = answer.error(429);
    assert!(
        text.starts_with("you have reached the maximum number of concurrent template builds (3)"),
        "{text}"
    );
    // Those that it would replace are not in its way.
    server.request(json!({"name": "a"})).await;
    server
        .post("/v3/templates", json!({"name": "a:other"}))
        .await
        .error(429);
    let other = server.other_key().await;
    let body = Some(json!({"name": "d"}));
    server
        .call_as(&other, "POST", "/v3/templates", body)
        .await
        .expect(202);
    server.delete("/templates/b").await.expect(204);
    server.delete("/templates/c").await.expect(204);
    server.request(json!({"name": "d"})).await;
}

#[tokio::test]
async fn a_build_needs_one_source() {
    let server = Server::start().await;
    for (body, why) in [
        (json!({}), "fromImage or fromTemplate must be set"),
        (
            json!({"fromImage": "x", "fromTemplate": "base"}),
            "only one of fromImage and fromTemplate can be set",
        ),
        (
            json!({"fromImage": "x", "fromImageRegistry": {"type": "ftp"}}),
            "unknown registry type",
        ),
    ] {
        let build = server.request(json!({"name": "t"})).await;
        let text = server.post(&build.start_path(), body).await.error(500);
        assert_eq!(text, format!("Error when starting template build: {why}"));
        let status = server.status(&build, "").await;
        assert_eq!(status["status"], "error");
        let reason = format!("error when building env: {why}");
        assert_eq!(status["reason"]["message"], json!(reason));
    }
    let build = server.request(json!({"name": "t"})).await;
    let body =
        json!({"fromImage": "x", "fromImageRegistry": {"type": "registry", "username": "u"}});
    let text = server.post(&build.start_path(), body).await.error(400);
    assert_eq!(
        text,
        "validation error: fromImageRegistry: missing password"
    );
    assert_eq!(server.status(&build, "").await["status"], "waiting");
}

#[tokio::test]
async fn a_parent_that_does_not_resolve_fails_the_base_step() {
    let server = Server::start().await;
    let other = server.other_key().await;
    let body = Some(json!({"name": "secret"}));
    server
        .call_as(&other, "POST", "/v3/templates", body)
        .await
        .expect(202);
    server.built(json!({"name": "own:v1"})).await;
    for (parent, why) in [
        ("x", "template 'x' not found"),
        ("other/secret", "template 'other/secret' not found"),
        (
            "own",
            "tag 'default' does not exist for template 'default/own'",
        ),
        (
            "a b",
            "invalid template reference: invalid template ID: a b",
        ),
    ] {
        let build = server.request(json!({"name": "t"})).await;
        let body = json!({"fromTemplate": parent});
        server.post(&build.start_path(), body).await.expect(202);
        let status = server.status(&build, "").await;
        assert_eq!(status["status"], "error");
        let reason = &status["reason"];
        assert_eq!(
            (&reason["message"], &reason["step"]),
            (&json!(why), &json!("base"))
        );
        assert_eq!(messages(&status), [format!("Build failed: {why}")]);
        assert_eq!(reason["logEntries"].as_array().unwrap().len(), 1);
    }
    let build = server.request(json!({"name": "t"})).await;
    let body = json!({"fromTemplate": "own:v1", "steps": [], "readyCmd": "true", "startCmd": ""});
    server.post(&build.start_path(), body).await.expect(202);
    assert_eq!(server.ended(&build).await["status"], "ready");
    let requests = server.builder.requests.lock().unwrap();
    let last = requests.last().unwrap();
    assert!(matches!(
        &last.source,
        warren_template::build::Source::Template { name, image }
            if name == "own:v1" && image.layers == ["sha256-0"]
    ));
    assert_eq!(
        (&last.start_cmd, last.ready_cmd.as_deref()),
        (&None, Some("true"))
    );
}

#[tokio::test]
async fn a_build_runs_once_and_is_building_at_once() {
    let server = Server::start().await;
    let build = server
        .request(json!({"name": "t", "cpuCount": 4, "memoryMB": 2048, "minFreeDiskMb": 20_000}))
        .await;
    let steps = [step("RUN", "hello"), step("WAIT", "")];
    server.start_build(&build, &steps).await.expect(202);
    assert_eq!(server.status(&build, "").await["status"], "building");
    let again = server.start_build(&build, &[]).await;
    assert_eq!(again.error(400), "build is not in waiting state");
    server.builder.gate.add_permits(1);
    let status = server.ended(&build).await;
    assert_eq!(status["status"], "ready");
    let first = format!("Building template {}/{}", build.template, build.build);
    let said = messages(&status);
    assert_eq!(said[..2], [&first, "hello"]);
    assert!(said[2].starts_with("Build finished, took "), "{said:?}");
    assert_eq!(status["logEntries"][1]["step"], "1");
    assert_eq!(status["logEntries"][1]["level"], "info");
    let template = server
        .get(&format!("/templates/{}", build.template))
        .await
        .expect(200);
    let shown = &template["builds"][0];
    assert_eq!(
        (&shown["cpuCount"], &shown["memoryMB"]),
        (&json!(4), &json!(2048))
    );
    assert_eq!(shown["diskSizeMB"], json!(20_000));
    assert!(shown["finishedAt"].is_string());
    server.create(json!({"templateID": "t"})).await;
    let image = server
        .node
        .requests
        .lock()
        .unwrap()
        .last()
        .unwrap()
        .image
        .clone();
    assert_eq!(image.build_id.to_string(), build.build);
    assert_eq!(
        (image.resources.cpu_count, image.resources.memory_mib),
        (4, 2048)
    );
}

#[tokio::test]
async fn a_newer_build_of_the_tag_cancels_the_running_one() {
    let server = Server::start().await;
    let old = server.request(json!({"name": "t"})).await;
    server
        .start_build(&old, &[step("RUN", "x"), step("WAIT", "")])
        .await
        .expect(202);
    let bystander = server.request(json!({"name": "t:v2"})).await;
    server
        .start_build(&bystander, &[step("WAIT", "")])
        .await
        .expect(202);
    let new = server.request(json!({"name": "t"})).await;
    assert_eq!(
        server.status(&old, "").await["status"],
        "building",
        "a request changes nothing"
    );
    server.start_build(&new, &[]).await.expect(202);
    let cancelled = server.status(&old, "").await;
    assert_eq!(cancelled["status"], "error");
    let reason = json!({"message": "build was cancelled", "logEntries": [
        cancelled["logEntries"].as_array().unwrap().last()
    ]});
    assert_eq!(cancelled["reason"], reason);
    assert_eq!(server.ended(&new).await["status"], "ready");
    assert_eq!(server.status(&bystander, "").await["status"], "building");
    let still = server.status(&old, "").await;
    assert_eq!(
        still["reason"]["message"], "build was cancelled",
        "it stays as it was told"
    );
    assert_eq!(messages(&still), messages(&cancelled), "nothing is added");
}

#[tokio::test]
async fn failures_are_told_with_their_step() {
    let server = Server::start().await;
    let build = server.request(json!({"name": "t"})).await;
    let steps = [step("WARN", "careful"), step("FAIL", "false")];
    server.start_build(&build, &steps).await.expect(202);
    let status = server.ended(&build).await;
    assert_eq!(status["status"], "error");
    let reason = &status["reason"];
    assert_eq!(
        reason["message"],
        "failed to run command 'false': exit status 1"
    );
    assert_eq!(reason["step"], "2");
    let entries = reason["logEntries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["level"], "error");
    let build = server.request(json!({"name": "t"})).await;
    server
        .start_build(&build, &[step("PANIC", "")])
        .await
        .expect(202);
    let status = server.ended(&build).await;
    assert_eq!(
        status["reason"]["message"],
        "An internal error occurred. Please try again or contact support with the build ID."
    );
    assert!(status["reason"].get("step").is_none());
}

#[tokio::test]
async fn chunked_bodies_and_agents() {
    let server = Server::start().await;
    let body = r#"{"name": "chunked"}"#;
    let pieces = futures_util::stream::iter(body.as_bytes().chunks(3).map(Ok::<_, std::io::Error>));
    let request = Request::post("/v3/templates").header("x-api-key", &server.key);
    let answer = server
        .send(request.body(Body::from_stream(pieces)).unwrap())
        .await;
    let made = answer.expect(202);
    let path = format!(
        "/v2/templates/{}/builds/{}",
        made["templateID"].as_str().unwrap(),
        made["buildID"].as_str().unwrap()
    );
    let call = async |agent: &str| {
        let request = Request::post(&path)
            .header("x-api-key", &server.key)
            .header("user-agent", agent);
        let body = Body::from(json!({"fromImage": "x"}).to_string());
        server.send(request.body(body).unwrap()).await
    };
    let text = call("e2b-js-sdk/nonsense").await.error(400);
    assert_eq!(
        text,
        "Error when parsing user agent: invalid version 'nonsense'"
    );
    call("e2b-js-sdk/2.49.0 e2b-cli/2.19.0").await.expect(202);
}

#[tokio::test]
async fn every_line_is_delivered_once_and_in_order() {
    let server = Server::start().await;
    let build = server.request(json!({"name": "t"})).await;
    let steps = [
        step("LINES", "1000"),
        step("WARN", "w1"),
        step("WARN", "w2"),
    ];
    server.start_build(&build, &steps).await.expect(202);
    let mut seen: Vec<String> = Vec::new();
    loop {
        let status = server
            .status(&build, &format!("?logsOffset={}", seen.len()))
            .await;
        let page: Vec<_> = messages(&status).into_iter().map(str::to_owned).collect();
        assert!(page.len() <= 100);
        let is_over = status["status"] == "ready" && page.is_empty();
        seen.extend(page);
        if is_over {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(seen.len(), 1004);
    let lines: Vec<_> = seen
        .iter()
        .filter(|text| text.starts_with("line "))
        .collect();
    let expected: Vec<_> = (0..1000).map(|n| format!("line {n}")).collect();
    assert!(lines.into_iter().eq(&expected));
    let short = server.status(&build, "?limit=3&logsOffset=1").await;
    assert_eq!(messages(&short), ["line 0", "line 1", "line 2"]);
    assert_eq!(
        messages(&server.status(&build, "?limit=500").await).len(),
        100
    );
    let warnings = server.status(&build, "?level=warn&logsOffset=1").await;
    assert_eq!(messages(&warnings), ["w2"]);
    server
        .get(&build.path("status?level=loud"))
        .await
        .error(400);
    server
        .get(&build.path("status?logsOffset=-1"))
        .await
        .error(400);
}

#[tokio::test]
async fn logs_by_time() {
    let server = Server::start().await;
    let build = server.request(json!({"name": "t"})).await;
    let steps = [step("RUN", "a"), step("WARN", "b")];
    server.start_build(&build, &steps).await.expect(202);
    server.ended(&build).await;
    let logs = async |query: &str| {
        let answer = server
            .get(&build.path(&format!("logs{query}")))
            .await
            .expect(200);
        let logs = answer["logs"].as_array().unwrap();
        logs.iter()
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let forward = logs("").await;
    assert_eq!(forward[1..3], ["a", "b"]);
    let mut backward = logs("?direction=backward").await;
    backward.reverse();
    assert_eq!(backward, forward);
    assert_eq!(
        logs("?limit=1&direction=backward&level=warn&source=temporary").await,
        ["b"]
    );
    let later = Timestamp::now().as_millisecond() + 60_000;
    assert!(logs(&format!("?cursor={later}")).await.is_empty());
    assert_eq!(
        logs(&format!("?cursor={later}&direction=backward"))
            .await
            .len(),
        forward.len()
    );
    server
        .get(&build.path("logs?direction=up"))
        .await
        .error(400);
    server.get(&build.path("logs?source=none")).await.error(400);
}

#[tokio::test]
async fn unknown_builds_and_those_of_other_teams() {
    let server = Server::start().await;
    let build = server.request(json!({"name": "t"})).await;
    let other = server.other_key().await;
    let unknown = Requested {
        build: Uuid::new_v4().to_string(),
        ..build.clone()
    };
    let malformed = Requested {
        build: "x".to_owned(),
        ..build.clone()
    };
    for route in ["status", "logs"] {
        let text = server.get(&unknown.path(route)).await.error(400);
        assert_eq!(text, format!("Build '{}' not found", unknown.build));
        let text = server.get(&malformed.path(route)).await.error(400);
        assert_eq!(text, "Invalid build id");
        let answer = server
            .call_as(&other, "GET", &build.path(route), None)
            .await;
        let text = format!(
            "You don't have access to this sandbox template ({})",
            build.template
        );
        assert_eq!(answer.error(403), text);
    }
    let text = server.start_build(&unknown, &[]).await.error(404);
    assert!(text.starts_with("Error when getting template:"), "{text}");
    let text = server.start_build(&malformed, &[]).await.error(400);
    assert_eq!(text, "Invalid build ID: x");
    let body = Some(json!({"fromImage": "x"}));
    let answer = server
        .call_as(&other, "POST", &build.start_path(), body)
        .await;
    assert_eq!(
        answer.error(403),
        "User does not have access to the template"
    );
}

#[tokio::test]
async fn a_build_that_ran_when_the_server_stopped_has_failed() {
    let server = Server::start().await;
    let waiting = server.request(json!({"name": "w"})).await;
    let running = server.request(json!({"name": "r"})).await;
    server
        .start_build(&running, &[step("RUN", "before"), step("WAIT", "")])
        .await
        .expect(202);
    // As after a kill: nothing is told to anybody.
    let server = server.restart().await;
    let status = server.status(&running, "").await;
    assert_eq!(status["status"], "error");
    let why = status["reason"]["message"].as_str().unwrap();
    assert!(why.contains("the server stopped"), "{why}");
    let said = messages(&status);
    assert_eq!(said[1], "before", "what it said is kept");
    assert_eq!(said.len(), 3);
    assert_eq!(server.status(&waiting, "").await["status"], "waiting");
    let query = format!("?logsOffset={}", said.len());
    assert!(messages(&server.status(&running, &query).await).is_empty());
}

#[tokio::test]
async fn waiting_is_limited_and_so_is_running() {
    let limits = Limits {
        build_time: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::with(limits, ApiConfig::default()).await;
    let waiting = server.request(json!({"name": "w"})).await;
    let running = server.request(json!({"name": "r"})).await;
    server
        .start_build(&running, &[step("WAIT", "")])
        .await
        .expect(202);
    assert_eq!(
        server.ended(&running).await["reason"]["message"],
        "build timed out"
    );
    server.control.purge(Timestamp::now()).await.unwrap();
    assert_eq!(server.status(&waiting, "").await["status"], "waiting");
    let later = Timestamp::now() + Duration::from_secs(41 * 60);
    server.control.purge(later).await.unwrap();
    let status = server.status(&waiting, "").await;
    assert_eq!(
        status["reason"]["message"],
        "build is in waiting state for too long"
    );
}

#[tokio::test]
async fn older_dialects() {
    let server = Server::start().await;
    let answer = server
        .post("/v2/templates", json!({"alias": "old"}))
        .await
        .expect(202);
    assert_eq!(answer["aliases"], json!(["old"]));
    assert_eq!(answer["public"], json!(false));
    for field in [
        "templateID",
        "buildID",
        "createdAt",
        "createdBy",
        "envdVersion",
    ] {
        assert!(answer.get(field).is_some(), "{field}");
    }
    let token = server.token(warren_types::Role::Admin).await;
    for path in ["/templates", "/templates/x", "/templates/x/builds/y"] {
        let request = Request::post(path).header("authorization", format!("Bearer {token}"));
        let answer = server.send(request.body(Body::from("{}")).unwrap()).await;
        assert!(answer.error(400).contains("/v3/templates"));
    }
}

#[tokio::test]
async fn the_administrator_cancels_a_teams_builds() {
    let config = ApiConfig {
        admin_token: Some(warren_service::Secret::new("root".to_owned())),
        ..ApiConfig::default()
    };
    let server = Server::with(Limits::default(), config).await;
    let waiting = server.request(json!({"name": "w"})).await;
    let running = server.request(json!({"name": "r"})).await;
    server
        .start_build(&running, &[step("WAIT", "")])
        .await
        .expect(202);
    let path = format!("/admin/teams/{}/builds/cancel", server.team.id);
    let request = Request::post(&path).header("x-admin-token", "root");
    let answer = server.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        answer.expect(200),
        json!({"cancelledCount": 2, "failedCount": 0})
    );
    for build in [&waiting, &running] {
        let status = server.status(build, "").await;
        assert_eq!(status["reason"]["message"], "build was cancelled");
    }
}

#[tokio::test]
async fn variables_of_the_build_are_those_of_its_sandboxes() {
    let server = Server::start().await;
    let build = server.request(json!({"name": "t"})).await;
    let set = |name: &str, value: &str| json!({"type": "ENV", "args": [name, value]});
    let steps = [set("A", "1"), set("PATH", "/x"), set("HOME", "/y")];
    server.start_build(&build, &steps).await.expect(202);
    server.ended(&build).await;
    server.create(json!({"templateID": "t"})).await;
    let env = server
        .node
        .requests
        .lock()
        .unwrap()
        .last()
        .unwrap()
        .image
        .env
        .clone();
    assert_eq!(env, [("A".to_owned(), "1".to_owned())].into());
    let child = server.request(json!({"name": "child"})).await;
    let body = json!({"fromTemplate": "t"});
    server.post(&child.start_path(), body).await.expect(202);
    server.ended(&child).await;
    let requests = server.builder.requests.lock().unwrap();
    let warren_template::build::Source::Template { image, .. } = &requests.last().unwrap().source
    else {
        panic!("no parent");
    };
    assert_eq!(
        image.env["PATH"], "/x",
        "builds that start from it get all of them"
    );
}

#[tokio::test]
async fn a_template_is_had_as_an_image_by_who_may_use_it() {
    let server = Server::start().await;
    let build = server.built(json!({"name": "t", "tags": ["v1"]})).await;
    for (reference, tag) in [
        ("t%3Av1", "v1"),
        (&format!("t%3A{}", build.build), &*build.build),
    ] {
        let path = format!("/templates/{reference}/image");
        let image = server.get(&path).await;
        assert_eq!(image.status, 200, "{}", image.text);
        assert_eq!(image.text, format!("sha256-0 as {tag}"));
        assert_eq!(image.header("content-type"), Some("application/x-tar"));
        let length = image.text.len().to_string();
        assert_eq!(image.header("content-length"), Some(length.as_str()));
    }
    let none = server.get("/templates/t/image").await.error(404);
    assert!(none.starts_with("tag 'default' does not exist"), "{none}");
    let path = format!("/templates/{}%3Av1/image", build.template);
    let stranger = server.other_key().await;
    let hidden = server.call_as(&stranger, "GET", &path, None).await;
    assert!(hidden.error(404).ends_with("not found"));
}

#[tokio::test]
async fn layers_of_templates_that_are_there_are_kept() {
    let server = Server::start().await;
    let build = server.built(json!({"name": "t"})).await;
    let told = |server: &Server| server.builder.in_use.lock().unwrap().pop().unwrap();
    let collect = async |after: i64| {
        let at = Timestamp::now() + jiff::SignedDuration::from_secs(after);
        server.control.collect_layers(at).await.unwrap();
        told(&server).contains("sha256-0")
    };
    assert!(collect(0).await);
    let path = format!("/templates/{}", build.template);
    server.delete(&path).await.expect(204);
    assert!(collect(0).await, "a create may be under way");
    assert!(!collect(3601).await);
}
