//! What this program does elsewhere for a scenario: it is its own backend, name server and
//! client, in sandboxes and namespaces.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Subcommand;
use http_body_util::Full;
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsAcceptor;

mod secure;

/// The body of every answer of the backend.
const ANSWER: &[u8] = b"hello, world\n";

pub(crate) use secure::Times;

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Serve short answers over HTTP.
    #[command(hide = true)]
    Backend { listen: SocketAddr },
    /// Serve short answers over HTTPS.
    #[command(hide = true)]
    SecureBackend {
        listen: SocketAddr,
        certificate: PathBuf,
        key: PathBuf,
    },
    /// Answer every question for an IPv4 address with this one.
    #[command(hide = true)]
    Names {
        listen: SocketAddr,
        answer: Ipv4Addr,
    },
    /// Ask a server by name, with a connection for each request, and print the times in
    /// nanoseconds.
    #[command(hide = true)]
    Ask { name: String, count: usize },
    /// Ask a server over TLS, twice on each connection, and print the times of first requests
    /// and those of second ones in nanoseconds.
    #[command(hide = true)]
    AskSecure {
        name: String,
        count: usize,
        /// Certificates in PEM to trust.
        roots: PathBuf,
        /// Ask for a name below it each time that was never asked for.
        #[arg(long)]
        fresh: bool,
    },
}

impl Role {
    #[expect(clippy::print_stdout, reason = "the times are its output")]
    pub(crate) fn play(&self) -> anyhow::Result<()> {
        match self {
            Self::Backend { listen } => backend(*listen, None),
            Self::SecureBackend {
                listen,
                certificate,
                key,
            } => backend(*listen, Some(secure::acceptor(certificate, key)?)),
            Self::AskSecure {
                name,
                count,
                roots,
                fresh,
            } => {
                let times = secure::ask(name, *count, roots, *fresh)?;
                println!("{}", serde_json::to_string(&times)?);
                Ok(())
            }
            Self::Names { listen, answer } => names(*listen, *answer),
            Self::Ask { name, count } => {
                let times = ask(name, *count)?;
                let times: Vec<_> = times.iter().map(Duration::as_nanos).collect();
                println!("{}", serde_json::to_string(&times)?);
                Ok(())
            }
        }
    }
}

fn backend(listen: SocketAddr, tls: Option<TlsAcceptor>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let serving = async move {
        let listener = tokio::net::TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(ANSWER))))
            });
            let http = hyper::server::conn::http1::Builder::new();
            match tls.clone() {
                None => {
                    tokio::task::spawn_local(http.serve_connection(TokioIo::new(stream), service));
                }
                Some(tls) => {
                    tokio::task::spawn_local(async move {
                        // A client that breaks off has its reasons.
                        if let Ok(stream) = tls.accept(stream).await {
                            http.serve_connection(TokioIo::new(stream), service)
                                .await
                                .ok();
                        }
                    });
                }
            }
        }
    };
    local.block_on(&runtime, serving)
}

fn names(listen: SocketAddr, answer: Ipv4Addr) -> anyhow::Result<()> {
    const A: [u8; 4] = [0, 1, 0, 1];
    let socket = UdpSocket::bind(listen)?;
    let mut query = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut query)?;
        let Some(question) = query.get(12..length) else {
            continue;
        };
        let Some(end) = question.iter().position(|byte| *byte == 0) else {
            continue;
        };
        let Some(question) = question.get(..end + 5) else {
            continue;
        };
        let is_address = question.ends_with(&A);
        let mut reply = query[..2].to_vec();
        reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
        reply.extend(question);
        if is_address {
            // The name is that of the question; a minute to live.
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(answer.octets());
        }
        socket.send_to(&reply, from)?;
    }
}

fn ask(name: &str, count: usize) -> anyhow::Result<Vec<Duration>> {
    use std::net::ToSocketAddrs;
    let address = (name, 80)
        .to_socket_addrs()?
        .find(SocketAddr::is_ipv4)
        .context("the name has no address")?;
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    let mut times = Vec::new();
    // The first is not counted.
    for _ in 0..=count {
        let start = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        times.push(start.elapsed());
        anyhow::ensure!(answer.ends_with(ANSWER), "not the backend's answer");
    }
    times.remove(0);
    Ok(times)
}
