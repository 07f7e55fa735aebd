//! Collects the exit statuses of children, and of orphans when we are process 1.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::agent::lock;

/// Children that are not reaped yet.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    children: Mutex<HashMap<Pid, oneshot::Sender<WaitStatus>>>,
}

impl Reaper {
    /// Announces a child. Call it before the runtime gets to run other tasks, else the
    /// status may be collected as an orphan's.
    pub(crate) fn register(&self, pid: Pid) -> oneshot::Receiver<WaitStatus> {
        let (tx, rx) = oneshot::channel();
        lock(&self.children).insert(pid, tx);
        rx
    }

    /// Sends a signal to a child unless it is reaped, when its pid may be someone else's.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) fn signal(&self, pid: Pid, signal: Signal) -> io::Result<bool> {
        let children = lock(&self.children);
        if !children.contains_key(&pid) {
            return Ok(false);
        }
        rustix::process::kill_process(pid, signal)?;
        Ok(true)
    }

    /// Kills every child that is left.
    pub(crate) fn kill_all(&self) {
        for pid in lock(&self.children).keys() {
            // Each leads a process group; both may be gone already.
            let _ = rustix::process::kill_process_group(*pid, Signal::KILL);
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
        }
    }

    /// Reaps for as long as the agent runs.
    ///
    /// # Errors
    /// The signal handler can't be installed.
    pub(crate) fn start(self: Arc<Self>) -> io::Result<impl Future<Output = ()> + Send> {
        let mut child_signal = signal(SignalKind::child())?;
        Ok(async move {
            loop {
                self.collect();
                if child_signal.recv().await.is_none() {
                    return;
                }
            }
        })
    }

    fn collect(&self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Some(waiter) = lock(&self.children).remove(&pid) {
                        // The supervisor may be gone when the agent stops.
                        let _ = waiter.send(status);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}
