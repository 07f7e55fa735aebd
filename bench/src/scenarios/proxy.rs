//! The proxy beside nginx in front of the same backend: what it adds to a request, and how
//! many requests it carries.
//!
//! The backend runs in a sandbox. nginx, and the clients that reach the backend directly or
//! through nginx, are in the sandbox's network namespace, so that both proxies find it on
//! loopback. Both open a connection to the backend for each request, as nginx does unless
//! told otherwise and the proxy always.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::process::{Child, Command};

use crate::report::Report;
use crate::server::Server;
use crate::warren::Sandbox;

const BACKEND: u16 = 8080;
const NGINX: u16 = 8081;
/// Name of the backend's process.
const PROGRAM: &str = "bench-backend";
const CLIENTS: usize = 32;
const ROUNDS: usize = 3;

/// Where requests are sent.
#[derive(Debug, Clone)]
struct Way {
    netns: Option<PathBuf>,
    address: SocketAddr,
    host: String,
}

/// Measures both. Where nginx is not installed, its package is unpacked into `cache`.
pub(crate) async fn run(
    server: &Server,
    cache: &Path,
    scale: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let sandbox = server.api.create().await?;
    upload(server, &sandbox).await?;
    let start = format!(
        "/tmp/{PROGRAM} backend 127.0.0.1:{BACKEND} </dev/null >/dev/null 2>&1 & \
         for i in $(seq 100); do curl -so /dev/null localhost:{BACKEND} && exit; sleep .05; done"
    );
    server.api.run(&sandbox, &start).await?;
    let netns = namespace()?;
    let inside = |port: u16| Way {
        netns: Some(netns.clone()),
        address: ([127, 0, 0, 1], port).into(),
        host: "localhost".to_owned(),
    };
    let ours = Way {
        netns: None,
        address: server.api.url.trim_start_matches("http://").parse()?,
        host: format!("{BACKEND}-{}.warren.example", sandbox.id),
    };
    let peer = Nginx::start(cache, &netns).await?;
    let mut ways = vec![("direct", inside(BACKEND)), ("warren", ours)];
    if peer.is_some() {
        ways.push(("nginx", inside(NGINX)));
    }
    latency(&ways, 3000 / scale, report).await?;
    throughput(&ways[1..], Duration::from_secs(5) / scale as u32, report).await?;
    if let Some(peer) = peer {
        peer.stop().await?;
    }
    server.api.kill(&sandbox).await
}

/// Puts this program into a sandbox.
pub(crate) async fn upload(server: &Server, sandbox: &Sandbox) -> anyhow::Result<()> {
    let program = tokio::fs::read("/proc/self/exe").await?;
    let url = format!("{}/files?path=/tmp/{PROGRAM}&username=root", server.api.url);
    let post = server.api.to_agent(server.api.http.post(url), sandbox);
    let post = post.header("content-type", "application/octet-stream");
    post.body(program).send().await?.error_for_status()?;
    let mode = format!("sudo chmod 755 /tmp/{PROGRAM}");
    server.api.run(sandbox, &mode).await?;
    Ok(())
}

/// The network namespace that the backend is in.
fn namespace() -> anyhow::Result<PathBuf> {
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = std::fs::read_to_string(path.join("comm"));
        if name.is_ok_and(|name| name.trim_end() == PROGRAM) {
            return Ok(path.join("ns/net"));
        }
    }
    anyhow::bail!("the backend did not start")
}

/// nginx with a worker for each CPU.
struct Nginx {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Nginx {
    /// Finds its program, or fetches its package into `cache`.
    async fn find(cache: &Path) -> anyhow::Result<PathBuf> {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let root = cache.join("nginx");
        let ours = root.join("usr/sbin");
        let places: Vec<_> = std::env::split_paths(&own).chain([ours]).collect();
        let find = || {
            let mut found = places.iter().map(|dir| dir.join("nginx"));
            found.find(|path| path.is_file())
        };
        if let Some(found) = find() {
            return Ok(found);
        }
        super::pull::fetch(&cache.join("nginx-package"), &root, &["nginx"]).await?;
        find().context("its package does not hold it")
    }

    /// Starts it, or tells that it can't be had.
    #[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
    async fn start(cache: &Path, netns: &Path) -> anyhow::Result<Option<Self>> {
        let program = match Self::find(cache).await {
            Ok(program) => program,
            Err(error) => {
                println!("skipped: nginx can't be had here: {error:#}");
                return Ok(None);
            }
        };
        let dir = tempfile::tempdir()?;
        let root = dir.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {root}/{name};\n"))
            .concat();
        let config = format!(
            "daemon off; worker_processes auto; pid {root}/pid; error_log stderr crit;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; {temporary}\n\
             server {{ listen 127.0.0.1:{NGINX}; keepalive_requests 10000000;\n\
             location / {{ proxy_pass http://127.0.0.1:{BACKEND}; }} }} }}\n"
        );
        let path = dir.path().join("nginx.conf");
        std::fs::write(&path, config)?;
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", netns.display()))
            .arg(program)
            .arg("-c")
            .arg(&path)
            .arg("-p")
            .arg(dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start nsenter")?;
        let address = ([127, 0, 0, 1], NGINX).into();
        for _ in 0..100 {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("nginx ended: {status}");
            }
            if dial(Some(netns.to_owned()), address).await.is_ok() {
                return Ok(Some(Self { child, _dir: dir }));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("nginx does not answer")
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().context("nginx has ended")?;
        Command::new("kill").arg(pid.to_string()).status().await?;
        self.child.wait().await?;
        Ok(())
    }
}

/// Connects from a network namespace, which a thread of its own enters.
async fn dial(
    netns: Option<PathBuf>,
    address: SocketAddr,
) -> anyhow::Result<tokio::net::TcpStream> {
    let connect = move || -> anyhow::Result<std::net::TcpStream> {
        if let Some(netns) = netns {
            let netns = std::fs::File::open(netns)?;
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        Ok(std::net::TcpStream::connect(address)?)
    };
    // Not one of the runtime's threads: it stays in the namespace.
    let (told, dialled) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || told.send(connect()).ok());
    let stream = dialled.await.context("the thread ended")??;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(tokio::net::TcpStream::from_std(stream)?)
}

async fn open(way: &Way) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TokioIo::new(dial(way.netns.clone(), way.address).await?);
    let (sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the benchmark's runtime"
    )]
    tokio::spawn(connection);
    Ok(sender)
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, way: &Way) -> anyhow::Result<()> {
    let request = Request::get("/").header("host", &way.host);
    sender.ready().await?;
    let answer = sender.send_request(request.body(Empty::new())?).await?;
    anyhow::ensure!(answer.status() == 200, "answered {}", answer.status());
    let body = answer.into_body().collect().await?.to_bytes();
    anyhow::ensure!(body.starts_with(b"hello"), "not the backend's answer");
    Ok(())
}

/// One request after the other, all ways in turns.
async fn latency(ways: &[(&str, Way)], n: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for (_, way) in ways {
        let mut client = open(way).await?;
        for _ in 0..n / 10 {
            get(&mut client, way).await?;
        }
        clients.push((client, Vec::new()));
    }
    for _ in 0..n {
        for ((client, times), (_, way)) in clients.iter_mut().zip(ways) {
            let start = Instant::now();
            get(client, way).await?;
            times.push(start.elapsed());
        }
    }
    let mut medians = Vec::new();
    for ((_, mut times), (name, _)) in clients.into_iter().zip(ways) {
        times.sort();
        medians.push(times[times.len() / 2].as_secs_f64() * 1e3);
        report.times(format!("GET, {name}"), times);
    }
    for (median, (name, _)) in medians.iter().zip(ways).skip(1) {
        let name = format!("added to a request by {name}");
        report.figure(name, median - medians[0], "ms");
    }
    Ok(())
}

/// As many requests as go, over connections that stay open; the best of some rounds in turns.
async fn throughput(
    ways: &[(&str, Way)],
    time: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut best = vec![0.0; ways.len()];
    for _ in 0..ROUNDS {
        for (best, (_, way)) in best.iter_mut().zip(ways) {
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                clients.push(open(way).await?);
            }
            let start = Instant::now();
            let ask = |mut client: SendRequest<_>| async move {
                let mut count = 0_u32;
                while start.elapsed() < time {
                    get(&mut client, way).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            };
            let counts = futures_util::future::try_join_all(clients.into_iter().map(ask)).await?;
            let rate = f64::from(counts.iter().sum::<u32>()) / start.elapsed().as_secs_f64();
            *best = f64::max(*best, rate);
        }
    }
    for (best, (name, _)) in best.into_iter().zip(ways) {
        report.figure(format!("requests through {name}"), best, "1/s");
    }
    Ok(())
}
