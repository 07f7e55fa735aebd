//! The pool of shims and the thread that keeps it filled.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use warren_sys::fdpass;

use super::core::Core;
use super::parts::{Guarded, Parts, Process};
use super::protocol::{Answer, MAX_MESSAGE, MakeShim, Order};
use super::shim::DONE;
use super::step::{Doing, Step};
use crate::RuntimeError;

/// After a failure nobody waited for, the next attempt comes this much later.
const PAUSE: Duration = Duration::from_secs(1);

/// A process that waits for a root.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) parts: Guarded,
    pub(crate) orders: OwnedFd,
    pub(crate) user_namespace: OwnedFd,
}

/// The running helper.
#[derive(Debug)]
pub(crate) struct Helper {
    socket: OwnedFd,
    child: Child,
}

impl Helper {
    pub(crate) fn start(program: &Path) -> io::Result<Self> {
        let (socket, theirs) = fdpass::pair()?;
        let child = Command::new(program)
            .arg(super::HELPER_COMMAND)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket, child })
    }

    fn make(&self, request: MakeShim, cgroup: &OwnedFd) -> io::Result<(Process, [OwnedFd; 2])> {
        fdpass::send(&self.socket, &request.encode(), &[cgroup.as_fd()])?;
        let mut buffer = [0; MAX_MESSAGE];
        let (length, fds) = fdpass::receive(&self.socket, &mut buffer)?;
        let pid = match Answer::decode(&buffer[..length])? {
            Answer::Made { pid } => pid,
            Answer::Failed(why) => return Err(io::Error::other(why)),
        };
        let [pidfd, orders, netns, user] = <[OwnedFd; 4]>::try_from(fds)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok((
            Process {
                pid,
                pidfd,
                netns: Arc::new(netns),
            },
            [orders, user],
        ))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Closing its socket ends the helper; it must not stay a zombie of this process.
        let _closed = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "the helper's end is unknown");
        }
    }
}

type Waiter = oneshot::Sender<Result<Shim, RuntimeError>>;

/// Shims that are ready and boots that wait for one.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
    refill: Mutex<Option<thread::JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Shim>,
    waiting: VecDeque<Waiter>,
    /// Whether shims are made ahead, beyond those that boots wait for.
    ahead: bool,
    stopped: bool,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a shim, or waits for the next one that is made.
    pub(crate) async fn take(&self) -> Result<Shim, RuntimeError> {
        let receiver = {
            let mut state = self.lock();
            if state.stopped {
                return Err(stopped());
            }
            self.changed.notify_one();
            if let Some(shim) = state.ready.pop_front() {
                return Ok(shim);
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(sender);
            receiver
        };
        receiver.await.map_err(|_| stopped())?
    }

    /// Starts to make shims ahead.
    pub(crate) fn start_ahead(&self) {
        self.lock().ahead = true;
        self.changed.notify_one();
    }

    /// Number of shims that are ready.
    pub(crate) fn ready(&self) -> usize {
        self.lock().ready.len()
    }

    /// Tells the refill thread that there may be work.
    pub(crate) fn poke(&self) {
        self.changed.notify_one();
    }

    /// Ends the refill thread and lets go of the shims.
    pub(crate) fn stop(&self) {
        let (ready, waiting) = {
            let mut state = self.lock();
            state.stopped = true;
            (
                std::mem::take(&mut state.ready),
                std::mem::take(&mut state.waiting),
            )
        };
        self.changed.notify_all();
        drop((ready, waiting));
    }

    /// Waits for the end of the refill thread, which has been told to stop: a shim in the
    /// making is with the janitor then. Blocks.
    pub(crate) fn join(&self) {
        let refill = self
            .refill
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if refill.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the refill thread panicked");
        }
    }

    fn hand_out(&self, made: Result<Shim, RuntimeError>) -> bool {
        let mut made = made;
        loop {
            let waiter = {
                let mut state = self.lock();
                match state.waiting.pop_front() {
                    Some(waiter) => waiter,
                    None => {
                        let failed = made.is_err();
                        match made {
                            Ok(shim) if !state.stopped => state.ready.push_back(shim),
                            Ok(shim) => {
                                drop(state);
                                drop(shim);
                            }
                            Err(error) => {
                                tracing::warn!(error = %chain(&error), "no shim could be made");
                            }
                        }
                        return failed;
                    }
                }
            };
            match waiter.send(made) {
                Ok(()) => return false,
                // That boot was given up; the shim is for the next.
                Err(back) => made = back,
            }
        }
    }
}

fn chain(error: &RuntimeError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn stopped() -> RuntimeError {
    RuntimeError::Step {
        step: "take a prepared sandbox".to_owned(),
        source: io::Error::other("the runtime is stopped"),
    }
}

/// Starts the thread that keeps the pool of `core` filled, until the pool is stopped.
pub(crate) fn start_refill(core: &Arc<Core>, pool: &Arc<Pool>) -> io::Result<()> {
    let owner = Arc::clone(pool);
    let (core, pool) = (Arc::downgrade(core), Arc::clone(pool));
    let thread = thread::Builder::new()
        .name("warren-refill".to_owned())
        .spawn(move || {
            while let Some(core) = core.upgrade() {
                let work = {
                    let state = pool.lock();
                    if state.stopped {
                        return;
                    }
                    let short = state.ready.len() < core.config.prepared;
                    if !state.waiting.is_empty() || (state.ahead && short) {
                        Work::Shim
                    } else if state.ahead && core.disks.is_short() {
                        Work::Disk
                    } else {
                        drop(core);
                        let _woken = pool.changed.wait(state);
                        continue;
                    }
                };
                let failed = match work {
                    Work::Shim => pool.hand_out(make(&core)),
                    Work::Disk => core
                        .disks
                        .prepare()
                        .inspect_err(|error| tracing::warn!(%error, "no disk could be prepared"))
                        .is_err(),
                };
                drop(core);
                if failed {
                    let state = pool.lock();
                    let _woken = pool.changed.wait_timeout(state, PAUSE);
                }
            }
        })?;
    *owner.refill.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    Ok(())
}

enum Work {
    Shim,
    Disk,
}

fn make(core: &Core) -> Result<Shim, RuntimeError> {
    core.check(Step::Slot)?;
    let cgroups = &core.cgroups;
    let slot = core
        .slots()
        .take(|instance| cgroups.is_gone(instance))
        .doing(Step::Slot)?
        .ok_or(RuntimeError::NoSlot(super::slot::Slots::capacity()))?;
    let cgroup = cgroups.of(slot);
    let mut parts = core.guard(Parts::new(slot, cgroup));
    core.check(Step::Cgroup)?;
    parts.cgroup.create().doing(Step::Cgroup)?;
    let dir = parts.cgroup.open().doing(Step::Cgroup)?;
    core.check(Step::Clone)?;
    let request = MakeShim {
        first_id: slot.first_id(),
    };
    let (process, [orders, user_namespace]) = core
        .ask_helper(|helper| helper.make(request, &dir))
        .doing(Step::Clone)?;
    let (pid, netns) = (process.pid, Arc::clone(&process.netns));
    parts.process = Some(process);
    core.check(Step::Attach)?;
    parts.cgroup.attach(pid).doing(Step::Attach)?;
    core.check(Step::Link)?;
    core.network.link(slot, netns).doing(Step::Link)?;
    core.check(Step::Prepare)?;
    let order = Order::Prepare {
        address: slot.address(),
        gateway: slot.gateway(),
    };
    fdpass::send(&orders, &order.encode(), &[]).doing(Step::Prepare)?;
    confirm(&orders).doing(Step::Prepare)?;
    Ok(Shim {
        parts,
        orders,
        user_namespace,
    })
}

/// Waits for a shim's answer.
fn confirm(orders: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0; MAX_MESSAGE];
    let (length, _) = fdpass::receive(orders, &mut buffer)?;
    if &buffer[..length] == DONE {
        Ok(())
    } else {
        Err(io::Error::other(
            String::from_utf8_lossy(&buffer[..length]).into_owned(),
        ))
    }
}
