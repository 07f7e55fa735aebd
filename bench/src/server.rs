//! A server of our own for the time of a scenario.

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
            .args(["--templates", "none"])
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
