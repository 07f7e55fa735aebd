//! The task that owns a sandbox: the only writer of its state.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use warren_cluster::{
    Captured, Deadline, NodeError, NodeEvent, PauseSandbox, PauseView, ResumeSandbox, Resumed,
    SandboxView,
};
use warren_egress::{Authority, AuthorityKeys};
use warren_runtime::{ExitCause, Runtime, Sandbox};
use warren_service::{CancellationToken, Chain};
use warren_types::{
    BuildId, EndReason, LogLevel, MetricsPoint, NetworkPolicy, OnTimeout, SandboxEvent, SandboxId,
    SandboxState,
};

use crate::captures::Captures;
use crate::config::PauseConfig;
use crate::ledger::{Entry, Ledger};
use crate::log::Archive;
use crate::metrics::{self, Reading};
use crate::registry::{Registered, Registry, RouteFacts, Run};
use crate::sandbox::Booter;

/// Requests waiting for one owner; beyond it callers wait.
const QUEUE: usize = 64;
/// The first figures come soon, for callers that ask right after a create.
const FIRST_SAMPLE: Duration = Duration::from_secs(1);
/// A pause at time-out that failed is tried again after this.
const PAUSE_RETRY: Duration = Duration::from_secs(10);

/// A message to an owner. An answer that never comes means that the sandbox ended first.
#[derive(Debug)]
pub(crate) enum Command {
    End {
        reason: EndReason,
        done: oneshot::Sender<()>,
    },
    SetDeadline {
        to: Deadline,
        done: oneshot::Sender<Result<SandboxView, NodeError>>,
    },
    SetEgress {
        policy: NetworkPolicy,
        done: oneshot::Sender<Result<(), NodeError>>,
    },
    Pause {
        request: PauseSandbox,
        /// Who asked before the change was done joins it.
        asked: Instant,
        done: oneshot::Sender<Result<SandboxView, NodeError>>,
    },
    Resume {
        request: ResumeSandbox,
        asked: Instant,
        done: oneshot::Sender<Result<Resumed, NodeError>>,
    },
    Capture {
        build: BuildId,
        memory: bool,
        done: oneshot::Sender<Result<Captured, NodeError>>,
    },
    /// Carry a paused sandbox over to the disk, for the node lets its processes go.
    Store { done: oneshot::Sender<()> },
}

/// What owners share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) registry: Registry,
    pub(crate) ledger: Ledger,
    pub(crate) archive: Archive,
    pub(crate) captures: Captures,
    pub(crate) pause: PauseConfig,
    pub(crate) events_address: String,
    pub(crate) events: mpsc::Sender<NodeEvent>,
    pub(crate) samples: mpsc::Sender<(SandboxId, MetricsPoint)>,
    pub(crate) sample_every: Duration,
    /// Lets go of the sandboxes without ending them.
    pub(crate) release: CancellationToken,
}

type Exit = Pin<Box<dyn Future<Output = ExitCause> + Send>>;

/// The owner of one sandbox.
#[derive(Debug)]
pub(crate) struct Owner<R: Runtime> {
    pub(super) id: SandboxId,
    /// Its processes, unless it is on disk only.
    pub(super) sandbox: Option<Arc<R::Sandbox>>,
    pub(super) state: SandboxState,
    pub(super) entry: Entry,
    /// Its certificate authority, if it has one.
    authority: Option<Arc<Authority>>,
    pub(super) view: watch::Sender<SandboxView>,
    pub(super) commands: mpsc::Receiver<Command>,
    sender: mpsc::Sender<Command>,
    /// Cancelled when the current run ends.
    pub(super) run: CancellationToken,
    /// Counts the processes that `sandbox` stood for.
    pub(super) bodies: u64,
    /// When the pause that is under way began.
    pub(super) pausing_since: Option<Timestamp>,
    /// When it was last paused or resumed.
    pub(super) changed: Instant,
    /// Its memory can't be stored, as was found out since its pause.
    pub(super) memory_refused: bool,
    /// When to carry a paused one over to the disk.
    pub(super) store_at: Option<tokio::time::Instant>,
    reading: Option<Reading>,
    /// Processes of this body that the kernel killed for lack of memory, once it is known
    /// how many of them the log tells of.
    oom_kills: Option<u64>,
    pub(super) booter: Arc<Booter<R>>,
    pub(super) context: Arc<Context>,
}

fn view_of(entry: &Entry, state: SandboxState, pausing_since: Option<Timestamp>) -> SandboxView {
    let set_aside = entry.pause.as_ref().map(|pause| pause.at);
    SandboxView {
        id: entry.id.clone(),
        template_id: entry.image.template_id.clone(),
        build_id: entry.image.build_id,
        state,
        started_at: entry.started_at,
        end_at: set_aside.or(pausing_since).unwrap_or(entry.end_at),
        resources: entry.image.resources,
        access_token: entry.access_token.clone(),
        traffic_access_token: entry
            .network
            .traffic_access_token
            .clone()
            .map(warren_service::Secret::new),
        tier: "namespace",
        revision: entry.revision,
        pause: entry.pause.as_ref().map(|pause| PauseView {
            at: pause.at,
            memory: pause.memory(),
            note: pause.note.clone(),
            agent_silent: pause.agent_silent && pause.memory(),
        }),
    }
}

/// The authority on record, ready to work. What is damaged does not keep a sandbox from
/// living: connections that need it are refused.
fn opened(entry: &Entry) -> Option<Arc<Authority>> {
    match Authority::open(entry.authority.as_ref()?) {
        Ok(authority) => Some(Arc::new(authority)),
        Err(error) => {
            tracing::error!(sandbox_id = %entry.id, error = %Chain(&error),
                "the certificate authority of a sandbox can't be used");
            None
        }
    }
}

impl<R: Runtime> Owner<R> {
    /// Registers a sandbox and returns its owner, to be run. A running one is reachable
    /// from here on.
    pub(crate) fn register(
        entry: Entry,
        sandbox: Option<Arc<R::Sandbox>>,
        booter: Arc<Booter<R>>,
        context: Arc<Context>,
    ) -> (Self, SandboxView) {
        let state = match &entry.pause {
            Some(_) => SandboxState::Paused,
            None => SandboxState::Running,
        };
        let current = view_of(&entry, state, None);
        let (view, _) = watch::channel(current.clone());
        let (sender, commands) = mpsc::channel(QUEUE);
        let mut owner = Self {
            id: entry.id.clone(),
            sandbox,
            state,
            authority: opened(&entry),
            entry,
            view,
            commands,
            sender,
            run: CancellationToken::new(),
            bodies: 0,
            pausing_since: None,
            changed: Instant::now(),
            memory_refused: false,
            store_at: None,
            reading: None,
            oom_kills: None,
            booter,
            context,
        };
        owner.plan_store();
        owner.publish();
        (owner, current)
    }

    /// Puts the current run into the registry.
    pub(super) fn publish(&mut self) {
        let run = self.sandbox.as_ref().map(|sandbox| Run {
            log_path: sandbox.log_path(),
            slot: self.entry.runtime.slot,
            authority: self.authority.clone(),
            route: RouteFacts {
                dial: sandbox.dialer(),
                run: self.run.clone(),
                network: Arc::new(self.entry.network.clone()),
                access_token: self.entry.access_token.clone(),
            },
        });
        self.context.registry.insert(
            self.id.clone(),
            Registered {
                commands: self.sender.clone(),
                view: self.view.subscribe(),
                run,
            },
        );
    }

    /// Moves on in the state machine and shows it.
    pub(super) fn enter(&mut self, event: SandboxEvent) {
        match self.state.next(event) {
            Ok(state) => self.state = state,
            Err(error) => tracing::error!(sandbox_id = %self.id, %error, "unexpected event"),
        }
        self.pausing_since = match self.state {
            SandboxState::Pausing => self.pausing_since.or_else(|| Some(Timestamp::now())),
            _ => None,
        };
        self.view.send_replace(self.shown());
    }

    pub(super) fn shown(&self) -> SandboxView {
        view_of(&self.entry, self.state, self.pausing_since)
    }

    /// Of a sandbox that was just made, whose log is new as well.
    pub(crate) fn just_made(mut self) -> Self {
        self.oom_kills = Some(0);
        self
    }

    fn exit(&self) -> Exit {
        match &self.sandbox {
            Some(sandbox) => {
                let watched = Arc::clone(sandbox);
                Box::pin(async move { watched.exited().await })
            }
            None => Box::pin(std::future::pending()),
        }
    }

    /// Owns the sandbox until it has ended or the node lets go of it.
    pub(crate) async fn run(mut self) {
        let release = self.context.release.clone();
        let mut next_sample = tokio::time::Instant::now() + FIRST_SAMPLE;
        let mut retry_at = None;
        let mut watched = self.bodies;
        let mut exited = self.exit();
        loop {
            let running = self.state == SandboxState::Running;
            let deadline = match retry_at {
                Some(at) => at,
                None => tokio::time::Instant::now() + until(self.entry.end_at),
            };
            let store_at = self.store_at.unwrap_or_else(tokio::time::Instant::now);
            // Biased: a request that is already here is served before the clock decides,
            // so a time-out that was just extended does not end the sandbox.
            tokio::select! {
                biased;
                () = release.cancelled() => return,
                command = self.commands.recv() => match command {
                    Some(Command::End { reason, done }) => return self.end(reason, Some(done)).await,
                    Some(command) => {
                        retry_at = None;
                        self.apply(command).await;
                    }
                    None => return,
                },
                cause = &mut exited => {
                    if !self.survives_on_disk().await {
                        let reason = match cause {
                            ExitCause::OutOfMemory => EndReason::OutOfMemory,
                            ExitCause::Died => EndReason::Crashed,
                        };
                        return self.end(reason, None).await;
                    }
                }
                () = tokio::time::sleep_until(deadline), if running => {
                    // The wall clock decides; the timer only wakes.
                    if Timestamp::now() >= self.entry.end_at {
                        match self.entry.on_timeout {
                            OnTimeout::End => return self.end(EndReason::TimedOut, None).await,
                            OnTimeout::Pause { memory } => retry_at = self.time_out(memory).await,
                        }
                    }
                }
                () = tokio::time::sleep_until(store_at), if self.store_at.is_some() => {
                    self.store_when_due().await;
                }
                () = tokio::time::sleep_until(next_sample), if running => {
                    next_sample = tokio::time::Instant::now() + self.context.sample_every;
                    self.sample().await;
                }
            }
            if watched != self.bodies {
                watched = self.bodies;
                self.oom_kills = Some(0);
                exited = self.exit();
            }
        }
    }

    /// Pauses at the end of its time. Returns when to try again, should it fail.
    async fn time_out(&mut self, memory: bool) -> Option<tokio::time::Instant> {
        let request = PauseSandbox {
            memory,
            healthy_guest: false,
        };
        match self.pause(request).await {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(sandbox_id = %self.id, error = %Chain(&error),
                    "could not pause a sandbox at its time-out; it goes on");
                self.note(LogLevel::Error, &format!("pause failed: {}", Chain(&error)));
                Some(tokio::time::Instant::now() + PAUSE_RETRY)
            }
        }
    }

    async fn apply(&mut self, command: Command) {
        match command {
            Command::End { .. } => unreachable!("the run loop takes this one"),
            Command::SetDeadline { to, done } => {
                done.send(self.set_deadline(to)).ok();
            }
            Command::SetEgress { policy, done } => {
                done.send(self.set_egress(policy).await).ok();
            }
            Command::Pause {
                request,
                asked,
                done,
            } => {
                let answer = match self.state {
                    SandboxState::Paused if self.changed >= asked => Ok(()),
                    SandboxState::Paused => Err(NodeError::Paused(self.id.clone())),
                    _ => self.pause_checked(request).await,
                };
                done.send(answer.map(|()| self.shown())).ok();
            }
            Command::Resume {
                request,
                asked,
                done,
            } => {
                let was_running = self.state == SandboxState::Running && self.changed < asked;
                let answer = self.resume(request).await;
                done.send(answer.map(|()| Resumed {
                    view: self.shown(),
                    was_running,
                }))
                .ok();
            }
            Command::Capture {
                build,
                memory,
                done,
            } => {
                done.send(self.capture(build, memory).await).ok();
            }
            Command::Store { done } => {
                self.store(true).await;
                done.send(()).ok();
            }
        }
    }

    fn set_deadline(&mut self, to: Deadline) -> Result<SandboxView, NodeError> {
        if self.state == SandboxState::Paused {
            return Err(NodeError::Paused(self.id.clone()));
        }
        let end_at = match to {
            Deadline::Set(at) => at,
            Deadline::Extend(at) => at.max(self.entry.end_at),
        };
        self.move_end(end_at)?;
        Ok(self.shown())
    }

    pub(super) fn move_end(&mut self, end_at: Timestamp) -> Result<(), NodeError> {
        let before = std::mem::replace(&mut self.entry.end_at, end_at);
        if let Err(error) = self.write_ledger() {
            self.entry.end_at = before;
            return Err(error);
        }
        self.view.send_replace(self.shown());
        Ok(())
    }

    async fn set_egress(&mut self, policy: NetworkPolicy) -> Result<(), NodeError> {
        let paused = || NodeError::Paused(self.id.clone());
        let sandbox = self.sandbox.clone().ok_or_else(paused)?;
        if self.state == SandboxState::Paused {
            return Err(paused());
        }
        if policy.has_headers() && self.entry.authority.is_none() {
            self.make_authority(&sandbox).await?;
        }
        sandbox
            .set_policy(policy.clone())
            .await
            .map_err(|error| NodeError::StartFailed(Box::new(error)))?;
        self.entry.network.egress = policy;
        self.entry.runtime = sandbox.record();
        self.write_ledger()
    }

    /// Makes an authority and has the agent install it. It is on record once the rules are
    /// that need it; after a crash in between the next one takes its place.
    async fn make_authority(&mut self, sandbox: &R::Sandbox) -> Result<(), NodeError> {
        let made = AuthorityKeys::generate();
        let made = made.map_err(|error| NodeError::StartFailed(Box::new(error)))?;
        self.entry.authority = Some(made);
        let lifecycle = match self.entry.revision {
            0 => self.id.to_string(),
            revision => format!("{}-{revision}", self.id),
        };
        if let Err(error) = self.instruct(sandbox, &lifecycle, false).await {
            self.entry.authority = None;
            return Err(NodeError::StartFailed(Box::new(error)));
        }
        self.authority = opened(&self.entry);
        self.publish();
        Ok(())
    }

    pub(super) fn write_ledger(&self) -> Result<(), NodeError> {
        self.context
            .ledger
            .write(&self.entry)
            .map_err(|source| NodeError::Records {
                id: self.id.clone(),
                source,
            })
    }

    /// Writes a line into the sandbox's log.
    pub(super) fn note(&self, level: LogLevel, text: &str) {
        if let Err(error) = self.context.archive.note(&self.id, level, text) {
            tracing::warn!(sandbox_id = %self.id, error = %Chain(&error), "could not write the log");
        }
    }

    /// Tells that the sandbox was paused or resumed.
    pub(super) async fn tell_change(&self) {
        let changed = NodeEvent::Changed(Box::new(self.shown()));
        if self.context.events.send(changed).await.is_err() {
            tracing::debug!(sandbox_id = %self.id, "nobody listens to events any more");
        }
    }

    /// Where the log of the current run is.
    pub(super) fn log_path(&self) -> Option<PathBuf> {
        self.sandbox.as_ref().map(|sandbox| sandbox.log_path())
    }

    async fn sample(&mut self) {
        let Some(sandbox) = &self.sandbox else {
            return;
        };
        let usage = match sandbox.usage().await {
            Ok(usage) => usage,
            Err(error) => {
                tracing::debug!(sandbox_id = %self.id, error = %Chain(&error), "could not sample");
                return;
            }
        };
        self.note_kills(usage.oom_kills, usage.memory_peak);
        let taken = Instant::now();
        let before = self
            .reading
            .replace(Reading {
                taken,
                cpu_micros: usage.cpu_micros,
            })
            .filter(|reading| reading.cpu_micros <= usage.cpu_micros)
            .map(|reading| (taken - reading.taken, reading.cpu_micros));
        let resources = &self.entry.image.resources;
        let point = metrics::point(Timestamp::now(), &usage, resources, before);
        // A full queue means a slow consumer: the figures of this moment are dropped.
        if self
            .context
            .samples
            .try_send((self.id.clone(), point))
            .is_err()
        {
            tracing::debug!(sandbox_id = %self.id, "dropped a sample");
        }
    }
}

impl<R: Runtime> Owner<R> {
    /// Tells in the log that the kernel killed processes for lack of memory: to whoever
    /// started them it looks like any other end.
    fn note_kills(&mut self, kills: u64, peak: u64) {
        let known = self.oom_kills.replace(kills).unwrap_or(kills);
        let fresh = kills.saturating_sub(known);
        if fresh == 0 {
            return;
        }
        let limit = self.entry.image.resources.memory_mib;
        let used = peak.div_ceil(1024 * 1024);
        let noun = if fresh == 1 { "process" } else { "processes" };
        let text = format!(
            "out of memory: the kernel killed {fresh} {noun} (it used {used} of {limit} MiB)"
        );
        self.note(LogLevel::Error, &text);
    }
}

/// Time left until `at`; at most a day, for the wall clock may be set meanwhile.
fn until(at: Timestamp) -> Duration {
    let left = at.duration_since(Timestamp::now());
    Duration::try_from(left)
        .unwrap_or(Duration::ZERO)
        .min(Duration::from_secs(86_400))
}
