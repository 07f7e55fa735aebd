use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::net::UdpSocket;
use warren_service::Secret;
use warren_types::{EgressRules, SandboxId};

use super::*;
use crate::hello::tests::hello_for;
use crate::query::tests::tell;
use crate::{Dns, Identity, VaultError};

mod rules;

/// A host whose network is a table of servers on loopback.
#[derive(Debug, Default)]
pub(crate) struct TestGate {
    policy: Mutex<Option<Arc<EgressPolicy>>>,
    identity: Option<Identity>,
    servers: HashMap<SocketAddrV4, SocketAddr>,
    lines: Mutex<Vec<String>>,
}

#[async_trait]
impl Gate for TestGate {
    fn policy(&self, _: IpAddr) -> Option<Arc<EgressPolicy>> {
        self.policy.lock().unwrap().clone()
    }

    fn identity(&self, _: IpAddr) -> Option<Identity> {
        self.identity.clone()
    }

    fn log(&self, _: IpAddr, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }

    fn is_public(&self, address: Ipv4Addr) -> bool {
        !address.is_private()
    }

    async fn connect(&self, to: SocketAddrV4) -> io::Result<TcpStream> {
        let server = self
            .servers
            .get(&to)
            .ok_or(io::ErrorKind::NetworkUnreachable)?;
        TcpStream::connect(server).await
    }
}

/// Secrets by name, all of one owner.
#[derive(Debug, Default)]
pub(crate) struct TestVault(Mutex<HashMap<String, String>>);

#[async_trait]
impl Vault for TestVault {
    async fn secret(&self, owner: &str, name: &str) -> Result<Secret, VaultError> {
        assert_eq!(owner, "team");
        let found = self.0.lock().unwrap().get(name).cloned();
        found.map(Secret::new).ok_or(VaultError::Missing)
    }

    async fn token(
        &self,
        owner: &str,
        sandbox: &SandboxId,
        audience: &str,
    ) -> Result<Secret, VaultError> {
        Ok(Secret::new(format!("{owner}/{sandbox}/{audience}")))
    }

    async fn proxy_password(&self, _: &str, sealed: &str) -> Result<Secret, VaultError> {
        sealed
            .strip_prefix("sealed ")
            .map(|password| Secret::new(password.to_owned()))
            .ok_or(VaultError::Missing)
    }
}

const GOOD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const EVIL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// A server that says who it is, then sends back what comes.
async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Tasks::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            Tasks::new().spawn(async move {
                stream.write_all(name.as_bytes()).await.ok();
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    address
}

/// An HTTP server that answers with its name and the host it was asked for.
async fn web(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Tasks::new().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(move |request: http::Request<_>| {
                let _: &hyper::body::Incoming = request.body();
                let host = request.headers()["host"].to_str().unwrap().to_owned();
                let text = format!("{name} for {host}{}", request.uri());
                let body = http_body_util::Full::new(bytes::Bytes::from(text));
                async { Ok::<_, std::convert::Infallible>(http::Response::new(body)) }
            });
            Tasks::new().spawn(async move {
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    address
}

/// A resolver that knows good.test, both.test and inside.test, and counts what it is asked.
async fn names() -> (Dns, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dns = Dns::fixed(&[socket.local_addr().unwrap()]);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    Tasks::new().spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            let query = &buffer[..length];
            let has = |label: &[u8]| query.windows(label.len()).any(|part| part == label);
            let found: &[Ipv4Addr] = if has(b"good") {
                &[GOOD]
            } else if has(b"inside") {
                &[Ipv4Addr::new(10, 0, 0, 1)]
            } else {
                &[]
            };
            socket.send_to(&tell(query, found), client).await.ok();
        }
    });
    (dns, asked)
}

struct Lab {
    broker: Broker,
    gate: Arc<TestGate>,
    asked: Arc<AtomicUsize>,
}

impl Lab {
    async fn new(rules: EgressRules) -> Self {
        let mut servers = HashMap::new();
        for (address, name) in [(GOOD, "good"), (EVIL, "evil")] {
            servers.insert(SocketAddrV4::new(address, 443), echo(name).await);
            servers.insert(SocketAddrV4::new(address, 22), echo(name).await);
            servers.insert(SocketAddrV4::new(address, 80), web(name).await);
        }
        let gate = Arc::new(TestGate {
            policy: Mutex::new(Some(Arc::new(EgressPolicy::new(rules)))),
            servers,
            ..TestGate::default()
        });
        let (dns, asked) = names().await;
        let limits = Limits {
            head: Duration::from_millis(200),
            per_sandbox: 8,
            ..Limits::default()
        };
        let resolver = Resolver::new(dns);
        let broker = Broker::new(
            Arc::clone(&gate) as _,
            Arc::new(TestVault::default()),
            resolver,
            Trust::new(rustls::RootCertStore::empty()).unwrap(),
            limits,
            Tasks::new(),
        );
        Self {
            broker,
            gate,
            asked,
        }
    }

    /// A connection as a sandbox makes it.
    async fn connect(&self, to: Ipv4Addr, port: u16) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let broker = self.broker.clone();
        self.broker.tasks.spawn(async move {
            broker
                .handle(stream, peer.ip(), SocketAddrV4::new(to, port))
                .await;
        });
        client
    }

    /// Sends `bytes`, cut into pieces, closes and gives what came back.
    async fn say(&self, to: Ipv4Addr, port: u16, bytes: &[u8], piece: usize) -> String {
        let mut client = self.connect(to, port).await;
        for part in bytes.chunks(piece) {
            if client.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        client.shutdown().await.ok();
        let mut answer = Vec::new();
        // A reset is an answer too: none.
        client.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn lines(&self) -> Vec<String> {
        self.gate.lines.lock().unwrap().clone()
    }
}

fn only_good() -> EgressRules {
    EgressRules {
        domains: vec!["good.test".to_owned(), "inside.test".to_owned()],
        deny: vec!["0.0.0.0/0".parse().unwrap()],
        ..EgressRules::default()
    }
}

#[tokio::test]
async fn an_allowed_name_reaches_its_own_address_whatever_was_dialled() {
    let lab = Lab::new(only_good()).await;
    for (to, piece) in [(GOOD, 4096), (EVIL, 4096), (EVIL, 1)] {
        let answer = lab.say(to, 443, &hello_for("good.test"), piece).await;
        assert!(answer.starts_with("good\u{16}"), "{answer:?}");
    }
    assert_eq!(
        lab.asked.load(Ordering::Relaxed),
        1,
        "the address is remembered"
    );
    assert_eq!(lab.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn what_no_domain_allows_is_closed_and_told() {
    let lab = Lab::new(only_good()).await;
    assert_eq!(lab.say(EVIL, 443, &hello_for("evil.test"), 4096).await, "");
    assert_eq!(lab.say(EVIL, 443, b"no TLS at all", 4096).await, "");
    assert_eq!(lab.say(EVIL, 22, b"", 1).await, "");
    let inside = lab.say(GOOD, 443, &hello_for("inside.test"), 4096).await;
    assert_eq!(inside, "", "its address is private");
    assert_eq!(
        lab.lines(),
        [
            "egress refused: tcp 203.0.113.66:443 for evil.test: denyOut 0.0.0.0/0",
            "egress refused: tcp 203.0.113.66:443: denyOut 0.0.0.0/0",
            "egress refused: tcp 203.0.113.66:22: denyOut 0.0.0.0/0",
            "egress refused: tcp 203.0.113.1:443 for inside.test: its addresses are not public",
        ]
    );
}

#[tokio::test]
async fn an_encrypted_hello_does_not_pass_for_a_name() {
    let lab = Lab::new(only_good()).await;
    let mut hello = hello_for("good.test");
    // The group extension becomes the encrypted hello's.
    let at = hello.windows(2).position(|pair| pair == [0, 10]).unwrap();
    hello[at..at + 2].copy_from_slice(&0xfe0d_u16.to_be_bytes());
    assert_eq!(lab.say(GOOD, 443, &hello, 4096).await, "");
    assert!(lab.lines()[0].contains("encrypted client hello"));
}

#[tokio::test]
async fn an_allowed_network_needs_no_name_and_the_server_may_speak_first() {
    let rules = EgressRules {
        allow: vec!["203.0.113.66".parse().unwrap()],
        ..only_good()
    };
    let lab = Lab::new(rules).await;
    let mut client = lab.connect(EVIL, 443).await;
    let mut first = [0; 4];
    client.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"evil");
    assert_eq!(lab.say(GOOD, 443, b"nothing", 100).await, "");
}

#[tokio::test]
async fn every_request_of_a_connection_is_judged_by_its_own_host() {
    let lab = Lab::new(only_good()).await;
    let get = |host: &str| format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let both = get("good.test") + &get("evil.test");
    let answer = lab.say(EVIL, 80, both.as_bytes(), 4096).await;
    assert!(answer.contains("good for good.test/x"), "{answer}");
    assert!(!answer.contains("evil"), "{answer}");
    for text in [
        "GET http://evil.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n",
        "GET http://good.test@evil.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n",
        "CONNECT evil.test:443 HTTP/1.1\r\nHost: good.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.test\r\nHost: good.test\r\n\r\n",
    ] {
        assert_eq!(lab.say(EVIL, 80, text.as_bytes(), 4096).await, "", "{text}");
    }
    let absolute = "GET http://good.test/y HTTP/1.1\r\nHost: good.test\r\nUpgrade: h2c\r\n\
        Connection: upgrade\r\n\r\n";
    let answer = lab.say(EVIL, 80, absolute.as_bytes(), 4096).await;
    assert!(answer.contains("good for good.test/y"), "{answer}");
}

#[tokio::test]
async fn connections_of_a_sandbox_are_bounded() {
    let lab = Lab::new(only_good()).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut client = lab.connect(GOOD, 443).await;
        client.write_all(&hello_for("good.test")).await.unwrap();
        let mut first = [0; 4];
        client.read_exact(&mut first).await.unwrap();
        held.push(client);
    }
    assert_eq!(lab.say(GOOD, 443, &hello_for("good.test"), 4096).await, "");
    assert!(lab.lines()[0].contains("too many connections"));
    drop(held.pop());
    loop {
        let answer = lab.say(GOOD, 443, &hello_for("good.test"), 4096).await;
        if answer.starts_with("good") {
            break;
        }
    }
}

#[tokio::test]
async fn a_silent_resolver_and_rubbish_stop_nobody() {
    let tasks = Tasks::new();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, long) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dns = Dns::fixed(&[silent.local_addr().unwrap()]);
    let gate = Arc::new(TestGate::default());
    tasks.spawn(dns.serve(udp, tcp, gate, tasks.clone()));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for datagram in [&b""[..], b"short", &[7; 12], &[7; 600]] {
        client.send_to(datagram, address).await.unwrap();
    }
    let mut stream = TcpStream::connect(long).await.unwrap();
    stream.write_all(&[0, 2, 1, 1]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(tasks.stop(Duration::from_secs(10)).await, 0);
}

#[tokio::test]
async fn names_are_resolved_over_udp_and_tcp_and_refused_ones_are_told() {
    let lab = Lab::new(only_good()).await;
    let (dns, _) = names().await;
    let tasks = Tasks::new();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, long) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    tasks.spawn(dns.serve(udp, tcp, Arc::clone(&lab.gate) as _, tasks.clone()));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    let ask = |name| crate::query::for_addresses(name).unwrap();
    let mut buffer = [0; 512];
    client.send(&ask("good.test")).await.unwrap();
    let length = client.recv(&mut buffer).await.unwrap();
    let found = crate::query::addresses(&buffer[..length]);
    assert_eq!(found, crate::query::Addresses::Found(vec![GOOD], 60));

    let mut stream = TcpStream::connect(long).await.unwrap();
    let query = ask("evil.test");
    stream
        .write_u16(query.len().try_into().unwrap())
        .await
        .unwrap();
    stream.write_all(&query).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(
        crate::query::addresses(&answer),
        crate::query::Addresses::Failed
    );
    assert_eq!(
        lab.lines(),
        ["egress refused: query for evil.test: no domain of allowOut"]
    );
    assert_eq!(tasks.stop(Duration::from_secs(10)).await, 0);
}
