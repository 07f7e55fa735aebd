use std::sync::Arc;

use http::Response;
use warren_proxy::ConnectionLimit;
use warren_service::Secret;

use crate::support::{Body, World, echo, empty, full};

const TOKEN: &str = "e2b-traffic-access-token";
const FIREFOX: (&str, &str) = ("user-agent", "Mozilla/5.0 Firefox/140.0");

async fn private() -> World {
    let world = World::start().await;
    let run = world.run_with("iabc", |route| {
        route.traffic_access_token = Some(Secret::new("right".to_owned()));
    });
    run.ports.open(8080, world.http_guest(echo).await);
    run.ports.open(49983, world.http_guest(echo).await);
    world
}

#[tokio::test]
async fn reserved_agent_routes_are_refused_even_without_a_sandbox() {
    let world = private().await;
    for host in ["49983-iabc.d", "49983-inone.d"] {
        for (path, route) in [
            ("/init", "/init"),
            ("//init/", "/init"),
            ("/x/../init", "/init"),
            ("/%69nit?x=1", "/init"),
            ("/upgrade", "/upgrade"),
            ("/freeze", "/freeze"),
        ] {
            let message = "This endpoint is reserved for the E2B control plane and is not \
                           reachable through the sandbox URL";
            world.ask("POST", host, path, &[]).await.expect(
                404,
                &format!(r#"{{"message":"{message}","path":"{route}","code":404}}"#),
            );
        }
    }
    let page = world.get("49983-iabc.d", "/init", &[FIREFOX]).await;
    page.contains(404, "Endpoint Not Available");
}

#[tokio::test]
async fn a_users_route_of_the_same_name_is_forwarded() {
    let world = private().await;
    world
        .get("8080-iabc.d", "/init", &[(TOKEN, "right")])
        .await
        .contains(200, "GET /init\n");
}

#[tokio::test]
async fn a_private_sandbox_wants_its_token() {
    let world = private().await;
    world
        .get("8080-iabc.d", "/", &[])
        .await
        .contains(403, "is missing");
    world
        .get("8080-iabc.d", "/", &[(TOKEN, "wrong")])
        .await
        .contains(403, "is invalid");
    world
        .get("8080-iabc.d", "/", &[("E2B-Traffic-Access-Token", "right")])
        .await
        .contains(200, "e2b-traffic-access-token: right\n");
    world
        .get("49983-iabc.d", "/health", &[])
        .await
        .contains(200, "GET /health\n");
    let page = world.get("8080-iabc.d", "/", &[FIREFOX]).await;
    page.contains(403, "Missing Traffic Access Token");
    page.contains(403, "iabc");
}

#[tokio::test]
async fn a_private_sandboxs_preflight_needs_no_token() {
    let world = private().await;
    let origin = ("origin", "https://page.example");
    let asked = [origin, ("access-control-request-method", "GET")];
    let preflight = world.ask("OPTIONS", "8080-iabc.d", "/", &asked).await;
    preflight.expect(204, "");
    let actual = world.get("8080-iabc.d", "/", &[origin]).await;
    actual.contains(403, "is missing");
    assert_eq!(actual.headers["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn the_host_can_be_masked() {
    let world = World::start().await;
    let run = world.run_with("iabc", |route| {
        route.mask_request_host = Some("localhost:${PORT}".to_owned());
    });
    run.ports.open(8080, world.http_guest(echo).await);
    run.ports.open(49983, world.http_guest(echo).await);
    let answer = world
        .get("8080-iabc.d", "/", &[("x-forwarded-host", "evil")])
        .await;
    answer.contains(200, "host: localhost:8080\n");
    answer.contains(200, "x-forwarded-host: 8080-iabc.d\n");
    assert!(!answer.text.contains("evil"));
    let agent = world.get("49983-iabc.d", "/", &[]).await;
    agent.contains(200, "host: 49983-iabc.d\n");
    assert!(!agent.text.contains("x-forwarded-host"));
}

#[tokio::test]
async fn forwarding_headers_of_clients_are_dropped() {
    let world = World::start().await;
    let run = world.run("iabc");
    run.ports.open(8080, world.http_guest(echo).await);
    let sent = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=1.2.3.4"),
        ("accept", "x/kept"),
    ];
    let answer = world.get("8080-iabc.d", "/", &sent).await;
    answer.contains(200, "accept: x/kept\n");
    assert!(
        !answer.text.contains("forwarded") && !answer.text.contains("encoding"),
        "{answer:?}"
    );
}

/// A guest that answers at once and keeps its body open for ever.
async fn endless(world: &World) -> std::net::SocketAddr {
    world
        .http_guest(|request| async move {
            if request.uri().path() == "/short" {
                return Response::new(full("done"));
            }
            let frames = futures_util::stream::pending();
            Response::new(Body::new(http_body_util::StreamBody::new(frames)))
        })
        .await
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused() {
    let world = World::start().await;
    let run = world.run_with("iabc", |route| {
        route.connections = Arc::new(ConnectionLimit::new(Some(2)));
    });
    run.ports.open(80, endless(&world).await);
    let request = || {
        http::Request::get("/")
            .header("host", "80-iabc.d")
            .body(empty())
            .unwrap()
    };
    let first = world.h1(request()).await;
    let _second = world.h1(request()).await;
    let message = "The sandbox has too many concurrent incoming connections (limit: 2)";
    world.get("80-iabc.d", "/short", &[]).await.expect(
        429,
        &format!(r#"{{"sandboxId":"iabc","message":"{message}","code":429,"connectionLimit":2}}"#),
    );
    drop(first);
    crate::support::within(async {
        while world.get("80-iabc.d", "/short", &[]).await.status == 429 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // A finished request has given its place back by the time its answer is read.
    for _ in 0..5 {
        world
            .get("80-iabc.d", "/short", &[])
            .await
            .expect(200, "done");
    }
}

#[tokio::test]
async fn many_requests_pass_without_a_limit() {
    let world = World::start().await;
    let run = world.run("iabc");
    run.ports.open(80, world.http_guest(echo).await);
    let requests = (0..200).map(|_| world.get("80-iabc.d", "/", &[]));
    for answer in futures_util::future::join_all(requests).await {
        answer.contains(200, "GET /\n");
    }
}
