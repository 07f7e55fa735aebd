//! Checks 45–47, 57–64, 70, 73, 74 and 92 of the API contract.

use serde_json::json;
use warren_api::ApiConfig;
use warren_control::Limits;
use warren_types::EndReason;

use crate::server::{Server, ahead, is_about};

#[tokio::test]
async fn details_have_all_required_fields() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    let detail = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    for field in [
        "templateID",
        "sandboxID",
        "clientID",
        "startedAt",
        "endAt",
        "cpuCount",
        "memoryMB",
        "diskSizeMB",
        "state",
        "envdVersion",
        "metadata",
        "lifecycle",
        "domain",
    ] {
        assert!(detail.get(field).is_some(), "{field}");
    }
    assert_eq!(detail["state"], "running");
    assert_eq!(
        (&detail["cpuCount"], &detail["memoryMB"]),
        (&json!(2), &json!(512))
    );
    assert!(detail["startedAt"].as_str().unwrap().ends_with('Z'));
    assert!(ahead(&detail["endAt"]) > 0);
    let unknown = server.get("/sandboxes/inope").await.error(404);
    assert_eq!(
        unknown,
        "Sandbox \"inope\" doesn't exist or you don't have access to it"
    );
}

#[tokio::test]
async fn a_kill_is_seen_at_once_and_the_second_finds_nothing() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    assert_eq!(server.listed("").await, std::slice::from_ref(&id));
    let path = format!("/sandboxes/{id}");
    server.delete(&path).await.expect(204);
    assert!(server.listed("").await.is_empty());
    server.get(&path).await.error(404);
    server.delete(&path).await.error(404);
    server
        .post(&format!("/v2{path}/connect"), json!({}))
        .await
        .error(404);
    assert_eq!(server.node.count(), 0);
}

#[tokio::test]
async fn a_timeout_shortens_and_extends() {
    let server = Server::start().await;
    let id = server.create(json!({"timeout": 300})).await;
    let path = format!("/sandboxes/{id}");
    for seconds in [30, 600] {
        let body = json!({"timeout": seconds});
        server
            .post(&format!("{path}/timeout"), body)
            .await
            .expect(204);
        let detail = server.get(&path).await.expect(200);
        assert!(is_about(&detail["endAt"], seconds), "{detail}");
        let end: jiff::Timestamp = detail["endAt"].as_str().unwrap().parse().unwrap();
        assert_eq!(end.as_second(), server.node.end_at(&id).as_second());
    }
    let negative = server
        .post(&format!("{path}/timeout"), json!({"timeout": -1}))
        .await;
    assert!(negative.error(400).starts_with("validation error"));
    let missing = server.post(&format!("{path}/timeout"), json!({})).await;
    assert!(missing.error(400).starts_with("validation error"));
    server
        .post("/sandboxes/inope/timeout", json!({"timeout": 5}))
        .await
        .error(404);
}

#[tokio::test]
async fn a_timeout_of_zero_ends_it() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    let path = format!("/sandboxes/{id}");
    server
        .post(&format!("{path}/timeout"), json!({"timeout": 0}))
        .await
        .expect(204);
    server.node.tick().await;
    server.until(&path, 404).await;
    assert!(server.listed("").await.is_empty());
}

#[tokio::test]
async fn a_sandbox_that_dies_disappears_and_frees_its_place() {
    let limits = Limits {
        max_sandboxes: 1,
        ..Limits::default()
    };
    let server = Server::with(limits, ApiConfig::default()).await;
    let id = server.create(json!({})).await;
    server
        .node
        .die(&id.parse().unwrap(), EndReason::OutOfMemory)
        .await;
    server.until(&format!("/sandboxes/{id}"), 404).await;
    server.create(json!({})).await;
}

#[tokio::test]
async fn a_sandbox_that_the_node_lost_does_not_keep_its_place() {
    let limits = Limits {
        max_sandboxes: 1,
        ..Limits::default()
    };
    let server = Server::with(limits, ApiConfig::default()).await;
    for call in ["kill", "timeout", "connect", "network"] {
        let id = server.create(json!({})).await;
        server.node.lose(&id);
        let path = format!("/sandboxes/{id}");
        let answer = match call {
            "kill" => server.delete(&path).await,
            "timeout" => {
                server
                    .post(&format!("{path}/timeout"), json!({"timeout": 9}))
                    .await
            }
            "connect" => server.post(&format!("/v2{path}/connect"), json!({})).await,
            _ => server.put(&format!("{path}/network"), json!({})).await,
        };
        answer.error(404);
        assert!(server.listed("").await.is_empty(), "{call}");
    }
}

#[tokio::test]
async fn a_timeout_beyond_the_maximum_is_capped() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    let path = format!("/sandboxes/{id}");
    server
        .post(&format!("{path}/timeout"), json!({"timeout": 1_000_000}))
        .await
        .expect(204);
    let detail = server.get(&path).await.expect(200);
    let time = |name: &str| {
        detail[name]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    assert_eq!(
        time("endAt").duration_since(time("startedAt")).as_secs(),
        86_400
    );
}

#[tokio::test]
async fn past_its_maximum_a_sandbox_is_not_extended() {
    let limits = Limits {
        max_length: std::time::Duration::from_secs(1),
        ..Limits::default()
    };
    let server = Server::with(limits, ApiConfig::default()).await;
    let id = server.create(json!({"timeout": 1})).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let path = format!("/sandboxes/{id}");
    let text = "Max instance length exceeded";
    let answer = server
        .post(&format!("{path}/timeout"), json!({"timeout": 1}))
        .await;
    assert_eq!(answer.error(400), text);
    let answer = server
        .post(&format!("/v2{path}/connect"), json!({"timeout": 1}))
        .await;
    assert_eq!(answer.error(400), text);
    let answer = server.post(&format!("{path}/refreshes"), json!({})).await;
    assert_eq!(answer.error(400), text);
}

#[tokio::test]
async fn a_refresh_only_extends() {
    let server = Server::start().await;
    let id = server.create(json!({"timeout": 300})).await;
    let path = format!("/sandboxes/{id}");
    let before = server.node.end_at(&id);
    for body in [json!({"duration": 10}), json!({}), json!({"duration": 0})] {
        server
            .post(&format!("{path}/refreshes"), body)
            .await
            .expect(204);
        assert_eq!(server.node.end_at(&id), before);
    }
    server
        .call_as(&server.key, "POST", &format!("{path}/refreshes"), None)
        .await
        .expect(204);
    server
        .post(&format!("{path}/refreshes"), json!({"duration": 600}))
        .await
        .expect(204);
    assert!(is_about(&server.get(&path).await.expect(200)["endAt"], 600));
    for bad in [3601, -1] {
        server
            .post(&format!("{path}/refreshes"), json!({"duration": bad}))
            .await
            .error(400);
    }
}

#[tokio::test]
async fn a_connect_never_shortens() {
    let server = Server::start().await;
    let made = server
        .post("/v2/sandboxes", json!({"templateID": "base"}))
        .await
        .expect(201);
    let id = made["sandboxID"].as_str().unwrap().to_owned();
    let (v1, v2) = (
        format!("/sandboxes/{id}/connect"),
        format!("/v2/sandboxes/{id}/connect"),
    );
    let before = server.node.end_at(&id);
    let connected = server.post(&v2, json!({"timeout": 10})).await.expect(200);
    assert_eq!(connected, made);
    server.post(&v1, json!({"timeout": 0})).await.expect(200);
    assert_eq!(server.node.end_at(&id), before);
    server
        .post(&v2, json!({"timeout": 600, "memory": false}))
        .await
        .expect(200);
    assert!(is_about(
        &server.get(&format!("/sandboxes/{id}")).await.json()["endAt"],
        600
    ));
    // Without a body: 300 s, which is less than it has.
    server
        .call_as(&server.key, "POST", &v2, None)
        .await
        .expect(200);
    let zero = server.post(&v2, json!({"timeout": 0})).await;
    assert_eq!(zero.error(400), "Timeout must be greater than 0");
    let long = server.post(&v2, json!({"timeout": 90_000})).await;
    assert_eq!(long.error(400), "Timeout cannot be greater than 24 hours");
    let missing = server.post(&v1, json!({})).await;
    assert!(missing.error(400).starts_with("validation error"));
    let unknown = server.post("/v2/sandboxes/inope/connect", json!({})).await;
    assert!(
        unknown
            .error(404)
            .contains("doesn't exist or you don't have access")
    );
    let first = server
        .post("/v2/sandboxes/inope/connect", json!({"timeout": 0}))
        .await;
    first.error(400);
}

#[tokio::test]
async fn the_network_is_replaced_as_a_whole() {
    let server = Server::start().await;
    let id = server
        .create(json!({"network": {"allowPublicTraffic": false, "httpsPorts": [8443]}}))
        .await;
    let (path, put) = (
        format!("/sandboxes/{id}"),
        format!("/sandboxes/{id}/network"),
    );
    let internet = || server.node.egress.lock().unwrap()[&id.parse().unwrap()].internet;
    server
        .put(&put, json!({"denyOut": ["0.0.0.0/0"]}))
        .await
        .expect(204);
    assert!(!internet());
    let network = server.get(&path).await.expect(200)["network"].clone();
    let expected = json!({"allowPublicTraffic": false, "httpsPorts": [8443],
                          "denyOut": ["0.0.0.0/0"]});
    assert_eq!(network, expected);
    server.put(&put, json!({})).await.expect(204);
    assert!(internet());
    server
        .put(&put, json!({"allow_internet_access": false}))
        .await
        .expect(204);
    assert!(!internet());
    // Left as it is when not given.
    server.put(&put, json!({})).await.expect(204);
    assert!(!internet());
    assert_eq!(
        server.get(&path).await.expect(200)["allowInternetAccess"],
        json!(false)
    );
    server
        .put(&put, json!({"allow_internet_access": true}))
        .await
        .expect(204);
    assert!(internet());
    let finer = json!({"denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1", "Example.com"]});
    server.put(&put, finer).await.expect(204);
    let egress = server.node.egress.lock().unwrap()[&id.parse().unwrap()].clone();
    assert_eq!(egress.egress.unwrap().domains, ["example.com"]);
    let bad = server.put(&put, json!({"denyOut": ["nope"]})).await;
    assert_eq!(bad.error(400), "invalid denied CIDR nope");
    server
        .put("/sandboxes/inope/network", json!({}))
        .await
        .error(404);
}
