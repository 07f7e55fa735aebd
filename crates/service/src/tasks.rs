//! Tasks with an owner that stops and joins them.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks and the token that asks them to stop. Clones share the group.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Makes an empty group with a stop token of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty group that stops when `parent` does.
    #[must_use]
    pub fn child_of(parent: &CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: parent.child_token(),
        }
    }

    /// The token that asks this group's tasks to stop.
    #[must_use]
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task that this group owns.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Starts a task that this group owns and that is dropped where it stands when the group
    /// is asked to stop.
    pub fn spawn_until_stopped<F>(&self, task: F)
    where
        F: Future + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = task => {}
            }
        });
    }

    /// Runs a blocking closure on a thread of the blocking pool that this group owns.
    pub fn spawn_blocking<F, T>(&self, task: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tracker.spawn_blocking(task)
    }

    /// Asks every task to stop and waits for them, at most `limit`. Returns how many were
    /// still running then.
    pub async fn stop(&self, limit: Duration) -> usize {
        self.stop.cancel();
        self.tracker.close();
        match tokio::time::timeout(limit, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tracker.len(),
        }
    }
}
