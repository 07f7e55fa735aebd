//! Named peers: OCI runtimes on the same root file system, without network, agent or API.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context;
use serde_json::json;

use crate::report::Report;

/// The base template's root file system: the newest layer there is.
pub(crate) fn base_rootfs(layers: &Path) -> anyhow::Result<PathBuf> {
    let mut newest = None;
    for entry in std::fs::read_dir(layers).with_context(|| format!("read {}", layers.display()))? {
        let path = entry?.path();
        if path.join("bin/true").exists() {
            let changed = path.metadata()?.modified()?;
            if newest.as_ref().is_none_or(|(time, _)| *time < changed) {
                newest = Some((changed, path));
            }
        }
    }
    Ok(newest.context("no root file system among the layers")?.1)
}

pub(crate) fn bundle(rootfs: &Path, args: &[&str]) -> anyhow::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    let namespaces = ["pid", "network", "ipc", "uts", "mount"];
    let mount =
        |target: &str, kind: &str| json!({ "destination": target, "type": kind, "source": kind });
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": args, "cwd": "/", "noNewPrivileges": true,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "root": { "path": rootfs, "readonly": true },
        "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/tmp", "tmpfs")],
        "linux": { "namespaces": namespaces.map(|kind| json!({ "type": kind })) },
    });
    std::fs::write(dir.path().join("config.json"), config.to_string())?;
    Ok(dir)
}

pub(crate) fn runtime(peer: &str) -> Command {
    let mut command = Command::new(peer);
    if peer == "runsc" {
        command.args(["--network=none", "--ignore-cgroups"]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Where several cgroup hierarchies are mounted, crun refuses to start.
fn is_hybrid() -> bool {
    Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists()
}

/// Measures a peer in a process of its own that sees version 2 cgroups only, as on most
/// machines. The detour is outside of what is timed.
fn measure_unified(
    peer: &str,
    layers: &Path,
    quick: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let results = tempfile::NamedTempFile::new()?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$0\" \"$@\"")
        .arg(std::env::current_exe()?)
        .args(["--only", &format!("peer-{peer}"), "--layers-dir"])
        .arg(layers)
        .arg("--json")
        .arg(results.path())
        .args(quick.then_some("--quick"))
        .stdout(Stdio::null());
    let status = command.status()?;
    anyhow::ensure!(status.success(), "measuring {peer}: {status}");
    report.absorb(&std::fs::read(results.path())?)
}

/// Measures a peer wherever it works.
pub(crate) fn measure_here(
    peer: &str,
    layers: &Path,
    quick: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    if peer == "crun" && is_hybrid() {
        return measure_unified(peer, layers, quick, report);
    }
    measure(
        peer,
        &base_rootfs(layers)?,
        if quick { 3 } else { 30 },
        report,
    )
}

/// Measures `run` of a container that ends at once, and `exec` in one that stays. A peer
/// that is not installed or does not work here is told as such, not passed over.
#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(crate) fn measure(
    peer: &str,
    rootfs: &Path,
    n: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let id = |index: usize| format!("warren-bench-{}-{index}", std::process::id());
    let once = bundle(rootfs, &["/bin/true"])?;
    let mut series = Vec::new();
    for index in 0..n.max(3) {
        let start = Instant::now();
        let status = runtime(peer)
            .arg("run")
            .arg("--bundle")
            .arg(once.path())
            .arg(id(index))
            .status();
        match status {
            Ok(status) if status.success() => series.push(start.elapsed()),
            Ok(status) => {
                println!("{peer} run does not work here: {status}");
                return Ok(());
            }
            Err(error) => {
                println!("{peer} can't be started here: {error}");
                return Ok(());
            }
        }
    }
    report.times(format!("{peer} run true"), series);

    let stay = bundle(rootfs, &["/bin/sleep", "600"])?;
    let name = id(1_000_000);
    let started = runtime(peer)
        .args(["run", "--detach", "--bundle"])
        .arg(stay.path())
        .arg(&name)
        .status()?;
    let mut series = Vec::new();
    if started.success() {
        for _ in 0..n.max(3) {
            let start = Instant::now();
            let status = runtime(peer).args(["exec", &name, "/bin/true"]).status()?;
            anyhow::ensure!(status.success(), "{peer} exec: {status}");
            series.push(start.elapsed());
        }
        runtime(peer).args(["kill", &name, "KILL"]).status()?;
        runtime(peer).args(["delete", "--force", &name]).status()?;
    } else {
        println!("{peer} run --detach does not work here: {started}");
    }
    report.times(format!("{peer} exec true"), series);
    Ok(())
}
