//! A node on a pretended host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use warren_cluster::{BuildImage, CreateSandbox, NodeEvent, NodeHandle};
use warren_node::{Node, NodeConfig, PauseConfig, WarmConfig};
use warren_runtime::fake::{FakeHost, FakeRuntime};
use warren_service::Secret;
use warren_types::{
    BuildId, EndReason, NetworkConfig, OnTimeout, Resources, SandboxId, TemplateId,
};
use warren_volume::Volumes;

pub(crate) struct Stand {
    pub(crate) host: FakeHost,
    pub(crate) dir: TempDir,
    pub(crate) image: BuildImage,
    pub(crate) pause: PauseConfig,
    pub(crate) capture_from: Option<Duration>,
}

impl Stand {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            host: FakeHost::new(dir.path().to_owned()),
            image: BuildImage {
                template_id: TemplateId::random(),
                build_id: BuildId::random(),
                layers: vec!["aa".to_owned()],
                resources: Resources::default(),
                default_user: "user".to_owned(),
                default_workdir: None,
                env: BTreeMap::new(),
                start: None,
                capture: None,
            },
            pause: PauseConfig::default(),
            capture_from: None,
            dir,
        }
    }

    pub(crate) async fn node(&self, warm: usize) -> Node<FakeRuntime> {
        let config = NodeConfig {
            data_dir: self.dir.path().join("data"),
            layers_dirs: vec![PathBuf::from("/layers")],
            agent: PathBuf::from("/agent"),
            programs: None,
            events_address: "http://192.0.2.1".to_owned(),
            sample_every: Duration::from_millis(50),
            log_retention: Duration::from_secs(3600),
            log_bytes: 1 << 30,
            volumes: Arc::new(Volumes::open(self.dir.path().join("volumes"), 32).unwrap()),
            warm: WarmConfig {
                floor: warm,
                min_available_pct: 0,
                capture_from: self.capture_from,
                ..WarmConfig::default()
            },
            pause: self.pause,
        };
        Node::start(config, Arc::new(FakeRuntime::new(self.host.clone())))
            .await
            .unwrap()
    }

    pub(crate) fn request(&self) -> CreateSandbox {
        CreateSandbox {
            image: self.image.clone(),
            timeout: Duration::from_secs(300),
            env: BTreeMap::new(),
            access_token: Some(Secret::new("key".to_owned())),
            network: NetworkConfig::default(),
            private_traffic: false,
            on_timeout: OnTimeout::End,
            mounts: Vec::new(),
        }
    }

    pub(crate) fn records(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("data/sandboxes"))
            .unwrap()
            .count()
    }
}

/// Waits for the end of `id`.
pub(crate) async fn ended(events: &mut mpsc::Receiver<NodeEvent>, id: &SandboxId) -> EndReason {
    loop {
        match events.recv().await.expect("the node still runs") {
            NodeEvent::Ended { id: which, end } if which == *id => return end.reason,
            _ => {}
        }
    }
}

/// Waits until the host runs `count` sandboxes.
pub(crate) async fn alive(host: &FakeHost, count: usize) {
    while host.alive().len() != count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn load_warm(node: &Node<FakeRuntime>, count: usize) {
    while node.load().await.warm != count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
