//! Images of a registry on this machine, pulled by the server and, beside it, by `skopeo` and
//! `umoci`.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::builds::run;
use crate::report::Report;
use crate::server::Server;

/// The peers and what they come in.
const PEERS: [&str; 3] = ["docker-registry", "skopeo", "umoci"];
/// What the image is made of; packages make it on this machine.
const ROOT: &str = "debian:stable";
/// Further layers of the whole image, each with all programs of the first. Together some
/// 1 GB, in as many files as such images have.
const COPIES: usize = 3;
const NAME: &str = "bench/image";
const REGISTRY_LIMIT: Duration = Duration::from_secs(20);

/// Programs, from the search path or from packages unpacked into a directory.
#[derive(Debug)]
struct Peers {
    path: OsString,
    libraries: PathBuf,
}

fn has_all(path: &OsString) -> bool {
    let places: Vec<_> = std::env::split_paths(path).collect();
    let has = |name: &&str| places.iter().any(|dir| dir.join(name).is_file());
    PEERS.iter().all(has)
}

impl Peers {
    /// Finds them, or fetches their packages into `cache`.
    async fn find(cache: &Path) -> anyhow::Result<Self> {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let root = cache.join("root");
        let places = std::env::split_paths(&own).chain([root.join("usr/bin")]);
        let peers = Self {
            path: std::env::join_paths(places)?,
            libraries: root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)),
        };
        if !has_all(&peers.path) {
            fetch(cache, &root, &PEERS).await?;
        }
        ensure!(has_all(&peers.path), "their packages do not hold them");
        Ok(peers)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .env("PATH", &self.path)
            .env("LD_LIBRARY_PATH", &self.libraries)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

async fn finish(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stderr(Stdio::piped()).output().await?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {told}");
    Ok(())
}

/// Downloads the packages, with those that they need and the machine lacks, and unpacks
/// them. Nothing is installed.
pub(crate) async fn fetch(cache: &Path, root: &Path, packages: &[&str]) -> anyhow::Result<()> {
    let archives = cache.join("archives");
    tokio::fs::create_dir_all(archives.join("partial")).await?;
    tokio::fs::create_dir_all(root).await?;
    let mut place = OsString::from("Dir::Cache::archives=");
    place.push(&archives);
    let mut download = Command::new("apt-get");
    download
        .args([
            "-qq",
            "-y",
            "--no-install-recommends",
            "--download-only",
            "-o",
        ])
        .arg(place)
        .args(["-o", "Debug::NoLocking=1", "install"])
        .args(packages);
    finish(&mut download).await?;
    let mut entries = tokio::fs::read_dir(&archives).await?;
    while let Some(entry) = entries.next_entry().await? {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            finish(Command::new("dpkg").arg("-x").arg(path).arg(root)).await?;
        }
    }
    Ok(())
}

/// Debian's registry with its data in a directory.
#[derive(Debug)]
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    async fn start(peers: &Peers, dir: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let config = dir.join("registry.json");
        let settings = json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": dir.join("registry")}},
            "http": {"addr": address},
        });
        tokio::fs::write(&config, settings.to_string()).await?;
        let mut command = peers.command("docker-registry");
        let child = command
            .arg("serve")
            .arg(config)
            .stderr(Stdio::null())
            .spawn()?;
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            ensure!(
                begun.elapsed() < REGISTRY_LIMIT,
                "the registry does not answer"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { child, address })
    }

    fn image(&self) -> String {
        format!("{}/{NAME}:latest", self.address)
    }
}

/// Makes the image with a server and pushes it.
async fn fill(
    server: &Server,
    peers: &Peers,
    registry: &Registry,
    (dir, copies): (&Path, usize),
) -> anyhow::Result<()> {
    let steps: Vec<_> = (0..copies)
        .map(|number| {
            run(&format!(
                "mkdir -p /opt/{number}; cp -a /usr /opt/{number}/"
            ))
        })
        .collect();
    let start = json!({ "fromImage": ROOT, "steps": steps });
    server.api.build("bench-image", &start).await?;
    let archive = dir.join("image.tar");
    server
        .api
        .download("/templates/bench-image/image", &archive)
        .await?;
    let mut push = peers.command("skopeo");
    push.args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
        .arg(format!("oci-archive:{}", archive.display()))
        .arg(format!("docker://{}", registry.image()));
    finish(&mut push).await?;
    tokio::fs::remove_file(archive).await?;
    Ok(())
}

/// What the peers take: the image is copied to the disk, then unpacked.
async fn unpack(peers: &Peers, registry: &Registry, dir: &Path) -> anyhow::Result<Duration> {
    let (layout, bundle) = (dir.join("layout"), dir.join("bundle"));
    let begun = Instant::now();
    let mut copy = peers.command("skopeo");
    copy.args(["--insecure-policy", "copy", "--src-tls-verify=false"])
        .arg(format!("docker://{}", registry.image()))
        .arg(format!("oci:{}:latest", layout.display()));
    finish(&mut copy).await?;
    let mut unpack = peers.command("umoci");
    unpack.args(["unpack", "--image"]);
    unpack
        .arg(format!("{}:latest", layout.display()))
        .arg(&bundle);
    finish(&mut unpack).await?;
    let took = begun.elapsed();
    tokio::fs::remove_dir_all(layout).await?;
    tokio::fs::remove_dir_all(bundle).await?;
    Ok(took)
}

/// Pulls the image `n` times each, in turns. Each pull of ours is of a server that has
/// nothing of it.
pub(crate) async fn beside_peers(
    (binary, layers): (&Path, &Path),
    cache: &Path,
    (n, quick): (usize, bool),
    report: &mut Report,
) -> anyhow::Result<()> {
    let peers = match Peers::find(cache).await {
        Ok(peers) => peers,
        Err(error) => {
            report.note(format!("pull of an image: skipped, no peers: {error:#}"));
            return Ok(());
        }
    };
    // Where servers have theirs, so that both write to the same file system.
    let dir = tempfile::tempdir()?;
    let mut registry = Registry::start(&peers, dir.path()).await?;
    let maker = Server::start(binary, layers, &["--warm", "0"]).await?;
    let copies = if quick { 0 } else { COPIES };
    let filled = fill(&maker, &peers, &registry, (dir.path(), copies)).await;
    maker.stop().await?;
    filled.context("make the image")?;
    let (mut ours, mut whole, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..n {
        theirs.push(unpack(&peers, &registry, dir.path()).await?);
        let flags = ["--warm", "0", "--insecure-registry", &registry.address];
        let server = Server::start(binary, layers, &flags).await?;
        let from: Value = json!({ "fromImage": registry.image(), "steps": [] });
        let built = server.api.build("bench-pulled", &from).await;
        server.stop().await?;
        let built = built?;
        ours.push(built.between("[base] FROM IMAGE", "Layers extracted")?);
        whole.push(built.took);
    }
    registry.child.kill().await?;
    report.times("pull of an image", ours);
    report.times("skopeo copy and umoci unpack of it", theirs);
    report.times("build from an image, all of it", whole);
    Ok(())
}
