//! Checks 93–97 of the API contract, as far as they concern the control plane.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use warren_types::{LogEntry, LogLevel, MetricsPoint};

use crate::server::Server;

fn point(at: Timestamp, pct: f64) -> MetricsPoint {
    MetricsPoint {
        at,
        cpu_count: 2,
        cpu_used_pct: pct,
        mem_used: 10,
        mem_total: 20,
        mem_cache: 5,
        disk_used: 30,
        disk_total: 40,
    }
}

async fn sampled(server: &Server, id: &str, count: usize) -> Value {
    for _ in 0..500 {
        let points = server
            .get(&format!("/sandboxes/{id}/metrics"))
            .await
            .expect(200);
        if points.as_array().unwrap().len() >= count {
            return points;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no figures");
}

#[tokio::test]
async fn figures_of_a_sandbox() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    assert_eq!(
        server
            .get(&format!("/sandboxes/{id}/metrics"))
            .await
            .expect(200),
        json!([])
    );
    // Two in one span of five seconds are averaged, the third stands alone.
    let now = Timestamp::now().as_second() + 10;
    let span = now - now.rem_euclid(5);
    let at = |offset: i64| Timestamp::from_second(span + offset).unwrap();
    for (offset, pct) in [(0, 10.0), (1, 30.0), (5, 50.0)] {
        server.node.sample(&id, point(at(offset), pct)).await;
    }
    let query = format!(
        "/sandboxes/{id}/metrics?start={}&end={}",
        span - 60,
        span + 60
    );
    let mut points = json!([]);
    for _ in 0..500 {
        points = server.get(&query).await.expect(200);
        if points.as_array().unwrap().len() == 2 && points[0]["cpuUsedPct"] == 20.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let expected = json!({
        "timestamp": at(1).to_string(), "timestampUnix": span + 1, "cpuCount": 2,
        "cpuUsedPct": 20.0, "memUsed": 10, "memTotal": 20, "memCache": 5, "diskUsed": 30,
        "diskTotal": 40,
    });
    assert_eq!(points[0], expected);
    assert_eq!(points[1]["cpuUsedPct"], json!(50.0));
    let before = format!("/sandboxes/{id}/metrics?start=1&end=2");
    assert_eq!(server.get(&before).await.expect(200), json!([]));
    let reversed = format!("/sandboxes/{id}/metrics?start=5&end=2");
    assert_eq!(
        server.get(&reversed).await.error(400),
        "Invalid time range for metrics"
    );
    let negative = format!("/sandboxes/{id}/metrics?start=-1");
    assert!(
        server
            .get(&negative)
            .await
            .error(400)
            .starts_with("validation error")
    );
}

#[tokio::test]
async fn figures_stay_after_the_end() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    server.node.sample(&id, point(Timestamp::now(), 1.0)).await;
    sampled(&server, &id, 1).await;
    server.delete(&format!("/sandboxes/{id}")).await.expect(204);
    let points = sampled(&server, &id, 1).await;
    assert_eq!(points.as_array().unwrap().len(), 1);
    // Whoever follows them learns of the end.
    let last = points[0]["timestampUnix"].as_i64().unwrap();
    let follow = |start: i64| format!("/sandboxes/{id}/metrics?start={start}");
    assert_eq!(server.get(&follow(last - 1)).await.expect(200), points);
    server.get(&follow(last)).await.error(404);
    let past = format!("{}&end={}", follow(last + 1), last + 2);
    assert_eq!(server.get(&past).await.expect(200), json!([]));
    server.control.purge(Timestamp::now()).await.unwrap();
    sampled(&server, &id, 1).await;
    // Past the retention they are forgotten, and the sandbox with them.
    let later = Timestamp::now() + Duration::from_secs(8 * 24 * 3600);
    server.control.purge(later).await.unwrap();
    server
        .get(&format!("/sandboxes/{id}/metrics"))
        .await
        .error(404);
}

#[tokio::test]
async fn newest_figures_of_several() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    server.node.sample(&id, point(Timestamp::now(), 1.0)).await;
    sampled(&server, &id, 1).await;
    let path = format!("/sandboxes/metrics?sandbox_ids={id}%2Cinope");
    let latest = server.get(&path).await.expect(200);
    let known: Vec<_> = latest["sandboxes"].as_object().unwrap().keys().collect();
    assert_eq!(known, [&id]);
    let many = vec!["i1"; 101].join(",");
    let answer = server
        .get(&format!("/sandboxes/metrics?sandbox_ids={many}"))
        .await;
    assert_eq!(
        answer.error(400),
        "Too many sandboxes requested, maximum is 100"
    );
    server
        .get("/sandboxes/metrics?sandbox_ids=a-b-c")
        .await
        .error(400);
    server.get("/sandboxes/metrics").await.error(400);
}

#[tokio::test]
async fn figures_of_a_team() {
    let server = Server::start().await;
    let team = server.team.id;
    server.create(json!({})).await;
    server.create(json!({})).await;
    let points = server
        .get(&format!("/teams/{team}/metrics"))
        .await
        .expect(200);
    let last = points.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["concurrentSandboxes"], json!(2));
    assert!(last["sandboxStartRate"].as_f64().unwrap() > 0.0);
    let path = format!("/teams/{team}/metrics/max?metric=concurrent_sandboxes");
    assert_eq!(server.get(&path).await.expect(200)["value"], json!(2.0));
    server
        .get(&format!("/teams/{team}/metrics/max?metric=x"))
        .await
        .error(400);
    let reversed = server
        .get(&format!("/teams/{team}/metrics?start=5&end=2"))
        .await;
    assert!(reversed.error(400).starts_with("end time cannot be"));
    let other = "00000000-0000-4000-8000-000000000000";
    let foreign = server
        .get(&format!("/teams/{other}/metrics"))
        .await
        .error(403);
    let text = format!("You ({team}) are not authorized to access this team's ({other}) metrics");
    assert_eq!(foreign, text);
}

fn entry(ms: i64, level: LogLevel, message: &str) -> LogEntry {
    LogEntry {
        timestamp: Timestamp::from_millisecond(ms).unwrap(),
        level,
        message: message.to_owned(),
        fields: [("logger".to_owned(), "process".to_owned())].into(),
    }
}

#[tokio::test]
async fn logs_of_both_versions() {
    let server = Server::start().await;
    let id = server.create(json!({})).await;
    server.node.log(&id, entry(1000, LogLevel::Info, "one"));
    server.node.log(&id, entry(2000, LogLevel::Error, "two"));
    let v1 = server
        .get(&format!("/sandboxes/{id}/logs"))
        .await
        .expect(200);
    let line: Value = serde_json::from_str(v1["logs"][0]["line"].as_str().unwrap()).unwrap();
    assert_eq!(
        line,
        json!({"level": "info", "logger": "process", "message": "one"})
    );
    assert_eq!(
        v1["logEntries"][1],
        json!({"timestamp": "1970-01-01T00:00:02Z", "level": "error", "message": "two",
               "fields": {"logger": "process"}})
    );
    let since = server
        .get(&format!("/sandboxes/{id}/logs?start=1001"))
        .await
        .expect(200);
    assert_eq!(since["logs"].as_array().unwrap().len(), 1);
    let none = server
        .get(&format!("/sandboxes/{id}/logs?limit=0"))
        .await
        .expect(200);
    assert_eq!(none, json!({"logs": [], "logEntries": []}));
    let v2 = |query: &str| {
        let path = format!("/v2/sandboxes/{id}/logs{query}");
        let server = &server;
        async move {
            let logs = server.get(&path).await.expect(200)["logs"].clone();
            let text = |entry: &Value| entry["message"].as_str().unwrap().to_owned();
            logs.as_array()
                .unwrap()
                .iter()
                .map(text)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(v2("").await, ["two", "one"]);
    assert_eq!(v2("?direction=forward").await, ["one", "two"]);
    assert_eq!(v2("?level=warn").await, ["two"]);
    assert_eq!(v2("?search=ne").await, ["one"]);
    assert_eq!(v2("?cursor=1000").await, ["one"]);
    for bad in ["?direction=up", "?level=loud", "?limit=1001", "?cursor=x"] {
        server
            .get(&format!("/v2/sandboxes/{id}/logs{bad}"))
            .await
            .error(400);
    }
}
