//! The node: start with adoption, the requests of `control`, and stop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use warren_cluster::{
    BuildImage, Captured, CreateSandbox, Deadline, HostFacts, LogQuery, NodeError, NodeEvent,
    NodeHandle, NodeLoad, PauseSandbox, ResumeSandbox, Resumed, SandboxView,
};
use warren_egress::Identity;
use warren_runtime::{Runtime, RuntimeError};
use warren_service::{Chain, Tasks};
use warren_types::{
    BuildId, CaptureKind, EndReason, LogEntry, LogLevel, MetricsPoint, NetworkPolicy, SandboxId,
    SandboxState,
};

use crate::captures::Captures;
use crate::config::NodeConfig;
use crate::host::Host;
use crate::ledger::Ledger;
use crate::log::Archive;
use crate::pool::Pool;
use crate::registry::{Registered, Registry, RouteFacts};
use crate::sandbox::{Booter, Claim, Command, Context};

/// Events waiting for `control`; owners wait when it is full, for no end may be lost.
const EVENT_QUEUE: usize = 1024;
/// Samples waiting to be batched; more are dropped.
const SAMPLE_QUEUE: usize = 4096;
/// Samples are told in batches of this time.
const SAMPLE_BATCH: Duration = Duration::from_secs(1);
/// How often old logs are looked for.
const LOG_SWEEP: Duration = Duration::from_secs(3600);
/// How long a stop waits for tasks.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long it waits for volumes to be written back.
const WRITE_BACK_LIMIT: Duration = Duration::from_secs(60);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory or record of the data directory can't be used.
    #[error("open {path}")]
    Data {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Remains of an earlier run could not be released.
    #[error("release what an earlier run left behind")]
    Sweep(#[source] RuntimeError),
}

/// What a stop does with running sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// They go on; the next start takes them over.
    KeepSandboxes,
    /// They are ended.
    EndSandboxes,
}

/// The sandboxes of this host on one runtime.
#[derive(Debug)]
pub struct Node<R: Runtime> {
    pub(crate) runtime: Arc<R>,
    pub(crate) booter: Arc<Booter<R>>,
    pool: Pool<R>,
    pub(crate) context: Arc<Context>,
    events: Mutex<Option<mpsc::Receiver<NodeEvent>>>,
    pub(crate) owners: Tasks,
    pub(crate) background: Tasks,
    host: Arc<Host>,
}

impl<R: Runtime> Node<R> {
    /// Starts a node: takes over the sandboxes on record that still run, tells of those
    /// that don't, and releases every remain that is on no record.
    ///
    /// # Errors
    /// [`StartError`]; running sandboxes are untouched then.
    pub async fn start(config: NodeConfig, runtime: Arc<R>) -> Result<Self, StartError> {
        let data = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::Data { path, source }
        };
        let (records, logs) = (
            config.data_dir.join("sandboxes"),
            config.data_dir.join("logs"),
        );
        let ledger = Ledger::open(records.clone()).map_err(data(&records))?;
        let archive = Archive::open(logs.clone()).map_err(data(&logs))?;
        let captures = Captures::open(runtime.captures_dir(), &config.data_dir)
            .map_err(data(&config.data_dir))?;
        let (entries, unreadable) = ledger.load().map_err(data(&records))?;
        for record in unreadable {
            tracing::error!(path = %record.path.display(), reason = record.reason,
                "a sandbox record is unreadable; its sandbox is ended");
            std::fs::remove_file(&record.path).map_err(data(&record.path))?;
        }

        let (event_sender, events) = mpsc::channel(EVENT_QUEUE);
        let (sample_sender, samples) = mpsc::channel(SAMPLE_QUEUE);
        let (owners, background) = (Tasks::new(), Tasks::new());
        let context = Arc::new(Context {
            registry: Registry::default(),
            ledger,
            archive,
            events: event_sender.clone(),
            samples: sample_sender,
            sample_every: config.sample_every,
            captures: captures.clone(),
            pause: config.pause,
            events_address: config.events_address.clone(),
            release: owners.stop_token().clone(),
        });
        let (warm, kept) = (config.warm, (config.log_retention, config.log_bytes));
        let data_dir = config.data_dir.clone();
        let booter = Booter::new(Arc::clone(&runtime), config, captures, background.clone());
        let booter = Arc::new(booter);
        let node = Self {
            pool: Pool::new(Arc::clone(&booter), warm),
            booter,
            runtime,
            context,
            events: Mutex::new(Some(events)),
            owners,
            background,
            host: Arc::new(Host::new(data_dir.clone())),
        };
        let adopted = node.adopt(entries).await;
        let report = node
            .runtime
            .sweep(&adopted.runs)
            .await
            .map_err(StartError::Sweep)?;
        let ready = node.booter.adopt_ready().map_err(data(&data_dir))?;
        let captures = node
            .context
            .captures
            .sweep(node.runtime.as_ref(), &adopted.captures, &ready)
            .await
            .map_err(data(&data_dir))?;
        tracing::info!(
            running = adopted.runs.len(),
            stored = adopted.captures.len(),
            swept = report.sandboxes,
            swept_captures = captures,
            "node started"
        );

        node.background
            .spawn(batch(samples, event_sender, node.background.clone()));
        node.background.spawn(expire_logs(
            node.context.archive.clone(),
            kept,
            node.background.clone(),
        ));
        Ok(node)
    }

    /// How to reach a running sandbox.
    #[must_use]
    pub fn route(&self, id: &SandboxId) -> Option<RouteFacts> {
        let entry = self.context.registry.get(id)?;
        let state = entry.view.borrow().state;
        entry
            .run
            .map(|run| run.route)
            .filter(|_| state.shows_as_running())
    }

    /// How the sandbox stands, whatever its state.
    #[must_use]
    pub fn view(&self, id: &SandboxId) -> Option<SandboxView> {
        let entry = self.context.registry.get(id)?;
        let view = entry.view.borrow().clone();
        Some(view)
    }

    /// The running sandbox in a slot of the runtime.
    #[must_use]
    pub fn in_slot(&self, slot: u32) -> Option<SandboxId> {
        self.context.registry.in_slot(slot)
    }

    /// Who the running sandbox in a slot of the runtime is, for what is done in its name.
    #[must_use]
    pub fn identity_in_slot(&self, slot: u32) -> Option<Identity> {
        self.context.registry.identity_in_slot(slot)
    }

    /// Writes a warning into the log of the sandbox in a slot of the runtime.
    pub fn warn_in_slot(&self, slot: u32, text: &str) {
        let Some(id) = self.in_slot(slot) else {
            tracing::debug!(slot, text, "a sandbox that nobody has");
            return;
        };
        if let Err(error) = self.context.archive.note(&id, LogLevel::Warn, text) {
            tracing::warn!(sandbox_id = %id, error = %Chain(&error), "could not write the log");
        }
    }

    /// Ends every running sandbox, as the operator's wish. Paused ones are carried over to
    /// the disk, where the runtime can keep their memory there.
    pub async fn end_all(&self) {
        let mut waiting = Vec::new();
        for entry in self.context.registry.all() {
            if entry.view.borrow().state == SandboxState::Paused {
                let (done, stored) = oneshot::channel();
                if entry.commands.send(Command::Store { done }).await.is_ok() {
                    waiting.push(stored);
                }
                continue;
            }
            let (done, ended) = oneshot::channel();
            let command = Command::End {
                reason: EndReason::Evicted,
                done,
            };
            if entry.commands.send(command).await.is_ok() {
                waiting.push(ended);
            }
        }
        for ended in waiting {
            // An owner that drops its answer has ended the sandbox.
            ended.await.ok();
        }
    }

    /// Stops the node: no creates, warm sandboxes destroyed, and running ones as `mode` says.
    pub async fn stop(&self, mode: StopMode) {
        self.pool.stop(STOP_LIMIT).await;
        if mode == StopMode::EndSandboxes {
            self.end_all().await;
        }
        for (name, tasks) in [("owners", &self.owners), ("background", &self.background)] {
            let left = tasks.stop(STOP_LIMIT).await;
            if left > 0 {
                tracing::warn!(name, left, "tasks did not stop in time");
            }
        }
        self.write_volumes_back().await;
        self.runtime.drain().await;
        self.runtime.shutdown().await;
    }

    /// Brings the bucket up to date, as far as there is time: what is not written back now is
    /// after the next start.
    async fn write_volumes_back(&self) {
        let volumes = Arc::clone(self.booter.volumes());
        if volumes.is_in_bucket() {
            let written = Tasks::new().spawn_blocking(move || volumes.write_back());
            match tokio::time::timeout(WRITE_BACK_LIMIT, written).await {
                Ok(Ok(failed)) if failed.is_empty() => {}
                failed => tracing::warn!(
                    ?failed,
                    "volumes are not wholly written back; the next start goes on"
                ),
            }
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.owners.stop_token().is_cancelled()
    }

    pub(crate) fn booter(&self) -> &Booter<R> {
        &self.booter
    }

    pub(crate) fn events_address(&self) -> &str {
        &self.context.events_address
    }

    fn find(&self, id: &SandboxId) -> Result<Registered, NodeError> {
        self.context
            .registry
            .get(id)
            .ok_or_else(|| NodeError::NotFound(id.clone()))
    }

    /// Finds a sandbox that is not on its way out.
    fn find_living(&self, id: &SandboxId) -> Result<Registered, NodeError> {
        let entry = self.find(id)?;
        let state = entry.view.borrow().state;
        match state {
            SandboxState::Ending | SandboxState::Ended => Err(NodeError::Ending(id.clone())),
            _ => Ok(entry),
        }
    }

    /// Finds a sandbox that runs and is not about to change that.
    fn find_settled(&self, id: &SandboxId) -> Result<Registered, NodeError> {
        let entry = self.find_living(id)?;
        let state = entry.view.borrow().state;
        match state {
            SandboxState::Running => Ok(entry),
            SandboxState::Paused => Err(NodeError::Paused(id.clone())),
            state => Err(NodeError::Transition {
                id: id.clone(),
                state,
            }),
        }
    }

    /// Boots what `image` says, from a capture or from its layers, and initialises it.
    async fn start_one(&self, request: &CreateSandbox) -> Result<Claim<R::Sandbox>, NodeError> {
        let (image, egress) = (&request.image, request.network.egress.clone());
        let events = &self.context.events_address;
        let Some(kind) = image.capture else {
            let booted = self.booter.boot_ready(image, egress).await?;
            return booted.claim(request, None, events).await;
        };
        let captures = &self.context.captures;
        let from = captures.build(image.build_id);
        let lost = |error| NodeError::LayerMissing(format!("{} ({error})", from.display()));
        let meta = captures.read_meta(image.build_id).map_err(lost)?;
        let memory = (kind == CaptureKind::Memory).then(|| meta.init_key.clone());
        // A build's capture has no id of its own to tell of.
        let source = SandboxId::random();
        let mounts = self.booter.open_mounts(&source, &request.mounts, false);
        let booted = self
            .booter
            .restore(image, egress, &from, memory, mounts.await?)
            .await?;
        booted.claim(request, Some(&meta), events).await
    }
}

/// Sends a command to an owner and waits for the answer.
async fn ask<T>(
    entry: &Registered,
    id: &SandboxId,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, NodeError> {
    let (done, answer) = oneshot::channel();
    let gone = || NodeError::NotFound(id.clone());
    entry
        .commands
        .send(command(done))
        .await
        .map_err(|_| gone())?;
    answer.await.map_err(|_| gone())
}

#[async_trait]
impl<R: Runtime> NodeHandle for Node<R> {
    #[tracing::instrument(name = "node create", skip_all, fields(warm = tracing::field::Empty))]
    async fn create(&self, request: CreateSandbox) -> Result<SandboxView, NodeError> {
        if self.is_stopping() {
            return Err(NodeError::Stopping);
        }
        let warm = match request.image.capture {
            None => self.pool.take(&request.image),
            Some(_) => None,
        };
        let claim = match warm {
            Some(warm) => {
                let claimed = warm
                    .claim(&request, None, &self.context.events_address)
                    .await;
                // It may have died while it waited; a fresh one decides.
                claimed
                    .inspect_err(|error| {
                        tracing::warn!(error = %Chain(error), "a warm sandbox was unusable");
                    })
                    .ok()
            }
            None => None,
        };
        tracing::Span::current().record("warm", claim.is_some());
        let claim = match claim {
            Some(claim) => claim,
            None => self.start_one(&request).await?,
        };
        let (entry, sandbox) = claim.record(&self.context.ledger)?;
        let id = entry.id.clone();
        let view = self.own(entry, Some(sandbox), true);
        if let Err(error) = self
            .context
            .archive
            .note(&id, LogLevel::Info, "sandbox started")
        {
            tracing::warn!(sandbox_id = %id, error = %Chain(&error), "could not write the log");
        }
        Ok(view)
    }

    async fn get(&self, id: &SandboxId) -> Result<SandboxView, NodeError> {
        let entry = self.find_living(id)?;
        let view = entry.view.borrow().clone();
        Ok(view)
    }

    async fn list(&self) -> Vec<SandboxView> {
        let entries = self.context.registry.all();
        let views = entries.iter().map(|entry| entry.view.borrow().clone());
        views
            .filter(|view| view.state != SandboxState::Ending)
            .collect()
    }

    #[tracing::instrument(name = "node end", skip_all, fields(sandbox_id = %id))]
    async fn end(&self, id: &SandboxId, reason: EndReason) -> Result<(), NodeError> {
        let entry = self.find(id)?;
        ask(&entry, id, |done| Command::End { reason, done }).await
    }

    async fn set_deadline(&self, id: &SandboxId, to: Deadline) -> Result<SandboxView, NodeError> {
        let entry = self.find_settled(id)?;
        ask(&entry, id, |done| Command::SetDeadline { to, done }).await?
    }

    async fn set_egress(&self, id: &SandboxId, policy: NetworkPolicy) -> Result<(), NodeError> {
        let entry = self.find_settled(id)?;
        ask(&entry, id, |done| Command::SetEgress { policy, done }).await?
    }

    #[tracing::instrument(name = "node pause", skip_all, fields(sandbox_id = %id))]
    async fn pause(&self, id: &SandboxId, request: PauseSandbox) -> Result<SandboxView, NodeError> {
        let asked = Instant::now();
        let entry = self.find_living(id)?;
        ask(&entry, id, |done| Command::Pause {
            request,
            asked,
            done,
        })
        .await?
    }

    #[tracing::instrument(name = "node resume", skip_all, fields(sandbox_id = %id))]
    async fn resume(&self, id: &SandboxId, request: ResumeSandbox) -> Result<Resumed, NodeError> {
        let asked = Instant::now();
        let entry = self.find_living(id)?;
        ask(&entry, id, |done| Command::Resume {
            request,
            asked,
            done,
        })
        .await?
    }

    #[tracing::instrument(name = "node capture", skip_all, fields(sandbox_id = %id, memory))]
    async fn capture(
        &self,
        id: &SandboxId,
        build: BuildId,
        memory: bool,
    ) -> Result<Captured, NodeError> {
        let entry = self.find_living(id)?;
        let state = entry.view.borrow().state;
        match state {
            SandboxState::Running | SandboxState::Snapshotting => {}
            SandboxState::Paused => return Err(NodeError::Paused(id.clone())),
            state => {
                return Err(NodeError::Transition {
                    id: id.clone(),
                    state,
                });
            }
        }
        ask(&entry, id, |done| Command::Capture {
            build,
            memory,
            done,
        })
        .await?
    }

    async fn keep_ready(&self, image: &BuildImage) -> Result<(), NodeError> {
        if self.is_stopping() {
            return Err(NodeError::Stopping);
        }
        // Given up in time for its sandbox to be gone when the node has stopped.
        tokio::select! {
            () = self.owners.stop_token().cancelled() => Err(NodeError::Stopping),
            kept = self.booter.keep_ready(image) => kept,
        }
    }

    async fn forget_capture(&self, build: BuildId) -> Result<(), NodeError> {
        self.booter.drop_ready(build).await;
        let captures = &self.context.captures;
        let forgotten = captures.forget_build(self.runtime.as_ref(), build).await;
        forgotten.map_err(|error| NodeError::CaptureFailed(Box::new(error)))
    }

    async fn captures(&self) -> Result<Vec<BuildId>, NodeError> {
        let builds = self.context.captures.builds();
        builds.map_err(|error| NodeError::CaptureFailed(Box::new(error)))
    }

    fn memory_captures(&self) -> Result<(), String> {
        self.runtime.capabilities().checkpoint.map(drop)
    }

    async fn logs(&self, id: &SandboxId, query: LogQuery) -> Result<Vec<LogEntry>, NodeError> {
        let entry = self.context.registry.get(id);
        let live = entry.and_then(|entry| entry.run).map(|run| run.log_path);
        let (archive, subject) = (self.context.archive.clone(), id.clone());
        let read = self
            .background
            .spawn_blocking(move || archive.read(&subject, live.as_deref(), &query));
        read.await
            .map_err(|_| NodeError::Stopping)?
            .map_err(|source| NodeError::Records {
                id: id.clone(),
                source,
            })
    }

    async fn set_warm_builds(&self, builds: Vec<BuildImage>) {
        self.pool.pin(&builds);
    }

    async fn load(&self) -> NodeLoad {
        let (running, paused) = self.context.registry.count();
        NodeLoad {
            running,
            paused,
            warm: self.pool.len(),
            available_pct: crate::memory::available_pct(),
        }
    }

    async fn host(&self) -> HostFacts {
        let host = Arc::clone(&self.host);
        let asked = self.background.spawn_blocking(move || host.facts()).await;
        asked.unwrap_or_default()
    }

    fn take_events(&self) -> Option<mpsc::Receiver<NodeEvent>> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Gathers samples and tells them in batches.
async fn batch(
    mut samples: mpsc::Receiver<(SandboxId, MetricsPoint)>,
    events: mpsc::Sender<NodeEvent>,
    tasks: Tasks,
) {
    let mut gathered = Vec::new();
    loop {
        tokio::select! {
            () = tasks.stop_token().cancelled() => return,
            received = samples.recv_many(&mut gathered, SAMPLE_QUEUE) => if received == 0 { return },
        }
        tokio::select! {
            () = tasks.stop_token().cancelled() => return,
            () = tokio::time::sleep(SAMPLE_BATCH) => {}
        }
        while let Ok(sample) = samples.try_recv() {
            gathered.push(sample);
        }
        if events
            .send(NodeEvent::Metrics(std::mem::take(&mut gathered)))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Deletes old logs now and then.
async fn expire_logs(archive: Archive, (age, bytes): (Duration, u64), tasks: Tasks) {
    loop {
        let sweeping = archive.clone();
        let swept = tasks
            .spawn_blocking(move || sweeping.expire(age, bytes))
            .await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(error = %Chain(&error), "could not delete old logs");
        }
        tokio::select! {
            () = tasks.stop_token().cancelled() => return,
            () = tokio::time::sleep(LOG_SWEEP) => {}
        }
    }
}
