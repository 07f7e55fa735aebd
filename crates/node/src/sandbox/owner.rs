//! The task that owns a sandbox: the only writer of its state.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use warren_cluster::{Deadline, NodeError, NodeEvent, SandboxView};
use warren_runtime::{ExitCause, Sandbox};
use warren_service::{CancellationToken, Chain};
use warren_types::{
    EndReason, LogLevel, MetricsPoint, NetworkPolicy, SandboxEvent, SandboxId, SandboxState,
};

use crate::ledger::{Entry, Ledger};
use crate::log::Archive;
use crate::metrics::{self, Reading};
use crate::registry::{Registered, Registry, RouteFacts};

/// Requests waiting for one owner; beyond it callers wait.
const QUEUE: usize = 64;
/// The first figures come soon, for callers that ask right after a create.
const FIRST_SAMPLE: Duration = Duration::from_secs(1);

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
}

/// What owners share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) registry: Registry,
    pub(crate) ledger: Ledger,
    pub(crate) archive: Archive,
    pub(crate) events: mpsc::Sender<NodeEvent>,
    pub(crate) samples: mpsc::Sender<(SandboxId, MetricsPoint)>,
    pub(crate) sample_every: Duration,
    /// Lets go of the sandboxes without ending them.
    pub(crate) release: CancellationToken,
}

/// The owner of one sandbox.
#[derive(Debug)]
pub(crate) struct Owner<S: Sandbox> {
    id: SandboxId,
    sandbox: Arc<S>,
    state: SandboxState,
    entry: Entry,
    view: watch::Sender<SandboxView>,
    commands: mpsc::Receiver<Command>,
    run: CancellationToken,
    reading: Option<Reading>,
    context: Arc<Context>,
}

fn view_of(entry: &Entry, state: SandboxState) -> SandboxView {
    SandboxView {
        id: entry.runtime.id.clone(),
        template_id: entry.template_id.clone(),
        build_id: entry.build_id,
        state,
        started_at: entry.started_at,
        end_at: entry.end_at,
        resources: entry.resources,
        access_token: entry.access_token.clone(),
        traffic_access_token: entry
            .network
            .traffic_access_token
            .clone()
            .map(warren_service::Secret::new),
        tier: "namespace",
    }
}

impl<S: Sandbox> Owner<S> {
    /// Registers a sandbox, which makes it reachable, and returns its owner, to be run.
    pub(crate) fn register(
        entry: Entry,
        sandbox: Arc<S>,
        state: SandboxState,
        context: Arc<Context>,
    ) -> (Self, SandboxView) {
        let id = entry.runtime.id.clone();
        let current = view_of(&entry, state);
        let (view, viewers) = watch::channel(current.clone());
        let (sender, commands) = mpsc::channel(QUEUE);
        let run = CancellationToken::new();
        context.registry.insert(
            id.clone(),
            Registered {
                commands: sender,
                view: viewers,
                log_path: sandbox.log_path(),
                slot: entry.runtime.slot,
                route: RouteFacts {
                    dial: sandbox.dialer(),
                    run: run.clone(),
                    network: Arc::new(entry.network.clone()),
                    access_token: entry.access_token.clone(),
                },
            },
        );
        let owner = Self {
            id,
            sandbox,
            state,
            entry,
            view,
            commands,
            run,
            reading: None,
            context,
        };
        (owner, current)
    }

    /// Owns the sandbox until it has ended or the node lets go of it.
    pub(crate) async fn run(mut self) {
        let watched = Arc::clone(&self.sandbox);
        let mut exited: Pin<Box<dyn Future<Output = ExitCause> + Send>> =
            Box::pin(async move { watched.exited().await });
        let release = self.context.release.clone();
        let mut next_sample = tokio::time::Instant::now() + FIRST_SAMPLE;
        loop {
            let deadline = until(self.entry.end_at);
            // Biased: a request that is already here is served before the clock decides,
            // so a time-out that was just extended does not end the sandbox.
            tokio::select! {
                biased;
                () = release.cancelled() => return,
                command = self.commands.recv() => match command {
                    Some(Command::End { reason, done }) => return self.end(reason, Some(done)).await,
                    Some(command) => self.apply(command).await,
                    // The registry holds a sender for as long as this task runs.
                    None => return,
                },
                cause = &mut exited => {
                    let reason = match cause {
                        ExitCause::OutOfMemory => EndReason::OutOfMemory,
                        ExitCause::Died => EndReason::Crashed,
                    };
                    return self.end(reason, None).await;
                }
                () = tokio::time::sleep(deadline) => {
                    // The wall clock decides; the timer only wakes.
                    if Timestamp::now() >= self.entry.end_at {
                        return self.end(EndReason::TimedOut, None).await;
                    }
                }
                () = tokio::time::sleep_until(next_sample) => {
                    next_sample = tokio::time::Instant::now() + self.context.sample_every;
                    self.sample().await;
                }
            }
        }
    }

    async fn apply(&mut self, command: Command) {
        match command {
            Command::End { .. } => unreachable!("the run loop takes this one"),
            Command::SetDeadline { to, done } => {
                let end_at = match to {
                    Deadline::Set(at) => at,
                    Deadline::Extend(at) => at.max(self.entry.end_at),
                };
                let before = std::mem::replace(&mut self.entry.end_at, end_at);
                let answer = self
                    .write_ledger()
                    .map(|()| view_of(&self.entry, self.state));
                match &answer {
                    Ok(view) => {
                        self.view.send_replace(view.clone());
                    }
                    Err(_) => self.entry.end_at = before,
                }
                done.send(answer).ok();
            }
            Command::SetEgress { policy, done } => {
                let answer = match self.sandbox.set_policy(policy).await {
                    Err(error) => Err(NodeError::StartFailed(Box::new(error))),
                    Ok(()) => {
                        self.entry.network.egress = policy;
                        self.entry.runtime = self.sandbox.record();
                        self.write_ledger()
                    }
                };
                done.send(answer).ok();
            }
        }
    }

    fn write_ledger(&self) -> Result<(), NodeError> {
        self.context
            .ledger
            .write(&self.entry)
            .map_err(|source| NodeError::Records {
                id: self.id.clone(),
                source,
            })
    }

    async fn sample(&mut self) {
        let usage = match self.sandbox.usage().await {
            Ok(usage) => usage,
            Err(error) => {
                tracing::debug!(sandbox_id = %self.id, error = %Chain(&error), "could not sample");
                return;
            }
        };
        let taken = Instant::now();
        let before = self
            .reading
            .replace(Reading {
                taken,
                cpu_micros: usage.cpu_micros,
            })
            .map(|reading| (taken - reading.taken, reading.cpu_micros));
        let point = metrics::point(Timestamp::now(), &usage, &self.entry.resources, before);
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

    /// Takes the sandbox down: unreachable first, then its log kept, then killed.
    async fn end(mut self, reason: EndReason, done: Option<oneshot::Sender<()>>) {
        let event = match reason {
            EndReason::Crashed | EndReason::OutOfMemory => SandboxEvent::Died,
            _ => SandboxEvent::EndRequested,
        };
        match self.state.next(event) {
            Ok(state) => self.state = state,
            Err(error) => tracing::error!(sandbox_id = %self.id, %error, "unexpected end"),
        }
        self.view.send_replace(view_of(&self.entry, self.state));
        self.run.cancel();
        self.keep_log(reason);

        match self.sandbox.destroy().await {
            // The record goes only when nothing runs any more: after a crash in between,
            // the next start would otherwise not know what to release.
            Ok(()) => {
                if let Err(error) = self.context.ledger.remove(&self.id) {
                    tracing::error!(sandbox_id = %self.id, error = %Chain(&error),
                        "could not remove the ledger record");
                }
            }
            Err(error) => tracing::error!(sandbox_id = %self.id, error = %Chain(&error),
                "could not destroy the sandbox; the next start tries again"),
        }
        self.context.registry.remove(&self.id);
        let ended = NodeEvent::Ended {
            id: self.id.clone(),
            reason,
            at: Timestamp::now(),
        };
        if self.context.events.send(ended).await.is_err() {
            tracing::debug!(sandbox_id = %self.id, "nobody listens to events any more");
        }
        tracing::info!(sandbox_id = %self.id, reason = reason.as_str(), "sandbox ended");
        if let Some(done) = done {
            done.send(()).ok();
        }
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            if let Command::End { done, .. } = command {
                done.send(()).ok();
            }
        }
    }

    fn keep_log(&self, reason: EndReason) {
        let (archive, id) = (&self.context.archive, &self.id);
        let level = match reason {
            EndReason::Crashed | EndReason::OutOfMemory | EndReason::StartFailed => LogLevel::Error,
            _ => LogLevel::Info,
        };
        let kept = archive
            .keep(id, &self.sandbox.log_path())
            .and_then(|()| archive.note(id, level, &format!("sandbox ended: {}", reason.as_str())));
        if let Err(error) = kept {
            tracing::warn!(sandbox_id = %id, error = %Chain(&error), "could not keep the log");
        }
    }
}

/// Time left until `at`; at most a day, for the wall clock may be set meanwhile.
fn until(at: Timestamp) -> Duration {
    let left = at.duration_since(Timestamp::now());
    Duration::try_from(left)
        .unwrap_or(Duration::ZERO)
        .min(Duration::from_secs(86_400))
}
