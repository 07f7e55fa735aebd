use crate::support::{World, echo, empty, read, within};
use http::Request;

async fn world() -> World {
    let world = World::start().await;
    let run = world.run("iabc");
    run.ports.open(3000, world.http_guest(echo).await);
    run.ports.open(49983, world.http_guest(echo).await);
    world
}

#[tokio::test]
async fn the_host_names_port_and_sandbox() {
    let world = world().await;
    let answer = world.get("3000-iabc.d", "/x?y=1", &[]).await;
    answer.contains(200, "GET /x?y=1\n");
    answer.contains(200, "host: 3000-iabc.d\n");
    world
        .get("3000-iabc-abc123.other.example:8443", "/", &[])
        .await
        .contains(200, "host: 3000-iabc-abc123.other.example:8443\n");
}

#[tokio::test]
async fn routing_headers_count_on_shared_hosts() {
    let world = world().await;
    let named = [("E2b-Sandbox-Id", "iabc"), ("E2b-Sandbox-Port", "49983")];
    for host in ["127.0.0.1:3000", "[::1]:3000", "localhost:3000"] {
        let answer = world.get(host, "/health", &named).await;
        answer.contains(200, &format!("host: {host}\n"));
        answer.contains(200, "e2b-sandbox-id: iabc\n");
    }
    let shared = world.get("sandbox.d:81", "/health", &named).await;
    shared.contains(200, "host: 49983-iabc.d:81\n");
}

#[tokio::test]
async fn a_sandbox_page_cannot_redirect_itself() {
    let world = world().await;
    let named = [("e2b-sandbox-id", "iother"), ("e2b-sandbox-port", "80")];
    world
        .get("3000-iabc.d", "/", &named)
        .await
        .contains(200, "host: 3000-iabc.d\n");
}

#[tokio::test]
async fn malformed_requests_are_told_apart() {
    let world = world().await;
    let id_only = [("e2b-sandbox-id", "iabc")];
    world
        .get("sandbox.d", "/", &id_only)
        .await
        .expect(400, "missing header\n");
    world
        .get("sandbox.d", "/", &[])
        .await
        .expect(400, "Invalid host\n");
    world
        .get("localhost", "/", &[])
        .await
        .expect(400, "Invalid host\n");
    world
        .get("3000-iabc_UPPER.d", "/", &[])
        .await
        .expect(400, "Invalid sandbox ID\n");
    let answer = world.get("abc-iabc.d", "/", &[]).await;
    answer.expect(400, "Invalid sandbox port\n");
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    let hostless = world.raw("GET / HTTP/1.0\r\n\r\n").await;
    assert!(
        hostless.contains(" 400 ") && hostless.ends_with("Invalid host\n"),
        "{hostless}"
    );
}

#[tokio::test]
async fn http2_by_prior_knowledge_is_served() {
    let world = world().await;
    let mut sender = world.h2().await;
    let request = Request::builder()
        .uri("http://3000-iabc.d/x?y=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(empty())
        .unwrap();
    let answer = read(within(sender.send_request(request)).await.unwrap()).await;
    answer.contains(200, "GET /x?y=1\n");
    answer.contains(200, "host: 3000-iabc.d\n");
    answer.contains(200, "cookie: a=1; b=2\n");
}
