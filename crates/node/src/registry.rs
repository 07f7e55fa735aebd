//! Finds a sandbox by id. Entries are added once a sandbox is usable and replaced when a
//! new run of it begins; whether it can be reached is for its view to say, which changes
//! before its connections are cut.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, watch};
use warren_cluster::SandboxView;
use warren_egress::{Authority, Identity};
use warren_runtime::Dial;
use warren_service::{CancellationToken, Secret};
use warren_types::{NetworkConfig, SandboxId, SandboxState};

use crate::sandbox::Command;

/// What the edge needs to forward traffic to a running sandbox.
#[derive(Debug, Clone)]
pub struct RouteFacts {
    /// Opens connections into it.
    pub dial: Arc<dyn Dial>,
    /// Cancelled when this run ends: its connections must be reset.
    pub run: CancellationToken,
    /// Network settings.
    pub network: Arc<NetworkConfig>,
    /// Token that the agent requires.
    pub access_token: Option<Secret>,
}

/// A sandbox's entry: how to ask its owner, and what is known without asking.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) view: watch::Receiver<SandboxView>,
    /// Its processes, unless it is on disk only.
    pub(crate) run: Option<Run>,
}

/// One run of a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) log_path: PathBuf,
    pub(crate) slot: u32,
    pub(crate) authority: Option<Arc<Authority>>,
    pub(crate) route: RouteFacts,
}

/// All sandboxes that run or are paused.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: RwLock<HashMap<SandboxId, Registered>>,
}

impl Registry {
    pub(crate) fn insert(&self, id: SandboxId, entry: Registered) {
        self.entries
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, entry);
    }

    pub(crate) fn remove(&self, id: &SandboxId) {
        self.entries
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    pub(crate) fn get(&self, id: &SandboxId) -> Option<Registered> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    pub(crate) fn all(&self) -> Vec<Registered> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn in_slot(&self, slot: u32) -> Option<SandboxId> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .find(|(_, entry)| entry.run.as_ref().is_some_and(|run| run.slot == slot))
            .map(|(id, _)| id.clone())
    }

    /// Who the running sandbox in a slot is.
    pub(crate) fn identity_in_slot(&self, slot: u32) -> Option<Identity> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find_map(|(id, entry)| {
            let run = entry.run.as_ref().filter(|run| run.slot == slot)?;
            Some(Identity {
                sandbox: id.clone(),
                authority: run.authority.clone(),
            })
        })
    }

    /// How many run, and how many are set aside.
    pub(crate) fn count(&self) -> (usize, usize) {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let paused = entries
            .values()
            .filter(|entry| entry.view.borrow().state == SandboxState::Paused)
            .count();
        (entries.len() - paused, paused)
    }
}
