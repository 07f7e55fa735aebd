//! A builder on a node of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use warren_cluster::{BuildHost, BuildImage, CreateSandbox, NodeHandle};
use warren_node::{Node, NodeConfig, PauseConfig, StopMode, WarmConfig};
use warren_runtime::ns::{NsConfig, NsRuntime};
use warren_service::{CancellationToken, Tasks};
use warren_template::build::{
    BuildFailure, BuildLine, BuildLog, BuildRequest, Builder, Built, CollectLimits, Engine,
    EngineConfig, Source, Step,
};
use warren_template::{LayerStore, RegistryConfig, base};
use warren_types::{
    BuildId, EndReason, NetworkConfig, OnTimeout, Resources, SandboxId, TemplateId,
};

/// Where layers made of packages are kept between runs.
const CACHE: &str = "/var/cache/warren";

pub(crate) struct Stand {
    dir: TempDir,
    node: Arc<Node<NsRuntime>>,
    engine: Engine,
    shared: LayerStore,
    said: Arc<Mutex<Vec<BuildLine>>>,
}

pub(crate) fn step(kind: &str, args: &[&str]) -> Step {
    Step {
        kind: kind.to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        files_hash: None,
        force: false,
    }
}

pub(crate) fn request(steps: Vec<Step>) -> BuildRequest {
    BuildRequest {
        scope: "team".to_owned(),
        template_id: TemplateId::random(),
        build_id: BuildId::random(),
        source: Source::Image {
            reference: "e2bdev/base".to_owned(),
            credentials: None,
        },
        steps,
        force: false,
        start_cmd: None,
        ready_cmd: None,
        resources: Resources {
            disk_mib: 1024,
            ..Resources::default()
        },
        min_free_disk_mib: None,
        files: BTreeMap::new(),
    }
}

impl Stand {
    pub(crate) async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    /// One that speaks to these registries without TLS.
    pub(crate) async fn start_with(insecure: Vec<String>) -> Self {
        Self::start_for(RegistryConfig {
            insecure,
            ..RegistryConfig::default()
        })
        .await
    }

    pub(crate) async fn start_for(registries: RegistryConfig) -> Self {
        // What users are not told is here when a test fails. Another test may have set it up.
        tracing_subscriber::fmt().with_test_writer().try_init().ok();
        let dir = TempDir::new_in("/var/tmp").unwrap();
        let data = dir.path().to_owned();
        let runtime = NsRuntime::open(NsConfig {
            data_dir: data.clone(),
            helper: env!("CARGO_BIN_EXE_warren").into(),
            prepared: 0,
            allowed_egress: Vec::new(),
            edge: None,
            overlay: warren_runtime::ns::Overlay::Probe,
        });
        let shared = LayerStore::open(&Path::new(CACHE).join("layers")).unwrap();
        base::ensure(&shared, &base::Recipe::default(), |_| {}).unwrap();
        let layers = LayerStore::open(&data.join("layers")).unwrap();
        let node = Node::start(
            NodeConfig {
                data_dir: data.clone(),
                layers_dirs: vec![layers.dir().to_owned(), shared.dir().to_owned()],
                agent: env!("WARREN_ENVD_PATH").into(),
                programs: None,
                events_address: "http://192.0.2.1".to_owned(),
                sample_every: Duration::from_secs(5),
                log_retention: Duration::from_secs(3600),
                log_bytes: 1 << 30,
                volumes: Arc::new(warren_volume::Volumes::open(data.join("volumes"), 64).unwrap()),
                warm: WarmConfig {
                    floor: 0,
                    ..WarmConfig::default()
                },
                pause: PauseConfig::default(),
            },
            Arc::new(runtime.unwrap()),
        );
        let node = Arc::new(node.await.unwrap());
        let config = EngineConfig {
            dir: data.join("builds"),
            layers,
            shared: shared.clone(),
            mirror: base::DEFAULT_MIRROR.to_owned(),
            registries,
            images: Some(dir.path().join("images")),
            keep: Vec::new(),
            collect: CollectLimits {
                every: Duration::ZERO,
                grace: Duration::ZERO,
                ..CollectLimits::default()
            },
        };
        Self {
            engine: Engine::open(Arc::clone(&node) as _, config, Tasks::new()).unwrap(),
            node,
            shared,
            dir,
            said: Arc::default(),
        }
    }

    pub(crate) async fn build(&self, request: BuildRequest) -> Result<Built, BuildFailure> {
        self.said.lock().unwrap().clear();
        let said = Arc::clone(&self.said);
        let log = BuildLog::new(move |line| said.lock().unwrap().push(line));
        self.engine
            .build(request, log, CancellationToken::new())
            .await
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Starts a sandbox of a build, as a client's.
    pub(crate) async fn sandbox_of(&self, image: &BuildImage) -> SandboxId {
        let request = CreateSandbox {
            image: image.clone(),
            timeout: Duration::from_secs(300),
            env: BTreeMap::new(),
            access_token: None,
            network: NetworkConfig::default(),
            private_traffic: false,
            on_timeout: OnTimeout::End,
            mounts: Vec::new(),
        };
        self.node.create(request).await.unwrap().id
    }

    pub(crate) async fn end(&self, sandbox: SandboxId) {
        self.node.end(&sandbox, EndReason::Killed).await.unwrap();
        // Its record goes in the background.
        for _ in 0..200 {
            if !self.node.layers_in_use().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// A directory for the test.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where layers go that packages make.
    pub(crate) fn shared(&self) -> &LayerStore {
        &self.shared
    }

    /// Names of the server's own layers and of what else is among them, but for locks.
    pub(crate) fn own_layers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("layers")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }

    /// Messages of the last build.
    pub(crate) fn said(&self) -> Vec<String> {
        let said = self.said.lock().unwrap();
        said.iter().map(|line| line.message.clone()).collect()
    }

    /// Whether the last build said something with this text.
    pub(crate) fn heard(&self, text: &str) -> bool {
        self.said().iter().any(|line| line.contains(text))
    }

    pub(crate) async fn stop(self) {
        self.node.stop(StopMode::EndSandboxes).await;
        self.dir.close().unwrap();
    }
}
