//! The node: start with adoption, the requests of `control`, and stop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use warren_cluster::{
    BuildImage, CreateSandbox, Deadline, LogQuery, NodeError, NodeEvent, NodeHandle, NodeLoad,
    SandboxView,
};
use warren_runtime::{AdoptError, Runtime, RuntimeError, Sandbox};
use warren_service::{Chain, Tasks};
use warren_types::{
    EndReason, LogEntry, LogLevel, MetricsPoint, NetworkPolicy, SandboxId, SandboxState,
};

use crate::agent;
use crate::config::NodeConfig;
use crate::ledger::{Entry, Ledger};
use crate::log::Archive;
use crate::pool::Pool;
use crate::registry::{Registered, Registry, RouteFacts};
use crate::sandbox::{Booter, Command, Context, Owner};

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
    runtime: Arc<R>,
    booter: Arc<Booter<R>>,
    pool: Pool<R>,
    context: Arc<Context>,
    events: Mutex<Option<mpsc::Receiver<NodeEvent>>>,
    events_address: String,
    owners: Tasks,
    background: Tasks,
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
            release: owners.stop_token().clone(),
        });
        let booter = Arc::new(Booter::new(
            Arc::clone(&runtime),
            config.agent,
            config.layers_dirs,
            config.events_address.clone(),
            background.clone(),
        ));
        let node = Self {
            pool: Pool::new(Arc::clone(&booter), config.warm),
            booter,
            runtime,
            context,
            events: Mutex::new(Some(events)),
            events_address: config.events_address,
            owners,
            background,
        };
        let adopted = node.adopt(entries).await;
        let report = node
            .runtime
            .sweep(&adopted)
            .await
            .map_err(StartError::Sweep)?;
        tracing::info!(
            adopted = adopted.len(),
            swept = report.sandboxes,
            "node started"
        );

        node.background
            .spawn(batch(samples, event_sender, node.background.clone()));
        node.background.spawn(expire_logs(
            node.context.archive.clone(),
            config.log_retention,
            node.background.clone(),
        ));
        Ok(node)
    }

    /// Takes over what still runs; returns the ids of that.
    async fn adopt(&self, entries: Vec<Entry>) -> Vec<SandboxId> {
        let mut adopted = Vec::new();
        for entry in entries {
            let id = entry.runtime.id.clone();
            match self.runtime.adopt(entry.runtime.clone()).await {
                Ok(sandbox) => {
                    let sandbox = Arc::new(sandbox);
                    if let Err(error) = agent::health(sandbox.dialer().as_ref()).await {
                        tracing::warn!(sandbox_id = %id, error = %Chain(&error),
                            "the agent of an adopted sandbox is silent");
                    }
                    self.own(entry, sandbox, SandboxState::Running);
                    adopted.push(id);
                }
                Err(error) => self.bury(&id, &error),
            }
        }
        adopted
    }

    /// Closes the record of a sandbox that did not survive.
    fn bury(&self, id: &SandboxId, error: &AdoptError) {
        let reason = match error {
            AdoptError::HostRestarted => EndReason::HostRestarted,
            AdoptError::Gone | AdoptError::Failed(_) => EndReason::Crashed,
        };
        tracing::warn!(sandbox_id = %id, error = %Chain(error), "a sandbox on record is gone");
        let text = format!("sandbox ended: {}", reason.as_str());
        let closed = self
            .context
            .archive
            .note(id, LogLevel::Error, &text)
            .and_then(|()| self.context.ledger.remove(id));
        if let Err(error) = closed {
            tracing::error!(sandbox_id = %id, error = %Chain(&error), "could not close a record");
        }
        let ended = NodeEvent::Ended {
            id: id.clone(),
            reason,
            at: Timestamp::now(),
        };
        let events = self.context.events.clone();
        // Nobody consumes yet, and there may be more of them than the queue holds.
        self.background
            .spawn(async move { events.send(ended).await.ok() });
    }

    fn own(&self, entry: Entry, sandbox: Arc<R::Sandbox>, state: SandboxState) -> SandboxView {
        let (owner, view) = Owner::register(entry, sandbox, state, Arc::clone(&self.context));
        self.owners.spawn(owner.run());
        view
    }

    /// How to reach a running sandbox.
    #[must_use]
    pub fn route(&self, id: &SandboxId) -> Option<RouteFacts> {
        let entry = self.context.registry.get(id)?;
        let running = entry.view.borrow().state == SandboxState::Running;
        running.then_some(entry.route)
    }

    /// The running sandbox in a slot of the runtime.
    #[must_use]
    pub fn in_slot(&self, slot: u32) -> Option<SandboxId> {
        self.context.registry.in_slot(slot)
    }

    /// Ends every sandbox, as the operator's wish.
    pub async fn end_all(&self) {
        let mut waiting = Vec::new();
        for entry in self.context.registry.all() {
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
        self.runtime.drain().await;
        self.runtime.shutdown().await;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.owners.stop_token().is_cancelled()
    }

    pub(crate) fn booter(&self) -> &Booter<R> {
        &self.booter
    }

    pub(crate) fn events_address(&self) -> &str {
        &self.events_address
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
    async fn create(&self, request: CreateSandbox) -> Result<SandboxView, NodeError> {
        if self.is_stopping() {
            return Err(NodeError::Stopping);
        }
        let claim = match self.pool.take(&request.image) {
            Some(warm) => match warm.claim(&request, &self.events_address).await {
                Ok(claim) => Some(claim),
                // It may have died while it waited; a fresh one decides.
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "a warm sandbox was unusable");
                    None
                }
            },
            None => None,
        };
        let claim = match claim {
            Some(claim) => claim,
            None => {
                let booted = self
                    .booter
                    .boot_ready(&request.image, request.network.egress)
                    .await?;
                booted.claim(&request, &self.events_address).await?
            }
        };
        let (entry, sandbox, state) = claim.record(&self.context.ledger)?;
        let id = entry.runtime.id.clone();
        let view = self.own(entry, sandbox, state);
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

    async fn end(&self, id: &SandboxId, reason: EndReason) -> Result<(), NodeError> {
        let entry = self.find(id)?;
        ask(&entry, id, |done| Command::End { reason, done }).await
    }

    async fn set_deadline(&self, id: &SandboxId, to: Deadline) -> Result<SandboxView, NodeError> {
        let entry = self.find_living(id)?;
        ask(&entry, id, |done| Command::SetDeadline { to, done }).await?
    }

    async fn set_egress(&self, id: &SandboxId, policy: NetworkPolicy) -> Result<(), NodeError> {
        let entry = self.find_living(id)?;
        ask(&entry, id, |done| Command::SetEgress { policy, done }).await?
    }

    async fn logs(&self, id: &SandboxId, query: LogQuery) -> Result<Vec<LogEntry>, NodeError> {
        let live = self.context.registry.get(id).map(|entry| entry.log_path);
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
        NodeLoad {
            running: self.context.registry.len(),
            warm: self.pool.len(),
        }
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
async fn expire_logs(archive: Archive, retention: Duration, tasks: Tasks) {
    loop {
        let sweeping = archive.clone();
        let swept = tasks
            .spawn_blocking(move || sweeping.expire(retention))
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
