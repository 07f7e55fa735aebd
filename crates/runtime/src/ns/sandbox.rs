//! A booted sandbox.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use warren_sys::pidfd;
use warren_types::NetworkPolicy;

use super::attach;
use super::capture::Draft;
use super::commit;
use super::core::Core;
use super::criu;
use super::dial::{Door, NsDial};
use super::parts::Parts;
use crate::{
    Attachment, CaptureInfo, Committed, Dial, ExitCause, Record, RuntimeError, Sandbox, Usage,
};

/// A sandbox of the namespace runtime. Dropping it leaves the sandbox running.
#[derive(Debug)]
pub struct NsSandbox {
    core: Arc<Core>,
    record: Mutex<Record>,
    /// Taken out by the release.
    parts: Arc<Mutex<Option<Parts>>>,
    pidfd: OwnedFd,
    door: Arc<Door>,
    paths: (PathBuf, PathBuf),
    /// Held by whoever changes or needs that the sandbox stands still.
    quiet: Arc<tokio::sync::Mutex<()>>,
}

fn step(step: &str) -> impl Fn(io::Error) -> RuntimeError {
    move |source| RuntimeError::Step {
        step: step.to_owned(),
        source,
    }
}

impl NsSandbox {
    /// Wraps the parts of a sandbox that runs.
    pub(crate) fn new(core: Arc<Core>, record: Record, parts: Parts) -> io::Result<Self> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let process = parts.process.as_ref().ok_or_else(missing)?;
        let disk = parts.disk.as_ref().ok_or_else(missing)?;
        Ok(Self {
            pidfd: process.pidfd.try_clone()?,
            door: Arc::new(Door::open(Arc::clone(&process.netns))),
            paths: (disk.log_path(), disk.upper_path()),
            record: Mutex::new(record),
            parts: Arc::new(Mutex::new(Some(parts))),
            quiet: Arc::default(),
            core,
        })
    }

    /// Directory of what the sandbox has written, as overlayfs stores it with the ids that
    /// the sandbox sees. Valid in this process until [`Sandbox::destroy`].
    #[must_use]
    pub fn upper_path(&self) -> PathBuf {
        self.paths.1.clone()
    }

    fn lock_record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> Option<super::slot::Slot> {
        super::slot::Slot::from_number(self.lock_record().slot)
    }

    async fn died(&self) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "an owned descriptor keeps its number as long as it lives"
        )]
        let fd = AsyncFd::with_interest(self.pidfd.try_clone()?, Interest::READABLE)?;
        let _ended = fd.readable().await?;
        Ok(())
    }

    /// Kills every process and waits for the end of the first, and so of all.
    async fn kill(&self) -> Result<(), RuntimeError> {
        let killed = self.with_parts(|parts| parts.cgroup.kill()).await;
        killed.map_err(step("kill the sandbox"))?;
        self.died()
            .await
            .map_err(step("wait for the sandbox's end"))
    }

    /// Runs a blocking action on the parts, which must be there.
    async fn on_parts<T: Send + 'static>(
        &self,
        what: &str,
        act: impl FnOnce(&Parts) -> io::Result<T> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let done = self.with_parts(act).await;
        done.and_then(|done| done.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(step(what))
    }

    /// Runs a blocking look at the parts; `None` when they are released.
    async fn with_parts<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Parts) -> io::Result<T> + Send + 'static,
    ) -> io::Result<Option<T>> {
        let parts = Arc::clone(&self.parts);
        self.core
            .launchers
            .run(move |()| {
                let parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
                parts.as_ref().map(look).transpose()
            })
            .await
    }
}

impl Sandbox for NsSandbox {
    fn record(&self) -> Record {
        self.lock_record().clone()
    }

    fn dialer(&self) -> Arc<dyn Dial> {
        let address = self
            .slot()
            .map_or(std::net::Ipv4Addr::LOCALHOST, |slot| slot.address());
        Arc::new(NsDial {
            network: Arc::clone(&self.core.network),
            door: Arc::clone(&self.door),
            address,
        })
    }

    async fn usage(&self) -> Result<Usage, RuntimeError> {
        let usage = self
            .with_parts(|parts| {
                let disk_used = parts.disk.as_ref().map_or(Ok(0), super::disk::Disk::used)?;
                Ok(Usage {
                    disk_used,
                    ..parts.cgroup.usage()?
                })
            })
            .await
            .and_then(|usage| usage.ok_or_else(|| io::ErrorKind::NotFound.into()));
        usage.map_err(step("read the use of the host"))
    }

    async fn set_policy(&self, policy: NetworkPolicy) -> Result<(), RuntimeError> {
        let slot = {
            let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(parts) = &*parts else {
                return Err(step("set the network policy")(
                    io::ErrorKind::NotFound.into(),
                ));
            };
            let restricted = policy != NetworkPolicy::default();
            parts.restricted.fetch_or(restricted, Ordering::Relaxed);
            parts.slot
        };
        self.core
            .network
            .set_policy(slot, policy.clone())
            .await
            .map_err(step("set the network policy"))?;
        self.lock_record().policy = policy;
        Ok(())
    }

    async fn attach(&self, mounts: Vec<Attachment>) -> Result<(), RuntimeError> {
        self.on_parts("mount volumes", |parts| attach::attach(parts, mounts))
            .await
    }

    fn log_path(&self) -> PathBuf {
        self.paths.0.clone()
    }

    async fn exited(&self) -> ExitCause {
        if let Err(error) = self.died().await {
            tracing::error!(%error, "the end of a sandbox can't be watched");
            // Without a notice the owner must take it for alive, not for dead.
            return std::future::pending().await;
        }
        let killed = match pidfd::exit_status(std::os::fd::AsFd::as_fd(&self.pidfd)) {
            Ok(Some(status)) => pidfd::was_killed(status),
            // Kernels that do not tell leave only the counter.
            Ok(None) | Err(_) => true,
        };
        let kills = self.with_parts(|parts| parts.cgroup.oom_kills()).await;
        match kills {
            Ok(Some(kills)) if killed && kills > 0 => ExitCause::OutOfMemory,
            _ => ExitCause::Died,
        }
    }

    async fn commit(&self, into: PathBuf) -> Result<Committed, RuntimeError> {
        self.kill().await?;
        let failed = step("copy what was written into a layer");
        let upper = commit::open(&self.upper_path()).map_err(&failed)?;
        let launchers = &self.core.launchers;
        launchers
            .apart("warren-commit", move || commit::copy(&upper, &into))
            .map_err(&failed)?
            .await
            .map_err(io::Error::other)
            .and_then(|copied| copied)
            .map_err(&failed)
    }

    async fn freeze(&self) -> Result<(), RuntimeError> {
        let _quiet = self.quiet.lock().await;
        self.on_parts("freeze the sandbox", |parts| parts.cgroup.freeze())
            .await
    }

    async fn thaw(&self) -> Result<(), RuntimeError> {
        let _quiet = self.quiet.lock().await;
        self.on_parts("thaw the sandbox", |parts| parts.cgroup.thaw())
            .await
    }

    async fn is_frozen(&self) -> Result<bool, RuntimeError> {
        self.on_parts("look whether it is frozen", |parts| {
            parts.cgroup.is_frozen()
        })
        .await
    }

    async fn capture(&self, into: &Path, memory: bool) -> Result<CaptureInfo, RuntimeError> {
        let (into, record) = (into.to_owned(), self.record());
        let captures = self.core.disks.captures();
        // Held until the work is done, also when the caller goes away: nobody thaws the
        // sandbox or gives its disk to another meanwhile.
        let quiet = Arc::clone(&self.quiet).lock_owned().await;
        let held = self
            .on_parts("capture the sandbox", |parts| {
                let disk = parts.disk.as_ref().ok_or(io::ErrorKind::NotFound)?;
                Ok((parts.cgroup.clone(), disk.try_clone()?))
            })
            .await;
        let (cgroup, disk) = held?;
        let core = Arc::clone(&self.core);
        let work = move || {
            let _quiet = quiet;
            if !cgroup.is_frozen().map_err(step("capture the sandbox"))? {
                return Err(RuntimeError::NotFrozen);
            }
            let slot = super::slot::Slot::from_number(record.slot)
                .ok_or_else(|| step("capture the sandbox")(io::ErrorKind::NotFound.into()))?;
            let draft = Draft::begin(&captures, &into)?;
            let memory = if memory {
                let criu = core.criu().map_err(RuntimeError::NoCheckpoint)?;
                let source = criu::Source {
                    pid: record.pid,
                    first_id: slot.first_id(),
                    cgroup: &cgroup,
                    disk: &disk,
                    layers: &record.layers,
                };
                Some(criu::dump(&core, &criu, &source, draft.path())?)
            } else {
                None
            };
            let disk = draft.add_disk(&disk)?;
            draft.finish(&record, disk, memory)
        };
        let done = self.core.launchers.apart("warren-capture", work);
        let done = done.map_err(step("start a thread"))?;
        let done = done.await.map_err(io::Error::other);
        done.map_err(step("capture the sandbox"))?
    }

    async fn destroy(&self) -> Result<(), RuntimeError> {
        self.kill().await?;
        let _quiet = self.quiet.lock().await;
        let parts = self
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.door.shut();
        if let Some(parts) = parts {
            self.core.janitor.release(parts);
        }
        Ok(())
    }
}
