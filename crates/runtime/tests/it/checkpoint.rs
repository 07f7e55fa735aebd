//! What can be captured with its memory, what is refused, and what a crash leaves.

use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::CWD;
use tempfile::TempDir;
use warren_runtime::ns::{NsRuntime, NsSandbox};
use warren_runtime::{Attachment, Runtime, RuntimeError, Sandbox};
use warren_sys::mount;

use crate::harness::{Host, config, ok, spec, tools};

/// A file system of its own, as volumes are.
struct Volume(TempDir);

impl Volume {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let image = dir.path().join("image");
        let run = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).status().unwrap();
            assert!(status.success(), "{program}");
        };
        let file = fs::File::create(&image).unwrap();
        file.set_len(16 << 20).unwrap();
        let mounted = dir.path().join("mounted");
        fs::create_dir(&mounted).unwrap();
        let image = image.to_str().unwrap();
        run("mkfs.ext4", &["-q", image]);
        run("mount", &["-o", "loop", image, mounted.to_str().unwrap()]);
        fs::set_permissions(&mounted, Permissions::from_mode(0o777)).unwrap();
        Self(dir)
    }

    fn tree(&self) -> OwnedFd {
        mount::clone_tree(CWD, &self.path(), false).unwrap()
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("mounted")
    }

    fn at(&self, path: &str) -> Vec<Attachment> {
        vec![Attachment {
            tree: self.tree(),
            path: path.to_owned(),
            read_only: false,
        }]
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(self.path()).status().unwrap();
        assert!(status.success());
    }
}

/// Starts a Python program that stays once it has made `/tmp/ready`.
async fn stay(sandbox: &NsSandbox, program: &str) {
    let program = format!("{program}; import time; open('/tmp/ready', 'w'); time.sleep(1000)");
    let command = format!(
        "rm -f /tmp/ready; python3 -c \"{program}\" >/dev/null 2>&1 & \
         until test -e /tmp/ready; do sleep .01; done"
    );
    ok(sandbox, &command).await;
}

async fn refusal(sandbox: &NsSandbox, into: &Path) -> String {
    sandbox.freeze().await.unwrap();
    let refused = sandbox.capture(into, true).await.unwrap_err();
    assert!(
        matches!(refused, RuntimeError::NoCheckpoint(_)),
        "{refused}"
    );
    assert!(!into.exists() && sandbox.is_frozen().await.unwrap());
    sandbox.thaw().await.unwrap();
    ok(
        sandbox,
        "pkill -KILL python3; while pgrep -r S,R,D python3 >&2; do sleep .01; done",
    )
    .await;
    refused.to_string()
}

#[tokio::test]
async fn volumes_are_mounted_again_before_anything_runs() {
    tools();
    let volume = Volume::new();
    let host = Host::start(2);
    let source = host.boot().await;
    source.attach(volume.at("/mnt/v")).await.unwrap();
    // It writes there all the time, but has nothing open between.
    let writer = "while :; do date +%s%N >> /mnt/v/ticks || exit; sleep .003; done";
    ok(
        &source,
        &format!("({writer}) >/dev/null 2>&1 & until test -s /mnt/v/ticks; do sleep .01; done"),
    )
    .await;
    let into = host.runtime.captures_dir().join("one");
    loop {
        source.freeze().await.unwrap();
        match source.capture(&into, true).await {
            Ok(info) => break assert!(info.has_memory),
            // It was frozen while it wrote.
            Err(RuntimeError::NoCheckpoint(why)) => assert!(why.contains("/mnt/v"), "{why}"),
            Err(error) => panic!("{error}"),
        }
        source.thaw().await.unwrap();
    }
    source.destroy().await.unwrap();
    let before = fs::read(volume.path().join("ticks")).unwrap().len();
    let mounts = volume.at("/mnt/v");
    let restored = host
        .runtime
        .restore(spec(), &into, true, mounts)
        .await
        .unwrap();
    let copy = restored.sandbox;
    ok(&copy, "sleep .1; pgrep -f ticks").await;
    assert!(fs::read(volume.path().join("ticks")).unwrap().len() > before);
    // Nothing went to the place below.
    ok(&copy, "pkill -f [t]icks").await;
    assert!(!copy.upper_path().join("mnt/v/ticks").exists());
    // Without the volume it runs, and with its files alone it has the volume too.
    let alone = host
        .runtime
        .restore(spec(), &into, true, Vec::new())
        .await
        .unwrap();
    ok(&alone.sandbox, "test ! -e /mnt/v/given").await;
    let mounts = volume.at("/mnt/v");
    let booted = host
        .runtime
        .restore(spec(), &into, false, mounts)
        .await
        .unwrap();
    ok(&booted.sandbox, "test -s /mnt/v/ticks").await;
    for sandbox in [&copy, &alone.sandbox, &booted.sandbox] {
        sandbox.destroy().await.unwrap();
    }
    drop((source, copy, alone, booted));
    host.stop().await;
}

#[tokio::test]
async fn what_cant_be_carried_is_refused_with_the_reason() {
    tools();
    let volume = Volume::new();
    let host = Host::start(1);
    let sandbox = host.boot().await;
    sandbox.attach(volume.at("/mnt/v")).await.unwrap();
    let into = host.runtime.captures_dir().join("one");
    for (program, reason) in [
        (
            "f = open('/mnt/v/file', 'w')",
            "/mnt/v/file on the volume /mnt/v",
        ),
        ("import os; os.chdir('/mnt/v')", "on the volume /mnt/v"),
        (
            "import socket; s = socket.socket(socket.AF_UNIX); s.bind('/mnt/v/sock'); s.listen()",
            "a local socket on the volume",
        ),
        (
            "import os; f = open('/root/a', 'w'); os.link('/root/a', '/root/b'); os.unlink('/root/a')",
            "/root/a open, a name that was deleted",
        ),
    ] {
        stay(&sandbox, program).await;
        let told = refusal(&sandbox, &into).await;
        assert!(told.contains(reason), "{told}");
        ok(&sandbox, "rm -f /root/a /root/b").await;
    }
    sandbox.freeze().await.unwrap();
    sandbox.capture(&into, true).await.unwrap();
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    host.stop().await;
}

#[tokio::test]
async fn a_sandbox_is_captured_while_it_forks() {
    tools();
    let host = Host::start(1);
    let source = host.boot().await;
    // The shell vforks, so it waits unkillably for each child until that runs its program.
    let forking = "while :; do /bin/true; done";
    for _ in 0..4 {
        ok(&source, &format!("({forking}) >/dev/null 2>&1 &")).await;
    }
    let into = host.runtime.captures_dir().join("one");
    for _ in 0..5 {
        source.freeze().await.unwrap();
        assert!(source.capture(&into, true).await.unwrap().has_memory);
        source.thaw().await.unwrap();
        host.runtime.forget_capture(&into).await.unwrap();
    }
    ok(&source, "pkill -f [b]in/true").await;
    // One whose child never runs a program can't be stopped at all.
    let clone = if cfg!(target_arch = "x86_64") {
        56
    } else {
        220
    };
    let started = format!(
        "perl -e 'syscall({clone}, 0x4111, 0, 0, 0, 0); sleep 1000' >/dev/null 2>&1 & \
         until test $(pgrep -c perl) = 2; do sleep .01; done"
    );
    ok(&source, &started).await;
    let told = refusal(&source, &into).await;
    assert!(told.contains("vforked"), "{told}");
    ok(&source, "pkill -KILL perl").await;
    source.freeze().await.unwrap();
    source.capture(&into, true).await.unwrap();
    source.destroy().await.unwrap();
    drop(source);
    host.stop().await;
}

#[tokio::test]
async fn a_restored_sandbox_outlives_the_server() {
    tools();
    let host = Host::start(1);
    let source = host.boot().await;
    stay(&source, "pass").await;
    let into = host.runtime.captures_dir().join("one");
    source.freeze().await.unwrap();
    source.capture(&into, true).await.unwrap();
    source.destroy().await.unwrap();
    let restored = host
        .runtime
        .restore(spec(), &into, true, Vec::new())
        .await
        .unwrap();
    let record = restored.sandbox.record();
    drop((source, restored));
    let Host { dir, runtime } = host;
    runtime.shutdown().await;
    drop(runtime);

    let runtime = NsRuntime::open(config(dir.path(), 0)).unwrap();
    let host = Host { dir, runtime };
    let adopted = host.runtime.adopt(record.clone()).await.unwrap();
    host.runtime.sweep(&[record.id]).await.unwrap();
    ok(&adopted, "pgrep python3").await;
    adopted.freeze().await.unwrap();
    let again = host.runtime.captures_dir().join("two");
    adopted.capture(&again, true).await.unwrap();
    adopted.thaw().await.unwrap();
    ok(&adopted, "pgrep python3").await;
    adopted.destroy().await.unwrap();
    drop(adopted);
    host.stop().await;
}

#[tokio::test]
async fn the_end_waits_for_restores_that_nobody_waits_for() {
    tools();
    let host = Host::start(3);
    let source = host.boot().await;
    stay(&source, "pass").await;
    let into = host.runtime.captures_dir().join("one");
    source.freeze().await.unwrap();
    source.capture(&into, true).await.unwrap();
    source.destroy().await.unwrap();
    drop(source);
    for patience in [2, 15, 40] {
        let restoring = host.runtime.restore(spec(), &into, true, Vec::new());
        let patience = std::time::Duration::from_millis(patience);
        if let Ok(restored) = tokio::time::timeout(patience, restoring).await {
            restored.unwrap().sandbox.destroy().await.unwrap();
        }
    }
    let Host { dir, runtime } = host;
    runtime.shutdown().await;
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
}

/// Where the process that is to be killed works.
const VICTIM: &str = "WARREN_TEST_VICTIM";

/// No test of its own: captures and restores until it is killed.
#[tokio::test]
#[ignore = "is started and killed by another"]
async fn captures_and_restores_for_ever() {
    let dir = std::env::var_os(VICTIM).expect("the directory to work in");
    let runtime = NsRuntime::open(config(Path::new(&dir), 0)).unwrap();
    let source = runtime.boot(spec()).await.unwrap();
    stay(&source, "pass").await;
    let record = serde_json::to_vec(&source.record()).unwrap();
    fs::write(Path::new(&dir).join("draft"), record).unwrap();
    fs::rename(
        Path::new(&dir).join("draft"),
        Path::new(&dir).join("record"),
    )
    .unwrap();
    for round in 0.. {
        let into = runtime.captures_dir().join(round.to_string());
        source.freeze().await.unwrap();
        source.capture(&into, true).await.unwrap();
        source.thaw().await.unwrap();
        let copy = runtime.restore(spec(), &into, true, Vec::new()).await;
        copy.unwrap().sandbox.destroy().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_killed_at_any_moment_leaves_its_sandbox_and_nothing_else() {
    tools();
    for delay in [0, 60, 130, 210, 300] {
        let dir = TempDir::new().unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "checkpoint::captures_and_restores_for_ever",
            ])
            .env(VICTIM, dir.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let record = dir.path().join("record");
        while !record.exists() {
            assert!(victim.try_wait().unwrap().is_none(), "it failed by itself");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
        let record: warren_runtime::Record =
            serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
        let runtime = NsRuntime::open(config(dir.path(), 0)).unwrap();
        let host = Host { dir, runtime };
        let source = host.runtime.adopt(record.clone()).await.unwrap();
        host.runtime.sweep(&[record.id]).await.unwrap();
        source.thaw().await.unwrap();
        ok(&source, "pgrep python3").await;
        // Every capture there is can be used, and no other trace is left.
        for entry in fs::read_dir(host.runtime.captures_dir()).unwrap() {
            let into = entry.unwrap().path();
            let name = into.file_name().unwrap().to_str().unwrap();
            assert!(!name.starts_with('.'), "{name}");
            host.runtime.inspect_capture(&into).await.unwrap();
            host.runtime.forget_capture(&into).await.unwrap();
        }
        source.freeze().await.unwrap();
        let again = host.runtime.captures_dir().join("again");
        source.capture(&again, true).await.unwrap();
        source.destroy().await.unwrap();
        drop(source);
        host.settle().await;
        assert_eq!(host.groups(), Vec::<String>::new());
        host.stop().await;
    }
}
