//! Setting sandboxes aside and taking them up again.
//!
//! Nodes decide and tell; what they tell carries a revision, so that words that cross on
//! the way never undo newer ones, neither in the database nor in the count of places.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;
use warren_cluster::{NodeError, PauseSandbox, ResumeSandbox, Resumed, SandboxView};
use warren_store::{PauseRecord, SandboxChange, SandboxRecord, StoreError};
use warren_types::{OnTimeout, SandboxId, SandboxState, TeamId};

use crate::create::{check_timeout, micros};
use crate::limits::claim_of;
use crate::sandbox::latest_end;
use crate::{Caller, Control, PauseError, Sandbox, SandboxError, Team, TimeoutError};

/// Locks beyond which those that nobody holds are dropped.
const MANY_LOCKS: usize = 256;
/// How often a pause under way is looked at, and for how long.
const PAUSING_LOOK: Duration = Duration::from_millis(10);
const PAUSING_LOOKS: u32 = 6000;

/// One resume of a sandbox at a time: who comes later finds it running.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<SandboxId, Weak<tokio::sync::Mutex<()>>>>);

impl Gates {
    fn gate(&self, id: &SandboxId) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= MANY_LOCKS {
            gates.retain(|_, gate| gate.strong_count() > 0);
        }
        match gates.get(id).and_then(Weak::upgrade) {
            Some(gate) => gate,
            None => {
                let gate = Arc::default();
                gates.insert(id.clone(), Arc::downgrade(&gate));
                gate
            }
        }
    }

    pub(crate) async fn pass(&self, id: &SandboxId) -> OwnedMutexGuard<()> {
        self.gate(id).lock_owned().await
    }

    /// `None` while somebody else is in.
    pub(crate) fn try_pass(&self, id: &SandboxId) -> Option<OwnedMutexGuard<()>> {
        self.gate(id).try_lock_owned().ok()
    }
}

/// How a sandbox is to be taken up again.
#[derive(Debug, Clone, Copy)]
pub struct Resume {
    /// Seconds until it ends.
    pub timeout_s: i64,
    /// Whether its memory is taken up, if it was kept.
    pub memory: bool,
    /// Replaces whether it is paused at its time-out.
    pub auto_pause: Option<bool>,
}

impl Control {
    /// Sets a sandbox aside; a resume right after it succeeds.
    ///
    /// # Errors
    /// [`PauseError`]
    pub async fn pause(
        &self,
        caller: &Caller,
        id: &SandboxId,
        memory: bool,
        healthy_guest: bool,
    ) -> Result<(), PauseError> {
        let record = self.live(caller, id).await?;
        let request = PauseSandbox {
            memory,
            healthy_guest,
        };
        match self.node.pause(id, request).await {
            Ok(view) => {
                self.follow_change(&view).await?;
                Ok(())
            }
            Err(NodeError::Paused(id)) => Err(PauseError::AlreadyPaused(id)),
            Err(NodeError::AgentSilent(id)) => Err(PauseError::AgentSilent(id)),
            Err(NodeError::PauseFailed(cause)) => Err(PauseError::failed(id, cause)),
            Err(error) => Err(self.refused(&record, error).await.into()),
        }
    }

    /// Makes sure that a sandbox runs and lives for some seconds from now at least. Never
    /// shortens its life. Zero is allowed if `zero_allowed`: it changes nothing where it
    /// runs, and ends it at once where it had to be resumed. Returns whether it had to be.
    ///
    /// # Errors
    /// [`SandboxError`]; the time is checked first.
    pub async fn connect(
        &self,
        caller: &Caller,
        id: &SandboxId,
        request: Resume,
        zero_allowed: bool,
    ) -> Result<(Sandbox, bool), SandboxError> {
        let timeout = match check_timeout(&caller.team, request.timeout_s) {
            Ok(timeout) => timeout,
            Err(TimeoutError::NotPositive) if request.timeout_s == 0 && zero_allowed => {
                Duration::ZERO
            }
            Err(error) => return Err(error.into()),
        };
        let record = self.live(caller, id).await?;
        let node_request = ResumeSandbox {
            timeout,
            max_length: caller.team.max_length,
            memory: request.memory,
            on_timeout: None,
        };
        let resumed = self.take_up(&caller.team, &record, node_request).await?;
        let sandbox = self.resumed(record, &resumed.view);
        Ok((sandbox, !resumed.was_running))
    }

    /// Takes up a paused sandbox.
    ///
    /// # Errors
    /// [`SandboxError::Running`] if it ran before; [`SandboxError`].
    pub async fn resume(
        &self,
        caller: &Caller,
        id: &SandboxId,
        request: Resume,
    ) -> Result<Sandbox, SandboxError> {
        let asked = Timestamp::now();
        let timeout = check_timeout(&caller.team, request.timeout_s)?;
        let mut record = self.live(caller, id).await?;
        let view = match self.node.get(id).await {
            Ok(view) => view,
            Err(NodeError::Ending(id)) => return Err(SandboxError::NotFound(id)),
            Err(error) => return Err(self.refused(&record, error).await),
        };
        if view.state.shows_as_running() {
            return Err(SandboxError::Running(id.clone()));
        }
        let on_timeout = request.auto_pause.map(|pause| match pause {
            true => OnTimeout::Pause {
                memory: record.auto_pause_memory,
            },
            false => OnTimeout::End,
        });
        let node_request = ResumeSandbox {
            timeout,
            max_length: caller.team.max_length,
            memory: request.memory,
            on_timeout,
        };
        let resumed = self.take_up(&caller.team, &record, node_request).await?;
        if resumed.was_running && resumed.view.started_at < asked {
            return Err(SandboxError::Running(id.clone()));
        }
        if let Some(auto_pause) = request.auto_pause {
            self.store.sandbox_set_auto_pause(id, auto_pause).await?;
            record.auto_pause = auto_pause;
        }
        Ok(self.resumed(record, &resumed.view))
    }

    fn resumed(&self, mut record: SandboxRecord, view: &SandboxView) -> Sandbox {
        record.state = SandboxState::Running;
        record.started_at = micros(view.started_at);
        record.end_at = micros(view.end_at);
        record.revision = view.revision;
        record.pause = None;
        self.sandbox(record)
    }

    /// Has a sandbox running, with a place in its team's count.
    pub(crate) async fn take_up(
        &self,
        team: &Team,
        record: &SandboxRecord,
        request: ResumeSandbox,
    ) -> Result<Resumed, SandboxError> {
        let id = &record.id;
        let _gate = match self.gates.try_pass(id) {
            Some(gate) => gate,
            // Whoever resumes it now may take up its memory, which this one must not get.
            None if !request.memory && !self.runs(id).await => {
                return Err(SandboxError::StartInFlight(id.clone()));
            }
            None => self.gates.pass(id).await,
        };
        let view = match self.settled(id).await {
            Ok(view) => view,
            Err(error) => return Err(self.refused(record, error).await),
        };
        let place = if view.pause.is_some() {
            self.follow_change(&view).await?;
            Some(self.quota.reserve_run(claim_of(record))?)
        } else {
            if Timestamp::now() >= latest_end(view.started_at, team.max_length) {
                return Err(SandboxError::MaxLength);
            }
            None
        };
        let resumed = match self.node.resume(id, request).await {
            Ok(resumed) => resumed,
            Err(NodeError::ResumeFailed(cause) | NodeError::StartFailed(cause))
                if !request.memory =>
            {
                return Err(SandboxError::BootUnconfirmed {
                    id: id.clone(),
                    cause,
                });
            }
            Err(error) => return Err(self.refused(record, error).await),
        };
        let revision = resumed.view.revision;
        match place {
            Some(place) => place.keep(id.clone(), revision),
            // It was paused and taken up again between the two questions.
            None => self.quota.adopt(claim_of(record), id.clone(), revision),
        }
        if !self.follow_change(&resumed.view).await? {
            self.store
                .sandbox_set_end(id, resumed.view.end_at, revision)
                .await?;
        }
        self.settle(id, revision).await?;
        Ok(resumed)
    }

    async fn runs(&self, id: &SandboxId) -> bool {
        let view = self.node.get(id).await;
        view.is_ok_and(|view| view.state.shows_as_running())
    }

    /// The state of a sandbox, once a pause that is under way has ended.
    pub(crate) async fn settled(&self, id: &SandboxId) -> Result<SandboxView, NodeError> {
        let mut view = self.node.get(id).await?;
        for _ in 0..PAUSING_LOOKS {
            if view.state != SandboxState::Pausing {
                break;
            }
            tokio::time::sleep(PAUSING_LOOK).await;
            view = self.node.get(id).await?;
        }
        Ok(view)
    }

    /// Catches up with what became of a sandbox while its row or place was being written:
    /// the node's own word of that may have come too early.
    pub(crate) async fn settle(&self, id: &SandboxId, known: u64) -> Result<(), StoreError> {
        match self.node.get(id).await {
            Ok(view) if view.revision > known => self.follow_change(&view).await.map(drop),
            Ok(_) => Ok(()),
            Err(_) => {
                self.quota.release(id);
                Ok(())
            }
        }
    }

    /// Writes down a pause or resume, and gives the place of a paused one back. Returns
    /// whether it was news.
    pub(crate) async fn follow_change(&self, view: &SandboxView) -> Result<bool, StoreError> {
        let change = SandboxChange {
            revision: view.revision,
            started_at: view.started_at,
            end_at: view.end_at,
            pause: view.pause.as_ref().map(|pause| PauseRecord {
                memory: pause.memory,
                note: pause.note.clone(),
                agent_silent: pause.agent_silent,
            }),
        };
        if change.pause.is_some() {
            self.quota.release_run(&view.id, view.revision);
        }
        let is_news = self.store.sandbox_change(&view.id, &change).await?;
        if is_news {
            match &change.pause {
                Some(pause) => self.meters.pause(pause.memory),
                None => self.meters.resume(),
            }
        }
        Ok(is_news)
    }

    /// What a team may do, by its id.
    pub(crate) async fn team_of(&self, id: TeamId) -> Result<Option<Team>, StoreError> {
        let record = self.store.team_get(id).await?;
        Ok(record.map(|record| self.team(record)))
    }
}
