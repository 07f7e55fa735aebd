//! The builder: phases in order, each from the cache or made.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rand::Rng;
use warren_cluster::{BuildHost, BuildImage, BuildSandbox};
use warren_service::{CancellationToken, Chain, Tasks};
use warren_types::LogLevel;

use super::cache::{Cache, State};
use super::collect::{CollectLimits, Collected};
use super::phase::{INTERNAL, Log, Phase};
use super::plan::{self, Context, Instruction};
use super::port::{
    BuildFailure, BuildLog, BuildRequest, Builder, Built, CollectError, ExportError,
};
use crate::layers::{LayerError, LayerStore};
use crate::merge::merge;
use crate::oci::RegistryConfig;

/// Layers that a template has at most. Older kernels take few, and each costs time at boot.
const MAX_LAYERS: usize = 28;
/// Layers that become one when there are more.
const MERGED: usize = 16;

/// Settings of the builder.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where records of what was built and drafts are kept.
    pub dir: PathBuf,
    /// Where layers of builds and of images go.
    pub layers: LayerStore,
    /// Where layers that packages make go; other servers may share it.
    pub shared: LayerStore,
    /// Where Debian packages come from.
    pub mirror: String,
    /// Where container images come from.
    pub registries: RegistryConfig,
    /// Directory of the operator's own images, if there is one: image layouts, each a
    /// directory or a tar archive.
    pub images: Option<PathBuf>,
    /// Layers that are never removed.
    pub keep: Vec<String>,
    /// When others are.
    pub collect: CollectLimits,
}

/// Why the builder can't work.
#[derive(Debug, thiserror::Error)]
#[error("open {path}")]
pub struct OpenError {
    /// Which directory.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// Builds templates in sandboxes of a node.
#[derive(Debug)]
pub struct Engine {
    pub(super) host: Arc<dyn BuildHost>,
    pub(super) config: EngineConfig,
    pub(super) cache: Cache,
    pub(super) drafts: PathBuf,
    pub(super) tasks: Tasks,
    /// Shared by what reads layers and records; who removes some has it alone.
    pub(super) running: Arc<tokio::sync::RwLock<()>>,
    /// When unused layers were last looked for.
    pub(super) collected: Mutex<Option<Instant>>,
}

impl Engine {
    /// Opens the builder's directory. Blocking work runs as part of `tasks`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        host: Arc<dyn BuildHost>,
        config: EngineConfig,
        tasks: Tasks,
    ) -> Result<Self, OpenError> {
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source| OpenError { path, source }
        };
        let records = config.dir.join("cache");
        let cache = Cache::open(records.clone()).map_err(failed(&records))?;
        let drafts = config.dir.join("drafts");
        // Drafts of a process that was killed are of no use.
        match std::fs::remove_dir_all(&drafts) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&drafts)(error));
            }
            _ => {}
        }
        std::fs::create_dir_all(&drafts).map_err(failed(&drafts))?;
        Ok(Self {
            host,
            config,
            cache,
            drafts,
            tasks,
            running: Arc::default(),
            collected: Mutex::default(),
        })
    }

    /// Whether all layers of a state are there.
    pub(super) fn has_layers(&self, state: &State) -> bool {
        state.layers.iter().all(|digest| {
            [&self.config.layers, &self.config.shared]
                .into_iter()
                .any(|store| matches!(store.get(digest), Ok(Some(_))))
        })
    }
}

#[async_trait]
impl Builder for Engine {
    async fn build(
        &self,
        request: BuildRequest,
        log: BuildLog,
        cancel: CancellationToken,
    ) -> Result<Built, BuildFailure> {
        let _running = self.running.read().await;
        let log = Log::new(log);
        let build = Build {
            engine: self,
            request: &request,
            log,
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BuildFailure {
                message: "build was cancelled".to_owned(),
                step: None,
            }),
            result = Box::pin(build.run()) => result,
        }
    }

    async fn export(&self, image: &BuildImage, tag: &str) -> Result<File, ExportError> {
        self.export_image(image, tag).await
    }

    async fn collect(&self, in_use: HashSet<String>) -> Result<Option<Collected>, CollectError> {
        self.collect_unused(in_use).await
    }
}

/// One build under way.
#[derive(Debug)]
pub(super) struct Build<'a> {
    pub(super) engine: &'a Engine,
    pub(super) request: &'a BuildRequest,
    pub(super) log: Log,
}

/// A thing to be made under a key.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) key: String,
    pub(super) force: bool,
    /// Line that tells of it, without the key.
    pub(super) line: String,
    pub(super) phase: &'a Phase,
    /// Whether the log tells that it came from the cache.
    pub(super) tells_cached: bool,
}

impl Build<'_> {
    async fn run(&self) -> Result<Built, BuildFailure> {
        let request = self.request;
        self.log.push(
            LogLevel::Info,
            None,
            format!(
                "Building template {}/{}",
                request.template_id, request.build_id
            ),
        );
        let base = self.log.phase("base", "[base]".to_owned());
        let mut state = self.base(&base).await?;
        state = self.default_user(&base, state).await?;
        let steps = &request.steps;
        let forced = plan::forced(request.force, steps);
        for (index, (step, force)) in steps.iter().zip(forced).enumerate() {
            let number = index + 1;
            let prefix = format!("[builder {number}/{}]", steps.len());
            let phase = self.log.phase(&number.to_string(), prefix);
            let wanted = Wanted {
                key: plan::step_key(&state.key, step),
                force,
                line: plan::shown(step),
                phase: &phase,
                tells_cached: true,
            };
            let previous = &state;
            state = self
                .obtain(wanted, async || {
                    let instruction =
                        Instruction::parse(step).map_err(|text| phase.failure(text))?;
                    self.instruction(&phase, previous, &instruction).await
                })
                .await?;
        }
        self.finalize(state).await
    }

    /// The phase that makes the user which steps start with.
    async fn default_user(&self, phase: &Phase, base: State) -> Result<State, BuildFailure> {
        let wanted = Wanted {
            key: plan::key(&base.key, &["default user", "user"]),
            force: self.request.force,
            line: "DEFAULT USER user".to_owned(),
            phase,
            tells_cached: true,
        };
        let instruction = Instruction::User {
            name: "user".to_owned(),
            admin: true,
        };
        self.obtain(wanted, async || {
            self.instruction(phase, &base, &instruction).await
        })
        .await
    }

    /// Takes what is known under a key, or makes it: layers and context. The start command
    /// of the state before is kept.
    pub(super) async fn obtain(
        &self,
        wanted: Wanted<'_>,
        make: impl AsyncFnOnce() -> Result<(Vec<String>, Context), BuildFailure>,
    ) -> Result<State, BuildFailure> {
        let Wanted {
            key,
            force,
            line,
            phase,
            tells_cached,
        } = wanted;
        let scope = &self.request.scope;
        let line = format!("{} {line} [{}]", phase.prefix, plan::short(&key));
        let _turn = self.engine.cache.turn(scope, &key).await;
        if !force
            && let Some(state) = self.engine.cache.get(scope, &key)
            && self.engine.has_layers(&state)
        {
            let mark = if tells_cached { "CACHED " } else { "" };
            phase.info(&format!("{mark}{line}"));
            return Ok(state);
        }
        phase.info(&line);
        let (layers, context) = make().await?;
        let state = State::new(key, self.few(layers).await?, context);
        self.engine
            .cache
            .put(scope, &state)
            .map_err(|error| self.internal("keep a record of the cache", &error))?;
        Ok(state)
    }

    /// The failure that users are told of for what is not theirs to know; the log has it.
    pub(super) fn internal(
        &self,
        what: &str,
        error: &(dyn std::error::Error + 'static),
    ) -> BuildFailure {
        tracing::error!(build_id = %self.request.build_id, what, error = %Chain(error),
            "a template build failed");
        BuildFailure {
            message: INTERNAL.to_owned(),
            step: None,
        }
    }

    /// Boots a sandbox on layers.
    pub(super) async fn open(
        &self,
        layers: &[String],
    ) -> Result<Box<dyn BuildSandbox>, BuildFailure> {
        let image = BuildImage {
            template_id: self.request.template_id.clone(),
            build_id: self.request.build_id,
            layers: layers.to_vec(),
            resources: self.request.resources,
            default_user: "root".to_owned(),
            default_workdir: None,
            env: BTreeMap::new(),
            start: None,
            capture: None,
        };
        let opened = self.engine.host.open_build(&image).await;
        opened.map_err(|error| self.internal("start a sandbox for a step", &error))
    }

    /// Ends a sandbox and makes a layer of what it has written; `None` if that is nothing.
    pub(super) async fn commit(
        &self,
        sandbox: Box<dyn BuildSandbox>,
    ) -> Result<Option<String>, BuildFailure> {
        let store = self.engine.config.layers.clone();
        let digest = hex::encode(rand::rng().random::<[u8; 32]>());
        let name = digest.clone();
        let making = self
            .blocking("make a layer", move || store.make(&name))
            .await?;
        let written = sandbox
            .commit(making.root().to_owned())
            .await
            .map_err(|error| self.internal("commit a layer", &error))?;
        sandbox.end().await;
        self.blocking("publish a layer", move || {
            if written.entries == 0 {
                drop(making);
                return Ok::<_, LayerError>(None);
            }
            making.commit().map(|_| Some(digest))
        })
        .await
    }

    /// The same content in layers that are not too many: the uppermost become one. Those of
    /// other places than the server's own stay as they are.
    pub(super) async fn few(&self, mut layers: Vec<String>) -> Result<Vec<String>, BuildFailure> {
        while layers.len() > MAX_LAYERS {
            let store = self.engine.config.layers.clone();
            let upper = layers.split_off(layers.len() - MERGED);
            let digest = hex::encode(rand::rng().random::<[u8; 32]>());
            let name = digest.clone();
            let merged = self.blocking("join layers", move || {
                let making = store.make(&name)?;
                let paths: Vec<_> = upper.iter().map(|layer| store.dir().join(layer)).collect();
                merge(&paths, making.root()).map_err(LayerError::merge(making.root()))?;
                making.commit()
            });
            merged.await?;
            layers.push(digest);
        }
        Ok(layers)
    }

    /// Runs blocking work on a thread for that.
    pub(super) async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, BuildFailure> {
        match self.engine.tasks.spawn_blocking(work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.internal(what, &error)),
            Err(error) => Err(self.internal(what, &error)),
        }
    }

    /// Time that one step may take.
    pub(super) const STEP_LIMIT: Duration = Duration::from_secs(3600);
}
