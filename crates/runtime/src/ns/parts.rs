//! What a sandbox has on the host, from the first piece of a shim on, and its release.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::watch;
use warren_types::NetworkPolicy;

use super::cgroup::Cgroup;
use super::disk::{Disk, Disks};
use super::net::Network;
use super::slot::{Slot, Slots};

/// A killed process that is not gone after this long hangs in the kernel.
const DEATH_LIMIT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// The first process of a shim or sandbox.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) netns: Arc<OwnedFd>,
}

/// Everything that a sandbox has on the host. Each piece may be missing.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) slot: Slot,
    pub(crate) cgroup: Cgroup,
    pub(crate) process: Option<Process>,
    pub(crate) disk: Option<Disk>,
    /// Whether the firewall may hold something for the slot.
    pub(crate) restricted: AtomicBool,
}

impl Parts {
    pub(crate) fn new(slot: Slot, cgroup: Cgroup) -> Self {
        Self {
            slot,
            cgroup,
            process: None,
            disk: None,
            restricted: AtomicBool::new(false),
        }
    }
}

/// Parts that are released when this is dropped, unless they are taken out before.
pub(crate) struct Guarded {
    parts: Option<Parts>,
    janitor: Janitor,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl Guarded {
    pub(crate) fn new(parts: Parts, janitor: Janitor) -> Self {
        Self {
            parts: Some(parts),
            janitor,
        }
    }

    /// Ends the guard: the parts are the caller's to release.
    pub(crate) fn into_parts(mut self) -> Option<Parts> {
        self.parts.take()
    }
}

impl std::ops::Deref for Guarded {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.parts
            .as_ref()
            .expect("parts are there until the guard ends")
    }
}

impl std::ops::DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut Parts {
        self.parts
            .as_mut()
            .expect("parts are there until the guard ends")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            self.janitor.release(parts);
        }
    }
}

/// The thread that releases parts, in batches. Ends when all handles are dropped.
#[derive(Debug, Clone)]
pub(crate) struct Janitor {
    queue: Sender<Parts>,
    pending: Arc<watch::Sender<usize>>,
}

/// What the janitor needs. Holding it keeps the instance's lock.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) network: Arc<Network>,
    pub(crate) disks: Arc<Disks>,
    pub(crate) slots: Arc<Mutex<Slots>>,
    pub(crate) _lock: Arc<std::fs::File>,
}

impl Janitor {
    pub(crate) fn start(places: Places) -> io::Result<Self> {
        let (queue, waiting) = channel();
        let pending = Arc::new(watch::Sender::new(0));
        let counter = Arc::clone(&pending);
        thread::Builder::new()
            .name("warren-janitor".to_owned())
            .spawn(move || {
                clean(&waiting, &places, &counter);
            })?;
        Ok(Self { queue, pending })
    }

    /// Kills and releases in the background.
    pub(crate) fn release(&self, parts: Parts) {
        self.pending.send_modify(|count| *count += 1);
        if let Err(error) = self.queue.send(parts) {
            // Only when the thread panicked: the next start sweeps.
            tracing::error!(slot = error.0.slot.number(), "nobody releases a sandbox");
            self.pending.send_modify(|count| *count -= 1);
        }
    }

    /// Waits until nothing is left to release.
    pub(crate) async fn drain(&self) {
        // The sender lives in `self`, so the channel is open.
        let mut pending = self.pending.subscribe();
        let _open = pending.wait_for(|count| *count == 0).await;
    }
}

fn clean(waiting: &Receiver<Parts>, places: &Places, pending: &watch::Sender<usize>) {
    while let Ok(first) = waiting.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
        for parts in &batch {
            if let Err(error) = parts.cgroup.kill() {
                warn(parts.slot, "kill", &error);
            }
        }
        for parts in batch {
            let slot = parts.slot;
            match release(parts, places) {
                Ok(()) => places
                    .slots
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .release(slot),
                // The slot stays taken: its next user would meet the remains.
                Err((what, error)) => warn(slot, what, &error),
            }
            pending.send_modify(|count| *count -= 1);
        }
    }
}

fn warn(slot: Slot, what: &str, error: &io::Error) {
    tracing::warn!(slot = slot.number(), what, %error, "a sandbox is not released completely");
}

fn release(mut parts: Parts, places: &Places) -> Result<(), (&'static str, io::Error)> {
    let died = match parts.process.take() {
        Some(process) => wait_for_death(&process.pidfd),
        None => Ok(()),
    };
    let permitted = if parts.restricted.load(Ordering::Relaxed) {
        places
            .network
            .set_policy_blocking(parts.slot, NetworkPolicy::default())
    } else {
        Ok(())
    };
    let removed = parts.cgroup.remove();
    let returned = match parts.disk.take() {
        Some(disk) => places.disks.give_back(disk),
        None => Ok(()),
    };
    died.map_err(|error| ("process", error))?;
    permitted.map_err(|error| ("firewall rules", error))?;
    removed.map_err(|error| ("cgroup", error))?;
    returned.map_err(|error| ("disk", error))
}

/// Blocks until a killed process is gone.
pub(crate) fn wait_for_death(pidfd: &OwnedFd) -> io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    match poll(&mut fds, Some(&DEATH_LIMIT))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
