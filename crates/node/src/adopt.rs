//! After a start: taking over what an earlier server process left running or paused.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use warren_cluster::{NodeEvent, SandboxView};
use warren_runtime::{AdoptError, Runtime, RuntimeError, Sandbox};
use warren_service::Chain;
use warren_types::{EndReason, LogLevel, SandboxEnd, SandboxId};

use crate::agent;
use crate::ledger::Entry;
use crate::node::Node;
use crate::sandbox::{Owner, ended_text};

/// What was taken over; the rest is swept.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    /// Ids of the runs.
    pub(crate) runs: Vec<SandboxId>,
    /// Names of the captures of paused sandboxes.
    pub(crate) captures: HashSet<String>,
}

impl<R: Runtime> Node<R> {
    /// Takes over what still runs or is on disk.
    pub(crate) async fn adopt(&self, entries: Vec<Entry>) -> Adopted {
        let mut adopted = Adopted::default();
        for mut entry in entries {
            let stored = entry.pause.as_ref().and_then(|pause| pause.stored.clone());
            let has_run = entry.pause.as_ref().is_none_or(|pause| pause.frozen);
            let sandbox = if has_run {
                match self.take_over(&entry).await {
                    Ok(sandbox) => Some(sandbox),
                    Err(error) if stored.is_some() => {
                        self.fall_back(&mut entry, &error);
                        None
                    }
                    Err(error) => {
                        self.bury(&entry.id, &error);
                        continue;
                    }
                }
            } else {
                None
            };
            if let Some(stored) = stored {
                let at = self.context.captures.paused(&stored.name);
                if sandbox.is_none() && self.runtime.inspect_capture(&at).await.is_err() {
                    self.bury(&entry.id, &AdoptError::Gone);
                    continue;
                }
                adopted.captures.insert(stored.name);
            }
            if sandbox.is_some() {
                adopted.runs.push(entry.runtime.id.clone());
            }
            self.own(entry, sandbox, false);
        }
        adopted
    }

    /// Takes over processes, and brings them to the state that the record says: the server
    /// may have died between the two.
    async fn take_over(&self, entry: &Entry) -> Result<Arc<R::Sandbox>, AdoptError> {
        let sandbox = Arc::new(self.runtime.adopt(entry.runtime.clone()).await?);
        let failed = |error: RuntimeError| AdoptError::Failed(error);
        if entry.pause.is_some() {
            sandbox.freeze().await.map_err(failed)?;
        } else {
            sandbox.thaw().await.map_err(failed)?;
            if let Err(error) = agent::health(sandbox.dialer().as_ref()).await {
                tracing::warn!(sandbox_id = %entry.id, error = %Chain(&error),
                    "the agent of an adopted sandbox is silent");
            }
        }
        Ok(sandbox)
    }

    /// Leaves a paused sandbox whose processes are gone with its stored files.
    fn fall_back(&self, entry: &mut Entry, error: &AdoptError) {
        let Some(pause) = &mut entry.pause else {
            return;
        };
        let note = format!("{error}; only files were kept");
        tracing::warn!(sandbox_id = %entry.id, error = %Chain(error),
            "the processes of a paused sandbox are gone; its files are kept");
        pause.frozen = false;
        pause.note = Some(note.clone());
        entry.revision += 1;
        let text = format!("paused in memory: {note}");
        let noted = self
            .context
            .ledger
            .write(entry)
            .and_then(|()| self.context.archive.note(&entry.id, LogLevel::Error, &text));
        if let Err(error) = noted {
            tracing::error!(sandbox_id = %entry.id, error = %Chain(&error), "could not record a loss");
        }
    }

    /// Closes the record of a sandbox that did not survive.
    fn bury(&self, id: &SandboxId, error: &AdoptError) {
        let reason = match error {
            AdoptError::HostRestarted => EndReason::HostRestarted,
            AdoptError::Gone | AdoptError::Failed(_) => EndReason::Crashed,
        };
        tracing::warn!(sandbox_id = %id, error = %Chain(error), "a sandbox on record is gone");
        let end = SandboxEnd::new(reason, Timestamp::now());
        let text = ended_text(&end);
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
            end,
        };
        let events = self.context.events.clone();
        // Nobody consumes yet, and there may be more of them than the queue holds.
        self.background
            .spawn(async move { events.send(ended).await.ok() });
    }

    /// Starts the owner of a sandbox.
    pub(crate) fn own(
        &self,
        entry: Entry,
        sandbox: Option<Arc<R::Sandbox>>,
        is_new: bool,
    ) -> SandboxView {
        let (booter, context) = (Arc::clone(&self.booter), Arc::clone(&self.context));
        let (owner, view) = Owner::register(entry, sandbox, booter, context);
        let owner = if is_new { owner.just_made() } else { owner };
        self.owners.spawn(owner.run());
        view
    }
}
