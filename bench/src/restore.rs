//! Peers of a resume from the disk: the same Python program, restored by CRIU alone, and by
//! gVisor in a sandbox with the root file system that Warren's has.
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::peers::{base_rootfs, bundle, runtime};
use crate::report::Report;

/// Where Warren keeps the CRIU that it prepares for all servers of a machine.
const TOOLS: &str = "/var/cache/warren/tools/criu/usr";
/// Holds as much as the program in the sandbox does, and makes `/tmp/up` then.
const PROGRAM: &str = "import time; held = bytearray(b'x' * (80 << 20)); \
                       open('/tmp/up', 'w'); time.sleep(3600)";
/// In process ids and a `/tmp` of its own. Prints when each restore began and ended. What is
/// inherited open is closed: CRIU can't dump files of mounts that aren't there.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs none /tmp
cd /
for fd in /proc/$$/fd/*; do
    fd=${fd##*/}
    if test $fd -gt 2 -a $fd -ne 255; then eval "exec $fd>&-"; fi
done
setsid python3 -c "$PROGRAM" </dev/null >/dev/null 2>&1 &
pid=$!
until test -e /tmp/up; do sleep .02; done
$CRIU dump --tree $pid --images-dir "$IMAGES" --log-file dump.log >/dev/null
wait $pid || true
for round in $(seq "$ROUNDS"); do
    begun=$EPOCHREALTIME
    $CRIU restore --images-dir "$IMAGES" --log-file restore.log --restore-detached >/dev/null
    echo $begun $EPOCHREALTIME
    kill -KILL $pid
    while test -e /proc/$pid; do sleep .01; done
done
"#;
/// A sandbox that is not up by then won't be.
const LIMIT: Duration = Duration::from_secs(60);

/// The words to run CRIU with: the one of the search path if it is new enough, else that which
/// Warren prepared.
fn criu() -> Option<String> {
    let version = Command::new("criu").arg("--version").output();
    let text = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if let Ok(text) = &text
        && !["Version: 3.", "Version: 4.0", "Version: 4.1"]
            .iter()
            .any(|old| text.contains(old))
    {
        return Some("criu".to_owned());
    }
    let find = |dir: &str, part: &str| {
        let entries = std::fs::read_dir(dir).ok()?.flatten();
        let mut paths = entries.map(|entry| entry.path().to_string_lossy().into_owned());
        paths.find(|path| path.contains(part))
    };
    let libraries = find(&format!("{TOOLS}/lib"), "-linux-gnu")?;
    let loader = find(&libraries, "/ld-linux")?;
    Some(format!(
        "{loader} --library-path {libraries} {TOOLS}/sbin/criu"
    ))
}

/// `criu restore` of a process with nothing around it: no root file system, no network, no
/// identity of its own.
pub(crate) fn bare(n: usize, report: &mut Report) -> anyhow::Result<()> {
    let Some(words) = criu() else {
        println!("there is no CRIU here to restore with by itself");
        return Ok(());
    };
    let images = tempfile::tempdir_in("/var/tmp")?;
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"])
        .args(["bash", "-c", SCRIPT])
        .env("PROGRAM", PROGRAM)
        .env("CRIU", words)
        .env("IMAGES", images.path())
        .env("ROUNDS", n.to_string())
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        println!("criu does not work here by itself: {}", output.status);
        return Ok(());
    }
    let mut series = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let (begun, ended) = line.split_once(' ').context("two times")?;
        let took: f64 = ended.parse::<f64>()? - begun.parse::<f64>()?;
        series.push(Duration::from_secs_f64(took));
    }
    report.times("criu restore, 100 MB Python", series);
    Ok(())
}

/// `runsc restore` of a gVisor sandbox in which the program runs.
pub(crate) fn gvisor(layers: &Path, n: usize, report: &mut Report) -> anyhow::Result<()> {
    let rootfs = base_rootfs(layers)?;
    let stay = bundle(&rootfs, &["/usr/bin/python3", "-c", PROGRAM])?;
    let images = tempfile::tempdir_in("/var/tmp")?;
    let name = |round: usize| format!("warren-restore-{}-{round}", std::process::id());
    let run = |arguments: &[&str]| runtime("runsc").args(arguments).status();
    let bundle = stay.path().to_string_lossy().into_owned();
    let started = run(&["run", "--detach", "--bundle", &bundle, &name(0)]);
    if !started
        .as_ref()
        .is_ok_and(std::process::ExitStatus::success)
    {
        println!("runsc does not work here: {started:?}");
        return Ok(());
    }
    let begun = Instant::now();
    while !run(&["exec", &name(0), "/usr/bin/test", "-e", "/tmp/up"])?.success() {
        anyhow::ensure!(begun.elapsed() < LIMIT, "the program in runsc is not up");
        std::thread::sleep(Duration::from_millis(50));
    }
    let place = images.path().to_string_lossy().into_owned();
    let saved = run(&["checkpoint", "--image-path", &place, &name(0)])?;
    run(&["delete", "--force", &name(0)])?;
    if !saved.success() {
        println!("runsc checkpoint does not work here: {saved}");
        return Ok(());
    }
    let mut series = Vec::new();
    for round in 1..=n {
        let (name, start) = (name(round), Instant::now());
        let restored = run(&[
            "restore",
            "--detach",
            "--bundle",
            &bundle,
            "--image-path",
            &place,
            &name,
        ])?;
        series.push(start.elapsed());
        run(&["delete", "--force", &name])?;
        if !restored.success() {
            println!("runsc restore does not work here: {restored}");
            return Ok(());
        }
    }
    report.times("runsc restore, 100 MB Python", series);
    Ok(())
}
