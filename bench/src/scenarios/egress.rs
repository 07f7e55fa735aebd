//! What rules on names cost a connection that they allow. A server and a name server in a
//! network namespace are the internet.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::secure;
use crate::report::Report;
use crate::server::Server;
use crate::warren::Sandbox;

const NETNS: &str = "wrbench";
const LINK: &str = "wrbench0";
const HOST: &str = "203.0.113.126";
const WEB: &str = "203.0.113.101";
/// Where names are asked for, for the server's `--resolver`.
pub(crate) const RESOLVER: &str = "203.0.113.101:53";
const NAME: &str = "allowed.test";
const RULES: usize = 1000;

/// The namespace and its servers.
pub(crate) struct Internet {
    children: Vec<Child>,
    /// The files of the backend's certificate.
    dir: TempDir,
}

async fn ip(words: &str) -> anyhow::Result<()> {
    let status = Command::new("ip").args(words.split(' ')).status().await?;
    anyhow::ensure!(status.success(), "ip {words}: {status}");
    Ok(())
}

impl Internet {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        remove().await?;
        ip(&format!("netns add {NETNS}")).await?;
        let link = format!("link add {LINK} type veth peer name eth0 netns {NETNS}");
        ip(&link).await?;
        ip(&format!("addr add {HOST}/27 dev {LINK}")).await?;
        ip(&format!("link set {LINK} up")).await?;
        ip(&format!("-n {NETNS} link set lo up")).await?;
        ip(&format!("-n {NETNS} addr add {WEB}/27 dev eth0")).await?;
        ip(&format!("-n {NETNS} link set eth0 up")).await?;
        let mut children = Vec::new();
        let dir = tempfile::tempdir()?;
        let [chain, key] = secure::certify(dir.path())?;
        let (web, secure) = (format!("{WEB}:80"), format!("{WEB}:443"));
        for role in [
            &["backend", &web][..],
            &["secure-backend", &secure, &chain, &key],
            &["names", RESOLVER, WEB],
        ] {
            let child = Command::new("ip")
                .args(["netns", "exec", NETNS])
                .arg(std::env::current_exe()?)
                .args(role)
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .context("start a server in the namespace")?;
            children.push(child);
        }
        Ok(Self { children, dir })
    }

    /// File with the authority of its web server.
    pub(crate) fn authority(&self) -> String {
        secure::authority(self.dir.path())
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for mut child in self.children {
            child.kill().await?;
        }
        remove().await
    }
}

async fn remove() -> anyhow::Result<()> {
    for words in [["link", "del", LINK], ["netns", "del", NETNS]] {
        // Most often it is not there.
        let mut command = Command::new("ip");
        command.args(words).stderr(Stdio::null()).status().await?;
    }
    Ok(())
}

/// Measures requests from sandboxes with one rule and with many, in turns, and what is looked
/// into beside what is not.
pub(crate) async fn run(
    server: &Server,
    internet: &Internet,
    n: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    const ROUNDS: usize = 5;
    let few = with_rules(server, 1).await?;
    let many = with_rules(server, RULES).await?;
    let (mut few_times, mut many_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        few_times.extend(ask(server, &few, n / ROUNDS).await?);
        many_times.extend(ask(server, &many, n / ROUNDS).await?);
    }
    report.times("egress: request, 1 rule on names", few_times);
    report.times(
        format!("egress: request, {RULES} rules on names"),
        many_times,
    );
    server.api.kill(&few).await?;
    server.api.kill(&many).await?;
    secure::run(server, internet.dir.path(), n, report).await
}

async fn with_rules(server: &Server, rules: usize) -> anyhow::Result<Sandbox> {
    let sandbox = server.api.create().await?;
    super::proxy::upload(server, &sandbox).await?;
    let others = (1..rules).map(|number| format!("name-{number}.example.com"));
    let allowed: Vec<_> = others.chain([NAME.to_owned()]).collect();
    let network = json!({ "allowOut": allowed, "denyOut": ["0.0.0.0/0"] });
    let path = format!("/sandboxes/{}/network", sandbox.id);
    server.api.put(&path, &network).await?;
    Ok(sandbox)
}

async fn ask(server: &Server, sandbox: &Sandbox, n: usize) -> anyhow::Result<Vec<Duration>> {
    let command = format!("/tmp/bench-backend ask {NAME} {n}");
    let output = server.api.run(sandbox, &command).await?;
    let nanos: Vec<u64> =
        serde_json::from_str(&output).with_context(|| format!("no times: {output:?}"))?;
    Ok(nanos.into_iter().map(Duration::from_nanos).collect())
}
