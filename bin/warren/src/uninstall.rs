//! `warren uninstall`: ends what a server has on this machine and removes what it kept.

use std::io::{self, BufRead, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use warren_node::{Node, NodeConfig, StopMode, WarmConfig};
use warren_runtime::ns::{NsConfig, NsRuntime, Overlay, RUN_DIR};
use warren_volume::Volumes;

use crate::cli::bundle::Uninstall;
use crate::data::DataDir;
use crate::guest;
use crate::print::{self, warning};
use crate::trust;

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
    let instance = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(end_all(&data))?;
    ensure_released(data.path(), &instance)?;
    let mut text = "Ended all sandboxes and gave back what they held".to_owned();
    if !args.keep_data {
        if trust::withdraw(data.path())? > 0 {
            text.push_str("\nThis machine does not trust its certificates any more");
        }
        let path = data.path().to_owned();
        drop(data);
        std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        clear_shared();
        text.push_str(&format!("\nRemoved {}", dir.display()));
    }
    let value = json!({ "dataDir": dir, "removed": !args.keep_data });
    print::done(as_json, &value, &text)?;
    Ok(ExitCode::SUCCESS)
}

/// Removes what all servers of the machine share, if no other one has anything there.
fn clear_shared() {
    let shared = Path::new(RUN_DIR);
    let is_empty = |name: &str| match std::fs::remove_dir(shared.join(name)) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(()) => true,
    };
    if is_empty("slots") && is_empty("forwarding") {
        // What is left of it goes with the next start of the machine.
        std::fs::remove_file(shared.join("lock")).ok();
        std::fs::remove_dir(shared).ok();
    }
}

/// Refuses to go on while something of the server is there: what is mounted in the data
/// directory must not be deleted from under it.
fn ensure_released(dir: &Path, instance: &str) -> anyhow::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("list mounts")?;
    let mut places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    if let Some(place) = places.find(|place| Path::new(place).starts_with(dir)) {
        bail!(
            "{place} is still mounted\nhint: see what uses it with `fuser -vm {place}`, and run this again"
        );
    }
    let run_dir = Path::new(RUN_DIR).join(instance);
    ensure!(
        !run_dir.exists(),
        "some sandboxes could not be ended\nhint: run this again with WARREN_LOG=debug"
    );
    Ok(())
}

fn confirm(dir: &Path) -> anyhow::Result<()> {
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
/// Returns the name of what it had on the host.
async fn end_all(data: &DataDir) -> anyhow::Result<String> {
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
    let instance = runtime.instance().to_owned();
    let node = Node::start(config, runtime).await?;
    node.stop(StopMode::EndSandboxes).await;
    Ok(instance)
}
