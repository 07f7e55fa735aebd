//! `warren uninstall`: ends what a server has on this machine and removes what it kept.

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use warren_node::{Node, NodeConfig, StopMode, WarmConfig};
use warren_runtime::ns::{NsConfig, NsRuntime, Overlay};
use warren_volume::Volumes;

use crate::cli::bundle::Uninstall;
use crate::data::DataDir;
use crate::guest;
use crate::print::{self, warning};

const VOLUME_MIB: u32 = 1024;

/// Runs it.
pub(crate) fn run(args: &Uninstall, as_json: bool) -> anyhow::Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "sandboxes and their data are root's\nhint: run it with sudo"
    );
    let dir = &args.data_dir.path;
    if !dir.exists() {
        let value = json!({ "dataDir": dir, "removed": false });
        print::done(as_json, &value, &format!("{} is not there", dir.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    // A typing error must not remove somebody else's directory.
    ensure!(
        dir.join("lock").exists() && dir.join("warren.db").exists(),
        "{} is no data directory of a server\nhint: name it with --data-dir",
        dir.display()
    );
    if !args.yes && !args.keep_data {
        confirm(dir)?;
    }
    let data = DataDir::open(dir)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(end_all(&data))?;
    let mut text = "Ended all sandboxes and gave back what they held".to_owned();
    if !args.keep_data {
        drop(data);
        std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
        text.push_str(&format!("\nRemoved {}", dir.display()));
    }
    let value = json!({ "dataDir": dir, "removed": !args.keep_data });
    print::done(as_json, &value, &text)?;
    Ok(ExitCode::SUCCESS)
}

fn confirm(dir: &std::path::Path) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("nobody to ask\nhint: give --yes");
    }
    warning(&format!(
        "This ends all sandboxes and removes {} with all templates, volumes and keys. Type yes to go on.",
        dir.display()
    ));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    ensure!(answer.trim() == "yes", "nothing was removed");
    Ok(())
}

/// Takes over whatever a server left running, and ends it as a server does that is told to.
async fn end_all(data: &DataDir) -> anyhow::Result<()> {
    let runtime = Arc::new(NsRuntime::open(NsConfig {
        data_dir: data.path().to_owned(),
        helper: std::env::current_exe().context("find this program")?,
        prepared: 0,
        allowed_egress: Vec::new(),
        edge: None,
        overlay: Overlay::Probe,
    })?);
    let programs = guest::unpack(data.path())?;
    let volumes = Volumes::open(data.path().join("volumes"), VOLUME_MIB)
        .context("open the directory of volumes")?;
    let config = NodeConfig {
        data_dir: data.path().to_owned(),
        layers_dirs: vec![data.path().join("layers")],
        agent: programs.agent,
        programs: Some(programs.layer),
        events_address: String::new(),
        sample_every: Duration::from_secs(3600),
        log_retention: Duration::from_secs(3600),
        log_bytes: u64::MAX,
        volumes: Arc::new(volumes),
        warm: WarmConfig {
            floor: 0,
            ..WarmConfig::default()
        },
        pause: warren_node::PauseConfig::default(),
    };
    let node = Node::start(config, runtime).await?;
    node.stop(StopMode::EndSandboxes).await;
    Ok(())
}
