//! Setting a sandbox aside and taking it up again. In every function the ledger is written
//! at the one moment from which on a crash leads to the state after; before it, to the
//! state before.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use warren_cluster::{NodeError, PauseSandbox, ResumeSandbox};
use warren_runtime::{Runtime, RuntimeError, Sandbox};
use warren_service::{CancellationToken, Chain, fault};
use warren_types::{LogLevel, SandboxEvent, SandboxState};

use super::boot::after;
use super::owner::Owner;
use crate::agent;
use crate::ledger::{Pause, Stored};
use crate::memory;

fn pause_failed(error: RuntimeError) -> NodeError {
    NodeError::PauseFailed(Box::new(error))
}

fn resume_failed(error: impl std::error::Error + Send + Sync + 'static) -> NodeError {
    NodeError::ResumeFailed(Box::new(error))
}

impl<R: Runtime> Owner<R> {
    /// Pauses, after a look at the agent where that is due.
    pub(super) async fn pause_checked(&mut self, request: PauseSandbox) -> Result<(), NodeError> {
        if (request.healthy_guest || !request.memory)
            && let Some(sandbox) = &self.sandbox
            && let Err(error) = agent::health(sandbox.dialer().as_ref()).await
        {
            tracing::warn!(sandbox_id = %self.id, error = %Chain(&error), "not paused");
            return Err(NodeError::AgentSilent(self.id.clone()));
        }
        self.pause(request).await
    }

    /// Sets a running sandbox aside. A failure leaves it running.
    pub(super) async fn pause(&mut self, request: PauseSandbox) -> Result<(), NodeError> {
        let Some(sandbox) = self.sandbox.clone() else {
            return Err(NodeError::Paused(self.id.clone()));
        };
        self.enter(SandboxEvent::PauseRequested);
        fault::point("pause.begun");
        let paused = if request.memory {
            self.pause_frozen(&sandbox).await
        } else {
            self.pause_stored(&sandbox).await
        };
        if let Err(error) = paused {
            self.entry.pause = None;
            if let Err(error) = sandbox.thaw().await {
                tracing::error!(sandbox_id = %self.id, error = %Chain(&error), "could not thaw");
            }
            self.enter(SandboxEvent::PauseFailed);
            return Err(error);
        }
        fault::point("pause.recorded");
        // Not to be found any more before the connections are cut: whoever is cut asks at
        // once to learn why.
        self.enter(SandboxEvent::Paused);
        self.run.cancel();
        self.changed = Instant::now();
        self.memory_refused = false;
        if !request.memory {
            self.release().await;
        }
        self.plan_store();
        fault::point("pause.done");
        self.note(LogLevel::Info, "sandbox paused");
        self.tell_change().await;
        Ok(())
    }

    async fn pause_frozen(&mut self, sandbox: &R::Sandbox) -> Result<(), NodeError> {
        let agent_silent = agent::responds(sandbox.dialer().as_ref()).await.is_err();
        sandbox.freeze().await.map_err(pause_failed)?;
        fault::point("pause.frozen");
        self.record_pause(true, None, agent_silent)
    }

    async fn pause_stored(&mut self, sandbox: &R::Sandbox) -> Result<(), NodeError> {
        sandbox.freeze().await.map_err(pause_failed)?;
        let stored = self
            .capture_aside(sandbox, self.entry.revision + 1, false)
            .await?;
        fault::point("pause.captured");
        let name = stored.name.clone();
        let recorded = self.record_pause(false, Some(stored), false);
        if recorded.is_err() {
            self.forget(&name).await;
        }
        recorded
    }

    fn record_pause(
        &mut self,
        frozen: bool,
        stored: Option<Stored>,
        agent_silent: bool,
    ) -> Result<(), NodeError> {
        self.entry.pause = Some(Pause {
            // As was shown while it was under way.
            at: self.pausing_since.unwrap_or_else(Timestamp::now),
            frozen,
            stored,
            note: None,
            agent_silent,
        });
        self.entry.revision += 1;
        let written = self.context.ledger.write(&self.entry);
        written.map_err(|error| {
            self.entry.revision -= 1;
            self.entry.pause = None;
            // The record may have been replaced before the failure showed.
            if let Err(error) = self.write_ledger() {
                tracing::error!(sandbox_id = %self.id, error = %Chain(&error), "could not undo a record");
            }
            NodeError::PauseFailed(Box::new(error))
        })
    }

    async fn capture_aside(
        &self,
        sandbox: &R::Sandbox,
        revision: u64,
        memory: bool,
    ) -> Result<Stored, NodeError> {
        let kind = if memory { "memory" } else { "files" };
        let name = format!("{}.{revision}.{kind}", self.id);
        let into = self.context.captures.paused(&name);
        let info = sandbox
            .capture(&into, memory)
            .await
            .map_err(|error| match error {
                RuntimeError::NoCheckpoint(why) => NodeError::MemoryRefused(why),
                other => pause_failed(other),
            })?;
        Ok(Stored {
            name,
            memory: info.has_memory,
        })
    }

    /// Lets the processes go; what is stored is all that is left.
    async fn release(&mut self) {
        self.archive_log();
        self.bodies += 1;
        if let Some(sandbox) = self.sandbox.take()
            && let Err(error) = sandbox.destroy().await
        {
            tracing::error!(sandbox_id = %self.id, error = %Chain(&error),
                "could not release a paused sandbox; the next start tries again");
        }
        self.publish();
    }

    async fn forget(&self, name: &str) {
        let runtime = self.booter.runtime.as_ref();
        self.context.captures.forget_paused(runtime, name).await;
    }

    /// Deletes what is stored of it, in the background of nobody: callers wait.
    pub(super) async fn drop_stored(&mut self) {
        let stored = self
            .entry
            .pause
            .as_mut()
            .and_then(|pause| pause.stored.take());
        if let Some(stored) = stored {
            self.forget(&stored.name).await;
        }
    }

    /// Sets the time of the next step towards the disk: soon after a pause its files are
    /// stored, later its memory, where the runtime can.
    pub(super) fn plan_store(&mut self) {
        let config = self.context.pause;
        let wait = match &self.entry.pause {
            Some(pause) if pause.frozen => match &pause.stored {
                None => config.files_after.min(config.memory_after),
                Some(_) if self.can_keep_memory() => config.look_every.min(config.memory_after),
                Some(_) => {
                    self.store_at = None;
                    return;
                }
            },
            _ => {
                self.store_at = None;
                return;
            }
        };
        self.store_at = Some(tokio::time::Instant::now() + wait);
    }

    fn can_keep_memory(&self) -> bool {
        !self.memory_refused && self.booter.runtime.capabilities().checkpoint.is_ok()
    }

    pub(super) async fn store_when_due(&mut self) {
        let config = self.context.pause;
        let has_files = self
            .entry
            .pause
            .as_ref()
            .is_some_and(|pause| pause.stored.is_some());
        let is_due = self.changed.elapsed() >= config.memory_after
            || memory::available_pct().is_some_and(|pct| pct < config.min_available_pct);
        if is_due && self.can_keep_memory() {
            self.store(true).await;
        } else if !has_files {
            self.store(false).await;
        }
        self.plan_store();
    }

    /// Carries a frozen sandbox over to the disk: its files alone, after which it stays
    /// frozen, or with its memory, after which its processes are let go. A failure leaves
    /// it frozen.
    pub(super) async fn store(&mut self, memory: bool) {
        let Some(pause) = self.entry.pause.clone().filter(|pause| pause.frozen) else {
            return;
        };
        let Some(sandbox) = self.sandbox.clone() else {
            return;
        };
        if memory && !self.can_keep_memory() {
            return;
        }
        let stored = match self
            .capture_aside(&sandbox, self.entry.revision, memory)
            .await
        {
            Ok(stored) => stored,
            Err(NodeError::MemoryRefused(why)) => {
                self.memory_refused = true;
                tracing::warn!(sandbox_id = %self.id, why, "a paused sandbox stays in memory");
                let text = format!("stays in memory while paused, which can't be stored: {why}");
                self.note(LogLevel::Warn, &text);
                return;
            }
            Err(error) => {
                tracing::warn!(sandbox_id = %self.id, error = %Chain(&error),
                    "a paused sandbox could not be stored; it stays in memory");
                self.note(
                    LogLevel::Warn,
                    &format!("could not be stored: {}", Chain(&error)),
                );
                return;
            }
        };
        fault::point("store.captured");
        // Somebody wants it now: it would only have to be read back.
        let wanted = !self.commands.is_empty();
        let name = stored.name.clone();
        self.entry.pause = Some(Pause {
            frozen: !stored.memory || wanted,
            stored: Some(stored),
            ..pause.clone()
        });
        if let Err(error) = self.write_ledger() {
            tracing::warn!(sandbox_id = %self.id, error = %Chain(&error), "not stored");
            self.entry.pause = Some(pause);
            self.forget(&name).await;
            return;
        }
        fault::point("store.recorded");
        if self.entry.pause.as_ref().is_some_and(|pause| !pause.frozen) {
            self.release().await;
        }
        fault::point("store.released");
        if let Some(old) = pause.stored.filter(|old| old.name != name) {
            self.forget(&old.name).await;
        }
    }

    /// Whether a paused sandbox whose frozen processes died lives on from its stored files.
    pub(super) async fn survives_on_disk(&mut self) -> bool {
        let kept = self
            .entry
            .pause
            .as_mut()
            .filter(|pause| pause.stored.is_some());
        let Some(pause) = kept else {
            return false;
        };
        pause.frozen = false;
        pause.note = Some("its processes died while paused in memory".to_owned());
        self.entry.revision += 1;
        if let Err(error) = self.write_ledger() {
            tracing::error!(sandbox_id = %self.id, error = %Chain(&error), "could not record a loss");
        }
        self.note(
            LogLevel::Error,
            "the processes of the paused sandbox died; it will start again from its files",
        );
        self.release().await;
        self.view.send_replace(self.shown());
        self.plan_store();
        self.tell_change().await;
        true
    }

    /// Makes the sandbox run, or live longer if it does. A failure leaves it paused.
    pub(super) async fn resume(&mut self, request: ResumeSandbox) -> Result<(), NodeError> {
        let Some(pause) = self.entry.pause.clone() else {
            return self.live_on(request);
        };
        if pause.agent_silent && pause.memory() && request.memory {
            return Err(NodeError::AgentSilent(self.id.clone()));
        }
        self.enter(SandboxEvent::ResumeRequested);
        let before = self.entry.clone();
        let resumed = match (&pause.stored, self.sandbox.clone()) {
            (_, Some(sandbox)) if pause.frozen && request.memory => {
                self.resume_frozen(&sandbox, request).await.map(|()| None)
            }
            (Some(stored), None) => self.resume_stored(stored, request).await.map(Some),
            (_, Some(sandbox)) => self.reboot(&sandbox, &pause, request).await.map(Some),
            (None, None) => Err(NodeError::NotFound(self.id.clone())),
        };
        let fresh = match resumed {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::error!(sandbox_id = %self.id, error = %Chain(&error), "not resumed");
                self.entry = before;
                // A record may have been replaced before the failure showed.
                if let Err(error) = self.write_ledger() {
                    tracing::error!(sandbox_id = %self.id, error = %Chain(&error),
                        "could not undo a record");
                }
                self.enter(SandboxEvent::ResumeFailed);
                self.plan_store();
                return Err(error);
            }
        };
        fault::point("resume.recorded");
        self.run = CancellationToken::new();
        if let Some(fresh) = fresh {
            self.archive_log();
            let old = self.sandbox.replace(fresh);
            self.bodies += 1;
            if let Some(old) = old
                && let Err(error) = old.destroy().await
            {
                tracing::error!(sandbox_id = %self.id, error = %Chain(&error),
                    "could not release the run before");
            }
        }
        self.changed = Instant::now();
        self.store_at = None;
        // The new route is there before the state says so.
        self.publish();
        self.enter(SandboxEvent::Resumed);
        fault::point("resume.done");
        self.note(LogLevel::Info, "sandbox resumed");
        self.tell_change().await;
        if let Some(stored) = pause.stored {
            self.forget(&stored.name).await;
        }
        Ok(())
    }

    /// A resume of what runs: only its end may move, and only away.
    fn live_on(&mut self, request: ResumeSandbox) -> Result<(), NodeError> {
        if let Some(on_timeout) = request.on_timeout {
            self.entry.on_timeout = on_timeout;
        }
        let latest = after(self.entry.started_at, request.max_length);
        let end_at = after(Timestamp::now(), request.timeout).min(latest);
        self.move_end(end_at.max(self.entry.end_at))
    }

    /// Turns the entry into that of a running sandbox, and records it.
    fn record_resume(&mut self, request: ResumeSandbox) -> Result<(), NodeError> {
        let now = Timestamp::now();
        self.entry.pause = None;
        self.entry.revision += 1;
        self.entry.started_at = now;
        self.entry.end_at = after(now, request.timeout.min(request.max_length));
        if let Some(on_timeout) = request.on_timeout {
            self.entry.on_timeout = on_timeout;
        }
        self.write_ledger()
    }

    async fn resume_frozen(
        &mut self,
        sandbox: &R::Sandbox,
        request: ResumeSandbox,
    ) -> Result<(), NodeError> {
        sandbox.thaw().await.map_err(resume_failed)?;
        fault::point("resume.thawed");
        let awake = match self.greet(sandbox, false).await {
            Ok(()) => self.record_resume(request),
            Err(error) => Err(error),
        };
        if awake.is_err()
            && let Err(error) = sandbox.freeze().await
        {
            tracing::error!(sandbox_id = %self.id, error = %Chain(&error), "could not freeze again");
        }
        awake
    }

    async fn resume_stored(
        &mut self,
        stored: &Stored,
        request: ResumeSandbox,
    ) -> Result<Arc<R::Sandbox>, NodeError> {
        let memory = stored.memory && request.memory;
        let from = self.context.captures.paused(&stored.name);
        let key = memory.then(|| self.entry.init_key.clone());
        let booted = self
            .booter
            .restore(
                &self.entry.image,
                self.entry.network.egress.clone(),
                &from,
                key,
                self.booter
                    .open_mounts(&self.id, &self.entry.mounts, true)
                    .await?,
            )
            .await?;
        let (sandbox, init_key) = (Arc::clone(booted.sandbox()), booted.init_key().clone());
        self.entry.runtime = sandbox.record();
        self.entry.init_key = init_key;
        fault::point("resume.restored");
        self.greet(&sandbox, !memory).await?;
        fault::point("resume.greeted");
        self.record_resume(request)?;
        // From here on the sandbox is on record: it is no longer undone by a drop.
        Ok(booted.keep())
    }

    /// Boots a frozen sandbox from its files, as asked for; its processes are given up.
    async fn reboot(
        &mut self,
        sandbox: &R::Sandbox,
        pause: &Pause,
        request: ResumeSandbox,
    ) -> Result<Arc<R::Sandbox>, NodeError> {
        let made = match &pause.stored {
            Some(stored) => return self.resume_stored(stored, request).await,
            None => self
                .capture_aside(sandbox, self.entry.revision, false)
                .await
                .map_err(resume_failed)?,
        };
        let resumed = self.resume_stored(&made, request).await;
        self.forget(&made.name).await;
        resumed
    }

    /// Tells the agent of the new run: clock, identity, token, and the variables if it
    /// has lost them.
    async fn greet(&self, sandbox: &R::Sandbox, is_fresh: bool) -> Result<(), NodeError> {
        let lifecycle = format!("{}-{}", self.id, self.entry.revision + 1);
        self.instruct(sandbox, &lifecycle, is_fresh)
            .await
            .map_err(resume_failed)
    }

    /// Tells the agent of a run what it has to know.
    pub(super) async fn instruct(
        &self,
        sandbox: &R::Sandbox,
        lifecycle: &str,
        is_fresh: bool,
    ) -> Result<(), agent::AgentError> {
        let mut env = self.entry.image.env.clone();
        env.extend(self.entry.env.clone());
        let init = agent::Init::of(
            &self.entry,
            is_fresh.then_some(&env),
            lifecycle,
            &self.context.events_address,
        );
        agent::init(sandbox.dialer().as_ref(), &self.entry.init_key, &init)
            .await
            .map(drop)
    }

    /// Takes a copy under a build's id; the sandbox stands still meanwhile.
    pub(super) async fn capture(
        &mut self,
        build: warren_types::BuildId,
        memory: bool,
    ) -> Result<warren_cluster::Captured, NodeError> {
        let paused = || NodeError::Paused(self.id.clone());
        if self.state != SandboxState::Running {
            return Err(paused());
        }
        let sandbox = self.sandbox.clone().ok_or_else(paused)?;
        self.enter(SandboxEvent::SnapshotRequested);
        let memory = memory && self.can_keep_memory();
        let captured = self.capture_frozen(&sandbox, build, memory).await;
        fault::point("capture.described");
        if let Err(error) = sandbox.thaw().await {
            tracing::error!(sandbox_id = %self.id, error = %Chain(&error), "could not thaw");
        }
        self.enter(SandboxEvent::Captured);
        captured
    }

    async fn capture_frozen(
        &self,
        sandbox: &R::Sandbox,
        build: warren_types::BuildId,
        memory: bool,
    ) -> Result<warren_cluster::Captured, NodeError> {
        let failed = |error: RuntimeError| NodeError::CaptureFailed(Box::new(error));
        sandbox.freeze().await.map_err(failed)?;
        fault::point("capture.frozen");
        let captures = &self.context.captures;
        let into = captures.build(build);
        let info = match sandbox.capture(&into, memory).await {
            Err(RuntimeError::NoCheckpoint(why)) if memory => {
                tracing::warn!(sandbox_id = %self.id, why, "captured without memory");
                let text = format!("captured without memory, which can't be kept: {why}");
                self.note(LogLevel::Warn, &text);
                sandbox.capture(&into, false).await
            }
            other => other,
        };
        let info = info.map_err(failed)?;
        fault::point("capture.taken");
        let meta = crate::captures::Meta {
            image: self.entry.image.clone(),
            env: self.entry.env.clone(),
            init_key: self.entry.init_key.clone(),
            memory: info.has_memory,
        };
        if let Err(error) = captures.write_meta(build, &meta) {
            captures
                .forget_build(self.booter.runtime.as_ref(), build)
                .await
                .ok();
            return Err(NodeError::CaptureFailed(Box::new(error)));
        }
        Ok(warren_cluster::Captured {
            image: meta.image_of(build),
            bytes: info.bytes,
        })
    }
}
