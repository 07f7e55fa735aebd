//! What the parts of a running runtime share.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cgroup::Cgroups;
use super::config::NsConfig;
use super::criu::{Criu, Hold, TOOLS};
use super::disk::Disks;
use super::instance::Instance;
use super::net::Network;
use super::parts::{Guarded, Janitor, Parts};
use super::rootfs::Joiner;
use super::shims::Helper;
use super::slot::Slots;
use super::step::Step;
use super::worker::Worker;
use crate::RuntimeError;

/// Shared by the runtime, its sandboxes and its threads.
pub(crate) struct Core {
    pub(crate) config: NsConfig,
    pub(crate) instance: Instance,
    pub(crate) cgroups: Cgroups,
    pub(crate) network: Arc<Network>,
    pub(crate) disks: Arc<Disks>,
    pub(crate) slots: Arc<Mutex<Slots>>,
    pub(crate) janitor: Janitor,
    /// Threads that join roots: they keep capabilities while they change their identity.
    pub(crate) launchers: Worker<()>,
    pub(crate) joiner: Joiner,
    pub(crate) helper: Mutex<Option<Helper>>,
    pub(crate) criu: Mutex<Hold>,
    pub(crate) fail_at: Mutex<Option<Step>>,
    pub(crate) _lock: Arc<File>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn guard(&self, parts: Parts) -> Guarded {
        Guarded::new(parts, self.janitor.clone())
    }

    /// Fails once if a test asked for it at this step.
    pub(crate) fn check(&self, step: Step) -> Result<(), RuntimeError> {
        let mut wanted = self.fail_at.lock().unwrap_or_else(PoisonError::into_inner);
        if *wanted == Some(step) {
            *wanted = None;
            return Err(step.failed(io::Error::other("asked to fail")));
        }
        Ok(())
    }

    /// The program for memory, or why there is none. Found once; looked for until then.
    pub(crate) fn criu(&self) -> Result<Criu, String> {
        self.lock_criu().get(&self.tools())
    }

    pub(crate) fn lock_criu(&self) -> MutexGuard<'_, Hold> {
        self.criu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the tools of this instance are.
    pub(crate) fn tools(&self) -> PathBuf {
        self.config.data_dir.join(TOOLS)
    }

    /// Asks the helper for something; starts a new one when it has died.
    pub(crate) fn ask_helper<T>(&self, ask: impl Fn(&Helper) -> io::Result<T>) -> io::Result<T> {
        let mut helper = self.helper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*helper {
            match ask(running) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof
                            | io::ErrorKind::BrokenPipe
                            | io::ErrorKind::ConnectionReset
                    ) =>
                {
                    tracing::warn!(%error, "the helper died; starting another");
                }
                other => return other,
            }
        }
        let fresh = Helper::start(&self.config.helper)?;
        let answer = ask(&fresh);
        *helper = Some(fresh);
        answer
    }
}
