//! A server of our own for the time of a scenario.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::warren::Api;

/// A running server and a client of it. Ended with [`stop`](Self::stop).
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
    pub(crate) api: Api,
}

impl Server {
    pub(crate) async fn start(
        binary: &Path,
        layers: &Path,
        extra: &[&str],
    ) -> anyhow::Result<Self> {
        let templates = if extra.contains(&"--templates") {
            &[][..]
        } else {
            &["--templates", "none"]
        };
        let dir = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let key_file = dir.path().join("api-key");
        let mut child = Command::new(binary)
            .arg("up")
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .arg("--layers-dir")
            .arg(layers)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .arg("--api-key-file")
            .arg(&key_file)
            .arg("--end-sandboxes")
            .args(templates)
            .args(extra)
            .env("WARREN_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let url = format!("http://127.0.0.1:{port}");
        let http = reqwest::Client::builder()
            .http1_only()
            .tcp_nodelay(true)
            .build()?;
        for _ in 0..1200 {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status}");
            }
            let healthy = http.get(format!("{url}/health")).send().await;
            if healthy.is_ok_and(|answer| answer.status().is_success()) {
                let key = tokio::fs::read_to_string(&key_file).await?;
                let api = Api::new(http, url, key.trim().to_owned());
                return Ok(Self { child, dir, api });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the server did not become healthy");
    }

    /// Where the server keeps captures.
    pub(crate) fn captures(&self) -> std::path::PathBuf {
        let data = self.dir.path().join("data");
        let pool = data.join("pool/disks/captures");
        if pool.exists() {
            pool
        } else {
            data.join("disks/captures")
        }
    }

    /// Resident memory of the server in bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let pid = self.child.id().context("the server has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        });
        Ok(kib.context("no VmRSS")? * 1024)
    }

    /// Memory that only the processes of one sandbox have, in bytes, of each sandbox in which
    /// a program of this name runs.
    pub(crate) fn private_bytes(&self, program: &str) -> anyhow::Result<Vec<u64>> {
        let server = self.child.id().context("the server has ended")?;
        let processes = Processes::read()?;
        let helpers = processes.children(server);
        let firsts = helpers.iter().flat_map(|pid| processes.children(*pid));
        let mut sandboxes = Vec::new();
        for first in firsts {
            let all = processes.tree(first);
            if !all.iter().any(|pid| processes.is_named(*pid, program)) {
                continue;
            }
            let mut sum = 0;
            for pid in all {
                sum += private_bytes_of(pid)?;
            }
            sandboxes.push(sum);
        }
        Ok(sandboxes)
    }

    /// Ends the server and everything it runs.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().context("the server has ended")?;
        let status = Command::new("kill").arg(pid.to_string()).status().await?;
        anyhow::ensure!(status.success(), "could not signal the server");
        let status = tokio::time::timeout(Duration::from_secs(60), self.child.wait())
            .await
            .context("the server did not stop")??;
        anyhow::ensure!(status.success(), "the server stopped with {status}");
        self.dir.close()?;
        Ok(())
    }
}

/// The processes of the machine: parent and name by id.
struct Processes(BTreeMap<u32, (u32, String)>);

impl Processes {
    fn read() -> anyhow::Result<Self> {
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(pid) = name.and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Processes end while they are listed.
            let Ok(stat) = std::fs::read_to_string(path.join("stat")) else {
                continue;
            };
            let (start, rest) = stat.rsplit_once(") ").context("a strange stat file")?;
            let name = start.split_once('(').map_or("", |(_, name)| name);
            let parent = rest.split(' ').nth(1).context("no parent")?.parse()?;
            all.insert(pid, (parent, name.to_owned()));
        }
        Ok(Self(all))
    }

    fn children(&self, of: u32) -> Vec<u32> {
        let all = self.0.iter();
        all.filter(|(_, (parent, _))| *parent == of)
            .map(|(pid, _)| *pid)
            .collect()
    }

    /// A process and all below it.
    fn tree(&self, root: u32) -> Vec<u32> {
        let mut found = vec![root];
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            found.extend(self.children(*pid));
            next += 1;
        }
        found
    }

    fn is_named(&self, pid: u32, name: &str) -> bool {
        self.0.get(&pid).is_some_and(|(_, own)| own == name)
    }
}

fn private_bytes_of(pid: u32) -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .with_context(|| format!("read the memory of process {pid}"))?;
    let kib = rollup
        .lines()
        .filter_map(|line| line.strip_prefix("Private_")?.split_whitespace().nth(1))
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(kib * 1024)
}
