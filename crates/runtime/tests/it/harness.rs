//! A runtime of its own for each test, and commands inside sandboxes.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use warren_runtime::ns::{
    NsConfig, NsRuntime, NsSandbox, Overlay, Preparing, SHARED_TOOLS, prepare_tools,
};
use warren_runtime::{AgentSpec, BootSpec, Runtime, Sandbox};
use warren_types::{ENVD_PORT, NetworkPolicy, Resources, SandboxId};

/// Overrides where the root file system for tests is kept.
const ROOTFS_VARIABLE: &str = "WARREN_TEST_ROOTFS";
const ROOTFS: &str = "/var/cache/warren-test/rootfs";
const PACKAGES: &str = "sudo,iproute2,iputils-ping,procps,python3-minimal,kmod";

/// A minimal Debian, made once and kept.
pub(crate) fn rootfs() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let path = std::env::var_os(ROOTFS_VARIABLE).map_or_else(|| ROOTFS.into(), PathBuf::from);
        if !path.join("etc/debian_version").exists() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let draft = path.with_extension(std::process::id().to_string());
            let status = Command::new("mmdebstrap")
                .arg("--variant=minbase")
                .arg(format!("--include={PACKAGES}"))
                .arg("bookworm")
                .arg(&draft)
                .status()
                .expect("mmdebstrap is installed");
            assert!(status.success(), "mmdebstrap failed");
            std::fs::rename(draft, &path).unwrap();
        }
        path
    })
    .clone()
}

/// Has CRIU, made once and kept.
pub(crate) fn tools() {
    let go_on = |_: Preparing<'_>| ControlFlow::Continue(());
    prepare_tools(Path::new(SHARED_TOOLS), None, go_on).expect("CRIU can be prepared");
}

pub(crate) struct Host {
    pub(crate) dir: TempDir,
    pub(crate) runtime: NsRuntime,
}

/// Runs the tests as on a kernel that joins layers by path only.
const BY_PATH_VARIABLE: &str = "WARREN_TEST_OVERLAY_BY_PATH";

fn overlay() -> Overlay {
    match std::env::var_os(BY_PATH_VARIABLE) {
        Some(_) => Overlay::ByPath,
        None => Overlay::Probe,
    }
}

pub(crate) fn config(data_dir: &Path, prepared: usize) -> NsConfig {
    NsConfig {
        data_dir: data_dir.to_owned(),
        helper: env!("CARGO_BIN_EXE_runtime-test-helper").into(),
        prepared,
        allowed_egress: Vec::new(),
        edge: None,
        overlay: overlay(),
    }
}

pub(crate) fn small() -> Resources {
    Resources {
        cpu_count: 1,
        memory_mib: 256,
        disk_mib: 256,
        max_processes: 64,
    }
}

pub(crate) fn spec() -> BootSpec {
    BootSpec {
        id: SandboxId::random(),
        layers: vec![rootfs()],
        resources: small(),
        policy: NetworkPolicy::default(),
        agent: AgentSpec {
            executable: env!("CARGO_BIN_EXE_runtime-test-agent").into(),
            init_key: "secret".to_owned(),
        },
    }
}

impl Host {
    pub(crate) fn start(prepared: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let runtime = NsRuntime::open(config(dir.path(), prepared)).unwrap();
        runtime.start_preparing();
        Self { dir, runtime }
    }

    /// A runtime that makes nothing ahead.
    pub(crate) fn start_idle() -> Self {
        let dir = TempDir::new().unwrap();
        let runtime = NsRuntime::open(config(dir.path(), 0)).unwrap();
        Self { dir, runtime }
    }

    /// Names of the cgroups that sandboxes of the instance have.
    pub(crate) fn groups(&self) -> Vec<String> {
        let mut names = Vec::new();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
            let group = format!("warren-{}", self.runtime.instance());
            let Ok(entries) = std::fs::read_dir(hierarchy.unwrap().path().join(group)) else {
                continue;
            };
            for entry in entries {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        names
    }

    /// Output of a command in the router's network namespace.
    pub(crate) fn router(&self, command: &str) -> String {
        let pin = format!("/run/warren/{}/netns", self.runtime.instance());
        let output = Command::new("nsenter")
            .arg(format!("--net={pin}"))
            .args(command.split(' '))
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Addresses of the machine outside loopback.
    pub(crate) fn own_addresses(&self) -> Vec<String> {
        let output = Command::new("hostname").arg("-I").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace()
            .filter(|word| word.contains('.'))
            .map(str::to_owned)
            .collect()
    }

    /// Waits until no sandbox has anything left.
    pub(crate) async fn settle(&self) {
        self.until(|| self.runtime.slots_in_use() == self.runtime.prepared())
            .await;
    }

    /// Waits until this many shims are ready.
    pub(crate) async fn settle_prepared(&self, count: usize) {
        self.until(|| self.runtime.prepared() == count).await;
    }

    async fn until(&self, reached: impl Fn() -> bool) {
        let waiting = async {
            while !reached() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .expect("it comes to rest");
    }

    pub(crate) async fn boot(&self) -> NsSandbox {
        self.runtime.boot(spec()).await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.runtime.drain().await;
        self.runtime.shutdown().await;
    }
}

/// Runs a shell command as root of the sandbox; gives its status and output.
pub(crate) async fn sh(sandbox: &NsSandbox, command: &str) -> (i32, String) {
    assert!(!command.contains('\n'), "one line each");
    let mut stream = sandbox.dialer().dial(ENVD_PORT).await.unwrap();
    stream
        .write_all(format!("{command}\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (output, status) = text
        .trim_end()
        .rsplit_once("\n=")
        .expect("the agent answers");
    (status.parse().unwrap(), output.trim_end().to_owned())
}

/// Runs a command that must succeed and gives its output.
pub(crate) async fn ok(sandbox: &NsSandbox, command: &str) -> String {
    let (status, output) = sh(sandbox, command).await;
    assert_eq!(status, 0, "{command}: {output}");
    output
}
