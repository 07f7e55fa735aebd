//! Finds a sandbox by id. Entries are added once a sandbox is usable and removed before
//! its connections are cut, so a lookup never yields a sandbox that is going away.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, watch};
use warren_cluster::SandboxView;
use warren_runtime::Dial;
use warren_service::{CancellationToken, Secret};
use warren_types::{NetworkConfig, SandboxId};

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

/// A sandbox's entry: how to ask its owner, what is known without asking, how to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) view: watch::Receiver<SandboxView>,
    pub(crate) log_path: PathBuf,
    pub(crate) slot: u32,
    pub(crate) route: RouteFacts,
}

/// All sandboxes that can be reached.
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
            .find(|(_, entry)| entry.slot == slot)
            .map(|(id, _)| id.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}
