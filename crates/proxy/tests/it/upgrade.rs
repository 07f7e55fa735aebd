use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use warren_proxy::ListenerConfig;

use crate::support::{Body, Run, World, echo, empty, within};

/// Switches to a protocol that greets and then echoes bytes.
async fn switching(mut request: Request<Incoming>) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let answer = Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", request.headers()["upgrade"].clone())
        .header("sec-websocket-accept", "accepted")
        .body(empty())
        .unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "the guest's side of the test; ends with it"
    )]
    tokio::spawn(async move {
        let stream = TokioIo::new(upgrade.await.unwrap());
        let (mut reader, mut writer) = tokio::io::split(stream);
        writer.write_all(b"hello ").await.unwrap();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    answer
}

async fn switched(world: &World) -> (Run, TcpStream) {
    let run = world.run("iabc");
    run.ports.open(80, world.http_guest(switching).await);
    let mut client = world.connect().await;
    let request = "GET /ws HTTP/1.1\r\nhost: 80-iabc.d\r\nconnection: keep-alive, Upgrade\r\n\
                   upgrade: websocket\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(client.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    for part in [
        "http/1.1 101 ",
        "upgrade: websocket",
        "connection: upgrade",
        "-accept: accepted",
    ] {
        assert!(head.contains(part), "{part}: {head}");
    }
    (run, client)
}

async fn expect(client: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    within(client.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn bytes_flow_both_ways_after_a_switch() {
    let world = World::start().await;
    let (_run, mut client) = switched(&world).await;
    expect(&mut client, b"hello ").await;
    for message in [b"one", b"two"] {
        client.write_all(message).await.unwrap();
        expect(&mut client, message).await;
    }
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_tunnel_is_not_idle_however_long_it_says_nothing() {
    const SHORT: Duration = Duration::from_millis(100);
    let config = ListenerConfig {
        header_timeout: SHORT,
        idle_timeout: SHORT,
        ..ListenerConfig::default()
    };
    let world = World::with(config).await;
    let (_run, mut client) = switched(&world).await;
    expect(&mut client, b"hello ").await;
    tokio::time::sleep(SHORT * 5).await;
    client.write_all(b"still here").await.unwrap();
    expect(&mut client, b"still here").await;
}

#[tokio::test]
async fn the_end_of_the_run_closes_the_tunnel() {
    let world = World::start().await;
    let (run, mut client) = switched(&world).await;
    expect(&mut client, b"hello ").await;
    run.token.cancel();
    let mut rest = Vec::new();
    // A reset is as good as an end.
    let _ = within(client.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn tunnels_are_cut_when_the_drain_is_over() {
    let world = World::start().await;
    let (_run, mut client) = switched(&world).await;
    expect(&mut client, b"hello ").await;
    assert_eq!(
        within(world.proxy.drain(Duration::from_millis(20))).await,
        1
    );
    let mut rest = Vec::new();
    let _ = within(client.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_switch_that_could_hide_requests_is_not_offered_to_the_guest() {
    let world = World::start().await;
    let run = world.run("iabc");
    run.ports.open(80, world.http_guest(echo).await);
    run.ports.open(49983, world.http_guest(echo).await);
    for (host, protocol) in [("80-iabc.d", "h2c"), ("49983-iabc.d", "websocket")] {
        let headers = [("connection", "upgrade"), ("upgrade", protocol)];
        let answer = world.get(host, "/", &headers).await;
        answer.contains(200, "GET /\n");
        assert!(!answer.text.contains("upgrade"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_guest_that_does_not_switch_just_answers() {
    let world = World::start().await;
    let run = world.run("iabc");
    run.ports.open(80, world.http_guest(echo).await);
    let headers = [("connection", "upgrade"), ("upgrade", "websocket")];
    world
        .get("80-iabc.d", "/", &headers)
        .await
        .contains(200, "upgrade: websocket\n");
}

#[tokio::test]
async fn an_unasked_switch_is_refused() {
    let world = World::start().await;
    let run = world.run("iabc");
    let guest = world.raw_guest(|mut stream| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
            .await;
    });
    run.ports.open(80, guest.await);
    let answer = world.get("80-iabc.d", "/", &[]).await;
    answer.expect(502, "Failed to route request to sandbox\n");
}
