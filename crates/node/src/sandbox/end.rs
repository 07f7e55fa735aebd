//! The end of a sandbox.

use jiff::Timestamp;
use tokio::sync::oneshot;
use warren_cluster::NodeEvent;
use warren_runtime::{Runtime, Sandbox};
use warren_service::Chain;
use warren_types::{EndReason, LogLevel, SandboxEnd, SandboxEvent};

use super::owner::{Command, Owner};

impl<R: Runtime> Owner<R> {
    /// Takes the sandbox down: unreachable first, then its log kept, then killed.
    pub(super) async fn end(mut self, reason: EndReason, done: Option<oneshot::Sender<()>>) {
        let event = match reason {
            EndReason::Crashed | EndReason::OutOfMemory => SandboxEvent::Died,
            _ => SandboxEvent::EndRequested,
        };
        let memory_peak = match reason {
            EndReason::OutOfMemory => self.memory_peak().await,
            _ => None,
        };
        let mut end = SandboxEnd {
            reason,
            at: Timestamp::now(),
            memory_peak,
        };
        self.enter(event);
        self.run.cancel();
        self.keep_log(&end);

        let destroyed = match self.sandbox.take() {
            Some(sandbox) => sandbox.destroy().await,
            None => Ok(()),
        };
        match destroyed {
            // The record goes only when nothing runs any more: after a crash in between,
            // the next start would otherwise not know what to release. Captures go after
            // it: those that no record names are swept.
            Ok(()) => {
                if let Err(error) = self.context.ledger.remove(&self.id) {
                    tracing::error!(sandbox_id = %self.id, error = %Chain(&error),
                        "could not remove the ledger record");
                }
                self.drop_stored().await;
            }
            Err(error) => tracing::error!(sandbox_id = %self.id, error = %Chain(&error),
                "could not destroy the sandbox; the next start tries again"),
        }
        self.context.registry.remove(&self.id);
        end.at = Timestamp::now();
        let ended = NodeEvent::Ended {
            id: self.id.clone(),
            end,
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

    /// What it used at most, which its group still tells after its processes died.
    async fn memory_peak(&self) -> Option<u64> {
        let usage = self.sandbox.as_ref()?.usage().await;
        usage
            .ok()
            .map(|usage| usage.memory_peak)
            .filter(|peak| *peak > 0)
    }

    fn keep_log(&self, end: &SandboxEnd) {
        let level = match end.reason {
            EndReason::Crashed | EndReason::OutOfMemory | EndReason::StartFailed => LogLevel::Error,
            _ => LogLevel::Info,
        };
        self.archive_log();
        self.note(level, &ended_text(end));
    }

    /// Keeps the log of a run whose file is about to be released.
    pub(super) fn archive_log(&self) {
        let Some(path) = self.log_path() else {
            return;
        };
        if let Err(error) = self.context.archive.keep(&self.id, &path) {
            tracing::warn!(sandbox_id = %self.id, error = %Chain(&error), "could not keep the log");
        }
    }
}

/// The last line of a sandbox's log.
pub(crate) fn ended_text(end: &SandboxEnd) -> String {
    format!(
        "sandbox ended: {}: it {}",
        end.reason.as_str(),
        end.explain()
    )
}
