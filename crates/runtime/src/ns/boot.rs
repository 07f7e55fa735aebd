//! Booting: the steps from a shim to a sandbox whose agent listens.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use warren_sys::fdpass;
use warren_types::NetworkPolicy;

use super::capture::Capture;
use super::core::Core;
use super::disk::Disk;
use super::parts::{Guarded, Parts};
use super::protocol::{MAX_MESSAGE, Order};
use super::rootfs;
use super::shims::Shim;
use super::step::{Doing, Step};
use crate::{BootSpec, RuntimeError};

/// An agent that does not listen by then never will.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The key must fit the pipe without a reader.
const MAX_KEY: usize = 4096;

/// A sandbox whose agent was started.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) parts: Guarded,
    orders: OwnedFd,
    ready: OwnedFd,
}

/// Makes a sandbox of a shim. Blocks; runs on a launcher thread.
pub(super) fn launch(
    core: &Core,
    shim: Shim,
    spec: &BootSpec,
    from: Option<&Capture>,
) -> Result<Launched, RuntimeError> {
    let Shim {
        mut parts,
        orders,
        user_namespace,
    } = shim;
    let from = from.map(|capture| (capture, capture.manifest.source == spec.id));
    let root = assemble(core, &mut parts, user_namespace.as_fd(), spec, from)?;
    core.check(Step::Launch)?;
    let disk = parts.disk.as_ref().ok_or(io::ErrorKind::NotFound.into());
    let log = disk.and_then(Disk::open_log).doing(Step::Launch)?;
    let ready = hand_over(&orders, root, log, spec).doing(Step::Launch)?;
    Ok(Launched {
        parts,
        orders,
        ready,
    })
}

/// Gives a shim's parts a disk (from a capture, if there is one, with its log if that goes
/// on), limits and policy, and joins the root. Blocks.
pub(super) fn assemble(
    core: &Core,
    parts: &mut Parts,
    user_namespace: BorrowedFd<'_>,
    spec: &BootSpec,
    from: Option<(&Capture, bool)>,
) -> Result<OwnedFd, RuntimeError> {
    let slot = parts.slot;
    core.check(Step::Layers)?;
    let layers = rootfs::open_layers(&spec.layers).map_err(|(path, error)| {
        if error.kind() == io::ErrorKind::NotFound {
            RuntimeError::LayerMissing(path)
        } else {
            Step::Layers.failed(error)
        }
    })?;
    core.check(Step::Disk)?;
    let disk = match from {
        None => core.disks.take(spec.resources.disk_mib),
        Some((capture, log_goes_on)) => {
            core.disks
                .restore(&capture.disk(), &capture.manifest.disk, log_goes_on)
        }
    };
    let disk = parts.disk.insert(disk.doing(Step::Disk)?);
    disk.claim(slot).doing(Step::Disk)?;
    core.check(Step::Limits)?;
    parts.cgroup.limit(&spec.resources).doing(Step::Limits)?;
    core.check(Step::Policy)?;
    if spec.policy != NetworkPolicy::default() {
        parts
            .restricted
            .store(true, std::sync::atomic::Ordering::Relaxed);
        core.network
            .set_policy_blocking(slot, spec.policy.clone())
            .doing(Step::Policy)?;
    }
    core.check(Step::Root)?;
    let Some(disk) = &parts.disk else {
        return Err(Step::Root.failed(io::ErrorKind::NotFound.into()));
    };
    core.joiner
        .join(&layers, disk, slot, user_namespace)
        .doing(Step::Root)
}

/// Sends the shim what it needs and gives the reading end of the ready pipe.
fn hand_over(
    orders: &OwnedFd,
    root: OwnedFd,
    log: OwnedFd,
    spec: &BootSpec,
) -> io::Result<OwnedFd> {
    let agent = File::open(&spec.agent.executable)?;
    let (ready, ready_writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let (key, key_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    if spec.agent.init_key.len() > MAX_KEY {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    File::from(key_writer).write_all(spec.agent.init_key.as_bytes())?;
    let fds = [
        root.as_fd(),
        agent.as_fd(),
        ready_writer.as_fd(),
        log.as_fd(),
        key.as_fd(),
    ];
    let order = Order::Launch {
        cpus: spec.resources.cpu_count,
        memory_mib: spec.resources.memory_mib,
    };
    fdpass::send(orders, &order.encode(), &fds)?;
    Ok(ready)
}

impl Launched {
    /// Waits until the agent listens.
    pub(super) async fn ready(self, core: &Core) -> Result<Guarded, RuntimeError> {
        core.check(Step::Ready)?;
        let Self {
            parts,
            orders,
            ready,
        } = self;
        let mut ready = Receiver::from_owned_fd(ready).doing(Step::Ready)?;
        let mut byte = [0];
        let read = ready.read(&mut byte);
        match tokio::time::timeout(READY_LIMIT, read).await {
            Err(_) => Err(RuntimeError::Agent("it does not listen in time".to_owned())),
            Ok(Err(error)) => Err(Step::Ready.failed(error)),
            Ok(Ok(0)) => Err(RuntimeError::Agent(last_words(&orders))),
            Ok(Ok(_)) => Ok(parts),
        }
    }
}

/// Why a shim failed, if it was still one. It has closed its end by now.
fn last_words(orders: &OwnedFd) -> String {
    let mut buffer = [0; MAX_MESSAGE];
    match fdpass::receive(orders, &mut buffer) {
        Ok((length, _)) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
        Err(_) => "it ended before it listened".to_owned(),
    }
}
