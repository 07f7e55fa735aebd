//! Header rules and proxies.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_rustls::TlsAcceptor;
use warren_types::{EgressProxy, EgressProxyTls};

use super::*;
use crate::http::Executor;
use crate::{Authority, AuthorityKeys};

const VALUE: &str = "hunter2-hunter2";

fn roots(pem: &str) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    roots
}

/// Tells what came: version, host, the values of `x-key`, and the body.
async fn told(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let keys = parts.headers.get_all("x-key").iter();
    let keys: Vec<_> = keys.map(|key| key.to_str().unwrap()).collect();
    let host = match parts.uri.host() {
        Some(host) => host.to_owned(),
        None => parts.headers["host"].to_str().unwrap().to_owned(),
    };
    let body = body.collect().await?.to_bytes();
    let text = format!(
        "{:?} {} {host} {keys:?} {}",
        parts.version,
        parts.uri.path(),
        String::from_utf8_lossy(&body)
    );
    Ok(Response::new(Full::new(Bytes::from(text))))
}

/// A web server behind TLS with a certificate for `name`.
async fn secure_web(authority: &Authority, name: &str, with_http2: bool) -> SocketAddr {
    let mut config = rustls::ServerConfig::clone(&authority.serve_as(name).unwrap());
    if !with_http2 {
        config.alpn_protocols.retain(|protocol| protocol != b"h2");
    }
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    Tasks::new().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, inner) = (acceptor.clone(), tasks.clone());
            tasks.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let stream = TokioIo::new(stream);
                if is_http2 {
                    hyper::server::conn::http2::Builder::new(Executor(inner))
                        .serve_connection(stream, service_fn(told))
                        .await
                        .ok();
                } else {
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(stream, service_fn(told))
                        .await
                        .ok();
                }
            });
        }
    });
    address
}

/// A sandbox with a header rule for good.test, whose certificate is `certified`.
struct Secured {
    lab: Lab,
    vault: Arc<TestVault>,
    trusted: rustls::RootCertStore,
}

impl Secured {
    async fn new(with_http2: bool, certified: &str, more: EgressRules) -> Self {
        let mut lab = Lab::new(EgressRules::default()).await;
        let public = AuthorityKeys::generate().unwrap();
        let upstream = Authority::open(&public).unwrap();
        let own = AuthorityKeys::generate().unwrap();
        let server = secure_web(&upstream, certified, with_http2).await;
        let headers = BTreeMap::from([("X-Key".to_owned(), "k ${e2b.secrets.key}".to_owned())]);
        let rules = EgressRules {
            headers: [("good.test".to_owned(), headers)].into(),
            owner: "team".to_owned(),
            ..more
        };
        let mut servers = lab.gate.servers.clone();
        servers.insert(SocketAddrV4::new(GOOD, 443), server);
        let gate = Arc::new(TestGate {
            policy: Mutex::new(Some(Arc::new(EgressPolicy::new(rules)))),
            identity: Some(Identity {
                sandbox: SandboxId::random(),
                authority: Some(Arc::new(Authority::open(&own).unwrap())),
            }),
            servers,
            ..TestGate::default()
        });
        let vault = Arc::new(TestVault::default());
        vault
            .0
            .lock()
            .unwrap()
            .insert("key".to_owned(), VALUE.to_owned());
        lab.broker = Broker {
            gate: Arc::clone(&gate) as _,
            refusals: Refusals::new(Arc::clone(&gate) as _),
            vault: Arc::clone(&vault) as _,
            trust: Trust::new(roots(&public.certificate)).unwrap(),
            ..lab.broker
        };
        lab.gate = gate;
        Self {
            lab,
            vault,
            trusted: roots(&own.certificate),
        }
    }

    /// A request within TLS, as the sandbox makes it; `None` when it gets no answer.
    async fn ask(&self, request: Request<Full<Bytes>>, with_http2: bool) -> Option<(u16, String)> {
        let stream = self.lab.connect(EVIL, 443).await;
        let trust = Trust::new(self.trusted.clone()).unwrap();
        let stream = trust.connect("good.test", stream, with_http2).await.ok()?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        assert_eq!(is_http2, with_http2);
        let (stream, tasks) = (TokioIo::new(stream), Tasks::new());
        let response = if with_http2 {
            let executor = Executor(tasks.clone());
            let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream)
                .await
                .ok()?;
            tasks.spawn(async move { connection.await.ok() });
            sender.send_request(request).await.ok()?
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(stream).await.ok()?;
            tasks.spawn(async move { connection.await.ok() });
            sender.send_request(request).await.ok()?
        };
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

fn request(host: &str, with_http2: bool) -> Request<Full<Bytes>> {
    let request = Request::post(match with_http2 {
        true => format!("https://{host}/x"),
        false => "/x".to_owned(),
    });
    let request = match with_http2 {
        true => request.version(Version::HTTP_2),
        false => request.header("host", host),
    };
    request
        .header("x-key", "mine")
        .header("x-key", "and mine")
        .body(Full::new(Bytes::from_static(b"body")))
        .unwrap()
}

#[tokio::test]
async fn headers_are_set_within_tls_whatever_both_sides_speak() {
    for (client, server) in [(false, false), (false, true), (true, false), (true, true)] {
        let lab = Secured::new(server, "good.test", EgressRules::default()).await;
        let spoken = if client && server {
            "HTTP/2.0"
        } else {
            "HTTP/1.1"
        };
        let expected = format!("{spoken} /x good.test [\"k {VALUE}\"] body");
        let (status, text) = lab.ask(request("good.test", client), client).await.unwrap();
        assert_eq!(status, 200, "{text} {:?}", lab.lab.lines());
        assert_eq!(text, expected);
        assert_eq!(lab.lab.lines(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_new_value_is_used_at_once_and_without_one_the_request_fails() {
    let lab = Secured::new(true, "good.test", EgressRules::default()).await;
    lab.vault
        .0
        .lock()
        .unwrap()
        .insert("key".to_owned(), "next".to_owned());
    let (_, text) = lab.ask(request("good.test", false), false).await.unwrap();
    assert!(text.contains("k next"), "{text}");
    lab.vault.0.lock().unwrap().clear();
    let (status, text) = lab.ask(request("good.test", false), false).await.unwrap();
    assert_eq!(status, 502);
    let line = "secret key: it does not exist";
    assert_eq!(
        text,
        format!("a header for this host can't be set: {line}\n")
    );
    let to = format!("egress refused: tcp {EVIL}:443 for good.test: ");
    assert_eq!(lab.lab.lines(), [format!("{to}{line}")]);
    lab.vault
        .0
        .lock()
        .unwrap()
        .insert("key".to_owned(), "a\u{7f}".to_owned());
    let (status, _) = lab.ask(request("good.test", true), true).await.unwrap();
    assert_eq!(status, 502);
}

#[tokio::test]
async fn within_tls_of_one_host_no_other_is_reached() {
    for with_http2 in [false, true] {
        let lab = Secured::new(true, "good.test", EgressRules::default()).await;
        let asked = lab.ask(request("evil.test", with_http2), with_http2).await;
        assert_eq!(asked.unwrap().0, 421);
        let rule = "the connection is with good.test";
        assert!(lab.lab.lines()[0].ends_with(&format!("for evil.test: {rule}")));
    }
}

#[tokio::test]
async fn a_host_that_can_not_be_verified_gets_nothing() {
    let lab = Secured::new(true, "other.test", EgressRules::default()).await;
    let (status, text) = lab.ask(request("good.test", true), true).await.unwrap();
    assert_eq!(status, 502, "{text}");
    assert!(lab.lab.lines()[0].contains("TLS with the host: invalid peer certificate"));
}

#[tokio::test]
async fn other_hosts_pass_unread_and_denied_ones_stay_denied() {
    let lab = Secured::new(true, "good.test", EgressRules::default()).await;
    let answer = lab.lab.say(EVIL, 443, &hello_for("evil.test"), 4096).await;
    assert!(answer.starts_with("evil\u{16}"), "{answer:?}");
    let rules = EgressRules {
        deny: vec!["0.0.0.0/0".parse().unwrap()],
        ..EgressRules::default()
    };
    let lab = Secured::new(true, "good.test", rules).await;
    assert_eq!(lab.ask(request("good.test", true), true).await, None);
    assert!(lab.lab.lines()[0].ends_with("for good.test: denyOut 0.0.0.0/0"));
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_rule_or_pass_for_trace() {
    let lab = Secured::new(true, "good.test", EgressRules::default()).await;
    let mut trace = request("good.test", false);
    *trace.method_mut() = http::Method::TRACE;
    *trace.body_mut() = Full::default();
    assert_eq!(lab.ask(trace, false).await.unwrap().0, 405);
    *lab.lab.gate.policy.lock().unwrap() =
        Some(Arc::new(EgressPolicy::new(EgressRules::default())));
    let answer = lab.lab.say(EVIL, 443, &hello_for("good.test"), 4096).await;
    assert!(answer.starts_with("evil\u{16}"), "{answer:?}");
}

#[tokio::test]
async fn plain_requests_get_headers_at_the_address_of_the_name_only() {
    let lab = Secured::new(true, "good.test", EgressRules::default()).await;
    let text = "GET /x HTTP/1.1\r\nHost: good.test\r\n\r\n";
    let answer = lab.lab.say(EVIL, 80, text.as_bytes(), 4096).await;
    assert!(answer.contains("good for good.test/x"), "{answer}");
    lab.vault.0.lock().unwrap().clear();
    let answer = lab.lab.say(EVIL, 80, text.as_bytes(), 4096).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

/// A SOCKS5 proxy that wants `me` and `pass`, and tells where it was to connect to.
async fn proxy(seen: Arc<Mutex<Vec<String>>>, acceptor: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Tasks::new().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            let acceptor = acceptor.clone();
            Tasks::new().spawn(async move {
                match acceptor {
                    None => speak(stream, seen).await.ok(),
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => speak(stream, seen).await.ok(),
                        Err(_) => None,
                    },
                }
            });
        }
    });
    address
}

async fn speak(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    seen: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    let mut buffer = [0; 256];
    let count = usize::from(stream.read_u16().await? & 0xff);
    stream.read_exact(&mut buffer[..count]).await?;
    stream.write_all(&[5, 2]).await?;
    let mut login = [0; 9];
    stream.read_exact(&mut login).await?;
    if &login != b"\x01\x02me\x04pass" {
        return stream.write_all(&[1, 1]).await;
    }
    stream.write_all(&[1, 0]).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let host = if head[3] == 3 {
        let length = usize::from(stream.read_u8().await?);
        stream.read_exact(&mut buffer[..length]).await?;
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    } else {
        Ipv4Addr::from_bits(stream.read_u32().await?).to_string()
    };
    let port = stream.read_u16().await?;
    seen.lock().unwrap().push(format!("{host}:{port}"));
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    stream.write_all(b"tunnelled").await?;
    stream.read_exact(&mut [0]).await?;
    Ok(())
}

fn through(sealed: &str, tls: Option<EgressProxyTls>) -> EgressRules {
    EgressRules {
        proxy: Some(EgressProxy {
            host: "203.0.113.9".to_owned(),
            port: 1080,
            username: Some("me".to_owned()),
            sealed_password: Some(sealed.to_owned()),
            tls,
        }),
        ..only_good()
    }
}

#[tokio::test]
async fn a_proxy_gets_names_and_allowed_addresses_and_nothing_goes_around_it() {
    let authority = AuthorityKeys::generate().unwrap();
    let serving = Authority::open(&authority).unwrap();
    let acceptor = TlsAcceptor::from(serving.serve_as("proxy.test").unwrap());
    let tls = EgressProxyTls {
        server_name: Some("proxy.test".to_owned()),
        ca_cert: Some(authority.certificate.clone()),
    };
    for (tls, acceptor) in [(None, None), (Some(tls), Some(acceptor))] {
        let seen = Arc::default();
        let address = proxy(Arc::clone(&seen), acceptor).await;
        let headers = BTreeMap::from([("x-key".to_owned(), "v".to_owned())]);
        let rules = EgressRules {
            allow: vec!["203.0.113.66".parse().unwrap()],
            headers: [("ruled.good.test".to_owned(), headers)].into(),
            ..through("sealed pass", tls)
        };
        let mut lab = Lab::new(rules).await;
        let mut servers = lab.gate.servers.clone();
        servers.insert("203.0.113.9:1080".parse().unwrap(), address);
        let gate = Arc::new(TestGate {
            policy: Mutex::new(lab.gate.policy.lock().unwrap().clone()),
            identity: Some(Identity {
                sandbox: SandboxId::random(),
                authority: None,
            }),
            servers,
            ..TestGate::default()
        });
        lab.broker.gate = Arc::clone(&gate) as _;
        lab.broker.refusals = Refusals::new(Arc::clone(&gate) as _);
        lab.gate = gate;
        let answer = lab.say(EVIL, 443, &hello_for("good.test"), 4096).await;
        assert_eq!(answer, "tunnelled", "{:?}", lab.lines());
        assert_eq!(lab.say(EVIL, 22, b"x", 1).await, "tunnelled");
        assert_eq!(lab.say(GOOD, 22, b"x", 1).await, "", "denied");
        let all = ["good.test:443", "203.0.113.66:22"];
        assert_eq!(*seen.lock().unwrap(), all);
        assert_eq!(lab.asked.load(Ordering::Relaxed), 0, "the proxy resolves");
        // A rule opens nothing: neither of the name's own address nor by an allowed one.
        let text = "GET / HTTP/1.1\r\nHost: ruled.good.test\r\n\r\n";
        let answer = lab.say(EVIL, 80, text.as_bytes(), 4096).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert_eq!(*seen.lock().unwrap(), all);
    }
}

#[tokio::test]
async fn without_its_proxy_nothing_leaves() {
    for sealed in ["sealed pass", "lost"] {
        let lab = Lab::new(through(sealed, None)).await;
        assert_eq!(lab.say(GOOD, 443, &hello_for("good.test"), 4096).await, "");
        let start = format!("egress refused: tcp {GOOD}:443 for good.test: the egress proxy: ");
        let lines = lab.lines();
        assert!(lines[0].starts_with(&start), "{lines:?}");
    }
}
