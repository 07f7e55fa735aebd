use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use warren_proxy::ListenerConfig;

use crate::support::{Body, World, echo, empty, read, within};

const SHORT: Duration = Duration::from_millis(100);

fn certificate() -> (Arc<rustls::ServerConfig>, rustls::RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["80-iabc.d".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (Arc::new(config), roots)
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_not_waited_for() {
    let config = ListenerConfig {
        header_timeout: SHORT,
        ..ListenerConfig::default()
    };
    let world = World::with(config).await;
    let run = world.run("iabc");
    run.ports.open(80, world.http_guest(echo).await);
    let whole = "GET / HTTP/1.1\r\nhost: 80-iabc.d\r\n\r\n";
    let begun = "GET / HTTP/1.1\r\nhost: 80-iabc.d\r\nx-slow: ";
    for (first, then, answer) in [
        ("", "", ""),
        ("", begun, "HTTP/1.1 408 "),
        (whole, begun, "HTTP/1.1 408 "),
    ] {
        let mut client = world.connect().await;
        if !first.is_empty() {
            client.write_all(first.as_bytes()).await.unwrap();
            let mut status = [0; 12];
            within(client.read_exact(&mut status)).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
            // All of it has arrived once nothing more does for a moment.
            let mut rest = [0; 4096];
            while let Ok(read) = timeout(SHORT / 4, client.read(&mut rest)).await {
                assert_ne!(read.unwrap(), 0);
            }
        }
        client.write_all(then.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = within(client.read_to_end(&mut rest)).await;
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.starts_with(answer), "{rest}");
        if answer.is_empty() {
            assert_eq!(rest, "");
        } else {
            let (head, body) = rest.split_once("\r\n\r\n").unwrap();
            let length = format!("content-length: {}", body.len());
            assert!(head.contains(&length), "{rest}");
        }
    }
}

#[tokio::test]
async fn the_time_between_requests_and_within_responses_is_another_matter() {
    let config = ListenerConfig {
        header_timeout: SHORT,
        ..ListenerConfig::default()
    };
    let world = World::with(config).await;
    let run = world.run("iabc");
    let guest = world.http_guest(|_| async {
        let frames = stream::once(async {
            tokio::time::sleep(SHORT * 3).await;
            Ok(Frame::data(Bytes::from("late")))
        });
        Response::new(Body::new(StreamBody::new(frames)))
    });
    run.ports.open(80, guest.await);
    let io = TokioIo::new(world.connect().await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    world.tasks.spawn(async move { drop(connection.await) });
    for _ in 0..2 {
        let request = Request::get("/")
            .header("host", "80-iabc.d")
            .body(empty())
            .unwrap();
        let response = within(sender.send_request(request)).await.unwrap();
        read(response).await.expect(200, "late");
        tokio::time::sleep(SHORT * 3).await;
        within(sender.ready()).await.unwrap();
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let config = ListenerConfig {
        idle_timeout: SHORT,
        ..ListenerConfig::default()
    };
    let world = World::with(config).await;
    let answer = world
        .raw("GET / HTTP/1.1\r\nhost: 80-inone.d\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

#[tokio::test]
async fn a_stream_is_not_idle_however_long_it_says_nothing() {
    let config = ListenerConfig {
        header_timeout: SHORT,
        idle_timeout: SHORT,
        ..ListenerConfig::default()
    };
    let world = World::with(config).await;
    let run = world.run("iabc");
    let guest = world.http_guest(|_| async {
        let frames = stream::iter(["one", "two"]).then(|data| async move {
            tokio::time::sleep(SHORT * 5).await;
            Ok(Frame::data(Bytes::from(data)))
        });
        Response::new(Body::new(StreamBody::new(frames)))
    });
    run.ports.open(80, guest.await);
    let request = |uri: &str| Request::get(uri).body(empty()).unwrap();
    let mut over_http1 = request("/");
    let host = "80-iabc.d".parse().unwrap();
    over_http1.headers_mut().insert(http::header::HOST, host);
    read(world.h1(over_http1).await).await.expect(200, "onetwo");
    let mut sender = world.h2().await;
    let over_http2 = sender.send_request(request("http://80-iabc.d/"));
    let response = within(over_http2).await.unwrap();
    read(response).await.expect(200, "onetwo");
}

#[tokio::test]
async fn heads_have_a_limit() {
    let world = World::start().await;
    let long = "x".repeat(80 * 1024);
    let request = format!("GET / HTTP/1.1\r\nhost: 80-iabc.d\r\nx-long: {long}\r\n\r\n");
    let mut client = world.connect().await;
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    within(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
}

#[tokio::test]
async fn requests_in_flight_are_drained_and_then_cut() {
    for (drain_timeout, completes) in [(Duration::from_secs(20), true), (SHORT, false)] {
        let config = ListenerConfig {
            drain_timeout,
            ..ListenerConfig::default()
        };
        let mut world = World::with(config).await;
        let run = world.run("iabc");
        let (feed, source) = mpsc::channel::<Bytes>(1);
        let source = Arc::new(std::sync::Mutex::new(Some(source)));
        let guest = world.http_guest(move |_| {
            let source = source.lock().unwrap().take().unwrap();
            let frames = stream::unfold(source, |mut source| async {
                Some((Ok(Frame::data(source.recv().await?)), source))
            });
            async { Response::new(Body::new(StreamBody::new(frames.boxed()))) }
        });
        run.ports.open(80, guest.await);
        let request = Request::get("/")
            .header("host", "80-iabc.d")
            .body(empty())
            .unwrap();
        let response = world.h1(request).await;
        world.stop.cancel();
        let served = world.served.take().unwrap();
        if completes {
            feed.send(Bytes::from("all")).await.unwrap();
            drop(feed);
            read(response).await.expect(200, "all");
            assert_eq!(within(served).await.unwrap(), 0);
        } else {
            assert_eq!(within(served).await.unwrap(), 1);
            within(response.into_body().collect()).await.unwrap_err();
        }
        assert!(tokio::net::TcpStream::connect(world.address).await.is_err());
    }
}

#[tokio::test]
async fn tls_and_plain_share_a_port() {
    let (server, roots) = certificate();
    let config = ListenerConfig {
        tls: Some(server),
        ..ListenerConfig::default()
    };
    let world = World::with(config).await;
    let run = world.run("iabc");
    run.ports.open(80, world.http_guest(echo).await);
    world
        .get("80-iabc.d", "/plain", &[])
        .await
        .contains(200, "GET /plain\n");

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let session = TlsConnector::from(Arc::new(client))
        .connect("80-iabc.d".try_into().unwrap(), world.connect().await)
        .await
        .unwrap();
    assert_eq!(session.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, TokioIo::new(session))
            .await
            .unwrap();
    world.tasks.spawn(async move { drop(connection.await) });
    let request = Request::get("https://80-iabc.d/tls").body(empty()).unwrap();
    let answer = read(within(sender.send_request(request)).await.unwrap()).await;
    answer.contains(200, "GET /tls\n");
}

#[tokio::test]
async fn a_guest_that_speaks_tls_is_reached_with_any_certificate() {
    let world = World::start().await;
    let run = world.run_with("iabc", |route| route.https_ports = vec![443, 444]);
    let (server, _) = certificate();
    let acceptor = TlsAcceptor::from(server);
    let guest = world.raw_guest(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut session = acceptor.accept(stream).await.unwrap();
            let mut head = [0; 4096];
            let _ = session.read(&mut head).await;
            let _ = session
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")
                .await;
            let _ = session.shutdown().await;
        }
    });
    run.ports.open(443, guest.await);
    run.ports.open(444, world.http_guest(echo).await);
    world
        .get("443-iabc.d", "/", &[])
        .await
        .expect(200, "secret");
    let plain = world.get("444-iabc.d", "/", &[]).await;
    plain.expect(502, "Failed to route request to sandbox\n");
}
