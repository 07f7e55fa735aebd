//! Traffic that resumes a paused sandbox: once, however many requests arrive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use warren_cluster::{ResumeSandbox, token};
use warren_service::Chain;
use warren_store::SandboxRecord;
use warren_types::{ENVD_PORT, SandboxId, SandboxState};

use crate::{Control, SandboxError};

/// A run that traffic started lasts no less.
const MIN_LIFE: Duration = Duration::from_secs(300);
/// Longest time that a request is held.
const HOLD: Duration = Duration::from_secs(60);
/// Requests held at a time; more are told to come again.
const MAX_HELD: usize = 4096;

/// What a request to a paused sandbox shows.
#[derive(Debug, Clone, Copy)]
pub struct WakeAsk<'a> {
    /// The requested port.
    pub port: u16,
    /// Token for the agent.
    pub access_token: Option<&'a str>,
    /// Token for the other ports.
    pub traffic_token: Option<&'a str>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// It runs.
    Running,
    /// Traffic does not resume it, or it is not there.
    NotFound,
    /// It would, with other credentials.
    Denied,
    /// Its pause or resume takes too long, or too many wait for it.
    Transitioning,
    /// The team runs as many as it may.
    Limit {
        /// What the client is told.
        message: String,
    },
}

/// Resumes under way, with who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Wakes(Mutex<HashMap<SandboxId, watch::Receiver<Option<Wake>>>>);

impl Control {
    /// Resumes a paused sandbox for a request, if its create allowed that and the request
    /// may. Requests at the same time share one resume and its outcome. The resume goes on
    /// when the caller goes away.
    pub async fn wake(self: &Arc<Self>, id: &SandboxId, ask: WakeAsk<'_>) -> Wake {
        let record = match self.store.sandbox_find(id).await {
            Ok(record) => record.filter(|record| record.ended_at.is_none()),
            Err(error) => {
                tracing::error!(sandbox_id = %id, error = %Chain(&error), "not woken");
                return Wake::Transitioning;
            }
        };
        let Some(record) = record.filter(|record| record.auto_resume) else {
            return Wake::NotFound;
        };
        match self.node.get(id).await {
            Ok(view) if view.pause.as_ref().is_some_and(|pause| !pause.memory) => {
                return Wake::NotFound;
            }
            Ok(view) if view.state == SandboxState::Running => return Wake::Running,
            Ok(_) => {}
            Err(_) => return Wake::NotFound,
        }
        if !self.may_wake(&record, ask) {
            return Wake::Denied;
        }
        let Some(mut outcome) = self.join_wake(record) else {
            return Wake::Transitioning;
        };
        let told = tokio::time::timeout(HOLD, outcome.wait_for(Option::is_some)).await;
        match told {
            Ok(Ok(wake)) => wake.clone().unwrap_or(Wake::Transitioning),
            _ => Wake::Transitioning,
        }
    }

    fn may_wake(&self, record: &SandboxRecord, ask: WakeAsk<'_>) -> bool {
        let key = &self.config.token_key;
        let (expected, shown) = if ask.port == ENVD_PORT {
            let token = record.secure.then(|| token::access(key, &record.id));
            (token, ask.access_token)
        } else {
            let token = record
                .private_traffic
                .then(|| token::traffic(key, &record.id));
            (token, ask.traffic_token)
        };
        expected.is_none_or(|token| shown.is_some_and(|shown| token.matches(shown)))
    }

    /// Joins the resume of a sandbox that is under way, or begins one. `None` if too many
    /// wait already.
    fn join_wake(self: &Arc<Self>, record: SandboxRecord) -> Option<watch::Receiver<Option<Wake>>> {
        let mut wakes = self.wakes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = wakes.get(&record.id) {
            return Some(outcome.clone());
        }
        if wakes.len() >= MAX_HELD {
            return None;
        }
        let (done, outcome) = watch::channel(None);
        wakes.insert(record.id.clone(), outcome.clone());
        let control = Arc::clone(self);
        self.tasks.spawn(async move {
            let id = record.id.clone();
            let wake = control.wake_up(record).await;
            // Not joined any more from here on, so that nobody is told of the past.
            let mut wakes = control
                .wakes
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            wakes.remove(&id);
            done.send_replace(Some(wake));
        });
        Some(outcome)
    }

    async fn wake_up(&self, record: SandboxRecord) -> Wake {
        let team = match self.team_of(record.team_id).await {
            Ok(Some(team)) => team,
            _ => return Wake::NotFound,
        };
        // Of a pause that was under way it was not known yet what it keeps.
        match self.settled(&record.id).await {
            Ok(view) if view.pause.as_ref().is_some_and(|pause| !pause.memory) => {
                return Wake::NotFound;
            }
            Ok(_) => {}
            Err(_) => return Wake::NotFound,
        }
        let life = Duration::from_secs(record.timeout_s.into());
        let request = ResumeSandbox {
            timeout: life.max(MIN_LIFE),
            max_length: team.max_length,
            memory: true,
            on_timeout: None,
        };
        match self.take_up(&team, &record, request).await {
            Ok(_) => Wake::Running,
            Err(error @ SandboxError::Quota(_)) => Wake::Limit {
                message: error.to_string(),
            },
            Err(
                SandboxError::NotFound(_) | SandboxError::Ended { .. } | SandboxError::Ending(_),
            ) => Wake::NotFound,
            Err(error) => {
                tracing::error!(sandbox_id = %record.id, error = %Chain(&error),
                    "traffic could not resume a sandbox");
                Wake::Transitioning
            }
        }
    }
}
