//! From a build to an initialised sandbox. Each phase is a value; dropping it undoes it.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::Instrument;
use warren_cluster::{BuildImage, CreateSandbox, NodeError, VolumeMount, token};
use warren_egress::AuthorityKeys;
use warren_runtime::{AgentSpec, Attachment, BootSpec, Runtime, RuntimeError, Sandbox};
use warren_service::{Chain, Secret, Tasks};
use warren_types::{NetworkPolicy, SandboxId};
use warren_volume::{VolumeError, Volumes};

use crate::agent::{self, Init};
use crate::captures::{Captures, Meta};
use crate::config::NodeConfig;
use crate::ledger::{self, Entry, Ledger};
use crate::start;

use super::ready::ReadyStates;

/// Boots that run side by side; more only fight for the same cores.
const PARALLEL_BOOTS: usize = 16;
/// Start commands that run side by side, per core: they load programs, and more at a time
/// make every one of them late.
const STARTS_PER_CORE: usize = 2;
/// A start command that is not ready by then mostly waits for something else than a core, and
/// lets the next one begin.
const START_TURN: Duration = Duration::from_secs(1);

/// Boots sandboxes.
#[derive(Debug)]
pub(crate) struct Booter<R: Runtime> {
    pub(crate) runtime: Arc<R>,
    pub(crate) agent: PathBuf,
    pub(crate) programs: Option<PathBuf>,
    pub(crate) layers_dirs: Vec<PathBuf>,
    pub(crate) tasks: Tasks,
    pub(super) captures: Captures,
    pub(super) ready: ReadyStates,
    volumes: Arc<Volumes>,
    pub(super) events_address: String,
    permits: Semaphore,
    starts: Semaphore,
}

impl<R: Runtime> Booter<R> {
    pub(crate) fn new(
        runtime: Arc<R>,
        config: NodeConfig,
        captures: Captures,
        tasks: Tasks,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            runtime,
            agent: config.agent,
            programs: config.programs,
            layers_dirs: config.layers_dirs,
            tasks,
            captures,
            ready: ReadyStates::new(config.warm.capture_from),
            volumes: config.volumes,
            events_address: config.events_address,
            permits: Semaphore::new(PARALLEL_BOOTS),
            starts: Semaphore::new(STARTS_PER_CORE * cores),
        }
    }

    /// Where a layer is, or would be if it were there.
    fn layer(&self, digest: &str) -> PathBuf {
        let mut places = self.layers_dirs.iter().map(|dir| dir.join(digest));
        let first = places.next().unwrap_or_default();
        if first.is_dir() {
            return first;
        }
        places.find(|path| path.is_dir()).unwrap_or(first)
    }

    /// Boots a sandbox of `image` up to a listening, not yet initialised agent.
    #[tracing::instrument(name = "boot", skip_all, fields(build_id = %image.build_id))]
    pub(crate) async fn boot(
        &self,
        image: &BuildImage,
        policy: NetworkPolicy,
    ) -> Result<Booted<R::Sandbox>, NodeError> {
        let _permit = self.permit().await?;
        let init_key = fresh_key();
        let spec = self.spec(image, policy.clone(), &init_key);
        let id = spec.id.clone();
        let sandbox = self.runtime.boot(spec).await.map_err(refusal)?;
        Ok(self.booted(id, init_key, policy, sandbox))
    }

    /// Boots a sandbox of `image` from a capture. With the key of the captured agent its
    /// memory is taken up; without, it boots from the files, up to the image's start command
    /// running and ready.
    #[tracing::instrument(name = "restore", skip_all,
        fields(build_id = %image.build_id, memory = memory.is_some()))]
    pub(crate) async fn restore(
        &self,
        image: &BuildImage,
        policy: NetworkPolicy,
        from: &Path,
        memory: Option<Secret>,
        mounts: Vec<Attachment>,
    ) -> Result<Booted<R::Sandbox>, NodeError> {
        let _permit = self.permit().await?;
        let with_memory = memory.is_some();
        let init_key = memory.unwrap_or_else(fresh_key);
        let spec = self.spec(image, policy.clone(), &init_key);
        let id = spec.id.clone();
        let restored = self.runtime.restore(spec, from, with_memory, mounts).await;
        let restored = restored.map_err(refusal)?;
        let booted = self.booted(id, init_key, policy, restored.sandbox);
        if !restored.memory {
            self.make_ready(&booted, image).await?;
        }
        Ok(booted)
    }

    /// Opens the volumes to mount in a sandbox. Of one that is taken up again, those that were
    /// deleted meanwhile are left out: it must not be lost for them.
    pub(crate) async fn open_mounts(
        &self,
        id: &SandboxId,
        mounts: &[VolumeMount],
        is_resumed: bool,
    ) -> Result<Vec<Attachment>, NodeError> {
        open_mounts(&self.tasks, &self.volumes, id, mounts, is_resumed).await
    }

    /// What the server itself brings into sandboxes, by content.
    pub(super) fn guest_programs(&self) -> Vec<PathBuf> {
        let agent = std::iter::once(self.agent.clone());
        agent.chain(self.programs.clone()).collect()
    }

    /// The volumes that its sandboxes mount.
    pub(crate) fn volumes(&self) -> &Arc<Volumes> {
        &self.volumes
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, NodeError> {
        let permit = self.permits.acquire().await;
        permit.map_err(|_| NodeError::Stopping)
    }

    fn spec(&self, image: &BuildImage, policy: NetworkPolicy, init_key: &Secret) -> BootSpec {
        BootSpec {
            id: SandboxId::random(),
            layers: image
                .layers
                .iter()
                .map(|digest| self.layer(digest))
                .chain(self.programs.clone())
                .collect(),
            resources: image.resources,
            policy,
            agent: AgentSpec {
                executable: self.agent.clone(),
                init_key: init_key.expose().to_owned(),
            },
        }
    }

    fn booted(
        &self,
        id: SandboxId,
        init_key: Secret,
        policy: NetworkPolicy,
        sandbox: R::Sandbox,
    ) -> Booted<R::Sandbox> {
        Booted {
            id,
            init_key,
            policy,
            volumes: Arc::clone(&self.volumes),
            guard: Guard::new(sandbox, self.tasks.clone()),
        }
    }

    /// Runs the image's start command, if it has one.
    pub(super) async fn make_ready(
        &self,
        booted: &Booted<R::Sandbox>,
        image: &BuildImage,
    ) -> Result<(), NodeError> {
        if let Some(start) = &image.start {
            let span = tracing::info_span!("start command");
            booted.init(image, &image.env, &self.events_address).await?;
            let sandbox = booted.sandbox();
            let died = async {
                sandbox.exited().await;
            };
            let dialer = sandbox.dialer();
            let turn = self.starts.acquire().await;
            let mut turn = Some(turn.map_err(|_| NodeError::Stopping)?);
            let starting = start::start(dialer.as_ref(), start, died).instrument(span);
            let mut started = pin!(starting);
            let started = loop {
                tokio::select! {
                    started = &mut started => break started,
                    () = tokio::time::sleep(START_TURN), if turn.is_some() => turn = None,
                }
            };
            started.map_err(|error| NodeError::StartFailed(Box::new(error)))?;
        }
        Ok(())
    }
}

async fn open_mounts(
    tasks: &Tasks,
    volumes: &Arc<Volumes>,
    id: &SandboxId,
    mounts: &[VolumeMount],
    is_resumed: bool,
) -> Result<Vec<Attachment>, NodeError> {
    if mounts.is_empty() {
        return Ok(Vec::new());
    }
    let (volumes, mounts, id) = (Arc::clone(volumes), mounts.to_vec(), id.clone());
    let open = move || -> Result<Vec<Attachment>, VolumeError> {
        let mut opened = Vec::with_capacity(mounts.len());
        for mount in mounts {
            let tree = match volumes.mount(mount.volume) {
                Err(VolumeError::NoVolume) if is_resumed => {
                    tracing::warn!(sandbox_id = %id, path = mount.path,
                        "a volume of a resumed sandbox was deleted");
                    continue;
                }
                other => other?,
            };
            opened.push(Attachment {
                tree,
                path: mount.path,
                read_only: mount.read_only,
            });
        }
        Ok(opened)
    };
    let opened = tasks.spawn_blocking(open).await;
    opened
        .map_err(|_| NodeError::Stopping)?
        .map_err(|error| match error {
            VolumeError::Elsewhere(_) | VolumeError::Bucket(_) => {
                tracing::error!(error = %Chain(&error), "a volume can't be mounted");
                NodeError::Volume(error.to_string())
            }
            other => NodeError::StartFailed(Box::new(other)),
        })
}

fn fresh_key() -> Secret {
    Secret::new(hex::encode(rand::rng().random::<[u8; 32]>()))
}

fn refusal(error: RuntimeError) -> NodeError {
    match error {
        RuntimeError::NoSlot(_) => NodeError::NoCapacity(error.to_string()),
        RuntimeError::LayerMissing(path) => NodeError::LayerMissing(path.display().to_string()),
        other => NodeError::StartFailed(Box::new(other)),
    }
}

/// Destroys its sandbox in the background unless it is taken out.
#[derive(Debug)]
struct Guard<S: Sandbox> {
    sandbox: Option<Arc<S>>,
    tasks: Tasks,
}

impl<S: Sandbox> Guard<S> {
    fn new(sandbox: S, tasks: Tasks) -> Self {
        Self {
            sandbox: Some(Arc::new(sandbox)),
            tasks,
        }
    }

    fn get(&self) -> &Arc<S> {
        self.sandbox
            .as_ref()
            .expect("the sandbox is taken out only by consuming the guard")
    }

    fn take(mut self) -> Arc<S> {
        self.sandbox
            .take()
            .expect("the sandbox is taken out only by consuming the guard")
    }
}

impl<S: Sandbox> Drop for Guard<S> {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            self.tasks.spawn(async move {
                if let Err(error) = sandbox.destroy().await {
                    tracing::error!(sandbox_id = %sandbox.record().id, error = %Chain(&error),
                        "could not destroy an unused sandbox");
                }
            });
        }
    }
}

/// A booted sandbox that nobody has asked for yet. Dropping it destroys it.
#[derive(Debug)]
pub(crate) struct Booted<S: Sandbox> {
    id: SandboxId,
    init_key: Secret,
    policy: NetworkPolicy,
    volumes: Arc<Volumes>,
    guard: Guard<S>,
}

impl<S: Sandbox> Booted<S> {
    /// Destroys it and waits for that.
    pub(crate) async fn discard(self) {
        let sandbox = self.guard.take();
        if let Err(error) = sandbox.destroy().await {
            tracing::error!(sandbox_id = %self.id, error = %Chain(&error),
                "could not destroy a warm sandbox");
        }
    }

    /// The sandbox.
    pub(crate) fn sandbox(&self) -> &Arc<S> {
        self.guard.get()
    }

    /// Initialises the agent of a sandbox that belongs to nobody yet, so there is no token.
    pub(crate) async fn init(
        &self,
        image: &BuildImage,
        env: &BTreeMap<String, String>,
        events_address: &str,
    ) -> Result<(), NodeError> {
        let init = Init {
            timestamp: Timestamp::now(),
            env_vars: Some(env),
            access_token: None,
            init_key: None,
            default_user: &image.default_user,
            default_workdir: image.default_workdir.as_deref(),
            lifecycle_id: self.id.as_str(),
            sandbox_id: &self.id,
            template_id: &image.template_id,
            build_id: image.build_id,
            events_address,
            ca_bundle: None,
        };
        agent::init(self.sandbox().dialer().as_ref(), &self.init_key, &init)
            .await
            .map_err(|error| NodeError::StartFailed(Box::new(error)))?;
        Ok(())
    }

    /// Key that authorises to initialise its agent.
    pub(crate) fn init_key(&self) -> &Secret {
        &self.init_key
    }

    /// Takes the sandbox out, to be on record from here on.
    pub(crate) fn keep(self) -> Arc<S> {
        self.guard.take()
    }

    /// Hands it to a request: initialises the agent and sets the policy.
    #[tracing::instrument(name = "claim", skip_all, fields(sandbox_id = %self.id))]
    pub(crate) async fn claim(
        self,
        request: &CreateSandbox,
        captured: Option<&Meta>,
        events_address: &str,
    ) -> Result<Claim<S>, NodeError> {
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| NodeError::StartFailed(error);
        let access_token = request
            .access_token
            .as_ref()
            .map(|key| token::access(key, &self.id));
        let mut network = request.network.clone();
        network.traffic_access_token = match (&request.access_token, request.private_traffic) {
            (Some(key), true) => Some(token::traffic(key, &self.id).expose().to_owned()),
            _ => None,
        };
        // Variables that are given replace those of the capture; none leaves them.
        let inherited = captured.filter(|_| request.env.is_empty());
        let own_env = inherited.map_or(&request.env, |meta| &meta.env);
        let mut env = request.image.env.clone();
        env.extend(own_env.clone());
        let keeps_env = inherited.is_some_and(|meta| meta.memory);

        if captured.is_none() && !request.mounts.is_empty() {
            let mounts = open_mounts(
                &self.guard.tasks,
                &self.volumes,
                &self.id,
                &request.mounts,
                false,
            );
            let attached = self.sandbox().attach(mounts.await?).await;
            attached.map_err(|error| failed(Box::new(error)))?;
        }
        let sandbox = self.guard.get();
        if network.egress != self.policy {
            sandbox
                .set_policy(network.egress.clone())
                .await
                .map_err(|error| failed(Box::new(error)))?;
        }
        let needs_authority = network.egress.has_headers();
        let authority = needs_authority.then(AuthorityKeys::generate).transpose();
        let authority = authority.map_err(|error| failed(Box::new(error)))?;
        let now = Timestamp::now();
        let mut entry = Entry {
            version: ledger::VERSION,
            id: self.id.clone(),
            runtime: sandbox.record(),
            image: request.image.clone(),
            env: own_env.clone(),
            started_at: now,
            end_at: now,
            on_timeout: request.on_timeout,
            access_token,
            network,
            init_key: self.init_key,
            revision: 0,
            pause: None,
            mounts: request.mounts.clone(),
            authority,
        };
        // Copies of one capture know the same key up to here.
        let own_key = fresh_key();
        let init = Init {
            init_key: Some(own_key.expose()),
            ..Init::of(
                &entry,
                (!keeps_env).then_some(&env),
                self.id.as_str(),
                events_address,
            )
        };
        let has_own_key = agent::init(sandbox.dialer().as_ref(), &entry.init_key, &init)
            .await
            .map_err(|error| failed(Box::new(error)))?;
        if has_own_key {
            entry.init_key = own_key;
        }
        entry.started_at = Timestamp::now();
        entry.end_at = after(entry.started_at, request.timeout);
        Ok(Claim {
            entry,
            guard: self.guard,
        })
    }
}

/// `from` plus `by`, at most the end of time.
pub(super) fn after(from: Timestamp, by: Duration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// An initialised sandbox that is not on record yet. Dropping it destroys it.
#[derive(Debug)]
pub(crate) struct Claim<S: Sandbox> {
    entry: Entry,
    guard: Guard<S>,
}

impl<S: Sandbox> Claim<S> {
    /// Puts it on record. From here on it survives a crash of the server.
    pub(crate) fn record(self, ledger: &Ledger) -> Result<(Entry, Arc<S>), NodeError> {
        let id = self.entry.id.clone();
        if let Err(source) = ledger.write(&self.entry) {
            // A record may have been half replaced; the sandbox is destroyed by the guard.
            if let Err(error) = ledger.remove(&id) {
                tracing::error!(sandbox_id = %id, error = %Chain(&error), "could not undo a ledger record");
            }
            return Err(NodeError::Records { id, source });
        }
        Ok((self.entry, self.guard.take()))
    }
}
